import pytest

from raee.config import BackboneSpec, CascadePolicy, FixedPolicy, KeySpec, RaeePolicy
from raee.exits import exits_of
from tasks.job import validated_policy
from tasks.models import auto_shard_rows, backbone_of, check_policy, retriever_of
from tests.raee.errors import refused
from tests.raee.models import save_model

_EXITS = exits_of(4, 1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return str(save_model("bert-encoder", tmp_path_factory.mktemp("model") / "encoder"))


def _spec(model):
    return BackboneSpec(family="sentence-encoder", model=model, dtype="float32")


def test_a_model_is_loaded_once_a_process(encoder):
    assert backbone_of(_spec(encoder)) is backbone_of(_spec(encoder))


def test_a_key_has_a_model_of_its_own_or_none(encoder):
    assert retriever_of(KeySpec(layer=2), "float32") is None
    assert retriever_of(KeySpec(model=encoder), "float32") is backbone_of(_spec(encoder))


def test_shards_are_smaller_the_longer_the_texts(encoder):
    backbone = backbone_of(_spec(encoder))
    sizes = [auto_shard_rows(backbone, characters) for characters in (1, 50, 200, 10_000, 1e9)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(100 <= size <= 50_000 and size % 100 == 0 for size in sizes)
    assert sizes[3] == sizes[4], "texts are cut to the model's limit"


@pytest.mark.parametrize(
    "policy",
    [
        *("full", "fixed", "retrieval", "raee", "cascade"),
        FixedPolicy(exit="head@4"),
        FixedPolicy(exit="vote@1"),
        CascadePolicy(first=4),
        RaeePolicy(k=99),
    ],
)
def test_policies_fit_the_exits_that_there_are(policy):
    check_policy(validated_policy(policy) if isinstance(policy, str) else policy, _EXITS)


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        (FixedPolicy(exit="head@5"), "exit 'head@5' is not in the database; it has head@0"),
        (FixedPolicy(exit="vote@0"), "exit 'vote@0' is not in the database"),
        (FixedPolicy(exit="nonsense"), "exit 'nonsense' is not in the database"),
        (CascadePolicy(first=5), "policy.first 5 is deeper than the backbone .4 layers."),
    ],
)
def test_other_policies_are_refused(policy, match):
    with refused(match):
        check_policy(policy, _EXITS)

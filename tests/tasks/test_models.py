from types import SimpleNamespace

import pytest
import torch

from raee.config import (
    BackboneSpec,
    CascadePolicy,
    De3Policy,
    FixedPolicy,
    KernelPolicy,
    KeySpec,
    RaeePolicy,
    RetrievalPolicy,
)
from raee.exits import exits_of, swept_exits
from tasks.job import validated_policy
from tasks.models import auto_shard_rows, backbone_of, check_policy, retriever_of
from tests.raee.errors import refused
from tests.raee.models import save_model

_EXITS = exits_of(4, (1, 3))
_FIRST_FORMAT = swept_exits(4, (1,))


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
    sizes = [auto_shard_rows(backbone, length, 1.0) for length in (1, 50, 200, 10_000, 1e9)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(100 <= size <= 50_000 and size % 100 == 0 for size in sizes)
    assert sizes[3] == sizes[4], "texts are cut to the model's limit"


def test_shards_are_larger_the_more_rows_are_taken_over():
    backbone = SimpleNamespace(
        device=torch.device("cpu"), max_tokens=512, layer_parameters=50_000_000
    )
    whole, half, none = (auto_shard_rows(backbone, 400, new) for new in (1.0, 0.5, 0.0))
    assert whole < half < none
    assert none == pytest.approx(10 * whole, rel=0.1)


@pytest.mark.parametrize(
    "policy",
    [
        *("full", "fixed", "retrieval", "raee", "kernel", "cascade", "de3", "tuned"),
        FixedPolicy(exit="head@4"),
        FixedPolicy(exit="vote@1"),
        FixedPolicy(exit="logistic@4"),
        RetrievalPolicy(exit="vote@3"),
        CascadePolicy(first=4),
        CascadePolicy(readers=("vote",), first=2),
        De3Policy(first=1, last=2),
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
        (FixedPolicy(exit="logistic@3"), "exit 'logistic@3' is not in the database"),
        (RetrievalPolicy(exit="head@1"), "policy.exit 'head@1' is no vote"),
        (CascadePolicy(first=5), "policy.first 5 is deeper than the backbone .4 layers."),
        (De3Policy(last=9), "policy.last 9 is deeper than the backbone .4 layers."),
        (
            CascadePolicy(readers=("vote",), first=2, last=2),
            "the database has no exit of the readers vote from depth 2 to 2",
        ),
    ],
)
def test_other_policies_are_refused(policy, match):
    with refused(match):
        check_policy(policy, _EXITS)


def test_of_many_exits_some_are_named():
    with refused("it has head@0, head@1, .*, head@9 and 45 more$"):
        check_policy(FixedPolicy(exit="head@99"), exits_of(12, (1, 3)))
    with refused(f"exit '{'x' * 77}.. is not in the database"):
        check_policy(FixedPolicy(exit="x" * 10_000), _EXITS)


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        (CascadePolicy(), "no exit of the readers probe from depth 0 to 4"),
        (De3Policy(), "no exit of the readers de3 from depth 0 to 4"),
        (KernelPolicy(readers=("probe",)), "no exit of the readers probe"),
        (FixedPolicy(exit="probe@2"), "exit 'probe@2' is not in the database; it has head@0"),
    ],
)
def test_a_version_without_probes_refuses_what_reads_them(policy, match):
    with refused(match):
        check_policy(policy, _FIRST_FORMAT)


@pytest.mark.parametrize(
    "policy", [*("full", "fixed", "retrieval", "raee", "tuned"), CascadePolicy(readers=("head",))]
)
def test_a_version_without_probes_runs_the_others(policy):
    check_policy(validated_policy(policy) if isinstance(policy, str) else policy, _FIRST_FORMAT)

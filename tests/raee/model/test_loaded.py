import pytest

from raee.config import BackboneSpec, KeySpec
from raee.model.loaded import backbone_of, retriever_of
from tests.raee.models import save_model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return str(save_model("bert-encoder", tmp_path_factory.mktemp("model") / "encoder"))


def _spec(model):
    return BackboneSpec(family="sentence-encoder", model=model, dtype="float32")


def test_a_model_is_loaded_once_a_process(encoder):
    assert backbone_of(_spec(encoder)) is backbone_of(_spec(encoder))


def test_a_key_has_a_model_of_its_own_or_none(encoder):
    assert retriever_of(KeySpec(layer=2), _spec(encoder)) is None
    assert retriever_of(KeySpec(model=encoder), _spec("m")) is backbone_of(_spec(encoder))

from types import SimpleNamespace

import pytest

from raee.config import BackboneSpec
from raee.model.loaded import backbone_of
from tasks.models import auto_shard_rows
from tests.raee.models import save_model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return str(save_model("bert-encoder", tmp_path_factory.mktemp("model") / "encoder"))


def _spec(model):
    return BackboneSpec(family="sentence-encoder", model=model, dtype="float32")


def test_shards_are_smaller_the_longer_the_texts(encoder):
    backbone = backbone_of(_spec(encoder))
    sizes = [auto_shard_rows(backbone, "cpu", length, 1.0) for length in (1, 50, 200, 10_000, 1e9)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(100 <= size <= 50_000 and size % 100 == 0 for size in sizes)
    assert sizes[3] == sizes[4], "texts are cut to the model's limit"


def test_shards_are_larger_the_more_rows_are_reused():
    backbone = SimpleNamespace(max_tokens=512, layer_parameters=50_000_000)
    whole, half, none = (auto_shard_rows(backbone, "cpu", 400, new) for new in (1.0, 0.5, 0.0))
    assert whole < half < none
    assert none == pytest.approx(10 * whole, rel=0.1)

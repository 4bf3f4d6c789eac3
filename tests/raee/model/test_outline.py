"""What a model's small files say of it is what the loaded model says."""

from dataclasses import fields

import pytest

from raee.model import loading
from raee.model.backbones import Outline
from raee.model.loading import outline_of
from tests.raee.models import ARCHITECTURES, save_model

_TOKENIZER = "tokenizer"


@pytest.mark.parametrize("name", [*ARCHITECTURES, "minilm"])
def test_an_outline_says_what_the_loaded_model_says(backbone_of, spec_of, name):
    loaded, outline = backbone_of(name), outline_of(spec_of(name))
    for field in fields(Outline):
        if field.name != _TOKENIZER:
            assert getattr(outline, field.name) == getattr(loaded, field.name), field.name
    assert outline.tokenizer("a b")["input_ids"] == loaded.tokenizer("a b")["input_ids"]


def test_no_weight_is_loaded_for_an_outline(tmp_path, spec_of, monkeypatch):
    folder = save_model("bert", tmp_path / "model")
    monkeypatch.setattr(loading, "_loaded", None)
    spec = spec_of("bert").model_copy(update={"model": str(folder)})
    (folder / "model.safetensors").write_bytes(b"no weights")
    assert outline_of(spec).depth == 4

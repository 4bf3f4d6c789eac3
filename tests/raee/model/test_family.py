import json
import shutil

import pytest

from raee.model.family import family_of
from tests.raee.errors import refused
from tests.raee.models import ARCHITECTURES, GENERATIVE_LMS, MASKED_LMS, SENTENCE_ENCODERS


@pytest.mark.parametrize("name", MASKED_LMS)
def test_a_model_with_the_head_of_a_masked_lm_is_one(name, folder_of):
    assert family_of(str(folder_of(name)), "main") == "masked-lm"


@pytest.mark.parametrize("name", [*SENTENCE_ENCODERS, "minilm"])
def test_a_model_without_a_head_is_a_sentence_encoder(name, folder_of):
    assert family_of(str(folder_of(name)), "main") == "sentence-encoder"


def test_what_sentence_transformers_has_saved_is_a_sentence_encoder_whatever_its_head(
    folder_of, tmp_path
):
    model = shutil.copytree(folder_of("bert"), tmp_path / "model")
    (model / "modules.json").write_text("[]")
    assert family_of(str(model), "main") == "sentence-encoder"


@pytest.mark.parametrize("name", GENERATIVE_LMS)
def test_a_model_with_the_head_of_a_generative_lm_is_one(name, folder_of):
    assert family_of(str(folder_of(name)), "main") == ARCHITECTURES[name].family


@pytest.mark.parametrize("kind", ["GPTForTokenClassification", "GPT2DoubleHeadsModel"])
def test_a_model_of_another_kind_is_refused_with_what_to_say(kind, folder_of, tmp_path):
    model = shutil.copytree(folder_of("bert"), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"architectures": [kind]}))
    with refused(f"architectures: {kind}.*family='sentence-encoder'"):
        family_of(str(model), "main")


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with refused("is not there or has no config.json"):
        family_of(str(tmp_path), "main")
    with refused("is not there or has no config.json"):
        family_of("nobody/has-this", "main")

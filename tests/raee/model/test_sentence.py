"""A sentence encoder's own modules and prompts count, or are refused by their names."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from tokenizers import normalizers
from torch import nn

from raee.classify import classify
from raee.config import BackboneSpec, FixedPolicy, KeySpec
from raee.model.batches import encode
from raee.model.loading import load_backbone
from raee.model.prompts import Prompt
from raee.neighbours.keys import retriever_keys
from raee.readers.states import probe_states
from tests.raee.databases import LABELS, TEXTS, build
from tests.raee.errors import refused
from tests.raee.models import LAYERS, POSITIONS, WIDTH

_KIND = "sentence_transformers.models."
_OUT = 24


@pytest.fixture
def folder(folder_of, tmp_path) -> Path:
    return Path(shutil.copytree(folder_of("bert-encoder"), tmp_path / "encoder"))


def _load(folder, **settings):
    spec = BackboneSpec(family="sentence-encoder", model=str(folder), dtype="float32", **settings)
    return load_backbone(spec, torch.device("cpu"))


def _modules(folder: Path, *kinds: str, pooling: str = "mean") -> None:
    named = [{"idx": 0, "path": "", "type": f"{_KIND}Transformer"}]
    for place, kind in enumerate(["Pooling", *kinds], start=1):
        name = kind.rpartition(".")[2]
        named.append(
            {
                "idx": place,
                "path": f"{place}_{name}",
                "type": kind if "." in kind else _KIND + kind,
            }
        )
    (folder / "modules.json").write_text(json.dumps(named))
    _write(folder / "1_Pooling" / "config.json", {"pooling_mode": pooling})


def _write(path: Path, values) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))


def _dense(path: Path, into: int = WIDTH, out: int = _OUT, **changed) -> nn.Linear:
    """A Dense module with weights that are drawn, written to a folder."""
    torch.manual_seed(out)
    linear = nn.Linear(into, out, bias=changed.get("bias", True))
    settings = {"in_features": into, "out_features": out, "bias": True}
    usual = {"activation_function": "torch.nn.modules.activation.Tanh"}
    _write(path / "config.json", settings | usual | changed)
    weights = {f"linear.{name}": value for name, value in linear.state_dict().items()}
    safetensors.torch.save_file(weights, path / "model.safetensors")
    return linear


@torch.no_grad()
def test_dense_modules_read_the_pooled_state_as_it_is_and_not_its_direction(folder, plain_of):
    _modules(folder, "Dense", "Normalize", "Dense", "Normalize")
    first = _dense(folder / "2_Dense")
    then = {"bias": False, "activation_function": "torch.nn.modules.linear.Identity"}
    second = _dense(folder / "4_Dense", _OUT, 40, **then)
    backbone, plain = _load(folder), plain_of("bert-encoder")
    own = retriever_keys(backbone, TEXTS)
    assert own.shape == (len(TEXTS), 40)
    for text, vector in zip(TEXTS, own, strict=True):
        pooled = plain.hidden_states(text)[-1].mean(dim=0)
        between = nn.functional.normalize(first(pooled).tanh(), dim=0)
        right = nn.functional.normalize(second(between), dim=0)
        np.testing.assert_allclose(vector, right.numpy(), atol=1e-5)


def test_the_last_real_token_is_the_last_one_before_the_padding(folder, plain_of):
    _modules(folder, "Normalize", pooling="lasttoken")
    own, plain = retriever_keys(_load(folder), TEXTS), plain_of("bert-encoder")
    for text, vector in zip(TEXTS, own, strict=True):
        right = nn.functional.normalize(plain.hidden_states(text)[-1, -1], dim=0)
        np.testing.assert_allclose(vector, right.numpy(), atol=1e-5)


def test_a_database_of_an_encoder_with_dense_modules_has_its_head_at_every_depth(folder):
    _modules(folder, "Dense")
    _dense(folder / "2_Dense")
    backbone = _load(folder)
    assert backbone.pooled_size == _OUT
    assert probe_states(backbone) == ("mean", "answer")
    labels = [i % len(LABELS) for i in range(len(TEXTS))]
    database = build(backbone, TEXTS, labels, KeySpec(), state="answer").database
    heads = [exit for exit in database.entries.exits if exit.reader == "head"]
    assert len(heads) == LAYERS + 1
    found = classify(database, FixedPolicy(exit="head@2"), TEXTS)
    assert found.layers_run == 2 * len(TEXTS)


class TestPrompt:
    @pytest.fixture
    def asking(self, folder):
        _modules(folder)
        prompts = {"query": "query: ", "document": ""}
        named = {"prompts": prompts, "default_prompt_name": "query"}
        _write(folder / "config_sentence_transformers.json", named)
        return folder

    def test_the_default_one_stands_before_every_text(self, asking):
        backbone = _load(asking)
        ids = encode(backbone, Prompt((), ()), ["a film"]).token_ids[0]
        assert ids.tolist() == backbone.tokenizer("query: a film")["input_ids"]

    def test_a_long_text_loses_its_end_and_not_its_prompt(self, asking):
        backbone = _load(asking)
        encoded = encode(backbone, Prompt((), ()), ["warm " * 100])
        assert encoded.truncated[0]
        assert len(encoded.token_ids[0]) == POSITIONS
        start = backbone.tokenizer("query: warm")["input_ids"][:-1]
        assert encoded.token_ids[0][: len(start)].tolist() == start

    def test_a_template_of_the_jobs_own_stands_instead(self, asking):
        backbone = _load(asking)
        ids = encode(backbone, Prompt((), (), "it was {text}"), ["good"]).token_ids[0]
        assert ids.tolist() == backbone.tokenizer("it was good")["input_ids"]

    def test_without_a_default_there_is_none(self, asking):
        _write(asking / "config_sentence_transformers.json", {"prompts": {"query": "query: "}})
        assert _load(asking).prefix == ""

    def test_a_default_that_is_not_there_is_refused(self, asking):
        _write(asking / "config_sentence_transformers.json", {"default_prompt_name": "q"})
        with refused("has no prompt 'q', its default"):
            _load(asking)

    def test_a_pooling_without_it_is_refused(self, asking):
        _write(asking / "1_Pooling" / "config.json", {"include_prompt": False})
        with refused("its pooling leaves out the prompt"):
            _load(asking)


def test_texts_are_lower_cased_if_the_configuration_says_so(folder):
    _write(
        folder / "config_sentence_transformers.json",
        {"prompts": {"q": "It: "}, "default_prompt_name": "q"},
    )
    _write(folder / "sentence_bert_config.json", {"do_lower_case": True})
    backbone = _load(folder)
    # A tokenizer that keeps capitals apart.
    backbone.tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    (ids,) = encode(backbone, Prompt((), ()), ["A Film"]).token_ids
    assert ids.tolist() == backbone.tokenizer("it: a film")["input_ids"]
    assert ids.tolist() != backbone.tokenizer("It: A Film")["input_ids"]


@pytest.mark.parametrize(
    ("kinds", "match"),
    [
        (["LSTM"], "names the module LSTM after the pooling; only Dense and Normalize"),
        (["Normalize", "WordWeights"], "names the module WordWeights"),
        (["own.code.Dense"], "names the module own.code.Dense"),
    ],
)
def test_another_module_is_refused_by_its_name(folder, kinds, match):
    _modules(folder, *kinds)
    with refused(match):
        _load(folder)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{}", "modules.json is no JSON list"),
        ("[]", "begins with nothing"),
        ("[1]", "a module without a type"),
        (json.dumps([{"type": f"{_KIND}WordEmbeddings"}]), "begins with WordEmbeddings; it must"),
    ],
)
def test_modules_that_do_not_begin_with_a_transformer_and_a_pooling_are_refused(
    folder, content, match
):
    (folder / "modules.json").write_text(content)
    with refused(match):
        _load(folder)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"activation_function": "own.code.Odd"}, "has the activation 'own.code.Odd', which is"),
        ({"activation_function": "torch.nn.Linear"}, "has the activation 'torch.nn.Linear'"),
        ({"use_residual": True}, "2_Dense has use_residual True; only False is known"),
        ({"module_input_name": "token_embeddings"}, "has module_input_name 'token_embeddings'"),
        ({"out_features": 7}, "has not the weights that 2_Dense/config.json says"),
        ({"out_features": "wide"}, "2_Dense has no sizes"),
    ],
)
def test_a_dense_module_of_an_unknown_kind_is_refused(folder, changed, match):
    _modules(folder, "Dense")
    path = folder / "2_Dense"
    _dense(path)
    settings = json.loads((path / "config.json").read_text())
    _write(path / "config.json", settings | changed)
    with refused(match):
        _load(folder)


def test_a_dense_modules_weights_are_safetensors_unless_the_job_says_otherwise(folder):
    _modules(folder, "Dense")
    linear = _dense(folder / "2_Dense")
    (folder / "2_Dense" / "model.safetensors").unlink()
    with refused("2_Dense has no weights"):
        _load(folder)
    weights = {f"linear.{name}": value for name, value in linear.state_dict().items()}
    torch.save(weights, folder / "2_Dense" / "pytorch_model.bin")
    with refused("the weights of 2_Dense are no safetensors"):
        _load(folder)
    assert _load(folder, pickled_weights=True).pooled_size == _OUT


def test_modules_and_prompts_are_in_the_fingerprint_if_there_are_any(folder):
    _write(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    before = _load(folder).fingerprint
    # What says nothing new leaves the databases that there are as they are.
    _modules(folder, "Normalize")
    assert _load(folder).fingerprint == before
    _modules(folder, "Dense")
    _dense(folder / "2_Dense")
    dense = _load(folder).fingerprint
    assert {part for part in before if dense[part] != before[part]} == {"config", "weights"}
    named = {"prompts": {"q": "query: "}, "default_prompt_name": "q"}
    _write(folder / "config_sentence_transformers.json", named)
    asking = _load(folder).fingerprint
    assert {part for part in before if asking[part] != dense[part]} == {"config"}

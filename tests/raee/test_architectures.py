"""Causal and encoder-decoder models: every exit is what plain `transformers` calls say."""

import json
import shutil
from dataclasses import replace
from functools import cache
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch.nn.functional import normalize

from raee import Classifier
from raee.all_exits import read_all
from raee.classify import classify
from raee.config import BackboneSpec, CascadePolicy, FixedPolicy, KeySpec, RaeePolicy
from raee.model.backbones import Backbone
from raee.model.loading import load_backbone
from raee.model.prompts import Prompt
from raee.sweep import Labelled, Sweep, sweep
from tests.raee.conftest import CPU
from tests.raee.databases import ASKED, INSTRUCTED, LABELS, TEXTS, UNSEEN, build, head_for
from tests.raee.errors import refused
from tests.raee.model.test_walk import rows_by_layer, rows_seen
from tests.raee.models import ARCHITECTURES, GENERATIVE_LMS, REFUSED, layer_modules
from tests.raee.plain import PlainCausal, PlainSeq2Seq
from tests.texts import WORDS

LABEL = np.array([i % len(LABELS) for i in range(len(TEXTS))], np.uint16)
POLICIES = (
    CascadePolicy(readers=("head",), threshold=0.5),
    CascadePolicy(readers=("vote", "pool"), threshold=0.45),
    RaeePolicy(threshold=0.7, k=4),
)


@pytest.fixture(scope="module")
def plain_of(folder_of):
    @cache
    def load(name):
        plain = {"causal-lm": PlainCausal, "seq2seq-lm": PlainSeq2Seq}
        return plain[ARCHITECTURES[name].family](folder_of(name))

    return load


def swept(backbone: Backbone, texts=TEXTS, asked: Prompt = ASKED) -> Sweep:
    """What a sweep says of texts at all depths, with the keys of the first, a middle and the last.

    All are swept in batches of mixed lengths.
    """
    key = KeySpec(layers=(0, backbone.depth // 2 + 1, backbone.depth))
    label = np.array([i % len(LABELS) for i in range(len(texts))], np.uint16)
    labelled = Labelled(label, len(LABELS), np.ones(len(texts), bool))
    return sweep(backbone, asked, head_for(backbone), key, None, texts, labelled)


def rendered(texts=TEXTS, asked: Prompt = ASKED) -> list[str]:
    return [asked.template.replace("{text}", text) for text in texts]


def plain_heads(plain, texts=TEXTS, asked: Prompt = ASKED) -> NDArray:
    """(depths, texts, labels)."""
    logits = [plain.logits(text, asked.words) for text in rendered(texts, asked)]
    return softmax(np.stack(logits, axis=1), axis=2)


def begin_alike(plain, texts: list[str]) -> int:
    """How many tokens the texts have in common from the first on."""
    ids = [plain.tokenizer(text)["input_ids"] for text in texts]
    return len([*takewhile(lambda alike: len({*alike}) == 1, zip(*ids, strict=False))])


def own_mean(states: torch.Tensor, shared: int) -> torch.Tensor:
    """The mean state of the tokens that tell a text from others; a decoder runs one token."""
    return states[shared if len(states) > 1 else 0 :].mean(dim=0)


@pytest.mark.parametrize("asked", [ASKED, INSTRUCTED], ids=["asked", "instructed"])
@pytest.mark.parametrize("name", GENERATIVE_LMS)
def test_what_is_read_at_every_depth_is_what_plain_calls_say(backbone_of, plain_of, name, asked):
    backbone, plain = backbone_of(name), plain_of(name)
    found = swept(backbone, asked=asked)
    texts = rendered(asked=asked)
    states, shared = [plain.states(text) for text in texts], begin_alike(plain, texts)
    means = torch.stack([torch.stack([own_mean(s, shared) for s in row]) for row in states], dim=1)
    answers = torch.stack([torch.stack([s[-1] for s in row]) for row in states], dim=1)
    np.testing.assert_allclose(found.states["mean"], normalize(means, dim=2), atol=1e-5)
    np.testing.assert_allclose(found.states["answer"], normalize(answers, dim=2), atol=1e-5)
    for key, depth in zip(found.keys, (0, backbone.depth // 2 + 1, backbone.depth), strict=True):
        np.testing.assert_allclose(key, normalize(means[depth], dim=1), atol=1e-5)
    expected = plain_heads(plain, asked=asked)
    # So that reading a wrong depth, or a wrong row, would show.
    assert np.abs(np.diff(expected, axis=0)).max(axis=2).min() > 3e-5
    assert np.abs(np.diff(expected[1:], axis=1)).max(axis=2).min() > 3e-5
    np.testing.assert_allclose(found.heads, expected, atol=1e-5)


@pytest.mark.parametrize("asked", [ASKED, INSTRUCTED], ids=["asked", "instructed"])
@pytest.mark.parametrize("name", GENERATIVE_LMS)
def test_a_row_that_leaves_gets_the_answer_of_a_full_pass_and_runs_no_layer_more(
    backbone_of, plain_of, name, asked
):
    backbone = backbone_of(name)
    assert backbone.depth == len(layer_modules(backbone.stack.model))
    key = KeySpec(layers=(1, backbone.depth - 1))
    database = build(backbone, TEXTS, LABEL, key, state="answer", asked=asked).database
    exits, texts = database.entries.exits, UNSEEN
    seen, heads = read_all(database, texts, 4), plain_heads(plain_of(name), texts, asked)
    fixed = [FixedPolicy(exit=str(e)) for e in exits if e.reader in ("head", "probe", "vote")]
    for spec in (*POLICIES, *fixed):
        with rows_seen(backbone.stack.model) as layers:
            found = classify(database, spec, texts)
        assert layers == rows_by_layer(found.layers)
        assert found.layers_run == found.layers.sum()
        rows = np.arange(len(texts))
        np.testing.assert_array_equal(found.labels, seen.read.answers[rows, found.exits])
        sure = seen.read.confidences[rows, found.exits]
        np.testing.assert_allclose(found.confidences, sure, atol=1e-5)
        for row, exit in enumerate(exits[i] for i in found.exits):
            if exit.reader == "head":
                expected = heads[exit.depth, row]
                assert found.labels[row] == expected.argmax()
                np.testing.assert_allclose(found.confidences[row], expected.max(), atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "flan-t5"])
def test_what_a_tokenizer_pads_with_and_on_which_side_changes_nothing(backbone_of, name):
    backbone = backbone_of(name)
    own = backbone.tokenizer
    expected = swept(backbone)
    for side, token in (("left", None), ("right", "great"), ("left", "bad")):
        tokenizer = type(own).from_pretrained(own.name_or_path)
        tokenizer.padding_side, tokenizer.pad_token = side, token
        found = swept(replace(backbone, tokenizer=tokenizer))
        np.testing.assert_allclose(found.heads, expected.heads, atol=1e-6)
        np.testing.assert_allclose(found.states["mean"], expected.states["mean"], atol=1e-6)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "minilm"])
def test_int8_gives_the_labels_of_float32(backbone_of, spec_of, name):
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(1, 15))) for _ in range(100)]
    exact = swept(backbone_of(name), texts)
    rough = swept(load_backbone(spec_of(name, "int8"), CPU), texts)
    first, second = np.sort(exact.heads, axis=2)[..., -1], np.sort(exact.heads, axis=2)[..., -2]
    clear = first - second > 0.02
    assert (exact.heads.argmax(2) == rough.heads.argmax(2))[clear].mean() >= 0.98
    states, right = rough.states["mean"][-1], exact.states["mean"][-1]
    sizes = np.linalg.norm(states, axis=1) * np.linalg.norm(right, axis=1)
    assert ((states * right).sum(axis=1) / sizes).mean() > 0.99


@pytest.mark.parametrize("name", GENERATIVE_LMS)
def test_bfloat16_gives_the_labels_of_float32(backbone_of, spec_of, name):
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(1, 15))) for _ in range(100)]
    exact = swept(backbone_of(name), texts).heads
    rough = swept(load_backbone(spec_of(name, "bfloat16"), CPU), texts).heads
    first, second = np.sort(exact, axis=2)[..., -1], np.sort(exact, axis=2)[..., -2]
    clear = first - second > 0.02
    assert clear.mean() > 0.5
    # What is rounded sends a token to another expert now and then; plain calls do the same.
    least = 0.98 if name == "mixtral" else 0.99
    assert (exact.argmax(2) == rough.argmax(2))[clear].mean() >= least


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_classifier_is_fitted_and_answers_from_a_models_files_alone(folder_of, name):
    words = {"template": ASKED.template, "labels": dict(zip(LABELS, ASKED.words, strict=True))}
    model = Classifier(model=str(folder_of(name)), dtype="float32", prompt=words, policy="full")
    texts, labels = [t for t in TEXTS if t] * 3, [LABELS[i % 3] for i in range(3 * len(TEXTS) - 3)]
    assert set(model.fit(texts, labels).predict(UNSEEN[:2])) <= set(LABELS)


def test_a_decoder_that_starts_with_nothing_is_refused(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("t5"), tmp_path / "t5")
    for file in ("config.json", "generation_config.json"):
        found = json.loads((folder / file).read_text())
        starts = ("decoder_start_token_id", "bos_token_id")
        (folder / file).write_text(json.dumps({k: v for k, v in found.items() if k not in starts}))
    with refused("says with which token its decoder starts"):
        load_backbone(BackboneSpec(family="seq2seq-lm", model=str(folder)), CPU)


@pytest.mark.parametrize("name", REFUSED)
def test_a_recurrent_model_is_refused_by_name(spec_of, name):
    kind = REFUSED[name].model.__name__.removesuffix("ForCausalLM")
    with refused(f"{kind}Model cannot be walked: .* recurrent"):
        load_backbone(spec_of(name), CPU)


def test_the_documentation_has_the_architectures_that_are_tested():
    lines = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text().splitlines()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]
    listed = {row[0]: (row[2], row[3]) for row in rows if row and row[0] in ARCHITECTURES}
    assert listed == {name: (a.family, a.model.__name__) for name, a in ARCHITECTURES.items()}
    refused = {row[0]: row[1] for row in rows if row and row[0] in REFUSED}
    assert refused == {name: a.model.__name__ for name, a in REFUSED.items()}

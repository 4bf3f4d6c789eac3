"""Of labelled rows a sweep gives the states that probes read, and the sums they are fitted on."""

from itertools import compress

import numpy as np
import pytest
import torch

from raee.config import KeySpec
from raee.model import room
from raee.model.loading import load_backbone
from raee.readers.states import probe_states
from raee.readers.sums import sums_of
from raee.sweep import Labelled, Sweep, joined, sweep, with_head
from tests.raee.conftest import CPU
from tests.raee.databases import (
    LABELS,
    TEXTS,
    head_for,
    plain_distributions,
    plain_states,
    prompt_for,
    prompt_of,
)
from tests.raee.errors import refused
from tests.raee.models import LAYERS, MASKED_LMS, WIDTH

LABEL = np.array([0, 1, 0, 1, 2, 1, 0, 0, 1, 1, 2, 0], np.uint16)
SAMPLE = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0, 1], bool)


def _swept(backbone, head, texts=TEXTS, label=LABEL, sample=SAMPLE):
    labelled = Labelled(label, len(LABELS), sample)
    return sweep(backbone, prompt_for(backbone), head, KeySpec(), None, texts, labelled)


@pytest.fixture(params=["one batch", "many batches"])
def batched(request, monkeypatch):
    """Twelve short texts are one batch; with few tokens to each they are many."""
    if request.param == "many batches":
        monkeypatch.setitem(room._TOKENS, "cpu", 40)


@pytest.mark.usefixtures("batched")
@pytest.mark.parametrize("name", ["bert", "modernbert", "deberta-v2", "mpnet-encoder"])
def test_states_and_sums_are_those_of_plain_transformers_calls(
    exact_backbone_of, exact_plain_of, name
):
    backbone = exact_backbone_of(name)
    swept = _swept(backbone, head_for(backbone))
    expected_states = ("mean", "answer") if name in MASKED_LMS else ("mean",)
    assert tuple(swept.states) == tuple(swept.sums) == expected_states
    for state in expected_states:
        plain = plain_states(exact_plain_of(name), prompt_of(name), state)
        assert swept.states[state].dtype == np.float32
        np.testing.assert_allclose(swept.states[state], plain[:, SAMPLE], atol=1e-6)
        own, expected = swept.sums[state], sums_of(plain, LABEL, len(LABELS))
        for field in ("rows", "first", "second"):
            np.testing.assert_allclose(getattr(own, field), getattr(expected, field), atol=1e-9)


@pytest.mark.usefixtures("batched")
@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet-encoder"])
def test_heads_of_sampled_rows_and_tokens_of_all_are_those_of_plain_calls(
    backbone_of, plain_of, name
):
    swept = _swept(backbone_of(name), head_for(backbone_of(name)))
    plain, prompt = plain_of(name), prompt_of(name)
    heads = plain_distributions(plain, prompt)[:, SAMPLE]
    assert swept.heads.dtype == np.float32
    np.testing.assert_allclose(swept.heads, heads, atol=1e-5)
    rendered = [prompt.template.format(text=t, mask=plain.tokenizer.mask_token) for t in TEXTS]
    expected = plain.tokenizer(rendered)["input_ids"]
    assert [ids.tolist() for ids in swept.token_ids] == expected


def test_a_cls_pooled_encoders_answer_is_at_its_first_token(cls_encoder, plain_of):
    assert probe_states(cls_encoder) == ("mean", "answer")
    swept = _swept(cls_encoder, head_for(cls_encoder))
    for state in ("mean", "answer"):
        plain = plain_states(plain_of("bert-encoder"), prompt_for(cls_encoder), state, cls=True)
        np.testing.assert_allclose(swept.states[state], plain[:, SAMPLE], atol=1e-5)


@pytest.mark.parametrize("name", ["roberta", "bert-encoder"])
@pytest.mark.parametrize("size", [1, 5])
def test_the_sums_of_shards_are_those_of_one_pass(exact_backbone_of, name, size):
    backbone = exact_backbone_of(name)
    _assert_shards_add_up(backbone, size, tolerance=1e-9)


@pytest.mark.parametrize("name", ["roberta", "bert-encoder"])
def test_in_float32_the_sums_of_shards_are_nearly_those_of_one_pass(backbone_of, name):
    _assert_shards_add_up(backbone_of(name), size=5, tolerance=1e-5)


def _assert_shards_add_up(backbone, size: int, tolerance: float) -> None:
    head = head_for(backbone)
    whole = _swept(backbone, head)
    for state in whole.sums:
        shards = [
            _swept(backbone, head, TEXTS[some], LABEL[some], SAMPLE[some])
            for some in (slice(i, i + size) for i in range(0, len(TEXTS), size))
        ]
        total = shards[0].sums[state]
        for shard in shards[1:]:
            total = total + shard.sums[state]
        for field in ("rows", "first", "second"):
            own, expected = getattr(total, field), getattr(whole.sums[state], field)
            np.testing.assert_allclose(own, expected, atol=tolerance)
        states = np.concatenate([shard.states[state] for shard in shards], axis=1)
        np.testing.assert_allclose(states, whole.states[state], atol=max(tolerance, 1e-6))


def test_labels_change_nothing_that_is_read_without_them(backbone_of):
    backbone = backbone_of("bert")
    head = head_for(backbone)
    bare = sweep(backbone, prompt_for(backbone), head, KeySpec(), None, TEXTS)
    assert (bare.sums, bare.states) == ({}, {})
    with_labels = _swept(backbone, head)
    np.testing.assert_array_equal(with_labels.answers, bare.answers)
    np.testing.assert_array_equal(with_labels.confidences, bare.confidences)
    np.testing.assert_array_equal(with_labels.keys[0], bare.keys[0])


def test_of_rows_that_are_not_sampled_only_the_sums_are_kept(backbone_of):
    backbone = backbone_of("bert")
    head, nobody = head_for(backbone), np.zeros(len(TEXTS), bool)
    swept = _swept(backbone, head, sample=nobody)
    assert swept.states["mean"].shape == (LAYERS + 1, 0, WIDTH)
    np.testing.assert_array_equal(swept.sums["mean"].rows, [5, 5, 2])
    np.testing.assert_array_equal(
        swept.sums["mean"].second, _swept(backbone, head).sums["mean"].second
    )


def test_no_rows_have_sums_of_nothing(backbone_of):
    backbone = backbone_of("bert")
    nothing = np.zeros(0, np.uint16), np.zeros(0, bool)
    swept = _swept(backbone, head_for(backbone), (), *nothing)
    for state in ("mean", "answer"):
        assert swept.states[state].shape == (LAYERS + 1, 0, WIDTH)
        sums = swept.sums[state]
        assert sums.first.shape == (LAYERS + 1, len(LABELS), WIDTH)
        assert not sums.rows.any()
        assert not sums.second.any()


@pytest.mark.usefixtures("batched")
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_head_that_is_read_afterwards_says_the_same(backbone_of, cls_encoder, pooling):
    backbone = cls_encoder if pooling == "cls" else backbone_of("bert-encoder")
    head = head_for(backbone)
    bare = _swept(backbone, None, sample=np.ones(len(TEXTS), bool))
    assert bare.answers.shape == bare.confidences.shape == (len(TEXTS), 0)
    _assert_same(with_head(bare, head, SAMPLE), _swept(backbone, head))


@pytest.mark.parametrize("name", ["roberta", "bert-encoder"])
def test_rows_that_were_swept_apart_are_put_together_in_order(backbone_of, name):
    backbone = backbone_of(name)
    head, some = head_for(backbone), np.array([0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 0, 1], bool)
    apart = [
        _swept(backbone, head, list(compress(TEXTS, own)), LABEL[own], SAMPLE[own])
        for own in (some, ~some)
    ]
    _assert_same(joined(*apart, some, SAMPLE), _swept(backbone, head))


def _assert_same(own: Sweep, expected: Sweep) -> None:
    """But for the rounding of batches."""
    np.testing.assert_array_equal(own.answers, expected.answers)
    np.testing.assert_array_equal(own.hashes, expected.hashes)
    np.testing.assert_allclose(own.confidences, expected.confidences, atol=1e-6)
    np.testing.assert_allclose(own.heads, expected.heads, atol=1e-6)
    assert [ids.tolist() for ids in own.token_ids] == [ids.tolist() for ids in expected.token_ids]
    for mine, other in zip(own.keys, expected.keys, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)
    assert tuple(own.states) == tuple(expected.states) == tuple(own.sums)
    for state, states in expected.states.items():
        np.testing.assert_allclose(own.states[state], states, atol=1e-6)
        for field in ("rows", "first", "second"):
            mine, other = (getattr(each.sums[state], field) for each in (own, expected))
            np.testing.assert_allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize("headless", [True, False])
def test_a_damaged_models_answer_is_refused_with_a_head_or_without(spec_of, headless):
    backbone = load_backbone(spec_of("bert-encoder"), CPU)
    head, everything = head_for(backbone), np.ones(len(TEXTS), bool)
    with torch.no_grad():
        backbone.stack.parts[0].layers[1].output.LayerNorm.weight.fill_(float("nan"))
    with refused("answers .* with what are no numbers: its weights are damaged"):
        _swept(backbone, None if headless else head, sample=everything)

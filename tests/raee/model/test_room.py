"""A batch for which the device has no room comes again in smaller ones; every row is done once."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from raee.classify import classify
from raee.config import CascadePolicy, FullPolicy, KeySpec
from raee.model import batches
from raee.model.batches import Batches, encode
from raee.model.loading import load_backbone
from raee.model.room import budget_of, tokens_for
from raee.model.walk import walk
from raee.sweep import Labelled, sweep
from tests.raee.databases import LABELS, TEXTS, UNSEEN, build, head_for, prompt_for
from tests.raee.errors import refused


@pytest.fixture
def backbone(spec_of):
    """A model of its own: what room is found for it holds for as long as it lives."""
    return load_backbone(spec_of("bert"))


@contextmanager
def little_room(backbone, tokens, depth=2):
    """A layer has no room for more tokens, padding included."""

    def check(module, args, kwargs):
        states = args[0] if args else kwargs["hidden_states"]
        if states.shape[0] * states.shape[1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    layer = backbone.stack.parts[0].layers[depth]
    hook = layer.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _longest(backbone):
    return max(encode(backbone, prompt_for(backbone), TEXTS).lengths)


def _walked(backbone, encoded):
    """The rows that have passed the layers."""
    found, rows = Batches(backbone, encoded), []
    for batch in found:
        with found.room():
            walk(backbone.stack, batch.inputs, lambda depth, states, rows: None)
            rows += batch.rows.tolist()
    return sorted(rows)


def _swept(backbone):
    label = np.arange(len(TEXTS)).astype(np.uint16) % len(LABELS)
    labelled = Labelled(label, len(LABELS), np.arange(len(TEXTS)) % 3 > 0)
    prompt, head = prompt_for(backbone), head_for(backbone)
    return sweep(backbone, prompt, head, KeySpec(), None, TEXTS, labelled)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_a_sweep_without_room_reads_the_same(backbone, rows, caplog):
    before = _swept(backbone)
    with little_room(backbone, rows * _longest(backbone)):
        again = _swept(backbone)
    assert "has no room for a larger batch" in caplog.text
    np.testing.assert_array_equal(again.answers, before.answers)
    np.testing.assert_allclose(again.confidences, before.confidences, atol=1e-6)
    for name, states in before.states.items():
        np.testing.assert_allclose(again.states[name], states, atol=1e-5)
        np.testing.assert_array_equal(again.sums[name].rows, before.sums[name].rows)
        np.testing.assert_allclose(again.sums[name].first, before.sums[name].first, atol=1e-5)
        np.testing.assert_allclose(again.sums[name].second, before.sums[name].second, atol=1e-4)


@pytest.mark.parametrize(
    "policy", [FullPolicy(), CascadePolicy(threshold=0.6)], ids=["full", "cascade"]
)
def test_a_classification_without_room_answers_the_same(backbone, policy):
    labels = [i % len(LABELS) for i in range(len(TEXTS))]
    database = build(backbone, TEXTS, labels, KeySpec()).database
    before, told = classify(database, policy, UNSEEN), []
    with little_room(backbone, 2 * _longest(backbone)):
        again = classify(database, policy, UNSEEN, told.append)
    assert sum(told) == len(UNSEEN)
    assert again.layers_run == before.layers_run
    np.testing.assert_array_equal(again.labels, before.labels)
    np.testing.assert_array_equal(again.exits, before.exits)


def test_later_batches_keep_to_the_room_that_was_found(backbone):
    encoded = encode(backbone, prompt_for(backbone), TEXTS * 20)
    with little_room(backbone, 1_500, depth=0):
        _walked(backbone, encoded)
    assert budget_of(backbone) <= 1_500
    sizes = [batch.inputs["input_ids"].numel() for batch in Batches(backbone, encoded)]
    assert 1_000 < max(sizes) <= 1_500


def test_what_a_small_batch_found_does_not_make_all_later_ones_as_small(backbone):
    with little_room(backbone, 2 * _longest(backbone)):
        _walked(backbone, encode(backbone, prompt_for(backbone), TEXTS))
    assert budget_of(backbone) == 1_024


def test_no_room_for_the_batch_itself_is_no_room_either(backbone, monkeypatch):
    real, asked = batches.on_device, []

    def on_device(values, device):
        asked.append(values.shape)
        if len(asked) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(values, device)

    monkeypatch.setattr(batches, "on_device", on_device)
    assert _walked(backbone, encode(backbone, prompt_for(backbone), TEXTS)) == [*range(len(TEXTS))]


def test_a_row_without_room_is_said_in_one_line(backbone):
    with (
        little_room(backbone, 1),
        refused(f"cpu has no room for a row of {_longest(backbone)} tokens beside"),
    ):
        _swept(backbone)


def test_a_layers_answers_take_half_of_what_is_free(backbone):
    wide = replace(backbone, layer_parameters=12_000_000, depth=1, hidden_size=1_000)
    assert tokens_for(8_000_000_000, wide) == 83_333
    assert tokens_for(0, wide) == 1


def test_a_gpus_batches_keep_to_its_free_memory(backbone, monkeypatch):
    """Of a GPU that is not here: what PyTorch says of its memory is all that is made up."""
    on_gpu = replace(backbone, device=torch.device("cuda"))
    for name, found in {
        "mem_get_info": lambda device: (3_000_000, 10**9),
        "memory_reserved": lambda device: 2_000_000,
        "memory_allocated": lambda device: 1_000_000,
    }.items():
        monkeypatch.setattr(torch.cuda, name, found)
    assert budget_of(on_gpu) == tokens_for(4_000_000, backbone) < 65_536
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**12, 10**12))
    assert budget_of(on_gpu) == 65_536

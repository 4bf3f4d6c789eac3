"""What all rows of a causal model share passes its layers once, and changes no row's states."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from raee.model import shared
from raee.model.backbones import Backbone
from raee.model.batches import Batches, Encoded, encode
from raee.model.prompts import Prompt
from raee.model.walk import walk
from tests.raee.databases import INSTRUCTED, TEXTS
from tests.raee.models import ARCHITECTURES, GENERATIVE_LMS, layer_modules

CAUSAL = tuple(name for name in GENERATIVE_LMS if ARCHITECTURES[name].family == "causal-lm")


@contextmanager
def tokens_seen(model: nn.Module) -> Iterator[list[int]]:
    """How many tokens, padding included, pass through each layer, call after call."""
    seen: list[int] = []

    def note(module: nn.Module, args: tuple, out: object) -> None:
        states = out[0] if isinstance(out, tuple) else out
        seen.append(states.shape[0] * states.shape[1])

    handles = [layer.register_forward_hook(note) for layer in layer_modules(model)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def walked(backbone: Backbone, encoded: Encoded, leave_at=None, budget: int = 10**6) -> dict:
    """By row and depth, the states of the row's own tokens."""
    found: dict[tuple[int, int], torch.Tensor] = {}
    for batch in Batches(backbone, encoded, budget=budget):

        def visit(depth, states, rows, batch=batch):
            for row, own in zip(rows.tolist(), states, strict=True):
                found[int(batch.rows[row]), depth] = own[batch.own[row] == 1]
            if leave_at is None:
                return None
            return torch.as_tensor(leave_at[batch.rows[rows.numpy()]] > depth)

        walk(backbone.stack, batch.inputs, visit)
    return found


def apart(encoded: Encoded) -> Encoded:
    """The same rows, as if they shared nothing."""
    return replace(encoded, prefix=np.zeros(0, np.int32))


def rows_after(prefix: np.ndarray, rows: list[list[int]]) -> Encoded:
    """Rows of a prefix and of tokens of their own."""
    return Encoded(
        token_ids=[np.append(prefix, np.array(row, np.int32)) for row in rows],
        answer_positions=np.array([len(prefix) + len(row) - 1 for row in rows]),
        truncated=np.zeros(len(rows), bool),
        prefix=prefix,
        shared=np.full(len(rows), len(prefix)),
    )


def assert_equal(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for place, states in expected.items():
        assert found[place].shape == states.shape
        assert (found[place] - states).norm(dim=1).max() <= 1e-5 * states.norm(dim=1).max()


@pytest.mark.parametrize("name", CAUSAL)
def test_only_a_rows_own_tokens_pass_the_layers(backbone_of, name):
    backbone = backbone_of(name)
    encoded = encode(backbone, INSTRUCTED, TEXTS)
    kept = len(encoded.prefix)
    assert kept > 15
    leave_at = np.arange(len(TEXTS)) % (backbone.depth + 1)
    whole = walked(backbone, apart(encoded), leave_at)
    assert_equal(walked(backbone, encoded, leave_at), whole)
    longest = int(encoded.lengths.max()) - kept
    with tokens_seen(backbone.stack.model) as seen:
        walked(backbone, encoded, leave_at)
    present = [int((leave_at >= layer).sum()) for layer in range(1, backbone.depth + 1)]
    assert seen == [rows * longest for rows in present]


def test_a_prefix_passes_the_layers_once_however_many_batches_follow(backbone_of):
    backbone = backbone_of("llama")
    asked = replace(INSTRUCTED, template="never " + INSTRUCTED.template)
    encoded = encode(backbone, asked, TEXTS)
    with tokens_seen(backbone.stack.model) as seen:
        walked(backbone, encoded, budget=1)
        first = len(seen)
        walked(backbone, encode(backbone, asked, ["bravo"] * 3), budget=1)
    per_pass = backbone.depth
    # Itself, the two passes that prove it, and one of each row.
    assert first == (3 + len(TEXTS)) * per_pass
    assert len(seen) == first + 3 * per_pass


def test_a_prefix_passes_no_layer_if_no_row_follows(backbone_of):
    backbone = backbone_of("llama")
    asked = replace(INSTRUCTED, template="again " + INSTRUCTED.template)
    encoded = encode(backbone, asked, TEXTS)
    with tokens_seen(backbone.stack.model) as seen:
        assert not [*Batches(backbone, encoded, some=np.zeros(len(TEXTS), bool))]
    assert not seen


def test_a_prefix_may_leave_a_text_one_token(backbone_of):
    backbone = backbone_of("gpt2")  # it has a state for each position, and none beyond
    prefix = np.arange(backbone.max_tokens - 1, dtype=np.int32)
    encoded = rows_after(prefix, [[5], [6]])
    with tokens_seen(backbone.stack.model) as seen:
        walked(backbone, encoded)
    assert seen[-1] == 2
    assert_equal(walked(backbone, encoded), walked(backbone, apart(encoded)))


def test_a_row_that_begins_otherwise_runs_whole(backbone_of):
    backbone = backbone_of("llama")
    encoded = encode(backbone, INSTRUCTED, TEXTS)
    encoded.shared[[1, 4]] -= 2
    batches = [*Batches(backbone, encoded, budget=10**6)]
    assert [(len(batch.inputs) > 2, len(batch.rows)) for batch in batches] == [
        (False, 2),
        (True, len(TEXTS) - 2),
    ]
    assert_equal(walked(backbone, encoded), walked(backbone, apart(encoded)))


@pytest.mark.parametrize(
    ("name", "asked"),
    [("llama", Prompt((), (), "was it {text} ?")), ("t5", INSTRUCTED)],
    ids=["a short prefix", "no causal model"],
)
def test_rows_run_whole_if_there_is_nothing_to_keep(backbone_of, name, asked):
    backbone = backbone_of(name)
    for batch in Batches(backbone, encode(backbone, asked, TEXTS)):
        assert {*batch.inputs} == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("fault", ["values", "error"])
def test_a_model_that_answers_otherwise_with_kept_keys_runs_rows_whole(
    backbone_of, fault, monkeypatch, caplog
):
    backbone = backbone_of("llama")
    cache_class = shared.DynamicCache

    class Faulty(cache_class):
        def get_seq_length(self, *args):
            if fault == "error":
                raise RuntimeError("no such thing")
            return super().get_seq_length(*args) and 3  # tokens come to stand where they do not

    asked = replace(INSTRUCTED, template=f"again {fault} " + INSTRUCTED.template)
    encoded = encode(backbone, asked, TEXTS)
    expected = walked(backbone, apart(encoded))
    monkeypatch.setattr(shared, "DynamicCache", Faulty)
    with caplog.at_level(logging.INFO, "raee"):
        assert_equal(walked(backbone, encoded), expected)
    assert "rows run whole" in caplog.text

"""Rows in batches of any form, which leave anywhere, have the states of plain passes of their own.

Configurations are drawn: sizes, heads, layers, windows; with a prefix that is kept or without.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as t
from hypothesis import given, settings
from hypothesis import strategies as st

from raee.model.backbones import Backbone
from raee.model.batches import Batches, Encoded, pad
from raee.model.shared import kept_prefix
from raee.model.structure import walkable_stack
from raee.model.walk import walk
from tests.raee.model.test_walk import rows_by_layer

START, WORDS = 3, 40


def _decoder(draw, kind: type[t.PreTrainedModel], **settings) -> t.PreTrainedModel:
    groups, each = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    config = kind.config_class(
        vocab_size=WORDS,
        hidden_size=groups * each * draw(st.sampled_from([2, 4, 6])),
        num_attention_heads=groups * each,
        num_key_value_heads=groups,
        num_hidden_layers=draw(st.integers(2, 5)),
        intermediate_size=draw(st.integers(3, 20)),
        initializer_range=0.3,
        use_cache=False,
        **settings,
    )
    return kind(config)


def _with_a_window(draw) -> t.PreTrainedModel:
    return _decoder(draw, t.MistralModel, sliding_window=draw(st.integers(2, 12)))


def _encoder_decoder(draw) -> t.PreTrainedModel:
    sizes = {"num_heads": st.integers(1, 3), "d_kv": st.integers(2, 6), "d_ff": st.integers(3, 20)}
    sizes |= {"num_layers": st.integers(1, 4), "num_decoder_layers": st.integers(1, 4)}
    sizes |= {"d_model": st.integers(3, 20), "relative_attention_num_buckets": st.just(8)}
    config = t.T5Config(
        vocab_size=WORDS,
        feed_forward_proj=draw(st.sampled_from(["relu", "gated-gelu"])),
        relative_attention_max_distance=draw(st.integers(9, 20)),
        use_cache=False,
        **{name: draw(values) for name, values in sizes.items()},
    )
    return t.T5Model(config)


MODELS = {
    "grouped-query heads": lambda draw: _decoder(draw, t.LlamaModel),
    "a sliding window": _with_a_window,
    "encoder-decoder": _encoder_decoder,
}


@torch.no_grad()
def plain_states(model: t.PreTrainedModel, row: np.ndarray) -> list[torch.Tensor]:
    """By depth (tokens, hidden) of a row alone; those of a part's last layer are after its norm."""
    ids = torch.as_tensor(row.astype(np.int64))[None]
    if not model.config.is_encoder_decoder:
        return [each[0] for each in model(input_ids=ids, output_hidden_states=True).hidden_states]
    first = torch.tensor([[START]])
    output = model(input_ids=ids, decoder_input_ids=first, output_hidden_states=True)
    both = [*output.encoder_hidden_states, *output.decoder_hidden_states[1:]]
    return [each[0] for each in both]


def rows_of(draw, prefix: list[int]) -> Encoded:
    tokens = st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=12)
    rows = [prefix + own for own in draw(st.lists(tokens, min_size=1, max_size=6))]
    return Encoded(
        token_ids=[np.array(row, np.int32) for row in rows],
        answer_positions=np.array([len(row) - 1 for row in rows]),
        truncated=np.zeros(len(rows), bool),
        prefix=np.array(prefix, np.int32),
        shared=np.full(len(rows), len(prefix)),
    )


@pytest.mark.parametrize("kind", MODELS)
@given(data=st.data())
@settings(max_examples=25)
def test_rows_have_the_states_of_a_plain_pass_of_their_own(backbone_of, kind, data):
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 100)))
    model = MODELS[kind](draw).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    decodes = model.config.is_encoder_decoder
    probes = [pad([[1], [2, 3], [4, 5, 6]][:n], 0, torch.device("cpu")) for n in (2, 3)]
    stack = walkable_stack(model, *probes, START if decodes else None)
    family = "seq2seq-lm" if decodes else "causal-lm"
    backbone: Backbone = replace(backbone_of("llama"), family=family, model=model, stack=stack)
    lengths = {"min_size": 8, "max_size": 20} if draw(st.booleans()) else {"max_size": 0}
    encoded = rows_of(draw, draw(st.lists(st.integers(0, WORDS - 1), **lengths)))
    assert (kept_prefix(backbone, encoded.prefix) is None) == (decodes or not len(encoded.prefix))
    leave_at = np.array([draw(st.integers(0, stack.depth)) for _ in encoded.token_ids])
    expected = [plain_states(model, row) for row in encoded.token_ids]
    for batch in Batches(backbone, encoded, budget=draw(st.sampled_from([1, 30, 1_000]))):
        left = leave_at[batch.rows]
        seen: list[int] = []

        def visit(depth, states, rows, batch=batch, left=left, seen=seen):
            seen.append(len(rows))
            attention, positions = backbone.tokens_at(
                depth, batch.own[rows], batch.answer_positions[rows]
            )
            if depth in stack.ends:
                states = stack.part_at(depth).normed(states)
            present = batch.rows[rows.numpy()]
            for row, own, at, one in zip(present, states, positions, attention, strict=True):
                right = expected[row][depth]
                in_decoder = depth > stack.ends[0]
                right = right if in_decoder else right[encoded.shared[row] :]
                close = {"atol": 1e-5 * float(right.norm(dim=1).max()), "rtol": 0}
                torch.testing.assert_close(own[one == 1], right, **close)
                torch.testing.assert_close(own[at], right[-1], **close)
            return torch.as_tensor(left[rows.numpy()] > depth)

        assert walk(stack, batch.inputs, visit) == left.sum()
        assert seen[1:] == rows_by_layer(left)

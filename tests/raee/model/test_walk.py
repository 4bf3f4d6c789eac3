"""The walk shows every depth's states, and runs no layer on a row that has left."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaModel
from transformers.modeling_outputs import BaseModelOutput

from raee.model.backbones import Backbone
from raee.model.batches import pad
from raee.model.structure import find_stack, walkable_stack
from raee.model.walk import walk
from tests.raee.databases import (
    LABELS,
    TEXTS,
    head_for,
    plain_distributions,
    prompt_of,
    whole_batch,
)
from tests.raee.errors import refused
from tests.raee.models import LAYERS, MASKED_LMS, SENTENCE_ENCODERS, layer_modules
from tests.raee.plain import Plain

ALL = (*MASKED_LMS, *SENTENCE_ENCODERS)

LEAVE_AT = np.array([3, 0, 4, 1, 1, 3, 0, 4, 3, 1, 0, 4])[: len(TEXTS)]
"""By place in the batch: neither sorted nor reversed; some share a depth, one is nobody's."""


@contextmanager
def rows_seen(model: nn.Module) -> Iterator[list[int]]:
    """How many rows each layer's output has, layer after layer, by hooks of this test's own."""
    seen: list[int] = []
    handles = [
        layer.register_forward_hook(
            lambda module, args, out: seen.append(len(out[0] if isinstance(out, tuple) else out))
        )
        for layer in dict.fromkeys(layer_modules(model))
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def rows_by_layer(layers) -> list[int]:
    """From each row's layers, how many rows each layer sees; no layer is called for none."""
    return [int((layers >= layer).sum()) for layer in range(1, layers.max(initial=0) + 1)]


def check_states(backbone: Backbone, plain: Plain, name: str, tolerance: float) -> None:
    """Those at every depth are the model's hidden states, each text alone by plain calls."""
    prompt, batch = prompt_of(name), whole_batch(backbone)
    shown: dict[int, torch.Tensor] = {}
    walk(backbone.stack, batch.inputs, lambda depth, states, rows: shown.update({depth: states}))
    assert list(shown) == list(range(LAYERS + 1))
    mask = backbone.tokenizer.mask_token
    for place, row in enumerate(batch.rows):
        expected = plain.hidden_states(prompt.render(TEXTS[row], mask))
        for depth, states in shown.items():
            own = backbone.normed(states[place], depth)[: expected.shape[1]].cpu()
            torch.testing.assert_close(own, expected[depth], atol=tolerance, rtol=tolerance)


def leave(backbone: Backbone) -> np.ndarray:
    """(texts, labels): each text read where it leaves a batch of all of them, by `LEAVE_AT`.

    No layer runs on a row that has left.
    """
    head, batch = head_for(backbone), whole_batch(backbone)
    attention = batch.inputs["attention_mask"]
    leave_at = torch.as_tensor(LEAVE_AT)
    read = np.zeros((len(TEXTS), len(LABELS)), dtype=np.float32)

    def visit(depth, states, rows):
        due = leave_at[rows] == depth
        here = rows[due]
        if len(here):
            answer = head(depth, states[due], attention[here], batch.answer_positions[here])
            read[batch.rows[here]] = answer.cpu().numpy()
        return ~due

    with rows_seen(backbone.stack.model) as seen:
        layers_run = walk(backbone.stack, batch.inputs, visit)
    assert seen == rows_by_layer(LEAVE_AT)
    assert len(seen) == LAYERS
    assert layers_run == LEAVE_AT.sum()
    return read


def where_they_leave(plain: Plain, name: str, rows: np.ndarray) -> np.ndarray:
    """(texts, labels): the same, each text alone through the whole model.

    rows: (texts,) the texts by their place in the batch.
    """
    read = np.zeros((len(TEXTS), len(LABELS)))
    read[rows] = plain_distributions(plain, prompt_of(name))[LEAVE_AT, rows]
    return read


@pytest.mark.parametrize("name", ALL)
def test_states_at_every_depth_are_the_models_hidden_states(backbone_of, plain_of, name):
    check_states(backbone_of(name), plain_of(name), name, 1e-5)


@pytest.mark.parametrize("name", ALL)
def test_rows_that_left_run_no_layer_and_keep_the_reading_of_a_full_pass(
    backbone_of, plain_of, name
):
    backbone = backbone_of(name)
    read, rows = leave(backbone), whole_batch(backbone).rows
    np.testing.assert_allclose(read, where_they_leave(plain_of(name), name, rows), atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_a_pass_ends_where_nothing_deeper_is_wanted(backbone_of, name):
    backbone = backbone_of(name)
    depths: list[int] = []
    with rows_seen(backbone.stack.model) as seen:
        layers_run = walk(
            backbone.stack,
            whole_batch(backbone).inputs,
            lambda depth, states, rows: depths.append(depth),
            deepest=2,
        )
    assert depths == [0, 1, 2]
    assert seen == [len(TEXTS)] * 2
    assert layers_run == 2 * len(TEXTS)


def test_a_pass_ends_when_the_last_row_left(backbone_of):
    backbone = backbone_of("bert")
    with rows_seen(backbone.stack.model) as seen:
        layers_run = walk(
            backbone.stack,
            whole_batch(backbone).inputs,
            lambda depth, states, rows: torch.full((len(rows),), depth < 1),
        )
    assert seen == [len(TEXTS)]
    assert layers_run == len(TEXTS)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_rows_may_leave_a_model_of_any_form_anywhere(data):
    whole = st.integers
    groups, each, layers = data.draw(whole(1, 3)), data.draw(whole(1, 3)), data.draw(whole(1, 6))
    config = LlamaConfig(
        vocab_size=30,
        num_key_value_heads=groups,
        num_attention_heads=groups * each,
        head_dim=2 * data.draw(whole(1, 5)),
        hidden_size=groups * each * data.draw(whole(1, 9)),
        intermediate_size=data.draw(whole(1, 50)),
        num_hidden_layers=layers,
        initializer_range=0.2,
        use_cache=False,
    )
    torch.manual_seed(data.draw(whole(0, 99)))
    model = LlamaModel(config).eval()
    stack = walkable_stack(
        model, *(pad([[3], [3, 4], [5]][:n], 0, torch.device("cpu")) for n in (2, 3))
    )
    rows = data.draw(
        st.lists(st.lists(whole(0, 29), min_size=1, max_size=9), min_size=1, max_size=7)
    )
    leave_at = torch.tensor(
        data.draw(st.lists(whole(0, layers), min_size=len(rows), max_size=len(rows)))
    )
    shown: dict[tuple[int, int], torch.Tensor] = {}

    def visit(depth, states, present):
        shown.update({(row, depth): own for row, own in zip(present.tolist(), states, strict=True)})
        return leave_at[present] > depth

    with rows_seen(model) as seen:
        layers_run = walk(stack, pad(rows, 0, torch.device("cpu")), visit)
    assert seen == rows_by_layer(leave_at.numpy())
    assert layers_run == leave_at.sum()
    assert set(shown) == {(i, d) for i, last in enumerate(leave_at) for d in range(last + 1)}
    for row, ids in enumerate(rows):
        with torch.no_grad():
            plain = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for depth in range(leave_at[row] + 1):
            own = shown[row, depth][: len(ids)]
            own = model.norm(own) if depth == layers else own
            torch.testing.assert_close(own, plain[depth][0], atol=1e-5, rtol=1e-5)


def test_no_attention_is_planned_anew_for_the_shape_of_every_batch(backbone_of):
    backbone, planned = backbone_of("bert"), torch.backends.cuda.cudnn_sdp_enabled
    before, seen = planned(), []
    walk(
        backbone.stack,
        whole_batch(backbone).inputs,
        lambda depth, states, rows: seen.append(planned()),
    )
    assert before
    assert not any(seen)
    assert planned()


def test_the_model_is_as_it_was_after_a_visitor_failed(backbone_of):
    backbone = backbone_of("bert")
    batch = whole_batch(backbone)
    hooks = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in backbone.model.modules())
    before = backbone.model(**batch.inputs).logits

    def fail(depth, states, rows):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        walk(backbone.stack, batch.inputs, fail)
    assert torch.equal(backbone.model(**batch.inputs).logits, before)
    assert hooks == sum(
        len(m._forward_pre_hooks) + len(m._forward_hooks) for m in backbone.model.modules()
    )


class _Stack(nn.Module):
    """Two linear layers, and whatever comes after them."""

    def __init__(self, after, listed: bool = True):
        super().__init__()
        layers = [nn.Linear(3, 3), nn.Linear(3, 3)]
        self.layers = nn.ModuleList(layers) if listed else nn.Sequential(*layers)
        self.after = after

    def forward(self, states):
        for layer in self.layers:
            states = layer(states)
        return BaseModelOutput(last_hidden_state=self.after(states))


def _probes() -> list[dict[str, torch.Tensor]]:
    return [{"states": torch.randn(rows, 4, 3)} for rows in (2, 3)]


def test_a_norm_after_the_last_layer_is_found():
    norm = nn.LayerNorm(3)
    stack = find_stack(_Stack(norm), *_probes())
    assert stack.parts[0].norm == (norm,)
    assert stack.depth == 2


def test_a_model_without_a_list_of_layers_is_refused():
    with refused("no list of layers"):
        find_stack(_Stack(nn.Identity(), listed=False), *_probes())


def test_a_model_that_does_more_than_a_norm_after_its_layers_is_refused():
    with refused("more than a norm"):
        find_stack(_Stack(lambda states: states * 2), *_probes())

"""Linear layers as a CPU multiplies them are those of PyTorch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from raee.model.linears import Int8, Packed, can_pack, is_worth_packing, pack
from raee.model.native import native_formats

pytestmark = pytest.mark.skipif(not can_pack(), reason="oneDNN orders no weights here")

needs_int8 = pytest.mark.skipif(
    "int8" not in native_formats(), reason="this processor has neither VNNI nor AMX"
)
"""Without, sums of two products are cut off at 16 bits: int8 is refused there."""


def _drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    inside=st.integers(1, 40),
    outside=st.integers(1, 40),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_packed_is_exact_whatever_the_shape(shape, inside, outside, biased, seed):
    linear = nn.Linear(inside, outside, bias=biased)
    states = _drawn(*shape, inside, seed=seed)
    with torch.inference_mode():
        found = Packed(linear.weight.detach(), linear.bias)(states)
        torch.testing.assert_close(found, linear(states), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("registers", "in_float32"), [("AVX2", False), ("AVX512", True)])
def test_float32_is_packed_only_where_that_is_faster(monkeypatch, registers, in_float32):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: registers)
    assert is_worth_packing("float32") == in_float32
    assert is_worth_packing("bfloat16")
    assert is_worth_packing("int8")


@needs_int8
@given(seed=st.integers(0, 99), size=st.sampled_from([1e-20, 1.0, 1e20]), biased=st.booleans())
def test_int8_is_off_by_less_than_one_step_of_each_factor(seed, size, biased):
    linear = nn.Linear(64, 48, bias=biased)
    states = size * _drawn(2, 5, 64, seed=seed)
    with torch.inference_mode():
        found = Int8(linear.weight.detach(), linear.bias)(states)
        exact = nn.functional.linear(states.double(), linear.weight.double())
        steps = states.abs().amax(-1, keepdim=True) / 127 * linear.weight.abs().sum(1)
        steps = steps + states.abs().sum(-1, keepdim=True) * linear.weight.abs().amax(1) / 127
        bias = 0 if linear.bias is None else linear.bias
        assert ((found - bias - exact).abs() <= steps + 1e-5 * size + 1e-6).all()
        assert (found - bias - exact).norm() < 0.02 * exact.norm() + 1e-4


@needs_int8
def test_int8_makes_the_same_of_a_token_whatever_is_beside_it():
    layer = Int8(_drawn(48, 64), _drawn(48, seed=1))
    states = _drawn(6, 64, seed=2) * torch.tensor([[1e-3], [1.0], [1e3], [0.0], [5.0], [1e-9]])
    with torch.inference_mode():
        together = layer(states)
        for row in range(len(states)):
            assert torch.equal(layer(states[row : row + 1]), together[row : row + 1])
        assert torch.equal(together[3], layer.bias)


@needs_int8
def test_int8_keeps_what_is_no_number():
    layer = Int8(_drawn(32, 8), None)
    states = _drawn(3, 8)
    states[1, 2] = float("nan")
    found = layer(states)
    assert found[1].isnan().all()
    assert not found[[0, 2]].isnan().any()


@pytest.mark.parametrize("int8", [False, pytest.param(True, marks=needs_int8)])
def test_only_plain_linear_layers_are_packed(int8):
    class Doubled(nn.Linear):
        def forward(self, states):
            return 2 * super().forward(states)

    layer = nn.Module()
    layer.inner = nn.ModuleList([nn.Linear(8, 40), Conv1D(40, 8), Doubled(8, 40)])
    layer.router = nn.Linear(8, 4)
    states = _drawn(3, 8)
    expected = [each(states) for each in [*layer.inner, layer.router]]
    pack(layer, int8=int8)
    kinds = [type(each) for each in [*layer.inner, layer.router]]
    assert kinds == [*([Int8 if int8 else Packed] * 2), Doubled, Packed], (
        "a router is never rounded"
    )
    for each, right in zip([*layer.inner, layer.router], expected, strict=True):
        torch.testing.assert_close(each(states), right, rtol=0.1, atol=0.05 if int8 else 1e-5)

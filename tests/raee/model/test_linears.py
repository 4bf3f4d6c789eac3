"""Linear layers as a CPU multiplies them are those of PyTorch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from raee.model import linears
from raee.model.linears import Emulated, Int8, Packed, lay_out
from raee.model.native import can_pack, is_native

needs_onednn = pytest.mark.skipif(not can_pack(), reason="oneDNN orders no weights here")

needs_int8 = pytest.mark.skipif(
    not is_native("int8"), reason="this processor has neither VNNI nor AMX"
)
"""Without, sums of two products are cut off at 16 bits."""

both_int8 = pytest.mark.parametrize(
    "native", [False, pytest.param(True, marks=needs_int8)], ids=["emulated", "native"]
)


def _drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@needs_onednn
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("biased", [True, False])
def test_an_emulated_format_rounds_as_a_native_one_does(dtype, biased):
    """Products of rounded factors are exact in float32; only their sum is rounded."""
    linear = nn.Linear(40, 30, bias=biased, dtype=dtype)
    states = _drawn(2, 5, 40).to(dtype)
    with torch.inference_mode():
        found = Emulated(linear.weight.detach(), linear.bias)(states)
        exact = states.double() @ linear.weight.double().T
        exact = exact + (linear.bias.double() if biased else 0)
    assert found.dtype == dtype
    assert ((found - exact).abs() <= torch.finfo(dtype).eps * exact.abs() + 1e-5).all()


@both_int8
@given(seed=st.integers(0, 99), size=st.sampled_from([1e-20, 1.0, 1e20]), biased=st.booleans())
def test_int8_is_off_by_less_than_one_step_of_each_factor(native, seed, size, biased):
    linear = nn.Linear(64, 48, bias=biased)
    states = size * _drawn(2, 5, 64, seed=seed)
    with torch.inference_mode():
        found = Int8(linear.weight.detach(), linear.bias, native=native)(states)
        exact = nn.functional.linear(states.double(), linear.weight.double())
        steps = states.abs().amax(-1, keepdim=True) / 127 * linear.weight.abs().sum(1)
        steps = steps + states.abs().sum(-1, keepdim=True) * linear.weight.abs().amax(1) / 127
        bias = 0 if linear.bias is None else linear.bias
        assert ((found - bias - exact).abs() <= steps + 1e-5 * size + 1e-6).all()
        assert (found - bias - exact).norm() < 0.02 * exact.norm() + 1e-4


@needs_int8
def test_emulated_int8_is_the_native_one():
    weight, states = _drawn(48, 64), _drawn(6, 64, seed=1)
    with torch.inference_mode():
        found, right = (Int8(weight, None, native=native)(states) for native in (False, True))
    torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-5)


@both_int8
def test_int8_makes_the_same_of_a_token_whatever_is_beside_it(native):
    layer = Int8(_drawn(48, 64), _drawn(48, seed=1), native=native)
    states = _drawn(6, 64, seed=2) * torch.tensor([[1e-3], [1.0], [1e3], [0.0], [5.0], [1e-9]])
    with torch.inference_mode():
        together = layer(states)
        for row in range(len(states)):
            alone, beside = layer(states[row : row + 1]), together[row : row + 1]
            torch.testing.assert_close(alone, beside, rtol=0 if native else 1e-6, atol=0)
        assert torch.equal(together[3], layer.bias)


@both_int8
def test_int8_keeps_what_is_no_number(native):
    layer = Int8(_drawn(32, 8), None, native=native)
    states = _drawn(3, 8)
    states[1, 2] = float("nan")
    found = layer(states)
    assert found[1].isnan().all()
    assert not found[[0, 2]].isnan().any()


_EMULATED = {"bfloat16": (Emulated, Emulated), "float16": (Emulated, Emulated)}
_IN_ORDER = {
    "float32": (Packed, Packed),
    "bfloat16": (Packed, Packed),
    "int8": (Int8, Packed),  # a router is never rounded
}


@pytest.mark.parametrize(
    ("registers", "native", "dtype", "kinds"),
    [
        ("AVX2", False, "float32", (nn.Linear, nn.Linear)),
        ("AVX2", False, "int8", (Int8, nn.Linear)),
        *(("AVX2", False, dtype, kinds) for dtype, kinds in _EMULATED.items()),
        *(
            pytest.param("AVX512", True, dtype, kinds, marks=needs_onednn)
            for dtype, kinds in _IN_ORDER.items()
            if is_native(dtype) or dtype != "bfloat16"  # else oneDNN refuses to order them
        ),
        ("AVX512", True, "float16", (nn.Linear, nn.Linear)),
    ],
)
def test_only_plain_linear_layers_are_laid_out_as_is_fastest(
    monkeypatch, registers, native, dtype, kinds
):
    class Doubled(nn.Linear):
        def forward(self, states):
            return 2 * super().forward(states)

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: registers)
    monkeypatch.setattr(linears, "is_native", lambda name: native or name == "float32")
    layer = nn.Module()
    layer.inner = nn.ModuleList([nn.Linear(8, 40), Conv1D(40, 8), Doubled(8, 40)])
    layer.router = nn.Linear(8, 4)
    states = _drawn(3, 8)
    expected = [each(states) for each in [*layer.inner, layer.router]]
    if dtype != "int8":
        layer.to(getattr(torch, dtype))
        states = states.to(getattr(torch, dtype))
    lay_out(layer, dtype, torch.device("cpu"))
    inner, router = kinds
    conv = Conv1D if inner is nn.Linear else inner
    assert [type(each) for each in [*layer.inner, layer.router]] == [inner, conv, Doubled, router]
    if dtype == "float32" or not native or is_native(dtype):
        close = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.1, "atol": 0.05}
        for each, right in zip([*layer.inner, layer.router], expected, strict=True):
            torch.testing.assert_close(each(states).float(), right, **close)


def test_int8_is_emulated_where_the_weights_are():
    """On any device: a GPU has the rounding of a processor, too."""
    elsewhere = torch.device("meta")
    layer = nn.ModuleList([nn.Linear(8, 40, device=elsewhere), nn.Linear(8, 4, device=elsewhere)])
    lay_out(layer, "int8", elsewhere)
    assert [type(each) for each in layer] == [Int8, nn.Linear]
    found = layer[0](torch.zeros(3, 8, device=elsewhere))
    assert (found.shape, found.device) == ((3, 40), elsewhere)

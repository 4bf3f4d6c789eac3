"""A model's linear layers, laid out as a CPU multiplies them.

PyTorch's own linear layer puts its weights in order at every call, and leaves those in float32 to
a library that is half as fast on some processors.  Here oneDNN, which comes with PyTorch, orders
them once.  What a processor does not multiply is multiplied in float32: PyTorch's own loops for it
are a hundred times slower.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - as everywhere
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from raee.model.native import can_pack, is_native

_ROWS = 1_024
"""Tokens of a usual batch: the order of the weights is chosen for so many."""

_FEWEST = 32
"""Outputs below which a layer is not rounded to int8: such a one chooses among experts."""

_LEVELS = 127
"""Steps of int8 from nought to the largest value of a row."""

_NOUGHT = 1e-30
"""The largest value of a row below which it counts as nought."""


class Packed(nn.Module):
    """A linear layer whose weights oneDNN has put in order, in their own number format."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: (out, in)."""
        super().__init__()
        ordered = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        self.weight = nn.Parameter(ordered, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, states: Tensor) -> Tensor:
        """(.., in) to (.., out)."""
        return torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")


class Emulated(nn.Module):
    """A linear layer in a number format that the processor does not multiply.

    Products run in float32, and the answers are rounded, as they are where the format is native.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: (out, in), in the format."""
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, states: Tensor) -> Tensor:
        """(.., in) to (.., out)."""
        bias = None if self.bias is None else self.bias.float()
        return F.linear(states.float(), self.weight.float(), bias).to(states.dtype)


class Int8(nn.Module):
    """A linear layer of a model in float32 that multiplies in int8.

    The weights of each output are rounded to 255 steps once, and the values of each token at each
    call: what a token becomes does not depend on the tokens beside it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, native: bool) -> None:
        """weight: (out, in), float32.  native: whether the processor multiplies bytes."""
        super().__init__()
        scale = weight.abs().amax(dim=1).clamp(min=_NOUGHT) / _LEVELS
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        if native:
            rounded = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._is_native = native
        self.weight = nn.Parameter(rounded, requires_grad=False)
        bias = torch.zeros_like(scale) if bias is None else bias
        self.bias = nn.Parameter(bias, requires_grad=False)
        self._scale = scale
        self._zeros = torch.zeros_like(scale, dtype=torch.int32)
        # Processors multiply bytes without a sign by bytes with one: nought is 128.
        self._middle = scale.new_tensor(128.5)

    def forward(self, states: Tensor) -> Tensor:
        """(.., in) to (.., out), float32."""
        rows = states.reshape(-1, states.shape[-1])
        top = torch.maximum(rows.amax(dim=1, keepdim=True), -rows.amin(dim=1, keepdim=True))
        top.clamp_(min=_NOUGHT)
        # What is cut off after adding a half is rounded.
        rounded = torch.addcmul(self._middle, rows, _LEVELS / top).to(torch.uint8)
        answer = torch.addcmul(self.bias, self._product(rounded), top)
        return answer.view(*states.shape[:-1], answer.shape[-1])

    def _product(self, rounded: Tensor) -> Tensor:
        """(n, in), bytes, to (n, out), float32: what rows whose largest value is 1 come to."""
        if not self._is_native:
            # Sums differ by float32's rounding; bytes have none.
            product = F.linear(rounded.float() - 128, self.weight.float())
            return product * (self._scale / _LEVELS)
        return torch.ops.onednn.qlinear_pointwise(
            *(rounded, 1 / _LEVELS, 128, self.weight, self._scale, self._zeros, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )


def lay_out(layer: nn.Module, dtype: str, device: torch.device) -> None:
    """Replace the linear layers of a model's layer by what is fastest here, in place.

    dtype: the number format that they multiply in from then on; in int8 their weights come in
    float32.  device: where they are; only int8 is for a GPU.  The weights of what is replaced are
    freed.  Layers that models derive from PyTorch's linear layer stay as they are: they do
    something else, too.
    """
    on_cpu = device.type == "cpu"
    native = on_cpu and is_native(dtype)
    packed = on_cpu and _is_worth_packing("float32" if dtype == "int8" else dtype)
    for parent in [*layer.modules()]:
        for name, child in [*parent.named_children()]:
            if type(child) is nn.Linear:
                weight = child.weight
            elif type(child) is Conv1D:
                weight = child.weight.t()
            else:
                continue
            weight = weight.detach().contiguous()
            bias = None if child.bias is None else child.bias.detach()
            if dtype == "int8" and len(weight) >= _FEWEST:
                made: nn.Module = Int8(weight, bias, native=native)
            elif packed:
                made = Packed(weight, bias)
            elif dtype not in ("int8", "float32") and not native:
                made = Emulated(weight, bias)
            else:
                continue
            setattr(parent, name, made)


def _is_worth_packing(dtype: str) -> bool:
    """Whether ordered weights are faster in a number format.

    In float32 they are only with AVX-512: without, what PyTorch takes is up to a fifth faster.
    """
    if dtype == "float32":
        return can_pack() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return can_pack() and dtype == "bfloat16" and is_native(dtype)

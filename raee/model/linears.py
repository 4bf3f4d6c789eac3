"""A model's linear layers, laid out as a CPU multiplies them.

PyTorch's own linear layer puts its weights in order at every call, and leaves those in float32 to
a library that is half as fast on some processors.  Here oneDNN, which comes with PyTorch, orders
them once.
"""

import platform

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

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


class Int8(nn.Module):
    """A linear layer of a model in float32 that multiplies in int8.

    The weights of each output are rounded to 255 steps once, and the values of each token at each
    call: what a token becomes does not depend on the tokens beside it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: (out, in), float32."""
        super().__init__()
        scale = weight.abs().amax(dim=1).clamp(min=_NOUGHT) / _LEVELS
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        ordered = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.weight = nn.Parameter(ordered, requires_grad=False)
        bias = torch.zeros(len(weight)) if bias is None else bias
        self.bias = nn.Parameter(bias, requires_grad=False)
        self._scale = scale
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        # Processors multiply bytes without a sign by bytes with one: nought is 128.
        self._middle = torch.tensor(128.5)

    def forward(self, states: Tensor) -> Tensor:
        """(.., in) to (.., out), float32."""
        rows = states.reshape(-1, states.shape[-1])
        top = torch.maximum(rows.amax(dim=1, keepdim=True), -rows.amin(dim=1, keepdim=True))
        top.clamp_(min=_NOUGHT)
        # What is cut off after adding a half is rounded.
        rounded = torch.addcmul(self._middle, rows, _LEVELS / top).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            *(rounded, 1 / _LEVELS, 128, self.weight, self._scale, self._zeros, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        answer = torch.addcmul(self.bias, product, top)
        return answer.view(*states.shape[:-1], answer.shape[-1])


def can_pack() -> bool:
    """Whether oneDNN has an order of weights here."""
    return torch._C._has_mkldnn and platform.machine() in ("x86_64", "AMD64")


def is_worth_packing(dtype: str) -> bool:
    """Whether ordered weights are faster in a number format that this machine has.

    In float32 they are only with AVX-512: without, what PyTorch takes is up to a fifth faster.
    """
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return can_pack() and (wide or dtype != "float32")


def pack(layer: nn.Module, *, int8: bool) -> None:
    """Replace the linear layers of a model's layer, in place; their weights are freed.

    int8: whether they multiply in int8 from then on.  Layers that models derive from PyTorch's
    linear layer stay as they are: they do something else, too.
    """
    for parent in [*layer.modules()]:
        for name, child in [*parent.named_children()]:
            if type(child) is nn.Linear:
                weight = child.weight
            elif type(child) is Conv1D:
                weight = child.weight.t()
            else:
                continue
            kind = Int8 if int8 and len(weight) >= _FEWEST else Packed
            bias = None if child.bias is None else child.bias.detach()
            setattr(parent, name, kind(weight.detach().contiguous(), bias))

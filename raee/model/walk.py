"""The one module that runs a model's layers.

A model's own forward runs with a hook before each of its layers.  The hook shows a visitor the
states that enter the layer; the visitor says which rows stay; the batch is narrowed to them.  The
pass ends when no row is left or the deepest wanted depth is reached.  Nothing here knows an
architecture: layers, the arguments with a batch dimension and the final norms are found by
structure and by two small passes (`raee.model.structure`).

An encoder-decoder model is one walk: depths 0 to L_enc in the encoder, and L_enc + 1 to L_enc +
L_dec in the decoder, at its first step.  The decoder's own embeddings are the same for every row,
so they are no depth.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.modeling_outputs import BaseModelOutput

from raee.model.attention import ShortRows

Visit = Callable[[int, Tensor, Tensor], Tensor | None]
"""`visit(depth, states, rows) -> keep`.

states: (n, tokens, hidden), the output of layer `depth` (0: the embeddings) of the rows still in
the pass, in a decoder (n, 1, hidden); rows: (n,) int64 on the CPU, their positions in the batch;
keep: (n,) bool, which of them go on (None: all).  A visitor that decides on the CPU makes a GPU
wait for nothing but what it reads.
"""

Inputs = Mapping[str, Any]
"""What a model is called with: tensors of a batch's rows, token ids first, and perhaps a cache of
what all of them share."""

Path = tuple[int | str, ...]

_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""PyTorch's kernels of attention but for cuDNN's, which plans anew for every shape of a batch.

That takes as long as ten layers do, and a batch that narrows has another shape at each of them.
"""


@dataclass(frozen=True)
class Part:
    """Layers that run one after the other on the same tokens."""

    module: nn.Module
    """Its forward runs them: the model without its head, or an encoder or a decoder in it."""
    layers: nn.ModuleList
    depth: int
    """Layers that a full pass runs (ALBERT runs one module `depth` times)."""
    between: tuple[nn.Module, ...]
    """Modules that run between the layers; they see the narrowed batch too."""
    norm: tuple[nn.Module, ...]
    """What the model applies to the last layer's output, one after the other; mostly one norm."""
    output: type[BaseModelOutput]
    """What the module answers with."""

    def normed(self, states: Tensor) -> Tensor:
        """States (.., hidden) as they are after the norm."""
        for norm in self.norm:
            states = norm(states)
        return states


@dataclass(frozen=True)
class Stack:
    """A model's layers, as found by `raee.model.structure.find_stack`."""

    model: nn.Module
    parts: tuple[Part, ...]
    """One, or an encoder and its decoder."""
    batched: Mapping[tuple[nn.Module, Path], int]
    """Arguments, by module and path, whose first dimension is the batch, with how many entries a
    row has in it (one; BLOOM's ALiBi has one for each head)."""
    width: int
    """Of the states as a head reads them."""
    start: int | None
    """The token of a decoder's first step; None if there is no decoder."""

    @property
    def depth(self) -> int:
        """Layers that a full pass runs."""
        return self.ends[-1]

    @property
    def ends(self) -> tuple[int, ...]:
        """The last depth of each part."""
        return tuple(accumulate(part.depth for part in self.parts))

    def part_at(self, depth: int) -> Part:
        """The part whose states a depth shows."""
        return self.parts[bisect_left(self.ends, depth)]

    def given(self, inputs: Inputs) -> Inputs:
        """A batch as the model is called with it: a decoder runs its first step."""
        if self.start is None:
            return inputs
        rows = len(inputs["input_ids"])
        first = torch.full((rows, 1), self.start, device=inputs["input_ids"].device)
        return {**inputs, "decoder_input_ids": first}


class _Done(Exception):  # noqa: N818 - it is no error
    """No row is left, or no deeper state is wanted."""


def walk(stack: Stack, inputs: Inputs, visit: Visit, deepest: int | None = None) -> int:
    """Run a batch through the layers, showing `visit` the states at every depth.

    `visit` is called at depths 0, 1, .. up to `deepest` (default: the last) for as long as rows
    are left.  Returns the layers run, summed over the rows.  One walk at a time on one model: a
    second thread's pass would meet the first one's hooks.
    """
    some = next(iter(inputs.values()))
    last = stack.depth if deepest is None else deepest
    ends = stack.ends
    device = some.device
    rows = torch.arange(some.shape[0])
    # Of the part: how many rows began it, and which of them are left.
    began, left = rows.shape[0], rows.to(device)
    # Of the states seen last: how many rows they had, and which of these are left.
    present, keep = began, left
    depth = 0
    layers_run = 0
    begins = False  # whether the next layer is the first of a decoder
    asking = False  # whether the visitor is asked, who may run the head, which calls the decoder

    def narrowed(module: nn.Module, tree: Any) -> Any:
        def select(path: Path, tensor: Tensor) -> Tensor:
            each = stack.batched.get((module, path))
            if each is None:
                return tensor
            # What the model made before the first layer still has every row; what came out of the
            # layer below has those that were present there.
            if tensor.shape[0] == began * each:
                return _rows(tensor, left, each)
            return _rows(tensor, keep, each) if tensor.shape[0] == present * each else tensor

        return map_tensors(tree, select)

    def leave(states: Tensor) -> None:
        """Ask the visitor which rows stay."""
        nonlocal rows, left, present, keep, asking
        present = rows.shape[0]
        asking = True
        mask = visit(depth, states, rows)
        asking = False
        if mask is None:
            keep = torch.arange(present, device=device)
        else:
            stay = mask.cpu().nonzero().squeeze(1)
            rows, keep = rows.index_select(0, stay), stay.to(device)
            left = left.index_select(0, keep)
        if rows.shape[0] == 0 or depth == last:
            raise _Done

    def before_decoder(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        nonlocal began, left, begins
        if asking:
            return None
        given = narrowed(module, args), narrowed(module, kwargs)
        begins, began = True, rows.shape[0]
        left = torch.arange(began, device=device)
        return given

    def before_layer(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        nonlocal depth, layers_run, begins
        if not begins:
            leave(first_tensor(args, kwargs))
        begins = False
        depth += 1
        layers_run += rows.shape[0]
        if rows.shape[0] == began:
            return None
        return narrowed(module, args), narrowed(module, kwargs)

    def before_other(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        nonlocal present, keep
        if rows.shape[0] == began:
            return None
        # It comes after a layer, whose output has the rows that are left.
        present = rows.shape[0]
        keep = torch.arange(present, device=device)
        return narrowed(module, args), narrowed(module, kwargs)

    def after_layer(module: nn.Module, args: tuple, output: Any) -> None:
        if depth in ends:
            leave(states_of(output))

    # Each call of PyTorch's goes by way of the mode: no other device pays for it.
    short = ShortRows() if device.type == "cpu" else nullcontext()
    with torch.inference_mode(), sdpa_kernel(_ATTENTION), short, hooks() as handles:
        for part in stack.parts:
            for layer in part.layers:
                handles.append(layer.register_forward_pre_hook(before_layer, with_kwargs=True))
                handles.append(layer.register_forward_hook(after_layer))
            for other in part.between:
                handles.append(other.register_forward_pre_hook(before_other, with_kwargs=True))
        for part in stack.parts[1:]:
            handles.append(part.module.register_forward_pre_hook(before_decoder, with_kwargs=True))
        with suppress(_Done):
            stack.model(**stack.given(inputs))
    return layers_run


def _rows(tensor: Tensor, rows: Tensor, each: int) -> Tensor:
    """Some rows of a tensor (rows * each, ..)."""
    rows = rows.to(tensor.device)  # a model's layers may lie on several devices
    if each == 1:
        return tensor.index_select(0, rows)
    return tensor.reshape(-1, each, *tensor.shape[1:]).index_select(0, rows).flatten(0, 1)


@contextmanager
def hooks() -> Iterator[list[Any]]:
    """Handles of hooks, removed at the end whatever happens."""
    handles: list[Any] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def map_tensors(tree: Any, change: Callable[[Path, Tensor], Tensor], path: Path = ()) -> Any:
    """Arguments with each tensor changed, but for those without a dimension."""
    if isinstance(tree, Tensor):
        return change(path, tree) if tree.dim() else tree
    if isinstance(tree, tuple | list):
        return type(tree)(map_tensors(v, change, (*path, i)) for i, v in enumerate(tree))
    if isinstance(tree, dict):
        return {key: map_tensors(value, change, (*path, key)) for key, value in tree.items()}
    return tree


def first_tensor(args: tuple, kwargs: dict) -> Tensor:
    """The states that a layer is called with."""
    return args[0] if args else next(v for v in kwargs.values() if isinstance(v, Tensor))


def states_of(output: Any) -> Tensor:
    """The states that a layer answers with."""
    return output[0] if isinstance(output, tuple) else output

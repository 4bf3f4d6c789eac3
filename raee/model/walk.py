"""The one module that runs a model's layers.

A model's own forward runs with a hook before each of its layers.  The hook shows a visitor the
states that enter the layer; the visitor says which rows stay; the batch is narrowed to them.  The
pass ends when no row is left or the deepest wanted depth is reached.  Nothing here knows an
architecture: layers, the arguments with a batch dimension and the final norm are found by
structure and by two small passes (`raee.model.structure`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Visit = Callable[[int, Tensor, Tensor], Tensor | None]
"""`visit(depth, states, rows) -> keep`.

states: (n, tokens, hidden), the output of layer `depth` (0: the embeddings) of the rows still in
the pass; rows: (n,) int64, their positions in the batch; keep: (n,) bool, which of them go on
(None: all).
"""

Inputs = Mapping[str, Tensor]
Path = tuple[int | str, ...]

_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""PyTorch's kernels of attention but for cuDNN's, which plans anew for every shape of a batch.

That takes as long as ten layers do, and a batch that narrows has another shape at each of them.
"""


@dataclass(frozen=True)
class Stack:
    """A model's layers, as found by `raee.model.structure.find_stack`."""

    model: nn.Module
    layers: nn.ModuleList
    depth: int
    """Layers that a full pass runs (ALBERT runs one module `depth` times)."""
    between: tuple[nn.Module, ...]
    """Modules that run between the layers; they see the narrowed batch too."""
    batched: frozenset[tuple[nn.Module, Path]]
    """Arguments, by module and path, whose first dimension is the batch."""
    final_norm: nn.Module | None
    """The norm that the model applies to the last layer's output, if it has one."""


class _Done(Exception):  # noqa: N818 - it is no error
    """No row is left, or no deeper state is wanted."""


def walk(stack: Stack, inputs: Inputs, visit: Visit, deepest: int | None = None) -> int:
    """Run a batch through the layers, showing `visit` the states at every depth.

    `visit` is called at depths 0, 1, .. up to `deepest` (default: the last) for as long as rows
    are left.  Returns the layers run, summed over the rows.  One walk at a time on one model: a
    second thread's pass would meet the first one's hooks.
    """
    size = next(iter(inputs.values())).shape[0]
    last = stack.depth if deepest is None else deepest
    rows = torch.arange(size, device=next(iter(inputs.values())).device)
    depth = 0
    layers_run = 0

    def narrowed(module: nn.Module, tree: Any, present: int, keep: Tensor) -> Any:
        def select(path: Path, tensor: Tensor) -> Tensor:
            if (module, path) not in stack.batched:
                return tensor
            # What the model made before the first layer still has every row; what came out of the
            # layer below has those that were present there.
            if tensor.shape[0] == size:
                return tensor.index_select(0, rows)
            return tensor.index_select(0, keep) if tensor.shape[0] == present else tensor

        return map_tensors(tree, select)

    def leave(states: Tensor) -> tuple[int, Tensor]:
        """Ask the visitor; returns how many rows were present and which of them stay."""
        nonlocal rows
        present = rows.shape[0]
        mask = visit(depth, states, rows)
        if mask is None:
            keep = torch.arange(present, device=rows.device)
        else:
            keep = mask.to(rows.device).nonzero().squeeze(1)
            rows = rows.index_select(0, keep)
        if rows.shape[0] == 0 or depth == last:
            raise _Done
        return present, keep

    def before_layer(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        nonlocal depth, layers_run
        present, keep = leave(first_tensor(args, kwargs))
        depth += 1
        layers_run += rows.shape[0]
        if rows.shape[0] == size:
            return None
        return narrowed(module, args, present, keep), narrowed(module, kwargs, present, keep)

    def before_other(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if rows.shape[0] == size:
            return None
        keep = torch.arange(rows.shape[0], device=rows.device)
        return (
            narrowed(module, args, rows.shape[0], keep),
            narrowed(module, kwargs, rows.shape[0], keep),
        )

    def after_layer(module: nn.Module, args: tuple, output: Any) -> None:
        if depth == stack.depth:
            leave(states_of(output))

    with torch.inference_mode(), sdpa_kernel(_ATTENTION), hooks() as handles:
        for layer in stack.layers:
            handles.append(layer.register_forward_pre_hook(before_layer, with_kwargs=True))
            handles.append(layer.register_forward_hook(after_layer))
        for other in stack.between:
            handles.append(other.register_forward_pre_hook(before_other, with_kwargs=True))
        with suppress(_Done):
            stack.model(**inputs)
    return layers_run


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

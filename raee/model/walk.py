"""The one module that touches a model's layers.

A model's own forward runs with a hook before each of its layers.  The hook shows a visitor the
states that enter the layer; the visitor says which rows stay; the batch is narrowed to them.  The
pass ends when no row is left or the deepest wanted depth is reached.  Nothing here knows an
architecture: layers, the arguments with a batch dimension and the final norm are found by
structure and by two small passes (`find_stack`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from raee.errors import InputError

Visit = Callable[[int, Tensor, Tensor], Tensor | None]
"""`visit(depth, states, rows) -> keep`.

states: (n, tokens, hidden), the output of layer `depth` (0: the embeddings) of the rows still in
the pass; rows: (n,) int64, their positions in the batch; keep: (n,) bool, which of them go on
(None: all).
"""

Inputs = Mapping[str, Tensor]
_Path = tuple[int | str, ...]

_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""PyTorch's kernels of attention but for cuDNN's, which plans anew for every shape of a batch.

That takes as long as ten layers do, and a batch that narrows has another shape at each of them.
"""


@dataclass(frozen=True)
class Stack:
    """A model's layers, as found by `find_stack`."""

    model: nn.Module
    layers: nn.ModuleList
    depth: int
    """Layers that a full pass runs (ALBERT runs one module `depth` times)."""
    between: tuple[nn.Module, ...]
    """Modules that run between the layers; they see the narrowed batch too."""
    batched: frozenset[tuple[nn.Module, _Path]]
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
        def select(path: _Path, tensor: Tensor) -> Tensor:
            if (module, path) not in stack.batched:
                return tensor
            # What the model made before the first layer still has every row; what came out of the
            # layer below has those that were present there.
            if tensor.shape[0] == size:
                return tensor.index_select(0, rows)
            return tensor.index_select(0, keep) if tensor.shape[0] == present else tensor

        return _map_tensors(tree, select)

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
        present, keep = leave(_first_tensor(args, kwargs))
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
            leave(_states_of(output))

    with torch.inference_mode(), sdpa_kernel(_ATTENTION), _hooks() as hooks:
        for layer in stack.layers:
            hooks.append(layer.register_forward_pre_hook(before_layer, with_kwargs=True))
            hooks.append(layer.register_forward_hook(after_layer))
        for other in stack.between:
            hooks.append(other.register_forward_pre_hook(before_other, with_kwargs=True))
        with suppress(_Done):
            stack.model(**inputs)
    return layers_run


def find_stack(model: nn.Module, two: Inputs, three: Inputs) -> Stack:
    """Find a model's layers and how a batch runs through them.

    two, three: batches of two and of three rows of different lengths.  An argument whose first
    dimension follows the batch's size has a batch dimension.
    Raises InputError if the model cannot be walked, or answers with values that are no numbers.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise InputError(f"{type(model).__name__} has no list of layers: it cannot be walked")
    layers = max(lists, key=len)
    if not len(layers):
        raise InputError(f"{type(model).__name__} has no layers: there is nothing to walk")
    first, second = _record(model, layers, two), _record(model, layers, three)
    if not first.last_hidden_state.isfinite().all():
        raise InputError(
            f"{type(model).__name__} answers with what are no numbers: its weights are damaged, or "
            f"leave the range of {str(first.top.dtype).removeprefix('torch.')}"
        )
    batched = {
        argument
        for argument, length in first.sizes.items()
        if length == 2 and second.sizes.get(argument) == 3
    }
    final_norm = None
    if not _same(first.top, first.last_hidden_state):
        candidates = [m for m, out in first.after if _same(out, first.last_hidden_state)]
        if not candidates:
            raise InputError(
                f"{type(model).__name__} does more than a norm after its last layer: "
                "it cannot be walked"
            )
        final_norm = candidates[-1]
    between = tuple(dict.fromkeys(m for m in first.between if m is not final_norm))
    return Stack(model, layers, first.calls, between, frozenset(batched), final_norm)


@dataclass
class _Record:
    """What one probing pass saw."""

    sizes: dict[tuple[nn.Module, _Path], int]
    calls: int
    between: list[nn.Module]
    after: list[tuple[nn.Module, Tensor]]
    top: Tensor
    last_hidden_state: Tensor


def _record(model: nn.Module, layers: nn.ModuleList, inputs: Inputs) -> _Record:
    record = _Record({}, 0, [], [], torch.empty(0), torch.empty(0))
    inside = {module for layer in layers for module in layer.modules()}
    # Only what the stack itself calls between its layers, not the parts of those modules.
    parent = next(m for m in model.modules() if any(child is layers for child in m.children()))
    siblings = [m for m in parent.children() if m is not layers]

    def sizes(module: nn.Module, args: tuple, kwargs: dict) -> None:
        for tree in (args, kwargs):
            _map_tensors(tree, lambda path, tensor: _note(record, module, path, tensor))

    def before_layer(module: nn.Module, args: tuple, kwargs: dict) -> None:
        sizes(module, args, kwargs)
        record.calls += 1
        record.between.extend(m for m, _ in record.after)
        record.after.clear()

    def after_layer(module: nn.Module, args: tuple, output: Any) -> None:
        record.top = _states_of(output)

    def before_other(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if record.calls:
            sizes(module, args, kwargs)

    def after_other(module: nn.Module, args: tuple, output: Any) -> None:
        if record.calls and isinstance(output, Tensor):
            record.after.append((module, output))

    with torch.inference_mode(), _hooks() as hooks:
        for layer in layers:
            hooks.append(layer.register_forward_pre_hook(before_layer, with_kwargs=True))
            hooks.append(layer.register_forward_hook(after_layer))
        for module in siblings:
            if module not in inside:
                hooks.append(module.register_forward_pre_hook(before_other, with_kwargs=True))
                hooks.append(module.register_forward_hook(after_other))
        record.last_hidden_state = model(**inputs).last_hidden_state
    return record


def _note(record: _Record, module: nn.Module, path: _Path, tensor: Tensor) -> Tensor:
    if tensor.dim():
        record.sizes[(module, path)] = tensor.shape[0]
    return tensor


@contextmanager
def _hooks() -> Iterator[list[Any]]:
    """Handles of hooks, removed at the end whatever happens."""
    handles: list[Any] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def _map_tensors(tree: Any, change: Callable[[_Path, Tensor], Tensor], path: _Path = ()) -> Any:
    if isinstance(tree, Tensor):
        return change(path, tree) if tree.dim() else tree
    if isinstance(tree, tuple | list):
        return type(tree)(_map_tensors(v, change, (*path, i)) for i, v in enumerate(tree))
    if isinstance(tree, dict):
        return {key: _map_tensors(value, change, (*path, key)) for key, value in tree.items()}
    return tree


def _first_tensor(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else next(v for v in kwargs.values() if isinstance(v, Tensor))


def _states_of(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _same(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and torch.equal(left, right)

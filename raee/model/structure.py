"""How a batch runs through a model, found by two small passes that name no architecture."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raee.errors import InputError
from raee.model.walk import (
    Inputs,
    Path,
    Stack,
    hooks,
    map_tensors,
    states_of,
)


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

    sizes: dict[tuple[nn.Module, Path], int]
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
            map_tensors(tree, lambda path, tensor: _note(record, module, path, tensor))

    def before_layer(module: nn.Module, args: tuple, kwargs: dict) -> None:
        sizes(module, args, kwargs)
        record.calls += 1
        record.between.extend(m for m, _ in record.after)
        record.after.clear()

    def after_layer(module: nn.Module, args: tuple, output: Any) -> None:
        record.top = states_of(output)

    def before_other(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if record.calls:
            sizes(module, args, kwargs)

    def after_other(module: nn.Module, args: tuple, output: Any) -> None:
        if record.calls and isinstance(output, Tensor):
            record.after.append((module, output))

    with torch.inference_mode(), hooks() as handles:
        for layer in layers:
            handles.append(layer.register_forward_pre_hook(before_layer, with_kwargs=True))
            handles.append(layer.register_forward_hook(after_layer))
        for module in siblings:
            if module not in inside:
                handles.append(module.register_forward_pre_hook(before_other, with_kwargs=True))
                handles.append(module.register_forward_hook(after_other))
        record.last_hidden_state = model(**inputs).last_hidden_state
    return record


def _note(record: _Record, module: nn.Module, path: Path, tensor: Tensor) -> Tensor:
    if tensor.dim():
        record.sizes[(module, path)] = tensor.shape[0]
    return tensor


def _same(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and torch.equal(left, right)

"""How a batch runs through a model, found by two small passes that name no architecture."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from raee.errors import InputError
from raee.model.walk import (
    Inputs,
    Part,
    Path,
    Stack,
    hooks,
    map_tensors,
    states_of,
    walk,
)

_EXACT = 1e-3
"""How far a row's states may be from those that it has alone, relative to their size."""

_ROUGH = 0.25
"""The same in formats of less precision: they round differently in other shapes, so that an expert
may be chosen differently.  A row that is given another one's mask is as far off as any two rows."""


def walkable_stack(model: nn.Module, two: Inputs, three: Inputs, start: int | None = None) -> Stack:
    """A model's layers and how a batch runs through them, once a small walk has proved it.

    two, three, start: as in `find_stack`.  Raises InputError if the model cannot be walked, with
    the reason, or answers with values that are no numbers.
    """
    refuse_recurrent(type(model))
    try:
        stack = find_stack(model, two, three, start)
        _check(stack, three)
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a model raises whose rows are taken away
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise _unwalkable(type(model), f"a small pass ends in an error ({reason})") from error
    return stack


def refuse_recurrent(kind: type[nn.Module]) -> None:
    """Raises InputError if models of a class are recurrent, as the library says."""
    if getattr(kind, "_is_stateful", False):
        raise _unwalkable(
            kind,
            "layers of it are recurrent (a state-space model or the like): they keep a state of "
            "their own from token to token, and rows cannot leave it one by one",
        )


def find_stack(model: nn.Module, two: Inputs, three: Inputs, start: int | None = None) -> Stack:
    """Find a model's layers and how a batch runs through them.

    two, three: batches of two and of three rows of different lengths.  An argument whose first
    dimension follows the batch's size has a batch dimension.  start: the token of the decoder's
    first step if the model is an encoder with a decoder.
    Raises InputError if the model cannot be walked, or answers with values that are no numbers.
    """
    modules = [model] if start is None else [model.get_encoder(), model.get_decoder()]  # type: ignore[operator]
    layers = [_layers(model, module) for module in modules]
    bare = Stack(model, (), {}, 0, start)
    first, second = (_record(bare, modules, layers, inputs) for inputs in (two, three))
    for part in first.parts:
        if not part.answer.isfinite().all():
            raise InputError(
                f"{type(model).__name__} answers with what are no numbers: its weights are "
                f"damaged, or leave the range of {str(part.top.dtype).removeprefix('torch.')}"
            )
    widths = {part.answer.shape[-1] for part in first.parts}
    if len(widths) > 1:
        raise _unwalkable(type(model), "its encoder and its decoder are of different widths")
    return Stack(
        model=model,
        parts=tuple(map(_part, modules, layers, first.parts)),
        batched=_batched(first.sizes, second.sizes),
        width=widths.pop(),
        start=start,
    )


def outer_lists(module: nn.Module) -> list[nn.ModuleList]:
    """The lists of modules that lie in no other list: lists in a layer are parts of it."""
    lists = [each for each in module.modules() if isinstance(each, nn.ModuleList)]
    inner = {m for each in lists for child in each for m in child.modules()}
    return [each for each in lists if each not in inner]


def is_far_from(own: Tensor, right: Tensor, rough: bool) -> bool:
    """Whether states are others than the right ones, and not only rounded otherwise.

    rough: whether they come from a model in another number format than float32.
    """
    if own.shape != right.shape:
        return True
    tolerance = _ROUGH if rough else _EXACT
    right = right.float()
    # Numbers that are none are far from any.
    return not float((own.float() - right).norm() / right.norm().clamp(min=1e-9)) <= tolerance


@dataclass
class _PartRecord:
    """What one probing pass saw of a part."""

    calls: int = 0
    between: list[nn.Module] = field(default_factory=list)
    after: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)
    """What ran since the last layer, with the states that it was given and that it answered."""
    top: Tensor = field(default_factory=lambda: torch.empty(0))
    output: BaseModelOutput = field(default_factory=BaseModelOutput)

    @property
    def answer(self) -> Tensor:
        """The states that the part answers with."""
        assert self.output.last_hidden_state is not None, "the part has run"
        return self.output.last_hidden_state


@dataclass
class _Record:
    """What one probing pass saw."""

    parts: list[_PartRecord]
    sizes: dict[tuple[nn.Module, Path], int] = field(default_factory=dict)

    def note(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Keep the first dimensions of a module's arguments."""

        def keep(path: Path, tensor: Tensor) -> Tensor:
            self.sizes[(module, path)] = tensor.shape[0]
            return tensor

        map_tensors(args, keep)
        map_tensors(kwargs, keep)


def _layers(model: nn.Module, module: nn.Module) -> nn.ModuleList:
    """The longest list of modules that lies in no other."""
    outer = outer_lists(module)
    if not outer:
        raise InputError(f"{type(model).__name__} has no list of layers: it cannot be walked")
    layers = max(outer, key=len)
    if not len(layers):
        raise InputError(f"{type(model).__name__} has no layers: there is nothing to walk")
    return layers


def _part(module: nn.Module, layers: nn.ModuleList, record: _PartRecord) -> Part:
    states, norm = record.top, list[nn.Module]()
    for after, given, answered in record.after:
        if _same(states, record.answer):
            break
        if _same(given, states):
            states, norm = answered, [*norm, after]
    if not _same(states, record.answer):
        raise InputError(
            f"{type(module).__name__} does more than a norm after its last layer: "
            "it cannot be walked"
        )
    between = tuple(dict.fromkeys(m for m in record.between if m not in norm))
    return Part(module, layers, record.calls, between, tuple(norm), type(record.output))


def _batched(
    of_two: dict[tuple[nn.Module, Path], int], of_three: dict[tuple[nn.Module, Path], int]
) -> dict[tuple[nn.Module, Path], int]:
    """Entries that a row has in the first dimension of each argument that has the batch there."""
    each = {argument: size // 2 for argument, size in of_two.items()}
    return {
        argument: n
        for argument, n in each.items()
        if n and of_two[argument] == 2 * n and of_three.get(argument) == 3 * n
    }


def _record(
    stack: Stack, modules: list[nn.Module], lists: list[nn.ModuleList], inputs: Inputs
) -> _Record:
    record = _Record([_PartRecord() for _ in modules])
    with torch.inference_mode(), hooks() as handles:
        for part, module, layers in zip(record.parts, modules, lists, strict=True):
            _watch(record, part, module, layers, handles)
        stack.model(**stack.given(inputs))
    return record


def _watch(
    record: _Record,
    part: _PartRecord,
    module: nn.Module,
    layers: nn.ModuleList,
    handles: list[Any],
) -> None:
    """Hook a part's modules, so that a pass tells what it does."""
    inside = {m for layer in layers for m in layer.modules()}
    # Only what the stack itself calls between its layers, not the parts of those modules.
    parent = next(m for m in module.modules() if any(child is layers for child in m.children()))
    siblings = [m for m in parent.children() if m is not layers and m not in inside]

    def before_layer(module: nn.Module, args: tuple, kwargs: dict) -> None:
        record.note(module, args, kwargs)
        part.calls += 1
        part.between.extend(m for m, _, _ in part.after)
        part.after.clear()

    def after_layer(module: nn.Module, args: tuple, output: Any) -> None:
        part.top = states_of(output)

    def before_other(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if part.calls:
            record.note(module, args, kwargs)

    def after_other(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        given = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
        if part.calls and given and isinstance(output, Tensor):
            part.after.append((module, given[0], output))

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        part.output = output

    handles.append(module.register_forward_pre_hook(record.note, with_kwargs=True))
    handles.append(module.register_forward_hook(after))
    for layer in layers:
        handles.append(layer.register_forward_pre_hook(before_layer, with_kwargs=True))
        handles.append(layer.register_forward_hook(after_layer))
    for other in siblings:
        handles.append(other.register_forward_pre_hook(before_other, with_kwargs=True))
        handles.append(other.register_forward_hook(after_other, with_kwargs=True))


@torch.inference_mode()
def _check(stack: Stack, three: Inputs) -> None:
    """Raises InputError unless a walk shows each row the states that it has alone.

    The first row leaves at depth 1 and the next one above the middle, so that others change their
    positions in the batch.
    """
    size = len(three["input_ids"])
    leave_at = torch.full((size,), stack.depth)
    leave_at[0], leave_at[1] = 1, stack.depth // 2 + 1
    shown: dict[tuple[int, int], Tensor] = {}

    def visit(depth: int, states: Tensor, rows: Tensor) -> Tensor:
        shown.update({(row, depth): own for row, own in zip(rows.tolist(), states, strict=True)})
        return leave_at[rows] > depth

    walk(stack, three, visit)
    for row in range(size):
        length = int(three["attention_mask"][row].sum())
        alone = {name: values[row : row + 1, :length] for name, values in three.items()}
        expected = _states_alone(stack, alone)
        for depth, right in enumerate(expected[: int(leave_at[row]) + 1]):
            own = shown[row, depth][: len(right)]
            if depth in stack.ends:  # plain passes say these as they are after the norm
                own = stack.part_at(depth).normed(own)
            if is_far_from(own, right, right.dtype.itemsize < 4):
                raise _unwalkable(
                    type(stack.model),
                    f"its states at depth {depth} depend on the other rows of a batch",
                )


def _states_alone(stack: Stack, row: Inputs) -> list[Tensor]:
    """By depth, (tokens, hidden) what a plain pass says of one row: its hidden states."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: tuple, output: Any) -> None:
        states = getattr(output, "hidden_states", None) or ()
        if len(states) != depths[module] + 1:
            raise _unwalkable(type(stack.model), "it has not one hidden state a layer")
        found.extend(each[0] for each in states[min(len(found), 1) :])

    depths = {part.module: part.depth for part in stack.parts}
    with hooks() as handles:
        for part in stack.parts:
            handles.append(part.module.register_forward_hook(keep))
        stack.model(**stack.given(row), output_hidden_states=True)
    return found


def _unwalkable(kind: type[nn.Module], reason: str) -> InputError:
    return InputError(f"{kind.__name__} cannot be walked: {reason}")


def _same(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and torch.equal(left, right)

"""The words of `write_report`: what a policy does, what a pool weighs, and texts on one line."""

from collections.abc import Mapping

from raee.config import CascadePolicy, De3Policy, RunnablePolicy, Walkway
from raee.exits import Entries
from raee.policies.replay import Replayed
from raee.readers.table import reader

_EXPERTS = {"words": "words", "probe": "probes", "vote": "votes", "head": "heads"}
"""What the experts of a pool are called, by reader."""

_LISTED = 6
"""How many thresholds by depth are listed; if there are more, only their range is."""


def in_words(policy: RunnablePolicy, entries: Entries, replayed: Replayed) -> str:
    """What a policy does, as a clause.  replayed: what it did with any rows, at least one."""
    if policy.name == "raee":
        return (
            f"the paper's rule: {policy.k} neighbours say at which depth the model's own head "
            f"answers, by where it was right and at least {policy.threshold:.1%} sure"
        )
    if policy.name == "kernel":
        return (
            f"{policy.k} neighbours say at which exit the row has the best chance to be right, "
            f"less {policy.cost:g} for a full pass"
        )
    if isinstance(policy, CascadePolicy | De3Policy):
        return _steps_in_words(policy, entries.exits[entries.full].depth)
    exit = entries.exits[replayed.exits[0]]
    return f"every row runs {_layers(exit.depth)} and {exit.of.clause} ({exit}) answers"


def pool_in_words(weights: Mapping[str, float]) -> str:
    """What the experts of a pool count, but for those that count next to nothing.

    weights: by reader.
    """
    counted = [(_EXPERTS[name], weights[name]) for name in _EXPERTS if weights.get(name, 0) > 0.005]
    if not counted:
        return "nothing counts"
    (first, weight), *others = counted
    shown = [f"{first} count {weight:.2f}", *(f"{name} {weight:.2f}" for name, weight in others)]
    return ", ".join(shown)


def _steps_in_words(policy: CascadePolicy | De3Policy, deepest: int) -> str:
    last = deepest if policy.last is None else policy.last
    readers = (policy.name,) if policy.name == "de3" else policy.readers
    asked = " or ".join(reader(name).clause for name in readers)
    if last == policy.first:
        return f"every row runs {_layers(last)} and {asked} answers"
    return (
        f"a row leaves at the first depth from {policy.first} to {last} at which {asked} is sure "
        f"enough ({_thresholds(policy, last)}), and at depth {last} in any case"
    )


def _thresholds(policy: Walkway, last: int) -> str:
    at = {depth: policy.threshold_at(depth) for depth in range(policy.first, last)}
    low, high = min(at.values()), max(at.values())
    if low == high:
        return f"{low:.1%}"
    if len(at) > _LISTED:
        return f"{low:.1%} to {high:.1%}, by depth"
    return ", ".join(f"depth {depth}: {threshold:.1%}" for depth, threshold in at.items())


def _layers(number: int) -> str:
    return "1 layer" if number == 1 else f"{number} layers"


def shorten(text: str, longest: int) -> str:
    """A text on one line of `longest` characters at most, truncated if need be."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"

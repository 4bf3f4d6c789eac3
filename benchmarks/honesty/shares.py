"""What correcting for a corpus's label shares is worth, and what it costs if nothing shifted."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.honesty.builds import COSTS, build, fresh_under, rows_of, split
from benchmarks.honesty.pools import TASKS, pool
from raee.config import TunedPolicy
from raee.policies.replay import replay
from raee.policies.tuning import study
from raee.statistics.shift import estimate_shares, prior_ratio
from tasks.classify.corpus_shift import ratio_of

SEEDS = 20
ROWS = (2_000, 300)
"""Sizes of corpora."""

_DATABASE_ROWS = 1_000
_CORPORA = 5
"""Corpora of each kind that a database answers."""
_OWN = "its own"
_ESTIMATED = ("auto", "corpus")
_CONCENTRATION = 2.0
"""Of the Dirichlet distribution that other shares are drawn from if there are many labels."""
_LEAST_GAIN = 0.01
"""Accuracy that known shares gain at least if the part of it that is recovered means anything."""


@dataclass(frozen=True)
class Shifted:
    """A database's answers for corpora of one kind: means over the corpora."""

    task: str
    rows: int
    """Of each corpus."""
    shares: str
    """How the corpora's labels are drawn."""
    corrected: float
    """Share of the corpora for which `auto` and `corpus` corrected anything."""
    plain: float
    """Accuracy of the pick without a correction."""
    auto: float
    corpus: float
    known: float
    """Accuracy if the corpus's shares are known."""


def plan() -> list[tuple[str, int]]:
    """Task and seed of every database."""
    return [(task, seed) for task in TASKS for seed in range(SEEDS)]


def measure(task: str, seed: int) -> list[Shifted]:
    """Build, and draw corpora from held-out rows, with the pool's label shares and with others."""
    of = pool(task)
    own, held = split(of, _DATABASE_ROWS, seed)
    built = build(rows_of(of, own), rows_of(of, held), of.names)
    policy = study(built.trial, COSTS, TunedPolicy()).picked.policy
    without_text = replay(policy, built.trial).answers
    plain, label = replay(policy, built.fresh).answers, built.fresh.label
    labels, rng = len(of.names), np.random.default_rng(seed)

    def accuracies(rows: NDArray[np.int64]) -> list[float]:
        """Whether a corpus is corrected; accuracy without that, with `auto`, `corpus`, and known.

        rows: positions of the corpus's rows among the fresh ones.
        """
        predicted = np.bincount(plain[rows], minlength=labels)
        shares = estimate_shares(without_text, built.trial.label, predicted, labels)
        right = np.bincount(label[rows], minlength=labels) / len(rows)
        ratios = [ratio_of(shares, "auto"), ratio_of(shares, "corpus")]
        found = [plain]
        for ratio in (*ratios, prior_ratio(replace(shares, estimated=right))):
            under = None if ratio is None else replay(policy, fresh_under(built, ratio))
            found.append(plain if under is None else under.answers)
        accuracy = [float((answers[rows] == label[rows]).mean()) for answers in found]
        return [float(ratios[0] is not None), *accuracy]

    found = []
    for rows in ROWS:
        for kind in (_OWN, *_others(labels)):
            corpora = [
                _drawn(label, _shares(kind, of.label, labels, rng), rows, rng)
                for _ in range(_CORPORA)
            ]
            means = np.mean([accuracies(corpus) for corpus in corpora], axis=0)
            found.append(Shifted(task, rows, kind, *means.tolist()))
    return found


def _others(labels: int) -> tuple[str, ...]:
    """Kinds of corpora whose label shares are not the pool's."""
    return ("even", "swapped") if labels == 2 else ("drawn",)


def _shares(
    kind: str, label: NDArray[np.uint16], labels: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(labels,) the shares that a kind of corpus is drawn with.  label: (rows,) the pool's."""
    own = np.bincount(label, minlength=labels) / len(label)
    if kind == "drawn":
        return rng.dirichlet(np.full(labels, _CONCENTRATION))
    return {_OWN: own, "swapped": own[::-1], "even": np.full(labels, 1 / labels)}[kind]


def _drawn(
    label: NDArray[np.uint16], shares: NDArray[np.float64], rows: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(rows,) positions of rows drawn with some label shares; repeated if a label has too few.

    Of 2,000 rows of cr, most are repeated: 772 are held out.  Their answers vary more from database
    to database than those of as many different rows, so more is corrected that did not shift.
    """
    parts = []
    for number, wanted in enumerate(rng.multinomial(rows, shares)):
        there = np.flatnonzero(label == number)
        parts.append(rng.choice(there, wanted, replace=wanted > len(there)))
    return np.concatenate(parts)


def tables(found: list[Shifted]) -> str:
    """The tables of BENCHMARKS.md."""
    lines = ["### Label shares: corpora in which nothing shifted\n"]
    lines.append(
        "| data set | rows of a corpus | databases | no correction | corrected | `auto` gains, "
        "mean and least of a database | `corpus` gains |"
    )
    lines.append("|---" * 7 + "|")
    for rows in ROWS:
        same = [f for f in found if (f.rows, f.shares) == (rows, _OWN)]
        for name, tasks in (*((t, (t,)) for t in TASKS), ("all", TASKS)):
            own = [f for f in same if f.task in tasks]
            auto, corpus = ([100 * (getattr(f, b) - f.plain) for f in own] for b in _ESTIMATED)
            lines.append(
                f"| {name} | {rows:,} | {len(own)} | {np.mean([f.plain for f in own]):.3f} | "
                f"{np.mean([f.corrected for f in own]):.1%} | {np.mean(auto):+.2f}, "
                f"{min(auto):+.1f} points | {np.mean(corpus):+.2f} points |"
            )
    lines.append("\n### Label shares: corpora with other ones\n")
    lines.append(
        "| data set | rows of a corpus | shares | corrected | no correction | `auto` | `corpus` | "
        "shares known | `auto` recovers | `corpus` recovers |"
    )
    lines.append("|---" * 10 + "|")
    for task in TASKS:
        kinds = [f.shares for f in found if f.task == task and f.shares != _OWN]
        for kind in dict.fromkeys(kinds):
            for rows in ROWS:
                own = [f for f in found if (f.task, f.rows, f.shares) == (task, rows, kind)]
                lines.append(f"| {task} | {rows:,} | {kind} | {_shifted(own)} |")
    return "\n".join(lines) + "\n"


def _shifted(own: list[Shifted]) -> str:
    """The last cells of a row about other shares."""
    means = {
        name: float(np.mean([getattr(f, name) for f in own]))
        for name in ("corrected", "plain", *_ESTIMATED, "known")
    }
    gain = means["known"] - means["plain"]
    recovered = [
        f"{(means[name] - means['plain']) / gain:.0%}" if gain >= _LEAST_GAIN else "–"
        for name in _ESTIMATED
    ]
    accuracy = [f"{means[name]:.3f}" for name in ("plain", *_ESTIMATED, "known")]
    return " | ".join([f"{means['corrected']:.0%}", *accuracy, *recovered])

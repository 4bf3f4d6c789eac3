"""The cost of pruning on fresh rows, and how often it can remove anything."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.honesty.builds import COSTS, Built, Rows, build, rows_of, split
from benchmarks.honesty.pools import pool
from raee.answers import Neighbours, answers_of
from raee.config import PAPER_NEIGHBOURS, RetrievalPolicy, RunnablePolicy, TunedPolicy
from raee.neighbours.index import new_index
from raee.neighbours.lists import nearest_other_texts
from raee.neighbours.pruning import NEIGHBOURS, keep_rows, values
from raee.policies.objectives import loss_p_value
from raee.policies.replay import Trial, replay
from raee.policies.tuning import study
from raee.readers.vote import vote
from raee.statistics.calibration import calibrated
from raee.statistics.paired import paired
from raee.texts import Texts
from tasks.maintenance.prune import ALLOWED, SEED, SHARES

_TASKS = ("sst2", "trec", "subj", "mpqa")
_SIZES = {700: 4, 3_000: 2}


@dataclass(frozen=True)
class Pruned:
    """The pruning of a build."""

    task: str
    size: int
    share: float
    """Share of the rows that went; 0 if no removal could be shown to be free."""
    lost: float
    """Fresh accuracy that the version's own policy lost."""
    vote_lost: float
    """Fresh accuracy that the neighbours' vote lost."""


def plan() -> list[tuple[str, int, int]]:
    """Task, size and seed of every pruning."""
    return [(t, size, s) for size, seeds in _SIZES.items() for t in _TASKS for s in range(seeds)]


def measure(task: str, size: int, seed: int) -> Pruned:
    """Prune a build as `raee prune` does, and judge on fresh rows."""
    of = pool(task)
    own, held = split(of, size, seed)
    rows, fresh = rows_of(of, own), rows_of(of, held)
    built = build(rows, fresh, of.names)
    if built.weighs_votes:  # raee prune refuses such a version
        return Pruned(task, size, 0.0, 0.0, 0.0)
    picked = study(built.trial, COSTS, TunedPolicy()).picked.policy
    policies: list[RunnablePolicy] = [RetrievalPolicy(), picked]
    half = Texts(rows.hashes).folds(2, SEED)
    near = _near(rows, rows, np.arange(size))

    def worth(queries: NDArray[np.int64]) -> NDArray[np.float64]:
        return values(near[queries], rows.label, queries)

    by_half = [worth(np.flatnonzero(half != n)) for n in (0, 1)]
    whole = [replay(p, built.trial).answers == rows.label for p in policies]
    last = 0.0
    for share in SHARES:
        after = [np.zeros(size, bool) for _ in policies]
        for n in (0, 1):
            here = np.flatnonzero(half == n)
            trial = _without(built, rows, rows, keep_rows(by_half[n], rows.label, share))
            for right, policy in zip(after, policies, strict=True):
                right[here] = replay(policy, trial[here]).answers == rows.label[here]
        once = built.trial.texts.first_rows
        found = [paired(a[once], b[once]) for a, b in zip(after, whole, strict=True)]
        level = 1 - ALLOWED.confidence
        if any(loss_p_value(f.losses, f.wins, len(once), ALLOWED) > level for f in found):
            break
        last = share
    lost = [0.0, 0.0]
    if last:
        kept = keep_rows(worth(np.arange(size)), rows.label, last)
        smaller = _without(built, rows, fresh, kept)
        for i, policy in enumerate(policies):
            right, then = (replay(policy, t).answers == fresh.label for t in (built.fresh, smaller))
            lost[i] = float(right.mean() - then.mean())
    return Pruned(task, size, last, lost[1], lost[0])


def _near(rows: Rows, asked: Rows, kept: NDArray[np.int64]) -> Neighbours:
    """The neighbours of some rows among those of another text that are kept."""
    index = new_index(rows.states.shape[2])
    index.add(rows.states[0, kept])
    texts = Texts(rows.hashes[kept])
    found = nearest_other_texts(index, asked.states[0], NEIGHBOURS, asked.hashes, texts)
    return replace(found, rows=np.where(found.rows < 0, -1, kept[found.rows]))


def _without(built: Built, rows: Rows, asked: Rows, kept: NDArray[np.int64]) -> Trial:
    """Some rows, as the database of the kept ones answers them."""
    trial = built.trial if asked is rows else built.fresh
    entries, near = trial.tried, _near(rows, asked, kept)
    votes = answers_of([vote(near.first(PAPER_NEIGHBOURS), rows.label, len(entries.labels))])
    answers, confidences = entries.answers.copy(), entries.confidences.copy()
    at = entries.votes
    answers[:, at], confidences[:, at] = votes.answers, votes.confidences
    changed = replace(entries, answers=answers, confidences=confidences)
    of_votes = {n: f for n, f in built.temperatures.items() if n.startswith("vote")}
    changed = calibrated(changed, of_votes)
    if asked is rows:
        return replace(trial, entries=changed, neighbours=near)
    return replace(trial, fresh=changed, neighbours=near)


def tables(found: list[Pruned]) -> str:
    """The table of BENCHMARKS.md."""
    lines = ["### Pruning\n"]
    lines.append(
        "| rows | data set | prunings | share that went | the policy lost on fresh rows, mean and "
        "most | the vote |"
    )
    lines.append("|---" * 6 + "|")
    for size in _SIZES:
        for task in _TASKS:
            own = [f for f in found if (f.task, f.size) == (task, size)]
            shares = ", ".join(f"{f.share:g}" for f in own)
            lost, votes = ([100 * getattr(f, w) for f in own] for w in ("lost", "vote_lost"))
            lines.append(
                f"| {size:,} | {task} | {len(own)} | {shares} | {np.mean(lost):.1f}, "
                f"{max(lost):.1f} points | {np.mean(votes):.1f}, {max(votes):.1f} points |"
            )
    return "\n".join(lines) + "\n"

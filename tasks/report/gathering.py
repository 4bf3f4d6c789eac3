"""The content of a version's report is gathered by replay, for `write_report`."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raee.policies.baselines import BASELINES, MAJORITY, Against, against
from raee.policies.choosing import FOLDS
from raee.policies.compared import Judged, beside_baselines, majority, metrics_of
from raee.policies.costs import Costs
from raee.policies.objectives import Tuning
from raee.policies.replay import Replayed, Trial, replay
from raee.policies.tuning import FULL_DEPTH, TUNED
from raee.readers.pool import READER as POOL
from raee.readers.table import readers
from raee.statistics import far as database_far
from raee.statistics.calibration import cross_fitted_confidences
from raee.statistics.paired import Paired
from tasks.report.data import (
    LOGISTIC,
    Bin,
    Duel,
    Example,
    Examples,
    ExitLine,
    Far,
    Hits,
    LabelLine,
    Parent,
    PolicyLine,
    PoolLine,
    Quality,
    ReportData,
)
from tasks.report.words import in_words, shorten

Texts = Callable[[list[int]], list[str]]
"""Gets the texts of entries by their positions."""

_LEVEL = 0.05
"""Level of the two-sided paired test that tells better from worse."""

_MAJORITY_IN_WORDS = "no policy: every row gets the database's most frequent label"

_BINS = 10
_FAR_BINS = 40
_EXAMPLES = 5
"""Examples that are shown of each kind."""

_LONGEST_TEXT = 200
_LONGEST_LABEL = 60
"""Characters that are shown."""

_MOST_LABELS = 200
"""Labels that are shown, the most frequent ones: people read the page."""


def gather(
    name: str,
    version: str,
    created_at: datetime,
    trial: Trial,
    tuning: Tuning,
    runs: Mapping[str, Judged],
    costs: Costs,
    far: database_far.Far,
    far_level: float,
    growth: Mapping[str, Sequence[tuple[int, float]]],
    texts: Texts | None,
    parent: Parent | None = None,
    copies: Mapping[str, Any] | None = None,
    own: str = TUNED,
    pool: Sequence[Mapping[str, float]] = (),
) -> ReportData:
    """Gather the content of a version's report.

    trial: the rows on which `tuning` was made.  runs: by the name to show, `tuned` and the best at
    full depth among them.  far: of the trial's rows; far_level: the share of rows like these that
    is flagged as far.  growth: by reader, rows of the database and accuracy.  texts: None if the
    version keeps none.  own: the job's policy.  pool: by depth, the weights of the pool's experts;
    empty if the version has none.  Raises InputError if the database lacks an exit that a policy
    needs.
    """
    entries, label = trial.entries, trial.label
    done = {MAJORITY: majority(trial), **{n: run.done for n, run in runs.items()}}
    right = {n: replayed.answers == label for n, replayed in done.items()}
    found = metrics_of(runs, trial)

    def line(name: str, words: str, fitted: NDArray[np.bool_], picked: bool) -> PolicyLine:
        return PolicyLine(
            words=words,
            hits=_hits(right[name]),
            fitted=_hits(fitted),
            picked=picked,
            macro_f1=found[name]["macro_f1"],
            mean_layers=found[name]["mean_layers"],
            seconds_per_row=found[name]["seconds_per_row"],
        )

    lines = {
        n: line(
            n,
            in_words(run.policy, entries, run.done),
            replay(run.policy, trial, costs).answers == label,
            run.picked,
        )
        for n, run in runs.items()
    }
    compared = [n for n in (TUNED, FULL_DEPTH, LOGISTIC) if n in runs]
    once = trial.texts.first_rows  # copies are no evidence of their own
    beside = beside_baselines(own if own in runs else TUNED, runs, found)
    bins, calibration_error = _reliability(done[TUNED], trial, tuning.seed)
    return ReportData(
        name=name,
        version=version,
        created_at=created_at,
        rows=len(entries),
        tried_rows=len(trial),
        labels=len(entries.labels),
        depth=entries.exits[entries.full].depth,
        costs=costs,
        policies=dict(
            sorted(lines.items(), key=lambda p: (-p[1].hits.right, p[1].seconds_per_row))
        ),
        front=tuple(point.cross_fitted for point in tuning.front),
        tried=tuning.tried,
        copies=copies,
        better_baseline=None if beside is None else beside.better,
        majority=line(MAJORITY, _MAJORITY_IN_WORDS, right[MAJORITY], False),
        duels=tuple(
            _duel(n, _hits(right[n]), against(right[TUNED][once], right[n][once]))
            for n in (FULL_DEPTH, *BASELINES)
            if n in done
        ),
        pools=_pools(done[TUNED], trial, pool),
        curves=_curves(trial),
        exits=_exits(done[TUNED], trial),
        bins=bins,
        calibration_error=calibration_error,
        growth={reader: tuple(points) for reader, points in growth.items() if points},
        far=_far(far, far_level),
        by_label=_by_label({n: found[n]["by_label"] for n in compared}),
        examples=None if texts is None else _examples(done, trial, texts, tuning.seed),
        parent=parent,
    )


def _hits(right: NDArray[np.bool_]) -> Hits:
    return Hits(int(right.sum()), len(right))


def _duel(other: str, hits: Hits, found: Against) -> Duel:
    counts = Paired(found.wins, found.losses)
    better, worse = (counts.p_value(way) < _LEVEL / 2 for way in ("greater", "less"))
    verdict: Literal["better", "worse", "not distinguishable"]
    verdict = "better" if better else "worse" if worse else "not distinguishable"
    interval = found.difference_interval
    return Duel(other, hits, found.wins, found.losses, verdict, found.difference, interval)


def _pools(
    replayed: Replayed, trial: Trial, weights: Sequence[Mapping[str, float]]
) -> tuple[PoolLine, ...]:
    """The pool at the depth where most of its rows leave, and at full depth."""
    if not weights:
        return ()
    rows = np.zeros(len(weights), np.int64)
    for position in trial.entries.positions(POOL.name):
        rows[trial.entries.exits[position].depth] = (replayed.exits == position).sum()
    depths = {int(rows.argmax()), len(weights) - 1} if rows.any() else {len(weights) - 1}
    lines = []
    for depth in sorted(depths):
        by_reader: dict[str, float] = {}
        for expert, weight in weights[depth].items():
            name = expert.partition("@")[0]
            by_reader[name] = by_reader.get(name, 0.0) + weight
        lines.append(PoolLine(depth, int(rows[depth]), by_reader))
    return tuple(lines)


def _curves(trial: Trial) -> dict[str, tuple[tuple[int, float], ...]]:
    entries, rates = trial.entries, trial.entries.right[trial.rows].mean(axis=0)
    return {
        reader.name: tuple((entries.exits[i].depth, float(rates[i])) for i in positions)
        for reader in readers()
        if reader.answers_as is None and (positions := entries.positions(reader.name))
    }


def _exits(replayed: Replayed, trial: Trial) -> tuple[ExitLine, ...]:
    right = replayed.answers == trial.label
    used = [(trial.entries.exits[i], right[replayed.exits == i]) for i in np.unique(replayed.exits)]
    used.sort(key=lambda u: (u[0].depth, u[0].reader))
    return tuple(ExitLine(str(e), e.reader, e.depth, _hits(hits)) for e, hits in used)


def _reliability(replayed: Replayed, trial: Trial, seed: int) -> tuple[tuple[Bin, ...], float]:
    """The bins and the calibration error of the confidences that a classification would write."""
    sure = cross_fitted_confidences(replayed, trial, trial.texts.folds(FOLDS, seed))
    right = replayed.answers == trial.label
    bin_of = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    bins = []
    for i in range(_BINS):
        here = bin_of == i
        mean = float(sure[here].mean(dtype=np.float64)) if here.any() else 0.0
        bins.append(Bin(i / _BINS, (i + 1) / _BINS, _hits(right[here]), mean))
    gaps = [b.hits.rows * abs(b.hits.share - b.confidence) for b in bins]
    return tuple(bins), sum(gaps) / max(len(trial), 1)


def _far(own: database_far.Far, level: float) -> Far:
    """The histogram ends a little beyond the limit: a few rows far out would flatten the rest."""
    limit, scores = own.limit(level), own.scores
    top = float(scores.max(initial=1e-12))
    if np.isfinite(limit) and limit > 0:
        top = min(top, 1.25 * limit)
    counts, edges = np.histogram(np.minimum(scores, top), bins=_FAR_BINS, range=(0.0, top))
    return Far(
        level=level,
        limit=float(limit),
        beyond=int((scores > limit).sum()),
        rows=len(scores),
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
    )


def _by_label(found: dict[str, dict[str, dict[str, float]]]) -> tuple[LabelLine, ...]:
    lines = [
        LabelLine(
            shorten(label, _LONGEST_LABEL),
            int(tuned["rows"]),
            {n: Quality(f[label]["precision"], f[label]["recall"]) for n, f in found.items()},
        )
        for label, tuned in found[TUNED].items()
    ]
    lines.sort(key=lambda line: -line.rows)
    return tuple(lines[:_MOST_LABELS])


def _examples(done: Mapping[str, Replayed], trial: Trial, texts: Texts, seed: int) -> Examples:
    entries, label = trial.entries, trial.label
    tuned, full = done[TUNED], done[FULL_DEPTH]
    ours, theirs = tuned.answers == label, full.answers == label
    early = ours & ~theirs & (tuned.layers < entries.exits[entries.full].depth)
    late = theirs & ~ours
    random = np.random.default_rng(seed)

    def name(index: int) -> str:
        return shorten(entries.labels[index], _LONGEST_LABEL)

    def some(rows: NDArray[np.int64]) -> tuple[Example, ...]:
        drawn = np.sort(random.permutation(rows)[:_EXAMPLES])
        return tuple(
            Example(
                text=shorten(text, _LONGEST_TEXT),
                label=name(label[row]),
                exit=str(entries.exits[tuned.exits[row]]),
                tuned=name(tuned.answers[row]),
                full_depth=name(full.answers[row]),
            )
            for row, text in zip(drawn, texts(trial.rows[drawn].tolist()), strict=True)
        )

    return Examples(
        early_rows=int(early.sum()),
        early=some(np.flatnonzero(early)),
        full_rows=int(late.sum()),
        full=some(np.flatnonzero(late)),
    )

"""The content of a version's report, gathered by replay for `write_report`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raee.policies.choosing import FOLDS
from raee.policies.compared import Judged
from raee.policies.costs import LAYERS, Costs
from raee.policies.objectives import Figures, Tuning
from raee.policies.replay import Replayed, Trial, figures, replay
from raee.policies.tuning import FULL_DEPTH, TUNED
from raee.readers.table import readers
from raee.statistics import far as database_far
from raee.statistics.calibration import cross_fitted_confidences
from raee.statistics.paired import paired
from tasks.report.words import in_words, shorten

LOGISTIC = "logistic"
"""The policy that does what people do today: every row answers at the regression's exit."""

Texts = Callable[[list[int]], list[str]]
"""Gets the texts of entries by their positions."""

_LEVEL = 0.05
"""Level of the two-sided paired test that tells better from worse."""

_BINS = 10
_FAR_BINS = 40
_EXAMPLES = 5
"""Examples that are shown of each kind."""

_LONGEST_TEXT = 200
_LONGEST_LABEL = 60
"""Characters that are shown."""

_MOST_LABELS = 200
"""Labels that are shown, the most frequent ones: people read the page."""


@dataclass(frozen=True)
class Hits:
    """How many of some rows were answered right."""

    right: int
    rows: int

    @property
    def share(self) -> float:
        """The accuracy, from 0 to 1."""
        return self.right / max(self.rows, 1)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        from scipy.stats import binomtest  # slow to import

        found = binomtest(self.right, max(self.rows, 1)).proportion_ci(0.95, "wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class PolicyLine:
    """A policy: what it does, and how well; cross-fitted if it was picked on these rows."""

    words: str
    hits: Hits
    fitted: Hits
    """The policy itself, on the rows that it was picked on."""
    picked: bool
    """Whether the policy was picked on these rows: then `fitted` is too good."""
    macro_f1: float
    mean_layers: float
    seconds_per_row: float
    """As the cost table models them; layers if no costs were measured."""


@dataclass(frozen=True)
class Duel:
    """The tuned policy against another one on the same rows, by McNemar's exact test."""

    other: str
    ours: int
    """Rows on which only the tuned policy is right."""
    theirs: int
    """Rows on which only the other one is."""
    verdict: Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True)
class ExitLine:
    """An exit at which the tuned policy answers some rows."""

    exit: str
    reader: str
    depth: int
    hits: Hits


@dataclass(frozen=True)
class Bin:
    """Rows that the tuned policy answers with confidences in [low, high)."""

    low: float
    high: float
    hits: Hits
    confidence: float
    """The mean confidence of the rows; 0 without any."""


@dataclass(frozen=True)
class Far:
    """How unlike the others each row is, without its text (`raee.statistics.far`)."""

    level: float
    """Share of fresh rows like these that is flagged as far."""
    limit: float
    """Score beyond which a row is far."""
    beyond: int
    rows: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    """How many rows are between two edges; the last count has those beyond the last edge, too."""


@dataclass(frozen=True)
class Quality:
    """A policy on the rows of a label."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / max(self.precision + self.recall, 1e-12)


@dataclass(frozen=True)
class LabelLine:
    """A label, and by policy how well its rows are answered."""

    label: str
    rows: int
    qualities: dict[str, Quality]


@dataclass(frozen=True)
class Example:
    """A row that the tuned policy and full depth answer differently."""

    text: str
    label: str
    exit: str
    """The exit at which the tuned policy answered."""
    tuned: str
    full_depth: str


@dataclass(frozen=True)
class Examples:
    """Rows that only the tuned policy or only full depth got right: how many, and some of them."""

    early_rows: int
    early: tuple[Example, ...]
    """Rows that only the tuned policy got right, before the last layer; drawn at random."""
    full_rows: int
    full: tuple[Example, ...]
    """Rows that only the best exit at full depth got right; drawn at random."""


@dataclass(frozen=True)
class Parent:
    """The version that this one was built from, with its tuned policy's figures."""

    version: str
    rows: int
    accuracy: float
    mean_layers: float


@dataclass(frozen=True)
class ReportData:
    """All that the page shows."""

    name: str
    version: str
    created_at: datetime
    rows: int
    tried_rows: int
    """How many rows were read by every exit: policies were replayed on these."""
    labels: int
    depth: int
    """Layers of the backbone."""
    costs: Costs
    policies: dict[str, PolicyLine]
    """By name, the most accurate first; `tuned` and the best at full depth are among them."""
    front: tuple[Figures, ...]
    """The search's Pareto front, cross-fitted, cheapest first."""
    tried: int
    """How many policies were searched."""
    copies: Mapping[str, Any] | None
    """Rows with equal and nearly equal texts, as the manifest has them; None if not known."""
    duels: tuple[Duel, ...]
    curves: dict[str, tuple[tuple[int, float], ...]]
    """Depth and accuracy by reader, on all rows that were tried."""
    exits: tuple[ExitLine, ...]
    bins: tuple[Bin, ...]
    calibration_error: float
    """Expected: the mean distance of confidence and accuracy over bins, weighted by their rows."""
    growth: dict[str, tuple[tuple[int, float], ...]]
    """Rows of the database and accuracy, by reader."""
    far: Far
    by_label: tuple[LabelLine, ...]
    """The labels that are shown, the most frequent first."""
    examples: Examples | None
    """None if the version keeps no texts."""
    parent: Parent | None

    @property
    def measured(self) -> bool:
        """Whether costs are seconds; otherwise they are layers."""
        return self.costs != LAYERS


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
) -> ReportData:
    """Gather the content of a version's report.

    trial: the rows on which `tuning` was made.  runs: by the name to show, `tuned` and the best at
    full depth among them.  far: of the trial's rows; far_level: the share of rows like these that
    is flagged as far.  growth: by reader, rows of the database and accuracy.  texts: None if the
    version keeps none.  Raises InputError if the database lacks an exit that a policy needs.
    """
    entries, label = trial.entries, trial.label
    done = {n: run.done for n, run in runs.items()}
    found = {n: figures(replayed, trial) for n, replayed in done.items()}
    lines = {
        n: PolicyLine(
            words=in_words(run.policy, entries, run.done),
            hits=_hits(run.done.answers == label),
            fitted=_hits(replay(run.policy, trial, costs).answers == label),
            picked=run.picked,
            macro_f1=found[n]["macro_f1"],
            mean_layers=found[n]["mean_layers"],
            seconds_per_row=found[n]["seconds_per_row"],
        )
        for n, run in runs.items()
    }
    compared = [n for n in (TUNED, FULL_DEPTH, LOGISTIC) if n in runs]
    right = {n: done[n].answers == label for n in compared}
    once = trial.texts.first_rows  # copies are no evidence of their own
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
        duels=tuple(_duel(n, right[TUNED][once], right[n][once]) for n in compared[1:]),
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


def _duel(other: str, ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Duel:
    found = paired(ours, theirs)
    better, worse = (found.p_value(way) < _LEVEL / 2 for way in ("greater", "less"))
    verdict: Literal["better", "worse", "not distinguishable"]
    verdict = "better" if better else "worse" if worse else "not distinguishable"
    return Duel(other, found.wins, found.losses, verdict)


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

"""The content of a version's report, as `tasks.report.gathering` gathers it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from raee.policies.costs import LAYERS, Costs
from raee.policies.objectives import Figures

WORDS, LOGISTIC = "words", "logistic"
"""The policies that do what people do today: every row answers at a regression's exit."""


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
    """The tuned policy against another one, or a baseline, on the same rows; a text counts once."""

    other: str
    hits: Hits
    """The other one's, on all rows."""
    ours: int
    """Rows on which only the tuned policy is right."""
    theirs: int
    """Rows on which only the other one is."""
    verdict: Literal["better", "worse", "not distinguishable"]
    """By McNemar's exact test."""
    difference: float
    """The tuned policy's accuracy less the other's."""
    interval: tuple[float, float]
    """Of the difference: 95 %, paired."""


@dataclass(frozen=True)
class PoolLine:
    """What the experts of the pool at a depth count."""

    depth: int
    rows: int
    """Rows that the tuned policy lets leave there."""
    weights: dict[str, float]
    """By reader; that of probes and votes is the sum over depths."""


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
    better_baseline: str | None
    """Which baseline is better than the job's policy, and what to do; None if none is."""
    majority: PolicyLine
    """The most frequent label for every row, which is no policy."""
    duels: tuple[Duel, ...]
    """Against the best exit at full depth and each baseline that the version has."""
    pools: tuple[PoolLine, ...]
    """The pool where most of its rows leave, and at full depth; none if the version has none."""
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

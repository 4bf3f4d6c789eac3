"""The charts of a report, which `write_report` writes by way of `tasks.report.writing`."""

import math
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from raee.policies.baselines import BASELINES
from raee.policies.tuning import FULL_DEPTH, TUNED
from raee.readers.reader import Look
from raee.readers.table import READERS, reader
from tasks.report.data import ReportData
from tasks.report.svg import COLOURS, STYLE, WIDTH, inline

_OTHER = Look("ink", "o", "-")

_NUMBER = ("muted", "card", "ink")
_OWN_NUMBER = ("c2", "c2", "card")
"""Colours of a number's edge, disc and digits."""


def charts(data: ReportData) -> dict[str, Markup]:
    """By name, the charts as `<svg>` elements with a title and a description."""
    found = {}
    with matplotlib.rc_context(STYLE):
        for name, (title, draw) in _CHARTS.items():
            if name == "growth" and not data.growth:
                continue
            figure = Figure((WIDTH / 72, 260 / 72), dpi=72, facecolor="none")
            found[name] = inline(figure, name, title, draw(figure, data))
    return found


def badges(data: ReportData) -> dict[str, int]:
    """By policy, its number in the chart of all policies."""
    return {name: number for number, name in enumerate(data.policies, 1)}


def _pareto(figure: Figure, data: ReportData) -> str:
    figure.set_figheight(330 / 72)
    axes = _axes(
        figure, "milliseconds a row, modelled" if data.measured else "layers a row", top=14
    )
    scale = 1000 if data.measured else 1
    front = sorted((scale * point.seconds_per_row, point.accuracy) for point in data.front)
    marks = [(scale * p.seconds_per_row, p.hits.share) for p in data.policies.values()]
    compared = (TUNED, FULL_DEPTH, *BASELINES)
    needed = [p.hits.share for name, p in data.policies.items() if name in compared]
    low, high = _accuracies([y for _, y in front + marks], needed)
    axes.set_xlim(0, 1.06 * max(x for x, _ in front + marks))
    axes.set_ylim(low, high)
    costs, accuracies = [x for x, _ in front], [y for _, y in front]
    axes.plot(costs, accuracies, "-", color=COLOURS["c1"], linewidth=1.2, alpha=0.5)
    axes.plot(costs, accuracies, "o", color=COLOURS["c1"], markersize=3, alpha=0.7)
    _number(axes, data, marks)
    return "Accuracy against cost. " + "; ".join(
        f"{number} {name}: {y:.1%} at {x:.3g}"
        for (name, number), (x, y) in zip(badges(data).items(), marks, strict=True)
    )


def _number(axes: Axes, data: ReportData, marks: Sequence[tuple[float, float]]) -> None:
    """Mark each policy with its number, at the chart's foot if it lies below the chart."""
    low = axes.get_ylim()[0]
    anchors = np.array([(x, max(y, low)) for x, y in marks])
    pixels = axes.transData.transform(anchors)
    corners = axes.get_window_extent().get_points()
    beside = axes.transData.inverted().transform(pixels + _offsets(pixels, corners))
    for (name, number), (x, y), (there_x, there_y), (_, true_y) in zip(
        badges(data).items(), anchors, beside, marks, strict=True
    ):
        own = name == TUNED
        edge, fill, ink = (COLOURS[c] for c in (_OWN_NUMBER if own else _NUMBER))
        axes.plot(
            x,
            y,
            marker="o" if true_y >= low else "v",
            color=COLOURS["c2" if own else "ink"],
            markersize=8 if own else 5,
            clip_on=False,
            zorder=4,
        )
        axes.plot([x, there_x], [y, there_y], color=edge, linewidth=0.8, clip_on=False, zorder=3)
        axes.plot(
            there_x,
            there_y,
            marker="o",
            markersize=16,
            color=fill,
            markeredgecolor=edge,
            clip_on=False,
            zorder=5,
        )
        axes.annotate(
            str(number),
            (there_x, there_y),
            ha="center",
            va="center_baseline",
            fontsize=10,
            fontweight="bold",
            color=ink,
            annotation_clip=False,
            zorder=6,
        )


def _by_exit(figure: Figure, data: ReportData) -> str:
    axes = _axes(figure, "depth: layers run")
    _lines(axes, data.curves)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlim(-0.04 * max(data.depth, 1), 1.04 * max(data.depth, 1))
    return _in_words(data.curves, "depth")


def _growth(figure: Figure, data: ReportData) -> str:
    axes = _axes(figure, "rows in the database")
    _lines(axes, data.growth)
    sizes = sorted({size for points in data.growth.values() for size, _ in points})
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    return _in_words(data.growth, "rows")


def _exits(figure: Figure, data: ReportData) -> str:
    figure.set_figheight(330 / 72)
    axes = _axes(figure, "depth at which a row answers")
    depths = data.depth + 1
    foot = np.zeros(depths)
    for name in dict.fromkeys(line.reader for line in data.exits):
        share = np.zeros(depths)
        for line in data.exits:
            if line.reader == name:
                share[line.depth] = line.hits.rows / data.tried_rows
        colour = COLOURS[_look(name).colour]
        axes.bar(np.arange(depths), share, 0.72, bottom=foot, color=colour, label=name)
        foot += share
    for depth in np.flatnonzero(foot if depths <= 13 else []):
        axes.annotate(
            f"{foot[depth]:.1%}",
            (depth, foot[depth]),
            (0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=10 if depths <= 9 else 8,
        )
    axes.set_ylim(0, 1.12 * foot.max())
    axes.set_xlim(-0.6, data.depth + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(13, integer=True))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=5)
    return "Share of the rows. " + "; ".join(
        f"{line.exit}: {line.hits.rows / data.tried_rows:.1%}" for line in data.exits
    )


def _reliability(figure: Figure, data: ReportData) -> str:
    figure.set_figheight(330 / 72)
    axes = _axes(figure, "", bottom=110, top=14)
    counts = _axes(figure, "confidence", top=240)
    used = [b for b in data.bins if b.hits.rows]
    axes.plot([0, 1], [0, 1], ":", color=COLOURS["muted"], linewidth=1.2)
    spread = [
        [max(b.hits.share - b.hits.interval[0], 0) for b in used],
        [max(b.hits.interval[1] - b.hits.share, 0) for b in used],
    ]
    axes.errorbar(
        [b.confidence for b in used],
        [b.hits.share for b in used],
        spread,
        marker="o",
        color=COLOURS["c2"],
        elinewidth=1.2,
    )
    axes.text(0.98, 0.02, "accuracy", color=COLOURS["muted"], ha="right")
    axes.set_ylim(-0.02, 1.02)
    counts.bar(
        [(b.low + b.high) / 2 for b in data.bins],
        [b.hits.rows for b in data.bins],
        0.9 / len(data.bins),
        color=COLOURS["c1"],
    )
    counts.text(0.02, 0.95, "rows", color=COLOURS["muted"], va="top", transform=counts.transAxes)
    counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    counts.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for each in (axes, counts):
        each.set_xlim(0, 1)
        each.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.tick_params(labelbottom=False)
    return "Accuracy by confidence. " + "; ".join(
        f"{b.low:.0%} to {b.high:.0%}: {b.hits.share:.1%} of {b.hits.rows} rows" for b in used
    )


def _far(figure: Figure, data: ReportData) -> str:
    axes = _axes(figure, "squared distance to the nearest other row", top=14)
    far, edges = data.far, np.array(data.far.edges)
    beyond = edges[:-1] >= far.limit
    axes.bar(
        edges[:-1],
        far.counts,
        0.9 * np.diff(edges),
        align="edge",
        color=[COLOURS["c2" if b else "c1"] for b in beyond],
    )
    if far.limit <= edges[-1]:
        axes.axvline(far.limit, color=COLOURS["c2"], linewidth=1.4, linestyle="--")
        axes.annotate(
            "far from here",
            (far.limit, 1),
            (-6, 0),
            textcoords="offset points",
            xycoords=("data", "axes fraction"),
            ha="right",
            va="top",
            color=COLOURS["c2"],
            fontweight="bold",
        )
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return (
        f"Rows by distance, from 0 to {edges[-1]:.3g}, the last bar with all beyond; rows farther "
        f"than {far.limit:.3g} are far: {far.beyond} of {far.rows}."
    )


_CHARTS: dict[str, tuple[str, Callable[[Figure, ReportData], str]]] = {
    "pareto": ("Accuracy against cost", _pareto),
    "by-exit": ("Accuracy by depth and reader", _by_exit),
    "exits": ("Where rows answer", _exits),
    "reliability": ("Confidence against accuracy", _reliability),
    "growth": ("Accuracy against database size", _growth),
    "far": ("Distances to the nearest row", _far),
}


def _look(which: str) -> Look:
    """The look of a reader, an exit, or anything else that is drawn."""
    name = which.partition("@")[0]
    return reader(name).look if name in READERS else _OTHER


def _axes(figure: Figure, label: str, bottom: int = 42, top: int = 26) -> Axes:
    """Axes with margins in a chart's units."""
    height = 72 * figure.get_figheight()
    axes = figure.add_axes(
        (44 / WIDTH, bottom / height, (WIDTH - 56) / WIDTH, (height - bottom - top) / height),
        facecolor="none",
    )
    axes.set_xlabel(label)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    return axes


def _lines(axes: Axes, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    for name, points in curves.items():
        look = _look(name)
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            marker=look.marker,
            markersize=10 if look.marker == "*" else None,
            linestyle=look.line,
            color=COLOURS[look.colour],
            clip_on=False,
        )
    handles = [
        Line2D(
            [],
            [],
            marker=_look(name).marker,
            linestyle=_look(name).line,
            color=COLOURS[_look(name).colour],
            markersize=9 if _look(name).marker == "*" else None,
            label=name,
        )
        for name in curves
    ]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.1, 1.03),
        ncols=6,
        columnspacing=0.6,
        handlelength=1.2,
        handletextpad=0.3,
    )
    axes.yaxis.set_major_locator(MaxNLocator(6))


def _in_words(curves: Mapping[str, Sequence[tuple[int, float]]], what: str) -> str:
    return "; ".join(
        f"{name}: " + ", ".join(f"{y:.1%} at {what} {x:,}" for x, y in points)
        for name, points in curves.items()
    )


def _accuracies(shown: Sequence[float], needed: Sequence[float]) -> tuple[float, float]:
    """The range of accuracies to draw: those that are needed, and those not much lower.

    If it reached down to the worst, the others could not be told apart.
    """
    high = max(shown)
    reach = max(1.25 * (high - min(needed)), 0.05)
    low = min(y for y in shown if y >= high - reach)
    margin = max(0.12 * (high - low), 0.01)
    return max(low - margin, 0.0), min(high + margin, 1.02)


def _offsets(anchors: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(marks, 2) from marks to their numbers: near, inside the box, and clear of each other.

    anchors: (marks, 2); box: (2, 2) its corners; all in a chart's units.
    """
    tried = [
        (reach * math.cos(angle), reach * math.sin(angle))
        for reach in (15, 24, 36, 50)
        for angle in np.linspace(0.5, 2 * np.pi + 0.5, 16, endpoint=False)
    ]
    centres: dict[int, np.ndarray] = {}
    for i in np.lexsort((anchors[:, 1], anchors[:, 0])):

        def fault(offset: tuple[float, float], i: int = i) -> float:
            at = anchors[i] + offset
            outside = (at < box[0] + 8).any() or (at > box[1] - 4).any()
            on_numbers = sum(math.dist(at, other) < 18 for other in centres.values())
            on_marks = sum(math.dist(at, anchor) < 12 for anchor in anchors)
            return 1000 * outside + 200 * on_numbers + 100 * on_marks + math.hypot(*offset)

        centres[i] = anchors[i] + min(tried, key=fault)
    return np.array([centres[i] - anchors[i] for i in range(len(anchors))])

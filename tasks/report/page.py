"""What `write_report` writes: one HTML page that needs no network, no fonts and no scripts."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from raee.policies.baselines import BASELINES
from raee.policies.tuning import FULL_DEPTH, TUNED
from raee.readers.table import reader
from tasks.report.data import LOGISTIC, WORDS, ReportData
from tasks.report.words import pool_in_words

_CORPUS = 1_000_000
"""Rows for which the page shows what the tuned policy would save."""


def render(data: ReportData) -> str:
    """The page as HTML; the same data make the same text."""
    from tasks.report.charts import badges, charts  # slow to import

    short = {FULL_DEPTH: "full depth", WORDS: "words", LOGISTIC: "logistic", TUNED: "tuned"}
    compared = {name: data.policies[name] for name in short if name in data.policies}
    hours = {name: _CORPUS * p.seconds_per_row / 3600 for name, p in compared.items()}
    return _template().render(
        data=data,
        charts=charts(data),
        badges=badges(data),
        tuned=data.policies[TUNED],
        full_depth=data.policies[FULL_DEPTH],
        logistic=data.policies.get(LOGISTIC),
        titles=BASELINES,
        baseline=min((d for d in data.duels if d.other in BASELINES), key=lambda d: d.difference),
        short=short,
        meanings={name: reader(name).description for name in data.curves},
        by_depth=_pivot(data.curves),
        by_size=_pivot(data.growth),
        ms_digits=_digits(1000 * p.seconds_per_row for p in data.policies.values()),
        corpus=_CORPUS,
        compared=compared,
        hours=hours,
        hours_digits=_digits(hours.values()),
        longest=max(*hours.values(), 1e-12),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": _percent,
        "count": _count,
        "points": _points,
        "pool": pool_in_words,
        "fixed": _fixed,
        "significant": _significant,
        "moment": _moment,
    }
    return environment.get_template("page.html.jinja")


def _pivot(
    curves: Mapping[str, Sequence[tuple[int, float]]],
) -> list[tuple[int, list[float | None]]]:
    """Curves as the lines of a table, with a column for each curve."""
    columns = [dict(points) for points in curves.values()]
    abscissas = sorted({x for column in columns for x in column})
    return [(x, [column.get(x) for column in columns]) for x in abscissas]


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _digits(values: Iterable[float]) -> int:
    """How many decimals a column of positive numbers has, by the largest number."""
    largest = max(values)
    return 1 if largest >= 100 else 2 if largest >= 1 else 3


def _fixed(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _significant(value: float) -> str:
    return _fixed(value, _digits([value]))


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

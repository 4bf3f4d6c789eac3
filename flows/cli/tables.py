"""Tables of the figures that the commands print."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from raee.errors import InputError

if TYPE_CHECKING:  # slow to import, and most commands print nothing of it
    from raee.config import PolicySpec, RunnablePolicy
    from raee.policies.objectives import Point, Tuning
    from tasks.classify.evaluation import Evaluation
    from tasks.classify.explain import Explanation
    from tasks.maintenance.prune import Pruning

_EXITS = 4
"""How many of a policy's exits are shown: the most frequent ones."""

_POINTS = 20
"""How many of a front's points are shown, evenly spread."""


def table(*headers: str, title: str | None = None) -> Table:
    """An empty table with a column for each header."""
    shown = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title=title,
        title_justify="left",
        title_style="bold",
    )
    for header in headers:
        shown.add_column(header, overflow="fold")
    return shown


def evaluation_table(found: "Evaluation") -> Table:
    """A table of the majority and every policy, as `tasks.classify.evaluation` found them."""
    shown = table(
        "policy", "accuracy", "95 %", "macro-F1", "Matthews", "mean layers", "rows/s", "exits"
    )
    for name, figures in (("majority", found.majority), *found.policies.items()):
        low, high = figures.accuracy_interval
        exits = sorted(figures.exits.items(), key=lambda item: -item[1])[:_EXITS]
        shown.add_row(
            name,
            f"{figures.accuracy:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{figures.macro_f1:.3f}",
            f"{figures.matthews:.3f}",
            f"{figures.mean_layers:.2f} of {found.depth}",
            "" if figures.rows_per_second is None else f"{figures.rows_per_second:,.0f}",
            " ".join(f"{e}:{n}" for e, n in exits),
        )
    return shown


def tuning_tables(found: "Tuning", policy: "PolicySpec", where: str) -> list[Table]:
    """Tables of a tuning: its front, its families and its keys.

    where: the version, for titles and messages.  Raises InputError if the policy's objective cannot
    be met.
    """
    from raee.config import TunedPolicy

    objective = policy if isinstance(policy, TunedPolicy) else TunedPolicy()
    try:
        picked = found.pick(objective)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    front = table(
        "accuracy",
        "picked at",
        "layers",
        "ms/row",
        "policy",
        title=f"{where}: {found.tried:,} policies tried on {found.rows:,} rows; accuracy is "
        "cross-fitted",
    )
    every = max(1, -(-len(found.front) // _POINTS))
    points = [p for i, p in enumerate(found.front) if i % every == 0 or p == picked]
    points += [picked] if picked not in points else []
    points += [found.full_depth] if found.full_depth not in points else []
    for point in points:
        mark = " <- the job's policy" if point == picked else ""
        mark += " (best exit at full depth)" if point == found.full_depth else ""
        front.add_row(*_point_cells(point), describe(point.policy) + mark)
    families = table("accuracy", "picked at", "layers", "ms/row", "best of each kind")
    for point in found.families.values():
        families.add_row(*_point_cells(point), describe(point.policy))
    keys = table("key's vote", "accuracy without", "ms/row without", "worth keeping")
    for name, worth in found.keys.items():
        keys.add_row(
            name,
            f"{worth.accuracy_without:.4f}",
            f"{1000 * worth.seconds_without:.2f}",
            "yes" if worth.worth_keeping else "no",
        )
    return [front, families, keys]


def baselines_table(metrics: Mapping[str, Mapping[str, Any]], own: str) -> Table:
    """A table of the baselines on a version's own rows, with a policy's difference to each.

    metrics: as `raee.policies.compared.metrics_of` has them; own: the policy's name, which may be
    missing there.
    """
    from raee.policies.baselines import BASELINES

    shown = table(
        *("accuracy", "layers", "ms/row", "baseline", f"{own} less it", "95 %", "p"),
        title=f"{own} against what people do without raee, on the same rows",
    )
    for name in (b for b in BASELINES if b in metrics):
        figures, cells = metrics[name], ["", "", ""]
        if own in metrics:
            against = metrics[own]["against"][name]
            low, high = against["difference_interval"]
            difference = f"{against['difference']:+.4f}"
            cells = [difference, f"{low:+.4f} to {high:+.4f}", f"{against['p_value']:.2g}"]
        shown.add_row(
            f"{figures['accuracy']:.4f}",
            f"{figures['mean_layers']:.2f}",
            f"{1000 * figures['seconds_per_row']:.2f}",
            f"{name}: {BASELINES[name]}",
            *cells,
        )
    return shown


def describe(policy: "RunnablePolicy") -> str:
    """A policy with its settings, in a line."""
    settings = []
    for key, value in policy.model_dump(exclude={"name"}).items():
        if value is None:
            continue
        many = value if isinstance(value, list | tuple) else [value]
        shown = "+".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in many)
        settings.append(f"{key} {shown}")
    return ", ".join([policy.name, *settings])


def explanation_tables(found: "Explanation") -> list[Table]:
    """Tables of one text's answer and what speaks for it, as `tasks.classify.explain` found them.

    The n-grams, the experts of the pool, the neighbours, and every exit.
    """
    answer = table("answer", "confidence", "exit", "layers", "why")
    for i, line in enumerate(found.why):
        cells = ["", "", "", ""]
        if i == 0 and found.exit is not None:
            layers = f"{found.layers} of {found.depth}"
            cells = [str(found.label), f"{found.confidence:.3f}", found.exit, layers]
        elif i == 0:
            cells = ["none", "", "", str(found.layers)]
        answer.add_row(*cells, line)
    ngrams = table("log-odds", "n-grams for and against the answer")
    for ngram in (*found.ngrams_for, *reversed(found.ngrams_against)):
        ngrams.add_row(f"{ngram.log_odds:+.2f}", ngram.ngram)
    experts = table("weight", "expert of the pool", "probability of the answer")
    for expert in found.experts:
        experts.add_row(f"{expert.weight:.2f}", expert.expert, f"{expert.probability:.3f}")
    reasons = [part for part in (ngrams, experts) if part.row_count]
    neighbours = table("distance", "label", "heads right at", "neighbour")
    for near in found.neighbours:
        neighbours.add_row(
            f"{near.distance:.3f}",
            near.label,
            " ".join(map(str, near.right_heads)) or "none",
            near.text or near.id,
        )
    exits = table("exit", "answer", "confidence", "right on the database's rows")
    for name, read in found.exits.items():
        exits.add_row(name, read.label, f"{read.confidence:.3f}", f"{read.rate:.3f}")
    return [answer, *reasons, neighbours, exits]


def pruning_table(found: "Pruning") -> Table:
    """A table of a database before and after it is pruned."""
    rows = f"{found.rows_before:,} rows, then {found.rows_after:,}"
    shown = table("policy", "accuracy before", "after", "layers before", "after", title=rows)
    for name, before in found.before.items():
        after = found.after[name]
        shown.add_row(
            name,
            f"{before['accuracy']:.4f}",
            f"{after['accuracy']:.4f}",
            f"{before['mean_layers']:.2f}",
            f"{after['mean_layers']:.2f}",
        )
    return shown


def _point_cells(point: "Point") -> list[str]:
    return [
        f"{point.cross_fitted.accuracy:.4f}",
        f"{point.fitted.accuracy:.4f}",
        f"{point.fitted.mean_layers:.2f}",
        f"{1000 * point.fitted.seconds_per_row:.2f}",
    ]

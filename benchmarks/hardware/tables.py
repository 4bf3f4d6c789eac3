"""What was measured, in Markdown."""

from collections.abc import Sequence

from benchmarks.hardware.measure import EXITS, FULL, LOADED, PLAIN, SWEEP, Found
from benchmarks.repeats import ratios, spread, table

SHARE, OVERHEAD = 0.90, 1.10
"""Targets: of the share of the ideal, and of the sweep over the forward."""


def ideal(found: Found) -> float:
    """The layers of all rows at full depth, over those that they run if they leave."""
    return found["layers_run"][FULL] / found["layers_run"][EXITS]


def speed_ups(found: Found) -> list[float]:
    """Full depth over exits, by repeat."""
    return ratios(found["seconds"][FULL], found["seconds"][EXITS])


def shares(found: Found) -> list[float]:
    """The share of the ideal speed-up that was reached, by repeat."""
    return [each / ideal(found) for each in speed_ups(found)]


def useful(found: Found, way: str) -> list[float]:
    """Useful operations a second over the machine's rate in the same repeat."""
    rates = [found["operations"][way] / seconds for seconds in found["seconds"][way]]
    return ratios(rates, found["rate"])


def overheads(found: Found, beside: str) -> list[float]:
    """The sweep over a forward, by repeat; empty if that one was not measured."""
    seconds = found["sweep_seconds"]
    return ratios(seconds[SWEEP], seconds[beside]) if beside in seconds else []


def tables_of(all_found: Sequence[Found]) -> str:
    """Three tables: a line for each shape in each number format."""
    share, arithmetic, sweeps = [], [], []
    for found in all_found:
        first = [f"{found['shape']}, {found['dtype']}"]
        rows = f"{found['rows']:,}, {found['tokens']:,}"
        reached = [spread(speed_ups(found)), f"{ideal(found):.2f}", spread(shares(found))]
        share.append([*first, rows, *reached, f">= {SHARE:.2f}"])
        rate = spread([each / 1e9 for each in found["rate"]], ",.0f")
        both = [spread(useful(found, way)) for way in (FULL, EXITS)]
        arithmetic.append([*first, rate, *both, f">= {found['target']:.2f}"])
        beside = [overheads(found, way) for way in (LOADED, PLAIN)]
        shown = [spread(each) if each else "–" for each in beside]
        sweeps.append([*first, f"{found['swept_rows']:,}", *shown, f"<= {OVERHEAD:.2f}"])
    of_share = ["share of the ideal", "rows, tokens", "speed-up", "layers of all rows / layers run"]
    of_rate = ["useful FLOP/s", "matrix products, GFLOP/s", "full depth / them", "exits / them"]
    of_sweep = ["sweep", "rows", "sweep / its own model's forward", "sweep / plain transformers"]
    return "\n\n".join(
        [
            table([*of_share, "share of the ideal", "target"], share),
            table([*of_rate, "target"], arithmetic),
            table([*of_sweep, "target"], sweeps),
        ]
    )

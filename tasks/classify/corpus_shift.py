"""How the corpus of a classification differs from the database: drift and label shares.

Used by `estimate_balance` and `finish_classification`, and by the command `evaluate`.
"""

import logging
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raee.config import RunnablePolicy
from raee.errors import cut, listed
from raee.exits import Entries
from raee.neighbours.index import Index
from raee.policies.replay import replay
from raee.policies.table import neighbours_planned_on
from raee.statistics.shift import (
    Shares,
    differs,
    drift,
    estimate_shares,
    prior_ratio,
    shrunk,
)
from storage.parquet import part_name, read_table
from storage.store import Folder
from tasks.job import Balance
from tasks.readings import Readings, trial_of

logger = logging.getLogger("raee")

_ROWS = 5_000
"""Rows of the database that a policy is replayed on if each has to find its neighbours."""

_COMPARED = 1_000_000
"""Rows of a corpus whose distances are compared: memory must not grow with the corpus."""

_DRIFTED = 0.1
"""Kolmogorov-Smirnov distance from which a drift beyond noise is worth a warning."""

_CHANCE = 0.001
"""p-value below which a drift is beyond noise."""


def label_shares(
    entries: Entries, index: Index, spec: RunnablePolicy, predicted: NDArray[np.int64]
) -> Shares:
    """The corpus's label shares, estimated from a policy's predictions.

    entries, index: the database's.  predicted: (labels,) rows that got each label.  Raises
    InputError if the database lacks an exit that the policy names.
    """
    asked = neighbours_planned_on(spec)
    trial = trial_of(entries, index, asked, _ROWS if asked else None)
    answers = replay(spec, trial).answers
    return estimate_shares(answers, trial.label, predicted, len(entries.labels))


def ratio_of(shares: Shares, balance: Balance) -> NDArray[np.float64] | None:
    """(labels,) the factors on what readers that learnt shares say; None: nothing is corrected.

    They are corrected if the corpus's shares differ from the database's beyond noise, unless the
    job expects the database's.
    """
    if balance == "database" or not differs(shares):
        return None
    return prior_ratio(shrunk(shares) if balance == "auto" else shares)


def shares_record(shares: Shares, names: tuple[str, ...], then: str) -> dict[str, Any]:
    """Label shares as a manifest has them; warns if the corpus's differ beyond noise.

    names: (labels,) of the labels, in the database's order.  then: what becomes of the readers if
    they do, for the warning.
    """
    found = {
        name: {
            "database": round(float(shares.database[i]), 4),
            "predicted": round(float(shares.predicted[i]), 4),
            "estimated": round(float(shares.estimated[i]), 4),
            "standard_error": round(float(shares.standard_error[i]), 4),
        }
        for i, name in enumerate(names)
    }
    changed = differs(shares)
    if changed:
        estimates = listed(
            f"{cut(name, 40)} {f['estimated']:.2f} (database {f['database']:.2f})"
            for name, f in found.items()
        )
        logger.warning(
            "the corpus's label shares differ from the database's beyond noise: %s; %s",
            estimates,
            then,
        )
    return {"labels": found, "differ_beyond_noise": changed}


def distances_of(
    folder: Folder, parts: int, rows: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What predictions say of how far rows are: distances to the nearest entry, and p-values.

    parts, rows: how many there are.  Each (some rows,), where it is known; of more than a million
    rows every second, third or so.
    """
    columns = ["nearest_distance", "usual"]
    found: dict[str, list[NDArray[np.float32]]] = {column: [] for column in columns}
    step = max(1, math.ceil(rows / _COMPARED))
    for number in range(parts):
        table = read_table(folder, part_name(number), columns)
        for column in columns:
            some = table[column].to_numpy()[::step]
            found[column].append(some[~np.isnan(some)])
    nearest, usual = (np.concatenate(found[column]) for column in columns)
    return nearest, usual


def drift_record(
    readings: Readings, nearest: NDArray[np.float32], usual: NDArray[np.float32]
) -> dict[str, Any] | None:
    """The drift of rows against the database's own, as a manifest has it; None if it is not known.

    nearest: (rows,) squared L2 distances to the nearest entry.  usual: (rows,) p-values of "the row
    is drawn as the database's were", as far as they are known.  Warns if the drift is beyond noise
    and large, unless the database's own rows lie too near to each other to compare with.
    """
    if readings.far is not None and len(usual):
        found = drift(1 - usual, (1 - readings.far.own_p_values).astype(np.float32))
    elif readings.nearest is not None:
        found = drift(nearest, readings.nearest)
    else:
        return None
    if found is None:
        return None
    beyond = found.p_value < _CHANCE and found.statistic >= _DRIFTED
    if beyond and readings.manifest.barred is None:
        logger.warning(
            "the corpus lies elsewhere than the database: its rows are %s than the database's own "
            "lie to each other, by %.2f (Kolmogorov-Smirnov); %s",
            found.direction,
            found.statistic,
            "look at its far rows, and label some of them"
            if found.direction == "farther"
            else "it may repeat texts of the database, or hold little else than its usual ones",
        )
    return {
        "kolmogorov_smirnov": round(found.statistic, 4),
        "p_value": found.p_value,
        "direction": found.direction,
        "beyond_noise": beyond,
    }

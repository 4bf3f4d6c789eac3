"""What a classification says of its corpus against the database: far rows, drift, label shares."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raee.config import RunnablePolicy
from raee.errors import cut, listed
from raee.policies.replay import replay
from raee.policies.table import neighbours_planned_on
from raee.reading import Database
from raee.statistics.shift import Shares, differs, drift, estimate_shares
from tasks.readings import trial_of

logger = logging.getLogger("raee")

_ROWS = 5_000
"""Rows of the database that a policy is replayed on where each has to find its neighbours."""

_DRIFTED = 0.1
"""Kolmogorov-Smirnov distance from which a drift that is no chance is worth a warning."""

_CHANCE = 0.001


def label_shares(database: Database, spec: RunnablePolicy, predicted: NDArray[np.int64]) -> Shares:
    """The corpus's label shares, estimated from a policy's predictions.

    predicted: (labels,) rows that got each label.
    """
    asked = neighbours_planned_on(spec)
    trial = trial_of(database.entries, database.index, asked, _ROWS if asked else None)
    answers = replay(spec, trial).answers
    return estimate_shares(answers, trial.label, predicted, len(database.entries.labels))


def shares_account(shares: Shares, names: tuple[str, ...]) -> dict[str, Any]:
    """Label shares as a manifest has them; warns where the corpus's differ beyond noise."""
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
        said = listed(
            f"{cut(name, 40)} {f['estimated']:.2f} (database {f['database']:.2f})"
            for name, f in found.items()
        )
        logger.warning(
            "the corpus's label shares differ from the database's beyond noise: %s; "
            "`balance: corpus` corrects the readers by them",
            said,
        )
    return {"labels": found, "differ_beyond_noise": changed}


def drift_account(
    database: Database,
    nearest: NDArray[np.float32],
    usual: NDArray[np.float32],
    barred: str | None,
) -> dict[str, Any] | None:
    """How the rows lie compared with the database's own, as a manifest has it; None if not known.

    nearest: (rows,) squared L2 distances to the nearest entry; usual: (rows,) p-values of the same
    rows, as far as they are known.  barred: why the database's own rows lie too near to each other
    to compare with; None if they do not.
    """
    if database.far is not None and len(usual):
        found = drift(1 - usual, (1 - database.far.own_p_values).astype(np.float32))
    elif database.nearest is not None:
        found = drift(nearest, database.nearest)
    else:
        return None
    if found is None:
        return None
    beyond = found.p_value < _CHANCE and found.statistic >= _DRIFTED
    if beyond and barred is None:
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

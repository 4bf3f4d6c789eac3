"""What a version's manifest and rows say of policies."""

from collections.abc import Mapping

from raee.config import RunnablePolicy
from raee.policies.objectives import Tuning
from raee.policies.replay import replay
from raee.policies.table import neighbours_planned_on
from raee.statistics.calibration import Line, policy_lines
from storage.versions import FIRST_BY_TEXT, Manifest
from tasks.database import Readings


def tuning_of(manifest: Manifest) -> Tuning | None:
    """What a version's search over policies found; None before format 2."""
    return None if manifest.tuning is None else Tuning.model_validate(manifest.tuning)


def written_lines(policy: RunnablePolicy, readings: Readings) -> Mapping[int, Line]:
    """By exit, what calibrates the confidences that a policy writes, from a version's own rows.

    Versions before format 4 are read as they were: nothing is calibrated.
    """
    if readings.manifest.format < FIRST_BY_TEXT:
        return {}
    trial = readings.trial(neighbours_planned_on(policy))
    return policy_lines(replay(policy, trial), trial)

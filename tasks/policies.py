"""The policies of a version: its search over them, and the calibration of what they write."""

from collections.abc import Mapping

from raee.config import RunnablePolicy
from raee.policies.objectives import Tuning
from raee.policies.replay import replay
from raee.policies.table import neighbours_planned_on
from raee.statistics.calibration import Line, policy_lines
from storage.manifest import FIRST_BY_TEXT, Manifest
from tasks.readings import Readings


def tuning_of(manifest: Manifest) -> Tuning | None:
    """The findings of a version's search over policies; None before format 2."""
    return None if manifest.tuning is None else Tuning.model_validate(manifest.tuning)


def written_lines(policy: RunnablePolicy, readings: Readings) -> Mapping[int, Line]:
    """By exit's position, the line that calibrates the confidences that a policy writes.

    The lines are fitted on the version's own rows.  There are none before format 4: such versions
    answer as they did then.  Raises InputError if the database lacks an exit that the policy needs.
    """
    if readings.manifest.format < FIRST_BY_TEXT:
        return {}
    trial = readings.trial(neighbours_planned_on(policy))
    return policy_lines(replay(policy, trial), trial)

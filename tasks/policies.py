"""The policies that a version is judged by, under the names that tables show."""

import logging
from collections.abc import Sequence

from raee.config import (
    FixedPolicy,
    FullPolicy,
    PolicySpec,
    RaeePolicy,
    RetrievalPolicy,
    RunnablePolicy,
    TunedPolicy,
)
from raee.errors import InputError
from raee.objectives import Tuning
from storage.versions import Manifest

logger = logging.getLogger("raee")

COMPARED = ("full", "logistic", "fixed", "retrieval", "raee", "kernel", "de3", "cascade", "tuned")
"""In the order of tables: what the head says at full depth, what people do today, then exits."""


def tuning_of(manifest: Manifest) -> Tuning | None:
    """What a version's search over policies found; None before format 2."""
    return None if manifest.tuning is None else Tuning.model_validate(manifest.tuning)


def runnable(spec: PolicySpec, tuning: Tuning | None, where: str) -> RunnablePolicy:
    """A policy that says for itself where rows leave: of `tuned`, the one that was found.

    where: the version, for messages.  Raises InputError where it was not tuned, or nothing that
    was found meets the objective.
    """
    if not isinstance(spec, TunedPolicy):
        return spec
    if tuning is None:
        raise InputError(f"{where} was built without tuning; name another policy or build it anew")
    found = tuning.pick(spec)
    if spec.risk is not None and found == tuning.full_depth:
        logger.warning(
            "%s: no cheaper policy can be promised to lose at most %g of the accuracy with "
            "confidence %g; every row runs to full depth",
            where,
            spec.risk.max_loss,
            spec.risk.confidence,
        )
    return found.policy


def compared(
    spec: PolicySpec, tuning: Tuning | None, exits: Sequence[str], where: str
) -> dict[str, RunnablePolicy]:
    """The policies that a table compares, by name; the job's own with the job's settings.

    `kernel`, `de3` and `cascade` have the settings that the tuning picked for them.  `tuned` is
    left out, with a warning, where nothing that was found meets the objective or, if the job asks
    for it, the version was not tuned.
    """
    found: dict[str, RunnablePolicy] = {
        "full": FullPolicy(),
        "fixed": FixedPolicy(),
        "retrieval": RetrievalPolicy(),
        "raee": RaeePolicy(),
    }
    regression = [name for name in exits if name.startswith("logistic@")]
    if regression:
        found["logistic"] = FixedPolicy(exit=regression[0])
    if tuning is not None:
        for name in ("kernel", "de3", "cascade"):
            found[name] = tuning.families[name].policy
    if isinstance(spec, TunedPolicy) or tuning is not None:
        objective = spec if isinstance(spec, TunedPolicy) else TunedPolicy()
        try:
            found["tuned"] = runnable(objective, tuning, where)
        except InputError as error:
            logger.warning("%s: the policy tuned is left out: %s", where, error)
    if not isinstance(spec, TunedPolicy):
        found[spec.name] = spec
    return {name: found[name] for name in COMPARED if name in found}

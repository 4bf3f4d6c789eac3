"""The end of a build: its steps' files are copied to the version, which its manifest makes exist.

There is no other marker than the manifest.
"""

import logging

from prefect import task

from raee.errors import InputError
from storage.manifest import Manifest
from storage.version_files import VersionFiles
from tasks.build.build import Build, open_build
from tasks.build.collect import put_readings_in_place
from tasks.build.table import BUILD_STEPS
from tasks.retrying import RETRIES

logger = logging.getLogger("raee")


@task(**RETRIES)
def publish_build(work: str) -> str:
    """Copy the version's files, and write its manifest, which makes it exist.

    Returns the version's id.  Raises InputError if the build was taken for dead meanwhile.
    """
    build = open_build(work)
    version = build.plan.target
    if version.exists():
        return version.id
    swept = put_readings_in_place(build)
    placed = dict(build.centre.placed)
    for step in BUILD_STEPS:
        placed |= step.files(build).placed
    files = VersionFiles(placed).copy(version.folder)
    draft = build.draft()
    whole = {**dict(draft), "files": files, "swept": swept, "seconds": _seconds(build)}
    try:
        version.publish(Manifest.model_validate(whole))
    except FileExistsError:
        if not version.exists():
            raise InputError(
                f"version {version.id} was collected as a dead build's; build again"
            ) from None
        logger.info("version %s was published by another build meanwhile", version.id)
    return version.id


def _seconds(build: Build) -> dict[str, float]:
    """The seconds of the steps, by stage."""
    seconds = dict.fromkeys((step.stage for step in BUILD_STEPS), 0.0)
    for step in BUILD_STEPS:
        seconds[step.stage] += step.seconds(build)
    return {stage: round(spent, 3) for stage, spent in seconds.items()}

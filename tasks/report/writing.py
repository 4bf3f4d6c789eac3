"""A version's report as a page, for the step `write_report` and for the command `prune`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from raee.config import FarSpec
from raee.policies.compared import report_runs
from raee.policies.costs import LAYERS, Costs
from raee.policies.replay import Trial
from raee.policies.tuning import Study
from raee.statistics.far import Far
from storage.manifest import Manifest
from storage.version_files import VersionFiles
from tasks.entries import read_rows
from tasks.job import Job
from tasks.report.data import Parent
from tasks.report.gathering import gather
from tasks.report.page import render

Growth = Mapping[str, Sequence[tuple[int, float]]]
"""By reader, pairs of a database's rows and the reader's accuracy in it."""


def report_page(
    manifest: Manifest,
    files: VersionFiles,
    trial: Trial,
    study: Study,
    far: Far,
    growth: Growth,
    parent: Manifest | None,
) -> bytes:
    """A version's report as HTML, in UTF-8.

    manifest: as far as it is known.  files: the version's, with the entries' texts.  trial: the
    version's complete rows, calibrated.  study: its tuning.  far: of the trial's rows.  parent: the
    version from which it was made, if any.  Raises InputError if the job's policy needs an exit
    that the version lacks.
    """
    job = Job.model_validate(manifest.job)
    costs = LAYERS if manifest.costs is None else Costs(**manifest.costs["seconds"])
    page = render(
        gather(
            name=manifest.name,
            version=manifest.id,
            created_at=datetime.now(UTC),
            trial=trial,
            tuning=study.tuning,
            runs=report_runs(job.policy, study, trial, costs, manifest.exits, manifest.where),
            costs=costs,
            far=far,
            far_level=1 - (job.far or FarSpec()).quantile,
            growth=growth,
            texts=(lambda rows: _texts(files, rows)) if job.keep_text else None,
            parent=None if parent is None else _as_parent(parent),
            copies=manifest.copies,
            own=job.policy.name,
            pool=(manifest.probes or {}).get("pool", ()),
        )
    )
    return page.encode()


def _texts(files: VersionFiles, rows: list[int]) -> list[str]:
    return read_rows(files, ["text"], rows)["text"].to_pylist()


def _as_parent(manifest: Manifest) -> Parent | None:
    """A version as its child's report shows it; None if it was not tuned."""
    figures = manifest.metrics.get("tuned")
    if figures is None:
        return None
    return Parent(manifest.id, manifest.rows, figures["accuracy"], figures["mean_layers"])

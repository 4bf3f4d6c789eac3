"""A build under way: its plan, its parent, and what its steps have left, each read once.

All that reads a build asks this object; `tasks.build.table` has the steps that fill it.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import task

from raee import __version__
from raee.answers import Answers, Neighbours
from raee.config import BackboneSpec
from raee.model.backbones import Backbone
from raee.model.batches import Encoded
from raee.model.loaded import backbone_of, retriever_of
from raee.model.precision import Precision, in_precision, precision_of
from raee.neighbours.choice import IndexRecord
from raee.neighbours.index import Index
from raee.policies.compared import objective_of
from raee.policies.costs import Costs
from raee.policies.objectives import Tuning
from raee.policies.replay import Trial
from raee.policies.tuning import Study, study
from raee.readers.fit import StateName
from raee.readers.head import HeadReader
from raee.readers.sums import Sums
from raee.reading import Database
from raee.statistics.calibration import calibrated, fit_temperatures
from raee.sweep import Labelled, Sweep, sweep
from storage.checked import FileRecord
from storage.manifest import CENTRE, FORMAT, Manifest
from storage.parquet import list_values, read_table
from storage.store import Folder
from storage.version_files import VersionFiles
from tasks.build.plan import PLAN, BuildPlan
from tasks.build.reuse import Parent, Parts, load_parent
from tasks.build.shards import SweptShards, read_sums_of
from tasks.entries import lists_path
from tasks.progress import advance
from tasks.readings import Readings, in_memory, open_indexes, read_head, read_readings
from tasks.retrying import RETRIES
from tasks.steps import Left, Marker, StepRecord, Work

SEED = 0
"""The seed of the folds in which policies are picked anew."""

CENTRE_ROWS = "rows.parquet"
SOURCE, FITTED = "source.parquet", "fitted.parquet"
PRECISION = "precision.json"
"""The file beside the plan with the format that the first worker to read has found fastest."""
COSTS, TUNING = "costs.json", "tuning.json"
"""Files that steps write for later ones, below their attempts' folders."""

_LIBRARIES = {
    "torch": "torch",
    "transformers": "transformers",
    "faiss-cpu": "faiss",
    "pyarrow": "pyarrow",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
    "prefect": "prefect",
}
"""By a library's name in a manifest, its module, which has a version however it was installed."""


class Collected(StepRecord):
    """Files of readings, below the database's folder."""

    kept: list[FileRecord]
    """Files of the parent."""
    new: list[FileRecord]
    """Files that this build wrote."""


class Matched(StepRecord):
    """How a rebuild's rows differ from its parent's."""

    left: int
    """The parent's rows that its sums lose: they have left, or changed their label."""
    came: int
    """Rows that its sums gain: the parent knows their texts."""


class Fitted(StepRecord):
    """How the readers were fitted."""

    account: dict[str, Any]
    """The manifest's record of the fit."""
    growth: list[tuple[int, float]]
    """(rows, accuracy) of the probe at full depth, fitted on so many rows."""


class Indexed(StepRecord):
    """The version's indexes."""

    indexes: dict[str, IndexRecord]
    """By path in the version."""


class Tuned(StepRecord):
    """What the search over policies is based on."""

    temperatures: dict[str, float]
    """By exit, as `Build.temperatures`."""
    copies: dict[str, Any]
    """The manifest's record of rows with equal and nearly equal texts."""


class Evaluated(StepRecord):
    """Figures of the compared policies."""

    metrics: dict[str, dict[str, Any]]
    """By policy."""


READ_CENTRE = Marker("centre", StepRecord)
CENTRE_PART = Marker("centre-part", StepRecord)
CHECK = Marker("checked", StepRecord)
COLLECT = Marker("collected", Collected)
MATCH = Marker("matched", Matched)
FIT = Marker("probes", Fitted)
INDEX = Marker("indexed", Indexed)
LISTS = Marker("lists", StepRecord)
VOTE = Marker("part", StepRecord)
TUNE = Marker("tuned", Tuned)
EVALUATE = Marker("evaluated", Evaluated)
REPORT = Marker("reported", StepRecord)


class Build(Work):
    """A build under way, by the address of its work folder.

    Raises FileNotFoundError if there is none; what a step leaves is read when it is asked for, and
    raises FileNotFoundError as long as the step is not done.
    """

    def __init__(self, address: str) -> None:
        folder = Folder(address)
        self.plan = BuildPlan.model_validate_json(folder.read(PLAN))
        super().__init__(folder, len(self.plan.shards))
        self.swept = SweptShards(self)
        self._records: dict[str, StepRecord] = {}
        self._study: tuple[str, Study] | None = None

    def record(self, marker: Marker[Left], number: int | None = None) -> Left:
        """The record of a step, read once: no other build ever uses a build's work folder."""
        name = marker.at(number)
        if name not in self._records:
            self._records[name] = super().record(marker, number)
        found = self._records[name]
        assert isinstance(found, marker.leaves)
        return found

    @cached_property
    def precision(self) -> Precision:
        """The number format that the models run in, on all workers.

        Whoever asks first finds out, if the plan does not say.
        """
        if self.plan.precision is not None:
            return self.plan.precision
        if not self.folder.exists(PRECISION):
            found = json.dumps(precision_of(self.plan.job.backbone).record)
            with suppress(FileExistsError):
                self.folder.write_new(PRECISION, found.encode())
        return Precision(**json.loads(self.folder.read(PRECISION)))

    @cached_property
    def _model(self) -> BackboneSpec:
        return in_precision(self.plan.job.backbone, self.precision.dtype)

    @property
    def identities(self) -> tuple[dict[str, str], dict[str, str]]:
        """Fingerprints and formats of the backbone and of the key's model."""
        dtype = {"dtype": self.precision.dtype}
        return self.plan.backbone | dtype, self.plan.key | dtype

    @property
    def backbone(self) -> Backbone:
        """The job's model, in memory."""
        return backbone_of(self._model)

    @property
    def retriever(self) -> Backbone | None:
        """The key's own model, in memory; None if the key is one of the backbone's layers."""
        return retriever_of(self.plan.job.key, self._model)

    @cached_property
    def parent(self) -> Parent | None:
        """The version whose readings are reused; None if none are."""
        version = self.plan.parent_version
        return load_parent(version) if self.plan.takes_over and version is not None else None

    @cached_property
    def parent_manifest(self) -> Manifest | None:
        """The manifest of the version that the build starts from; None if it is the first."""
        version = self.plan.parent_version
        return None if version is None else version.manifest()

    @cached_property
    def centre(self) -> VersionFiles:
        """A sentence encoder's centre, inherited with the plan or read by the first step."""
        if not self.plan.has_centre:
            return VersionFiles({})
        inherited = self.folder.exists(CENTRE)
        folder = self.folder if inherited else self.output(READ_CENTRE)
        return VersionFiles({CENTRE: (folder, folder.record(CENTRE))})

    @cached_property
    def centre_rows(self) -> Parts | None:
        """What the first step read of the centre's rows; None if the centre is not its own."""
        left = self.found(READ_CENTRE)
        return None if left is None else Parts(self.output(READ_CENTRE), [CENTRE_ROWS])

    @cached_property
    def head(self) -> HeadReader:
        """The model's own head, with the build's prompt and centre."""
        return read_head(self.backbone, self.plan.prompt, self.centre)

    def sweep(
        self,
        texts: Sequence[str],
        label: NDArray[np.uint16],
        keep: NDArray[np.bool_],
        head: HeadReader | None,
        encoded: Encoded | None = None,
    ) -> Sweep:
        """Sweep some rows.  label: (rows,) indexes; keep: (rows,) True if the states are kept.

        head: None if it is not read; all states are kept then.  encoded: the texts, if they are
        tokenized already.  Raises InputError as `raee.sweep.sweep` does.
        """
        plan = self.plan
        labelled = Labelled(label, len(plan.prompt.labels), keep)
        key, retriever = plan.job.key, self.retriever
        return sweep(
            self.backbone, plan.prompt, head, key, retriever, texts, labelled, advance, encoded
        )

    @cached_property
    def source(self) -> NDArray[np.int64]:
        """(rows,) the parent's row that each row of a rebuild is; -1 if it is none."""
        return read_table(self.output(MATCH), SOURCE)["row"].to_numpy()

    def sums_before(self, state: StateName) -> Sums | None:
        """The sums to which a rebuild's shards add their new rows; None if there is no parent."""
        return None if self.parent is None else read_sums_of(self.output(MATCH), state)

    @cached_property
    def fitted_answers(self) -> Answers:
        """(sampled rows, fitted exits) the answers without the text, in the order of the rows."""
        table = read_table(self.output(FIT), FITTED)
        return Answers(list_values(table["answers"]), list_values(table["confidences"]))

    @cached_property
    def indexes(self) -> tuple[Index, ...]:
        """The indexes, one a key, in order.  Raises InputError if one is not what was written."""
        return open_indexes(self.files(INDEX), self.plan.index_paths)

    def listed(self, number: int) -> list[Neighbours]:
        """By key, the neighbours of a shard's rows, once they are listed."""
        table = self.files(LISTS, per_shard=True).table(lists_path(number))
        own = np.arange(len(table)) + self.swept.marks.rows_of(number).start
        return [
            Neighbours(list_values(table[f"rows-{k}"]), list_values(table[f"distances-{k}"]), own)
            for k in range(len(self.plan.index_paths))
        ]

    @cached_property
    def readings(self) -> Readings:
        """The rows with the answers of all exits, not calibrated, once all shards have voted."""
        placed = {
            **self.centre.placed,
            **self.files(FIT).placed,
            **self.files(LISTS, per_shard=True).placed,
            **self.files(VOTE, per_shard=True).placed,
        }
        draft = self.draft().model_copy(update={"temperatures": None})
        return read_readings(draft, VersionFiles(placed), self.indexes)

    @cached_property
    def raw_trial(self) -> Trial:
        """The complete rows, not calibrated, with their neighbours among all rows."""
        return self.readings.trial(0)

    @cached_property
    def temperatures(self) -> dict[str, float]:
        """By exit, the temperatures that calibrate the confidences of heads and votes."""
        return fit_temperatures(self.raw_trial.entries)

    @cached_property
    def trial(self) -> Trial:
        """The complete rows, calibrated, with their neighbours among all rows."""
        raw = self.raw_trial
        return Trial(calibrated(raw.entries, self.temperatures), raw.rows, raw.neighbours)

    @property
    def database(self) -> Database:
        """The build so far, as a classification will read it."""
        key = self.plan.job.key
        return in_memory(self.readings, self.backbone, self.head, key, self.retriever)

    def cost_table(self) -> dict[str, Any]:
        """The cost table in seconds, with its machine and rows, once the build is tuned."""
        return json.loads(self.output(TUNE).read(COSTS))

    def tuning(self) -> Tuning:
        """The findings of the search over policies, once the build is tuned."""
        return Tuning.model_validate_json(self.output(TUNE).read(TUNING))

    def study(self) -> Study:
        """The tuning, with what its picks did row by row, once the build is tuned."""
        return self.studied(self.cost_table()["seconds"], self.record(TUNE).copies["barred"])

    def studied(self, seconds: dict[str, Any], barred: str | None) -> Study:
        """The search over policies, made once for the steps that tune, evaluate and report.

        seconds: the cost table.  barred: why nothing can be promised on these rows; None if
        something can.
        """
        asked = json.dumps([seconds, barred])
        if self._study is None or self._study[0] != asked:
            objective = objective_of(self.plan.job.policy)
            self._study = asked, study(self.trial, Costs(**seconds), objective, SEED, barred)
        return self._study[1]

    def draft(self) -> Manifest:
        """The version's manifest, as far as the finished steps have found it out.

        Its files and the stages' seconds are still missing.
        """
        plan = self.plan
        fitted, indexed = self.found(FIT), self.found(INDEX)
        tuned, evaluated = self.found(TUNE), self.found(EVALUATE)
        indexes = None
        if indexed is not None:
            indexes = {path: index.model_dump() for path, index in indexed.indexes.items()}
        return Manifest(
            format=FORMAT,
            name=plan.job.name,
            id=plan.version,
            parent=plan.parent,
            created_at=datetime.now(UTC),
            job=plan.job.model_dump(mode="json"),
            prompt=asdict(plan.prompt),
            backbone=self.identities[0],
            key=self.identities[1],
            precision=self.precision.record,
            exits=[str(e) for e in plan.exits],
            labels=list(plan.prompt.labels),
            rows=self.swept.rows,
            rejected=dict(self.swept.rejected),
            files=[],
            corpus=plan.corpus | ({"shown": self.swept.shown} if plan.prompt.shown else {}),
            metrics={} if evaluated is None else evaluated.metrics,
            policy=plan.job.policy.model_dump(),
            seconds={},
            probes=None if fitted is None else fitted.account,
            costs=None if tuned is None else self.cost_table(),
            tuning=None if tuned is None else self.tuning().model_dump(mode="json"),
            temperatures=None if tuned is None else tuned.temperatures,
            copies=None if tuned is None else tuned.copies,
            indexes=indexes,
            recipe=plan.recipe,
            code_version=__version__,
            libraries={n: str(import_module(m).__version__) for n, m in _LIBRARIES.items()},
        )


@lru_cache(maxsize=1)
def open_build(address: str) -> Build:
    """The build in a work folder, read once a process.  Raises FileNotFoundError if it is gone."""
    return Build(address)


@task(**RETRIES)
def look_up_build(address: str) -> Build:
    """As `open_build`, for a flow."""
    return open_build(address)

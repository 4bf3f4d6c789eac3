"""A version in memory, published or still being built, with the models it was built with.

One path reads both: it asks a manifest what the version is, and the version's files where they lie.
The manifest of a build is a draft, which has what is known so far.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
import safetensors.torch
from numpy.typing import NDArray

from raee.answers import Neighbours
from raee.config import PAPER_NEIGHBOURS, BackboneSpec, KeySpec, RunnablePolicy
from raee.drawn import evenly
from raee.errors import InputError, listed
from raee.exits import Entries, parse_exits
from raee.model.backbones import Backbone, Outline
from raee.model.loaded import backbone_of, retriever_of, retriever_spec
from raee.model.loading import outline_of
from raee.model.prompts import Example, Prompt, declared_labels, resolve_prompt
from raee.neighbours.gpu import search_on
from raee.neighbours.index import Index, open_index
from raee.neighbours.lists import nearest_other_texts
from raee.policies.costs import LAYERS, Costs
from raee.policies.objectives import Tuning
from raee.policies.replay import Trial, replay
from raee.policies.table import neighbours_planned_on
from raee.readers.head import HeadReader, head_reader
from raee.reading import Database
from raee.statistics.calibration import Line, calibrated, policy_lines
from raee.statistics.far import Far
from storage.database import Version
from storage.manifest import (
    CENTRE,
    FAR,
    FIRST_BY_TEXT,
    MANIFEST,
    PROBES,
    WORDS,
    Manifest,
    index_path,
)
from storage.parquet import read_local_table
from storage.version_files import VersionFiles
from tasks.entries import read_entries, read_lists, read_nearest
from tasks.fitted import read_far, read_fits
from tasks.job import Job

logger = logging.getLogger("raee")


def check_fits(job: Job, manifest: Manifest) -> None:
    """Raises InputError if a version's labels, prompt, key or backbone are not the job's.

    It is cheap: it compares the job and the manifest; `load_database` compares the models
    themselves.
    """
    built, where = Job.model_validate(manifest.job), manifest.where
    mend = "build it anew with this job, or use the job that it was built with"
    for field in ("family", "revision"):
        ours, theirs = getattr(job.backbone, field), getattr(built.backbone, field)
        if ours != theirs:
            raise InputError(
                f"{where} was built with backbone.{field} {theirs!r}, the job says {ours!r}; {mend}"
            )
    if (job.key.names, job.key.revision) != (built.key.names, built.key.revision):
        raise InputError(
            f"{where} was built with key {built.key.model_dump()}, the job says "
            f"{job.key.model_dump()}; {mend}"
        )
    declared = declared_labels(job.prompt, job.backbone.family)
    if declared is None:
        return
    if list(declared) != manifest.labels:
        raise InputError(
            f"{where} has the labels {listed(manifest.labels)}, the job's prompt has "
            f"{listed(declared)}; {mend}"
        )
    asked = replace(prompt_of(manifest), shown=())
    if resolve_prompt(job.prompt, job.backbone.family) != asked:
        raise InputError(f"{where} was built with another prompt than the job's; {mend}")


@dataclass(frozen=True)
class Readings:
    """A version's entries and indexes in memory; no model is needed for them."""

    manifest: Manifest
    files: VersionFiles
    entries: Entries
    indexes: tuple[Index, ...]
    """One index a key, in the order of the key's depths."""
    nearest: NDArray[np.float32] | None
    """(rows,) squared L2 distance to the nearest neighbour by the first key; None in format 1."""
    lists: Neighbours | None
    """(rows, k) all rows' neighbours by the first key; None if the version lists none."""

    @property
    def where(self) -> str:
        """The version, for messages."""
        return self.manifest.where

    @property
    def parts(self) -> list[str]:
        """Paths of the entries, in order."""
        return self.files.below("entries/")

    @cached_property
    def far(self) -> Far | None:
        """What says how unlike the version's a row is; None before format 4."""
        return read_far(self.files) if FAR in self.files else None

    @property
    def costs(self) -> Costs:
        """The version's cost table, in seconds; in layers if the version has none."""
        costs = self.manifest.costs
        return LAYERS if costs is None else Costs(**costs["seconds"])

    def written_lines(self, policy: RunnablePolicy) -> Mapping[int, Line]:
        """By exit's position, the line that calibrates the confidences that a policy writes.

        The lines are fitted on the version's own rows.  There are none before format 4: such
        versions answer as they did then.  Raises InputError if the database lacks an exit that the
        policy needs.
        """
        if self.manifest.format < FIRST_BY_TEXT:
            return {}
        trial = self.trial(neighbours_planned_on(policy))
        return policy_lines(replay(policy, trial), trial)

    def trial(self, asked: int) -> Trial:
        """The complete rows, each with `asked` neighbours or more."""
        others = len(self.entries) - int(self.entries.texts.counts(self.entries.hashes).max())
        if self.lists is None or self.lists.shortest < min(asked, others):
            return trial_of(self.entries, self.indexes[0], asked)
        rows = self.entries.complete
        return Trial(self.entries, rows, self.lists[rows])


def trial_of(entries: Entries, index: Index, asked: int, most: int | None = None) -> Trial:
    """A database's complete rows, each with `asked` neighbours by an index, or fewer.

    most: how many rows at most, evenly spread; by default all.
    """
    rows = entries.complete
    if most is not None:
        rows = rows[evenly(len(rows), most)]
    if not asked:
        nobody = np.zeros((len(rows), 0))
        return Trial(entries, rows, Neighbours(nobody.astype(np.int64), nobody.astype(np.float32)))
    found = nearest_other_texts(
        index, index.keys_of(rows), asked, entries.hashes[rows], entries.texts
    )
    return Trial(entries, rows, replace(found, own=rows))


@lru_cache(maxsize=2)
def load_readings(version: Version) -> Readings:
    """A published version's entries and indexes.

    Raises InputError if there is no such version, or a file is not what its manifest says.
    """
    manifest = version.manifest()
    version.require_whole(manifest, [])
    files = files_of(version, manifest)
    paths = index_paths(manifest)
    missing = [path for path in paths if path not in files]
    if missing or not files.below("entries/"):
        raise InputError(
            f"{version.folder}/{MANIFEST} is damaged: it names no {(missing or ['entries'])[0]}"
        )
    return read_readings(manifest, files, open_indexes(files, paths))


@lru_cache(maxsize=1)
def load_database(
    version: Version, backbone: BackboneSpec, key: KeySpec, deepest: int | None = None
) -> Database:
    """A published version in memory, read in the dtype it was built in unless the job names one.

    deepest: the most layers that a row may run; what is above them need not be loaded.  Raises
    InputError if there is no such version, a file is not what its manifest says, or the models are
    not those that the version was built with.
    """
    manifest = version.manifest()
    dtype = manifest.backbone["dtype"]
    if backbone.dtype == "auto":
        backbone = backbone.model_copy(update={"dtype": dtype})
    elif backbone.dtype != dtype:
        logger.warning(
            "%s was read in %s and fitted to that; the job has it classify in %s",
            manifest.where,
            dtype,
            backbone.dtype,
        )
    model = backbone_of(backbone, deepest)
    retriever = retriever_of(key, backbone)
    _check_model(manifest, "backbone", backbone.model, model, manifest.backbone)
    if retriever is not None:
        _check_model(manifest, "key", key.model, retriever, manifest.key)
    small = [f.path for f in manifest.files if f.path in (CENTRE, PROBES, WORDS, FAR)]
    version.require_whole(manifest, small)
    readings = load_readings(version)
    head = read_head(model, prompt_of(manifest), readings.files)
    return in_memory(readings, model, head, key, retriever)


def files_of(version: Version, manifest: Manifest) -> VersionFiles:
    """The files of a published version."""
    folder = version.folder
    return VersionFiles({file.path: (folder, file) for file in manifest.files})


def index_paths(manifest: Manifest) -> list[str]:
    """The paths of a version's indexes, one a key, in the order of the key's depths."""
    return [index_path(key) for key in Job.model_validate(manifest.job).key.names]


def open_indexes(files: VersionFiles, paths: Sequence[str]) -> tuple[Index, ...]:
    """Indexes by their paths, in order.

    Raises KeyError if there is none at a path, and InputError if one is not what its record says.
    """
    with files.locally(paths) as here:
        return tuple(open_index(here[path]) for path in paths)


def read_readings(manifest: Manifest, files: VersionFiles, indexes: tuple[Index, ...]) -> Readings:
    """The entries of a version, or of a build that has written them, beside its open indexes.

    Raises InputError if a file is not what its record says.
    """
    parts, lists = files.below("entries/"), files.below("neighbours/")
    with files.locally([*parts, *lists]) as here:

        def read(path: str, columns: Sequence[str]) -> pa.Table:
            return read_local_table(here[path], columns)

        exits = parse_exits(manifest.exits)
        entries = read_entries(read, parts, exits, manifest.labels, manifest.format)
        return Readings(
            manifest=manifest,
            files=files,
            entries=calibrated(entries, manifest.temperatures or {}),
            indexes=indexes,
            nearest=read_nearest(read, parts) if manifest.format > 1 else None,
            lists=read_lists(read, lists, len(entries)) if lists else None,
        )


def read_head(model: Backbone, prompt: Prompt, files: VersionFiles) -> HeadReader:
    """A version's head reader: its prompt, and a sentence encoder's centre.

    Raises InputError if a label word is not one token.
    """
    centre = safetensors.torch.load(files.read(CENTRE))["mean"] if CENTRE in files else None
    return head_reader(model, prompt, centre)


def in_memory(
    readings: Readings, model: Backbone, head: HeadReader, key: KeySpec, retriever: Backbone | None
) -> Database:
    """A version as a classification reads it.  retriever: the key's own model, if it has one."""
    manifest, files = readings.manifest, readings.files
    exits, probes = readings.entries.exits, manifest.probes
    return Database(
        backbone=model,
        prompt=prompt_of(manifest),
        head=head,
        key=key,
        retriever=retriever,
        indexes=tuple(search_on(model.device, index) for index in readings.indexes),
        entries=readings.entries,
        vote_k=PAPER_NEIGHBOURS,
        fits=None if probes is None else read_fits(files, exits, probes),
        nearest=readings.nearest,
        temperatures=manifest.temperatures or {},
        far=readings.far,
    )


def tuning_of(manifest: Manifest) -> Tuning | None:
    """What a version's search over policies found; None before format 2."""
    return None if manifest.tuning is None else Tuning.model_validate(manifest.tuning)


def prompt_of(manifest: Manifest) -> Prompt:
    """The prompt that a version gives its model."""
    prompt = manifest.prompt
    return Prompt(
        tuple(prompt["labels"]),
        tuple(prompt["words"]),
        prompt["template"],
        prompt.get("chat", False),
        prompt.get("examples", 0),
        tuple(Example(**example) for example in prompt.get("shown", ())),
    )


def check_outlines(manifest: Manifest, backbone: BackboneSpec, key: KeySpec) -> Outline:
    """What a job's model is by its small files, if it is the one that a version was built with.

    Raises InputError if it is not, or the key's model is not.
    """
    model, of_key = outline_of(backbone), retriever_spec(key, backbone)
    _check_model(manifest, "backbone", backbone.model, model, manifest.backbone)
    if of_key is not None:
        _check_model(manifest, "key", of_key.model, outline_of(of_key), manifest.key)
    return model


def _check_model(
    manifest: Manifest, what: str, name: str, model: Outline, built_with: dict[str, str]
) -> None:
    for part, value in built_with.items():
        if part != "dtype" and model.fingerprint[part] != value:
            differs = f"{part} {value[:12]}, {name} has {model.fingerprint[part][:12]}"
            raise InputError(
                f"{manifest.where} was built with another {what}: {differs}; build it anew, or "
                "use the model that it was built with"
            )

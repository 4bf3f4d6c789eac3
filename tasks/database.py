"""A published version in memory, with the models it was built with; checked before it is read."""

from functools import lru_cache

import safetensors.torch

from raee.backbones import Backbone
from raee.classify import Database
from raee.config import PAPER_NEIGHBOURS, BackboneSpec, KeySpec
from raee.errors import InputError
from raee.exits import parse_exits
from raee.index import read_index
from raee.prompts import Prompt, declared_labels, resolve_prompt
from raee.readers import head_reader
from storage.versions import (
    CENTRE,
    Manifest,
    index_path,
    read_manifest,
    require_whole,
    version_folder,
)
from tasks.entries import read_entries
from tasks.job import Job
from tasks.models import backbone_of, retriever_of


def check_fits(job: Job, manifest: Manifest) -> None:
    """Raises InputError where a version's labels, prompt, key or backbone are not the job's.

    Cheap: it compares what job and manifest say; `load_database` compares the models themselves.
    """
    built = Job.model_validate(manifest.job)
    where = f"database {manifest.name}@{manifest.id}"
    mend = "build it anew with this job, or use the job that it was built with"
    for field in ("family", "revision"):
        ours, theirs = getattr(job.backbone, field), getattr(built.backbone, field)
        if ours != theirs:
            raise InputError(
                f"{where} was built with backbone.{field} {theirs!r}, the job says {ours!r}; {mend}"
            )
    if (job.key.name, job.key.revision) != (built.key.name, built.key.revision):
        raise InputError(
            f"{where} was built with key {built.key.model_dump()}, the job says "
            f"{job.key.model_dump()}; {mend}"
        )
    declared = declared_labels(job.prompt, job.backbone.family)
    if declared is None:
        return
    if list(declared) != manifest.labels:
        raise InputError(
            f"{where} has the labels {', '.join(manifest.labels)}, the job's prompt has "
            f"{', '.join(declared)}; {mend}"
        )
    if resolve_prompt(job.prompt, job.backbone.family) != _prompt(manifest):
        raise InputError(f"{where} was built with another prompt than the job's; {mend}")


@lru_cache(maxsize=1)
def load_database(
    store: str, name: str, version: str, backbone: BackboneSpec, key: KeySpec
) -> Database:
    """A version in memory, read in the dtype it was built in unless the job names one.

    Raises InputError where a file is not what its manifest says, or the models are not those that
    the version was built with.
    """
    manifest = read_manifest(store, name, version)
    folder = version_folder(store, name, version)
    if backbone.dtype == "auto":
        backbone = BackboneSpec.model_validate(
            backbone.model_dump() | {"dtype": manifest.backbone["dtype"]}
        )
    model = backbone_of(backbone)
    _check_model(manifest, "backbone", backbone.model, model, manifest.backbone)
    retriever = retriever_of(key, backbone.dtype)
    if retriever is not None:
        _check_model(manifest, "key", key.model, retriever, manifest.key)
    entries_paths = sorted(f.path for f in manifest.files if f.path.startswith("entries/"))
    keys_path = index_path(key.name)
    centre_paths = [f.path for f in manifest.files if f.path == CENTRE]
    require_whole(folder, manifest, [*entries_paths, keys_path, *centre_paths])
    centre = safetensors.torch.load(folder.read(CENTRE))["mean"] if centre_paths else None
    prompt = _prompt(manifest)
    with folder.open(keys_path) as file:
        index = read_index(file.read)
    return Database(
        backbone=model,
        prompt=prompt,
        head=head_reader(model, prompt, centre),
        key=key,
        retriever=retriever,
        index=index,
        entries=read_entries(folder, entries_paths, parse_exits(manifest.exits), manifest.labels),
        vote_k=PAPER_NEIGHBOURS,
    )


def _prompt(manifest: Manifest) -> Prompt:
    prompt = manifest.prompt
    return Prompt(tuple(prompt["labels"]), tuple(prompt["words"]), prompt["template"])


def _check_model(
    manifest: Manifest, what: str, name: str, model: Backbone, built_with: dict[str, str]
) -> None:
    for part, value in built_with.items():
        if part != "dtype" and model.fingerprint[part] != value:
            differs = f"{part} {value[:12]}, {name} has {model.fingerprint[part][:12]}"
            raise InputError(
                f"database {manifest.name}@{manifest.id} was built with another {what}: {differs}; "
                "build it anew, or use the model that it was built with"
            )

"""Versions of a database: immutable, whole or not there.  And the manifest that makes them so."""

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from raee.errors import InputError
from storage.store import FileRecord, Folder

FORMAT = 2
"""Format of what is written here; a reader refuses newer ones by name."""

MANIFEST = "manifest.json"

CENTRE = "centre.safetensors"
"""A sentence encoder's mean state at each depth, (depths, hidden) float32, named `mean`."""

PROBES = "probes.safetensors"
"""Probes: maps, temperatures, label means and the sums that they were fitted on."""

REPORT = "report.html"

NAME_PATTERN = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
"""Names of databases and aliases."""


class Manifest(BaseModel):
    """What a version is.  Written last: no manifest, no version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    name: str
    id: str
    parent: str | None
    created_at: datetime
    job: dict[str, Any]
    prompt: dict[str, Any]
    """Template, labels and their words, as they were resolved."""
    backbone: dict[str, str]
    """Fingerprints of the backbone: SHA-256 of configuration, tokenizer, weights; dtype."""
    key: dict[str, str]
    """Fingerprints of the key's model; the backbone's where the key is one of its layers."""
    exits: list[str]
    """In the order of the entries' lists."""
    labels: list[str]
    rows: int
    rejected: dict[str, int]
    files: list[FileRecord]
    corpus: dict[str, Any]
    """Address, rows and the fingerprint of its content."""
    metrics: dict[str, dict[str, Any]]
    """By policy, replayed on the version's own rows, each without itself."""
    policy: dict[str, Any]
    seconds: dict[str, float]
    """By stage."""
    probes: dict[str, Any] | None = None
    """How the probes were fitted; none before format 2."""
    costs: dict[str, Any] | None = None
    """Modelled seconds of a row's parts, and the machine that they were measured on."""
    tuning: dict[str, Any] | None = None
    """What the search over policies found."""
    pruned: dict[str, Any] | None = None
    """Of a pruned version: the version that it came from, and its figures before and after."""
    code_version: str
    libraries: dict[str, str]


def check_name(what: str, name: str) -> None:
    """Raises InputError for a name that would not do as a folder's and an artifact key's."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(f"{what} {name!r}: use lowercase letters, digits and dashes")


def databases(store: str) -> Folder:
    """Where a store keeps its databases."""
    return Folder(store) / "databases"


def database_folder(store: str, name: str) -> Folder:
    """Where a database lies.  Raises InputError where its name would not do."""
    check_name("database", name)
    return databases(store) / name


def version_folder(store: str, name: str, version: str) -> Folder:
    """Where a version lies.  Raises InputError where its id cannot be one."""
    check_name("version", version)
    return database_folder(store, name) / f"versions/{version}"


def index_path(key: str) -> str:
    """The path of a key's index in a version."""
    return f"keys/{key}.faiss"


def new_version_id(now: datetime | None = None) -> str:
    """An id that sorts by time and collides with no other machine's."""
    now = datetime.now(UTC) if now is None else now
    return f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(4)}"


def version_ids(store: str, name: str) -> list[str]:
    """A database's versions, oldest first; what has no manifest is no version."""
    folder = database_folder(store, name) / "versions"
    return [i for i in folder.names() if folder.exists(f"{i}/{MANIFEST}")]


def publish(folder: Folder, manifest: Manifest) -> None:
    """Make a version exist: its files are all there, and now its manifest is.

    Raises FileExistsError where it exists already.
    """
    folder.write_new(MANIFEST, manifest.model_dump_json(indent=1).encode())


def read_manifest(store: str, name: str, version: str) -> Manifest:
    """A version's manifest.

    Raises InputError where there is no such version, or it is of a newer format.
    """
    folder = version_folder(store, name, version)
    try:
        data = folder.read(MANIFEST)
    except FileNotFoundError:
        raise InputError(
            f"database {name} in {store} has no version {version!r}; {_what_there_is(store, name)}"
        ) from None
    where = f"{folder}/{MANIFEST}"
    try:
        manifest = _Format.model_validate_json(data)
        if manifest.format > FORMAT:
            raise InputError(
                f"{where} is of format {manifest.format}, newer than format {FORMAT}, the newest "
                "that this program reads; upgrade raee"
            )
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        reason = error.errors()[0]
        place = ".".join(map(str, reason["loc"]))
        raise InputError(f"{where} is damaged: {place} {reason['msg']}") from error


def verify(folder: Folder, manifest: Manifest, paths: Sequence[str] | None = None) -> list[str]:
    """Read a version's files, or some of them; says of each that differs in what."""
    faults = []
    for file in manifest.files:
        if paths is not None and file.path not in paths:
            continue
        try:
            found = folder.record(file.path)
        except FileNotFoundError:
            faults.append(f"{file.path} is missing")
            continue
        if found.bytes != file.bytes:
            faults.append(f"{file.path} has {found.bytes} bytes, its manifest says {file.bytes}")
        elif found.sha256 != file.sha256:
            faults.append(f"{file.path} has another SHA-256 than its manifest says")
    return faults


def require_whole(folder: Folder, manifest: Manifest, paths: Sequence[str]) -> None:
    """Check files before anything reads them; raises InputError where one is not what it was."""
    faults = verify(folder, manifest, paths)
    if faults:
        raise InputError(
            f"{folder} is damaged: {'; '.join(faults)}. Roll back to another version or build anew."
        )


class _Format(BaseModel):
    """The part of a manifest that every format has."""

    format: int


def _what_there_is(store: str, name: str) -> str:
    ids = version_ids(store, name)
    if ids:
        return f"the newest is {ids[-1]}"
    names = databases(store).names()
    return f"it has none; databases there: {', '.join(names) if names else 'none'}"

"""Versions of a database: immutable, whole or not there.  And the manifest that makes them so."""

import json
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from raee.errors import InputError, clauses, cut, listed
from storage.checked import FileRecord
from storage.store import Folder

FORMAT = 4
"""Format of what is written here; a reader refuses newer ones by name."""

FIRST_BY_TEXT = 4
"""Format from which on a version says which texts are equal, figures leave out the text and not the
row alone, and confidences are calibrated."""

MANIFEST = "manifest.json"

CENTRE = "centre.safetensors"
"""A sentence encoder's mean state at each depth, (depths, hidden) float32, named `mean`."""

PROBES = "probes.safetensors"
"""Probes: maps, temperatures, label means and the sums that they were fitted on."""

FAR = "far.safetensors"
"""What says how unlike a database's rows a fresh row is."""

REPORT = "report.html"

VERDICT = "verdict.json"
"""Beside the version's files, written after its manifest."""

NAME_PATTERN = r"[a-z0-9][a-z0-9-]{0,62}"
"""The whole of a name: of databases and aliases, and ids of versions."""


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
    """By policy, replayed on the version's own rows, each without its text; of policies that were
    picked on these rows the cross-fitted figures."""
    policy: dict[str, Any]
    seconds: dict[str, float]
    """By stage."""
    probes: dict[str, Any] | None = None
    """How the probes were fitted; none before format 2."""
    costs: dict[str, Any] | None = None
    """Modelled seconds of a row's parts, and the machine that they were measured on."""
    tuning: dict[str, Any] | None = None
    """What the search over policies found."""
    temperatures: dict[str, float] | None = None
    """Of heads and votes, by exit: what their confidences are calibrated with; none before format
    4."""
    copies: dict[str, Any] | None = None
    """How many rows have equal or nearly equal texts; none before format 4."""
    indexes: dict[str, Any] | None = None
    """By path what kind an index is and what share of the nearest rows it finds; none before
    format 3, when all were exact."""
    recipe: str | None = None
    """Names what decided the version, its centre apart; none before format 3."""
    swept: list[FileRecord] = []
    """Readings that a rebuild takes over, below the database's folder; versions share them."""
    pruned: dict[str, Any] | None = None
    """Of a pruned version: the version that it came from, and its figures before and after."""
    code_version: str
    libraries: dict[str, str]
    digest: str | None = None
    """What `digest_of` says of all else here; none of versions from before manifests had one."""

    @property
    def barred(self) -> str | None:
        """Why nothing can be promised on the version's rows; None if something can."""
        return None if self.copies is None else self.copies["barred"]

    @field_validator("files", "swept")
    @classmethod
    def _names_files_of_its_own(cls, files: list[FileRecord]) -> list[FileRecord]:
        """What is read, copied and deleted by a manifest must not lead out of its folder."""
        seen = {MANIFEST}
        for file in files:
            if file.path in seen or not _is_path_below(file.path):
                raise ValueError(f"no path of a file of its own: {cut(repr(file.path))}")
            if file.bytes < 0 or (file.rows or 0) < 0:
                raise ValueError(f"{cut(repr(file.path))} has less than nothing in it")
            if not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
                raise ValueError(f"no SHA-256 of {cut(repr(file.path))}")
            seen.add(file.path)
        return files


class Verdict(BaseModel):
    """What the promotion gate said of a version when it was new: for people to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    promoted: bool
    why: str


def check_name(what: str, name: str) -> None:
    """Raises InputError for a name that would not do as a folder's and an artifact key's."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(
            f"{what} {cut(repr(name))}: use lowercase letters, digits and dashes, 63 at most, and "
            "no dash at the start"
        )


def databases(store: str) -> Folder:
    """Where a store keeps its databases.  Raises InputError where it could not."""
    folder = Folder(store)
    folder.require_writable_kind()
    return folder / "databases"


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
    """A database's versions, oldest first; what has no manifest, or an empty one, is no version.

    An empty manifest keeps a build that is dead, and of which files may be gone, from ever
    publishing its version.
    """
    listed = (database_folder(store, name) / "versions").files()
    return sorted(
        found.name.removesuffix(f"/{MANIFEST}")
        for found in listed
        if found.bytes and re.fullmatch(f"{NAME_PATTERN}/{re.escape(MANIFEST)}", found.name)
    )


def has_version(store: str, name: str, version: str) -> bool:
    """Whether a version is there."""
    try:
        return version_folder(store, name, version).size(MANIFEST) > 0
    except FileNotFoundError:
        return False


def publish(folder: Folder, manifest: Manifest) -> None:
    """Make a version exist: its files are all there, and now its manifest is, with its digest.

    Raises FileExistsError where it exists already.
    """
    said = json.loads(manifest.model_dump_json(exclude={"digest"}))
    data = json.dumps(said | {"digest": digest_of(said)}, indent=1, ensure_ascii=False)
    folder.write_new(MANIFEST, data.encode())


def digest_of(said: dict[str, Any]) -> str:
    """SHA-256 of what a manifest says beside its digest: as JSON, keys sorted, nothing between."""
    rest = {key: value for key, value in said.items() if key != "digest"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_verdict(store: str, name: str, version: str, verdict: Verdict) -> None:
    """Keep what was said of a version; what was said before stands."""
    with suppress(FileExistsError):
        data = verdict.model_dump_json().encode()
        version_folder(store, name, version).write_new(VERDICT, data)


def read_verdict(store: str, name: str, version: str) -> Verdict | None:
    """What was said of a version; None where nothing was, as of one that was pruned."""
    try:
        return Verdict.model_validate_json(version_folder(store, name, version).read(VERDICT))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        where = f"{version_folder(store, name, version)}/{VERDICT}"
        raise InputError(f"{where} is damaged; delete it: it is only for people") from error


def read_manifest(store: str, name: str, version: str) -> Manifest:
    """A version's manifest.

    Raises InputError where there is no such version, it is of a newer format, or no manifest of
    this version.
    """
    folder = version_folder(store, name, version)
    try:
        data = folder.read(MANIFEST)
    except FileNotFoundError:
        data = b""
    if not data:
        raise InputError(
            f"database {name} in {store} has no version {version!r}; {_what_there_is(store, name)}"
        )
    where = f"{folder}/{MANIFEST}"
    try:
        manifest_format = _Format.model_validate_json(data).format
        if manifest_format > FORMAT:
            raise InputError(
                f"{where} is of format {manifest_format}, newer than format {FORMAT}, the newest "
                "that this program reads; upgrade raee"
            )
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        reason = error.errors()[0]
        place = ".".join(map(str, reason["loc"]))
        said = cut(f"{place} {reason['msg']}", 300)
        raise InputError(f"{where} is damaged: {said}") from error
    if (manifest.name, manifest.id) != (name, version):
        other = f"{manifest.name}@{manifest.id}"
        raise InputError(f"{where} is damaged: it is the manifest of {cut(repr(other), 150)}")
    return manifest


def manifest_faults(folder: Folder) -> list[str]:
    """What is wrong with a version's manifest by its own digest; nothing where it has none."""
    try:
        said = json.loads(folder.read(MANIFEST))
    except (FileNotFoundError, ValueError):  # collected just now
        return [f"{MANIFEST} is missing"]
    if said.get("digest") in (None, digest_of(said)):
        return []
    return [f"{MANIFEST} has another digest than it says: something in it was changed"]


def verify(folder: Folder, files: Sequence[FileRecord]) -> list[str]:
    """Read files, which a manifest names below a folder; says of each that differs in what."""
    faults = []
    for file in files:
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
    """Check a manifest, and files that it names, before anything reads them.

    Raises InputError where one is not what it was.
    """
    faults = manifest_faults(folder)
    faults += verify(folder, [file for file in manifest.files if file.path in paths])
    if faults:
        raise InputError(
            f"{folder} is damaged: {clauses(faults)}. Roll back to another version or build anew."
        )


def _is_path_below(path: str) -> bool:
    """Whether a path leads to a file below the folder that it is relative to, on every system."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(parts)


class _Format(BaseModel):
    """The part of a manifest that every format has."""

    format: int


def _what_there_is(store: str, name: str) -> str:
    ids = version_ids(store, name)
    if ids:
        return f"the newest is {ids[-1]}"
    return f"it has none; databases there: {listed(databases(store).names())}"

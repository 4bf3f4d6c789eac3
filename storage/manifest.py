"""The manifest of a version, the names of its files, and the verdict of the promotion gate."""

import json
import re
from datetime import datetime
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from raee.errors import cut
from storage.checked import FileRecord

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

WORDS = "words.safetensors"
"""The fitted n-grams: their codes, inverse document frequencies, and weights in half precision."""

FAR = "far.safetensors"
"""The statistics by which a fresh row is found to be unlike a database's rows."""

REPORT = "report.html"

VERDICT = "verdict.json"
"""The promotion gate's verdict, beside the version's files, written after its manifest."""

NAME_PATTERN = r"[a-z0-9][a-z0-9-]{0,62}"
"""What the whole of a name matches: of databases and aliases, and ids of versions."""


class Manifest(BaseModel):
    """The description of a version.  It is written last: no manifest, no version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    name: str
    id: str
    parent: str | None
    created_at: datetime
    job: dict[str, Any]
    prompt: dict[str, Any]
    """Template, labels and their words, as they were resolved; `chat`, `examples` (of each label)
    and `shown`, the demonstrations that were picked, each with its text, label and key."""
    backbone: dict[str, str]
    """Fingerprints of the backbone: SHA-256 of configuration, tokenizer, weights; dtype."""
    key: dict[str, str]
    """Fingerprints of the key's model; the backbone's if the key is one of its layers."""
    exits: list[str]
    """Names of the exits, in the order of the entries' lists."""
    labels: list[str]
    rows: int
    rejected: dict[str, int]
    """By reason, rows of the corpus that were rejected."""
    files: list[FileRecord]
    corpus: dict[str, Any]
    """Address and rows of the corpus, and the fingerprint of its content; if the prompt shows
    examples, `shown`: how many rows have their texts, and are no entries."""
    metrics: dict[str, dict[str, Any]]
    """By policy, its figures on the version's own rows, each without its text; cross-fitted if the
    policy was picked on these rows."""
    policy: dict[str, Any]
    seconds: dict[str, float]
    """By stage of the build."""
    probes: dict[str, Any] | None = None
    """How the probes were fitted; None before format 2."""
    costs: dict[str, Any] | None = None
    """Modelled seconds of a row's parts, and the machine that they were measured on."""
    tuning: dict[str, Any] | None = None
    """What the search over policies found."""
    precision: dict[str, Any] | None = None
    """The number format that the backbone runs in, why, and what a trial took in each; None if the
    version is older than such trials."""
    temperatures: dict[str, float] | None = None
    """By exit, for heads and votes: the temperature that calibrates their confidences; None before
    format 4."""
    copies: dict[str, Any] | None = None
    """How many rows have equal or nearly equal texts; None before format 4."""
    indexes: dict[str, Any] | None = None
    """By path, the kind of an index and the share of the nearest rows that it finds; None before
    format 3, when all were exact."""
    recipe: str | None = None
    """Fingerprint of all that decides the version but its centre; None before format 3."""
    swept: list[FileRecord] = []
    """Readings that a rebuild reuses, below the database's folder; versions share them."""
    pruned: dict[str, Any] | None = None
    """The version that a pruned one came from, and the figures before and after; else None."""
    code_version: str
    libraries: dict[str, str]
    digest: str | None = None
    """`digest_of` the other fields; None if the version is older than such digests."""

    @property
    def where(self) -> str:
        """The version, for messages."""
        return f"database {self.name}@{self.id}"

    @property
    def barred(self) -> str | None:
        """Why nothing can be promised on the version's rows; None if something can."""
        return None if self.copies is None else self.copies["barred"]

    @field_validator("files", "swept")
    @classmethod
    def _names_files_of_its_own(cls, files: list[FileRecord]) -> list[FileRecord]:
        """Paths that a manifest has read, copied and deleted must not lead out of its folder."""
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
    """The promotion gate's decision on a version when it was new: for people to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    promoted: bool
    why: str


def index_path(key: str) -> str:
    """The path of a key's index in a version."""
    return f"keys/{key}.faiss"


def digest_of(fields: dict[str, Any]) -> str:
    """SHA-256, in hex, of a manifest's fields but its digest: as JSON, keys sorted, no spaces."""
    rest = {key: value for key, value in fields.items() if key != "digest"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class ManifestFormat(BaseModel):
    """The part of a manifest that every format has."""

    format: int


def _is_path_below(path: str) -> bool:
    """Whether a path leads to a file below the folder that it is relative to, on every system."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(parts)

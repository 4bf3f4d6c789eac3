"""The files of a model, on the hub or in a folder, and the fingerprint of those that count."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from raee.config import BackboneSpec
from raee.errors import InputError

MODULES = "modules.json"
SETTINGS = "sentence_bert_config.json"
POOLING = "1_Pooling"
"""Files, and a folder with a config.json, that sentence encoders have by these names."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "chat_template.jinja",
)


def model_file(spec: BackboneSpec, name: str) -> Path | None:
    """A file of a model, by its name there; None if there is none."""
    try:
        path = cached_file(
            spec.model,
            name,
            revision=spec.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError:
        return None
    return None if path is None else Path(path)


def json_file(spec: BackboneSpec, name: str, kind: type = dict) -> Any:
    """An object in a JSON file of a model, or what kind it is to be; None if there is no file.

    Raises InputError if the file holds anything else.
    """
    path = model_file(spec, name)
    try:
        found = None if path is None else json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"backbone {spec.model!r}: {name} is no JSON ({error})") from error
    if not isinstance(found, kind | None):
        what = "object" if kind is dict else "list"
        raise InputError(f"backbone {spec.model!r}: {name} is no JSON {what}")
    return found


def fingerprint(
    spec: BackboneSpec, configs: Sequence[str] = (), weights: Sequence[str] = ()
) -> dict[str, str]:
    """SHA-256 of what decides a model's answers: configuration, tokenizer and weights.

    It is of whole files, however many layers are loaded.  configs, weights: further files of
    either kind, of a sentence encoder's modules.
    """
    first = ["config.json", f"{POOLING}/config.json", SETTINGS]
    if spec.family == "seq2seq-lm":
        first.append("generation_config.json")  # the token that a decoder starts with
    code = _code(spec) if spec.trust_remote_code else []
    parts = {
        "config": [*first, *(name for name in configs if name not in first), *code],
        "tokenizer": list(_TOKENIZER_FILES),
        "weights": [*_weights(spec), *weights],
    }
    result = {}
    for part, names in parts.items():
        digest = hashlib.sha256()
        for name in names:
            path = model_file(spec, name)
            if path is not None:
                there = path.stat()
                digest.update(_digest(path, there.st_size, there.st_mtime_ns))
        result[part] = digest.hexdigest()
    return result


def _weights(spec: BackboneSpec) -> list[str]:
    """The files that the library loads: of each format, if both are there, the whole one."""
    formats = ["model.safetensors", *(["pytorch_model.bin"] if spec.pickled_weights else [])]
    for whole in formats:
        if model_file(spec, whole) is not None:
            return [whole]
        if (index := json_file(spec, f"{whole}.index.json")) is not None:
            return sorted({*index["weight_map"].values()})
    return []


def _code(spec: BackboneSpec) -> list[str]:
    """The files of the code that comes with a model and may run."""
    named = ((json_file(spec, "config.json") or {}).get("auto_map") or {}).values()
    return sorted({f"{name.partition('.')[0]}.py" for name in named if isinstance(name, str)})


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> bytes:
    """The SHA-256 of a file as it is at a time; read once a process, for it may be large."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()

"""The files of a model, on the hub or in a folder, and the fingerprint of those that count."""

import hashlib
import json
from pathlib import Path

from transformers.utils.hub import cached_file

from raee.config import BackboneSpec
from raee.errors import InputError

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


def json_file(spec: BackboneSpec, name: str) -> dict | None:
    """An object in a JSON file of a model; None if there is none.

    Raises InputError if the file holds anything else.
    """
    path = model_file(spec, name)
    try:
        found = None if path is None else json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"backbone {spec.model!r}: {name} is no JSON ({error})") from error
    if not isinstance(found, dict | None):
        raise InputError(f"backbone {spec.model!r}: {name} is no JSON object")
    return found


def fingerprint(spec: BackboneSpec) -> dict[str, str]:
    """SHA-256 of what decides a model's answers: configuration, tokenizer and weights."""
    weights = ["model.safetensors"]
    # If both are there, it is the whole file that is loaded.
    if model_file(spec, weights[0]) is None:
        index = json_file(spec, "model.safetensors.index.json") or {"weight_map": {}}
        weights = sorted({*index["weight_map"].values()})
    parts = {
        "config": ["config.json", "1_Pooling/config.json", "sentence_bert_config.json"],
        "tokenizer": list(_TOKENIZER_FILES),
        "weights": weights,
    }
    result = {}
    for part, names in parts.items():
        digest = hashlib.sha256()
        for name in names:
            path = model_file(spec, name)
            if path is not None:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        result[part] = digest.hexdigest()
    return result

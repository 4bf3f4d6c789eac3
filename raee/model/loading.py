"""Frozen models are loaded whole from the hub or a folder, or refused in one line."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

from raee.config import BackboneSpec, Family
from raee.errors import InputError, cut, listed
from raee.model.backbones import Backbone, Pooling
from raee.model.batches import pad, padding_of
from raee.model.files import fingerprint, json_file
from raee.model.hub import quiet_libraries, without_a_dead_hub
from raee.model.structure import walkable_stack
from raee.model.walk import Inputs

logger = logging.getLogger(__name__)

_CLASSES: dict[Family, Any] = {
    "masked-lm": AutoModelForMaskedLM,
    "sentence-encoder": AutoModel,
    "causal-lm": AutoModelForCausalLM,
    "seq2seq-lm": AutoModelForSeq2SeqLM,
}

_PROBE_TEXTS = ("a", "a b c", "a b")
"""Three texts of different lengths, so that a batch of them needs a mask."""


def default_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_backbone(spec: BackboneSpec, device: torch.device | None = None) -> Backbone:
    """Load a frozen model from the hub or a local folder, safetensors only.

    Raises InputError if there is no such model, its weights are in another format, damaged or
    incomplete, its other files contradict them, or its layers cannot be walked.
    """
    with quiet_libraries(), without_a_dead_hub(spec):
        return _load(spec, default_device() if device is None else device)


def _load(spec: BackboneSpec, device: torch.device) -> Backbone:
    dtype = _dtype(spec.dtype, device)
    try:
        # A model's own code never runs, and nobody is asked whether it may.
        tokenizer = AutoTokenizer.from_pretrained(
            spec.model, revision=spec.revision, trust_remote_code=False
        )
        model, loading = _CLASSES[spec.family].from_pretrained(
            spec.model,
            revision=spec.revision,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
            dtype=dtype,
            output_loading_info=True,
            # The checkpoint's own configuration may want something else returned.
            return_dict=True,
            output_hidden_states=False,
        )
    except Exception as error:  # tokenizers raises bare Exceptions if files do not fit
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(
            f"backbone {spec.model!r} (revision {spec.revision!r}) cannot be loaded; give a "
            f"local folder or a hub name with safetensors weights ({reason})"
        ) from error
    if model.config.is_encoder_decoder and spec.family != "seq2seq-lm":
        raise InputError(
            f"backbone {spec.model!r}: {type(model).__name__} is an encoder with a decoder; give a "
            "model that only encodes"
        )
    _check(spec, tokenizer, loading)
    model = model.eval().requires_grad_(False).to(device)
    base = model.base_model
    if spec.family == "masked-lm":
        # MobileBERT's embeddings look at the token that follows: what follows the last is nothing.
        model.get_input_embeddings().weight[tokenizer.pad_token_id] = 0
    for module in base.modules():
        # Every row is passed once: keys and values kept for a next token would be memory for none.
        if hasattr(module, "config"):
            module.config.use_cache = False
    start = _first_step(spec, model) if spec.family == "seq2seq-lm" else None
    return Backbone(
        family=spec.family,
        model=model,
        stack=walkable_stack(base, *_probe_batches(tokenizer, device), start),
        tokenizer=tokenizer,
        device=device,
        max_tokens=_max_tokens(spec, tokenizer, base),
        pooling=_pooling(spec) if spec.family == "sentence-encoder" else "mean",
        fingerprint=fingerprint(spec) | {"dtype": str(dtype).removeprefix("torch.")},
    )


def _check(spec: BackboneSpec, tokenizer: Any, loading: Mapping[str, Any]) -> None:
    """Raises InputError for what `transformers` loads without a word but cannot answer."""
    if other := sorted(loading["mismatched_keys"]):
        name, has, says = other[0]
        raise InputError(
            f"backbone {spec.model!r}: {name} has the shape {list(has)}, and by its config.json "
            f"{list(says)}; do its files belong together?"
        )
    # A pooler comes after the layers; no reader asks it.
    random = sorted(name for name in loading["missing_keys"] if "pooler" not in name)
    if random:
        raise InputError(
            f"backbone {spec.model!r} has no weights for {listed(random, 1)}; is it a "
            f"{spec.family} model?"
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise InputError(f"backbone {spec.model!r}: its tokenizer has no words; are files missing?")
    _check_limit(spec, "model_max_length", tokenizer.model_max_length)
    # Some encoders count positions by it; the other families do with any token.
    encodes = spec.family in ("masked-lm", "sentence-encoder")
    if encodes and tokenizer.pad_token_id is None:
        raise InputError(f"backbone {spec.model!r}: its tokenizer has no padding token")
    if spec.family == "masked-lm" and tokenizer.mask_token_id is None:
        raise InputError(f"backbone {spec.model!r}: its tokenizer has no mask token")


def _check_limit(spec: BackboneSpec, name: str, value: Any) -> None:
    """Raises InputError if a limit of tokens in a model's files is no number."""
    if value is not None and not isinstance(value, int | float):
        raise InputError(f"backbone {spec.model!r}: its {name} is {cut(repr(value))}, no number")


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    return getattr(torch, name)


def _probe_batches(tokenizer: Any, device: torch.device) -> tuple[Inputs, Inputs]:
    ids = [tokenizer(text)["input_ids"] for text in _PROBE_TEXTS]
    # A tokenizer that knows none of these letters still gives rows of different lengths.
    ids = [row + row[-1:] * i for i, row in enumerate(ids)]
    padding = padding_of(tokenizer)
    return pad(ids[:2], padding, device), pad(ids, padding, device)


def _first_step(spec: BackboneSpec, model: Any) -> int:
    """The token that a decoder starts with."""
    for config in (model.generation_config, model.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            token = getattr(config, name, None)
            if isinstance(token, int):
                return token
    raise InputError(
        f"backbone {spec.model!r}: neither its config.json nor its generation_config.json says "
        "with which token its decoder starts (decoder_start_token_id)"
    )


def _max_tokens(spec: BackboneSpec, tokenizer: Any, base: nn.Module) -> int:
    limits = [tokenizer.model_max_length, getattr(base.config, "max_position_embeddings", None)]
    for name, module in base.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa's positions start after the padding token's.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - offset)
    if spec.family == "sentence-encoder":
        settings = json_file(spec, "sentence_bert_config.json") or {}
        limits.append(settings.get("max_seq_length"))
        _check_limit(spec, "max_seq_length", limits[-1])
    return int(min(limit for limit in limits if limit is not None and limit > 0))


def _pooling(spec: BackboneSpec) -> Pooling:
    """What the encoder's own configuration says; else the mean over real tokens."""
    config = json_file(spec, "1_Pooling/config.json")
    if config is None:
        return "mean"
    # Newer configurations name the mode or list the modes, older ones have a switch for each.
    modes = config.get("pooling_mode") or [
        key.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens")
        for key, on in config.items()
        if key.startswith("pooling_mode_") and on
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if modes in (["mean"], []):
        return "mean"
    if modes == ["cls"]:
        return "cls"
    raise InputError(f"backbone {spec.model!r}: pooling {modes} is neither mean nor cls")

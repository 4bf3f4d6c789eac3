"""Frozen models are loaded from the hub or a folder, or refused in one line."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import CONFIG_NAME

from raee.config import BackboneSpec
from raee.errors import InputError, cut, listed
from raee.model.backbones import Backbone, Outline
from raee.model.batches import pad, padding_of
from raee.model.files import SETTINGS, fingerprint, json_file
from raee.model.hub import quiet_libraries, without_a_dead_hub
from raee.model.kinds import class_of, needs_padding
from raee.model.linears import lay_out
from raee.model.native import has_bfloat16, warn_if_emulated
from raee.model.sentence import SentenceParts, sentence_parts
from raee.model.structure import walkable_stack
from raee.model.truncated import LowerPart, layer_lists, lower_part
from raee.model.walk import Inputs, Stack

logger = logging.getLogger("raee")

_PROBE_TEXTS = ("a", "a b c", "a b")
"""Three texts of different lengths, so that a batch of them needs a mask."""


def device_of(spec: BackboneSpec) -> torch.device:
    """Where a model's inputs go: the device that a job names, or the first GPU, or the CPU.

    Raises InputError if there is no such device here.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if spec.device == "auto":
        return torch.device("cuda" if gpus else "cpu")
    device = torch.device(spec.device)
    there = {"cpu": True, "cuda": (device.index or 0) < gpus, "mps": _has_mps()}
    if not there[device.type]:
        known = ["cpu", *(f"cuda:{i}" for i in range(gpus)), *(["mps"] if _has_mps() else [])]
        raise InputError(
            f"backbone.device {spec.device!r} is not there; this machine has {listed(known)}"
        )
    return device


def load_backbone(
    spec: BackboneSpec, device: torch.device | None = None, deepest: int | None = None
) -> Backbone:
    """Load a frozen model from the hub or a local folder.

    device: by default as the spec says.  deepest: the deepest depth that is read; what is above it
    is not loaded, if the model allows that.  Raises InputError if there is no such model or device,
    its weights are in another format, damaged or incomplete, its other files contradict them, it is
    not of its family, or its layers cannot be walked.
    """
    if spec.dtype == "int8" and spec.device_map is not None:
        raise InputError(
            "backbone.dtype int8 is not for a model that is spread over devices: leave out "
            "`device_map`, or build the database in another dtype"
        )
    if spec.device_map is not None and find_spec("accelerate") is None:
        raise InputError(
            "backbone.device_map needs the package accelerate: pip install 'raee[accelerate]'"
        )
    place = device_of(spec) if device is None else device
    warn_if_emulated(spec.dtype, place)
    begun = time.monotonic()
    with quiet_libraries(), without_a_dead_hub(spec):
        loaded = _load(spec, place, deepest)
    layers = loaded.stack.depth
    logger.info(
        "backbone %s: %s of %d layers loaded, %s on %s, in %.1f s",
        spec.model,
        "all" if layers == loaded.depth else f"the lowest {layers}",
        loaded.depth,
        loaded.dtype,
        place,
        time.monotonic() - begun,
    )
    return loaded


def load_lowest(spec: BackboneSpec) -> Backbone:
    """As few of a model's lowest layers as can be loaded, to try them.

    Raises InputError as `load_backbone` does.
    """
    with quiet_libraries(), without_a_dead_hub(spec):
        return _load(spec, device_of(spec), 1)


def load_tokenizer(spec: BackboneSpec) -> Any:
    """A model's tokenizer, without its weights.

    Raises InputError for all that the model's small files tell, as `load_backbone` does.
    """
    with quiet_libraries(), without_a_dead_hub(spec):
        return _looked_over(spec)[0]


def _looked_over(spec: BackboneSpec) -> tuple[Any, Any, Any]:
    """A model's tokenizer, its configuration and the library's class that loads it."""
    options = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    with _in_one_line(spec):
        if os.path.isdir(spec.model) and not os.path.exists(os.path.join(spec.model, CONFIG_NAME)):
            raise FileNotFoundError(f"the folder has no {CONFIG_NAME}: it holds no model")
        # Nobody is asked whether a model's own code may run.
        tokenizer = AutoTokenizer.from_pretrained(spec.model, **options)
        config = AutoConfig.from_pretrained(spec.model, **options)
    kind = class_of(spec, config)
    _check_tokenizer(spec, tokenizer, config)
    return tokenizer, config, kind


def outline_of(spec: BackboneSpec) -> Outline:
    """What a model's small files say of it; its weights are hashed and not loaded.

    Raises InputError for all that these files tell, as `load_backbone` does.
    """
    with quiet_libraries(), without_a_dead_hub(spec):
        tokenizer, config, kind = _looked_over(spec)
        parts = _sentence_parts(spec)
        with _in_one_line(spec), torch.device("meta"):
            model = kind.from_config(config, trust_remote_code=spec.trust_remote_code)
        lists = layer_lists(model)
        layers = sum(len(layers) for layers in lists)
        parameters = sum(p.numel() for layers in lists for p in layers.parameters())
        config = model.config.get_text_config()  # of a model that reads images, too
        # ALBERT runs one layer as often as its configuration says.
        times = config.num_hidden_layers if layers == 1 else 1
        width = config.hidden_size
        if spec.family == "causal-lm":  # OPT narrows its last states for the head
            width = model.get_output_embeddings().weight.shape[1]
        sizes = times * layers, width, times * parameters
        return Outline(**_outlined(spec, tokenizer, model, parts, *sizes))


def _outlined(
    spec: BackboneSpec,
    tokenizer: Any,
    model: Any,
    parts: SentenceParts | None,
    depth: int,
    width: int,
    layer_parameters: int,
) -> dict[str, Any]:
    """The fields of an outline.  width: of a state."""
    return {
        "family": spec.family,
        "tokenizer": tokenizer,
        "depth": depth,
        "hidden_size": width,
        "pooled_size": width if parts is None else parts.pooled_size(width),
        "layer_parameters": layer_parameters,
        "max_tokens": _max_tokens(spec, tokenizer, model.base_model),
        "fingerprint": fingerprint(
            spec, *((), ()) if parts is None else (parts.configs, parts.weights)
        ),
        "prefix": "" if parts is None else parts.prefix,
        "lower_case": parts is not None and parts.lower_case,
    }


def _sentence_parts(spec: BackboneSpec) -> SentenceParts | None:
    return sentence_parts(spec) if spec.family == "sentence-encoder" else None


def _load(spec: BackboneSpec, device: torch.device, deepest: int | None) -> Backbone:
    tokenizer, config, kind = _looked_over(spec)
    parts = _sentence_parts(spec)
    place = _Place(tokenizer, _dtype(spec.dtype, device), device)
    part = None if deepest is None else _in_part(spec, kind, config, place, deepest)
    model, stack, lower = (*_loaded(spec, kind, place), None) if part is None else part
    if parts is not None and parts.after_pooling is not None:
        parts.after_pooling.to(device)
    depth = stack.depth if lower is None else lower.depth
    parameters = sum(
        sum(p.numel() for p in part.layers.parameters()) * part.depth // len(part.layers)
        for part in stack.parts
    )
    # Before weights are laid out anew: they count as what they are.
    outlined = _outlined(
        spec, tokenizer, model, parts, depth, stack.width, parameters * depth // stack.depth
    )
    dtype = "int8" if spec.dtype == "int8" else str(place.dtype).removeprefix("torch.")
    if spec.device_map is None and (device.type == "cpu" or dtype == "int8"):
        for each in stack.parts:
            for layer in each.layers:
                lay_out(layer, dtype, device)
    return Backbone(
        model=model,
        stack=stack,
        deepest=stack.depth if lower is None else lower.deepest,
        device=device,
        dtype=dtype,
        pooling="mean" if parts is None else parts.pooling,
        after_pooling=None if parts is None else parts.after_pooling,
        **outlined,
    )


@dataclass(frozen=True)
class _Place:
    """What a model's weights are loaded for."""

    tokenizer: Any
    dtype: torch.dtype
    device: torch.device


def _in_part(
    spec: BackboneSpec,
    kind: Any,
    config: Any,
    place: _Place,
    deepest: int,
) -> tuple[Any, Stack, LowerPart] | None:
    """A model's lower layers, how a batch runs through them, and what they are of the whole.

    None if all are needed, or it cannot be loaded in part: whatever is wrong with it is said
    when it is loaded whole.
    """
    try:
        lower = lower_part(kind, config, deepest, trust_remote_code=spec.trust_remote_code)
        if lower is None:
            return None
        model, stack = _loaded(spec, lower.kind, place)
    except Exception as error:
        logger.info("backbone %s cannot be loaded in part (%s)", spec.model, cut(error))
        return None
    # A model that runs a layer more than once has another depth than layers.
    return (model, stack, lower) if stack.depth == lower.layers else None


def _loaded(spec: BackboneSpec, kind: Any, place: _Place) -> tuple[Any, Stack]:
    """A frozen model, and how a batch runs through it.  kind: the library's class that loads it."""
    chosen = {"attn_implementation": spec.attn_implementation, "device_map": spec.device_map}
    with _in_one_line(spec):
        model, loading = kind.from_pretrained(
            spec.model,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            use_safetensors=None if spec.pickled_weights else True,
            ignore_mismatched_sizes=True,  # refused below, with their names
            dtype=place.dtype,
            output_loading_info=True,
            # The checkpoint's own configuration may want something else returned.
            return_dict=True,
            output_hidden_states=False,
            **{name: value for name, value in chosen.items() if value is not None},
        )
    _check_weights(spec, loading)
    model = model.eval().requires_grad_(False)
    if spec.device_map is None:
        model = model.to(place.device)
    if spec.family == "masked-lm":
        # MobileBERT's embeddings look at the token that follows: what follows the last is nothing.
        model.get_input_embeddings().weight[place.tokenizer.pad_token_id] = 0
    for module in model.base_model.modules():
        # Every row is passed once: keys and values kept for a next token would be memory for none.
        if hasattr(module, "config"):
            module.config.use_cache = False
    start = _first_step(spec, model) if spec.family == "seq2seq-lm" else None
    probes = _probe_batches(place.tokenizer, place.device)
    return model, walkable_stack(model.base_model, *probes, start)


@contextmanager
def _in_one_line(spec: BackboneSpec) -> Iterator[None]:
    """Within, what the libraries raise about a model is an InputError."""
    try:
        yield
    except Exception as error:  # tokenizers raises bare Exceptions if files do not fit
        reason = cut(str(error).strip() or repr(error), 400)
        raise InputError(
            f"backbone {spec.model!r} (revision {spec.revision!r}) cannot be loaded; give a "
            f"local folder or a hub name with safetensors weights ({reason})"
        ) from error


def _check_weights(spec: BackboneSpec, loading: Mapping[str, Any]) -> None:
    """Raises InputError for weights that `transformers` makes up without a word."""
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


def _check_tokenizer(spec: BackboneSpec, tokenizer: Any, config: Any) -> None:
    """Raises InputError if a tokenizer lacks what a model's family needs.  config: the model's."""
    if not tokenizer.is_fast:
        raise InputError(
            f"backbone {spec.model!r}: its tokenizer ({type(tokenizer).__name__}) is none of the "
            "library tokenizers, and does not say where a token stands in a text; save the model's "
            "folder with a tokenizer.json"
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise InputError(f"backbone {spec.model!r}: its tokenizer has no words; are files missing?")
    _check_limit(spec, "model_max_length", tokenizer.model_max_length)
    if tokenizer.pad_token_id is None and needs_padding(spec, config):
        raise InputError(f"backbone {spec.model!r}: its tokenizer has no padding token")
    if spec.family == "masked-lm" and tokenizer.mask_token_id is None:
        raise InputError(f"backbone {spec.model!r}: its tokenizer has no mask token")


def _check_limit(spec: BackboneSpec, name: str, value: Any) -> None:
    """Raises InputError if a limit of tokens in a model's files is no number."""
    if value is not None and not isinstance(value, int | float):
        raise InputError(f"backbone {spec.model!r}: its {name} is {cut(repr(value))}, no number")


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "int8":  # all but the linear layers of its layers
        return torch.float32
    if name == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
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


def _first_ranges(config: Any) -> list[int]:
    """How long a batch's rows may be for none to change the positions of the others.

    LongRoPE turns all tokens of a batch otherwise once its longest row leaves the first of two
    ranges: a row's answer would depend on the rows beside it, and on kept keys and values.
    """
    found = getattr(config, "rope_parameters", None) or {}
    # Some models have parameters for each kind of layer.
    kinds = [found, *(each for each in found.values() if isinstance(each, dict))]
    longs = [each for each in kinds if each.get("rope_type") == "longrope"]
    return [each["original_max_position_embeddings"] for each in longs]


def _max_tokens(spec: BackboneSpec, tokenizer: Any, base: Any) -> int:
    config = base.config.get_text_config()  # of a model that reads images, too
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    limits += _first_ranges(config)
    for name, module in base.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa's positions start after the padding token's.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - offset)
    if spec.family == "sentence-encoder":
        settings = json_file(spec, SETTINGS) or {}
        limits.append(settings.get("max_seq_length"))
        _check_limit(spec, "max_seq_length", limits[-1])
    return int(min(limit for limit in limits if limit is not None and limit > 0))

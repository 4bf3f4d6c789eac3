"""Which class of the library a family is loaded by, and which models are none of it."""

from typing import Any

from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTextEncoding,
)

from raee.config import BackboneSpec, Family
from raee.errors import InputError, listed
from raee.model.prompts import GENERATIVE
from raee.model.structure import refuse_recurrent

_LOADED_BY: dict[Family, Any] = {
    "masked-lm": AutoModelForMaskedLM,
    "sentence-encoder": AutoModel,
    "causal-lm": AutoModelForCausalLM,
    "seq2seq-lm": AutoModelForSeq2SeqLM,
}


def class_of(spec: BackboneSpec, config: Any) -> Any:
    """The library's class that loads a model as its family's.

    config: the model's own.  Raises InputError if the model is not of the family.
    """
    base: Any = AutoModel._model_mapping[type(config)] if _knows(AutoModel, config) else None
    refuse_recurrent(base)
    auto, encodes = _LOADED_BY[spec.family], _is_encoder_alone(config)
    if spec.family == "sentence-encoder" and encodes:
        return AutoModelForTextEncoding
    if config.is_encoder_decoder and spec.family != "seq2seq-lm":
        name = auto._model_mapping[type(config)].__name__ if _knows(auto, config) else "it"
        raise InputError(
            f"backbone {spec.model!r}: {name} is an encoder with a decoder; give a model that only "
            "encodes, or family: seq2seq-lm"
        )
    if _remote(auto, config):
        return auto
    fits = [family for family in _LOADED_BY if _is_of(family, config)]
    if spec.family not in fits:
        reason = f"transformers' {auto.__name__} has none"
        if _knows(auto, config):
            two_way = spec.family == "causal-lm"
            reason = f"{reason} that reads from left to right" if two_way else "it has no decoder"
        raise InputError(
            f"backbone {spec.model!r}: a {config.model_type} is no {spec.family} ({reason}); it "
            f"may be family: {listed(fits) if fits else 'none'}"
        )
    return auto


def needs_padding(spec: BackboneSpec, config: Any) -> bool:
    """Whether a model needs a token to pad with: some encoders count positions by it."""
    return spec.family not in GENERATIVE and not _is_of("causal-lm", config)


def _is_of(family: Family, config: Any) -> bool:
    if not _knows(_LOADED_BY[family], config):
        return False
    if family == "seq2seq-lm":
        return bool(config.is_encoder_decoder)
    if family == "causal-lm":
        # The library has a causal head for encoders, too, which their weights were not made for.
        two_way = type(config) in MODEL_FOR_MASKED_LM_MAPPING
        return not two_way or bool(getattr(config, "is_decoder", False))
    return not config.is_encoder_decoder


def _knows(auto: Any, config: Any) -> bool:
    return type(config) in auto._model_mapping


def _remote(auto: Any, config: Any) -> bool:
    """Whether code that comes with the model says how it is loaded."""
    return auto.__name__ in (getattr(config, "auto_map", None) or {})


def _is_encoder_alone(config: Any) -> bool:
    """Whether a checkpoint is the encoder of an encoder-decoder, as sentence encoders may be."""
    names = config.architectures or []
    alone = bool(names) and all(str(name).endswith("EncoderModel") for name in names)
    return alone and _knows(AutoModelForTextEncoding, config)

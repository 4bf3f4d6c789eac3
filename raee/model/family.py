"""Which family a model is of, by the files that lie beside its weights."""

from raee.config import BackboneSpec, Family
from raee.errors import InputError, listed
from raee.model.files import json_file, model_file
from raee.model.hub import quiet_libraries, without_a_dead_hub

_OF_SENTENCE_ENCODERS = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json")


def family_of(model: str, revision: str) -> Family:
    """The family of a model in a folder or on the hub.

    A sentence encoder has files of sentence-transformers, or no head; a masked LM has the head of
    one.  Raises InputError if there is no such model, or it is neither.
    """
    spec = BackboneSpec(family="sentence-encoder", model=model, revision=revision)
    with quiet_libraries(), without_a_dead_hub(spec):
        config = json_file(spec, "config.json")
        if config is None:
            raise InputError(
                f"model {model!r} (revision {revision!r}) is not there or has no config.json; give "
                "a local folder or a hub name"
            )
        if any(model_file(spec, name) is not None for name in _OF_SENTENCE_ENCODERS):
            return "sentence-encoder"
    heads = config.get("architectures") or []
    if any(str(head).endswith("ForMaskedLM") for head in heads):
        return "masked-lm"
    # GPT2LMHeadModel and the like end so, too.
    if heads and all(str(h).endswith("Model") and "Head" not in str(h) for h in heads):
        return "sentence-encoder"
    raise InputError(
        f"model {model!r} is neither a sentence encoder nor a masked LM by its files "
        f"(architectures: {listed(heads)}); if it is one, say so: family='sentence-encoder' or "
        "family='masked-lm'"
    )

"""Which family a model is of, by the files that lie beside its weights."""

from raee.config import BackboneSpec, Family
from raee.errors import InputError, listed
from raee.model.files import MODULES, POOLING, SETTINGS, json_file, model_file
from raee.model.hub import quiet_libraries, without_a_dead_hub

_OF_SENTENCE_ENCODERS = (MODULES, SETTINGS, f"{POOLING}/config.json")

_HEADS = {
    # T5's and GPT-2's names are of an older fashion.
    "seq2seq-lm": ("ForConditionalGeneration", "T5WithLMHeadModel"),
    # The second is of models that read images, too.
    "causal-lm": ("ForCausalLM", "ForConditionalGeneration", "GPT2LMHeadModel"),
}
"""How the names of the classes end that have a family's head."""


def family_of(model: str, revision: str) -> Family:
    """The family of a model in a folder or on the hub.

    A sentence encoder has files of sentence-transformers, or no head; the others have the head of
    their family.  Raises InputError if there is no such model, or it is of none.
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
    family: Family = "seq2seq-lm" if config.get("is_encoder_decoder") else "causal-lm"
    if any(str(head).endswith(_HEADS[family]) for head in heads):
        return family
    if heads and all(str(h).endswith("Model") and "Head" not in str(h) for h in heads):
        return "sentence-encoder"
    raise InputError(
        f"model {model!r} is neither a sentence encoder nor a language model by its files "
        f"(architectures: {listed(heads)}); if it is one, say so: family='sentence-encoder', "
        "family='masked-lm', family='causal-lm' or family='seq2seq-lm'"
    )

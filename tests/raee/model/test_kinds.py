"""A model of another family is refused before its weights are read."""

import pytest
import transformers as t

from raee.config import BackboneSpec, Family
from raee.model.kinds import class_of
from tests.raee.errors import refused


def _class(family: Family, config: t.PreTrainedConfig) -> str:
    return class_of(BackboneSpec(family=family, model="some/model"), config).__name__


@pytest.mark.parametrize(
    ("family", "config", "name"),
    [
        ("masked-lm", t.BertConfig(), "AutoModelForMaskedLM"),
        ("sentence-encoder", t.BertConfig(), "AutoModel"),
        ("sentence-encoder", t.Qwen3Config(), "AutoModel"),
        ("causal-lm", t.GPT2Config(), "AutoModelForCausalLM"),
        ("causal-lm", t.BertConfig(is_decoder=True), "AutoModelForCausalLM"),
        ("seq2seq-lm", t.T5Config(), "AutoModelForSeq2SeqLM"),
        # What the encoders of T5 that are sentence encoders are saved as.
        (
            "sentence-encoder",
            t.T5Config(architectures=["T5EncoderModel"]),
            "AutoModelForTextEncoding",
        ),
        (
            "sentence-encoder",
            t.T5Config(architectures=["T5EncoderModel"], is_encoder_decoder=False),
            "AutoModelForTextEncoding",
        ),
    ],
)
def test_a_family_has_its_own_class(family, config, name):
    assert _class(family, config) == name


@pytest.mark.parametrize(
    ("family", "config", "match"),
    [
        (
            "masked-lm",
            t.LlamaConfig(),
            "a llama is no masked-lm .* family: sentence-encoder, causal",
        ),
        (
            "causal-lm",
            t.BertConfig(),
            "a bert is no causal-lm .* it may be family: masked-lm, sent",
        ),
        ("causal-lm", t.RobertaConfig(), "that reads from left to right"),
        ("causal-lm", t.BartConfig(), "BartForCausalLM is an encoder with a decoder"),
        ("masked-lm", t.T5Config(), "it is an encoder with a decoder; .* family: seq2seq-lm"),
        ("sentence-encoder", t.T5Config(), "T5Model is an encoder with a decoder"),
        ("seq2seq-lm", t.BertConfig(), "a bert is no seq2seq-lm"),
        ("seq2seq-lm", t.T5Config(is_encoder_decoder=False), "no seq2seq-lm .it has no decoder.;"),
        ("seq2seq-lm", t.GPT2Config(), "a gpt2 is no seq2seq-lm .* sentence-encoder, causal-lm"),
        ("causal-lm", t.MambaConfig(), "MambaModel cannot be walked: layers of it are recurrent"),
        ("sentence-encoder", t.RwkvConfig(), "RwkvModel cannot be walked"),
    ],
)
def test_a_model_of_another_family_is_refused(family, config, match):
    with refused(match):
        _class(family, config)

"""A head is cut to the label words, and label words that no head can tell apart are refused."""

import pytest
import torch

from raee.config import BackboneSpec
from raee.model.batches import pad
from raee.model.frames import frame_of
from raee.model.heads import LabelColumns, label_tokens
from raee.model.linears import Packed
from raee.model.loading import load_backbone
from raee.model.native import can_pack
from raee.model.prompts import Prompt
from tests.raee import tokenizers
from tests.raee.errors import refused
from tests.raee.models import MASKED_LMS, WIDTH


def _load(folder, dtype="auto"):
    spec = BackboneSpec(family="masked-lm", model=str(folder), dtype=dtype)
    return load_backbone(spec, torch.device("cpu"))


def _at_a_mask(tokenizer, words) -> list[int]:
    frame = frame_of(Prompt((), tuple(words), "{text} {mask}"), tokenizer, "masked-lm")
    return label_tokens(tokenizer, words, frame)


@pytest.mark.parametrize("name", MASKED_LMS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_cut_head_gives_the_label_words_columns_of_the_whole_one(folder_of, name, dtype):
    backbone = _load(folder_of(name), dtype)
    tokens = _at_a_mask(backbone.tokenizer, ["terrible", "great", "okay"])
    batch = pad([[0, 9, 8, 7, 6, 2], [0, 9, 2]], backbone.tokenizer.pad_token_id, backbone.device)
    with torch.inference_mode():
        whole = backbone.model(**batch).logits[:, 1, tokens].float()
        states = backbone.stack.model(**batch).last_hidden_state[:, 1]
        cut = LabelColumns(backbone, tokens)(states)
    tolerance = {"float32": 1e-5, "bfloat16": 0.05}[dtype]
    torch.testing.assert_close(cut, whole, atol=tolerance, rtol=tolerance)


def test_the_cut_head_never_multiplies_by_the_whole_vocabulary(backbone_of):
    backbone = backbone_of("bert")
    columns = LabelColumns(backbone, _at_a_mask(backbone.tokenizer, ["great", "bad"]))
    widths = []
    decoder = backbone.model.cls.predictions.decoder
    handle = decoder.register_forward_hook(lambda m, args, out: widths.append(out.shape[-1]))
    with torch.inference_mode():
        columns(torch.zeros(3, WIDTH))
    handle.remove()
    assert widths == [2]


@pytest.mark.skipif(not can_pack(), reason="oneDNN orders no weights here")
def test_a_layer_as_wide_as_the_vocabulary_is_not_cut(folder_of):
    """oneDNN's order of its weights has no rows to choose."""
    backbone = _load(folder_of("bert"), "float32")
    tokens = _at_a_mask(backbone.tokenizer, ["great", "bad"])
    expected = LabelColumns(backbone, tokens)(torch.ones(3, WIDTH))
    wide = torch.zeros(backbone.model.config.vocab_size, WIDTH)
    backbone.stack.parts[0].layers[0].wide = Packed(wide, None)
    torch.testing.assert_close(LabelColumns(backbone, tokens)(torch.ones(3, WIDTH)), expected)


def test_a_head_that_cannot_be_cut_is_refused(folder_of):
    backbone = _load(folder_of("bert"))
    # A bias that is no parameter is not cut: the label words would get the first words' bias.
    bias = torch.linspace(0, 9, len(backbone.tokenizer))
    decoder = backbone.model.cls.predictions.decoder
    decoder.register_forward_hook(lambda module, args, out: out + bias[: out.shape[-1]])
    with refused("BertForMaskedLM: its head cannot be cut down to the label words"):
        LabelColumns(backbone, _at_a_mask(backbone.tokenizer, ["great", "bad"]))


def test_a_label_word_is_the_token_that_follows_a_space(backbone_of):
    for name, token in (("bert", "great"), ("roberta", "Ġgreat"), ("albert", "▁great")):
        tokenizer = backbone_of(name).tokenizer
        assert tokenizer.convert_ids_to_tokens(_at_a_mask(tokenizer, ["great"])) == [token]


def test_a_label_word_of_several_tokens_is_refused_with_its_tokens(backbone_of):
    for name, shown in (
        ("bert", r"is 7 tokens .*\['a', '##w', '##e', '##s', '##o', '##m', '##e'\]"),
        ("roberta", r"is 8 tokens .*\['Ġa', 'w', 'e', 's', 'o', 'm', 'e', 'Ċ'\]"),
    ):
        with refused(shown):
            _at_a_mask(backbone_of(name).tokenizer, ["great", "awesome\n"])


def test_an_empty_label_word_is_refused(backbone_of):
    with refused("label word '' is 0 tokens"):
        _at_a_mask(backbone_of("bert").tokenizer, [""])


def test_a_label_word_that_the_tokenizer_does_not_know_is_refused(backbone_of):
    with refused(r"label word '★' is unknown to this tokenizer \(\[UNK\]\)"):
        _at_a_mask(backbone_of("bert").tokenizer, ["great", "★"])


def test_two_label_words_of_the_same_token_are_refused(backbone_of):
    with refused("label words 'great' and 'Great' are the same token"):
        _at_a_mask(backbone_of("bert").tokenizer, ["great", "bad", "Great"])


class TestWordsThatAreWritten:
    """Of causal and encoder-decoder models."""

    @staticmethod
    def _tokens(kind, *words, template="{text} The answer is "):
        tokenizer = tokenizers.make(kind)
        family = "seq2seq-lm" if kind == "t5" else "causal-lm"
        frame = frame_of(Prompt(words, words, template), tokenizer, family)
        return tokenizer.convert_ids_to_tokens(label_tokens(tokenizer, words, frame))

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("gpt2", ["Ġvery", "Ġdull", "Ġ"]),
            ("llama2", ["▁very", "▁dull", "▁"]),
            ("gemma", ["▁very", "▁dull", "▁"]),
            ("t5", ["▁very", "▁dull", "▁"]),
        ],
    )
    def test_of_several_tokens_begin_with_the_first(self, kind, expected):
        assert self._tokens(kind, "very good", "dulled", "2nd") == expected

    @pytest.mark.parametrize("kind", ["gpt2", "llama2", "gemma", "t5"])
    def test_that_begin_alike_are_refused_with_both_and_the_token(self, kind):
        match = "label words 'very good' and 'very bad' both begin with the token '[Ġ▁]very' "
        with refused(match + "for this tokenizer; choose words that begin differently"):
            self._tokens(kind, "very good", "okay", "very bad")

    def test_that_are_unknown_or_empty_are_refused(self):
        with refused(r"label word '★' is unknown to this tokenizer \(<unk>\)"):
            self._tokens("t5", "good", "★")
        for kind in ("gpt2", "t5"):
            with refused("label word '' is 0 tokens"):
                self._tokens(kind, "good", "")

    def test_that_make_one_token_with_the_templates_end_are_refused(self):
        tokenizer = tokenizers.make("gpt2")
        tokenizer.add_tokens(["\ngood"])
        frame = frame_of(Prompt(("a",), ("bad",), "{text}\n"), tokenizer, "causal-lm")
        match = "label word 'good' makes one token with the end of prompt.template"
        with refused(match):
            label_tokens(tokenizer, ["bad", "good"], frame)

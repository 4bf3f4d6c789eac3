"""Of a long text only the beginning is tokenized, with the tokens that the whole text has."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from raee.model import batches
from raee.model.batches import encode
from raee.model.long_texts import beginning, cuts_of
from raee.model.prompts import Prompt
from tests.raee.databases import prompt_of
from tests.texts import WORDS

MODELS = ("bert", "roberta", "albert", "minilm", "llama", "gpt2", "t5")
"""One of each kind of tokenizer, and a trained one."""

_HARD = [
    "don't",
    "we'll",
    '{"a":1,',
    "[MASK]",
    "<mask>",
    "</s>",
    "很好，",
    "x_y",
    "$9.99",
    "\u0e44",
]
_OTHERS = ["Straße", "ÉTÉ", "e\u0301", "好看", "42", "1234567", "...", "ΟΔΟΣ", "\U0001f600"]
pieces = st.sampled_from([*WORDS, *_HARD, *_OTHERS])
gaps = st.sampled_from([" ", " ", " ", "  ", "\n", " , ", "", "\u00a0"])
long_texts = st.lists(st.tuples(pieces, gaps), max_size=60).map(
    lambda parts: "".join(piece + gap for piece, gap in parts) * 12
)


def encoded_whole(backbone, prompt: Prompt, texts: list[str]):
    with patch.object(batches, "_CHARACTERS", 10**6):
        return encode(backbone, prompt, texts)


@pytest.mark.parametrize("name", MODELS)
@given(texts=st.lists(long_texts, min_size=1, max_size=3), characters=st.sampled_from([1, 3, 8]))
@settings(max_examples=30)
def test_a_long_text_has_the_tokens_that_it_has_if_it_is_tokenized_whole(
    backbone_of, name, texts, characters
):
    backbone, prompt = backbone_of(name), prompt_of(name)
    with patch.object(batches, "_CHARACTERS", characters):  # so that some beginnings are too short
        found = encode(backbone, prompt, texts)
    expected = encoded_whole(backbone, prompt, texts)
    np.testing.assert_array_equal(found.truncated, expected.truncated)
    for own, right in zip(found.token_ids, expected.token_ids, strict=True):
        np.testing.assert_array_equal(own, right)


@pytest.mark.parametrize("name", ["minilm", "roberta"])
@given(texts=st.lists(long_texts, min_size=1, max_size=3))
@settings(max_examples=30)
def test_a_long_text_is_truncated_as_the_library_truncates_it(backbone_of, name, texts):
    backbone = backbone_of(name)
    prompt = Prompt((), ())
    found = encode(backbone, prompt, texts)
    expected = backbone.tokenizer(texts, truncation=True, max_length=backbone.max_tokens)
    backbone.tokenizer.backend_tokenizer.no_truncation()
    assert [ids.tolist() for ids in found.token_ids] == expected["input_ids"]


def _characters_read(backbone, prompt: Prompt, texts: list[str]) -> int:
    """How many characters are given to the tokenizer for texts."""
    seen = 0

    def count(of):
        def counted(tokenizer, texts, special_tokens):
            nonlocal seen
            seen += sum(map(len, texts))
            return of(tokenizer, texts, special_tokens)

        return counted

    ids, coded = count(batches.token_ids), count(batches.coded)
    with patch.object(batches, "token_ids", ids), patch.object(batches, "coded", coded):
        encode(backbone, prompt, texts)
    return seen


@pytest.mark.parametrize(
    "text",
    [
        "the film was great ",
        "这部电影很好看，",
        '{"a":1,"b":[2,"x"]},',
        "1234 5678 ",
        "good, bad. ",
    ],
)
def test_no_more_of_a_text_is_tokenized_than_the_model_takes_by_far(backbone_of, text):
    backbone = backbone_of("minilm")
    million = text * (1_000_000 // len(text))
    (encoded,) = encode(backbone, Prompt((), ()), [million]).token_ids
    assert len(encoded) == backbone.max_tokens
    assert 0 < _characters_read(backbone, Prompt((), ()), [million]) < 20 * backbone.max_tokens


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["minilm", "gpt2"])
def test_a_text_that_cannot_be_cut_for_long_is_read_whole(backbone_of, name):
    backbone, text = backbone_of(name), "a film of 7 " + "x" * 30_000 + " words"
    prompt = prompt_of(name)
    found, expected = encode(backbone, prompt, [text]), encoded_whole(backbone, prompt, [text])
    np.testing.assert_array_equal(found.token_ids[0], expected.token_ids[0])


def test_a_text_is_tokenized_once_although_it_does_not_fit(backbone_of):
    backbone = backbone_of("minilm")
    texts = [f"{i} warm and tender films " * 60 for i in range(50)]
    assert encode(backbone, Prompt((), ()), texts).truncated.all()
    assert _characters_read(backbone, Prompt((), ()), texts) == sum(map(len, texts))


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("a film", 6, "a film"),
        ("a film", 5, "a"),
        ("a film was good", 13, "a film was"),
        ("a film was , good", 13, "a film was ,"),
        ("afilmwasgood", 4, "afilmwasgood"),
        ("a 1 2 3 4 5", 5, "a 1 2"),
        ("a 123456", 5, "a"),
        ("so good, so [MASK] it", 15, "so good, so"),
        ("很好看的电影", 3, "很好看"),
        (" film", 3, " film"),
        ("", 0, ""),
    ],
)
def test_a_text_is_cut_where_its_tokenizer_takes_it_apart(backbone_of, text, size, expected):
    assert beginning(text, size, cuts_of(backbone_of("minilm").tokenizer)) == expected


def test_what_follows_a_text_does_not_join_what_is_left_of_it(backbone_of):
    cuts = cuts_of(backbone_of("gpt2").tokenizer)
    assert beginning("good 12, bad", 9, cuts, " it") == "good 12,"
    assert beginning("good 12, bad", 9, cuts, ".") == "good 12"
    assert beginning("good 12 bad", 8, cuts, "it") == "good 12"
    assert beginning("good 12 bad", 8, cuts, "0") == "good"


def test_a_tokenizer_whose_tokens_may_hold_spaces_has_texts_whole(folder_of):
    def tokenizer():
        return AutoTokenizer.from_pretrained(folder_of("gpt2"))

    assert beginning("so so good", 5, cuts_of(tokenizer())) == "so so"
    whole = tokenizer()
    whole.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False)
    assert beginning("so so good", 5, cuts_of(whole)) == "so so good"
    renamed = tokenizer()
    renamed.backend_tokenizer.normalizer = normalizers.Replace(" ", "_")
    renamed.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    assert beginning("so so good", 5, cuts_of(renamed)) == "so so good"
    spaced = tokenizer()
    spaced.add_tokens(AddedToken("so good"))
    assert beginning("so so good", 5, cuts_of(spaced)) == "so"

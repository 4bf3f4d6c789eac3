"""Of a long text only the beginning is tokenized, with the tokens that the whole text has."""

from functools import lru_cache
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from raee.model import batches
from raee.model import long_texts as module
from raee.model.batches import encode
from raee.model.long_texts import beginning
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
        ("a film", 5, "a film"),
        ("a film", 2, "a film"),
        ("good film", 5, "good"),
        ("a film was good", 13, "a film was"),
        ("a film was , good", 13, "a film was ,"),
        ("afilmwasgood", 4, "afilmwasgood"),
        ("a 1 2 3 4 5", 5, "a 1 2"),
        ("good 123456", 7, "good"),
        ("so good, so [MASK] it", 15, "so good, so"),
        ("很好看的电影", 3, "很好看"),
        (" film", 3, " film"),
        ("", 0, ""),
    ],
)
def test_a_text_is_cut_where_its_tokenizer_takes_it_apart(backbone_of, text, size, expected):
    assert beginning(backbone_of("minilm").tokenizer, text, size) == expected


def test_what_follows_a_text_does_not_join_what_is_left_of_it(backbone_of):
    tokenizer = backbone_of("gpt2").tokenizer
    assert beginning(tokenizer, "good 12, bad", 9, " it") == "good 12,"
    assert beginning(tokenizer, "good 12, bad", 9, ".") == "good 12"
    assert beginning(tokenizer, "very good 12 bad", 13, "it") == "very good 12"
    assert beginning(tokenizer, "very good 12 bad", 13, "0") == "very good"


_JOINED = r"[^\r\n\p{L}\p{N}]?\p{L}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"
_KANA = r"[\u4e00-\u9fa5\u3040-\u30ff]+|[^\s\u4e00-\u9fa5\u3040-\u30ff]+|\s+"
_FROM_RIGHT = r"\p{N}{1,3}(?=(?:\p{N}{3})*\b)|[^\s\p{N}]+|\s+"
_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)


def _split(pattern: str):
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


KINDS = {
    "contractions": (None, _split(_JOINED)),
    "kana": (None, _split(_KANA)),
    "digits from the right": (None, _split(_FROM_RIGHT)),
    "accents apart": (normalizers.NFD(), _bytes),
    "compatible": (normalizers.NFKC(), _bytes),
    "ideographs apart": (normalizers.BertNormalizer(), _bytes),
    "lower case, marks": (normalizers.Lowercase(), pre_tokenizers.Punctuation()),
    "spaces alone": (normalizers.Replace(" ", "_"), pre_tokenizers.Split(" ", "isolated")),
    "digits": (None, pre_tokenizers.Sequence([pre_tokenizers.Digits(True), _bytes])),
    "words": (None, pre_tokenizers.Whitespace()),
    "nothing": (None, None),
}
"""Normalizers and pre-tokenizers, as those of published models or harder."""

_JAPANESE = ["私はこの映画を見ました。", "人々", "㐂好"]
_RARE = [
    "é'",
    "\ufe70|",
    "\uff9e",
    "\u0130x",
    "só good",
    "so\ngood",
    "film5",
    "12345kg",
    "shouldn't",
]
_hard = st.sampled_from([*_HARD, *_OTHERS, *_JAPANESE, *_RARE])


@pytest.mark.parametrize("kind", KINDS)
@given(parts=st.lists(st.tuples(_hard, gaps), min_size=4, max_size=40), size=st.integers(4, 80))
@settings(max_examples=60)
def test_of_any_kind_of_tokenizer_a_beginning_has_the_tokens_of_the_whole(
    folder_of, kind, parts, size
):
    tokenizer = _tokenizer_of(folder_of("gpt2"), kind)
    text = "".join(piece + gap for piece, gap in parts)
    found, whole = (
        tokenizer(t, add_special_tokens=False)["input_ids"]
        for t in (beginning(tokenizer, text, size), text)
    )
    assert whole[: len(found)] == found


@lru_cache
def _tokenizer_of(folder: str, kind: str):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    backend.normalizer, backend.pre_tokenizer = KINDS[kind]
    tokenizer.add_tokens([AddedToken("so good"), AddedToken("film", single_word=True)])
    return tokenizer


def test_a_tokenizer_of_which_a_token_holds_a_space_is_not_cut_in_it(folder_of):
    tokenizer = AutoTokenizer.from_pretrained(folder_of("gpt2"))
    assert beginning(tokenizer, "it is so so good", 11) == "it is so so"
    tokenizer.add_tokens(AddedToken("so good"))
    assert beginning(tokenizer, "it is so so good", 11) == "it is so"


def test_a_tokenizer_with_many_tokens_of_its_own_is_not_asked_without_end(folder_of):
    tokenizer = AutoTokenizer.from_pretrained(folder_of("gpt2"))
    tokenizer.add_tokens([AddedToken(f"<|reserved_{n}|>") for n in range(300)])
    text = "<|reserved_7|>" * 10_000
    with patch.object(module, "_part", wraps=module._part) as asked:
        beginning(tokenizer, text, len(text) - 5)
    assert asked.call_count < 120

"""Token ids are the library's, whichever tokenizer gives them."""

import logging
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raee.model import coding
from raee.model.coding import coded, token_ids
from raee.model.loading import load_tokenizer
from tests.texts import WORDS

_KINDS = ("bert", "roberta", "xlm-roberta", "llama", "gpt2", "t5", "minilm")

_PIECES = st.one_of(
    st.sampled_from([*WORDS, "[MASK]", "</s>", "don't", " 's", "U.S.A.", "  ", "\t'm", "\x7f"]),
    st.text(string.printable, max_size=6),
    st.text(max_size=4),
)
_TEXTS = st.lists(st.lists(_PIECES, max_size=8).map(" ".join), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def tokenizer_of(spec_of):
    found = {name: load_tokenizer(spec_of(name)) for name in _KINDS}
    return found.__getitem__


def test_of_no_text_there_are_none(tokenizer_of):
    assert token_ids(tokenizer_of("bert"), [], True) == []


@pytest.mark.parametrize("name", _KINDS)
@given(texts=_TEXTS, special_tokens=st.booleans())
def test_they_are_the_librarys_whatever_the_text(tokenizer_of, name, texts, special_tokens):
    tokenizer = tokenizer_of(name)
    right = coded(tokenizer, texts, special_tokens)["input_ids"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coding, "_MANY", 0)
        found = token_ids(tokenizer, texts, special_tokens)
    assert [ids.tolist() for ids in found] == right
    assert all(ids.dtype == np.int32 for ids in found)


def test_plain_texts_go_to_tokie_and_others_to_the_library(tokenizer_of, monkeypatch):
    pytest.importorskip("tokie")
    tokenizer = tokenizer_of("minilm")
    monkeypatch.setattr(coding, "_MANY", 0)
    token_ids(tokenizer, ["a"] * 20, True)
    fastest, other = coding._known[tokenizer].faster
    assert (fastest.name, other.name) == ("tokie", "encode_batch_fast")
    assert fastest.suits("It's 3 o'clock, [MASK]!")
    for text in ("caf\u00e9", "a\tb", "a\x7fb", "\u4e2d"):
        assert not fastest.suits(text)


def test_few_texts_load_no_other_tokenizer(spec_of):
    tokenizer = load_tokenizer(spec_of("minilm"))
    token_ids(tokenizer, ["a b"] * 1_000, True)
    assert [each.name for each in coding._known[tokenizer].faster] == ["encode_batch_fast"]


def test_a_tokenizer_that_differs_is_not_used_and_not_asked_again(spec_of, caplog):
    caplog.set_level(logging.WARNING)
    tokenizer = load_tokenizer(spec_of("minilm"))
    texts = [f"a {word}" for word in WORDS] * 3
    right = token_ids(tokenizer, texts, True)
    asked = []

    def wrong(some, special_tokens):
        asked.append(len(some))
        return [np.zeros(3, np.int32) for _ in some]

    known = coding._known[tokenizer]
    known.faster.insert(0, coding._Faster("another", lambda text: True, wrong))
    for _ in range(2):
        found = token_ids(tokenizer, texts, True)
        assert [ids.tolist() for ids in found] == [ids.tolist() for ids in right]
    assert asked == [len(texts)]
    (said,) = caplog.records
    assert said.message == "another gives other tokens than the model's tokenizer: it is not used"

"""Of a long text only the beginning is tokenized, with the tokens that the whole text has."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, pre_tokenizers
from transformers import AutoTokenizer

from raee.model import batches
from raee.model.batches import encode
from raee.model.long_texts import beginning, splits_at_spaces
from raee.model.prompts import Prompt
from tests.raee.databases import prompt_of
from tests.texts import WORDS

MODELS = ("bert", "roberta", "albert", "minilm", "llama", "gpt2", "t5")
"""One of each kind of tokenizer, and a trained one."""

pieces = st.sampled_from(
    [*WORDS, "Straße", "ÉTÉ", "e\u0301", "好看", "42", "...", "ΟΔΟΣ", "\U0001f600"]
)
gaps = st.sampled_from([" ", " ", " ", "  ", "\n", " , ", "", "\u00a0"])
long_texts = st.lists(st.tuples(pieces, gaps), max_size=60).map(
    lambda parts: "".join(piece + gap for piece, gap in parts) * 12
)


def encoded_whole(backbone, prompt: Prompt, texts: list[str]):
    with patch.object(batches, "splits_at_spaces", lambda tokenizer: False):
        return encode(backbone, prompt, texts)


@pytest.mark.parametrize("name", MODELS)
@given(texts=st.lists(long_texts, min_size=1, max_size=3), characters=st.sampled_from([1, 3, 8]))
@settings(max_examples=30)
def test_a_long_text_has_the_tokens_that_it_has_if_it_is_tokenized_whole(
    backbone_of, name, texts, characters
):
    backbone, prompt = backbone_of(name), prompt_of(name)
    assert splits_at_spaces(backbone.tokenizer)
    with patch.object(batches, "_CHARACTERS", characters):  # so that some beginnings are too short
        found = encode(backbone, prompt, texts)
    expected = encoded_whole(backbone, prompt, texts)
    np.testing.assert_array_equal(found.truncated, expected.truncated)
    for own, right in zip(found.token_ids, expected.token_ids, strict=True):
        np.testing.assert_array_equal(own, right)


def test_no_more_of_a_text_is_tokenized_than_the_model_takes_by_far(backbone_of):
    backbone, seen = backbone_of("minilm"), []

    def count(of):
        def counted(tokenizer, texts, special_tokens):
            seen.append(sum(map(len, texts)))
            return of(tokenizer, texts, special_tokens)

        return counted

    ids, coded = count(batches.token_ids), count(batches.coded)
    with patch.object(batches, "token_ids", ids), patch.object(batches, "coded", coded):
        encoded = encode(backbone, Prompt((), ()), ["the film was great " * 50_000])
    assert encoded.truncated[0]
    assert len(encoded.token_ids[0]) == backbone.max_tokens
    assert 0 < sum(seen) < 20 * backbone.max_tokens


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("a film", 6, "a film"),
        ("a film", 5, "a"),
        ("a film was good", 13, "a film was"),
        ("a film was , good", 13, "a film"),
        ("afilmwasgood", 4, "afilmwasgood"),
        ("a 1 2 3 4 5", 5, "a 1 2 3 4 5"),
        (" film", 3, " film"),
        ("", 0, ""),
    ],
)
def test_a_text_is_cut_at_a_space_between_two_letters(text, size, expected):
    assert beginning(text, size) == expected


def test_a_tokenizer_whose_tokens_may_hold_spaces_has_texts_whole(folder_of):
    def tokenizer():
        return AutoTokenizer.from_pretrained(folder_of("gpt2"))

    assert splits_at_spaces(tokenizer())
    whole = tokenizer()
    whole.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False)
    assert not splits_at_spaces(whole)
    spaced = tokenizer()
    spaced.add_tokens(AddedToken("so so"))
    assert not splits_at_spaces(spaced)

"""Encoding keeps the template whole whatever the text is, and batches keep to their budget."""

import numpy as np
import pytest

from raee.model.batches import Batches, check_room, encode
from raee.model.prompts import Prompt
from tests.raee.errors import refused

AFTER = Prompt((), (), "{text} It was {mask} .")
BEFORE = Prompt((), (), "{mask} : {text} !")

MODELS = ("bert", "roberta", "albert", "minilm-mlm")
"""One of each kind of tokenizer, and a trained one."""

TEXTS = {
    "empty": "",
    "space": " ",
    "lone newlines": "\n\n\r\n\t",
    "newline inside": "good\nbad",
    "nul": "good\x00bad\x00",
    "only nul": "\x00",
    "control characters": "\x01\x1b[0m\x7f",
    "emoji": "\U0001f600\U0001f469‍\U0001f469‍\U0001f467 \U0001f1eb\U0001f1f7",
    "right to left": "\u202bشريط سينمائي רע\u202c good",
    "combining": "e\u0301\u0323 ﷺ ǆ İ ß",
    "chinese": "好看的电影",
    "replacement and private": "\ufffd\ue000\uffff",
    "braces": "{text} {mask} {} {0} %s",
}

LONG = {
    "words": "the film was great " * 2_500,
    "one word": "great" * 10_000,
    "emoji": "\U0001f600\U0001f469‍\U0001f469‍\U0001f467" * 500,
    "accents": "é" * 300 + " ünïcödé" * 1_000,
    "right to left": "شريط سينمائي " * 1_000,
    "newlines": "\n" * 10_000 + "the film\n" * 1_000,
    "nul": "\x00" * 10_000 + "a\x00 " * 1_000,
}


def _special(backbone, text: str = "") -> str:
    return text.replace("MASK", backbone.tokenizer.mask_token)


def _assert_framed(backbone, prompt, row, place) -> None:
    """The row is [start, before, .., after, end] with the mask where the template has it."""
    tokenizer = backbone.tokenizer
    empty = tokenizer(prompt.render("", tokenizer.mask_token))["input_ids"]
    mask = tokenizer.mask_token_id
    assert row[place] == mask
    if prompt is AFTER:
        tail = empty[empty.index(mask) :]
        assert row[place:].tolist() == tail
    else:
        head = empty[: empty.index(mask) + 1]
        assert row[: place + 1].tolist() == head
    assert row[0] == tokenizer.cls_token_id
    assert row[-1] == tokenizer.sep_token_id


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("name", MODELS)
def test_any_text_stands_whole_in_its_template(backbone_of, name, text):
    backbone = backbone_of(name)
    for prompt in (AFTER, BEFORE):
        encoded = encode(backbone, prompt, [text])
        (row,), (place,) = encoded.token_ids, encoded.answer_positions
        _assert_framed(backbone, prompt, row, place)
        assert not encoded.truncated[0]
        rendered = prompt.render(text, backbone.tokenizer.mask_token)
        assert row.tolist() == backbone.tokenizer(rendered)["input_ids"]


@pytest.mark.parametrize("text", ["MASK", "good MASK bad MASK", "MASK . It was MASK ."])
@pytest.mark.parametrize("name", MODELS)
def test_the_templates_mask_is_read_and_not_the_texts(backbone_of, name, text):
    backbone = backbone_of(name)
    text = _special(backbone, text)
    masks = text.count(backbone.tokenizer.mask_token) + 1
    for prompt in (AFTER, BEFORE):
        encoded = encode(backbone, prompt, [text])
        (row,), (place,) = encoded.token_ids, encoded.answer_positions
        assert (row == backbone.tokenizer.mask_token_id).sum() == masks
        _assert_framed(backbone, prompt, row, place)


@pytest.mark.parametrize("text", [*LONG.values(), "MASK " * 1_000], ids=[*LONG, "masks"])
@pytest.mark.parametrize("name", MODELS)
def test_a_long_text_loses_its_end_and_the_template_nothing(backbone_of, name, text):
    backbone = backbone_of(name)
    text = _special(backbone, text)
    for prompt in (AFTER, BEFORE):
        encoded = encode(backbone, prompt, ["great", text])
        row, place = encoded.token_ids[1], encoded.answer_positions[1]
        _assert_framed(backbone, prompt, row, place)
        whole = backbone.tokenizer(prompt.render(text, backbone.tokenizer.mask_token))["input_ids"]
        assert encoded.truncated.tolist() == [False, len(whole) > backbone.max_tokens]
        if not encoded.truncated[1]:
            continue
        assert len(row) <= backbone.max_tokens
        # What is left is the text's start, and nearly all that fits.
        assert len(row) > backbone.max_tokens - 16
        start = len(row) - 12
        assert row[:start].tolist() == whole[:start]


def test_a_cut_text_runs_through_a_model_with_offset_positions(backbone_of):
    backbone = backbone_of("roberta")
    encoded = encode(backbone, AFTER, ["great " * 200])
    assert len(encoded.token_ids[0]) == backbone.max_tokens
    (batch,) = Batches(backbone, encoded)
    assert backbone.model(**batch.inputs).logits.isfinite().all()


def test_a_template_that_fills_the_model_alone_is_refused(backbone_of):
    prompt = Prompt((), (), "{text}" + " great" * 100 + " {mask}")
    with refused("alone is 103 tokens; the model takes 64"):
        encode(backbone_of("bert"), prompt, ["a text"])


def test_a_template_that_leaves_a_text_no_room_is_refused(backbone_of):
    backbone = backbone_of("bert-encoder")
    check_room(backbone, Prompt((), (), "{text}" + " great" * 61))
    with refused("alone is 64 tokens; the model takes 64"):
        check_room(backbone, Prompt((), (), "{text}" + " great" * 62))


def test_a_prompt_without_a_mask_has_no_mask_position(backbone_of):
    encoded = encode(backbone_of("bert-encoder"), Prompt((), ()), ["good", "[MASK]"])
    assert encoded.answer_positions.tolist() == [-1, -1]


@pytest.mark.parametrize("budget", [1, 40, 200, 10_000])
def test_batches_hold_every_row_once_within_the_budget(backbone_of, budget):
    backbone = backbone_of("bert")
    texts = ["great " * (7 * i % 23) for i in range(40)]
    encoded = encode(backbone, AFTER, texts)
    batches = list(Batches(backbone, encoded, budget=budget))
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows) == list(range(40))
    assert (np.diff(encoded.lengths[rows]) <= 0).all()
    for batch in batches:
        ids, attention = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        assert ids.numel() <= max(budget, encoded.lengths[batch.rows[0]])
        assert ids.shape == attention.shape == (len(batch.rows), encoded.lengths[batch.rows[0]])
        for i, row in enumerate(batch.rows):
            length = encoded.lengths[row]
            assert ids[i, :length].tolist() == encoded.token_ids[row].tolist()
            assert (ids[i, length:] == backbone.tokenizer.pad_token_id).all()
            assert attention[i].sum() == attention[i, :length].sum() == length
            assert ids[i, batch.answer_positions[i]] == backbone.tokenizer.mask_token_id


def test_of_rows_of_one_length_the_deepest_come_first(backbone_of):
    backbone = backbone_of("bert")
    encoded = encode(backbone, AFTER, ["good"] * 6 + ["good bad"] * 2)
    plan = np.array([3, 1, 2, 0, 2, 1, 1, 0])
    rows = np.concatenate([b.rows for b in Batches(backbone, encoded, depths=plan, budget=20)])
    assert rows.tolist() == [6, 7, 0, 2, 4, 1, 5, 3]

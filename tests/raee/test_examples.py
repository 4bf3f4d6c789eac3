"""Rows that are shown before a text are picked once, by their texts, and are no rows any more."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raee.examples import EXAMPLE_CHARACTERS, Candidates, rows_left, text_key
from raee.model.prompts import Prompt

LABELS = ("a", "b", "c")


def prompt(examples: int, shown=()) -> Prompt:
    return Prompt(LABELS, LABELS, "{text}", examples=examples, shown=shown)


def picked(texts, labels, examples=2, before=None, fit=lambda text: True, batch=7):
    candidates = Candidates(examples, before)
    for start in range(0, len(texts), batch):
        candidates.add(texts[start : start + batch], labels[start : start + batch])
    return candidates.pick(LABELS, fit)


def rows(count: int, suffix: str = ""):
    return [f"text {i}{suffix}" for i in range(count)], [LABELS[i % 3] for i in range(count)]


def test_as_many_of_each_label_are_picked_as_are_asked_for_and_labels_take_turns():
    texts, labels = rows(300)
    for examples in (1, 2, 5):
        found = picked(texts, labels, examples)
        assert Counter(example.label for example in found) == dict.fromkeys(LABELS, examples)
        for start in range(0, len(found), 3):
            assert {example.label for example in found[start : start + 3]} == {*LABELS}
        assert all(labels[texts.index(example.text)] == example.label for example in found)
    assert picked(texts, labels, 0) == ()


def test_they_do_not_depend_on_the_order_of_the_rows_or_of_their_parts():
    texts, labels = rows(3_000)
    found = picked(texts, labels)
    assert picked(texts[::-1], labels[::-1], batch=1_000) == found
    assert [text_key(example.text) for example in found] == [example.key for example in found]


def test_they_are_drawn_evenly_over_the_corpus():
    texts, labels = rows(3_000)
    where = [texts.index(example.text) for example in picked(texts, labels, 100)]
    assert 1_300 < sum(where) / len(where) < 1_700
    assert min(where) < 100
    assert max(where) > 2_900


def test_short_texts_are_preferred_and_long_ones_lose_their_ends():
    long = "word " * EXAMPLE_CHARACTERS
    texts = [*(f"{long}{i}" for i in range(90)), *(f"short {i}" for i in range(6))]
    labels = [LABELS[i % 3] for i in range(96)]
    found = picked(texts, labels, 2)
    assert all(example.text.startswith("short") for example in found)
    (first, *_) = picked(texts[:90], labels[:90], 2)
    assert len(first.text) <= EXAMPLE_CHARACTERS
    assert first.text.endswith(" word")
    assert first.key in {text_key(text) for text in texts}


def test_no_text_is_shown_twice_and_none_that_cannot_be_shown():
    texts = ["The same", "the  SAME", *(f"text {i}" for i in range(40))]
    labels = ["a", "b", *(LABELS[i % 3] for i in range(40))]
    found = picked(texts, labels, 6, fit=lambda text: not text.endswith("7"))
    assert len({example.key for example in found}) == len(found) == 18
    assert not any(example.text.endswith("7") for example in found)


def test_a_label_keeps_half_of_its_texts_for_the_database():
    texts = ["one", "two", "two", "three", "four", "five"]
    found = picked(texts, ["a", "b", "b", "c", "c", "c"], 3)
    assert [example.label for example in found] == ["c"]


def test_rows_with_a_shown_text_are_left_out_however_it_is_written():
    shown = picked(["One  film", "x", "y"], ["a", "a", "a"], 1)
    (example,) = shown
    texts = [example.text, f" {example.text.upper()}\n", "another"]
    assert rows_left(prompt(1, shown), texts) == [False, False, True]
    assert text_key("ÜBER ﬁlm\u3000") == text_key("u\u0308ber film")
    assert rows_left(prompt(0), texts) == [True, True, True]


class TestOfTheParent:
    def test_are_kept_while_they_are_in_the_corpus(self):
        texts, labels = rows(30)
        before = prompt(2, picked(texts, labels))
        more, more_labels = rows(300, " more")
        grown = (texts + more, labels + more_labels)
        assert picked(*grown, before=before) == before.shown
        assert picked(*grown) != before.shown

    @pytest.mark.parametrize("change", ["left", "relabelled", "more are asked for", "a new label"])
    def test_are_picked_anew_if(self, change):
        texts, labels = rows(30)
        shown = picked(texts, labels, 2)
        gone = texts.index(shown[0].text)
        examples = 2
        if change == "left":
            texts, labels = texts[:gone] + texts[gone + 1 :], labels[:gone] + labels[gone + 1 :]
        elif change == "relabelled":
            labels[gone] = "b" if labels[gone] == "a" else "a"
        elif change == "more are asked for":
            examples = 3
        else:
            shown = tuple(example for example in shown if example.label != "c")
        found = picked(texts, labels, examples, prompt(2, shown))
        assert found == picked(texts, labels, examples)
        assert found != shown


@given(st.text())
def test_a_texts_key_is_that_of_all_its_writings(text):
    for other in (f" {text}\n", text.replace(" ", "\t ")):
        assert text_key(other) == text_key(text)

"""Texts and labels come as Python has them, and what is none is refused with its row."""

import numpy as np
import polars as pl
import pytest

from raee.columns import classes_of, labels_of, names_of, texts_of
from tests.raee.errors import refused

TEXTS = ["a", "b", "ünïcödé"]


@pytest.mark.parametrize(
    "values",
    [TEXTS, tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object), pl.Series(TEXTS), iter(TEXTS)],
    ids=["list", "tuple", "array", "object array", "series", "iterator"],
)
def test_texts_are_a_list_of_strings_whatever_they_came_in(values):
    found = texts_of(values)
    assert found == TEXTS
    assert {type(text) for text in found} == {str}


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([], "there are no texts"),
        (["a", None], r"texts\[1\] is None; a text is a string"),
        (["a", float("nan")], r"texts\[1\] is nan \(float\)"),
        ([b"a"], r"texts\[0\] is b'a' \(bytes\)"),
        (["a", "\ud800"], r"texts\[1\], '.ud800', is not valid Unicode"),
        ("a text", "give a list, not one string"),
        (3, r"texts are 3 \(int\)"),
        ({"a", "b"}, "a set is no column"),
        ({"text": ["a"]}, "a dict is no column"),
        (np.array([["a"], ["b"]]), "give one column"),
        (pl.DataFrame({"text": ["a"]}), "give one column"),
    ],
)
def test_what_is_no_column_of_texts_is_refused(values, match):
    with refused(match):
        texts_of(values)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["x", "y"], ["x", "y"]),
        (np.array(["x", "y"]), ["x", "y"]),
        (pl.Series(["x", "y"], dtype=pl.Categorical), ["x", "y"]),
        ([3, -10], ["3", "-10"]),
        (np.array([3, 1], np.uint8), ["3", "1"]),
        (pl.Series([3, 1]), ["3", "1"]),
        ([np.int64(3), 1], ["3", "1"]),
        ([True, False], ["True", "False"]),
        (np.array([True, False]), ["True", "False"]),
    ],
)
def test_labels_are_strings_whole_numbers_or_truth_values(values, names):
    found = labels_of(values, 2)
    assert names_of(found) == names
    assert found.dtype.kind == ("i" if names[0] == "3" else np.array(list(values)).dtype.kind)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([], "there are no labels"),
        (["x"], "there are 2 texts and 1 labels"),
        (["x", None], r"labels\[1\] is None; a label is"),
        (["x", " "], r"labels\[1\] is ' '; a label is a string \(not blank"),
        ([5, 2**63], r"labels\[1\] is 9223372036854775808 \(int\); .* a whole number \(64 bits\)"),
        ([1, 0.5], r"labels\[1\] is 0.5 \(float\)"),
        (["x", 1], r"labels\[0\] is a string, labels\[1\] is a whole number"),
        ([1, True], r"labels\[1\] is a truth value"),
    ],
)
def test_what_are_no_labels_is_refused(values, match):
    with refused(match):
        labels_of(values, 2)


def test_classes_are_the_labels_in_scikit_learns_order():
    assert classes_of(np.array([10, 9, 10]), None).tolist() == [9, 10]
    assert classes_of(np.array(["10", "9"]), None).tolist() == ["10", "9"]


def test_labels_of_the_prompt_are_classes_though_no_row_has_them():
    assert classes_of(np.array(["b", "c"]), ("a", "b", "longer", "c")).tolist() == [
        *("a", "b", "c", "longer")
    ]
    assert classes_of(np.array([2, 0]), ("0", "1", "2")).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "declared", "match"),
    [
        ([1, 1], None, "all labels are 1; a classifier needs two"),
        ([0, 1], ("0", "1", "two"), "the prompt names two, which no row has, and labels are 0"),
        ([False, True], ("False", "True", "x"), "the prompt names x, which no row has"),
    ],
)
def test_classes_that_cannot_be_are_refused(labels, declared, match):
    with refused(match):
        classes_of(np.array(labels), declared)

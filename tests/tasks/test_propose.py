"""Which column is what, by what columns hold."""

from collections import Counter

import pytest

from storage.columns import Column, Look, Usable
from storage.corpus import CorpusSpec, Span
from storage.corpus_files import CorpusFile
from tasks.propose import propose_id, propose_label, propose_text, warnings
from tests.raee.errors import refused


def _column(name, different, characters=10.0, values=100, **changed):
    none = dict.fromkeys(("words", "numbers", "whole", "times", "broken"), 0.0)
    shares = {"strings": 1.0} | none | changed
    return Column(name, values, different, characters, **shares)


def _look(*columns, is_complete=True):
    spans = (Span(CorpusFile("a.csv", "a.csv"), 0, 100),)
    return Look(CorpusSpec(uri="a.csv"), spans, is_complete, columns, ())


def _names(proposal):
    return [column.name for column in proposal.candidates]


class TestText:
    def test_is_the_longest_that_varies(self):
        long = _column("same", 3, 900.0, words=1.0)
        look = _look(long, _column("title", 90, 30.0, words=1.0), _column("b", 99, 70.0, words=1.0))
        assert (_names(propose_text(look)), propose_text(look).is_clear) == (["b"], True)

    def test_has_words_if_any_column_has(self):
        look = _look(_column("url", 100, 90.0), _column("body", 100, 40.0, words=0.9))
        assert _names(propose_text(look)) == ["body"]

    def test_needs_no_spaces_between_words(self):
        look = _look(_column("本文", 100, 40.0), _column("id", 100, 5.0))
        assert _names(propose_text(look)) == ["本文"]

    def test_is_no_number_and_no_other_type(self):
        look = _look(_column("n", 100, numbers=1.0, whole=1.0), _column("time", 100, strings=0.0))
        assert propose_text(look).candidates == ()

    def test_is_not_clear_if_another_is_nearly_as_long(self):
        look = _look(_column("a", 100, 50.0, words=1.0), _column("b", 100, 70.0, words=1.0))
        assert (_names(propose_text(look)), propose_text(look).is_clear) == (["b", "a"], False)


class TestLabel:
    def test_has_few_values_that_are_not_all_the_same(self):
        look = _look(_column("text", 100), _column("same", 1), _column("kind", 5), _column("n", 90))
        assert _names(propose_label(look, "text")) == ["kind"]

    def test_is_not_mostly_missing(self):
        look = _look(_column("kind", 5), _column("note", 2, values=20))
        assert _names(propose_label(look, "text")) == ["kind"]

    def test_is_no_date(self):
        look = _look(_column("kind", 5), _column("day", 3, times=1.0))
        assert _names(propose_label(look, "text")) == ["kind"]

    def test_of_few_rows_repeats_at_least(self):
        look = _look(_column("kind", 3, values=8), _column("n", 8, values=8))
        look = Look(look.spec, (Span(look.spans[0].file, 0, 8),), True, look.columns, ())
        assert _names(propose_label(look, "text")) == ["kind"]


class TestId:
    def test_has_a_value_of_its_own_in_every_row(self):
        look = _look(_column("key", 100), _column("most", 99), _column("some", 90, values=90))
        assert _names(propose_id(look, "text", "label")) == ["key"]

    def test_is_neither_words_nor_a_fraction(self):
        look = _look(_column("title", 100, words=1.0), _column("price", 100, numbers=1.0))
        assert _names(propose_id(look, "text", "label")) == []

    def test_is_no_date(self):
        look = _look(_column("created", 100, times=1.0), _column("key", 100))
        assert _names(propose_id(look, "text", "label")) == ["key"]

    @pytest.mark.parametrize("name", ["id", "ID", "row_id", "uuid"])
    def test_of_several_is_the_one_with_the_name(self, name):
        look = _look(_column("when", 100), _column(name, 100, numbers=1.0, whole=1.0))
        proposal = propose_id(look, "text", "label")
        assert (proposal.candidates[0].name, proposal.is_clear) == (name, True)

    def test_of_several_without_the_name_is_not_clear(self):
        look = _look(_column("when", 100), _column("key", 100))
        assert not propose_id(look, "text", "label").is_clear


class TestWarnings:
    def test_single_labels_are_unknown_if_not_all_rows_were_seen(self):
        look = _look(_column("text", 100), is_complete=False)
        assert warnings(look, look.spec, Usable(Counter(a=99, b=1), Counter())) == []

    def test_few_rejects_do_not_stop_a_build(self):
        look = _look(_column("text", 100))
        (line,) = warnings(look, look.spec, Usable(Counter(a=50, b=49), Counter({"no label": 1})))
        assert line == "1 of 100 rows cannot be used (no label: 1)"

    def test_no_usable_row_is_refused(self):
        look = _look(_column("text", 100))
        with refused("no row can be used"):
            warnings(look, look.spec, Usable(Counter(), Counter(x=100)))

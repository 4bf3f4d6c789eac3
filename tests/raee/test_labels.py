import logging

from raee.labels import in_order, warn_of_single_rows


def test_labels_with_a_single_row_are_named_with_what_that_means(caplog):
    warn_of_single_rows({"b": 1, "many": 7, "a": 1})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "2 of 3 labels have a single row: a, b; without that row no vote and no probe can answer "
        "such a label, so what figures say of it is worth nothing; give it more rows"
    )


def test_of_many_the_first_are_named_and_long_names_cut(caplog):
    warn_of_single_rows({f"{n:04d} {'x' * 1_000}": 1 for n in range(4_000)})
    (record,) = caplog.records
    assert "and 3,990 more; without" in record.getMessage()
    assert len(record.getMessage()) < 1_100


def test_where_every_label_has_more_nothing_is_said(caplog):
    warn_of_single_rows({"a": 2, "b": 3})
    assert caplog.records == []


def test_labels_are_in_the_order_of_their_names_and_numbers_in_that_of_their_values():
    assert in_order(["b", "a", "10"]) == ["10", "a", "b"]
    assert in_order(["10", "9", "1"]) == ["1", "9", "10"]

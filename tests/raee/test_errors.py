import pytest

from raee.errors import clauses, cut, listed


@pytest.mark.parametrize("value", ["", "a", "x" * 80, "grün 😀", 7])
def test_what_is_short_is_said_whole(value):
    assert cut(value) == str(value)


def test_what_is_long_is_cut_and_says_so():
    assert cut("x" * 81) == "x" * 78 + ".."
    assert cut("x" * 10_000_000, 10) == "x" * 8 + ".."


def test_what_has_lines_is_said_on_one():
    assert cut("a\nb\r\n\tc\u2028d") == "a b c d"


def test_what_is_no_unicode_is_said_by_its_number():
    assert cut("caf\udce9") == "caf\\udce9"
    assert listed(["\ud800", "b"]) == "\\ud800, b"


def test_few_values_are_all_listed():
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed(str(n) for n in range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert listed([]) == "none"


def test_of_many_values_the_first_are_listed_and_the_others_counted():
    assert listed(range(11)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1 more"
    assert listed(range(4_000)).endswith(", 9 and 3,990 more")
    assert listed("abcd", most=2) == "a, b and 2 more"


def test_each_of_the_listed_is_cut():
    assert listed(["x" * 1_000, "y"]) == "x" * 78 + ".., y"
    assert len(listed(["x" * 1_000] * 1_000)) < 900


def test_of_many_clauses_the_first_are_said_whole():
    said = [f"entries/part-{n:05d}.parquet {'x' * 100}" for n in range(12)]
    assert clauses(said[:2]) == "; ".join(said[:2])
    assert clauses(said) == "; ".join(said[:10]) + "; and 2 more"
    assert clauses([]) == ""

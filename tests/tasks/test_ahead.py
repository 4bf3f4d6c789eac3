"""What is made ahead of a shard's turn."""

import threading

import pytest

from tasks.about import _about, about
from tasks.ahead import Ahead


def test_what_was_begun_is_taken_and_made_once():
    made = []
    ahead = Ahead(lambda number: made.append(number) or 10 * number)
    assert ahead.take(0) == 0
    ahead.begin(1)
    assert ahead.take(1) == 10
    assert made == [0, 1]


def test_it_is_made_while_something_else_runs():
    begun, go_on = threading.Event(), threading.Event()

    def make(number):
        begun.set()
        assert go_on.wait(10)
        return threading.current_thread().name

    ahead = Ahead(make)
    ahead.begin(1)
    assert begun.wait(10)
    go_on.set()
    assert ahead.take(1).startswith("raee-ahead")


def test_a_try_that_is_tried_again_leaves_what_was_begun_for_the_next_shard():
    made = []
    ahead = Ahead(lambda number: made.append(number) or number)
    for _ in range(2):
        assert ahead.take(1) == 1
        ahead.begin(2)
    assert ahead.take(2) == 2
    assert sorted(made) == [1, 1, 2]


def test_what_was_dropped_is_made_anew_and_nobody_waits_for_it():
    go_on = threading.Event()

    def make(number):
        if number == 1 and threading.current_thread().name == "raee-ahead":
            assert go_on.wait(10)
        return number

    ahead = Ahead(make)
    ahead.begin(1)
    ahead.drop()
    assert ahead.take(1) == 1
    ahead.begin(2)
    assert ahead.take(2) == 2
    go_on.set()


def test_one_thread_makes_all():
    ahead = Ahead(lambda number: threading.get_ident())
    makers = set()
    for number in range(5):
        ahead.begin(number)
        makers.add(ahead.take(number))
    assert len(makers) == 1
    assert threading.get_ident() not in makers


def test_an_error_comes_when_it_is_asked_for_and_the_next_try_makes_it_anew():
    tries = []

    def make(number):
        tries.append(number)
        if len(tries) == 1:
            raise OSError("no answer")
        return number

    ahead = Ahead(make)
    ahead.begin(3)
    with pytest.raises(OSError, match="no answer"):
        ahead.take(3)
    assert ahead.take(3) == 3
    assert tries == [3, 3]


def test_its_log_lines_are_about_what_they_were_about_where_it_was_begun():
    ahead = Ahead(lambda number: _about.get())
    with about("demo", "v1", 4):
        ahead.begin(5)
    assert ahead.take(5) == "demo@v1 shard 4"

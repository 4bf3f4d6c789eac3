"""A thread for what goes on beside a walk."""

import subprocess
import sys
import threading

import pytest

from tasks.about import _about, about
from tasks.background import Background


def test_things_are_done_one_after_the_other_in_one_thread_of_its_own():
    background, done = Background("beside"), []

    def work(number):
        done.append(number)
        return threading.current_thread()

    threads = [f.result(10) for f in [background.do(lambda n=n: work(n)) for n in range(50)]]
    assert done == [*range(50)]
    assert len({thread.ident for thread in threads}) == 1
    assert threads[0] is not threading.current_thread()
    assert (threads[0].name, threads[0].daemon) == ("beside", True)


def test_an_error_comes_to_who_asks_for_the_result_and_the_thread_goes_on():
    background = Background("beside")
    failed, done = background.do(lambda: 1 / 0), background.do(lambda: 1)
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    assert done.result(10) == 1


def test_nobody_waits_behind_what_was_left_and_what_it_has_not_begun_is_not_done():
    background, done = Background("beside"), []
    begun, go_on = threading.Event(), threading.Event()

    def wait():
        begun.set()
        return go_on.wait(30)

    slow, never = background.do(wait), background.do(lambda: done.append(1))
    assert begun.wait(10)
    background.leave()
    assert background.do(lambda: 1).result(10) == 1
    go_on.set()
    assert slow.result(10)
    assert not never.done()
    assert not done


def test_its_log_lines_are_about_what_they_were_about_where_it_was_asked():
    background = Background("beside")
    with about("demo", "v1", 4):
        found = background.do(_about.get)
    assert found.result(10) == "demo@v1 shard 4"


def test_a_command_that_is_interrupted_does_not_wait_for_it():
    slow = (
        "import time; from tasks.background import Background; "
        "Background('beside').do(lambda: time.sleep(60)); raise KeyboardInterrupt"
    )
    done = subprocess.run([sys.executable, "-c", slow], capture_output=True, timeout=30)
    assert done.returncode != 0
    assert b"KeyboardInterrupt" in done.stderr

"""`make benchmark-growth` and `make benchmark-speed`: corpora, ratios and what is said of them."""

import os
import subprocess
import sys
import time

import pytest

from benchmarks import growth
from benchmarks.speed import FULL, LOOP, NEAR, TUNED, sizes_of_chunks, speed_table


def _run(seconds, stages=0.0, command=0, server=None):
    memory = {"command": command, "server": server}
    return {"seconds": seconds, "stages": {"read": stages}, "kilobytes": memory}


def _lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_texts_differ_and_a_larger_corpus_begins_with_the_smaller_one(monkeypatch):
    monkeypatch.setattr(growth, "TEXTS", 3)
    base = ["what is it ?", "who is it ?", "what was it ?", "never taken"]
    texts = growth.varied(base, 3 * 7 * 7)  # of seven words, two at a time
    assert growth.varied(base, 20) == texts[:20]
    assert len({*texts}) == len(texts)
    assert {len(text.split()) for text in texts} == {6}
    with pytest.raises(SystemExit, match=r"^growth: there are no more than 147 different texts$"):
        growth.varied(base, 148)


def test_small_corpora_run_layers_and_large_ones_n_grams_alone():
    assert growth.sizes(growth.LAYERS, growth.ROWS) == [1_000, 10_000, 100_000]
    assert growth.sizes(growth.WORDS_ALONE, growth.ROWS) == [100_000, 1_000_000]


def test_the_start_is_a_run_of_one_row():
    runs = {1: [_run(8.0), _run(9.0), _run(8.5)], 1_000: [_run(9.5, 0.8)], 2_000: [_run(11.0, 1.8)]}
    text = growth.growth_table({growth.LAYERS: runs, growth.WORDS_ALONE: {}})
    (first,) = _lines(text, "| two layers | 1 |")
    assert "8.5 (8.0 to 9.0) | the start" in first
    (small,) = _lines(text, "| two layers | 1,000 |")
    assert "1.000 (1.000 to 1.000) | 0.800 (0.800 to 0.800)" in small
    (flat,) = _lines(text, "| two layers | most / least |")
    assert flat.endswith("| 1.25 | 1.12 |")
    assert not _lines(text, "| n-grams alone |")


def test_a_ratio_that_means_nothing_is_a_dash():
    assert [growth.rise(values) for values in ([], [1.0], [-0.1, 1.0])] == ["–"] * 3


def test_memory_of_command_and_server_is_compared_over_rows():
    memory = {20: _run(1, command=102_400), 200: _run(1, command=107_520, server=204_800)}
    text = growth.memory_table(memory)
    assert _lines(text, "| 20 |") == ["| 20 | 100 MiB | – |"]
    assert _lines(text, "| most / least |") == ["| most / least | 1.05 | – |"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says it")
def test_the_peak_memory_of_a_child_is_seen():
    program = "import time; text = 'a' * 50_000_000; print(flush=True); time.sleep(30)"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert child.pid in growth.children_of(os.getpid())
        with growth.ServerMemory(os.getpid()) as watched:
            while watched.kilobytes is None or watched.kilobytes < 48_000:
                time.sleep(0.01)
        child.kill()
    assert growth.peak_of(2**30) is None


def test_the_spread_of_a_ratio_is_over_chunks():
    assert sizes_of_chunks(1_200) == [500, 500, 200]
    chunks = {LOOP: [50.0, 40.0], FULL: [50.0, 25.0], TUNED: [25.0, 5.0], NEAR: [5.0, 5.0]}
    text = speed_table({"bfloat16": chunks}, [500, 500])
    (line,) = _lines(text, "| bfloat16 |")
    assert line.startswith("| bfloat16 | 11.2 (10.0 to 12.5) |")
    assert "| 5.00 (2.00 to 8.00) | 9.00 (8.00 to 10.00) | 7.50 (5.00 to 10.00) | >= 8 |" in line

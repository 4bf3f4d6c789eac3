"""kill -9 at random moments of whatever writes: the store is whole, and the next run finishes.

`make kills` does it a hundred times; here a few of each kind stand for them.
"""

import os
import random
import sys
import time
from collections import Counter

import pytest

from storage.database import Database
from storage.store import Folder
from tests.flows.kills import NAME, data_of, predictions_of
from tests.texts import sentences

KILLS = int(os.environ.get("RAEE_KILLS", "5"))
SEED = int(os.environ.get("RAEE_KILLS_SEED", "0"))

_ROWS = 24

_FIRST = {"build": 1.5, "classify": 1.0, "promote": 0.3, "gc": 0.5, "download": 1.0}
"""Seconds within which a command is struck before it is known how long it takes."""


def _corpus(day: int) -> list[dict[str, str]]:
    """A day's rows: those of the day before, a few of them new."""
    rows = sentences(_ROWS, seed=1)
    new = sentences(_ROWS, seed=100 + day)
    return [*rows[day % 5 :], *({**row, "id": f"{day}-{row['id']}"} for row in new[:6])]


@pytest.mark.timeout(3_600)
def test_a_store_outlives_kills_and_the_next_run_finishes_with_the_same_bytes(site):
    dice = random.Random(SEED)
    site.run("build", site.job(site.write("day-0.csv", _corpus(0))))
    input = site.write("new.csv", sentences(_ROWS, seed=7))
    seconds = dict(_FIRST)
    struck: Counter[str] = Counter()
    for number in range(1, KILLS + 1):
        kind = list(seconds)[(number - 1) % 5]
        corpus = site.write(f"day-{number}.csv", _corpus(number))
        job = site.job(corpus)
        before = Database(site.store, NAME).ids()
        twin = site.twin(f"{site.store}-twin-{number}") if kind == "build" else None
        output = f"{site.store}-out-{number}"
        commands = {
            "build": ("build", job),
            "classify": ("classify", job, "--input", input, "--output", output),
            "promote": ("promote", NAME, dice.choice(before), "--store", site.store),
            "gc": ("gc", NAME, "--store", site.store, "--keep", "2", "--older-than", "0"),
            "download": ("classify", job, "--input", input, "--output", output),
        }
        if kind == "download":
            for file in site.cache.glob("*"):
                file.unlink()
        struck[kind] += site.killed(dice, seconds[kind], *commands[kind])
        site.check()
        begun = time.monotonic()
        site.run(*commands[kind])
        seconds[kind] = min(10.0, time.monotonic() - begun)
        site.check()
        if twin is not None:
            twin.run("build", twin.job(corpus))
            built, undisturbed = (Database(s.store, NAME).ids() for s in (site, twin))
            assert len(built) == len(undisturbed) == len(before) + 1
            assert data_of(site.store, built[-1]) == data_of(twin.store, undisturbed[-1])
            Folder(twin.store).remove()
        if kind in ("classify", "download"):
            again = f"{site.store}-again-{number}"
            site.run("classify", job, "--input", input, "--output", again)
            assert predictions_of(output) == predictions_of(again)
            assert "_work" not in Folder(output).names()
    sys.stderr.write(f"\n{site.store}: {KILLS} kills, before the command's end {dict(struck)}\n")
    assert sum(struck.values()) > KILLS // 3, "most came after the end"

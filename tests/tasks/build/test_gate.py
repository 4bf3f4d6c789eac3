"""A new version takes over production unless it is worse beyond noise, and says why."""

import logging
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact, norm

from flows.cli.app import app, run
from storage.alias_names import DEFAULT_ALIAS
from storage.database import Database
from tasks.build.gate import LEVEL, compare, promote_if_as_good
from tasks.readings import load_readings
from tests.tasks.versions import NAME, Made, job_of, publish_made

_FIXED = {"name": "fixed", "exit": "head@0"}


@pytest.fixture
def store(tmp_path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def told() -> Iterator[list[logging.LogRecord]]:
    """What is logged; commands that ran before in this process keep it from the root logger."""
    records: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("raee")
    handler.emit = records.append
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def _rows(right, label="yes", first=0, **changed):
    """Rows of one label, one for each of `right`: True if the head gets the row right."""
    other = {"yes": "no", "no": "yes"}[label]
    return [
        Made(**{"id": f"r{i}", "text": f"t{i}", "label": label, "head": head} | changed)
        for i, head in enumerate([label if hit else other for hit in right], first)
    ]


def _compared(store, new, old, **of_new):
    """The comparison of two versions of these rows."""
    before = publish_made(store, old)
    now = publish_made(store, new, **of_new)
    versions = [Database(store, NAME).version(version) for version in (now, before)]
    return compare(*map(load_readings, versions))


class TestCompare:
    @pytest.mark.parametrize(
        ("wins", "losses"), [(0, 0), (0, 7), (0, 8), (5, 0), (3, 9), (2, 9), (20, 20)]
    )
    def test_rows_in_common_are_compared_pair_by_pair(self, store, wins, losses):
        same = [True, False, True]
        old = [*same, *[False] * wins, *[True] * losses]
        new = [*same, *[True] * wins, *[False] * losses]
        found = _compared(store, _rows(new), _rows(old))
        expected = 1.0
        if wins + losses:
            expected = binomtest(wins, wins + losses, alternative="less").pvalue
        assert found.p_value == pytest.approx(expected)
        assert f"on {len(old)} rows in common {wins} answers got right" in found.how
        assert f"{losses} got wrong" in found.how
        # Of losses alone eight are beyond noise, seven are not.
        if wins == 0:
            assert (found.p_value < LEVEL) == (losses >= 8)

    def test_rows_are_the_same_wherever_they_are_and_only_with_the_same_text(self, store):
        old = _rows([True] * 12)
        new = [
            *_rows([False] * 9, first=100),
            *_rows([True] * 12)[::-1],
        ]
        # Ids of old rows with other texts: they are other rows.
        new[0] = Made("r3", "another text", "yes", "no")
        new = [row for row in new if (row.id, row.text) != ("r3", "t3")]
        found = _compared(store, new, old)
        assert found.p_value == 1.0
        assert "on 11 rows in common" in found.how

    def test_a_corrected_label_counts_for_both(self, store):
        """The old version answered as it was taught: by the new labels that is wrong."""
        old = [*_rows([True] * 10), *_rows([True] * 10, label="no", first=10)]
        new = [*_rows([True] * 10), *_rows([True] * 10, first=10)]
        found = _compared(store, new, old)
        assert found.p_value == 1.0
        assert "10 answers got right and 0 got wrong (accuracy 1.0000, before 0.5000)" in (
            found.how
        )
        # And the new version is not excused by its new labels.
        worse = [*_rows([True] * 10), *_rows([False] * 10, first=10)]
        assert _compared(store, worse, [*old[:10], *_rows([True] * 10, first=10)]).p_value < 0.01

    def test_labels_are_compared_by_name(self, store):
        rows = [*_rows([True] * 8), *_rows([True] * 8, label="no", first=8)]
        found = _compared(store, rows, rows, labels=("yes", "new", "no"))
        assert "0 answers got right and 0 got wrong (accuracy 1.0000" in found.how

    @pytest.mark.parametrize(("now", "before"), [(2, 18), (9, 11), (18, 2), (20, 20), (0, 0)])
    def test_without_a_row_in_common_accuracies_are_compared(self, store, now, before):
        new = _rows([i < now for i in range(20)], first=50)
        found = _compared(store, new, _rows([i < before for i in range(20)]))
        table = [[now, 20 - now], [before, 20 - before]]
        assert found.p_value == pytest.approx(fisher_exact(table, alternative="less").pvalue)
        assert found.how.startswith("no row in common; accuracy ")
        assert (found.p_value < LEVEL) == (now == 2)

    def test_rows_of_which_not_every_exit_was_read_say_nothing(self, store):
        unread = _rows([False] * 8, first=20, read=False)
        found = _compared(store, [*_rows([True] * 4), *unread], _rows([True] * 28))
        assert found.how.startswith("on 4 rows in common 0 answers got right and 0 got wrong")

    def test_each_version_answers_with_its_own_policy(self, store):
        """`head@1` is always right; the old version answers at `head@0`."""
        rows = _rows([False] * 9)
        policy = {"name": "fixed", "exit": "head@1"}
        found = _compared(store, rows, rows, policy=policy)
        assert "9 answers got right and 0 got wrong (accuracy 1.0000, before 0.0000)" in (found.how)

    def test_a_policy_may_ask_neighbours(self, store):
        rows = _rows([True] * 9)
        found = _compared(store, rows, rows, policy={"name": "raee", "k": 3})
        assert "(accuracy 1.0000, before 1.0000)" in found.how


def _gate(store, version, policy=_FIXED):
    """What came out at the gate for a version, and why."""
    return promote_if_as_good.fn(job_of(store, policy), Database(store, NAME).version(version))


def _production(store):
    return Database(store, NAME).aliases().get(DEFAULT_ALIAS)


class TestTheGate:
    def test_lets_the_first_version_through(self, store):
        version = publish_made(store, _rows([False]))
        why = _gate(store, version)
        assert why == f"production now points at {version}: there was none before"
        assert _production(store) == version

    @pytest.mark.parametrize("losses", [0, 7])
    def test_lets_a_version_through_that_is_as_good_but_for_noise(self, store, losses):
        first = publish_made(store, _rows([True] * 20))
        Database(store, NAME).promote(first)
        second = publish_made(store, _rows([i >= losses for i in range(20)]))
        why = _gate(store, second)
        assert why.startswith(
            f"production now points at {second}: against production ({first}) on 20 rows in common"
        )
        assert f"not below {LEVEL}" in why
        assert _production(store) == second

    def test_keeps_a_worse_version_out_and_says_why(self, store, told):
        first = publish_made(store, _rows([True] * 20))
        Database(store, NAME).promote(first)
        second = publish_made(store, _rows([i >= 9 for i in range(20)]))
        why = _gate(store, second)
        assert why == (
            f"{second} stays unpromoted: it is worse beyond noise: against production ({first}) on "
            "20 rows in common 0 answers got right and 9 got wrong (accuracy 0.5500, before "
            "1.0000), p = 0.002, below 0.007"
        )
        assert [(r.levelname, r.getMessage()) for r in told] == [("WARNING", why)]
        assert _production(store) == first

    def test_says_the_same_when_it_is_asked_again(self, store):
        """A step may be tried again after what it did was done."""
        version = publish_made(store, _rows([True]))
        _gate(store, version)
        assert _gate(store, version) == f"production points at {version} already"
        assert len(Database(store, NAME).history(DEFAULT_ALIAS)) == 1

    def test_keeps_a_version_out_whose_own_policy_cannot_be_met(self, store):
        tuned = {"name": "tuned"}
        version = publish_made(store, _rows([True]), policy=tuned)
        why = _gate(store, version, tuned)
        assert why == (
            f"{version} stays unpromoted: its own policy cannot be met: database demo@{version} "
            "was built without tuning; name another policy or build it anew"
        )
        assert _production(store) is None

    @pytest.mark.parametrize("how", ["policy", "reader", "file", "gone"])
    def test_replaces_what_cannot_be_run(self, store, how):
        """Such as a cascade of the first format, which knew no probes."""
        policy = {"policy": {"name": "tuned"}, "reader": {"name": "cascade"}}.get(how)
        first = publish_made(store, _rows([True] * 20), policy=policy)
        Database(store, NAME).promote(first)
        folder = Database(store, NAME).version(first).folder
        if how == "file":
            with folder.create("entries/part-00000.parquet") as file:
                file.write(b"")
        if how == "gone":
            folder.remove()
        second = publish_made(store, _rows([False] * 20))
        why = _gate(store, second)
        assert why.startswith(
            f"production now points at {second}: production ({first}) cannot be run: "
        )
        assert _production(store) == second


class TestThePin:
    """The head gets fewer rows right night after night, each loss too small to be noticed."""

    @staticmethod
    def _nights(store, lost):
        found = []
        for losses in lost:
            found.append(publish_made(store, _rows([i >= losses for i in range(40)])))
            _gate(store, found[-1])
        return found

    def test_stops_a_slow_loss_that_production_alone_lets_through(self, store):
        nights = self._nights(store, [0, 3, 6, 9, 12])
        assert Database(store, NAME).aliases() == {"pinned": nights[0], "production": nights[2]}
        verdict = Database(store, NAME).version(nights[3]).verdict()
        assert not verdict.promoted
        assert f"against pinned ({nights[0]}) on 40 rows in common 0 answers" in verdict.why
        assert f"`raee promote {NAME} {nights[3]}` takes and pins it" in verdict.why

    def test_is_the_first_version_until_a_person_points_elsewhere(self, store, capsys):
        first, second = self._nights(store, [0, 3])
        assert Database(store, NAME).aliases()["pinned"] == first
        assert run(app, ["promote", NAME, second, "--store", store]) == 0
        assert Database(store, NAME).aliases()["pinned"] == second
        assert run(app, ["rollback", NAME, "--store", store]) == 0
        assert Database(store, NAME).aliases() == {"pinned": first, "production": first}
        assert run(app, ["promote", NAME, second, "--store", store, "--alias", "other"]) == 0
        assert Database(store, NAME).aliases()["pinned"] == first

    def test_is_set_if_versions_were_promoted_before_there_were_pins(self, store):
        first = publish_made(store, _rows([True] * 20))
        Database(store, NAME).promote(first)
        second = publish_made(store, _rows([True] * 20))
        _gate(store, second)
        assert Database(store, NAME).aliases() == {"pinned": first, "production": second}


def test_thirty_looks_at_a_version_that_is_no_worse_rarely_find_it_worse():
    # A version differs from the pinned one by what each night adds: a sum of small steps.
    steps = np.random.default_rng(0).normal(size=(20_000, 30))
    looks = np.cumsum(steps, axis=1) / np.sqrt(np.arange(1, 31))
    assert (norm.sf(-looks) < LEVEL).any(axis=1).mean() == pytest.approx(0.05, abs=0.01)


def test_thousands_of_rows_are_no_obstacle_to_an_exact_test(store):
    dice = np.random.default_rng(0)
    old, new = dice.random(4_000) < 0.8, dice.random(4_000) < 0.7
    assert 0 < _compared(store, _rows(new), _rows(old)).p_value < 1e-6

"""A command that is stopped in its middle leaves a whole store, and the next one goes on."""

import json
import re
import shutil
import signal
import time

import pytest

from tests.flows.jobs import (
    Workplace,
    manifest_of,
    predictions_of,
    raee,
    repeated_data_of,
    start_raee,
)
from tests.orchestration.site import until
from tests.texts import sentences

_ROWS = 120
_SHARD_ROWS = 4
_SHARDS = _ROWS // _SHARD_ROWS


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, model_of) -> dict[str, bytes]:
    """The files of a build that nothing stopped."""
    place = Workplace(tmp_path_factory.mktemp("undisturbed"), model_of)
    place.write("train.csv", sentences(_ROWS))
    return repeated_data_of(place.version(place.build(shard_rows=_SHARD_ROWS)))


def _stop(command, how, markers):
    """Send a signal when a few shards are done; returns the answer and how many are."""
    try:
        while len(list(markers())) < 3:
            assert command.poll() is None, command.communicate()[1]
            time.sleep(0.005)
        command.send_signal(how)
        out, err = command.communicate(timeout=60)
    finally:
        command.kill()
    return out, err, len(list(markers()))


def _rows_told(err, stage):
    """The rows that a command says it has done in a stage."""
    (told,) = re.findall(rf"{stage}: (\d+) rows in", err)
    return int(told)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_goes_on_and_ends_with_the_same_bytes(place, undisturbed, how):
    place.write("train.csv", sentences(_ROWS))
    job = place.job(shard_rows=_SHARD_ROWS)
    work = place.store / "databases/demo/work"
    for _ in range(3):
        command = start_raee("build", job)
        out, err, done = _stop(command, how, lambda: work.glob("*/*/shard-*.json"))
        if command.returncode != 0:
            break
        # Python drops an interrupt that strikes within a destructor: once more.
        shutil.rmtree(place.store)
    assert 3 <= done < _SHARDS, "it was stopped too late"
    assert out == ""
    if how == signal.SIGINT:
        assert command.returncode == 130
        assert err.splitlines()[-1] == (
            "raee: interrupted; run the same command again to go on from here"
        )
        assert "Traceback" not in err
    assert raee("versions", "demo", "--store", place.store).code == 2, "half a version is listed"
    (plan,) = work.glob("*/*/plan.json")
    begun = json.loads(plan.read_text())["version"]

    answer = raee("build", job)
    assert answer.code == 0, answer.err
    assert answer.out.strip() == begun
    assert _rows_told(answer.err, "sweep") == _ROWS - done * _SHARD_ROWS
    assert repeated_data_of(place.version(begun)) == undisturbed
    assert raee("verify", "demo", "--store", place.store).code == 0
    assert list(work.iterdir()) == []


def test_a_classification_goes_on_and_ends_with_the_same_bytes(published):
    input = published.write("new.csv", sentences(_ROWS, seed=9))
    expected = published.classify(input, "expected", shard_rows=_SHARD_ROWS)
    output = published.root / "out"
    arguments = ("classify", published.job(shard_rows=_SHARD_ROWS), "--input", input)
    arguments += ("--output", output)
    command = start_raee(*arguments)
    _, _, done = _stop(command, signal.SIGKILL, lambda: output.glob("_work/part-*.json"))
    assert 3 <= done < _SHARDS, "it was stopped too late"
    assert not (output / "manifest.json").exists()
    assert (output / "_work").exists()

    answer = raee(*arguments)
    assert answer.code == 0, answer.err
    assert _rows_told(answer.err, "classify") == _ROWS - done * _SHARD_ROWS
    parts = [sorted(folder.glob("part-*.parquet")) for folder in (output, expected)]
    assert len(parts[0]) == _SHARDS
    assert [p.read_bytes() for p in parts[0]] == [p.read_bytes() for p in parts[1]]
    assert not (output / "_work").exists()
    ours, theirs = manifest_of(output), manifest_of(expected)
    for figure in ("rows_in", "rows_out", "exits", "layers_run", "mean_layers", "version"):
        assert ours[figure] == theirs[figure]
    assert predictions_of(output).num_rows == _ROWS


def test_a_classification_that_another_version_of_the_program_began_is_refused(published):
    input, output = published.write("new.csv", sentences(9, seed=9)), published.root / "out"
    plan = output / "_work/plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text('{"key": "what only that version knows"}')
    answer = raee("classify", published.job(), "--input", input, "--output", output)
    assert answer.code == 2
    assert answer.error == (
        f"output {output} was begun by another version of raee; go on with that, or give a new or "
        "empty folder"
    )
    assert [p for p in output.rglob("*") if p.is_file()] == [plan]


class TestOfABuildThatDied:
    """Stopped in this process, after its first shard."""

    @pytest.fixture
    def died(self, place, monkeypatch):
        import tasks.build.sweep

        real, stop = tasks.build.sweep.rows_of_shard, []

        def rows_of_shard(*args):
            if stop:
                marker = "databases/demo/work/*/*/shard-00000.json"
                until(30, "the first shard is written", lambda: any(place.store.glob(marker)))
                raise KeyboardInterrupt
            stop.append(True)
            return real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(tasks.build.sweep, "rows_of_shard", rows_of_shard)
            assert raee("build", place.job()).code == 130
        return place

    def _work(self, place):
        return list((place.store / "databases/demo/work").iterdir())

    def test_another_corpus_is_another_build(self, died):
        died.write("train.csv", sentences(40, seed=1))
        answer = raee("build", died.job())
        assert _rows_told(answer.err, "sweep") == 40
        (left,) = self._work(died)
        assert list(left.glob("*/shard-00000.json")), "the build that died can still go on"

    @pytest.mark.parametrize(
        "changed",
        [{"key": {"layer": 2}}, {"shard_rows": 5}, {"keep_text": False}, {"sample_rows": 30}],
    )
    def test_a_job_that_decides_otherwise_is_another_build(self, died, changed):
        answer = raee("build", died.job(**changed))
        assert _rows_told(answer.err, "sweep") == 40

    def test_what_another_version_of_the_program_began_is_another_build(self, died, monkeypatch):
        monkeypatch.setattr("tasks.build.planning.STEPS", 0)
        answer = raee("build", died.job())
        assert _rows_told(answer.err, "sweep") == 40

    def test_a_corpus_that_has_moved_is_another_build(self, died):
        """The files of the first plan are gone: it could never be finished."""
        (died.root / "train.csv").rename(died.root / "moved.csv")
        corpus = {"uri": str(died.root / "moved.csv"), "id": "id"}
        answer = raee("build", died.job(corpus=corpus))
        assert answer.code == 0, answer.err
        assert _rows_told(answer.err, "sweep") == 40

    def test_the_same_corpus_under_another_address_goes_on(self, died):
        corpus = {"uri": f"{died.root}/tr*.csv", "id": "id"}
        answer = raee("build", died.job(corpus=corpus))
        assert _rows_told(answer.err, "sweep") == 20
        assert self._work(died) == []


@pytest.mark.parametrize("step", ["fit_on_best", "measure_costs", "publish"])
def test_what_is_done_after_the_sweep_is_not_done_again(place, monkeypatch, step):
    """Stopped in this process where a later step begins."""
    import tasks.build.fit
    import tasks.build.tune
    from storage.database import Version

    holders = {
        "fit_on_best": tasks.build.fit,
        "measure_costs": tasks.build.tune,
        "publish": Version,
    }
    done = []

    def counted(name, real):
        def work(*args, **more):
            done.append(name)
            return real(*args, **more)

        return work

    def interrupt(*args, **more):
        raise KeyboardInterrupt

    for where, name in ((tasks.build.fit, "fit_on_best"), (tasks.build.tune, "measure_costs")):
        monkeypatch.setattr(where, name, counted(name, getattr(where, name)))
    with monkeypatch.context() as patch:
        patch.setattr(holders[step], step, interrupt)
        assert raee("build", place.job()).code == 130
    answer = raee("build", place.job())
    assert answer.code == 0, answer.err
    assert _rows_told(answer.err, "sweep") == 0
    assert done == ["fit_on_best", "measure_costs"], "each was done once in both builds together"
    assert raee("verify", "demo", "--store", place.store).code == 0


def test_a_build_that_dies_between_publishing_and_promoting_is_promoted_by_the_next(
    place, monkeypatch
):
    import flows.rebuild_database

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(flows.rebuild_database, "promote_if_as_good", interrupt)
        assert raee("build", place.job()).code == 130
    version = place.only_version().name
    lines = raee("versions", "demo", "--store", place.store, "--json").out
    assert [(v["id"], v["aliases"]) for v in json.loads(lines)] == [(version, [])]
    answer = raee("build", place.job())
    assert (answer.code, answer.out.strip()) == (0, version)
    assert f"production now points at {version}" in answer.err
    assert "sweep: " not in answer.err
    assert place.only_version().name == version
    assert list((place.store / "databases/demo/work").iterdir()) == []

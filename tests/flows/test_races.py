"""The same command run twice at once ends once: one result, which both processes name."""

import os

import pytest
from prefect import Task

import flows.classify_corpus
import flows.rebuild_database
import tasks.build.build
import tasks.build.fit
import tasks.build.sweep
import tasks.classify.classification
import tasks.classify.plan
from storage.database import Database, Version
from storage.version_files import VersionFiles
from tests.flows.jobs import manifest_of, predictions_of, raee
from tests.flows.kills import NAME
from tests.flows.processes import start
from tests.texts import sentences


@pytest.fixture(autouse=True)
def no_pause_between_tries(monkeypatch):
    for module in (flows.rebuild_database, flows.classify_corpus):
        for step in (value for value in vars(module).values() if isinstance(value, Task)):
            monkeypatch.setattr(step, "retry_delay_seconds", 0)


def _together(folder, arguments):
    """Run a command in two processes at once; returns what both said on stdout."""
    commands = [start(folder / f"said-{n}.txt", os.environ, *arguments) for n in range(2)]
    return [command.end() for command in commands]


def _overtaken(folder, monkeypatch, module, name, call, arguments):
    """Before a function's n-th call, another process runs this command to its end."""
    real, calls, other = getattr(module, name), [], []

    def overtaken(*args, **more):
        calls.append(name)
        if len(calls) == call:
            other.append(start(folder / "said.txt", os.environ, *arguments).end())
        return real(*args, **more)

    monkeypatch.setattr(module, name, overtaken)
    answer = raee(*arguments)
    assert answer.code == 0, answer.err
    assert other
    return [answer.out.strip(), *other]


class TestTwoBuilds:
    def _is_one(self, place, said):
        """Both named the only version; it is whole and promoted, and nothing else is left."""
        version = place.only_version()
        assert said == [version.name] * 2
        assert raee("verify", "demo", "--store", place.store).code == 0
        assert raee("verify", "demo@production", "--store", place.store).code == 0
        named = {f["path"] for f in manifest_of(version)["files"]} | {
            "manifest.json",
            "verdict.json",
        }
        assert {str(p.relative_to(version)) for p in version.rglob("*") if p.is_file()} == named
        work = place.store / "databases/demo/work"
        assert list(work.rglob("*")) == []

    @pytest.mark.parametrize(
        ("module", "name", "call"),
        [
            (tasks.build.sweep, "rows_of_shard", 2),
            (tasks.build.fit, "fit_on_best", 1),
            (tasks.build.build, "study", 1),
            (Version, "publish", 1),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_of_which_one_overtakes_the_other(self, place, monkeypatch, module, name, call):
        said = _overtaken(place.root, monkeypatch, module, name, call, ["build", place.job()])
        self._is_one(place, said)


def test_eight_builds_of_one_database_at_once_leave_whole_versions(site):
    rows = sentences(24)
    jobs = [
        site.job(site.write(f"{name}.csv", some))
        for name, some in (("all", rows), ("some", rows[3:]))
    ]
    logs = [f"said-{number}.txt" for number in range(8)]
    builds = [site.start("build", jobs[number % 2], log=log) for number, log in enumerate(logs)]
    said = {build.end() for build in builds}
    site.check()
    assert said == set(Database(site.store, NAME).ids())
    assert {Database(site.store, NAME).version(version).manifest().rows for version in said} == {
        24,
        21,
    }
    for command in ("verify", "gc"):
        site.run(command, NAME, "--store", site.store)
    assert (Database(site.store, NAME).folder / "work").names() == []


class TestTwoClassifications:
    @pytest.fixture
    def arguments(self, published):
        input = published.write("new.csv", sentences(60, seed=9))
        output = published.root / "out"
        return ["classify", published.job(), "--input", input, "--output", output]

    def _is_one(self, arguments, said):
        """Both named the output; it is whole, and nothing else is left."""
        output = arguments[-1]
        assert said == [str(output)] * 2
        assert manifest_of(output)["rows_out"] == 60
        assert predictions_of(output)["id"].to_pylist() == [f"row-{i:03d}" for i in range(60)]
        assert sorted(p.name for p in output.rglob("*")) == [
            "manifest.json",
            *(f"part-0000{n}.parquet" for n in range(3)),
        ]

    def test_that_start_together(self, arguments, tmp_path):
        self._is_one(arguments, _together(tmp_path, arguments))

    @pytest.mark.parametrize(
        ("module", "name", "call"),
        [
            (tasks.classify.plan, "_started", 1),
            (tasks.classify.classification, "finish", 1),
            (VersionFiles, "copy", 1),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_of_which_one_overtakes_the_other(
        self, arguments, tmp_path, monkeypatch, module, name, call
    ):
        said = _overtaken(tmp_path, monkeypatch, module, name, call, arguments)
        self._is_one(arguments, said)

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
import typer

from flows.cli.app import app, run
from flows.cli.server import _absolute
from tasks.job import load_job
from tests.flows.jobs import manifest_of, raee
from tests.texts import sentences

_COMMANDS = (
    *("build", "classify", "evaluate", "tune", "explain", "prune"),
    *("versions", "show", "promote", "rollback", "verify", "gc"),
)


_BACKBONE = {"family": "sentence-encoder", "model": "m"}


def _version(place):
    (version,) = place.version("").iterdir()
    return version


def test_the_commands_are_those_of_the_design():
    assert {command.callback.__name__ for command in app.registered_commands} >= set(_COMMANDS)


def test_help_is_quick_and_there_for_every_command():
    program = """
import sys
from flows.cli.app import app, run
assert run(app, ["--help"]) == 0
assert "pydantic" not in sys.modules, "Typer itself asks it for a command's own help"
for name in sys.argv[1:]:
    assert run(app, [name, "--help"]) == 0
models = {"torch", "transformers", "prefect", "faiss", "pyarrow.dataset"}
files = {"polars", "pyarrow", "numpy", "fsspec", "yaml", "raee.config", "tasks.job"}
heavy = (models | files) & set(sys.modules)
assert not heavy, heavy
"""
    names = [command.callback.__name__ for command in app.registered_commands]
    answer = subprocess.run(
        [sys.executable, "-c", program, *names], capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("Usage: ") == 1 + len(names)
    for name in names:
        assert name in answer.stdout


def test_what_asks_for_versions_or_promotes_one_imports_neither_models_nor_frames(published):
    version = _version(published).name
    program = """
import sys
from flows.cli.app import app, run
store, version = sys.argv[1:]
for arguments in (["versions", "demo"], ["show", "demo"], ["promote", "demo", version]):
    assert run(app, [*arguments, "--store", store]) == 0
heavy = {"torch", "transformers", "prefect", "faiss", "polars", "pyarrow"} & set(sys.modules)
assert not heavy, heavy
"""
    command = [sys.executable, "-c", program, str(published.store), version]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr


def test_a_mistake_in_a_job_file_is_found_before_anything_heavy_is_imported(tmp_path):
    (tmp_path / "job.yaml").write_text("name: [")
    program = """
import sys
from flows.cli.app import app, run
assert run(app, ["build", sys.argv[1]]) == 2
heavy = {"torch", "transformers", "prefect", "faiss"} & set(sys.modules)
assert not heavy, heavy
"""
    command = [sys.executable, "-c", program, str(tmp_path / "job.yaml")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert "this is no YAML" in answer.stderr


def test_a_classification_imports_what_it_needs_while_its_server_starts(tmp_path):
    """A server that never comes: nothing is imported after the wait for it."""
    job = {"name": "a", "store": "b", "corpus": {"uri": "c"}, "backbone": _BACKBONE}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    program = """
import sys
from contextlib import contextmanager
from flows.cli.app import app, run
from flows.orchestrator import server
from raee.errors import InputError

@contextmanager
def starting():
    def wait():
        needed = {"flows.classify_corpus", "torch", "transformers.modeling_utils"}
        missing = needed - set(sys.modules)
        raise InputError(f"missing: {missing or None}")
    yield wait

server.orchestrator = starting
run(app, ["classify", sys.argv[1], "--input", "d", "--output", "e"])
"""
    command = [sys.executable, "-c", program, str(tmp_path / "job.yaml")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.stderr == "raee: missing: None\n"


def test_a_command_ends_without_looking_through_all_objects_that_are_left():
    program = """
import atexit, gc, sys
from flows.cli.app import main
atexit.register(lambda: print("kept out:", gc.get_freeze_count() > 10_000))
sys.argv[1:] = ["--help"]
main()
"""
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout.splitlines()[-1]) == (0, "kept out: True")


def test_what_runs_flows_waits_for_no_statistics_and_no_charts():
    program = """
import sys
import flows.classify_corpus, flows.rebuild_database
heavy = {"sklearn", "scipy.stats", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr


def test_a_disk_that_fails_is_one_line_too(capsys):
    def full_disk(arguments, standalone_mode):
        raise OSError(28, "No space left on device", "store/part-00000.parquet")

    assert run(full_disk, []) == 1
    err = capsys.readouterr().err
    assert err == "raee: store/part-00000.parquet: No space left on device\n"


def test_a_store_whose_connection_breaks_is_one_line_and_no_reader_that_has_left():
    """Of either pipe that breaks typer makes an exit without a word."""

    def broken():
        raise BrokenPipeError(32, "s3://bucket/store: Broken pipe")

    app = typer.Typer()
    app.command()(broken)
    err = io.StringIO()
    with redirect_stderr(err), redirect_stdout(io.StringIO()):
        code = run(app, [])
    assert (code, err.getvalue()) == (1, "raee: s3://bucket/store: Broken pipe\n")


class TestBuild:
    def test_prints_the_versions_id_and_nothing_else(self, place):
        answer = raee("build", place.job())
        assert re.fullmatch(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{8}\n", answer.out)
        assert place.version(answer.out.strip()).is_dir()

    def test_tells_of_its_stages_once_each(self, place):
        raee("build", place.job())
        lines = raee("build", place.job(policy="full")).err.splitlines()
        assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
        told = (
            *("read corpus: 40 rows", "corpus ", "sweep: 40 rows in", "vote: 40 rows in"),
            *("tuned: ", "against production"),
        )
        for stage in told:
            assert sum(stage in line for line in lines) == 1, stage


class TestVersions:
    def test_are_listed_newest_first_with_what_points_at_them(self, published):
        first = _version(published).name
        second = published.build(policy="full")
        for alias in ("old", "production"):
            raee("promote", "demo", first, "--store", published.store, "--alias", alias)
        answer = raee("versions", "demo", "--store", published.store)
        lines = answer.out.splitlines()
        assert [line.split()[0] for line in lines] == ["id", second, first]
        assert lines[2].split()[-3:] == ["old", "pinned", "production"]
        accuracy = manifest_of(published.version(second))["metrics"]["full"]["accuracy"]
        assert f"{accuracy:.3f}" in lines[1]
        (line,) = json.loads(raee("versions", "demo", "--store", published.store, "--json").out)[:1]
        assert f"  {line['baseline']} {line['baseline_accuracy']:.3f}" in lines[1]

    def test_are_listed_as_json(self, published):
        version = _version(published)
        answer = raee("versions", "demo", "--store", published.store, "--json")
        (line,) = json.loads(answer.out)
        manifest = manifest_of(version)
        assert (line["id"], line["rows"], line["aliases"]) == (
            version.name,
            40,
            ["pinned", "production"],
        )
        assert line["policy"] == "tuned"
        assert line["accuracy"] == pytest.approx(manifest["metrics"]["tuned"]["accuracy"], abs=1e-4)
        assert line["full_accuracy"] == pytest.approx(
            manifest["metrics"]["full"]["accuracy"], abs=1e-4
        )
        baselines = [manifest["metrics"][n]["accuracy"] for n in ("majority", "words", "logistic")]
        assert line["baseline_accuracy"] == pytest.approx(max(baselines), abs=1e-4)

    def test_are_found_in_the_store_that_the_environment_names(self, published, monkeypatch):
        monkeypatch.setenv("RAEE_STORE", str(published.store))
        assert _version(published).name in raee("versions", "demo").out


class TestShow:
    def test_as_json_is_the_manifest(self, published):
        version = _version(published)
        for name in ("demo", f"demo@{version.name}"):
            answer = raee("show", name, "--store", published.store, "--json")
            assert json.loads(answer.out) == manifest_of(version)

    def test_takes_an_alias(self, published):
        version = _version(published).name
        raee("promote", "demo", version, "--store", published.store, "--alias", "nightly")
        answer = raee("show", "demo@nightly", "--store", published.store, "--json")
        assert json.loads(answer.out)["id"] == version

    def test_names_every_entry_and_every_file(self, published):
        answer = raee("show", "demo", "--store", published.store)
        manifest = manifest_of(_version(published))
        shown = [line.split()[0] for line in answer.out.splitlines() if not line.startswith(" ")]
        assert shown == ["what", *manifest]
        for file in manifest["files"]:
            assert f"{file['path']}  {file['bytes']:,} bytes" in answer.out

    def test_shows_what_users_wrote_as_they_wrote_it(self, place):
        """Brackets and colons are markup to the library that draws the table."""
        labels = {"[bold]": "[/]", ":smile:": "x", "[/nothing]": "y"}
        rows = [row | {"label": list(labels)[i % 3]} for i, row in enumerate(sentences(6))]
        place.write("train.csv", rows)
        place.build(prompt={"labels": labels})
        answer = raee("show", "demo", "--store", place.store)
        assert answer.code == 0
        (line,) = (line for line in answer.out.splitlines() if line.startswith("labels "))
        assert line.split(maxsplit=1)[1].strip() == ":smile:, [/nothing], [bold]"


class TestAliases:
    def test_are_promoted_and_rolled_back(self, published):
        first = _version(published).name
        second = published.build(policy="full")
        alias = ("--store", published.store, "--alias", "staging")
        said = [
            raee("promote", "demo", first, *alias),
            raee("promote", "demo", second, *alias),
            raee("rollback", "demo", *alias),
        ]
        assert [answer.out for answer in said] == [
            f"demo: staging -> {first} (before: nothing)\n",
            f"demo: staging -> {second} (before: {first})\n",
            f"demo: staging -> {first} (before: {second})\n",
        ]
        answer = raee("rollback", "demo", *alias)
        assert answer.code == 2
        assert "no version to roll back to" in answer.error
        raee("promote", "demo", second, "--store", published.store)
        answer = raee("rollback", "demo", "--store", published.store)
        assert answer.out == f"demo: production -> {first} (before: {second})\n"

    def test_can_be_promoted_from_one_another(self, published):
        version = _version(published).name
        store = ("--store", published.store)
        raee("promote", "demo", version, *store, "--alias", "staging")
        assert raee("promote", "demo", "staging", *store).out.startswith(
            f"demo: production -> {version}"
        )


class TestVerify:
    def test_reads_every_file(self, published):
        version = _version(published)
        manifest = manifest_of(version)
        files = [*manifest["files"], *manifest["swept"]]
        answer = raee("verify", "demo", "--store", published.store)
        assert answer.code == 0
        size = sum(f["bytes"] for f in files)
        assert answer.out == (
            f"demo@{version.name}: {len(files)} files, {size:,} bytes, all as written\n"
        )

    @pytest.mark.parametrize(
        "changed",
        [
            {"labels": ["bad", "good", "strange"]},
            {"rows": 41},
            {"created_at": "2020-01-01T00:00:00Z"},
            {"libraries": {}},
        ],
        ids=str,
    )
    def test_finds_that_the_manifest_was_changed_and_exits_with_1(self, published, changed):
        version = _version(published)
        said = json.dumps(manifest_of(version) | changed)
        (version / "manifest.json").write_text(said)
        answer = raee("verify", "demo", "--store", published.store)
        assert answer.code == 1
        first, *others = answer.out.splitlines()
        assert first == (
            f"demo@{version.name}: manifest.json has another digest than it says: something in it "
            "was changed"
        )
        assert bool(others) == ("labels" in changed or "rows" in changed)

    def test_says_where_a_manifest_has_no_digest(self, published):
        version = _version(published)
        said = manifest_of(version)
        del said["digest"]
        (version / "manifest.json").write_text(json.dumps(said))
        answer = raee("verify", "demo", "--store", published.store)
        assert answer.code == 0
        assert answer.out.endswith(
            "all as written; its manifest is from before manifests had a digest\n"
        )

    def test_lists_every_damaged_file_and_exits_with_1(self, published):
        version = _version(published)
        (version / "entries/part-00000.parquet").unlink()
        index = version / "keys/layer-01.faiss"
        data = bytearray(index.read_bytes())
        data[-1] ^= 1
        index.write_bytes(data)
        swept = published.store / "databases/demo" / manifest_of(version)["swept"][-1]["path"]
        size = swept.stat().st_size
        swept.write_bytes(b"")
        answer = raee("verify", f"demo@{version.name}", "--store", published.store)
        assert answer.code == 1
        where = f"demo@{version.name}"
        assert answer.out.splitlines() == [
            f"{where}: entries/part-00000.parquet is missing",
            f"{where}: keys/layer-01.faiss has another SHA-256 than its manifest says",
            f"{where}: swept/{swept.name} has 0 bytes, its manifest says {size}",
        ]


def test_a_current_folder_that_is_gone_is_one_line(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    answer = raee("versions", "demo", "--store", "store")
    assert answer.code == 2
    assert answer.err == "raee: the current folder is not there any more; go to another one\n"


def test_addresses_of_a_deployment_hold_everywhere(place, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    job = _absolute(load_job(place.job(store="~/store", corpus={"uri": "in/train.csv"})))
    assert job.store == "/home/somebody/store"
    assert job.corpus.uri == f"{os.getcwd()}/in/train.csv"

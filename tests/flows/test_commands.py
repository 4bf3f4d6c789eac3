import json
import re
import subprocess
import sys

import numpy as np
import pytest

from flows.cli import app, run
from tests.flows.jobs import (
    LABELS,
    entries_of,
    manifest_of,
    predictions_of,
    raee,
    sentences,
)

_COMMANDS = (
    *("build", "classify", "evaluate", "versions", "show"),
    *("promote", "rollback", "verify"),
)


def _version(place):
    (version,) = place.version("").iterdir()
    return version


def test_the_commands_are_those_of_the_design():
    assert {command.callback.__name__ for command in app.registered_commands} >= set(_COMMANDS)


def test_help_is_quick_and_there_for_every_command():
    program = """
import sys
from flows.cli import app, run
for arguments in (["--help"], *([name, "--help"] for name in sys.argv[1:])):
    assert run(app, arguments) == 0
heavy = {"torch", "transformers", "prefect", "faiss", "pyarrow.dataset"} & set(sys.modules)
assert not heavy, heavy
"""
    answer = subprocess.run(
        [sys.executable, "-c", program, *_COMMANDS], capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("Usage: ") == 1 + len(_COMMANDS)
    for name in _COMMANDS:
        assert name in answer.stdout


def test_a_mistake_in_a_job_file_is_found_before_anything_heavy_is_imported(tmp_path):
    (tmp_path / "job.yaml").write_text("name: [")
    program = """
import sys
from flows.cli import app, run
assert run(app, ["build", sys.argv[1]]) == 2
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", program, str(tmp_path / "job.yaml")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert "this is no YAML" in answer.stderr


def test_a_disk_that_fails_is_one_line_too(capsys):
    def full_disk(arguments, standalone_mode):
        raise OSError(28, "No space left on device", "store/part-00000.parquet")

    assert run(full_disk, []) == 1
    err = capsys.readouterr().err
    assert err == "raee: [Errno 28] No space left on device: 'store/part-00000.parquet'\n"


class TestBuild:
    def test_prints_the_versions_id_and_nothing_else(self, place):
        answer = raee("build", place.job())
        assert re.fullmatch(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{8}\n", answer.out)
        assert place.version(answer.out.strip()).is_dir()

    def test_tells_of_its_stages_once_each(self, place):
        raee("build", place.job())
        lines = raee("build", place.job()).err.splitlines()
        assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
        for stage in ("read corpus: 40 rows", "corpus ", "sweep: 40 rows in", "vote: 40 rows in"):
            assert sum(stage in line for line in lines) == 1


class TestEvaluate:
    @pytest.fixture
    def figures(self, published):
        published.write("test.csv", sentences(30, seed=11))
        file = published.root / "figures.json"
        answer = raee(
            *("evaluate", published.job(policy={"name": "raee", "k": 3})),
            *("--input", published.root / "test.csv", "--json", file),
        )
        assert answer.code == 0, answer.err
        return published, json.loads(file.read_text()), answer

    def test_writes_the_documented_figures(self, figures):
        _, found, _ = figures
        assert {"rows", "labels", "policies"} <= set(found)
        assert (found["rows"], found["labels"]) == (30, list(LABELS))
        assert {"full", "fixed", "retrieval", "raee", "cascade"} <= set(found["policies"])
        for policy in found["policies"].values():
            assert set(policy) >= {
                *("accuracy", "macro_f1", "matthews"),
                *("mean_layers", "rows_per_second"),
            }
            assert 0 <= policy["accuracy"] <= 1
            assert policy["rows_per_second"] > 0
            assert sum(policy["exits"].values()) == 30

    def test_agrees_with_what_a_classification_answers(self, figures):
        place, found, _ = figures
        labels = [row["label"] for row in sentences(30, seed=11)]
        for policy in ("full", "retrieval", "raee", "cascade"):
            arguments = ("--policy", policy)
            output = place.classify(
                str(place.root / "test.csv"),
                policy,
                *arguments,
                policy={"name": "raee", "k": 3},
            )
            answers = predictions_of(output)["label_name"].to_pylist()
            right = np.mean([a == b for a, b in zip(answers, labels, strict=True)])
            assert found["policies"][policy]["accuracy"] == pytest.approx(right)
            mean_layers = manifest_of(output)["mean_layers"]
            assert found["policies"][policy]["mean_layers"] == pytest.approx(mean_layers)
            assert found["policies"][policy]["exits"] == manifest_of(output)["exits"]

    def test_takes_the_single_exit_that_is_best_on_the_database(self, figures):
        place, found, _ = figures
        entries = entries_of(_version(place))
        answers = np.array(entries["answers"].to_pylist())[:, :5]
        right = (answers == entries["label"].to_numpy()[:, None]).sum(axis=0)
        assert list(found["policies"]["fixed"]["exits"]) == [f"head@{right.argmax()}"]

    def test_prints_a_table_with_a_line_for_each_policy(self, figures):
        _, found, answer = figures
        lines = answer.out.splitlines()
        assert lines[0].split()[:3] == ["policy", "accuracy", "macro-F1"]
        assert [line.split()[0] for line in lines[1:]] == list(found["policies"])
        for line, policy in zip(lines[1:], found["policies"].values(), strict=True):
            assert line.split()[1] == f"{policy['accuracy']:.3f}"


class TestVersions:
    def test_are_listed_newest_first_with_what_points_at_them(self, published):
        first = _version(published).name
        second = published.build(policy="full")
        raee("promote", "demo", first, "--store", published.store)
        raee("promote", "demo", first, "--store", published.store, "--alias", "old")
        answer = raee("versions", "demo", "--store", published.store)
        lines = answer.out.splitlines()
        assert [line.split()[0] for line in lines] == ["id", second, first]
        assert lines[2].split()[-2:] == ["old", "production"]
        accuracy = manifest_of(published.version(second))["metrics"]["full"]["accuracy"]
        assert f"{accuracy:.3f}" in lines[1]

    def test_are_listed_as_json(self, published):
        version = _version(published)
        answer = raee("versions", "demo", "--store", published.store, "--json")
        (line,) = json.loads(answer.out)
        manifest = manifest_of(version)
        assert (line["id"], line["rows"], line["aliases"]) == (version.name, 40, [])
        assert line["accuracy"] == pytest.approx(manifest["metrics"]["raee"]["accuracy"], abs=1e-4)
        assert line["full_accuracy"] == pytest.approx(
            manifest["metrics"]["full"]["accuracy"], abs=1e-4
        )

    def test_without_any_the_json_is_an_empty_list(self, place):
        answer = raee("versions", "demo", "--store", place.store, "--json")
        assert (answer.code, json.loads(answer.out)) == (0, [])

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
        second = published.build()
        store = ("--store", published.store)
        said = [
            raee("promote", "demo", first, *store),
            raee("promote", "demo", second, *store),
            raee("rollback", "demo", *store),
        ]
        assert [answer.out for answer in said] == [
            f"demo: production -> {first} (before: nothing)\n",
            f"demo: production -> {second} (before: {first})\n",
            f"demo: production -> {first} (before: {second})\n",
        ]
        answer = raee("rollback", "demo", *store)
        assert answer.code == 2
        assert "no version to roll back to" in answer.error

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
        files = manifest_of(version)["files"]
        answer = raee("verify", "demo", "--store", published.store)
        assert answer.code == 0
        size = sum(f["bytes"] for f in files)
        assert answer.out == (
            f"demo@{version.name}: {len(files)} files, {size:,} bytes, all as written\n"
        )

    def test_lists_every_damaged_file_and_exits_with_1(self, published):
        version = _version(published)
        (version / "entries/part-00000.parquet").unlink()
        index = version / "keys/layer-01.faiss"
        data = bytearray(index.read_bytes())
        data[-1] ^= 1
        index.write_bytes(data)
        answer = raee("verify", f"demo@{version.name}", "--store", published.store)
        assert answer.code == 1
        where = f"demo@{version.name}"
        assert answer.out.splitlines() == [
            f"{where}: entries/part-00000.parquet is missing",
            f"{where}: keys/layer-01.faiss has another SHA-256 than its manifest says",
        ]

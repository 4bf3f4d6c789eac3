"""Places to work in: a job, its corpus and its store; and the commands that users give there."""

import io
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import tests.orchestrator as orchestrator
from flows.cli.app import app, run
from storage.manifest import digest_of
from tests.orchestration.site import until
from tests.storage.corpora import write_corpus
from tests.texts import LABELS, sentences


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what is wrong; all others are progress."""
        lines = self.err.splitlines()
        assert lines, "nothing was said"
        assert lines[-1].startswith("raee: ")
        # Progress lines start with the time of day.
        assert [line for line in lines[:-1] if line[2:3] + line[5:6] != "::"] == []
        return lines[-1].removeprefix("raee: ")


def raee(*arguments: object) -> Answer:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(app, [str(a) for a in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


def start_raee(*arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from flows.cli.app import main; main()", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ) if env is None else env,
    )


def ask_server(path: str, body: dict[str, Any]) -> Any:
    """What the tests' Prefect server answers."""
    request = urllib.request.Request(
        f"{orchestrator.URL}/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def flow_runs(flow: str, name: str) -> list[dict[str, Any]]:
    """The runs of a flow for a database, oldest first, among the last 200."""
    # The server gives no more at once, and all tests together run more.
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
    runs = ask_server("flow_runs/filter", body)
    return [run for run in reversed(runs) if run["parameters"]["job"]["name"] == name]


def flow_states(flow: str, name: str) -> list[str]:
    """How the runs of a flow for a database ended, oldest first."""
    return [run["state_type"] for run in flow_runs(flow, name)]


class Workplace:
    """A folder with a job, its corpus and its store."""

    def __init__(self, root: Path, model_of: Callable[[str], str]) -> None:
        self.root = root
        self.model_of = model_of
        self.store = root / "store"

    def write(self, name: str, rows: Sequence[dict[str, Any]]) -> str:
        """Write a corpus; returns its path."""
        return write_corpus(self.root / name, rows)

    def job(self, **changed: Any) -> str:
        """A job file with some keys changed, and its corpus; returns its path."""
        if not (self.root / "train.csv").exists():
            self.write("train.csv", sentences(40))
        job = {
            "name": "demo",
            "store": str(self.store),
            "corpus": {"uri": str(self.root / "train.csv"), "id": "id"},
            "prompt": {"labels": {label: f"a {label} film" for label in LABELS}},
            "backbone": {
                "family": "sentence-encoder",
                "model": self.model_of("bert-encoder"),
                "dtype": "float32",
            },
            "key": {"layer": 1},
            "shard_rows": 20,
        }
        path = self.root / "job.yaml"
        path.write_text(yaml.safe_dump(job | changed))
        return str(path)

    def build(self, **changed: Any) -> str:
        """Build a version; returns its id."""
        answer = raee("build", self.job(**changed))
        assert answer.code == 0, answer.err
        return answer.out.strip()

    def classify(self, input: str, output: str = "out", *more: object, **changed: Any) -> Path:
        """Classify an input into a folder of this place; returns the folder."""
        arguments = ("--input", input, "--output", self.root / output, *more)
        answer = raee("classify", self.job(**changed), *arguments)
        assert answer.code == 0, answer.err
        assert answer.out.strip() == str(self.root / output)
        return self.root / output

    def version(self, version: str, name: str = "demo") -> Path:
        """The folder of a version."""
        return self.store / "databases" / name / "versions" / version

    def only_version(self, name: str = "demo") -> Path:
        """The folder of the only version that there is."""
        (version,) = self.version("", name).iterdir()
        return version

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file of the store and of any output, with its size and time of change."""
        return {
            str(path): (path.stat().st_size, path.stat().st_mtime_ns)
            for folder in (self.store, self.root / "out")
            for path in folder.rglob("*")
        }


def interrupted_after_a_shard(
    patch: pytest.MonkeyPatch, arguments: Sequence[object], output: Path
) -> None:
    """Run a classification that meets Ctrl-C once its first shard is written."""
    import tasks.classify.classification

    real, done = tasks.classify.classification.finish, []

    def finish(*args: Any) -> Any:
        if done:
            written = output / "_work/part-00000.json"
            until(30, "the first shard is written beside this one's walk", written.exists)
            raise KeyboardInterrupt
        done.append(True)
        return real(*args)

    with patch.context() as patched:
        patched.setattr(tasks.classify.classification, "finish", finish)
        assert raee("classify", *arguments).code == 130


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a version or an output."""
    return json.loads((folder / "manifest.json").read_text())


def say_in_manifest(version: Path, said: dict[str, Any]) -> None:
    """Let a version's manifest say something else, as if it had always said so."""
    said = said | {"digest": digest_of(said)}
    (version / "manifest.json").write_text(json.dumps(said))


def entries_of(version: Path) -> pa.Table:
    """A version's entries, read without our code."""
    return _parts(version / "entries")


def neighbours_of(version: Path) -> pa.Table:
    """A version's lists of neighbours, read without our code."""
    return _parts(version / "neighbours")


def predictions_of(output: Path) -> pa.Table:
    """A classification's predictions, read without our code."""
    return _parts(output)


def rejects_of(folder: Path) -> list[dict[str, Any]]:
    """The rejects of a version or an output, read without our code."""
    return _parts(folder / "rejects").to_pylist()


def _parts(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("part-*.parquet")))


def data_of(version: Path) -> dict[str, bytes]:
    """The bytes of a version's files, without its manifest and what was said of it."""
    return {
        str(path.relative_to(version)): path.read_bytes()
        for path in version.rglob("*")
        if path.is_file() and path.name not in ("manifest.json", "verdict.json")
    }


def repeated_data_of(version: Path) -> dict[str, bytes]:
    """The files that another build of the same rows repeats: not the report, which is dated."""
    return {path: data for path, data in data_of(version).items() if path != "report.html"}


def exits_of_entry(depth: int, *key_depths: int) -> list[str]:
    """The exits of an entry, in order, as the documentation has them."""
    depths = range(depth + 1)
    return [
        *(f"head@{d}" for d in depths),
        *(f"vote@{d}" for d in key_depths),
        *(f"{reader}@{d}" for reader in ("probe", "de3") for d in depths),
        *(f"logistic@{depth}", "words@0"),
        *(f"pool@{d}" for d in depths),
    ]

"""Broken or hostile versions: one clear line that names the file, and nothing is written."""

import hashlib
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.flows.jobs import manifest_of, raee, say_in_manifest
from tests.texts import sentences


@pytest.fixture
def broken(published):
    """Changes a file of the only version as if its manifest had always said so."""
    version = published.only_version()

    def change(path: str, data: bytes) -> None:
        (version / path).unlink()  # others may hold the same file
        (version / path).write_bytes(data)
        manifest = manifest_of(version)
        for file in manifest["files"]:
            if file["path"] == path:
                file |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        say_in_manifest(version, manifest)

    return change


def _commands(place):
    input = place.write("new.csv", sentences(5, seed=3))
    job = place.job()
    return [
        ("classify", job, "--input", input, "--output", place.root / "out"),
        ("tune", job),
        ("explain", job, "a good film"),
        ("prune", "demo", "--store", place.store),
    ]


def _assert_refused(place, *names: str) -> None:
    for command in _commands(place):
        before = place.files()
        answer = raee(*command)
        assert (answer.code, answer.out) == (2, ""), answer.err
        assert any(name in answer.error for name in names), answer.error
        assert "Traceback" not in answer.err
        assert place.files() == before


@pytest.mark.parametrize("size", [0, 3, 40, 0.5, -1])
def test_a_cut_index_is_named(published, broken, size):
    path = "keys/layer-01.faiss"
    data = (published.only_version() / path).read_bytes()
    broken(path, data[: int(size * len(data)) if isinstance(size, float) else size])
    _assert_refused(published, "layer-01.faiss")


def test_garbage_for_an_index_is_named(published, broken):
    broken("keys/layer-01.faiss", b"IxF2" + os.urandom(10_000))
    _assert_refused(published, "layer-01.faiss")


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": [1, 2]}),
        pa.table({"label": ["x"], "answers": ["y"], "confidences": [1.0]}),
    ],
)
def test_entries_of_other_columns_are_named(published, broken, table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    broken("entries/part-00000.parquet", sink.getvalue().to_pybytes())
    _assert_refused(published, "part-00000.parquet")


def test_garbage_for_entries_is_named(published, broken):
    broken("entries/part-00001.parquet", os.urandom(5_000))
    _assert_refused(published, "part-00001.parquet")


@pytest.mark.parametrize("content", [b"", b"{" * 100_000, os.urandom(10_000_000)])
def test_garbage_for_a_manifest_is_no_crash(published, content):
    (published.only_version() / "manifest.json").write_bytes(content)
    for command in _commands(published):
        answer = raee(*command)
        assert answer.code == 2, answer.err
        assert "manifest.json is damaged" in answer.error or "has no version" in answer.error
        assert "Traceback" not in answer.err


@pytest.mark.parametrize("path", ["../../../escaped", "/etc/passwd", "entries/../../x"])
def test_a_manifest_that_leads_elsewhere_is_refused(published, path):
    file = published.only_version() / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"][0]["path"] = path
    file.write_text(json.dumps(manifest))
    for command in _commands(published):
        answer = raee(*command)
        assert answer.code == 2, answer.err
        assert "manifest.json is damaged" in answer.error

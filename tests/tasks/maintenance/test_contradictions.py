from dataclasses import replace

import pytest

from storage.database import Database
from tasks.maintenance.contradictions import contradictions
from tasks.maintenance.leftovers import faults_of
from tests.tasks.versions import EXITS, NAME, Made, publish_made

_ROWS = [Made(str(i), f"text {i}", ("no", "yes")[i % 2], "no") for i in range(9)]
_CORPUS = {"rows": 9}


def _faults(store, version):
    return faults_of(Database(store, NAME).version(version))


def test_what_goes_together_has_no_fault(tmp_path):
    version = publish_made(str(tmp_path), _ROWS, corpus=_CORPUS)
    assert _faults(str(tmp_path), version) == []


def test_a_pruned_version_has_fewer_rows_than_its_corpus(tmp_path):
    version = publish_made(str(tmp_path), _ROWS, corpus={"rows": 20}, pruned={"of": "x"})
    assert _faults(str(tmp_path), version) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"labels": ["no", "maybe"]},
            ["manifest.json names the labels no, maybe, and in its prompt no, yes"],
        ),
        (
            {"prompt": {"labels": ["no", "yes"], "words": ["no"]}},
            ["manifest.json has not as many words in its prompt as it has labels, 2"],
        ),
        ({"prompt": {}}, ["manifest.json names the labels no, yes, and in its prompt none"]),
        (
            {"labels": ["no"], "prompt": {"labels": ["no"], "words": ["no"]}},
            [
                f"entries/part-0000{part}.parquet: column {column} goes up to 1, the labels of its "
                "manifest to 0"
                for part in (0, 1)
                for column in ("label", "answers")
            ],
        ),
        (
            {"exits": list(EXITS[:2])},
            [
                f"entries/part-0000{part}.parquet has the answers of 3 exits, its manifest names 2"
                for part in (0, 1)
            ],
        ),
        ({"exits": ["head@0", "head@1", "tail@2"]}, ["manifest.json: 'tail@2' is no exit"]),
        (
            {"rows": 10, "corpus": {"rows": 10}},
            [
                "manifest.json counts 9 rows of its entries; its other counts make 10",
                "manifest.json counts 9 rows of keys/layer-00.faiss; its other counts make 10",
            ],
        ),
        (
            {"corpus": {"rows": 8}},
            ["manifest.json counts 8 rows of its corpus; its other counts make 9"],
        ),
        (
            {"corpus": {"rows": 11}, "rejected": {"no label": 2}},
            ["manifest.json counts 0 rows of its rejects; its other counts make 2"],
        ),
    ],
    ids=str,
)
def test_what_does_not_is_named(tmp_path, changed, expected):
    version = publish_made(str(tmp_path), _ROWS, corpus=_CORPUS)
    manifest = Database(str(tmp_path), NAME).version(version).manifest().model_copy(update=changed)
    found = contradictions(Database(str(tmp_path), NAME).version(version).folder, manifest)
    assert len(found) == len(expected)
    for fault, start in zip(found, expected, strict=True):
        assert fault.startswith(start)


def test_files_that_are_not_what_they_were_are_not_asked(tmp_path):
    version = publish_made(str(tmp_path), _ROWS, labels=["no", "yes"], corpus={"rows": 8})
    folder = Database(str(tmp_path), NAME).version(version).folder
    folder.delete("entries/part-00001.parquet")
    assert _faults(str(tmp_path), version) == ["entries/part-00001.parquet is missing"]


def test_a_part_has_the_rows_that_the_manifest_says(tmp_path):
    store, paths = str(tmp_path), [f"entries/part-0000{part}.parquet" for part in (0, 1)]
    version = publish_made(store, _ROWS, corpus=_CORPUS)
    manifest = Database(store, NAME).version(version).manifest()
    shifted = dict(zip(paths, (4, 5), strict=True))  # as many in all
    files = [replace(f, rows=shifted.get(f.path, f.rows)) for f in manifest.files]
    folder = Database(store, NAME).version(version).folder
    assert contradictions(folder, manifest.model_copy(update={"files": files})) == [
        f"{paths[0]} has 5 rows, its manifest says 4",
        f"{paths[1]} has 4 rows, its manifest says 5",
    ]


def test_entries_that_are_no_parquet_are_named(tmp_path):
    store, path = str(tmp_path), "entries/part-00000.parquet"
    version = publish_made(store, _ROWS, corpus=_CORPUS)
    folder = Database(store, NAME).version(version).folder
    with folder.create(path) as file:
        file.write(b"garbage" * 9)
    (found,) = contradictions(folder, Database(store, NAME).version(version).manifest())
    assert found.startswith(f"{folder}/{path} is no Parquet: ")

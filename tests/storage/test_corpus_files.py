"""What a folder, a glob or an address stands for."""

import os
import socket
from pathlib import Path

import pytest

from storage.corpus import CorpusSpec
from storage.corpus_files import format_of, list_corpus
from storage.scan import count
from tests.raee.errors import refused
from tests.storage.corpora import read_all, uploaded, write_corpus

_ROWS = [{"id": f"r{i}", "text": f"text {i}", "label": "ab"[i % 2]} for i in range(4)]


@pytest.fixture(params=["local", "moto"])
def kind(request):
    return request.param


def _names(uri):
    return [file.name for file in list_corpus(uri).files]


def test_hidden_names_below_the_folder_are_left_out(tmp_path, store):
    for name in ("a.csv", "_temporary/0/part.csv", ".ipynb_checkpoints/a.csv", "._a.csv", "_x.csv"):
        path = tmp_path / "a/.hidden/_data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text\none\n")
    uri = uploaded(tmp_path / "a", store)
    assert _names(f"{uri}/.hidden/_data") == ["a.csv"]
    assert _names(f"{uri}/.hidden/_data/*") == ["a.csv"]
    assert _names(f"{uri}/.hidden/_data/_x.csv") == ["_x.csv"], "asked for by name"
    assert _names(f"{uri}/.hidden/_data/_*.csv") == ["_x.csv"]


def test_endings_count_in_any_case_and_what_is_not_read_is_said(tmp_path, store):
    for name in ("a.csv", "b.CSV", "c.JSONL", "d.tsv", "e.jsonl.zst", "f.Csv.GZ"):
        path = tmp_path / f"a/data/{name.lower()}"
        write_corpus(path, _ROWS)
        path.rename(path.with_name(name))
    for name in ("notes.txt", "more.TXT", "LICENSE", "b.xlsx"):
        (tmp_path / f"a/data/{name}").write_text("nothing")
    uri = f"{uploaded(tmp_path / 'a', store)}/data"
    found = list_corpus(uri)
    assert [f.name for f in found.files] == [
        *("a.csv", "b.CSV", "c.JSONL", "d.tsv", "e.jsonl.zst", "f.Csv.GZ")
    ]
    assert found.left_out_in_words() == "2 .txt, 1 without an ending, 1 .xlsx"
    assert len(read_all(CorpusSpec(uri=uri), 5)[1]) == 24


def test_what_is_not_read_is_logged(tmp_path, caplog):
    write_corpus(tmp_path / "a.csv", _ROWS)
    (tmp_path / "a.txt").touch()
    with caplog.at_level("WARNING", "raee"):
        count(CorpusSpec(uri=str(tmp_path)))
    assert caplog.messages == [f"corpus {tmp_path}: files that are not read: 1 .txt"]


def test_a_glob_that_matches_a_folder_reads_what_is_below_it(tmp_path, store):
    write_corpus(tmp_path / "a/a.csv", _ROWS[:2])
    write_corpus(tmp_path / "a/x.csv/part-0.csv", _ROWS[2:])
    (tmp_path / "a/x.csv/_SUCCESS").touch()
    uri = uploaded(tmp_path / "a", store)
    _, rows, _ = read_all(CorpusSpec(uri=f"{uri}/*.csv", id="id"), 3)
    assert [row.id for row in rows] == ["r0", "r1", "r2", "r3"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("_delta_log/00000000000000000000.json", "a Delta table"),
        (".hoodie/hoodie.properties", "a Hudi table"),
        ("metadata/v1.metadata.json", "an Iceberg table"),
    ],
)
def test_a_table_with_a_log_of_its_own_is_named_and_refused(tmp_path, store, name, what):
    write_corpus(tmp_path / "a/t/data.parquet", _ROWS)
    path = tmp_path / "a/t" / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    uri = uploaded(tmp_path / "a", store)
    for address in (f"{uri}/t", uri):
        with refused(f"/t is {what}: its files also hold rows that were deleted"):
            list_corpus(address)


def test_folders_named_after_columns_are_columns(tmp_path, store):
    for label, some in (("a%20b", _ROWS[:2]), ("c", _ROWS[2:]), ("__HIVE_DEFAULT_PARTITION__", [])):
        rows = [{"id": r["id"], "text": r["text"]} for r in some] or [{"id": "x", "text": "y"}]
        write_corpus(tmp_path / f"corpus/day=1/label={label}/part.parquet", rows)
    uri = uploaded(tmp_path / "corpus", store)
    for address in (uri, f"{uri}/*", f"{uri}/day=1/*/*.parquet"):
        _, rows, rejects = read_all(CorpusSpec(uri=address, id="id"), 3)
        assert [(row.id, row.label) for row in rows] == [
            ("r0", "a b"),
            ("r1", "a b"),
            ("r2", "c"),
            ("r3", "c"),
        ]
        assert [r.reason for r in rejects] == ["no label"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_what_a_row_says_itself_counts_more_than_its_folder(tmp_path, form):
    own = [{"text": "a", "label": "x"}, {"text": "b", "label": None}, {"text": "c", "label": "y"}]
    write_corpus(tmp_path / f"label=z/1.{form}", own)
    write_corpus(tmp_path / f"label=z/2.{form}", [{"text": "d"}])
    found, rows, rejects = read_all(CorpusSpec(uri=str(tmp_path)), 1)
    assert [row.label for row in rows] == ["x", "z", "y", "z"]
    assert found.labels == {"x": 1, "y": 1, "z": 2}
    assert rejects == []
    assert count(CorpusSpec(uri=str(tmp_path), text="label", label="text")).rows == 4


def test_links_are_followed(tmp_path):
    write_corpus(tmp_path / "elsewhere/deep/a.csv", _ROWS[:2])
    write_corpus(tmp_path / "data/b.csv", _ROWS[2:])
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/c.csv").symlink_to(tmp_path / "elsewhere/deep/a.csv")
    assert _names(str(tmp_path / "data")) == ["b.csv", "c.csv", "link/deep/a.csv"]


def test_a_link_that_leads_round_in_a_circle_is_named(tmp_path):
    write_corpus(tmp_path / "data/a.csv", _ROWS)
    (tmp_path / "data/back").symlink_to(tmp_path)
    with refused("data/back/data is a link to a folder above it|back is a link to a folder above"):
        list_corpus(str(tmp_path / "data"))


@pytest.mark.parametrize("address", ["data", "data/*", "data/x.csv"])
def test_what_is_no_file_is_named_at_once(tmp_path, address):
    write_corpus(tmp_path / "data/a.csv", _ROWS)
    path = tmp_path / "data/x.csv"

    def check(what):
        with refused(f"x.csv: {what}"):
            count(CorpusSpec(uri=f"{tmp_path}/{address}"))
        path.unlink()

    path.symlink_to("nowhere.csv")
    check("a link to what is not there")
    path.symlink_to("x.csv")
    check("a link to what is not there")
    os.mkfifo(path)
    check("a pipe, a socket or a device, no file")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # an address of a socket is short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)
        check("a pipe, a socket or a device, no file")


@pytest.mark.parametrize(
    "name", ["a::b.csv", "50%25.csv", "a#b?c.csv", " a .csv", "a\nb.csv", "[a].csv"]
)
def test_odd_names_are_read(tmp_path, name):
    write_corpus(tmp_path / f"data/{name}", _ROWS)
    for uri in (str(tmp_path / "data"), f"file://{tmp_path}/data", str(tmp_path / f"data/{name}")):
        _, rows, _ = read_all(CorpusSpec(uri=uri), 3)
        assert [row.id for row in rows] == [f"{name}:{i}" for i in range(1, 5)]


def test_a_name_that_is_no_utf_8_is_refused(tmp_path):
    write_corpus(tmp_path / "a.csv", _ROWS)
    os.rename(tmp_path / "a.csv", os.fsencode(tmp_path) + b"/a\xff.csv")
    with refused(r"the name of b'a\\xff.csv' is not UTF-8; rename it"):
        list_corpus(str(tmp_path))


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("a.csv", ".csv"),
        ("a.CSV.GZ", ".csv"),
        ("a.parquet.gz", ""),
        ("a.json.zst", ".json"),
        ("a.gz", ""),
        ("a", ""),
        ("csv", ""),
    ],
)
def test_a_format_is_known_by_the_ending(path, form):
    assert format_of(path) == form

"""A corpus is read alike wherever it lies: each test compares a store with the local disk."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.blocks import BLOCK
from storage.corpus import CorpusSpec, Span, read_batches, whole
from storage.corpus_files import CorpusFile, list_corpus
from storage.scan import count, read_shard, scan
from storage.store import Folder
from tests import s3
from tests.ports import free_ports
from tests.raee.errors import refused
from tests.storage.corpora import (
    COMPRESSED,
    FORMATS,
    read_all,
    read_span,
    split,
    uploaded,
    write_corpus,
)
from tests.storage.proxy import between, error

_ROWS = [
    {"id": f"row {i}", "text": f'line {i}, "quoted"\nand another 😀', "label": "ab"[i % 2]}
    for i in range(1_201)
]


# Ceph's gateway reads and lists as moto does: what is its own is tested where stores are written.
@pytest.fixture(scope="module", params=["local", "memory", "moto"])
def kind(request):
    return request.param


@pytest.mark.parametrize("form", [*FORMATS, *COMPRESSED])
def test_any_format_gives_the_same_shards(tmp_path, store, form):
    for number, some in enumerate(split(_ROWS, [650])):
        write_corpus(tmp_path / f"a/{number}.{form}", some, row_group=333)
    uri = uploaded(tmp_path / "a", store)
    found, rows, rejects = read_all(CorpusSpec(uri=uri, id="id"), 501)
    assert [row._asdict() for row in rows] == _ROWS
    assert rejects == []
    local = scan(CorpusSpec(uri=str(tmp_path / "a"), id="id"))
    assert (found.rows, found.labels, found.fingerprint) == (
        local.rows,
        local.labels,
        local.fingerprint,
    )


def test_of_a_parquet_file_only_the_rows_and_columns_that_are_wanted_are_moved(moto, store_on, use):
    folder = Folder(store_on("moto"))
    noise = np.random.default_rng(0).bytes(40_000).hex()  # does not get smaller
    rows = [{"id": f"row {i}", "text": noise[20 * i :][:200], "label": "a"} for i in range(4_000)]
    table = pa.Table.from_pylist(rows).append_column("other", pa.array([noise[:2_000]] * 4_000))
    with folder.create("a.parquet") as file:
        pq.write_table(table, file, row_group_size=1_000, use_dictionary=False, compression="none")
    moved = []

    def note(request):
        if asked := request.headers.get("Range"):
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            moved.append(last - first + 1)

    span = Span(CorpusFile(f"{folder.uri}/a.parquet", "a.parquet"), 2_200, 100)
    with between(moto, note) as watched:
        use(watched)
        found = read_span(CorpusSpec(uri=folder.uri, id="id"), span, True)
    assert [text for _, text in found] == [row["text"] for row in rows[2_200:2_300]]
    assert sum(moved) < 2 * 1_000 * 230, "a row group's text, id and label, and the file's end"


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_of_a_file_of_lines_little_more_than_a_shard_is_moved(tmp_path, moto, store_on, use, form):
    rows = [{"id": f"row {i}", "text": "x" * 1_000, "label": "a"} for i in range(30_000)]
    write_corpus(tmp_path / f"a/a.{form}", rows)
    spec = CorpusSpec(uri=uploaded(tmp_path / "a", store_on("moto")), id="id")
    shards = count(spec).shards(1_000)
    moved = []

    def note(request):
        if asked := request.headers.get("Range"):
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            moved.append(last - first + 1)

    with between(moto, note) as watched:
        use(watched)
        found, _ = read_shard(spec, shards[15], True, None)
    assert found["id"].to_list() == [f"row {i}" for i in range(15_000, 16_000)]
    # The header's read ahead, and the shard's.
    assert sum(moved) < 1_100_000 + 3 * BLOCK


def test_a_file_a_folder_and_a_glob_give_the_same_rows(tmp_path, store):
    write_corpus(tmp_path / "data/part.csv", _ROWS[:5])
    (tmp_path / "data/README.md").write_text("not a corpus")
    uri = uploaded(tmp_path, store)
    addresses = ("data/part.csv", "data", "data/", "data/*", "d*/p??t.[c]sv", "**/*.csv", "")
    answers = [read_all(CorpusSpec(uri=f"{uri}/{address}"), 2)[1] for address in addresses]
    assert [row.text for row in answers[0]] == [row["text"] for row in _ROWS[:5]]
    assert all(rows == answers[0] for rows in answers)


def test_files_have_the_same_names_and_order(tmp_path, store):
    names = [
        "b.csv",
        "a/z.csv",
        "a.csv",
        "c/a.jsonl",
        "two words.csv",
        "grün 😀%20.csv",
        "a+#b.csv",
    ]
    for name in names:
        write_corpus(tmp_path / f"a/{name}", [{"text": name, "label": "x"}])
    uri = uploaded(tmp_path / "a", store)
    rows = read_all(CorpusSpec(uri=uri), 3)[1]
    assert [row.text for row in rows] == sorted(names)
    assert [row.id for row in rows] == [f"{name}:1" for name in sorted(names)]
    assert all(file.uri.startswith(f"{uri}/") for file in list_corpus(uri).files)
    for file in list_corpus(uri).files:
        assert read_span(CorpusSpec(uri=uri), whole(file), True) == [(1, file.name)]


def test_what_has_come_meanwhile_is_seen(tmp_path, store):
    write_corpus(tmp_path / "a/a.csv", _ROWS[:2])
    uri = uploaded(tmp_path / "a", store)
    assert scan(CorpusSpec(uri=uri)).rows == 2
    write_corpus(tmp_path / "a/a.csv", _ROWS[:50])
    write_corpus(tmp_path / "a/b.csv", _ROWS[:3])
    uploaded(tmp_path / "a", store)
    assert scan(CorpusSpec(uri=uri)).rows == 53


class TestRefused:
    """In the same words, wherever it lies."""

    def _refused(self, uri, match):
        with refused(match):
            scan(CorpusSpec(uri=uri))

    def test_nothing_there(self, store):
        Folder(store).write_new("notes.txt", b"text,label\n")
        self._refused(f"{store}/a.csv", "a.csv: there is no such file or folder")
        self._refused(f"{store}/*.csv", r"\*.csv: no file there ends in .parquet, .csv")
        self._refused(store, "no file there ends in .parquet, .csv")
        self._refused(f"{store}/notes.txt", "notes.txt: not one of .parquet, .csv")

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.csv.gz", "a.parquet"])
    def test_empty_file(self, store, name):
        Folder(store).write_new(name, b"")
        self._refused(f"{store}/{name}", "is empty|cannot be read")

    @pytest.mark.parametrize("form", ["parquet", "csv.gz", "jsonl.xz", "csv.bz2"])
    def test_truncated_file(self, tmp_path, store, form):
        rows = [{"text": f"text {i * i}", "label": "x"} for i in range(5_000)]
        path = Path(write_corpus(tmp_path / f"a/a.{form}", rows))
        path.write_bytes(path.read_bytes()[:-500])
        uri = uploaded(tmp_path / "a", store)
        self._refused(uri, rf"{uri}/a.{form}( cannot be read| row \d+: no CSV): ")

    def test_missing_column(self, tmp_path, store):
        for form in ("parquet", "csv", "jsonl"):
            write_corpus(tmp_path / f"a/a.{form}", [{"sentence": "a", "label": "x"}])
        uri = uploaded(tmp_path / "a", store)
        for form in ("parquet", "csv", "jsonl"):
            self._refused(f"{uri}/a.{form}", f"{uri}/a.{form}: no column 'text'; it has 'sentence'")

    @pytest.mark.parametrize("address", ["a.csv", "*.csv", ""])
    def test_no_such_bucket(self, moto, use, address):
        use(moto)
        self._refused(f"s3://no-such-bucket/{address}", "there is no such|no file there ends in")

    @pytest.mark.parametrize("address", ["x/a.csv", "x/*.csv", "x"])
    def test_wrong_credentials(self, ceph, use, address):
        use(s3.Server(ceph.url, secret="wrongsecret"))
        self._refused(
            f"s3://tests/{address}",
            "(AWS_SECRET_ACCESS_KEY|access denied; check the credentials)",
        )


class TestServerThatFails:
    """Its fault is not the file's: what may pass is worth another try."""

    @pytest.fixture
    def uri(self, tmp_path, store_on):
        write_corpus(tmp_path / "a/a.csv", _ROWS)
        return f"{uploaded(tmp_path / 'a', store_on('moto'))}/a.csv"

    @pytest.mark.parametrize("status", [500, 503])
    def test_while_it_lists_or_reads(self, moto, use, uri, status):
        (file,) = list_corpus(uri).files
        fail = (status, error("InternalError" if status == 500 else "ServiceUnavailable"))
        with between(moto, lambda r: fail if r.method == "GET" else None) as spoilt:
            use(spoilt, AWS_MAX_ATTEMPTS="1")
            for ask in (
                lambda: list_corpus(uri.rpartition("/")[0]),
                lambda: list(read_batches(CorpusSpec(uri=uri), whole(file), True)),
            ):
                with pytest.raises(OSError, match=f"{uri[:-6]}.* the server says (Int|Serv)"):
                    ask()

    def test_before_it_answers_at_all(self, use, uri):
        use(s3.Server(f"http://127.0.0.1:{free_ports(1)}"), AWS_MAX_ATTEMPTS="1")
        begun = time.monotonic()
        with pytest.raises(ConnectionError, match=f"corpus {uri}: .* does not answer"):
            list_corpus(uri)
        assert time.monotonic() - begun < 60

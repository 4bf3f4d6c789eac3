import gzip
import json
import tempfile
from pathlib import Path
from unittest.mock import patch

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storage.scan
from storage.corpus import CorpusSpec, Span, corpus_files, read_records, whole
from storage.scan import read_shard, scan
from tests.raee.errors import refused
from tests.storage.corpora import COMPRESSED, FORMATS, read_all, split, write_corpus

_LEGAL_TEXT = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('\0\r\n",\ufeffא😀\u2028')),
    min_size=1,
    max_size=30,
).filter(lambda text: not text.isspace())


def _rows(n):
    return [
        {
            "id": f"row {i}",
            "text": f'line one of {i}, "quoted"\nline two\r\n' + "😀 שלום" * (i % 5),
            "label": "abc"[i % 3],
        }
        for i in range(n)
    ]


@given(
    texts=st.lists(_LEGAL_TEXT, min_size=1, max_size=25),
    sizes=st.lists(st.integers(1, 8), max_size=3),
    form=st.sampled_from(["parquet", "csv", "jsonl", "csv.gz", "jsonl.gz"]),
    shard_rows=st.integers(1, 30),
    row_group=st.integers(1, 7),
    mark_every=st.sampled_from([2, 3, 500]),
)
@settings(max_examples=250)
def test_any_legal_text_comes_back_in_order_however_it_is_stored(
    texts, sizes, form, shard_rows, row_group, mark_every
):
    # Places to start reading from, so dense that even these small files have some.
    marks = patch.object(storage.scan, "_MARK_EVERY", mark_every)
    with tempfile.TemporaryDirectory() as folder, marks:
        expected = []
        for number, some in enumerate(split(texts, sizes)):
            path = Path(folder, f"{number}.{form}")
            if some:
                write_corpus(path, [{"text": t, "label": "x"} for t in some], row_group)
            expected += [(f"{path.name}:{i}", text) for i, text in enumerate(some, 1)]
        _, rows, rejects = read_all(CorpusSpec(uri=folder), shard_rows)
    assert [(row.id, row.text) for row in rows] == expected
    assert rejects == []


@pytest.mark.parametrize("form", [*FORMATS, *COMPRESSED])
@pytest.mark.parametrize("shard_rows", [7, 499, 500, 501, 5000])
def test_shards_start_where_the_one_before_ended(tmp_path, form, shard_rows):
    rows = _rows(1_301)
    for number, some in enumerate(split(rows, [650])):
        write_corpus(tmp_path / f"{number}.{form}", some, row_group=333)
    found, read, rejects = read_all(CorpusSpec(uri=str(tmp_path), id="id"), shard_rows)
    assert [row._asdict() for row in read] == rows
    assert rejects == []
    assert found.rows == found.total == 1_301
    assert [sum(span.rows for span in shard) for shard in found.shards(shard_rows)] == [
        min(shard_rows, 1_301 - start) for start in range(0, 1_301, shard_rows)
    ]


def test_ids_without_a_column_do_not_depend_on_the_shards(tmp_path):
    for number, some in enumerate(split(_rows(30), [11])):
        write_corpus(tmp_path / f"sub/{number}.csv", some)
    write_corpus(tmp_path / "sub/deeper/0.jsonl", _rows(3))
    spec = CorpusSpec(uri=str(tmp_path))
    ids = [[row.id for row in read_all(spec, n)[1]] for n in (1, 4, 100)]
    assert ids[0] == ids[1] == ids[2]
    assert len(set(ids[0])) == 33
    assert {"0.csv:1", "1.csv:19", "deeper/0.jsonl:3"} <= set(ids[0])


def test_a_file_a_folder_and_a_glob_give_the_same_rows(tmp_path):
    path = write_corpus(tmp_path / "data/part.csv", _rows(5))
    (tmp_path / "data/README.md").write_text("not a corpus")
    addresses = (path, str(tmp_path / "data"), f"{tmp_path}/data/*", f"{tmp_path}/d*/p??t.[c]sv")
    answers = [read_all(CorpusSpec(uri=uri), 2) for uri in addresses]
    assert all(rows == answers[0][1] for _, rows, _ in answers)
    assert all(found.fingerprint == answers[0][0].fingerprint for found, _, _ in answers)
    assert [row.text for row in answers[0][1]] == [row["text"] for row in _rows(5)]


def test_a_file_whose_name_looks_like_a_glob_is_read(tmp_path):
    uri = write_corpus(tmp_path / "part[1].csv", _rows(2))
    assert [file.name for file in corpus_files(uri)] == ["part[1].csv"]


def test_files_are_read_in_the_order_of_their_paths(tmp_path):
    for name in ("b.csv", "a/z.csv", "a.csv", "c/a.csv"):
        write_corpus(tmp_path / name, [{"text": name, "label": "x"}])
    _, rows, _ = read_all(CorpusSpec(uri=str(tmp_path)), 3)
    assert [row.text for row in rows] == sorted(row.text for row in rows)
    assert [row.id for row in rows] == [f"{row.text}:1" for row in rows]


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "csv.gz"])
def test_a_corpus_need_not_be_local(tmp_path, form):
    local = write_corpus(tmp_path / f"a.{form}", _rows(600))
    with fsspec.open(f"memory://corpora/{form}/a.{form}", "wb") as file:
        file.write(Path(local).read_bytes())
    answers = [
        read_all(CorpusSpec(uri=uri, id="id"), 70)
        for uri in (local, f"memory://corpora/{form}", f"memory://corpora/{form}/*.{form}")
    ]
    assert len(answers[0][1]) == 600
    assert all(rows == answers[0][1] for _, rows, _ in answers)


def test_parquet_and_csv_of_several_types_say_the_same(tmp_path):
    table = pa.table(
        {
            "other": [[1], [2], [3]],
            "id": pa.array([10, 11, 12], pa.int64()),
            "text": pa.array(["a", "b", "a"]).dictionary_encode(),
            "label": pa.array([0.0, 1.0, 0.0], pa.float64()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("label,id,text\n0,10,a\n1,11,b\n0,12,a\n")
    spec = CorpusSpec(uri="", id="id")
    found = [
        read_all(spec.model_copy(update={"uri": str(tmp_path / name)}), 2, declared=["no", "yes"])
        for name in ("a.parquet", "a.csv")
    ]
    assert found[0][1] == found[1][1]
    assert [row.label for row in found[0][1]] == ["no", "yes", "no"]
    assert found[0][0].fingerprint == found[1][0].fingerprint


def test_columns_have_the_names_that_the_job_says(tmp_path):
    rows = [{"te.xt": "a", "Klasse": "x", "text": "other", "label": "y", "nr": 1}]
    for form in ("parquet", "csv", "jsonl"):
        uri = write_corpus(tmp_path / f"a.{form}", rows)
        _, read, _ = read_all(CorpusSpec(uri=uri, id="nr", text="te.xt", label="Klasse"), 1)
        assert read == [("1", "a", "x")]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    for name, content in (("a.csv", "text,label\nx,y\n"), ("a.jsonl", '{"text":"x","label":"y"}')):
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
        _, rows, _ = read_all(CorpusSpec(uri=str(tmp_path / name)), 1)
        assert [(row.text, row.label) for row in rows] == [("x", "y")]


def test_blank_lines_are_no_rows(tmp_path):
    csv_file, json_file = tmp_path / "a.csv", tmp_path / "a.jsonl"
    csv_file.write_text("\n\ntext,label\n\na,x\n\n\nb,x\n\n")
    json_file.write_text('\n{"text":"a","label":"x"}\n  \n\n{"text":"b","label":"x"}\n\n')
    for file in (csv_file, json_file):
        for shard_rows in (1, 5):
            found, rows, _ = read_all(CorpusSpec(uri=str(file)), shard_rows)
            assert [(r.id, r.text) for r in rows] == [
                (f"{file.name}:1", "a"),
                (f"{file.name}:2", "b"),
            ]
            assert found.total == 2


def test_a_last_line_needs_no_newline(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,x")
    (tmp_path / "b.jsonl").write_text('{"text":"a","label":"x"}\n{"text":"b","label":"x"}')
    _, rows, _ = read_all(CorpusSpec(uri=str(tmp_path)), 3)
    assert [row.text for row in rows] == ["a", "b", "a", "b"]


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_a_text_may_be_longer_than_a_csv_field_usually_is(tmp_path, form):
    text = "long " * 60_000
    assert len(text) > 131_072
    uri = write_corpus(tmp_path / f"a.{form}", [{"text": text, "label": "x"}])
    assert read_all(CorpusSpec(uri=uri), 1)[1][0].text == text


def test_an_empty_file_among_others_is_no_fault(tmp_path):
    write_corpus(tmp_path / "b.csv", _rows(2))
    for name in ("a.csv", "c.csv", "a.jsonl"):
        (tmp_path / name).touch()
    pq.write_table(pa.table({"text": ["x"], "label": ["y"]}).slice(1), tmp_path / "a.parquet")
    found, rows, _ = read_all(CorpusSpec(uri=str(tmp_path)), 1)
    assert [row.id for row in rows] == ["b.csv:1", "b.csv:2"]
    assert len(found.shards(1)) == 2


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_a_span_reads_its_own_rows_and_says_their_numbers(tmp_path, form):
    spec = CorpusSpec(uri=write_corpus(tmp_path / f"a.{form}", _rows(40), row_group=15))
    (file,) = corpus_files(spec.uri)
    for start, rows in ((0, 1), (14, 3), (30, 10), (39, 1), (35, 99), (40, 5)):
        records = list(read_records(spec, Span(file, start, rows), True))
        expected = range(start, min(start + rows, 40))
        assert [r.row for r in records] == [i + 1 for i in expected]
        assert [r.text for r in records] == [_rows(40)[i]["text"] for i in expected]


class TestUnusableRows:
    """Each goes to the rejects with its file, row and reason; the others are read."""

    def _reasons(self, path, declared=None):
        found, rows, rejects = read_all(CorpusSpec(uri=str(path)), 2, declared=declared)
        assert found.rows == len(rows)
        assert found.rejected == {
            reason: sum(r.reason == reason for r in rejects) for reason in found.rejected
        }
        assert sum(found.rejected.values()) == len(rejects)
        assert all(r.file == str(path) and r.id == f"{path.name}:{r.row}" for r in rejects)
        assert [row.id for row in rows] == [
            f"{path.name}:{n}"
            for n in range(1, found.total + 1)
            if n not in [r.row for r in rejects]
        ]
        return {r.row: r.reason for r in rejects}

    def test_in_parquet(self, tmp_path):
        nan = float("nan")
        texts = ["good", None, "", " \t\n", "good", "good", "good"]
        labels = [1.0, 1.0, 1.0, 1.0, None, nan, 0.0]
        pq.write_table(
            pa.table({"text": texts, "label": pa.array(labels, from_pandas=False)}),
            tmp_path / "a.parquet",
        )
        assert self._reasons(tmp_path / "a.parquet") == {
            2: "text is null",
            3: "text is empty",
            4: "text is blank",
            5: "no label",
            6: "no label",
        }

    def test_in_parquet_whose_text_is_no_utf_8(self, tmp_path):
        raw = pa.array([b"good", None, b"bad \xff\xfe", "grün".encode()], pa.binary())
        text = pa.Array.from_buffers(pa.string(), 4, raw.buffers(), raw.null_count)
        pq.write_table(pa.table({"text": text, "label": ["x"] * 4}), tmp_path / "a.parquet")
        assert self._reasons(tmp_path / "a.parquet") == {
            2: "text is null",
            3: "text is not valid UTF-8",
        }

    def test_in_parquet_whose_text_is_no_string(self, tmp_path):
        pq.write_table(pa.table({"text": [1, None], "label": ["x", "x"]}), tmp_path / "a.parquet")
        write_corpus(tmp_path / "b.parquet", [{"text": "good", "label": "x"}])
        _, rows, rejects = read_all(CorpusSpec(uri=str(tmp_path)), 2)
        assert [row.id for row in rows] == ["b.parquet:1"]
        assert [r.reason for r in rejects] == ["text is no string but int", "text is null"]

    def test_in_csv(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(
            b'text,label\ngood,x\n,x\n"  ",x\ngood,\ngood, \n\ngood\ngood,x,y\n\xff\xfe,x\n'
            b"good,\xff\ngood,x\n"
        )
        assert self._reasons(tmp_path / "a.csv") == {
            2: "text is empty",
            3: "text is blank",
            4: "no label",
            5: "no label",
            6: "1 fields where the header has 2",
            7: "3 fields where the header has 2",
            8: "text is not valid UTF-8",
            9: "no label",
        }

    def test_in_json_lines(self, tmp_path):
        lines = [
            b'{"text": "good", "label": "x"}',
            b'{"text": "cut off", "lab',
            b'["no", "object"]',
            b'{"text": null, "label": "x"}',
            b'{"text": "no label"}',
            b'{"label": "no text"}',
            b'{"text": 5, "label": "x"}',
            b'{"text": "\\ud800", "label": "x"}',
            b'{"text": "\xff", "label": "x"}',
            b'{"text": "good", "label": NaN}',
            b'{"text": "good", "label": null}',
            b'{"text": "\\ud83d\\ude00 is no lone surrogate", "label": "x"}',
            b"[" * 100_000,
        ]
        (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
        assert self._reasons(tmp_path / "a.jsonl") == {
            2: "no JSON",
            3: "no JSON object",
            4: "text is null",
            5: "no label",
            6: "text is null",
            7: "text is no string but int",
            8: "text is not valid UTF-8",
            9: "text is not valid UTF-8",
            10: "no label",
            11: "no label",
            13: "no JSON",
        }

    def test_without_an_id_where_there_should_be_one(self, tmp_path):
        rows = [{"id": i, "text": "good", "label": "x"} for i in ("a", "", None, "b")]
        for form in ("csv", "jsonl", "parquet"):
            uri = write_corpus(tmp_path / f"a.{form}", rows)
            _, read, rejects = read_all(CorpusSpec(uri=uri, id="id"), 3)
            assert [row.id for row in read] == ["a", "b"]
            assert [(r.id, r.row, r.reason) for r in rejects] == [
                (None, 2, "no id"),
                (None, 3, "no id"),
            ]

    def test_are_few_reasons_however_many_rows(self, tmp_path):
        lines = ["{" * n + " " * (50 - n) for n in range(1, 40)]
        (tmp_path / "a.jsonl").write_text("\n".join(['{"text":"a","label":"x"}', *lines]))
        assert set(self._reasons(tmp_path / "a.jsonl").values()) == {"no JSON"}

    def test_need_no_label_where_none_is_read(self, tmp_path):
        (tmp_path / "a.csv").write_text("text\ngood\n\nalso good\n")
        _, rows, rejects = read_all(CorpusSpec(uri=str(tmp_path)), 2, labelled=False)
        assert [(row.text, row.label) for row in rows] == [("good", None), ("also good", None)]
        assert rejects == []


class TestRefused:
    """A corpus that cannot be read at all is one clear line."""

    def _refused(self, path, match, **kwargs):
        with refused(match):
            scan(CorpusSpec(uri=str(path)), True, **kwargs)

    def test_no_such_file(self, tmp_path):
        self._refused(tmp_path / "a.csv", "a.csv: there is no such file or folder")

    def test_glob_that_nothing_matches(self, tmp_path):
        self._refused(tmp_path / "*.csv", r"\*.csv: no file there ends in .parquet, .csv")

    def test_folder_without_a_corpus(self, tmp_path):
        (tmp_path / "notes.txt").write_text("text,label\n")
        self._refused(tmp_path, "no file there ends in .parquet, .csv, .jsonl")

    @pytest.mark.parametrize("name", ["a.txt", "a", "a.parquet.gz", "a.csv.zip", "csv"])
    def test_file_of_an_unknown_kind(self, tmp_path, name):
        (tmp_path / name).write_text("text,label\na,b\n")
        self._refused(tmp_path / name, f"{name}: not one of .parquet, .csv")

    def test_empty_address(self):
        self._refused("", "address is empty")

    def test_unknown_protocol(self):
        self._refused("nowhere://bucket/a.csv", "nowhere://bucket/a.csv")

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.csv.gz"])
    @pytest.mark.parametrize("content", ["", "\n\n"])
    def test_empty_file(self, tmp_path, name, content):
        data = content.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        self._refused(tmp_path / name, "is empty")

    def test_header_and_nothing_else(self, tmp_path):
        (tmp_path / "a.csv").write_text("text,label\n")
        self._refused(tmp_path, "is empty")

    def test_empty_parquet(self, tmp_path):
        pq.write_table(pa.table({"text": ["x"], "label": ["y"]}).slice(1), tmp_path / "a.parquet")
        self._refused(tmp_path, "is empty")

    @pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
    def test_missing_column_with_the_columns_that_are_there(self, tmp_path, form):
        uri = write_corpus(tmp_path / f"a.{form}", [{"sentence": "a", "label": "x", "nr": 1}])
        self._refused(uri, r"a\.\w+: no column 'text'; it has 'sentence', 'label', 'nr'")

    def test_missing_column_in_a_later_file(self, tmp_path):
        write_corpus(tmp_path / "a.csv", [{"text": "a", "label": "x"}])
        write_corpus(tmp_path / "b.csv", [{"text": "a", "class": "x"}])
        self._refused(tmp_path, "b.csv: no column 'label'; it has 'text', 'class'")

    def test_two_columns_of_one_name(self, tmp_path):
        (tmp_path / "a.csv").write_text("text,label,text\na,x,b\n")
        self._refused(tmp_path / "a.csv", "a.csv: 2 columns are named 'text'")
        columns = [pa.array(["a"]), pa.array(["x"]), pa.array(["b"])]
        table = pa.Table.from_arrays(columns, ["text", "label", "text"])
        pq.write_table(table, tmp_path / "a.parquet")
        self._refused(tmp_path / "a.parquet", "a.parquet: 2 columns are named 'text'")

    @pytest.mark.parametrize("harm", ["empty", "truncated", "head", "middle", "footer", "not"])
    def test_corrupt_parquet(self, tmp_path, harm):
        rows = [{"text": f"text {i * i}", "label": "x"} for i in range(500)]
        path = Path(write_corpus(tmp_path / "a.parquet", rows))
        data = path.read_bytes()
        harmed = {
            "empty": b"",
            "truncated": data[: len(data) // 2],
            "head": b"\0" * 1_000 + data[1_000:],
            "middle": data[:200] + b"\xff" * 400 + data[600:],
            "footer": data[:-100] + b"\xff" * 80 + data[-20:],
            "not": b"text,label\na,b\n" * 10,
        }
        path.write_bytes(harmed[harm])
        self._refused(path, "a.parquet cannot be read: ")

    @pytest.mark.parametrize("form", COMPRESSED)
    @pytest.mark.parametrize("harm", ["truncated", "middle", "not"])
    def test_corrupt_compression(self, tmp_path, form, harm):
        rows = [{"text": f"text {i * i}", "label": "x"} for i in range(5_000)]
        path = Path(write_corpus(tmp_path / f"a.{form}", rows))
        data = path.read_bytes()
        middle = len(data) // 2
        harmed = {
            "truncated": data[:middle],
            "middle": data[:middle] + b"\xff" * 200 + data[middle + 200 :],
            "not": b"text,label\na,b\n",
        }
        path.write_bytes(harmed[harm])
        # What a damaged stream still gives may be no CSV before its checksum is seen to be wrong.
        self._refused(path, rf"a.{form}( cannot be read| row \d+: no CSV): ")

    def test_csv_with_an_open_quote(self, tmp_path):
        (tmp_path / "a.csv").write_text('text,label\ngood,x\n"never closed,x\n')
        self._refused(tmp_path, "a.csv row 2: no CSV: ")

    def test_csv_with_the_line_ends_of_old_macs(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(b"text,label\ra,x\r")
        self._refused(tmp_path, "a.csv: no CSV: new-line character seen in unquoted field$")

    def test_csv_in_utf_16(self, tmp_path):
        (tmp_path / "a.csv").write_text("text,label\na,b\n", encoding="utf-16")
        self._refused(tmp_path, "a.csv: no column 'text'")

    def test_nothing_but_unusable_rows(self, tmp_path):
        (tmp_path / "a.csv").write_text('text,label\n"",x\n')
        self._refused(tmp_path, "1 of 1 rows cannot be used", max_reject_fraction=1.0)


def test_unusable_rows_are_an_error_only_above_the_fraction_allowed(tmp_path):
    rows = [{"text": "" if i in (3, 7) else "good", "label": "x"} for i in range(20)]
    uri = write_corpus(tmp_path / "a.csv", rows)
    assert scan(CorpusSpec(uri=uri), True, None, 0.1).rejected == {"text is empty": 2}
    with refused(
        r"2 of 20 rows cannot be used \(text is empty: 2\), more than max_reject_fraction 0.09 "
        r"allows; the first is .*a.csv row 4"
    ):
        scan(CorpusSpec(uri=uri), True, None, 0.09)
    with refused("max_reject_fraction 0 allows"):
        scan(CorpusSpec(uri=uri), True, None, 0.0)


def test_a_json_file_that_is_one_list_is_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a", "label": "x"}]))
    with refused("no JSON object"):
        scan(CorpusSpec(uri=str(tmp_path)), True)


def test_reading_a_corpus_leaves_no_file_open(tmp_path):
    # pytest makes an unclosed file an error; half a file read must close it, too.
    for form in ("parquet", "csv", "jsonl.gz"):
        spec = CorpusSpec(uri=write_corpus(tmp_path / f"a.{form}", _rows(10)))
        records = read_records(spec, whole(corpus_files(spec.uri)[0]), True)
        assert next(records).row == 1
        records.close()


def test_a_shard_across_files_keeps_their_order(tmp_path):
    for number, some in enumerate(split(_rows(9), [2, 3])):
        write_corpus(tmp_path / f"{number}.jsonl", some)
    spec = CorpusSpec(uri=str(tmp_path), id="id")
    shards = scan(spec, True).shards(4)
    assert [[span.rows for span in shard] for shard in shards] == [[2, 2], [1, 3], [1]]
    read = [[row.id for row in read_shard(spec, shard, True, None)[0]] for shard in shards]
    assert read == [[f"row {i}" for i in some] for some in ([0, 1, 2, 3], [4, 5, 6, 7], [8])]

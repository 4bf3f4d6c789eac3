"""Rows that cannot be used, and corpora that cannot be read."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.corpus import CorpusSpec
from storage.scan import count, scan
from tests.raee.errors import refused
from tests.storage.corpora import COMPRESS, COMPRESSED, read_all, write_corpus


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
            9: "label is not valid UTF-8",
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
            scan(CorpusSpec(uri=str(path)), **kwargs)

    def test_no_such_file(self, tmp_path):
        self._refused(tmp_path / "a.csv", "a.csv: there is no such file or folder")

    def test_glob_that_nothing_matches(self, tmp_path):
        self._refused(tmp_path / "*.csv", r"\*.csv: no file there ends in .parquet, .csv")

    def test_folder_without_a_corpus(self, tmp_path):
        (tmp_path / "notes.txt").write_text("text,label\n")
        self._refused(tmp_path, "no file there ends in .parquet, .csv, .tsv, .jsonl")

    @pytest.mark.parametrize("name", ["a.txt", "a", "a.parquet.gz", "a.csv.zip", "csv"])
    def test_file_of_an_unknown_kind(self, tmp_path, name):
        (tmp_path / name).write_text("text,label\na,b\n")
        self._refused(tmp_path / name, f"{name}: not one of .parquet, .csv")

    def test_empty_address(self):
        self._refused("", "address is empty")

    def test_unknown_protocol(self):
        self._refused("nowhere://bucket/a.csv", "nowhere://bucket/a.csv")

    @pytest.mark.parametrize("protocol", ["gs", "hdfs", "sftp"])
    def test_protocol_that_needs_more_than_is_installed(self, protocol):
        self._refused(f"{protocol}://127.0.0.1:1/a.csv", f"corpus {protocol}://127.0.0.1:1/a.csv: ")

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

    @pytest.mark.parametrize("ending", COMPRESS)
    @pytest.mark.parametrize("what", ["damaged at its start", "no stream"])
    def test_a_second_stream_that_is(self, tmp_path, ending, what):
        first, second = map(COMPRESS[ending], (b"text,label\na,x\n", b"b,x\n"))
        second = b"\xff" * 4 + second[4:] if what == "damaged at its start" else b"b,x\n"
        (tmp_path / f"a.csv.{ending}").write_bytes(first + second)
        self._refused(tmp_path, rf"a.csv.{ending} cannot be read: ")

    def test_csv_with_an_open_quote(self, tmp_path):
        (tmp_path / "a.csv").write_text('text,label\ngood,x\n"never closed,x\n')
        self._refused(tmp_path, "row 2: no CSV: .*a quoted field does not end; corpus.quote: null")

    def test_csv_with_a_quote_that_is_not_doubled(self, tmp_path):
        (tmp_path / "a.csv").write_text('text,label\n"say \\"no\\"",x\n')
        self._refused(tmp_path, "row 1: no CSV: .*a quote in a quoted field is written twice")

    def test_csv_with_the_line_ends_of_old_macs(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(b"text,label\ra,x\r")
        self._refused(tmp_path, r"a.csv: no CSV: new-line .* field; lines end with \\n or")

    def test_csv_in_utf_16(self, tmp_path):
        (tmp_path / "a.csv").write_text("text,label\na,b\n", encoding="utf-16")
        self._refused(tmp_path, "a.csv: no column 'text'")

    def test_nothing_but_unusable_rows(self, tmp_path):
        (tmp_path / "a.csv").write_text('text,label\n"",x\n')
        self._refused(tmp_path, "1 of 1 rows cannot be used", max_reject_fraction=1.0)


def test_unusable_rows_are_an_error_only_above_the_fraction_allowed(tmp_path):
    rows = [{"text": "" if i in (3, 7) else "good", "label": "x"} for i in range(20)]
    uri = write_corpus(tmp_path / "a.csv", rows)
    assert scan(CorpusSpec(uri=uri), None, 0.1).rejected == {"text is empty": 2}
    with refused(
        r"2 of 20 rows cannot be used \(text is empty: 2\), more than max_reject_fraction 0.09 "
        r"allows; the first is .*a.csv row 4"
    ):
        scan(CorpusSpec(uri=uri), None, 0.09)
    with refused("max_reject_fraction 0 allows"):
        scan(CorpusSpec(uri=uri), None, 0.0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{\n "text": "a",\n "label": "x"\n}\n', "a JSON object over several lines"),
        ("text,label\na,x\n", "no JSON lines: none of the first is an object"),
        ("\0" * 100, "no JSON lines"),
    ],
)
def test_what_is_no_json_lines_is_refused(tmp_path, content, said):
    (tmp_path / "a.json").write_text(content)
    for look in (scan, count):
        with refused(f"a.json: {said}"):
            look(CorpusSpec(uri=str(tmp_path)))


def test_a_json_file_that_is_one_list_is_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a", "label": "x"}]))
    with refused("no JSON object"):
        scan(CorpusSpec(uri=str(tmp_path)))

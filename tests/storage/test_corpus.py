import tempfile
from pathlib import Path
from unittest.mock import patch

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storage.blocks
from storage.corpus import CorpusSpec, Span, read_batches, whole
from storage.corpus_files import list_corpus
from storage.scan import read_shard, scan
from tests.storage.corpora import (
    COMPRESS,
    COMPRESSED,
    FORMATS,
    read_all,
    read_span,
    split,
    write_corpus,
)

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
    block=st.sampled_from([1, 7, 40, 1 << 20]),
    mark_every=st.sampled_from([1, 2, 500]),
)
@settings(max_examples=250)
def test_any_legal_text_comes_back_in_order_however_it_is_stored(
    texts, sizes, form, shard_rows, row_group, block, mark_every
):
    # So small that even these files have several.
    blocks = patch.multiple(storage.blocks, BLOCK=block, MARK_EVERY=mark_every)
    with tempfile.TemporaryDirectory() as folder, blocks:
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


@pytest.mark.parametrize("odd", [b"", b"\xff", b"\xef\xbb\xbf", b'a "b"'], ids=ascii)
def test_blank_lines_move_no_row_of_a_shard(tmp_path, odd):
    texts = [(odd if i % 50 == 0 else b"") + b"text %d" % i for i in range(5_000)]
    lines = [text + b",x\n" + b"\n" * (i % 3) for i, text in enumerate(texts)]
    (tmp_path / "a.csv").write_bytes(b"text,label\n" + b"".join(lines))
    found, rows, rejects = read_all(CorpusSpec(uri=str(tmp_path)), 700)
    assert found.total == 5_000
    good = [text for text in texts if b"\xff" not in text]
    assert [row.text.encode() for row in rows] == good
    assert {r.reason for r in rejects} <= {"text is not valid UTF-8"}


def test_a_shard_may_lack_a_key_that_its_file_has(tmp_path):
    rows = [{"text": f"text {i}"} | ({"label": "x"} if i >= 1_500 else {}) for i in range(3_000)]
    _, read, rejects = read_all(CorpusSpec(uri=write_corpus(tmp_path / "a.jsonl", rows)), 1_000)
    assert [r.reason for r in rejects] == ["no label"] * 1_500
    assert [row.text for row in read] == [row["text"] for row in rows[1_500:]]


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
    assert [file.name for file in list_corpus(uri).files] == ["part[1].csv"]


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


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_file_may_have_been_compressed_in_parts(tmp_path, ending):
    compress = COMPRESS[ending]
    rows = [f"text {i * i},x\n" for i in range(50_000)]  # more than is read at once
    parts = [b"text,label\n", "".join(rows[:7]).encode(), b"", "".join(rows[7:]).encode()]
    padding = b"" if ending == "zst" else b"\0" * 4
    (tmp_path / f"a.csv.{ending}").write_bytes(padding.join(map(compress, parts)) + padding)
    _, found, rejects = read_all(CorpusSpec(uri=str(tmp_path)), 20_000)
    assert [f"{row.text},{row.label}\n" for row in found] == rows
    assert rejects == []


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
    (file,) = list_corpus(spec.uri).files
    for start, rows in ((0, 1), (14, 3), (30, 10), (39, 1), (35, 99), (40, 5)):
        expected = range(start, min(start + rows, 40))
        found = read_span(spec, Span(file, start, rows), True)
        assert found == [(i + 1, _rows(40)[i]["text"]) for i in expected]


def test_reading_a_corpus_leaves_no_file_open(tmp_path):
    # pytest makes an unclosed file an error; half a file read must close it, too.
    for form in ("parquet", "csv", "jsonl.gz"):
        spec = CorpusSpec(uri=write_corpus(tmp_path / f"a.{form}", _rows(10)))
        batches = read_batches(spec, whole(list_corpus(spec.uri).files[0]), True)
        assert next(batches).before == 0
        batches.close()


def test_a_shard_across_files_keeps_their_order(tmp_path):
    for number, some in enumerate(split(_rows(9), [2, 3])):
        write_corpus(tmp_path / f"{number}.jsonl", some)
    spec = CorpusSpec(uri=str(tmp_path), id="id")
    shards = scan(spec).shards(4)
    assert [[span.rows for span in shard] for shard in shards] == [[2, 2], [1, 3], [1]]
    read = [read_shard(spec, shard, True, None)[0]["id"].to_list() for shard in shards]
    assert read == [[f"row {i}" for i in some] for some in ([0, 1, 2, 3], [4, 5, 6, 7], [8])]

"""A file that is refused says what it looks like; told so, the job reads it."""

import gzip
import io
import zipfile

import pytest

from storage.corpus import CorpusSpec
from storage.scan import count, scan
from tests.raee.errors import refused
from tests.storage.corpora import COMPRESS, read_all, write_corpus

_ROWS = [{"id": f"r{i}", "text": f"gr\u00fcn; \t| {i}", "label": "ab"[i % 2]} for i in range(40)]


def _recoded(path, encoding):
    path.write_bytes(path.read_bytes().decode().encode(encoding))


@pytest.mark.parametrize(("delimiter", "said"), [(";", '";"'), ("\t", r'"\\t"'), ("|", r'"\|"')])
def test_another_delimiter(tmp_path, delimiter, said):
    path = tmp_path / "a.csv"
    lines = ["id,text,label", *(f"r{i},text {i},a" for i in range(9))]
    path.write_text("\n".join(line.replace(",", delimiter) for line in lines))
    with refused(rf"no column 'text'; .* separated by {said}; set corpus.delimiter"):
        scan(CorpusSpec(uri=str(path)))
    _, rows, _ = read_all(CorpusSpec(uri=str(path), delimiter=delimiter, id="id"), 4)
    assert [row.id for row in rows] == [f"r{i}" for i in range(9)]


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "csv.gz"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "utf-8-sig"])
def test_another_encoding(tmp_path, form, encoding):
    path = tmp_path / f"a.{form.removesuffix('.gz')}"
    write_corpus(path, _ROWS)
    _recoded(path, encoding)
    if form.endswith(".gz"):
        data = path.read_bytes()
        path = tmp_path / f"a.{form}"
        path.write_bytes(gzip.compress(data))
    _, rows, rejects = read_all(CorpusSpec(uri=str(path), encoding=encoding, id="id"), 7)
    assert [row._asdict() for row in rows] == _ROWS
    assert rejects == []


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_delimiter_that_is_set_is_not_advised(tmp_path, delimiter):
    path = tmp_path / ("a.tsv" if delimiter == "\t" else "a.csv")
    path.write_text(f"one{delimiter}two{delimiter}three\n")
    set_to = {"delimiter": ";"} if delimiter == ";" else {}
    with refused("it has 'one', 'two', 'three'; its first line is taken for the header"):
        scan(CorpusSpec(uri=str(path), **set_to))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_wide_encoding_is_seen(tmp_path, form, encoding):
    path = tmp_path / f"a.{form}"
    write_corpus(path, _ROWS)
    _recoded(path, encoding)
    with refused(f"it looks like {encoding.upper()}; set corpus.encoding: {encoding}"):
        scan(CorpusSpec(uri=str(path)))
    assert len(read_all(CorpusSpec(uri=str(path), encoding=encoding), 7)[1]) == 40


def test_bytes_that_an_encoding_does_not_have_are_named(tmp_path):
    path = tmp_path / "a.csv"
    write_corpus(path, _ROWS)
    with refused("a.csv is not in ascii: ordinal not in range"):
        scan(CorpusSpec(uri=str(path), encoding="ascii"))


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl"])
def test_an_excel_file_under_another_name(tmp_path, name):
    book = io.BytesIO()
    with zipfile.ZipFile(book, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>" * 50)
    (tmp_path / name).write_bytes(book.getvalue())
    with refused("it looks like an Excel or a zip file; save it as CSV in UTF-8|cannot be used"):
        scan(CorpusSpec(uri=str(tmp_path / name)))


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_compressed_file_without_the_ending(tmp_path, ending):
    (tmp_path / "a.csv").write_bytes(COMPRESS[ending](b"text,label\na,b\n"))
    with refused(rf"it looks like \w+; name it .{ending}"):
        scan(CorpusSpec(uri=str(tmp_path / "a.csv")))


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl", "a.csv.gz"])
@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "it is a pointer of Git LFS",
        ),
        ("\n<!DOCTYPE html>\n<title>Log in</title>\n", "it looks like a web page"),
    ],
)
def test_what_came_instead_of_the_file(tmp_path, name, begin, said):
    (tmp_path / name).write_text(begin)
    for look in (scan, count):
        with refused(said):
            look(CorpusSpec(uri=str(tmp_path)))


def test_a_file_without_a_header(tmp_path):
    (tmp_path / "a.csv").write_text("one,a\ntwo,b\n")
    with refused("no column 'text'; it has 'one', 'a'; its first line is taken for the header"):
        scan(CorpusSpec(uri=str(tmp_path / "a.csv")))


@pytest.mark.parametrize(
    "content",
    ['[{"text": "a", "label": "x"}]', '[\n{"text": "a", "label": "x"},\n{"text": "b"}\n]'],
)
def test_a_json_list(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with refused("one JSON list, no JSON object a line; write every object on a line of its own"):
        scan(CorpusSpec(uri=str(tmp_path / "a.json")))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"delimiter": ";;"}, "';;' is not one ASCII character"),
        ({"delimiter": "\n"}, "is not one ASCII character"),
        ({"quote": "„"}, "is not one ASCII character"),
        ({"encoding": "utf-9"}, "there is no encoding 'utf-9'"),
        ({"encoding": "rot13"}, "there is no encoding 'rot13'"),
    ],
)
def test_what_is_no_delimiter_quote_or_encoding(columns, message):
    with pytest.raises(ValueError, match=message):
        CorpusSpec(uri="a.csv", **columns)

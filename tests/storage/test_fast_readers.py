"""The readers that parse blocks and those that take rows one by one say the same of every file."""

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storage.blocks
import storage.csv_rows
import storage.json_rows
from raee.errors import InputError
from storage.corpus import CorpusSpec, read_batches, whole
from storage.corpus_files import list_corpus

_PIECES = st.sampled_from(
    ['"', '""', ",", "\n", "\r\n", "\r", " ", "a", "1.0", "é😀", "\0", "\x1c", "\ufeff", "\u2028"]
)
_CELLS = st.lists(_PIECES, max_size=4).map("".join)
_BYTES = st.one_of(_CELLS.map(str.encode), st.just(b"\xff"))


def _read(path, by_hand=(), block=1 << 20, **spec):
    """All rows of a file, or why it cannot be read."""
    corpus = CorpusSpec(**{"uri": str(path), "id": "id"} | spec)
    with ExitStack() as stack:
        stack.enter_context(patch.object(storage.blocks, "BLOCK", block))
        for module, name in by_hand:
            stack.enter_context(patch.object(module, name, lambda *args: None))
        try:
            batches = list(read_batches(corpus, whole(list_corpus(str(path)).files[0]), True))
        except InputError as error:
            return str(error)
    assert [b.before for b in batches] == [sum(map(len, batches[:i])) for i in range(len(batches))]
    return [row for batch in batches for row in batch.frame.iter_rows()]


def _quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


_BY_ROW = [(storage.csv_rows, "_parsed")]
_ALL_BY_HAND = [(storage.blocks, "_rows")]


class TestCsv:
    @settings(max_examples=150)
    @given(
        rows=st.lists(st.lists(_CELLS, min_size=3, max_size=3), max_size=6),
        quoted=st.booleans(),
        block=st.sampled_from([1, 5, 1 << 20]),
    )
    def test_of_any_rows(self, rows, quoted, block):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.csv")
            cells = [
                [f'"{c.replace(chr(34), chr(34) * 2)}"' if quoted else c for c in r] for r in rows
            ]
            path.write_text(
                "\n".join(["id,text,label", *map(",".join, cells)]), encoding="utf-8", newline=""
            )
            found = _read(path, block=block)
            assert found == _read(path, _BY_ROW, block=block)
            assert found == _read(path, _ALL_BY_HAND, block=block)

    @settings(max_examples=150)
    @given(
        pieces=st.lists(st.one_of(_BYTES, st.just(b",a,b\n")), max_size=12),
        block=st.sampled_from([1, 5, 1 << 20]),
    )
    def test_of_any_bytes(self, pieces, block):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.csv")
            path.write_bytes(b"id,text,label\n" + b"".join(pieces))
            found = _read(path, block=block)
            assert found == _read(path, _BY_ROW, block=block)
            assert found == _read(path, _ALL_BY_HAND, block=block)

    @pytest.mark.parametrize("delimiter", [";", "\t", "|", "\\"])
    @pytest.mark.parametrize("quote", ["'", None, '"'])
    def test_of_any_dialect(self, tmp_path, delimiter, quote):
        cells = ["r1", "it is", "a"], ["r2", f"{quote}x{quote}" if quote else '"x', "b"], ["r3"]
        lines = [["id", "text", "label"], *cells]
        (tmp_path / "a.csv").write_text("\n".join(map(delimiter.join, lines)))
        dialect = {"delimiter": delimiter, "quote": quote}
        found = _read(tmp_path / "a.csv", **dialect)
        assert found == _read(tmp_path / "a.csv", _ALL_BY_HAND, **dialect)
        assert found == [
            ("r1", "it is", "a", None),
            ("r2", "x" if quote else '"x', "b", None),
            (None, None, None, "1 fields where the header has 3"),
        ]


_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=6),
        st.sampled_from(["1.50", "-0", "1e3", "[1]", "{}", "true", "NaN", " 5 ", "\ud83d\ude00"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
_LINES = st.one_of(
    st.dictionaries(st.sampled_from(["id", "text", "label", "more"]), _JSON).flatmap(
        lambda row: st.booleans().map(lambda ascii: json.dumps(row, ensure_ascii=ascii))
    ),
    st.sampled_from(
        [
            "",
            "  ",
            "[1]",
            "5",
            '{"id": "a"',
            '{"id": "1", "id": "2", "text": "x", "label": 1e3}',
            '{"id": 01, "text": "x"}',
            '{"id": "a", "text": "\\ud800", "label": "x"}',
            '{"id": "a", "te\\u0078t": "escaped", "label": -0.0}',
            '{"id": "a", "text": "x"} {"id": "b"}',
            '{"id": "a", "text": "\t"}',
            '{"id": 12345678901234567890123, "text": "\\u0000", "label": 1e400}',
        ]
    ),
)


@pytest.mark.timeout(15)
@pytest.mark.parametrize("begin", ["", 'id,text,label\nx,a "b",x\n'])
def test_a_line_is_copied_once_however_long_it_is(tmp_path, begin):
    path = tmp_path / "a.csv"
    path.write_text(f"{begin}{'a ' * 1_000_000}\n")
    with patch.object(storage.csv_rows, "_HEADER", 16):
        found = _read(path, block=16)
    assert len(found) == 2 if begin else "no column 'id'" in found


def test_of_long_rows_that_break_the_rules_few_are_taken_at_once(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,text,label\n" + f'x,{"a" * 2_000} "b",x\n' * 50)
    with (
        patch.object(storage.blocks, "BLOCK", 10_000),
        patch.object(storage.csv_rows, "BLOCK", 10_000),
    ):
        spec = CorpusSpec(uri=str(path))
        batches = list(read_batches(spec, whole(list_corpus(spec.uri).files[0]), True))
    assert max(map(len, batches)) <= 6
    assert sum(map(len, batches)) == 50


class TestJsonLines:
    @settings(max_examples=150)
    @given(
        lines=st.lists(_LINES, max_size=6),
        ending=st.sampled_from(["\n", "\r\n"]),
        block=st.sampled_from([1, 30, 1 << 20]),
    )
    def test_of_any_lines(self, lines, ending, block):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.jsonl")
            data = ending.join(['{"id": "0", "text": "first", "label": "x"}', *lines])
            path.write_bytes(data.encode("utf-8", "surrogatepass"))
            found = _read(path, block=block)
            assert found == _read(path, [(storage.json_rows, "_parsed")], block=block)

    @pytest.mark.parametrize("name", ["id", "ïd", "a/b", 'a"b', "😀", "a.b"])
    def test_of_a_key_however_it_is_escaped(self, tmp_path, name):
        path = tmp_path / "a.jsonl"
        units = name.encode("utf-16-be").hex(" ", 2).split()
        escaped = "".join(f"\\u{unit}" for unit in units)
        keys = [json.dumps(name)[1:-1], escaped, escaped.upper().replace("U", "u")]
        keys += [name.replace("/", "\\/").replace('"', '\\"')]
        path.write_text("".join(f'{{"text":"a","label":"x","{key}": 1.0}}\n' for key in keys))
        found = _read(path, id=name)
        assert [row[0] for row in found] == ["1.0"] * 4
        assert found == _read(path, [(storage.json_rows, "_parsed")], id=name)

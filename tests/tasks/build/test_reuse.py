"""What a rebuild reuses: its rows are found again by their texts' hashes, and by nothing else."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.parquet import list_column, write_table
from storage.store import Folder
from tasks.build.reuse import Parent, Parts, same_rows

_TEXTS = st.lists(st.sampled_from("abcdef"), max_size=12)


def _hashes(texts):
    """Made-up hashes, as long as real ones."""
    return np.array([f"{text:0>32}" for text in texts], "S32")


class TestSameRows:
    @given(now=_TEXTS, before=_TEXTS.filter(len))
    def test_no_row_of_the_parent_is_two_rows_and_all_have_its_text(self, now, before):
        found = same_rows(_hashes(now), _hashes(before))
        assert found.shape == (len(now),)
        matched = found[found >= 0]
        assert len(set(matched)) == len(matched)
        assert [now[i] for i in np.flatnonzero(found >= 0)] == [before[i] for i in matched]

    @given(now=_TEXTS, before=_TEXTS.filter(len))
    def test_as_many_of_a_text_are_matched_as_both_have(self, now, before):
        found = same_rows(_hashes(now), _hashes(before))
        matched = Counter(text for text, row in zip(now, found, strict=True) if row >= 0)
        assert matched == Counter(now) & Counter(before)

    @given(now=_TEXTS, before=_TEXTS.filter(len))
    def test_the_nth_of_a_text_is_its_nth_there(self, now, before):
        positions: dict[str, list[int]] = {}
        for position, text in enumerate(before):
            positions.setdefault(text, []).append(position)
        expected = []
        for position, text in enumerate(now):
            number, there = now[:position].count(text), positions.get(text, [])
            expected.append(there[number] if number < len(there) else -1)
        assert same_rows(_hashes(now), _hashes(before)).tolist() == expected

    def test_a_row_that_moves_is_the_same_row(self):
        assert same_rows(_hashes("cab"), _hashes("abc")).tolist() == [2, 0, 1]


_FILES = ("ca", "", "b", "dfe")
"""By file, the texts whose readings it holds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Folder:
    """A folder of files of readings; the reading of the n-th letter is (n, -n)."""
    folder = Folder(str(tmp_path_factory.mktemp("swept")))
    for number, texts in enumerate(_FILES):
        _write_readings(folder, f"{number}.parquet", texts)
    return folder


def _write_readings(folder, path, texts):
    values = np.array([[ord(t) - ord("a"), ord("a") - ord(t)] for t in texts], np.int64)
    columns = {
        "text_hash": pa.array([h.decode() for h in _hashes(texts)], pa.string()),
        "reading": list_column(values.reshape(-1, 2)),
    }
    write_table(folder, path, pa.table(columns))


@pytest.fixture(scope="module")
def parts(folder) -> Parts:
    return Parts(folder, [f"{number}.parquet" for number in range(len(_FILES))])


class TestParts:
    @given(texts=st.lists(st.sampled_from("abcdefxyz")))
    def test_what_is_found_is_what_was_read_of_the_text(self, parts, texts):
        positions = parts.find(_hashes(texts))
        assert [position >= 0 for position in positions] == [text < "x" for text in texts]
        there = positions[positions >= 0]
        if len(there):
            readings = parts.take(there, ["reading"])["reading"]
            known = [ord(text) - ord("a") for text in texts if text < "x"]
            assert readings.tolist() == [[n, -n] for n in known]

    def test_a_position_tells_its_file(self, parts):
        positions = parts.find(_hashes("cabdfe"))
        assert parts.part_of(positions).tolist() == [0, 0, 2, 3, 3, 3]

    def test_a_text_read_twice_is_found_once(self, folder):
        _write_readings(folder, "again.parquet", "ab")
        parts = Parts(folder, ["again.parquet", "0.parquet", "2.parquet"])
        positions = parts.find(_hashes("aab"))
        assert (positions >= 0).all()
        assert positions[0] == positions[1]
        assert parts.take(positions, ["reading"])["reading"].tolist() == [[0, 0], [0, 0], [1, -1]]

    def test_without_files_nothing_is_found(self, folder):
        assert Parts(folder, []).find(_hashes("ab")).tolist() == [-1, -1]
        assert Parts(folder, ["1.parquet"]).find(_hashes("ab")).tolist() == [-1, -1]


def test_a_row_that_has_left_the_parent_is_not_found_though_its_readings_lie_there(parts):
    """Its states are not in the parent's sums: it must be read, and added, like any new row."""
    parent = Parent(
        manifest=None,
        files=None,
        label=None,
        hashes=_hashes("fab"),
        swept=parts,
        states=parts,
        starts=np.array([0, 3]),
    )
    found = parent.find(_hashes("abcdefz"))
    expected = parts.find(_hashes("abcdefz"))
    assert (expected[:6] >= 0).all()
    assert found.tolist() == [*expected[:2], -1, -1, -1, expected[5], -1]

import hashlib
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storage.scan
from storage.corpus import CorpusSpec
from storage.scan import CENTRE_ROWS, count, sample_numbers, scan, text_hash
from tests.raee.errors import refused
from tests.storage.corpora import read_all, split, write_corpus

_ROWS = [{"id": f"r{i}", "text": f"text {i % 7} 😀", "label": "ab"[i % 2]} for i in range(20)]


def _scan(uri, declared=None, **columns):
    return scan(CorpusSpec(uri=str(uri), **columns), declared)


class TestLabels:
    @pytest.mark.parametrize(
        ("value", "name"),
        [
            ("negative", "negative"),
            ("  negative\n", "negative"),
            (0, "negative"),
            (1.0, "positive"),
            ("1", "positive"),
            ("01", "positive"),
            (True, None),
            (2, None),
            (-1, None),
            ("0.5", None),
            (0.5, None),
            ("9" * 5_000, None),
            ("Negative", None),
        ],
    )
    def test_are_the_prompts_names_or_numbers_in_its_order(self, tmp_path, value, name):
        (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x", "label": value}))
        declared = ["negative", "positive"]
        if name is None:
            match = r"a.jsonl row 1: label '.{1,80} is not in the prompt; its labels are negative"
            with refused(match):
                _scan(tmp_path, declared)
        else:
            _, rows, _ = read_all(CorpusSpec(uri=str(tmp_path)), 1, declared=declared)
            assert [row.label for row in rows] == [name]

    def test_that_are_numbers_by_name_are_no_numbers_in_order(self, tmp_path):
        uri = write_corpus(tmp_path / "a.csv", [{"text": "x", "label": i} for i in (3, 1, 2)])
        _, rows, _ = read_all(CorpusSpec(uri=uri), 1, declared=["3", "1", "2"])
        assert [row.label for row in rows] == ["3", "1", "2"]

    def test_are_those_of_the_corpus_where_no_prompt_names_them(self, tmp_path):
        uri = write_corpus(tmp_path / "a.parquet", [{"text": "x", "label": i} for i in (1, 0, 1)])
        assert _scan(uri).labels == {"1": 2, "0": 1}

    def test_that_the_prompt_does_not_name_are_found_in_any_row(self, tmp_path):
        rows = [*_ROWS, {"id": "last", "text": "x", "label": "c"}]
        uri = write_corpus(tmp_path / "a.csv", rows)
        with refused("a.csv row 21: label 'c' is not in the prompt; its labels are a, b"):
            _scan(uri, ["a", "b"])


class TestIds:
    def test_that_stand_twice_are_named_with_file_and_row(self, tmp_path):
        write_corpus(tmp_path / "a.csv", _ROWS[:12])
        write_corpus(tmp_path / "b.csv", [*_ROWS[12:], _ROWS[4]])
        with refused(r"id 'r4' stands twice, in .*a.csv row 5 and in .*b.csv row 9"):
            _scan(tmp_path, id="id")

    def test_that_stand_twice_do_not_matter_where_rows_are_not_labelled(self, tmp_path):
        uri = write_corpus(tmp_path / "a.csv", [_ROWS[0], _ROWS[0]])
        assert count(CorpusSpec(uri=uri, id="id")).rows == 2

    def test_of_rows_that_cannot_be_used_may_stand_twice(self, tmp_path):
        uri = write_corpus(tmp_path / "a.csv", [*_ROWS, _ROWS[0] | {"text": ""}])
        assert _scan(uri, id="id").rows == 20

    def test_are_compared_as_they_are_written(self, tmp_path):
        rows = [{"id": i, "text": "x", "label": "a"} for i in ("1", "01", 1.5, "1 ")]
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert _scan(tmp_path, id="id").rows == 4
        rows.append({"id": 1, "text": "x", "label": "a"})
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
        with refused("id '1' stands twice"):
            _scan(tmp_path, id="id")


class TestFingerprint:
    def test_does_not_depend_on_format_or_files(self, tmp_path):
        found = set()
        for form in ("parquet", "csv", "jsonl", "csv.gz", "ndjson"):
            for sizes in ([], [3], [7, 1, 5]):
                folder = tmp_path / f"{form}-{len(sizes)}"
                for number, some in enumerate(split(_ROWS, sizes)):
                    write_corpus(folder / f"{number}.{form}", some)
                found.add(_scan(folder, id="id").fingerprint)
                found.add(_scan(folder, ["b", "a"], id="id").fingerprint)
        assert len(found) == 1
        assert len(found.pop()) == 64

    def test_depends_on_every_id_text_and_label_and_on_their_order(self, tmp_path):
        corpora = [
            _ROWS,
            [*_ROWS[:5], _ROWS[5] | {"text": "another"}, *_ROWS[6:]],
            [*_ROWS[:5], _ROWS[5] | {"label": "a"}, *_ROWS[6:]],
            [*_ROWS[:5], _ROWS[5] | {"id": "another"}, *_ROWS[6:]],
            [*_ROWS[:5], _ROWS[6], _ROWS[5], *_ROWS[7:]],
            _ROWS[:-1],
        ]
        found = set()
        for number, rows in enumerate(corpora):
            uri = write_corpus(tmp_path / f"{number}.jsonl", rows)
            found.add(_scan(uri, id="id").fingerprint)
        assert len(found) == len(corpora)

    def test_does_not_run_columns_and_rows_together(self, tmp_path):
        pairs = [("ab", "c"), ("a", "bc")]
        found = {
            _scan(write_corpus(tmp_path / f"{t}.csv", [{"text": t, "label": y}])).fingerprint
            for t, y in pairs
        }
        assert len(found) == 2


def _drawn(found, rows, labelled_texts):
    """The rows of a sample, by label; all of them where there is no limit."""
    limits = found.sample(rows)
    return [
        (label, text)
        for label, text in labelled_texts
        if limits is None or sample_numbers(pl.Series([text]))[0] <= limits[label]
    ]


class TestSample:
    def test_may_have_more_rows_of_each_label(self, tmp_path):
        rows = [("rare" if n < 2 else "common", f"text {n}") for n in range(200)]
        uri = write_corpus(tmp_path / "a.jsonl", [{"label": y, "text": t} for y, t in rows])
        found = _scan(uri)
        for more, rare in ((0, 1), (1, 2), (5, 2)):
            limits = found.sample(20, more)
            drawn = [
                label
                for label, text in rows
                if sample_numbers(pl.Series([text]))[0] <= limits[label]
            ]
            assert (drawn.count("rare"), drawn.count("common")) == (rare, 20 + more)

    def test_gives_the_usable_rows_to_who_asks(self, tmp_path):
        rows = [
            {"text": "one", "label": "a"},
            {"text": "", "label": "a"},
            {"text": "2", "label": 1},
        ]
        seen = []
        uri = write_corpus(tmp_path / "a.jsonl", rows)
        scan(
            CorpusSpec(uri=uri),
            on_usable=lambda some: seen.extend(some.select("text", "label").rows()),
        )
        assert seen == [("one", "a"), ("2", "1")]

    @settings(max_examples=40)
    @given(
        counts=st.lists(st.integers(1, 60), min_size=1, max_size=5),
        share=st.floats(0.01, 1.2),
        seed=st.integers(0, 1_000),
    )
    def test_keeps_the_labels_shares_whatever_the_order_of_the_rows(self, counts, share, seed):
        rows = [
            (f"l{i}", f"{i} {n} {seed}") for i, count in enumerate(counts) for n in range(count)
        ]
        asked = max(1, int(share * len(rows)))
        samples = []
        with tempfile.TemporaryDirectory() as folder:
            for number in range(2):
                random.Random(seed + number).shuffle(rows)
                records = [{"text": text, "label": label} for label, text in rows]
                for part, some in enumerate(split(records, [len(rows) // 3] if number else [])):
                    if some:
                        write_corpus(Path(folder) / f"{number}/{part}.csv", some)
                samples.append(sorted(_drawn(_scan(Path(folder) / f"{number}"), asked, rows)))
        assert samples[0] == samples[1], "the same rows, in other files and in another order"
        if asked >= len(rows):
            assert len(samples[0]) == len(rows)
            return
        drawn = Counter(label for label, _ in samples[0])
        for i, there in enumerate(counts):
            fair = asked * there / len(rows)
            assert 1 <= drawn[f"l{i}"] <= there
            assert abs(drawn[f"l{i}"] - fair) <= max(0.5, 1 - fair), "the nearest, but one at least"

    def test_takes_all_rows_of_a_text_or_none(self, tmp_path):
        rows = [("x", f"text {i % 10}") for i in range(100)]
        uri = write_corpus(tmp_path / "a.csv", [{"text": t, "label": label} for label, t in rows])
        drawn = Counter(text for _, text in _drawn(_scan(uri), 35, rows))
        assert set(drawn.values()) == {10}
        assert len(drawn) == 4, "the fourth text is reached by the 35th row"

    def test_is_another_than_the_centres(self, tmp_path):
        """Or the centre of a sentence encoder would be read over the rows that judge it."""
        rows = [("x", f"text {i}") for i in range(1_000)]
        uri = write_corpus(tmp_path / "a.csv", [{"text": t, "label": label} for label, t in rows])
        with patch.object(storage.scan, "CENTRE_ROWS", 100):
            found = _scan(uri)
        drawn = {text for _, text in _drawn(found, 100, rows)}
        assert 2 <= len(drawn & set(found.centre_texts)) <= 25

    def test_is_the_same_in_every_release(self):
        numbers = sample_numbers(pl.Series(["", "a", "grün", "a text of some length"]))
        assert numbers.tolist() == [
            3793791032,
            742255548,
            4202839973,
            2975637350,
        ]


def test_the_centre_is_read_over_the_same_rows_in_whatever_order_they_come(tmp_path):
    texts = [f"text {i % 14_500}" for i in range(3 * CENTRE_ROWS)]
    found = []
    for order in range(2):
        random.Random(order).shuffle(texts)
        for number, some in enumerate(split(texts, [2_000])):
            rows = [{"text": t, "label": "x"} for t in some]
            write_corpus(tmp_path / f"{order}/{number}.csv", rows)
        found.append(_scan(tmp_path / f"{order}").centre_texts)
    assert found[0] == found[1]
    assert len(found[0]) == CENTRE_ROWS
    places = [int(text.removeprefix("text ")) for text in found[0]]
    assert 0.45 < sum(place < 6_144 for place in places) / CENTRE_ROWS < 0.55, "from all over"


def test_the_centre_of_a_small_corpus_is_read_over_all_its_rows(tmp_path):
    uri = write_corpus(tmp_path / "a.csv", [*_ROWS, {"id": "bad", "text": " ", "label": "a"}])
    assert sorted(_scan(uri).centre_texts) == sorted(row["text"] for row in _ROWS)


def test_a_texts_hash_is_the_start_of_its_sha_256():
    assert text_hash("grün") == hashlib.sha256("grün".encode()).hexdigest()[:32]


def test_progress_tells_of_every_row_once(tmp_path):
    for number, rows in enumerate((1, 499, 500, 501, 1_200)):
        write_corpus(tmp_path / f"{number}.csv", [{"text": "x", "label": "a"}] * rows)
    told = []
    scan(CorpusSpec(uri=str(tmp_path)), on_rows=told.append)
    assert sum(told) == 2_701


# A process is told its parent's highest memory as its own by getrusage, but not by Linux's files.
_PEAK = """
import sys
from pathlib import Path
from storage.corpus import CorpusSpec
from storage.scan import count, scan
assert (scan if sys.argv[2] == "labelled" else count)(CorpusSpec(uri=sys.argv[1])).rows
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how it was")
@pytest.mark.parametrize(("way", "bytes_a_row"), [("labelled", 24), ("not", 0)])
def test_memory_depends_on_the_batch(tmp_path, way, bytes_a_row):
    peaks = []
    for rows in (50_000, 250_000):
        path = tmp_path / f"{rows}.csv"
        with path.open("w") as file:
            file.write("text,label\n")
            file.writelines(f"{i:0400d},{'ab'[i % 2]}\n" for i in range(rows))
        command = [sys.executable, "-c", _PEAK, str(path), way]
        peaks.append(1024 * int(subprocess.check_output(command, timeout=120)))
    assert path.stat().st_size > 100_000_000
    assert peaks[1] - peaks[0] < 16_000_000 + 200_000 * bytes_a_row

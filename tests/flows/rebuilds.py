"""Corpora that change, rebuilds of them, and what builds from nothing make of the same rows."""

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from raee.readers.ngrams import token_ids
from raee.readers.words import READER as WORDS_READER
from tests.flows.jobs import (
    Workplace,
    entries_of,
    manifest_of,
    neighbours_of,
    raee,
    say_in_manifest,
)
from tests.texts import LABELS, WORDS

Rows = list[dict[str, str]]

ENCODER: dict[str, Any] = {"shard_rows": 30, "key": {"model": "backbone", "layers": [0, 2]}}
"""A job for `bert-encoder`, read at five depths against a centre, with two keys."""

MASKED: dict[str, Any] = {
    "shard_rows": 30,
    "prompt": {
        "template": "{text} it was {mask}",
        "labels": {"bad": "terrible", "good": "great", "odd": "dull"},
    },
    "backbone": {"family": "masked-lm", "model": "bert", "dtype": "float32"},
    "key": {"layer": 1},
    "keep_text": False,
}
"""A job for `bert`, whose probes may read either of two states."""


def new_rows(count: int, dice: random.Random) -> Rows:
    """Rows whose texts nobody has seen: a word is not in the models' vocabulary."""
    found = []
    for _ in range(count):
        number = dice.randrange(10**9)
        words = [*dice.choices(WORDS, k=dice.randint(1, 8)), str(number)]
        dice.shuffle(words)
        found.append({"id": f"n{number}", "text": " ".join(words), "label": dice.choice(LABELS)})
    return found


def removed(rows: Rows, dice: random.Random) -> Rows:
    """Some rows are gone."""
    gone = set(dice.sample(range(len(rows)), 9))
    return [row for place, row in enumerate(rows) if place not in gone]


def added(rows: Rows, dice: random.Random) -> Rows:
    """New rows stand between the others."""
    rows = list(rows)
    for row in new_rows(7, dice):
        rows.insert(dice.randrange(len(rows) + 1), row)
    return rows


def relabelled(rows: Rows, dice: random.Random) -> Rows:
    """Some labels are corrected."""
    rows = list(rows)
    for place in dice.sample(range(len(rows)), 6):
        others = [label for label in LABELS if label != rows[place]["label"]]
        rows[place] = rows[place] | {"label": dice.choice(others)}
    return rows


def reordered(rows: Rows, dice: random.Random) -> Rows:
    """The same rows in another order."""
    return dice.sample(rows, len(rows))


def repeated(rows: Rows, dice: random.Random) -> Rows:
    """Old and new texts stand once or twice more, under other labels, too."""
    again = [*dice.sample(rows, 4), *new_rows(2, dice)]
    again += again[::2]
    others = [{"id": f"a{dice.randrange(10**9)}", "label": dice.choice(LABELS)} for _ in again]
    return [*rows, *(row | other for row, other in zip(again, others, strict=True))]


def thinned(rows: Rows, dice: random.Random) -> Rows:
    """Of each text that stands more than once, one row is gone; which one, nobody can tell."""
    counts, rows = Counter(row["text"] for row in rows), list(rows)
    for text in [text for text, count in counts.items() if count > 1]:
        places = [place for place, row in enumerate(rows) if row["text"] == text]
        del rows[dice.choice(places)]
    return rows


CHANGES = (removed, added, relabelled, reordered, repeated, thinned)


_LOGS, _SURE = 2e-2, 5e-3
"""How far log-probabilities and probabilities may be apart whose weights are searched for, once
from a parent's on, once from nothing.  A search ends if the mean loss may still fall by 5e-7, by
which a row's probability differs by about 1e-3 (`test_sparse_regression`); stored halves add half
as much."""


class Swept:
    """The texts that builds in this process have read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        import tasks.build.build

        self._texts: Counter[str] = Counter()
        real = tasks.build.build.sweep

        def sweep(*args: Any) -> Any:
            self._texts.update(args[5])
            return real(*args)

        patch.setattr(tasks.build.build, "sweep", sweep)

    def texts(self) -> Counter[str]:
        """How often each was read since this was asked last."""
        found, self._texts = self._texts, Counter()
        return found


class History:
    """A database that is rebuilt again and again as its corpus changes."""

    def __init__(self, place: Workplace, **job: Any) -> None:
        self.place, self.job = place, job

    def rebuild(self, rows: Rows) -> Path:
        """Build a version of these rows; returns its folder."""
        self.place.write("train.csv", rows)
        version = self.place.version(self.place.build(**self.job))
        for name in ("demo", f"demo@{version.name}"):
            answer = raee("verify", name, "--store", self.place.store)
            assert answer.code == 0, answer.out
        assert list((self.place.store / "databases/demo/work").iterdir()) == []
        return version

    @property
    def newest(self) -> Path:
        """The folder of the newest version."""
        return max(self.place.version("").iterdir())

    def from_nothing(self, rows: Rows, root: Path) -> Path:
        """What a build of these rows makes with the newest version's centre, but no reading."""
        other = Workplace(root, self.place.model_of)
        copy = other.version(self.newest.name)
        shutil.copytree(self.newest, copy)
        say_in_manifest(copy, manifest_of(copy) | {"swept": []})
        other.write("train.csv", rows)
        return other.version(other.build(**self.job))


def assert_alike(rebuilt: Path, built: Path) -> None:
    """A rebuild gives what a build from nothing gives, but for the rounding of batches."""
    ours, theirs = manifest_of(rebuilt), manifest_of(built)
    for what in ("exits", "labels", "rows", "recipe"):
        assert ours[what] == theirs[what]
    for what in ("state", "fit", "shrinkages", "rows", "sampled_rows", "regression_penalty"):
        assert ours["probes"][what] == theirs["probes"][what]
    _assert_same_entries(rebuilt, built)
    _assert_same_neighbours(rebuilt, built)
    _assert_votes_are_those_of_the_lists(rebuilt)
    probes = [safetensors.numpy.load_file(v / "probes.safetensors") for v in (rebuilt, built)]
    for name in probes[1]:
        if name.startswith("sums_"):
            np.testing.assert_allclose(probes[0][name], probes[1][name], atol=1e-4)
    _assert_same_words_and_pools(rebuilt, built)


def _assert_same_words_and_pools(rebuilt: Path, built: Path) -> None:
    """They are what is searched for, here from the parent's weights on, there from nothing."""
    swept = [built.parents[1] / file["path"] for file in manifest_of(built)["swept"]]
    tables = [pq.read_table(path) for path in swept if "states" not in path.name]
    ids = [row.values.to_numpy() for table in tables for row in table["token_ids"]]
    words = [safetensors.numpy.load_file(v / "words.safetensors") for v in (rebuilt, built)]
    np.testing.assert_array_equal(words[0]["words_codes"], words[1]["words_codes"])
    logs = [WORDS_READER.from_arrays(arrays).logs(token_ids(ids)) for arrays in words]
    np.testing.assert_allclose(*np.maximum(logs, -20), atol=_LOGS)
    pools = [safetensors.numpy.load_file(v / "probes.safetensors") for v in (rebuilt, built)]
    for name in (n for n in pools[1] if n.startswith("pool_")):
        np.testing.assert_allclose(pools[0][name], pools[1][name], atol=1e-3, err_msg=name)


def _assert_same_entries(rebuilt: Path, built: Path) -> None:
    ours, theirs = entries_of(rebuilt), entries_of(built)
    assert ours.schema == theirs.schema
    for column in {"id", "text_hash", "text", "label"} & set(ours.schema.names):
        assert ours[column].equals(theirs[column]), column
    settled = np.ones((len(ours), len(manifest_of(rebuilt)["exits"])), bool)
    for place, unsettled in _unsettled_votes(built).items():
        settled[unsettled, place] = False
    searched = np.array([e.startswith(("words@", "pool@")) for e in manifest_of(rebuilt)["exits"]])
    answers, sure = ([_lists(t, c) for t in (ours, theirs)] for c in ("answers", "confidences"))
    tied = (answers[0] != answers[1]) & searched
    assert tied.mean() < 0.001
    assert not (tied & (sure[1] > 0.5 + _SURE)).any()
    np.testing.assert_array_equal(*(a[settled & ~tied] for a in answers))
    for exits, leeway in ((~searched, 1e-4), (searched, _SURE)):
        np.testing.assert_allclose(*(s[settled & exits] for s in sure), rtol=0, atol=leeway)
    np.testing.assert_allclose(
        ours["nearest_distance"].to_numpy(), theirs["nearest_distance"].to_numpy(), atol=1e-5
    )


def _unsettled_votes(version: Path) -> dict[int, Any]:
    """By vote exit the rows whose vote hangs on rounding.

    The keys of two rows with one text differ by rounding: a vote weighs them by it if the row is a
    third one, and takes in either of them if they are the twelfth and the thirteenth.
    """
    found, lists = {}, neighbours_of(version)
    votes = [i for i, exit in enumerate(manifest_of(version)["exits"]) if exit.startswith("vote@")]
    for key, place in enumerate(votes):
        distances = _lists(lists, f"distances-{key}")
        last, next_one = distances[:, 11], distances[:, 12]
        found[place] = (distances[:, 0] < 1e-10) | (np.isfinite(last) & (next_one < last + 1e-6))
    return found


def _assert_same_neighbours(rebuilt: Path, built: Path) -> None:
    ours, theirs = neighbours_of(rebuilt), neighbours_of(built)
    assert ours.schema == theirs.schema
    everybody = np.arange(len(ours))[:, None]
    for key in range(len(ours.schema.names) // 2):
        rows, distances = _lists(ours, f"rows-{key}"), _lists(ours, f"distances-{key}")
        listed = rows >= 0
        needed = min(32 if key == 0 else 12, len(ours) - 1)
        assert listed[:, :needed].all(), "as many as are asked for"
        assert not (rows == everybody).any()
        named = [row[there] for row, there in zip(rows, listed, strict=True)]
        assert all(len(set(row)) == len(row) for row in named), "each once"
        expected = _lists(theirs, f"distances-{key}")
        np.testing.assert_allclose(distances[listed], expected[listed], atol=1e-5)


def _assert_votes_are_those_of_the_lists(version: Path) -> None:
    entries, lists, manifest = entries_of(version), neighbours_of(version), manifest_of(version)
    label = entries["label"].to_numpy()
    places = [i for i, exit in enumerate(manifest["exits"]) if exit.startswith("vote@")]
    for key, place in enumerate(places):
        rows, distances = (_lists(lists, f"{what}-{key}")[:, :12] for what in ("rows", "distances"))
        weights = np.where(rows < 0, 0, 1 / np.maximum(distances, 1e-12))
        votes = np.zeros((len(rows), len(manifest["labels"])))
        for own, (others, shares) in enumerate(zip(rows, weights, strict=True)):
            np.add.at(votes[own], label[others], shares)
        expected = votes.max(axis=1) / votes.sum(axis=1)
        found = _lists(entries, "confidences")[:, place]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def _lists(table: Any, column: str) -> Any:
    return np.array(table[column].to_pylist())

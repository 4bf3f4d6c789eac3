"""A corpus that changes while it is read stops the command; rows in are rows out and rejects."""

import os

import pytest

import tasks.build.sweep
import tasks.classify.classification
from tests.flows.jobs import manifest_of, predictions_of, raee, rejects_of
from tests.storage.corpora import FORMATS, write_corpus
from tests.texts import sentences


def _cut(path, rows):
    write_corpus(path, rows[:7])


def _replaced(path, rows):
    """Another file in its place, of as many rows and bytes."""
    other = write_corpus(path.with_name(f"other.{path.name.partition('.')[2]}"), rows[::-1])
    os.replace(other, path)


def _touched_and_grown(path, rows):
    write_corpus(path, [*rows, *rows])


def _gone(path, rows):
    path.unlink()


_CHANGES = [_cut, _replaced, _touched_and_grown, _gone]


def _changes(monkeypatch, module, change):
    """Change the corpus when its first shard has been read."""
    real, read = module.rows_of_shard, []

    def rows_of_shard(*args):
        if len(read) == 1:
            change()
        read.append(True)
        return real(*args)

    monkeypatch.setattr(module, "rows_of_shard", rows_of_shard)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("change", _CHANGES)
def test_that_is_classified(published, monkeypatch, form, change):
    rows = sentences(60, seed=9)
    path = published.root / f"new.{form}"
    published.write(path.name, rows)
    _changes(monkeypatch, tasks.classify.classification, lambda: change(path, rows))
    output = published.root / "out"
    arguments = ("classify", published.job(), "--input", path, "--output", output)
    answer = raee(*arguments)
    assert answer.code == 2
    assert answer.error.startswith(f"{path} has changed since it was looked at (it was ")
    assert not (output / "manifest.json").exists()


@pytest.mark.parametrize("change", _CHANGES)
def test_that_a_database_is_built_from(place, monkeypatch, change):
    rows = sentences(60)
    path = place.root / "train.csv"
    place.write(path.name, rows)
    _changes(monkeypatch, tasks.build.sweep, lambda: change(path, rows))
    answer = raee("build", place.job())
    assert answer.code == 2
    assert answer.error.startswith(f"{path} has changed since it was looked at (it was ")
    assert not list((place.store / "databases/demo").glob("versions/*/manifest.json"))
    monkeypatch.undo()
    place.write(path.name, rows)
    answer = raee("build", place.job())
    assert answer.code == 0, "it begins anew with what is there now"
    assert manifest_of(place.version(answer.out.strip()))["rows"] == 60


def test_that_changes_between_two_files_of_a_listing(published, monkeypatch):
    rows = sentences(60, seed=9)
    for number in range(3):
        published.write(f"new/{number}.jsonl", rows[20 * number :][:20])
    path = published.root / "new/2.jsonl"
    _changes(monkeypatch, tasks.classify.classification, lambda: _cut(path, rows))
    arguments = ("--input", path.parent, "--output", published.root / "out")
    answer = raee("classify", published.job(), *arguments)
    assert answer.error.startswith(f"{path} has changed since it was looked at")


class TestRejects:
    _INVISIBLE = "\u200b\u2060\u00ad"

    def _rows(self, bad):
        rows = sentences(60, seed=9)
        return [r | {"text": bad} if i % 6 == 0 else r for i, r in enumerate(rows)]

    @pytest.mark.parametrize("bad", ["", _INVISIBLE])
    def test_and_rows_out_are_the_rows_in(self, published, bad):
        input = published.write("new.jsonl", self._rows(bad))
        output = published.classify(input, max_reject_fraction=0.2)
        manifest = manifest_of(output)
        reason = "text has no token" if bad else "text is empty"
        assert manifest["rows_in"] == 60
        assert manifest["rows_out"] == predictions_of(output).num_rows == 50
        assert manifest["rejected"] == {reason: 10}
        assert [(r["row"], r["reason"]) for r in rejects_of(output)] == [
            (n, reason) for n in range(1, 61, 6)
        ]

    def test_of_a_build_are_without_a_token_too(self, place):
        place.write("train.jsonl", self._rows(self._INVISIBLE))
        corpus = {"uri": str(place.root / "train.jsonl"), "id": "id"}
        version = place.version(place.build(corpus=corpus, max_reject_fraction=0.2))
        manifest = manifest_of(version)
        assert manifest["corpus"]["rows"] == 60
        assert manifest["rows"] == 50
        assert manifest["rejected"] == {"text has no token": 10}
        assert len(rejects_of(version)) == 10

    def test_end_a_classification_as_soon_as_there_are_too_many(self, published, monkeypatch):
        real, shards = tasks.classify.classification.finish, []

        def finish(*args):
            shards.append(True)
            return real(*args)

        monkeypatch.setattr(tasks.classify.classification, "finish", finish)
        rows = [r | {"text": ""} if i < 15 else r for i, r in enumerate(sentences(200, seed=9))]
        input = published.write("new.csv", rows)
        arguments = ("--input", input, "--output", published.root / "out")
        answer = raee(
            "classify", published.job(max_reject_fraction=0.05, balance="database"), *arguments
        )
        assert answer.code == 2
        assert answer.error == (
            f"corpus {input}: 15 of 200 rows cannot be used (text is empty: 15), more than "
            "max_reject_fraction 0.05 allows"
        )
        assert len(shards) < 10
        answer = raee(
            "classify", published.job(max_reject_fraction=0.2, balance="database"), *arguments
        )
        assert answer.code == 0, "what was done is not done again"
        assert manifest_of(published.root / "out")["rows_out"] == 185
        assert len(shards) == 10

    def test_that_are_too_many_without_a_token_end_a_build(self, place):
        place.write("train.jsonl", self._rows(self._INVISIBLE))
        corpus = {"uri": str(place.root / "train.jsonl"), "id": "id"}
        answer = raee("build", place.job(corpus=corpus, max_reject_fraction=0.1))
        assert answer.code == 2
        assert "10 of 60 rows cannot be used (text has no token: 10)" in answer.error

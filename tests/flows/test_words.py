"""The n-grams of a build: of which rows they are, and where their tokens come from."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from transformers import AutoTokenizer

from storage.scan import sample_numbers
from tests.flows.jobs import Workplace, entries_of, manifest_of, predictions_of
from tests.flows.opinions import opinions
from tests.flows.rebuilds import History, added, assert_alike, removed
from tests.raee.ngrams import code_of, plain_ngrams
from tests.texts import sentences


def _known(version: Path) -> list[int]:
    """The numbers of the n-grams that a version knows."""
    return safetensors.numpy.load_file(version / "words.safetensors")["words_codes"].tolist()


def _those_of(place: Workplace, texts: list[str], min_count: int) -> list[int]:
    """The numbers of the n-grams that enough of some texts have, by the model's own tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(place.model_of("bert-encoder"))
    with_it = Counter(n for ids in tokenizer(texts)["input_ids"] for n in plain_ngrams(ids))
    return sorted(code_of(n) for n, count in with_it.items() if count >= min_count)


def test_the_tokens_that_a_rebuild_reuses_are_those_of_the_models_own_tokenizer(published_once):
    version = published_once.only_version()
    (path,) = (version.parents[1] / "swept").glob("*-00000.parquet")
    readings = pq.read_table(path, columns=["text_hash", "token_ids"])
    text_of = {row["text_hash"]: row["text"] for row in entries_of(version).to_pylist()}
    tokenizer = AutoTokenizer.from_pretrained(published_once.model_of("bert-encoder"))
    texts = [text_of[text_hash] for text_hash in readings["text_hash"].to_pylist()]
    assert readings["token_ids"].to_pylist() == tokenizer(texts)["input_ids"]


def test_rows_that_leave_at_the_ngrams_run_no_layer_and_nobody_looks_how_far_they_are(published):
    input = published.write("new.csv", sentences(33, seed=7))
    output = published.classify(input, policy={"name": "fixed", "exit": "words@0"})
    found, manifest = predictions_of(output), manifest_of(output)
    assert set(zip(found["reader"].to_pylist(), found["depth"].to_pylist(), strict=True)) == {
        ("words", 0)
    }
    assert found["label"].null_count == found["confidence"].null_count == 0
    assert found["usual"].null_count == found["nearest_distance"].null_count == 33
    assert found["flags"].to_pylist() == [[]] * 33
    assert (manifest["rows_out"], manifest["mean_layers"]) == (33, 0)


def test_a_rebuild_takes_the_tokens_of_known_rows_from_its_parent(published, monkeypatch):
    import tasks.build.sweep

    tokenised: list[str] = []
    real = tasks.build.sweep.encode

    def encode(backbone, prompt, texts):
        tokenised.extend(texts)
        return real(backbone, prompt, texts)

    monkeypatch.setattr(tasks.build.sweep, "encode", encode)
    dice, before = random.Random(0), sentences(40)
    rows = added(removed(before, dice), dice)
    published.write("train.csv", rows)
    child = published.version(published.build())
    known = {row["text"] for row in before}
    assert sorted(tokenised) == sorted(row["text"] for row in rows if row["text"] not in known)
    assert 0 < len(tokenised) < len(rows)
    said = manifest_of(child)["probes"]["words"]
    assert said["rows"] == len(rows)
    texts = [row["text"] for row in rows]
    assert _known(child) == _those_of(published, texts, said["min_count"])


def test_a_rebuild_begins_at_its_parents_weights_and_ends_where_a_build_from_nothing_does(
    taught, tmp_path
):
    """On rows of which words tell the labels: the searches are many steps long."""
    rows = opinions(taught.model_of("bert-encoder"), 360)
    history, parent = History(taught, shard_rows=100), taught.only_version().name
    expected = history.from_nothing(rows[40:], tmp_path / "nothing")
    version = history.rebuild(rows[40:])
    manifest = manifest_of(version)
    assert manifest["parent"] == parent
    assert manifest["probes"]["words"]["temperature"] > 0.5, "words tell something"
    assert_alike(version, expected)


@pytest.fixture(scope="module")
def place(tmp_path_factory, model_of) -> Workplace:
    """A place with a version whose n-grams are fitted on half of its rows."""
    place = Workplace(tmp_path_factory.mktemp("words"), model_of)
    place.write("train.csv", sentences(120))
    place.build(words_rows=60, sample_rows=30)
    return place


class TestOfMoreRowsThanAreAsked:
    def test_a_sample_by_the_texts_with_the_labels_shares_is_fitted_on(self, place):
        version = place.only_version()
        said, entries = manifest_of(version)["probes"]["words"], entries_of(version)
        texts, label = entries["text"].to_pylist(), entries["label"].to_numpy()
        # As many as asked, and those that share a text with one of them.
        assert 60 <= said["rows"] <= 66
        numbers, shares = sample_numbers(pl.Series(texts)), Counter(label.tolist())
        drawn = []
        for name, rows in shares.items():
            own = np.sort(numbers[label == name])
            limit = own[round(60 * rows / 120) - 1]
            drawn += [
                t
                for t, n, own in zip(texts, numbers, label == name, strict=True)
                if own and n <= limit
            ]
        assert abs(len(drawn) - said["rows"]) <= 3
        known = set(_known(version))
        assert len(known & set(_those_of(place, drawn, said["min_count"]))) > 0.9 * len(known)
        assert known < set(_those_of(place, texts, said["min_count"]))

    def test_rows_that_carry_the_figures_are_among_them_and_no_others_are_read(self, place):
        version = place.only_version()
        manifest, entries = manifest_of(version), entries_of(version)
        words = manifest["exits"].index("words@0")
        read = ~np.isnan(np.array(entries["confidences"].to_pylist())[:, words])
        assert read.sum() == manifest["probes"]["sampled_rows"]
        assert 30 <= read.sum() <= 34

    def test_no_fewer_than_carry_the_figures(self, place, tmp_path):
        other = Workplace(tmp_path, place.model_of)
        other.write("train.csv", sentences(120))
        said = manifest_of(other.version(other.build(words_rows=1, sample_rows=30)))["probes"]
        assert said["words"]["rows"] == said["sampled_rows"]

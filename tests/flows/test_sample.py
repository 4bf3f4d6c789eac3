"""`sample_rows` smaller than the corpus: some rows carry the figures of probes, all build them."""

import json
from collections import Counter

import numpy as np
import polars as pl
import pytest
import safetensors.numpy

from storage.scan import sample_numbers
from tests.flows.jobs import Workplace, entries_of, manifest_of, predictions_of, raee
from tests.flows.opinions import opinions

_ROWS, _SAMPLE = 240, 90


@pytest.fixture(scope="module")
def place(tmp_path_factory, model_of) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("sampled"), model_of)
    place.write("train.csv", opinions(model_of("bert-encoder"), _ROWS, shares=(4, 1, 1)))
    place.build(shard_rows=70, sample_rows=_SAMPLE)
    return place


def _read(place):
    """The manifest, the entries, and which of them were read at every exit."""
    version = place.only_version()
    manifest, entries = manifest_of(version), entries_of(version)
    confidences = np.array(entries["confidences"].to_pylist())
    swept = sum(exit.startswith(("head@", "vote@")) for exit in manifest["exits"])
    assert not np.isnan(confidences[:, :swept]).any(), "heads and votes are read of all rows"
    unread = np.isnan(confidences[:, swept:])
    np.testing.assert_array_equal(unread.any(axis=1), unread.all(axis=1))
    return manifest, entries, ~unread.any(axis=1)


def test_about_so_many_rows_carry_the_figures_of_probes(place):
    manifest, entries, sampled = _read(place)
    # As many as asked, and those that share a text with one of them.
    assert _SAMPLE <= sampled.sum() <= _SAMPLE + 5
    assert manifest["probes"]["sampled_rows"] == sampled.sum()
    assert manifest["probes"]["rows"] == _ROWS
    tuning = manifest["tuning"]
    assert tuning["rows"] == sampled.sum()
    assert manifest["job"]["sample_rows"] == _SAMPLE
    assert len(entries) == _ROWS


def test_the_sample_keeps_the_labels_shares(place):
    _, entries, sampled = _read(place)
    label = entries["label"].to_numpy()
    of_all, of_sample = Counter(label.tolist()), Counter(label[sampled].tolist())
    assert of_all[0] > 1.5 * of_all[1], "the labels are not balanced"
    for name, rows in of_all.items():
        assert abs(of_sample[name] - _SAMPLE * rows / _ROWS) <= 3


def test_the_sample_is_drawn_by_the_texts_alone(place):
    """So that another machine, or tomorrow's rebuild, draws the same rows."""
    _, entries, sampled = _read(place)
    numbers = sample_numbers(pl.Series(entries["text"].to_pylist()))
    label = entries["label"].to_numpy()
    for name in np.unique(label):
        drawn, others = numbers[(label == name) & sampled], numbers[(label == name) & ~sampled]
        assert drawn.max() < others.min()


def test_the_probes_are_fitted_on_all_rows(place):
    sums = safetensors.numpy.load_file(place.only_version() / "probes.safetensors")
    manifest, entries, _ = _read(place)
    assert manifest["probes"]["fit"] == "lda"
    counts = Counter(entries["label"].to_pylist())
    assert sums["sums_mean_rows"].tolist() == [counts[i] for i in range(3)]


def test_metrics_are_those_of_the_sample(place):
    manifest, entries, sampled = _read(place)
    right = np.array(entries["answers"].to_pylist()) == entries["label"].to_numpy()[:, None]
    accuracy = dict(zip(manifest["exits"], right[sampled].mean(axis=0), strict=True))
    assert manifest["metrics"]["full"]["accuracy"] == pytest.approx(accuracy["head@4"])
    assert manifest["metrics"]["logistic"]["accuracy"] == pytest.approx(accuracy["logistic@4"])
    assert sum(manifest["metrics"]["tuned"]["exits"].values()) == sampled.sum()


@pytest.mark.parametrize("policy", ["tuned", "raee", "kernel"])
def test_such_a_version_classifies(place, policy):
    rows = opinions(place.model_of("bert-encoder"), 40, seed=1)
    input = place.write("new.csv", rows)
    output = place.classify(input, policy, "--policy", policy, shard_rows=70, sample_rows=_SAMPLE)
    answers = predictions_of(output)["label_name"].to_pylist()
    assert set(answers) <= {"bad", "good", "odd"}
    manifest = manifest_of(output)
    assert manifest["rows_out"] == 40
    assert manifest["balance"]["labels"]["bad"]["database"] > 0.4


def test_such_a_version_is_tuned_again_alike(place, tmp_path):
    answer = raee("tune", place.job(sample_rows=_SAMPLE), "--json", tmp_path / "tuning.json")
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "tuning.json").read_text()) == _read(place)[0]["tuning"]

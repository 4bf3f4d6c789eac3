"""A version's probes: what is in the file, and that all of it follows from sums and manifest."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from transformers import AutoTokenizer

import tasks.build.fit
from raee.readers.de3 import edr
from raee.readers.discriminant import linear_map, scatter_at
from raee.readers.sums import Sums, sums_from, sums_of
from tests.flows.jobs import Workplace, entries_of, manifest_of, repeated_data_of
from tests.flows.opinions import mean_states
from tests.raee.ngrams import code_of, plain_ngrams


class Read:
    """A version's probes and entries, read without our code, and its rows' plain states."""

    def __init__(self, version: Path, encoder: str) -> None:
        self.manifest, self.entries = manifest_of(version), entries_of(version)
        self.said = self.manifest["probes"]
        self.tensors = safetensors.numpy.load_file(version / "probes.safetensors")
        prefix = "sums_mean_"  # a masked LM has others beside them
        self.sums = sums_from(
            {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}
        )
        self.states = mean_states(encoder, self.entries["text"].to_pylist())
        self.label = self.entries["label"].to_numpy()

    def exit(self, name):
        """The answers and confidences of an exit."""
        place = self.manifest["exits"].index(name)
        answers, confidences = (
            np.array(self.entries[column].to_pylist())[:, place]
            for column in ("answers", "confidences")
        )
        return answers, confidences


@pytest.fixture(scope="module")
def taught_version(taught_once) -> Read:
    return Read(taught_once.only_version(), taught_once.model_of("bert-encoder"))


@pytest.fixture
def twin(taught_once, tmp_path) -> Workplace:
    """A place with the same corpus, and nothing built of it."""
    shutil.copy(taught_once.root / "train.csv", tmp_path)
    return Workplace(tmp_path, taught_once.model_of)


def test_the_sums_are_those_of_plain_states(taught_version):
    labels = len(taught_version.manifest["labels"])
    plain = sums_of(taught_version.states, taught_version.label, labels)
    np.testing.assert_array_equal(taught_version.sums.rows, plain.rows)
    # Passes in float32, padded or not, agree to about 1e-6 a row.
    np.testing.assert_allclose(taught_version.sums.first, plain.first, atol=1e-4)
    np.testing.assert_allclose(taught_version.sums.second, plain.second, atol=1e-4)


def test_states_read_depth_by_depth_give_the_same_probes(taught_once, twin, monkeypatch):
    """As they are if many rows do not fit into memory at all depths."""
    monkeypatch.setattr(tasks.build.fit, "_HELD_BYTES", 1)
    built = twin.version(twin.build(shard_rows=100))
    assert repeated_data_of(built) == repeated_data_of(taught_once.only_version())


def test_other_shards_give_the_same_sums(taught_version, twin):
    """But for the batches that rows were in: sums over 300 rows agree to 1e-4."""
    built = safetensors.numpy.load_file(
        twin.version(twin.build(shard_rows=37)) / "probes.safetensors"
    )
    for name in ("sums_mean_rows", "sums_mean_first", "sums_mean_second_upper"):
        assert built[name].dtype == np.float64
        np.testing.assert_allclose(built[name], taught_version.tensors[name], atol=1e-4)


def test_maps_temperatures_and_means_follow_from_the_sums_and_the_manifest_alone(taught_version):
    said, tensors, sums = taught_version.said, taught_version.tensors, taught_version.sums
    assert said["fit"] == "lda"
    assert len(said["shrinkages"]) == sums.depths == 5
    for depth, shrinkage in enumerate(said["shrinkages"]):
        weights, biases = linear_map(scatter_at(sums, depth), shrinkage)
        np.testing.assert_array_equal(tensors["weights"][depth], weights)
        np.testing.assert_array_equal(tensors["biases"][depth], biases)
    np.testing.assert_array_equal(tensors["temperatures"], said["temperatures"])
    np.testing.assert_array_equal(tensors["means"], sums.first / sums.rows[:, None])


def test_the_regression_is_scikit_learns_with_the_penalty_that_the_manifest_names(taught_version):
    # In half the digits its line search may find nothing to gain, which it warns of.
    read, states = taught_version, taught_version.states[-1].astype(np.float64)
    model = LogisticRegression(
        C=read.said["regression_penalty"], solver="newton-cg", max_iter=1_000, tol=1e-8
    ).fit(states, read.label)
    scores = states @ read.tensors["regression_weights"].T + read.tensors["regression_biases"]
    np.testing.assert_allclose(softmax(scores, axis=1), model.predict_proba(states), atol=1e-2)


def test_the_manifest_says_what_every_expert_of_a_pool_weighs(taught_version):
    said, tensors = taught_version.said["pool"], taught_version.tensors
    assert len(said) == 5
    for depth, weights in enumerate(said):
        stored = {"words": tensors["pool_words"][depth], "head": tensors["pool_heads"][depth]}
        stored["vote@1"] = tensors["pool_votes"][depth, 0]
        for below, weight in enumerate(tensors["pool_probes"][depth]):
            stored[f"probe@{below}"] = weight
            assert weight == 0 or below <= depth
        assert weights == {name: round(w, 4) for name, w in stored.items() if w > 0}
        assert weights.keys() & {"words", *(f"probe@{d}" for d in range(depth + 1))}


def test_the_ngrams_are_the_rows_own_and_their_weights_halves(taught_once, taught_version):
    words = safetensors.numpy.load_file(taught_once.only_version() / "words.safetensors")
    said = taught_version.said["words"]
    tokenizer = AutoTokenizer.from_pretrained(taught_once.model_of("bert-encoder"))
    rows = tokenizer(taught_version.entries["text"].to_pylist())["input_ids"]
    with_it = Counter(ngram for ids in rows for ngram in plain_ngrams(ids))
    known = sorted(code_of(n) for n, count in with_it.items() if count >= said["min_count"])
    assert words["words_codes"].tolist() == known
    assert (said["rows"], said["ngrams"]) == (300, len(known))
    assert words["words_weights"].shape == (len(known), len(taught_version.manifest["labels"]))
    assert words["words_weights"].dtype == np.float16
    assert words["words_temperature"].tolist() == [said["temperature"]]


def test_the_manifest_says_how_good_a_fit_is_without_the_row(taught_version):
    said = taught_version.said
    assert (said["state"], said["rows"], said["sampled_rows"]) == ("mean", 300, 300)
    for fit, name in (("lda", "probe@4"), ("logistic", "logistic@4")):
        right = taught_version.exit(name)[0] == taught_version.label
        assert said["accuracy_without_the_row"][fit] == pytest.approx(right.mean())


def _without(read: Read, row: int) -> Sums:
    """The sums without a row."""
    some = slice(row, row + 1)
    return read.sums - sums_of(read.states[:, some], read.label[some], len(read.sums.rows))


@pytest.mark.parametrize("row", range(0, 300, 43))
def test_the_exits_of_probes_are_those_of_a_fit_without_the_row(taught_version, row):
    """By a fit anew on the sums less the row, if the build has a formula."""
    read = taught_version
    others, said, label = _without(read, row), read.said, read.label[row]
    depths = range(others.depths)
    scores = []
    for depth in depths:
        weights, biases = linear_map(scatter_at(others, depth), said["shrinkages"][depth])
        biases += np.log(read.sums.rows / read.sums.rows.sum())  # of all rows' labels
        biases -= np.log(others.rows / others.rows.sum())
        scores.append(said["temperatures"][depth] * (weights @ read.states[depth, row] + biases))
    logs = log_softmax(np.array(scores), axis=1)
    for depth in depths:
        answers, confidences = read.exit(f"probe@{depth}")
        assert answers[row] == logs[depth].argmax()
        assert confidences[row] == pytest.approx(np.exp(logs[depth].max()), abs=1e-3)
        means = others.first[depth] / others.rows[:, None]
        distances = np.linalg.norm(means - read.states[depth, row], axis=1)
        indicator = edr(np.exp(logs[[depth]]), distances[None])[0]
        answers, confidences = read.exit(f"de3@{depth}")
        assert answers[row] == logs[depth].argmax()
        assert confidences[row] == pytest.approx(1 - indicator, abs=1e-3)
    assert others.rows[label] == read.sums.rows[label] - 1

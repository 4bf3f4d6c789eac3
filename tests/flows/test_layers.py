"""`key: {model: backbone, layers: [..]}`: a key and a vote at each of several depths."""

import json

import faiss
import numpy as np
import pytest

from tests.flows.jobs import (
    Workplace,
    entries_of,
    exits_of_entry,
    manifest_of,
    predictions_of,
    raee,
)
from tests.flows.opinions import mean_states, plain_words

_KEY = {"layers": [0, 2]}


@pytest.fixture(scope="module")
def place(layered_once) -> Workplace:
    """The shared place: only its outputs are written here, each under its own name."""
    layered_once.write("new.csv", plain_words(30, seed=1))
    return layered_once


def _version(place):
    return place.only_version("layered")


def _classified(place, output, policy):
    return place.classify(
        str(place.root / "new.csv"),
        f"layers/{output}",
        name="layered",
        key=_KEY,
        policy=policy,
        shard_rows=60,
        far=None,
    )


def test_a_version_has_an_index_and_a_vote_for_each(place):
    version = _version(place)
    manifest = manifest_of(version)
    assert manifest["exits"] == exits_of_entry(4, 0, 2)
    rows = {f["path"]: f["rows"] for f in manifest["files"] if f["path"].startswith("keys/")}
    assert rows == {"keys/layer-00.faiss": 150, "keys/layer-02.faiss": 150}
    assert set(manifest["tuning"]["keys"]) == {"vote@0", "vote@2"}


@pytest.mark.parametrize("depth", _KEY["layers"])
def test_each_vote_is_that_of_the_neighbours_at_its_depth_without_the_row(place, depth):
    version = _version(place)
    entries, manifest = entries_of(version), manifest_of(version)
    keys = mean_states(place.model_of("bert-encoder"), entries["text"].to_pylist())[depth]
    index = faiss.read_index(str(version / f"keys/layer-{depth:02d}.faiss"))
    np.testing.assert_allclose(index.reconstruct_n(0, 150), keys, atol=1e-5)
    stored = index.reconstruct_n(0, 150).astype(np.float64)
    distances = np.square(stored[:, None] - stored[None]).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    label = entries["label"].to_numpy()
    votes = np.zeros((150, 3))
    for row, nearest in enumerate(np.argsort(distances, axis=1, kind="stable")[:, :12]):
        np.add.at(votes[row], label[nearest], 1 / np.maximum(distances[row, nearest], 1e-12))
    votes /= votes.sum(axis=1, keepdims=True)
    place_of_it = manifest["exits"].index(f"vote@{depth}")
    confidences = np.array(entries["confidences"].to_pylist())[:, place_of_it]
    # If more than twelve rows share a text, any twelve of them may vote: all of one label.
    np.testing.assert_allclose(confidences, votes.max(axis=1), atol=1e-3)
    if depth == 0:
        np.testing.assert_allclose(
            entries["nearest_distance"].to_numpy(), distances.min(axis=1), atol=1e-5
        )


@pytest.mark.parametrize("exit", ["vote@0", "vote@2"])
def test_a_retrieval_asks_the_vote_that_it_names(place, exit):
    output = _classified(place, exit, {"name": "retrieval", "exit": exit})
    manifest = manifest_of(output)
    assert manifest["exits"] == {exit: 30}
    assert manifest["layers_run"] == 30 * int(exit[-1])
    labels = [row["label"] for row in plain_words(30, seed=1)]
    answers = predictions_of(output)["label_name"].to_pylist()
    assert np.mean([a == b for a, b in zip(answers, labels, strict=True)]) > 0.8


def test_without_a_name_a_retrieval_asks_the_better_vote(place):
    entries = entries_of(_version(place))
    right = np.array(entries["answers"].to_pylist()) == entries["label"].to_numpy()[:, None]
    exits = manifest_of(_version(place))["exits"]
    rates = {e: right[:, exits.index(e)].mean() for e in ("vote@0", "vote@2")}
    best = max(rates, key=lambda e: (rates[e], e == "vote@0"))
    assert manifest_of(_classified(place, "best", "retrieval"))["exits"] == {best: 30}


def test_a_cascade_asks_the_vote_of_the_depth_that_it_has_come_to(place):
    policy = {"name": "cascade", "readers": ["vote"], "threshold": 1.0}
    assert set(manifest_of(_classified(place, "cascade", policy))["exits"]) <= {"vote@0", "vote@2"}
    policy = {"name": "cascade", "readers": ["vote", "probe"], "first": 2, "threshold": 0.0}
    assert manifest_of(_classified(place, "second", policy))["exits"] == {"vote@2": 30}


def test_plans_ask_the_neighbours_at_the_shallowest_depth(place):
    """So a row that they send to depth 0 runs no layer."""
    output = _classified(place, "raee", "raee")
    manifest, table = manifest_of(output), predictions_of(output)
    assert manifest["layers_run"] == table["depth"].to_numpy().sum()
    assert table["nearest_distance"].null_count == 0


def test_another_choice_of_layers_is_refused(place):
    for key in ({"layers": [0]}, {"layers": [0, 3]}, {"layer": 2}):
        job = place.job(name="layered", key=key)
        answer = raee("classify", job, "--input", place.root / "new.csv", "--output", "/nowhere")
        assert answer.code == 2
        assert "was built with key {'model': 'backbone', 'layer': 0, 'layers': " in answer.error


def test_an_explanation_reads_every_vote(place):
    job = place.job(name="layered", key=_KEY)
    found = json.loads(raee("explain", job, "terrible bad", "--json").out)
    assert list(found["exits"]) == exits_of_entry(4, 0, 2)
    assert {found["exits"][e]["label"] for e in ("vote@0", "vote@2")} == {"bad"}

"""Rows in memory are published as a flow would, and a build in memory makes the same of them."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from raee.build import build
from raee.config import Method
from storage.database import Database, verify
from tasks.build.in_process import publish_rows
from tasks.entries import read_rows
from tasks.job import Job
from tasks.readings import load_database, load_readings
from tests.raee.errors import refused
from tests.raee.models import ARCHITECTURES, save_model
from tests.texts import LABELS, sentences

ROWS = sentences(60)
TEXTS, NAMES = [row["text"] for row in ROWS], [row["label"] for row in ROWS]
WORDS = dict(zip(LABELS, ("terrible", "great", "okay"), strict=True))
ASKED = "{text} It was"
METHODS = {
    "sentence encoder": {"model": "bert-encoder"},
    "keys at two depths": {"model": "bert-encoder", "key": {"layers": [0, 2]}},
    "masked LM": {
        "model": "bert",
        "prompt": {"template": "{text} It was {mask}.", "labels": WORDS},
        "policy": {"name": "raee", "k": 40},
    },
    "masked LM that is shown examples": {
        "model": "bert",
        "prompt": {"template": "{text} It was {mask}.", "labels": WORDS, "examples": 1},
    },
    "causal model with an instruction": {
        "model": "llama",
        "prompt": {"template": f"was the film good , bad or okay ? {ASKED}", "labels": WORDS},
    },
    "encoder-decoder": {"model": "t5", "prompt": {"template": ASKED, "labels": WORDS}},
    "key with a model of its own": {
        "model": "bert-encoder",
        "key": {"model": "mpnet-encoder"},
        "index": "IVF4,Flat",
    },
}


@pytest.fixture(scope="module")
def method_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")

    def folder_of(name):
        return str(folder / name if (folder / name).exists() else save_model(name, folder / name))

    def method(model="bert-encoder", **others) -> Method:
        family = ARCHITECTURES[model].family
        key = dict(others.pop("key", {}))
        if "model" in key:
            key["model"] = folder_of(key["model"])
        backbone = {"family": family, "model": folder_of(model), "dtype": "float32"}
        return Method.model_validate({"backbone": backbone, "key": key, **others})

    return method


@pytest.fixture
def publish(method_of, tmp_path):
    """Publishes rows into the test's own store."""

    def publish(texts, names, **changed):
        settings = method_of(policy="fixed").model_dump(mode="json")
        settings |= {"store": str(tmp_path / "store"), "name": "demo", **changed}
        return publish_rows(settings, texts, names)

    return publish


@pytest.mark.parametrize("name", METHODS)
def test_it_is_the_database_that_the_real_steps_publish(name, method_of, tmp_path):
    method = method_of(**METHODS[name])
    built = build(method, TEXTS, NAMES, "here")
    settings = method.model_dump(mode="json") | {"store": str(tmp_path), "name": "demo"}
    version = publish_rows(settings | {"shard_rows": 25}, TEXTS, NAMES)
    there = Database(str(tmp_path), "demo").version(version)
    readings = load_readings(there)
    job, manifest = Job.model_validate(readings.manifest.job), readings.manifest
    published = load_database(there, job.backbone, job.key)
    own, theirs = built.database, published
    for field in ("exits", "labels"):
        assert getattr(own.entries, field) == getattr(theirs.entries, field)
    for field in ("label", "hashes"):
        np.testing.assert_array_equal(getattr(own.entries, field), getattr(theirs.entries, field))
    # Batches of other shards round differently: another of equally likely answers may come first.
    assert (own.entries.answers != theirs.entries.answers).mean() < 0.005
    np.testing.assert_allclose(own.entries.confidences, theirs.entries.confidences, atol=1e-4)
    assert own.temperatures == pytest.approx(theirs.temperatures, rel=1e-3)
    np.testing.assert_allclose(own.nearest, theirs.nearest, atol=1e-5)
    np.testing.assert_allclose(own.far.values, theirs.far.values, rtol=1e-3, atol=1e-3)
    assert own.far.weight == pytest.approx(theirs.far.weight, abs=1e-3)
    assert own.fits.state == theirs.fits.state
    for mine, other in zip(own.indexes, theirs.indexes, strict=True):
        rows = len(own.entries)
        np.testing.assert_allclose(mine.keys(0, rows), other.keys(0, rows), atol=1e-5)
        assert mine.searched == other.searched
    assert built.copies == manifest.copies
    for policy in ("full", "logistic", "fixed", "retrieval", "raee"):  # what costs do not decide
        mine, other = (metrics[policy] for metrics in (built.metrics, manifest.metrics))
        assert mine["accuracy"] == pytest.approx(other["accuracy"], abs=0.02)
        assert mine["mean_layers"] == pytest.approx(other["mean_layers"], abs=0.1)
        assert mine["by_label"].keys() == other["by_label"].keys()
    assert built.tuning.tried == manifest.tuning["tried"]


def test_a_version_is_whole_and_in_production_and_nothing_else_is_left(publish, tmp_path):
    before = set(Path(tempfile.gettempdir()).glob("raee-*"))
    version = publish(TEXTS, NAMES)
    store = str(tmp_path / "store")
    manifest = Database(store, "demo").version(version).manifest()
    assert verify(Database(store, "demo").version(version).folder, manifest.files) == []
    assert verify(Database(store, "demo").folder, manifest.swept) == []
    assert Database(store, "demo").aliases()["production"] == version
    assert (manifest.rows, manifest.rejected) == (60, {})
    assert "report.html" in [f.path for f in manifest.files]
    work = Path(store) / "databases" / "demo" / "work"
    assert [p for p in work.rglob("*") if p.is_file()] == []
    assert set(Path(tempfile.gettempdir()).glob("raee-*")) <= before


def test_the_same_rows_make_no_other_version(publish, tmp_path):
    assert publish(TEXTS, NAMES) == publish(TEXTS, NAMES)
    assert len(Database(str(tmp_path / "store"), "demo").ids()) == 1


def test_rows_keep_their_ids_in_the_next_version(publish, tmp_path):
    store = str(tmp_path / "store")
    first = publish(TEXTS[5:], NAMES[5:])
    second = publish(TEXTS, NAMES)
    ids = []
    for version in (first, second):
        readings = load_readings(Database(store, "demo").version(version))
        rows = range(readings.manifest.rows)
        ids.append(read_rows(readings.files, ["id"], rows)["id"].to_pylist())
    assert len(set(ids[1])) == 60
    assert set(ids[0]) < set(ids[1])
    assert Database(store, "demo").version(second).manifest().parent == first


@pytest.mark.parametrize(
    ("names", "changed", "match"),
    [
        (["1.0", "2"] * 30, {}, "label '1.0' would be '1' in a corpus; rename it"),
        ([" a", "b"] * 30, {}, "label ' a' would be 'a' in a corpus"),
        (NAMES, {"name": "My Data"}, "^name: String should match pattern"),
        (NAMES, {"store": ""}, "^store: String should have at least 1 character"),
    ],
)
def test_what_no_version_can_be_of_is_refused(names, changed, match, publish, tmp_path):
    with refused(match):
        publish(TEXTS, names, **changed)
    assert not (tmp_path / "store").exists()

"""A new reader is one module and one line in a table; everything else finds it there."""

import json

import numpy as np
import safetensors.numpy

from raee.readers.table import READERS
from tests.flows.jobs import entries_of, exits_of_entry, manifest_of, predictions_of, raee
from tests.texts import sentences


def test_is_built_evaluated_and_classified_with(place, monkeypatch):
    monkeypatch.setitem(READERS, "centroid", "tests.raee.a_reader")
    version = place.version(place.build(policy={"name": "fixed", "exit": "centroid@1"}))
    manifest = manifest_of(version)
    names = [f"centroid@{depth}" for depth in range(len(manifest["probes"]["temperatures"]))]
    assert manifest["exits"] == [*exits_of_entry(len(names) - 1, 1), *names]
    assert manifest["probes"]["sharpness"] == 10, "its account of itself"
    assert "centroids" in safetensors.numpy.load_file(version / "probes.safetensors")
    assert entries_of(version)["answers"].type.list_size == len(manifest["exits"])
    assert "centroid" in manifest["costs"]["seconds"]["reads"]
    assert manifest["metrics"]["fixed"]["mean_layers"] == 1
    assert "the label whose mean is nearest" in (version / "report.html").read_text()

    input = place.write("new.csv", sentences(30, seed=9))
    job = {"policy": {"name": "fixed", "exit": "centroid@1"}}
    output = place.classify(input, "out", **job)
    found = predictions_of(output)
    assert set(found["reader"].to_pylist()) == {"centroid"}
    assert set(found["depth"].to_pylist()) == {1}
    assert np.isfinite(found["confidence"].to_numpy()).all()

    answer = raee("explain", place.job(**job), sentences(1, seed=9)[0]["text"])
    assert answer.code == 0, answer.err
    assert "centroid@1" in answer.out
    figures = place.root / "figures.json"
    answer = raee("evaluate", place.job(**job), "--input", input, "--json", figures)
    assert answer.code == 0, answer.err
    assert json.loads(figures.read_text())["policies"]["fixed"]["exits"] == {"centroid@1": 30}


def test_is_unknown_without_its_line(place):
    place.write("train.csv", sentences(40))
    policy = {"name": "cascade", "readers": ["centroid"]}
    answer = raee("build", place.job(policy=policy))
    assert answer.code == 2
    assert "there is no reader 'centroid'; there are head, vote, probe, probes, de3" in answer.error

"""What a classification writes as a confidence is how often such answers are right."""

import shutil

import numpy as np
import pytest

from tests.flows.jobs import Workplace, entries_of, manifest_of, predictions_of
from tests.flows.opinions import opinions

_ROWS, _FRESH = 300, 800

_NOISE = 2 * np.sqrt(0.25 / _ROWS + 0.25 / _FRESH)
"""Of an accuracy on fresh rows less one on the database's own."""


@pytest.fixture(scope="module")
def place(taught_once, tmp_path_factory) -> Workplace:
    """A version of 300 rows, and rows drawn as these were that it has not seen."""
    root = tmp_path_factory.mktemp("calibrated") / "place"
    shutil.copytree(taught_once.root, root)
    place = Workplace(root, taught_once.model_of)
    place.write("fresh.csv", opinions(place.model_of("bert-encoder"), _ROWS + _FRESH)[_ROWS:])
    return place


def _classified(place, policy):
    output = place.root / f"out-{policy}"
    if not output.exists():
        place.classify(str(place.root / "fresh.csv"), output.name, policy=policy, shard_rows=400)
    rows = opinions(place.model_of("bert-encoder"), _ROWS + _FRESH)[_ROWS:]
    table = predictions_of(output)
    answers = table["label_name"].to_pylist()
    right = np.array([a == row["label"] for a, row in zip(answers, rows, strict=True)])
    return manifest_of(output), table, right


@pytest.mark.parametrize("policy", ["full", "retrieval", "raee", "cascade", "de3"])
def test_written_confidences_are_the_accuracy_of_fresh_rows(place, policy):
    _, table, right = _classified(place, policy)
    sure = table["confidence"].to_numpy()
    assert sure.mean() == pytest.approx(right.mean(), abs=_NOISE)


@pytest.mark.parametrize("policy", ["retrieval", "cascade"])
def test_surer_rows_are_right_more_often(place, policy):
    _, table, right = _classified(place, policy)
    sure = table["confidence"].to_numpy()
    half = np.median(sure)
    assert right[sure > half].mean() > right[sure <= half].mean() + 0.1


def test_heads_as_they_are_read_are_not_calibrated(place):
    """Entries keep what was read, and the manifest says what it is calibrated with."""
    version = place.only_version()
    manifest, entries = manifest_of(version), entries_of(version)
    head = manifest["exits"].index("head@4")
    answers, confidences = (
        np.array(entries[column].to_pylist())[:, head] for column in ("answers", "confidences")
    )
    right = (answers == entries["label"].to_numpy()).mean()
    assert confidences.mean() > right + 2 * _NOISE
    heads_and_votes = [e for e in manifest["exits"] if e.startswith(("head@", "vote@"))]
    assert list(manifest["temperatures"]) == heads_and_votes


@pytest.mark.parametrize("policy", ["full", "retrieval", "cascade", "de3"])
def test_the_output_says_what_calibrates_each_exit_that_answered(place, policy):
    manifest, table, _ = _classified(place, policy)
    lines = manifest["calibration"]
    answered = {
        f"{reader}@{depth}"
        for reader, depth in zip(
            table["reader"].to_pylist(), table["depth"].to_pylist(), strict=True
        )
    }
    assert answered & lines.keys()
    assert lines.keys() <= set(manifest_of(place.only_version())["exits"])
    assert all(line.keys() == {"slope", "offset"} for line in lines.values())

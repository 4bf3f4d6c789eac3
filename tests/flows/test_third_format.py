"""A version whose figures left out the row and not the text: whatever comes later, it is read.

tests/formats/3 holds a store and what the code that wrote it answered to new.csv; the model is that
of tests/formats/1.  It is never written anew.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.flows.jobs import Workplace, entries_of, manifest_of, predictions_of, raee

_FORMATS = Path(__file__).parent.parent / "formats"


@pytest.fixture
def third(tmp_path) -> Workplace:
    shutil.copytree(_FORMATS / "3", tmp_path / "place")
    return Workplace(tmp_path / "place", lambda name: str(_FORMATS / "1" / "model"))


def _said(place, name):
    return json.loads((place.root / name).read_text())


def test_it_is_listed_shown_and_whole(third):
    store = ("--store", third.store)
    (line,) = json.loads(raee("versions", "demo", *store, "--json").out)
    assert (line["rows"], line["policy"], line["aliases"]) == (48, "tuned", ["production"])
    assert json.loads(raee("show", "demo", *store, "--json").out)["format"] == 3
    assert raee("show", "demo", *store).code == 0
    assert raee("verify", "demo", *store).code == 0


def test_it_answers_as_it_did(third):
    output = third.classify(str(third.root / "new.csv"), policy="cascade")
    found, before = predictions_of(output), pq.read_table(third.root / "predictions.parquet")
    for column in ("id", "label_name", "reader", "depth", "flags"):
        assert found[column].to_pylist() == before[column].to_pylist()
    for column in ("confidence", "nearest_distance"):
        ours, theirs = (np.array(t[column].to_pylist(), float) for t in (found, before))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert manifest_of(output)["calibration"] == {}


@pytest.mark.parametrize(
    "policy",
    ["tuned", {"name": "tuned", "accuracy": "full"}, {"name": "tuned", "risk": {"max_loss": 0.5}}],
    ids=str,
)
def test_what_its_tuning_found_on_halves_serves_todays_objectives(third, policy):
    manifest = manifest_of(third.classify(str(third.root / "new.csv"), policy=policy))
    tuning = manifest_of(third.only_version())["tuning"]
    found = [p["policy"] for p in (*tuning["front"], tuning["full_depth"])]
    assert manifest["runs"] in found
    assert manifest["rows_out"] == 30


def test_it_explains_as_it_did(third):
    answer = raee("explain", third.job(policy="cascade"), "a warm film", "--json")
    assert answer.code == 0, answer.err
    found, before = json.loads(answer.out), _said(third, "explained.json")
    for what in ("label", "exit", "layers", "far"):
        assert found[what] == before[what]
    assert [n["id"] for n in found["neighbours"]] == [n["id"] for n in before["neighbours"]]
    assert found["exits"].keys() == before["exits"].keys()
    for exit, said in before["exits"].items():
        assert found["exits"][exit]["label"] == said["label"]
        assert found["exits"][exit]["confidence"] == pytest.approx(said["confidence"], abs=1e-5)


def test_it_is_evaluated_as_it_was(third, tmp_path):
    file = tmp_path / "figures.json"
    answer = raee("evaluate", third.job(), "--input", third.root / "new.csv", "--json", file)
    assert answer.code == 0, answer.err
    found = json.loads(file.read_text())["policies"]
    before = _said(third, "figures.json")
    # `fixed` and `tuned` pick anew by today's rules among what was found then.
    assert found.keys() == before.keys()
    for name in before.keys() - {"fixed", "tuned"}:
        assert found[name]["accuracy"] == pytest.approx(before[name]), name


def test_a_rebuild_of_the_same_rows_reads_all_of_them_anew_this_once(third):
    """Though nothing else has changed: the figures of the old version are too good."""
    parent = third.only_version()
    answer = raee("build", third.job())
    assert answer.code == 0, answer.err
    assert f"nothing of version {parent.name} is reused: it is of format 3" in answer.err
    assert "sweep: 48 rows" in answer.err
    child = third.version(answer.out.strip())
    manifest = manifest_of(child)
    assert (manifest["format"], manifest["parent"]) == (4, parent.name)
    assert manifest["copies"]["rows_with_an_equal"] == 2
    # Heads learnt nothing of the rows, and say what they said.
    heads = [i for i, e in enumerate(manifest["exits"]) if e.startswith("head@")]
    ours, theirs = (np.array(entries_of(v)["answers"].to_pylist()) for v in (child, parent))
    np.testing.assert_array_equal(ours[:, heads], theirs[:, heads])
    assert raee("verify", "demo", "--store", third.store).code == 0
    answer = raee("build", third.job())
    assert "nothing has changed since version" in answer.err


def test_it_is_pinned_where_production_points_at_it(third):
    parent = third.only_version().name
    version = third.build()
    lines = json.loads(raee("versions", "demo", "--store", third.store, "--json").out)
    pointed = {alias: line["id"] for line in lines for alias in line["aliases"]}
    assert pointed["pinned"] == parent
    assert pointed["production"] in (parent, version)


def test_it_is_not_pruned_but_built_anew(third):
    answer = raee("prune", "demo", "--store", third.store)
    assert (answer.code, answer.out) == (2, "")
    assert "is of format 3, from an earlier raee; build it anew to prune it" in answer.error

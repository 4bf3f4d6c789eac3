"""A version from before there were n-grams and pools: whatever comes later, it is read.

tests/formats/4 holds a store and what the code that wrote it answered to new.csv; the model is that
of tests/formats/1.  It is never written anew.  Its exits have the averages of probes, `probes`.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.flows.jobs import Workplace, entries_of, manifest_of, predictions_of, raee

_FORMATS = Path(__file__).parent.parent / "formats"
_CASCADE = {"name": "cascade", "readers": ["vote", "probes"], "threshold": 0.6}
_AVERAGE = {"name": "fixed", "exit": "probes@2"}


@pytest.fixture
def fourth(tmp_path) -> Workplace:
    shutil.copytree(_FORMATS / "4", tmp_path / "place")
    return Workplace(tmp_path / "place", lambda name: str(_FORMATS / "1" / "model"))


def _said(place, name):
    return json.loads((place.root / name).read_text())


def test_it_is_listed_shown_and_whole(fourth):
    store = ("--store", fourth.store)
    (line,) = json.loads(raee("versions", "demo", *store, "--json").out)
    assert (line["rows"], line["policy"]) == (60, "tuned")
    assert "probes@4" in json.loads(raee("show", "demo", *store, "--json").out)["exits"]
    assert raee("show", "demo", *store).code == 0
    assert raee("verify", "demo", *store).code == 0


def test_it_answers_as_it_did(fourth):
    output = fourth.classify(str(fourth.root / "new.csv"), policy=_CASCADE)
    found, before = predictions_of(output), pq.read_table(fourth.root / "predictions.parquet")
    assert set(before["reader"].to_pylist()) == {"probes"}
    assert len(set(before["depth"].to_pylist())) > 2
    for column in ("id", "label_name", "reader", "depth", "flags"):
        assert found[column].to_pylist() == before[column].to_pylist()
    for column in ("confidence", "nearest_distance", "usual"):
        ours, theirs = (np.array(t[column].to_pylist(), float) for t in (found, before))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    "policy",
    ["tuned", {"name": "tuned", "accuracy": "full"}, {"name": "tuned", "risk": {"max_loss": 0.5}}],
    ids=str,
)
def test_what_its_tuning_found_serves_todays_objectives(fourth, policy):
    manifest = manifest_of(fourth.classify(str(fourth.root / "new.csv"), policy=policy))
    tuning = manifest_of(fourth.only_version())["tuning"]
    promised = [s["policy"] for s in (tuning["promise"]["baseline"], *tuning["promise"]["steps"])]
    found = [p["policy"] for p in (*tuning["front"], tuning["full_depth"])]
    assert manifest["runs"] in (promised if "risk" in policy else found)
    assert manifest["rows_out"] == 30


def test_it_explains_as_it_did(fourth):
    answer = raee("explain", fourth.job(policy=_AVERAGE), "a warm film", "--json")
    assert answer.code == 0, answer.err
    found, before = json.loads(answer.out), _said(fourth, "explained.json")
    assert before["exit"] == "probes@2"
    for what in ("label", "exit", "layers", "far"):
        assert found[what] == before[what]
    assert [n["id"] for n in found["neighbours"]] == [n["id"] for n in before["neighbours"]]
    assert found["exits"].keys() == before["exits"].keys()
    for exit, said in before["exits"].items():
        assert found["exits"][exit]["label"] == said["label"]
        assert found["exits"][exit]["confidence"] == pytest.approx(said["confidence"], abs=1e-5)


def test_it_is_evaluated_as_it_was(fourth, tmp_path):
    file = tmp_path / "figures.json"
    answer = raee("evaluate", fourth.job(), "--input", fourth.root / "new.csv", "--json", file)
    assert answer.code == 0, answer.err
    found = json.loads(file.read_text())["policies"]
    before = _said(fourth, "figures.json")
    assert before.keys() <= found.keys()
    for name, accuracy in before.items():
        assert found[name]["accuracy"] == pytest.approx(accuracy), name


def test_it_is_tuned_with_its_averages_and_promises_by_them(fourth, tmp_path):
    file = tmp_path / "tuning.json"
    answer = raee("tune", fourth.job(), "--json", file)
    assert answer.code == 0, answer.err
    found, before = json.loads(file.read_text()), manifest_of(fourth.only_version())["tuning"]
    assert found["promise"]["baseline"]["policy"] == {"name": "fixed", "exit": "probes@4"}
    for what in ("tried", "full_depth"):
        assert found[what] == before[what]
    assert found["families"].keys() == before["families"].keys()


def test_a_rebuild_reads_all_rows_anew_this_once_and_has_pools(fourth):
    parent = fourth.only_version()
    answer = raee("build", fourth.job())
    assert answer.code == 0, answer.err
    said = f"nothing of version {parent.name} is reused: it does not keep the token ids"
    assert said in answer.err
    assert "sweep: 60 rows" in answer.err
    child = fourth.version(answer.out.strip())
    manifest = manifest_of(child)
    assert (manifest["format"], manifest["parent"]) == (4, parent.name)
    readers = {exit.partition("@")[0] for exit in manifest["exits"]}
    assert {"words", "pool"} <= readers
    assert "probes" not in readers
    # Heads and probes are what they were.
    ours, theirs = (np.array(entries_of(v)["answers"].to_pylist()) for v in (child, parent))
    same = [n for n in manifest["exits"] if n.startswith(("head@", "probe@"))]
    for name in same:
        places = [manifest_of(v)["exits"].index(name) for v in (child, parent)]
        np.testing.assert_array_equal(ours[:, places[0]], theirs[:, places[1]])
    assert raee("verify", "demo", "--store", fourth.store).code == 0
    answer = raee("build", fourth.job())
    assert "nothing has changed since version" in answer.err


def test_a_policy_of_averages_is_refused_by_a_build_before_it_reads_and_by_what_it_built(fourth):
    match = "policy names the reader 'probes', which the database has not: 'pool' has taken its"
    for policy in (_CASCADE, _AVERAGE):
        before = fourth.files()
        answer = raee("build", fourth.job(policy=policy))
        assert (answer.code, answer.out) == (2, "")
        assert match in answer.error
        assert fourth.files() == before
    fourth.build()
    new = fourth.root / "new.csv"
    answer = raee("classify", fourth.job(policy=_CASCADE), "--input", new, "--output", "out")
    assert answer.code == 2
    assert match in answer.error
    for command in (("explain", "a warm film"), ("evaluate", "--input", new)):
        answer = raee(command[0], fourth.job(policy=_CASCADE), *command[1:])
        assert answer.code == 2
        assert match in answer.error


def test_it_is_tried_whether_it_can_be_pruned(fourth):
    answer = raee("prune", "demo", "--store", fourth.store)
    assert answer.code == 0, answer.err
    assert "no tenth of its rows can go; nothing is published" in answer.out

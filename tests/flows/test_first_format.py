"""A version that the first release published: whatever comes later, it is read.

tests/formats/1 holds a model, a store and what that release answered to new.csv.  It is never
written anew.
"""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.flows.jobs import Workplace, predictions_of, raee

_FORMAT_1 = Path(__file__).parent.parent / "formats" / "1"


@pytest.fixture
def first(tmp_path):
    shutil.copytree(_FORMAT_1, tmp_path / "place")
    return Workplace(tmp_path / "place", lambda name: str(tmp_path / "place" / "model"))


def test_it_is_listed_shown_and_whole(first):
    store = ("--store", first.store)
    (line,) = json.loads(raee("versions", "demo", *store, "--json").out)
    assert (line["rows"], line["policy"], line["aliases"]) == (30, "raee", ["production"])
    assert json.loads(raee("show", "demo", *store, "--json").out)["format"] == 1
    assert raee("verify", "demo", *store).code == 0


def test_it_answers_as_it_did(first):
    output = first.classify(str(first.root / "new.csv"), policy="raee", far=None)
    found, before = predictions_of(output), pq.read_table(first.root / "predictions.parquet")
    for column in ("id", "label_name", "reader", "depth"):
        assert found[column].to_pylist() == before[column].to_pylist()
    for column in ("confidence", "nearest_distance"):
        assert found[column].to_pylist() == pytest.approx(before[column].to_pylist(), abs=1e-5)


def test_a_rebuild_reads_all_rows_and_has_it_for_a_parent(first):
    answer = raee("build", first.job(policy="raee"))
    assert answer.code == 0, answer.err
    newest, parent = json.loads(raee("versions", "demo", "--store", first.store, "--json").out)
    assert newest["parent"] == parent["id"]
    assert newest["aliases"] == ["production"]

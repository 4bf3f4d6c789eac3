"""`raee prune`: a child version without the rows that replay does not miss."""

import json
import re
import shutil
from collections import Counter

import faiss
import numpy as np
import pytest

from tasks.maintenance.prune import SHARES
from tests.flows.allowing import allowing
from tests.flows.jobs import Workplace, entries_of, manifest_of, predictions_of, raee
from tests.flows.opinions import plain_words

_JOB = {"name": "layered", "key": {"layers": [0, 2]}, "shard_rows": 60}


def _prune(place, name="layered", *more):
    answer = raee("prune", name, "--store", place.store, *more)
    assert answer.code == 0, answer.err
    return answer


@pytest.fixture(scope="module")
def pruned(layered_once, tmp_path_factory):
    """A place with a version and its pruned child, and what the command said."""
    root = tmp_path_factory.mktemp("pruned") / "place"
    shutil.copytree(layered_once.root, root)
    place = Workplace(root, layered_once.model_of)
    parent = place.only_version("layered")
    with allowing(0.3):
        said = json.loads(_prune(place, "layered", "--json").out)
    return place, parent, place.version(said["version"], "layered"), said


def test_redundant_rows_go(pruned):
    _, parent, child, said = pruned
    assert (said["of"], said["rows_before"]) == (parent.name, 150)
    assert said["share"] in SHARES
    assert said["rows_after"] == len(entries_of(child)) <= 90
    kept = entries_of(child)["id"].to_pylist()
    before = entries_of(parent)["id"].to_pylist()
    assert kept == [row for row in before if row in set(kept)], "in their order"


@pytest.mark.parametrize("command", ["tune", "prune"])
def test_its_progress_is_of_rows(layered_once, command):
    arguments = {
        "tune": ("tune", layered_once.job(**_JOB)),
        "prune": ("prune", "layered", "--store", layered_once.store),
    }
    answer = raee(*arguments[command])
    assert answer.code == 0, answer.err
    said = re.search(f"^..:..:.. {command}: (\\d+) rows in ", answer.err, re.MULTILINE)
    times, rest = divmod(int(said[1]), 150)  # once for each share that was tried
    assert times >= 1
    assert rest == 0


def test_labels_keep_their_balance(pruned):
    _, parent, child, said = pruned
    before, after = (Counter(entries_of(v)["label"].to_pylist()) for v in (parent, child))
    for label, rows in before.items():
        assert after[label] == np.ceil(np.round((1 - said["share"]) * rows, 6))


def test_the_child_says_where_it_comes_from_and_what_it_is_worth(pruned):
    _, parent, child, said = pruned
    manifest, before = manifest_of(child), manifest_of(parent)
    assert manifest["parent"] == parent.name
    assert manifest["pruned"] == {key: value for key, value in said.items() if key != "version"}
    assert set(said["before"]) == set(said["after"]) == {"retrieval", "tuned"}
    assert set(manifest["metrics"]) == set(before["metrics"])
    for name, figures in said["after"].items():
        loss = said["before"][name]["accuracy"] - figures["accuracy"]
        assert loss < 0.3, "or those rows would have stayed"
        # In seconds of the same cost table, not in layers.
        assert figures["seconds_per_row"] == pytest.approx(
            said["before"][name]["seconds_per_row"], rel=0.5
        )
    for what in ("exits", "labels", "probes", "costs", "job", "prompt", "corpus"):
        assert manifest[what] == before[what]
    assert manifest["tuning"]["rows"] == 150, "tuned anew, on all of the parent's rows"


def test_the_child_is_whole_and_has_every_file(pruned):
    place, parent, child, _ = pruned
    answer = raee("verify", f"layered@{child.name}", "--store", place.store)
    assert (answer.code, "all as written" in answer.out) == (0, True)
    files, before = ({f["path"] for f in manifest_of(v)["files"]} for v in (child, parent))
    # The lists of its neighbours were those among all rows.
    assert files == {path for path in before if not path.startswith("neighbours/")}
    on_disk = {str(p.relative_to(child)) for p in child.rglob("*") if p.is_file()}
    assert on_disk == files | {"manifest.json"}
    for name in ("centre.safetensors", "probes.safetensors", "words.safetensors"):
        assert (child / name).read_bytes() == (parent / name).read_bytes()


@pytest.mark.parametrize("depth", [0, 2])
def test_the_childs_votes_and_distances_are_those_of_the_rows_that_stayed(pruned, depth):
    _, _, child, _ = pruned
    entries, exits = entries_of(child), manifest_of(child)["exits"]
    index = faiss.read_index(str(child / f"keys/layer-{depth:02d}.faiss"))
    keys = index.reconstruct_n(0, index.ntotal).astype(np.float64)
    assert len(keys) == len(entries)
    distances = np.square(keys[:, None] - keys[None]).sum(axis=2)
    tokens = entries["tokens"].to_numpy()
    distances[tokens[:, None] == tokens[None]] = np.inf
    label = entries["label"].to_numpy()
    votes = np.zeros((len(keys), 3))
    for row, nearest in enumerate(np.argsort(distances, axis=1, kind="stable")[:, :12]):
        np.add.at(votes[row], label[nearest], 1 / np.maximum(distances[row, nearest], 1e-12))
    votes /= votes.sum(axis=1, keepdims=True)
    confidences = np.array(entries["confidences"].to_pylist())[:, exits.index(f"vote@{depth}")]
    np.testing.assert_allclose(confidences, votes.max(axis=1), atol=1e-3)
    if depth == 0:
        np.testing.assert_allclose(
            entries["nearest_distance"].to_numpy(), distances.min(axis=1), atol=1e-5
        )


def test_the_other_exits_stay_as_they_were(pruned):
    _, parent, child, _ = pruned
    before, after = entries_of(parent), entries_of(child)
    places = [before["id"].to_pylist().index(row) for row in after["id"].to_pylist()]
    other = [not e.startswith("vote@") for e in manifest_of(parent)["exits"]]
    for column in ("answers", "confidences"):
        ours, theirs = (np.array(t[column].to_pylist()) for t in (after, before))
        np.testing.assert_array_equal(ours[:, other], theirs[places][:, other])


def test_the_child_is_not_promoted_and_classifies_when_it_is_named(pruned):
    place, parent, child, _ = pruned
    lines = json.loads(raee("versions", "layered", "--store", place.store, "--json").out)
    assert [(line["id"], line["aliases"]) for line in lines] == [
        (child.name, []),
        (parent.name, ["pinned", "production"]),
    ]
    rows = plain_words(40, seed=2)
    input = place.write("new.csv", rows)
    for policy in ("tuned", "retrieval"):
        more = ("--version", child.name, "--policy", policy)
        output = place.classify(input, policy, *more, **_JOB)
        assert manifest_of(output)["version"] == child.name
        answers = predictions_of(output)["label_name"].to_pylist()
        assert np.mean([a == row["label"] for a, row in zip(answers, rows, strict=True)]) > 0.8


def test_a_pruned_version_is_not_pruned_again(pruned):
    place, parent, child, _ = pruned
    answer = raee("prune", f"layered@{child.name}", "--store", place.store)
    assert answer.code == 2
    assert answer.error == (
        f"database layered@{child.name} is pruned already; prune {parent.name} anew"
    )


def test_where_rows_are_needed_fewer_go_and_the_command_prints_a_table(taught):
    with allowing(0.15):
        answer = _prune(taught, "demo")
    lines = answer.out.splitlines()
    account = manifest_of(taught.version(lines[-1]))["pruned"]
    assert 20 <= account["rows_after"] < 300
    assert lines[0].strip() == f"300 rows, then {account['rows_after']}"
    assert [line.split()[0] for line in lines[2:-1]] == ["retrieval", "tuned"]
    for line in lines[2:-1]:
        name, before, after, *_ = line.split()
        assert before == f"{account['before'][name]['accuracy']:.4f}"
        assert after == f"{account['after'][name]['accuracy']:.4f}"


def test_what_cannot_be_shown_on_so_few_rows_is_not_done(published):
    version = published.only_version().name
    answer = _prune(published, "demo")
    assert answer.out == f"demo@{version}: no tenth of its rows can go; nothing is published\n"


@pytest.mark.parametrize("copies", [1, 6])
def test_what_can_be_shown_on_enough_texts_is_done_and_copies_are_no_texts(place, copies):
    rows = [
        row | {"id": f"{row['id']}-{n}"}
        for row in plain_words(360 // copies)
        for n in range(copies)
    ]
    place.write("train.csv", rows)
    version = place.build(policy="retrieval", shard_rows=200)
    said = json.loads(_prune(place, "demo", "--json").out)
    if copies > 1:
        assert said == {"version": None, "of": version, "rows_before": 360}
    else:
        assert said["share"] == SHARES[-1]
        assert said["rows_after"] == len(entries_of(place.version(said["version"]))) == 36


def test_where_nothing_can_go_nothing_is_published(place):
    """A label keeps at least one row."""
    place.write("train.csv", plain_words(6)[1:4])
    version = place.build()
    answer = _prune(place, "demo")
    assert answer.out == f"demo@{version}: no tenth of its rows can go; nothing is published\n"
    assert place.only_version().name == version
    said = json.loads(_prune(place, "demo", "--json").out)
    assert said == {"version": None, "of": version, "rows_before": 3}


def test_the_child_has_an_index_of_the_kind_that_the_job_asks_for(place):
    place.write("train.csv", plain_words(150))
    place.build(index="IVF100,Flat")
    with allowing(0.3):
        said = json.loads(_prune(place, "demo", "--json").out)
    child = place.version(said["version"])
    index = faiss.read_index(str(child / "keys/layer-01.faiss"))
    assert index.nlist == 100
    assert 100 <= said["rows_after"] == index.ntotal, "on fewer rows it cannot be trained"
    assert manifest_of(child)["indexes"] == {
        "keys/layer-01.faiss": {
            "spec": "IVF100,Flat",
            "rows": index.ntotal,
            "exact": False,
            "recall": pytest.approx(1, abs=0.05),
            "searched": index.nprobe,
        }
    }

"""When a build makes a new version, and what it then reuses of which one."""

import json
import shutil

import numpy as np
import pytest

from tests.flows.allowing import allowing
from tests.flows.jobs import Workplace, entries_of, manifest_of, neighbours_of, raee
from tests.flows.rebuilds import MASKED, Swept
from tests.texts import LABELS, sentences


@pytest.fixture
def swept(monkeypatch) -> Swept:
    return Swept(monkeypatch)


def _production(place):
    lines = json.loads(raee("versions", "demo", "--store", place.store, "--json").out)
    (version,) = (line["id"] for line in lines if "production" in line["aliases"])
    return version


def _child(place, **changed):
    """Build a version that is not the only one; returns its folder and what was said."""
    before = set(place.version("").iterdir())
    answer = raee("build", place.job(**changed))
    assert answer.code == 0, answer.err
    (child,) = set(place.version("").iterdir()) - before
    assert child.name == answer.out.strip()
    return child, answer.err


class TestWhereNothingHasChanged:
    def test_the_newest_versions_id_is_said_and_nothing_is_written(self, published, swept):
        before, version = published.files(), published.only_version().name
        answer = raee("build", published.job())
        assert (answer.code, answer.out) == (0, f"{version}\n")
        assert f"nothing has changed since version {version}: no new version" in answer.err
        assert swept.texts().total() == 0
        assert published.files() == before
        assert list((published.store / "databases/demo/work").iterdir()) == []

    def test_an_alias_that_was_rolled_back_stays_there(self, published):
        first = published.only_version().name
        second = published.build(policy="full")
        raee("promote", "demo", second, "--store", published.store)
        assert _production(published) == second
        assert raee("rollback", "demo", "--store", published.store).code == 0
        before = published.files()
        answer = raee("build", published.job(policy="full"))
        assert (answer.code, answer.out.strip()) == (0, second)
        assert f"nothing has changed since version {second}" in answer.err
        assert published.files() == before
        assert _production(published) == first

    def test_how_a_model_is_loaded_is_no_change(self, published):
        version, backbone = published.only_version().name, {"family": "sentence-encoder"}
        backbone["model"] = published.model_of("bert-encoder")
        backbone["dtype"] = "float32"
        loading = {"device": "cpu", "attn_implementation": "sdpa", "pickled_weights": True}
        answer = raee("build", published.job(backbone=backbone | loading))
        assert (answer.code, answer.out) == (0, f"{version}\n")

    @pytest.mark.parametrize("changed", [{"shard_rows": 7}, {"max_reject_fraction": 0.5}], ids=str)
    def test_a_setting_that_decides_nothing_is_no_change(self, published, changed):
        version = published.only_version().name
        assert published.build(**changed) == version
        assert published.only_version().name == version

    def test_a_corpus_of_the_same_rows_elsewhere_is_no_change(self, published):
        version = published.only_version().name
        moved = published.write("moved.parquet", sentences(40))
        assert published.build(corpus={"uri": moved, "id": "id"}) == version


class TestWhatChangesNoReading:
    @pytest.mark.parametrize(
        "changed", [{"policy": "full"}, {"far": {"quantile": 0.5}}, {"keep_text": False}], ids=str
    )
    def test_makes_a_new_version_that_reuses_all_readings(self, published, swept, changed):
        parent = published.only_version()
        child, said = _child(published, **changed)
        assert swept.texts().total() == 0
        assert f"readings of version {parent.name} are reused" in said
        assert manifest_of(child)["parent"] == parent.name
        ours, theirs = entries_of(child), entries_of(parent)
        for column in ("id", "label", "answers", "nearest_distance"):
            assert ours[column].equals(theirs[column]), column
        # Weights of n-grams and pools are searched for from the parent's on, to within a small
        # step; all else is computed from the same numbers.
        exits = manifest_of(child)["exits"]
        searched = np.array([exit.startswith(("words@", "pool@")) for exit in exits])
        found, before = (np.array(t["confidences"].to_pylist()) for t in (ours, theirs))
        np.testing.assert_array_equal(found[:, ~searched], before[:, ~searched])
        np.testing.assert_allclose(found, before, atol=1e-3)
        assert neighbours_of(child).equals(neighbours_of(parent))
        for version in (parent, child):
            answer = raee("verify", f"demo@{version.name}", "--store", published.store)
            assert answer.code == 0, answer.out


_WORDS = {label: f"a {label} film" for label in LABELS}


class TestWhatChangesAllReadings:
    def _changed(self, place, what):
        return {
            "template": {"prompt": {"template": "so: {text}", "labels": _WORDS}},
            "words": {"prompt": {"labels": _WORDS | {"odd": "a strange film"}}},
            "key": {"key": {"layer": 2}},
            "backbone": {
                "backbone": {
                    "family": "sentence-encoder",
                    "model": place.model_of("mpnet-encoder"),
                }
            },
        }[what]

    @pytest.mark.parametrize("what", ["template", "words", "key", "backbone"])
    def test_makes_a_new_version_from_nothing(self, published, swept, what):
        parent = published.only_version()
        child, said = _child(published, **self._changed(published, what))
        assert swept.texts().total() == 40
        assert "reused" not in said, "that is no surprise"
        assert manifest_of(child)["parent"] == parent.name
        # Of the same template and backbone, the centre is the same.
        centres = [(version / "centre.safetensors").read_bytes() for version in (parent, child)]
        assert (centres[0] == centres[1]) == (what in ("words", "key"))

    def test_is_reused_by_the_next_rebuild(self, published, swept):
        first, _ = _child(published, key={"layer": 2})
        assert swept.texts().total() == 40
        published.write("train.csv", sentences(40)[1:])
        second, _ = _child(published, key={"layer": 2})
        assert manifest_of(second)["parent"] == first.name
        assert swept.texts().total() == 0


class TestReadingsThatAreNotWhole:
    @pytest.mark.parametrize("harm", ["altered", "truncated", "missing"])
    @pytest.mark.parametrize("ending", ["00000.parquet", "00000-states.parquet"])
    def test_are_named_in_a_warning_and_everything_is_read_anew(
        self, published, swept, harm, ending
    ):
        (path,) = (published.store / "databases/demo/swept").glob(f"*-{ending}")
        data = path.read_bytes()
        if harm == "missing":
            path.unlink()
        else:
            harmed = {"altered": data[:-20] + b"\1" + data[-19:], "truncated": data[:-9]}
            path.write_bytes(harmed[harm])
        parent = published.only_version()
        published.write("train.csv", sentences(40)[1:])
        child, said = _child(published)
        assert f"nothing of version {parent.name} is reused: swept/{path.name} " in said
        assert swept.texts().total() == 39
        assert manifest_of(child)["parent"] == parent.name
        answer = raee("verify", "demo", "--store", published.store)
        assert answer.code == 0, answer.out
        answer = raee("verify", f"demo@{parent.name}", "--store", published.store)
        assert answer.code == 1
        assert path.name in answer.out

    def test_the_version_is_read_without_them(self, published):
        shutil.rmtree(published.store / "databases/demo/swept")
        output = published.classify(published.write("new.csv", sentences(20, seed=3)))
        assert manifest_of(output)["rows_out"] == 20


def test_a_pruned_version_is_no_parent(layered_once, tmp_path, swept):
    """It has not all rows: the next build reuses the readings of the newest that has."""
    root = tmp_path / "place"
    shutil.copytree(layered_once.root, root)
    place = Workplace(root, layered_once.model_of)
    parent = place.only_version("layered")
    with allowing(0.5):
        answer = raee("prune", "layered", "--store", place.store, "--json")
    pruned = json.loads(answer.out)["version"]
    assert pruned > parent.name
    job = {"name": "layered", "key": {"layers": [0, 2]}, "shard_rows": 60}
    rows = place.root / "train.csv"
    assert place.build(**job) == parent.name, "nothing has changed since"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-10]))
    swept.texts()
    child = place.version(place.build(**job), "layered")
    assert manifest_of(child)["parent"] == parent.name
    assert swept.texts().total() == 0


def test_a_version_whose_manifest_was_changed_is_not_reused(place, swept):
    job = MASKED | {"backbone": MASKED["backbone"] | {"model": place.model_of("bert")}}
    place.write("train.csv", sentences(40))
    parent = place.version(place.build(**job))
    said = json.dumps(manifest_of(parent) | {"seconds": {}})
    (parent / "manifest.json").write_text(said)
    place.write("train.csv", sentences(40)[1:])
    swept.texts()
    answer = raee("build", place.job(**job))
    assert answer.code == 0, answer.err
    assert f"nothing of version {parent.name} is reused: manifest.json has" in answer.err
    assert swept.texts().total() == 39

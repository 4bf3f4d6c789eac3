"""Versions of older formats are still read.

The first knew neither probes nor tuning; the second no lists of neighbours, and nothing that a
rebuild reuses.
"""

import hashlib
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.flows.jobs import Workplace, manifest_of, predictions_of, raee
from tests.texts import sentences

_EXITS = [*(f"head@{depth}" for depth in range(5)), "vote@1"]


def _as_the_third_format(version):
    """Make of a version what builds published whose figures left out the row, not the text."""
    manifest = manifest_of(version)
    (version / "far.safetensors").unlink()
    for path in [*(version / "entries").iterdir(), *(version.parents[1] / "swept").iterdir()]:
        table = pq.read_table(path)
        if "tokens" in table.column_names:
            pq.write_table(table.drop_columns(["tokens"]), path)
    swept = [_as_it_lies(version.parents[1], file) for file in manifest["swept"]]
    for later in ("temperatures", "copies"):
        del manifest[later]
    tuning = manifest["tuning"]
    halves = {
        "seed": 0,
        "tried": tuning["tried"],
        "searched_rows": tuning["rows"] // 2,
        "checked_rows": tuning["rows"] - tuning["rows"] // 2,
        "full_depth": _on_halves(tuning["full_depth"]),
        "front": [_on_halves(point) for point in tuning["front"]],
        "families": {name: _on_halves(p) for name, p in tuning["families"].items()},
        "keys": tuning["keys"],
    }
    _write(version, manifest | {"format": 3, "tuning": halves, "swept": swept, "recipe": "old"})


def _on_halves(point):
    """A point as it was when one half of the rows searched and the other checked."""
    fitted = point["fitted"]
    return {
        "policy": point["policy"],
        "searched": fitted,
        "checked": fitted,
        "lost": 0,
        "gained": 0,
    }


def _as_the_second_format(version):
    """Make of a version what builds published before they reused readings."""
    _as_the_third_format(version)
    manifest = manifest_of(version)
    shutil.rmtree(version / "neighbours")
    shutil.rmtree(version.parents[1] / "swept")
    for later in ("recipe", "swept", "indexes"):
        manifest.pop(later, None)
    for later in ("credentials", "single_writer"):
        del manifest["job"][later]
    _write(version, manifest | {"format": 2})


def _as_the_first_format(version):
    """Make of a version what the first release would have published."""
    _as_the_second_format(version)
    manifest = manifest_of(version)
    assert manifest["exits"][: len(_EXITS)] == _EXITS
    for name in ("probes.safetensors", "report.html"):
        (version / name).unlink()
    for path in (version / "entries").iterdir():
        table = pq.read_table(path).drop_columns(["nearest_distance"])
        for column, kind in (("answers", pa.uint16()), ("confidences", pa.float32())):
            short = [row[: len(_EXITS)] for row in table[column].to_pylist()]
            values = pa.array(short, pa.list_(kind, len(_EXITS)))
            table = table.set_column(table.schema.get_field_index(column), column, values)
        pq.write_table(table, path)
    for later in ("probes", "costs", "tuning", "pruned"):
        del manifest[later]
    policy = {"name": "raee", "k": 12, "threshold": 0.9, "top": 3}
    job = manifest["job"]
    for later in ("far", "balance", "sample_rows"):
        del job[later]
    del job["key"]["layers"]
    job["policy"] = manifest["policy"] = policy
    figures = ("accuracy", "macro_f1", "matthews", "mean_layers")
    names = ("full", "fixed", "retrieval", "raee", "cascade")
    manifest["metrics"] = {n: {f: manifest["metrics"][n][f] for f in figures} for n in names}
    manifest["seconds"] = {
        s: manifest["seconds"][s] for s in ("centre", "sweep", "index", "vote", "evaluate")
    }
    _write(version, manifest | {"format": 1, "exits": _EXITS})


def _write(version, manifest):
    """Write a manifest, with the files as they lie there."""
    files = [_as_it_lies(version, file) for file in manifest["files"]]
    manifest |= {"files": [file for file in files if file is not None]}
    manifest.pop("digest", None)
    (version / "manifest.json").write_text(json.dumps(manifest))


def _as_it_lies(version, file):
    path = version / file["path"]
    if not path.exists():
        return None
    data = path.read_bytes()
    return file | {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.fixture
def old(published) -> Workplace:
    """A place whose only version, in production, is of the first format."""
    _as_the_first_format(published.only_version())
    published.write("new.csv", sentences(33, seed=7))
    return published


def _refused(answer, match):
    assert (answer.code, answer.out) == (2, "")
    assert match in answer.error
    assert "Traceback" not in answer.err


def test_it_is_listed_shown_and_verified(old):
    version = old.only_version().name
    store = ("--store", old.store)
    (line,) = json.loads(raee("versions", "demo", *store, "--json").out)
    assert (line["id"], line["policy"], line["aliases"]) == (
        *(version, "raee"),
        ["pinned", "production"],
    )
    assert raee("versions", "demo", *store).code == 0
    shown = raee("show", "demo", *store)
    assert shown.code == 0
    assert "head@4, vote@1" in shown.out
    assert json.loads(raee("show", "demo", *store, "--json").out)["format"] == 1
    assert raee("verify", "demo", *store).code == 0


@pytest.mark.parametrize(
    "policy",
    [
        *("raee", "retrieval", "full", "fixed"),
        {"name": "kernel", "readers": ["head", "vote"]},
        {"name": "cascade", "readers": ["head"]},
    ],
    ids=str,
)
def test_it_classifies_with_what_it_has(old, policy):
    output = old.classify(str(old.root / "new.csv"), policy=policy)
    manifest, table = manifest_of(output), predictions_of(output)
    assert set(manifest["exits"]) <= set(_EXITS)
    assert manifest["rows_out"] == 33
    assert table["label"].null_count == 0
    # It does not know how far its own rows lie from each other.
    assert (manifest["far"], manifest["drift"]) == (None, None)
    assert table["flags"].to_pylist() == [[]] * 33
    assert set(manifest["balance"]["labels"]) == {"bad", "good", "odd"}


def test_it_answers_as_the_same_version_of_this_format_does(published):
    input = published.write("new.csv", sentences(33, seed=7))
    before = published.classify(input, "before", policy="retrieval", far=None)
    _as_the_first_format(published.only_version())
    (published.root / "moved").mkdir()
    store = published.root / "moved/store"
    published.store.rename(store)  # so that it is read anew
    after = published.classify(input, "after", policy="retrieval", far=None, store=str(store))
    for column in ("id", "label", "reader", "depth", "nearest_distance"):
        assert predictions_of(before)[column].equals(predictions_of(after)[column])


def test_what_it_was_not_tuned_for_is_refused_in_one_line(old):
    job, version = old.job(), old.only_version().name
    answer = raee("classify", job, "--input", old.root / "new.csv", "--output", old.root / "out")
    _refused(answer, f"database demo@{version} was built without tuning; name another policy")
    assert not (old.root / "out").exists()
    answer = raee("explain", job, "a warm film")
    _refused(answer, f"database demo@{version} was built without tuning")
    answer = raee("prune", "demo", "--store", old.store)
    _refused(answer, f"database demo@{version} is of format 1, from an earlier raee; build it")


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        ("cascade", "the database has no exit of the readers probe from depth 0 to 4"),
        ({"name": "fixed", "exit": "probe@1"}, "exit 'probe@1' is not in the database"),
        ("de3", "the database has no exit of the readers de3"),
    ],
    ids=str,
)
def test_what_reads_probes_is_refused_in_one_line(old, policy, match):
    arguments = ("--input", old.root / "new.csv", "--output", old.root / "out")
    _refused(raee("classify", old.job(policy=policy), *arguments), match)
    assert not (old.root / "out").exists()


def test_it_is_explained_evaluated_and_tuned_as_far_as_it_goes(old, tmp_path):
    job = old.job(policy="raee")
    found = json.loads(raee("explain", job, "a warm film", "--json").out)
    assert list(found["exits"]) == _EXITS
    file = tmp_path / "figures.json"
    answer = raee("evaluate", job, "--input", old.root / "new.csv", "--json", file)
    assert answer.code == 0, answer.err
    figures = json.loads(file.read_text())
    assert list(figures["policies"]) == ["full", "fixed", "retrieval", "raee"]
    # There is no regression, and there are no n-grams.
    assert list(figures["policies"]["raee"]["against"]) == ["full", "majority"]
    asked = raee("evaluate", old.job(), "--input", old.root / "new.csv")
    assert asked.code == 0, asked.err
    assert "the policy tuned is left out: database demo@" in asked.err
    answer = raee("tune", job, "--json", file)
    assert answer.code == 0, answer.err
    # Nobody measured what its readings take: a layer is one second.
    full = json.loads(file.read_text())["full_depth"]
    assert full["policy"]["exit"] == "head@4"
    assert full["fitted"]["seconds_per_row"] == 4


def test_the_next_build_is_its_child_and_of_this_format(old):
    parent = old.only_version()
    answer = raee("build", old.job())
    assert answer.code == 0, answer.err
    child = old.version(answer.out.strip())
    manifest = manifest_of(child)
    assert (manifest["format"], manifest["parent"]) == (4, parent.name)
    assert (child / "centre.safetensors").read_bytes() == (
        parent / "centre.safetensors"
    ).read_bytes()
    assert f"production now points at {child.name}: against production" in answer.err


class TestOfTheSecond:
    @pytest.fixture
    def second(self, published) -> Workplace:
        _as_the_second_format(published.only_version())
        return published

    def test_it_classifies_and_is_tuned_as_it_was_with_lists(
        self, published_once, second, tmp_path
    ):
        input = second.write("new.csv", sentences(33, seed=7))
        found = []
        for place in (published_once, second):
            output = second.root / place.root.name
            policy = {"name": "fixed", "exit": "probe@2"}
            job = Workplace(second.root, second.model_of)
            place_job = job.job(store=str(place.store), policy=policy, far=None)
            answer = raee("classify", place_job, "--input", input, "--output", output)
            assert answer.code == 0, answer.err
            file = tmp_path / f"{place.root.name}.json"
            answer = raee("tune", place_job, "--json", file)
            assert answer.code == 0, answer.err
            found.append((predictions_of(output)["label"], json.loads(file.read_text())))
        assert found[0][0] == found[1][0]
        assert found[0][1]["tried"] == found[1][1]["tried"]

    def test_the_next_build_takes_nothing_over_but_its_centre(self, second):
        parent = second.only_version()
        answer = raee("build", second.job())
        assert answer.code == 0, answer.err
        assert "sweep: 40 rows" in answer.err
        assert "are reused" not in answer.err
        child = second.version(answer.out.strip())
        manifest = manifest_of(child)
        assert (manifest["format"], manifest["parent"]) == (4, parent.name)
        centres = [(version / "centre.safetensors").read_bytes() for version in (parent, child)]
        assert centres[0] == centres[1]
        assert raee("verify", "demo", "--store", second.store).code == 0


class TestOfTheThird:
    @pytest.fixture
    def third(self, published) -> Workplace:
        _as_the_third_format(published.only_version())
        published.write("new.csv", sentences(33, seed=7))
        return published

    @pytest.mark.parametrize("policy", ["tuned", "retrieval", {"name": "tuned", "accuracy": 0.3}])
    def test_it_classifies_and_looks_for_far_rows_as_it_did(self, third, policy):
        output = third.classify(str(third.root / "new.csv"), policy=policy)
        manifest, table = manifest_of(output), predictions_of(output)
        assert manifest["calibration"] == {}
        assert table["usual"].null_count == 33
        assert manifest["far"]["score"] == "nearest distance"
        assert table["label"].null_count == 0

    def test_the_next_build_reads_all_rows_anew_once_and_says_why(self, third):
        parent = third.only_version()
        answer = raee("build", third.job())
        assert answer.code == 0, answer.err
        assert f"nothing of version {parent.name} is reused: it is of format 3" in answer.err
        assert "sweep: 40 rows" in answer.err
        child = manifest_of(third.version(answer.out.strip()))
        assert (child["format"], child["parent"]) == (4, parent.name)
        third.write("train.csv", sentences(40)[1:])
        answer = raee("build", third.job())
        assert "0 rows are new, 39 known" in answer.err

    def test_it_is_pruned_after_it_was_built_anew(self, third):
        answer = raee("prune", "demo", "--store", third.store)
        _refused(answer, "is of format 3, from an earlier raee; build it anew to prune it")

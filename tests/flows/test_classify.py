import json
import shutil

import faiss
import numpy as np
import pyarrow as pa
import pytest

from raee.model.loaded import forget_models
from tasks.readings import load_database
from tests.flows.jobs import (
    ask_server,
    entries_of,
    flow_states,
    interrupted_after_a_shard,
    manifest_of,
    predictions_of,
    raee,
    rejects_of,
    say_in_manifest,
)
from tests.texts import LABELS, sentences

_NEW = [row | {"label": ""} for row in sentences(33, seed=7)]
"""Rows that the database has not seen, without labels."""


@pytest.fixture
def input(published):
    return published.write("new.csv", _NEW)


def _version(place):
    (version,) = place.version("").iterdir()
    return version


def test_no_layers_are_loaded_that_no_row_can_run(published, input):
    policy = {"name": "fixed", "exit": "head@1"}
    for far, loaded in ((None, "the lowest 2"), ({"quantile": 0.9, "then": "full"}, "all")):
        forget_models()
        load_database.cache_clear()
        job = published.job(policy=policy, far=far)
        output = published.root / f"out-{loaded[-1]}"
        answer = raee("classify", job, "--input", input, "--output", output)
        assert answer.code == 0, answer.err
        assert f": {loaded} of 4 layers loaded, float32 on " in answer.err


class TestOutput:
    def test_has_the_inputs_rows_in_their_order(self, published, input):
        output = published.classify(input, shard_rows=10)
        table = predictions_of(output)
        assert table["id"].to_pylist() == [row["id"] for row in _NEW]
        assert [p.name for p in sorted(output.iterdir())] == [
            "manifest.json",
            *(f"part-0000{n}.parquet" for n in range(4)),
        ]

    def test_has_the_columns_that_are_promised(self, published, input):
        table = predictions_of(published.classify(input))
        assert dict(zip(table.schema.names, table.schema.types, strict=True)) == {
            "id": pa.string(),
            "label": pa.int32(),
            "label_name": pa.string(),
            "confidence": pa.float32(),
            "reader": pa.string(),
            "depth": pa.int16(),
            "nearest_distance": pa.float32(),
            "usual": pa.float32(),
            "flags": pa.list_(pa.string()),
        }
        labels = table["label"].to_pylist()
        assert table["label_name"].to_pylist() == [LABELS[i] for i in labels]
        confidence = table["confidence"].to_numpy()
        assert (confidence > 1 / 3 - 1e-6).all()
        assert (confidence <= 1 + 1e-6).all()

    def test_has_a_manifest_that_agrees_with_its_parts(self, published, input):
        output = published.classify(input, policy={"name": "raee", "k": 3, "threshold": 0.5})
        manifest, table = manifest_of(output), predictions_of(output)
        assert manifest["database"] == "demo"
        assert manifest["version"] == _version(published).name
        raee = {"name": "raee", "k": 3, "threshold": 0.5, "top": 3}
        assert (manifest["policy"], manifest["runs"]) == (raee, raee)
        assert (manifest["input"], manifest["output"]) == (input, str(output))
        assert manifest["rows_in"] == manifest["rows_out"] == len(table) == 33
        assert (manifest["rejected"], manifest["cut"]) == ({}, 0)
        exits = [
            f"{reader}@{depth}"
            for reader, depth in zip(
                table["reader"].to_pylist(), table["depth"].to_pylist(), strict=True
            )
        ]
        assert manifest["exits"] == {e: exits.count(e) for e in sorted(set(exits))}
        # The key is the state at depth 1: no row that asks its neighbours runs less.
        layers = np.maximum(table["depth"].to_numpy(), 1)
        assert manifest["layers_run"] == layers.sum()
        assert manifest["mean_layers"] == pytest.approx(layers.mean())
        assert set(manifest["seconds"]) == {"plan", "read", "classify", "write"}

    def test_has_rejects_with_file_row_and_reason(self, published):
        rows = [dict(row) for row in _NEW]
        rows[3]["text"], rows[20]["text"], rows[32]["id"] = "", " \n", ""
        input = published.write("new.csv", rows)
        output = published.classify(input, shard_rows=5, max_reject_fraction=0.1)
        manifest, table = manifest_of(output), predictions_of(output)
        assert rejects_of(output) == [
            {"id": "row-003", "source_file": input, "row": 4, "reason": "text is empty"},
            {"id": "row-020", "source_file": input, "row": 21, "reason": "text is blank"},
            {"id": None, "source_file": input, "row": 33, "reason": "no id"},
        ]
        assert manifest["rows_in"] == manifest["rows_out"] + sum(manifest["rejected"].values())
        assert manifest["rejected"] == {"text is empty": 1, "text is blank": 1, "no id": 1}
        kept = [row["id"] for i, row in enumerate(_NEW) if i not in (3, 20, 32)]
        assert table["id"].to_pylist() == kept

    def test_flags_the_texts_that_were_cut(self, published):
        rows = [{"id": str(i), "text": "warm film " * n} for i, n in enumerate((1, 31, 32, 5_000))]
        output = published.classify(published.write("long.jsonl", rows))
        # The model takes 64 tokens, two of them its own.
        assert predictions_of(output)["flags"].to_pylist() == [[], [], ["cut"], ["cut"]]
        assert manifest_of(output)["cut"] == 2

    def test_names_rows_by_file_and_number_where_the_job_names_no_column(self, published):
        for name in ("b", "a"):
            published.write(f"new/{name}.csv", _NEW[:3])
        corpus = {"uri": str(published.root / "train.csv")}
        output = published.classify(str(published.root / "new"), corpus=corpus)
        assert predictions_of(output)["id"].to_pylist() == [
            *("a.csv:1", "a.csv:2", "a.csv:3"),
            *("b.csv:1", "b.csv:2", "b.csv:3"),
        ]

    def test_is_an_artifact_of_a_completed_run(self, published, input):
        (published.root / "store/databases/demo").rename(published.root / "store/databases/shown")
        version = published.only_version("shown")
        manifest = manifest_of(version)
        job = manifest["job"] | {"name": "shown"}
        say_in_manifest(version, manifest | {"name": "shown", "job": job})
        published.classify(input, name="shown")
        key = {"artifacts": {"key": {"any_": ["raee-shown-classification"]}}}
        (artifact,) = ask_server("artifacts/filter", key)
        table = {line["what"]: line["value"] for line in json.loads(artifact["data"])}
        assert (table["rows_in"], table["rows_out"], table["input"]) == ("33", "33", input)
        assert flow_states("classify-corpus", "shown") == ["COMPLETED"]


class TestPolicies:
    @pytest.mark.parametrize(
        ("policy", "exits", "asks_neighbours"),
        [
            ("full", {"head@4"}, False),
            ({"name": "fixed", "exit": "head@2"}, {"head@2"}, False),
            ({"name": "fixed", "exit": "vote@1"}, {"vote@1"}, True),
            ("retrieval", {"vote@1"}, True),
            ("raee", {f"head@{depth}" for depth in range(5)}, True),
            ("cascade", {f"probe@{depth}" for depth in range(5)}, False),
            ("de3", {f"de3@{depth}" for depth in range(5)}, False),
            ({"name": "cascade", "readers": ["vote"]}, {"vote@1"}, True),
            ({"name": "kernel", "readers": ["head"]}, {f"head@{d}" for d in range(1, 5)}, True),
        ],
    )
    def test_say_where_rows_leave_and_whether_neighbours_are_asked(
        self, published, input, policy, exits, asks_neighbours
    ):
        output = published.classify(input, policy=policy, far=None)
        manifest, table = manifest_of(output), predictions_of(output)
        assert set(manifest["exits"]) <= exits
        nearest = table["nearest_distance"]
        assert nearest.null_count == (0 if asks_neighbours else 33)
        if policy == "full":
            assert manifest["mean_layers"] == 4
        if policy == "retrieval":
            assert manifest["layers_run"] == 33

    def test_are_the_jobs_unless_the_command_names_another(self, published, input):
        output = published.classify(input, "out", "--policy", "retrieval", policy="full")
        assert manifest_of(output)["policy"] == {"name": "retrieval", "exit": None}

    def test_of_the_jobs_name_have_the_jobs_settings(self, published, input):
        policy = {"name": "cascade", "threshold": 0.4}
        output = published.classify(input, "out", "--policy", "cascade", policy=policy)
        assert manifest_of(output)["policy"]["threshold"] == 0.4

    def test_read_the_database_that_is_there(self, published, input):
        """A row of the database finds itself, at distance 0, and gets its own label's vote."""
        output = published.classify(str(published.root / "train.csv"), policy="retrieval")
        table, entries = predictions_of(output), entries_of(_version(published))
        assert table["nearest_distance"].to_numpy().max() < 1e-6
        first = {}
        for text, label in zip(
            entries["text"].to_pylist(), entries["label"].to_pylist(), strict=True
        ):
            first.setdefault(text, set()).add(label)
        for text, label in zip(
            entries["text"].to_pylist(), table["label"].to_pylist(), strict=True
        ):
            assert label in first[text]

    def test_see_the_distance_to_the_nearest_key(self, published, input):
        # A second database, of the new rows, holds their keys.
        output = published.classify(input, policy="retrieval")
        keys = faiss.read_index(str(_version(published) / "keys/layer-01.faiss"))
        keys = keys.reconstruct_n(0, keys.ntotal).astype(np.float64)
        rows = [row | {"label": "good"} for row in _NEW]
        other = published.version(
            published.build(name="new", corpus={"uri": published.write("rows.csv", rows)}), "new"
        )
        queries = faiss.read_index(str(other / "keys/layer-01.faiss"))
        queries = queries.reconstruct_n(0, queries.ntotal).astype(np.float64)
        nearest = np.square(queries[:, None] - keys[None]).sum(axis=2).min(axis=1)
        np.testing.assert_allclose(
            predictions_of(output)["nearest_distance"].to_numpy(), nearest, atol=1e-5
        )


class TestTheSameCommandAgain:
    def test_does_nothing(self, published, input):
        published.classify(input)
        before = published.files()
        answer = raee(
            "classify", published.job(), "--input", input, "--output", published.root / "out"
        )
        assert answer.code == 0
        assert "holds this classification already: nothing to do" in answer.err
        assert answer.out.strip() == str(published.root / "out")
        assert published.files() == before

    def test_gives_the_same_bytes_elsewhere(self, published, input):
        outputs = [published.classify(input, name) for name in ("one", "two")]
        assert predictions_of(outputs[0]).equals(predictions_of(outputs[1]))
        first, second = (sorted(o.glob("part-*")) for o in outputs)
        assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]

    def test_goes_on_with_the_version_it_began_with(self, published, input, monkeypatch):
        before = _version(published).name
        expected = published.classify(input, "expected", shard_rows=10)
        output = published.root / "out"
        arguments = (published.job(shard_rows=10), "--input", input, "--output", output)
        interrupted_after_a_shard(monkeypatch, arguments, output)
        published.write("train.csv", sentences(50, seed=3))
        newest = published.build(shard_rows=10)
        raee("promote", "demo", newest, "--store", published.store)
        answer = raee("classify", *arguments)
        assert answer.code == 0, answer.err
        assert f"going on with version {before}, as begun" in answer.err
        assert manifest_of(output)["version"] == before
        assert predictions_of(output).equals(predictions_of(expected))
        assert "_work" not in [path.name for path in output.iterdir()]

    def test_with_another_version_named_is_refused_while_unfinished(
        self, published, input, monkeypatch
    ):
        before = _version(published).name
        output = published.root / "out"
        arguments = (published.job(shard_rows=10), "--input", input, "--output", output)
        interrupted_after_a_shard(monkeypatch, arguments, output)
        newest = published.build(shard_rows=10, keep_text=False)
        answer = raee("classify", *arguments, "--version", newest)
        assert answer.code == 2
        assert f"holds another job's output (version {before})" in answer.error


def test_versions_are_chosen_by_id_alias_production_or_age(published, input):
    first = _version(published).name
    second = published.build(keep_text=False)

    def version(output, *more):
        return manifest_of(published.classify(input, output, *more))["version"]

    assert version("a") == second, "which its build promoted"
    assert version("b", "--version", first) == first
    raee("promote", "demo", first, "--store", published.store, "--alias", "old")
    assert version("c", "--version", "old") == first
    raee("rollback", "demo", "--store", published.store)
    assert version("d") == first
    shutil.rmtree(published.store / "databases/demo/aliases")
    assert version("e") == second, "the newest, if nothing is promoted"

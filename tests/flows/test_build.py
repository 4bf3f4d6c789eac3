import hashlib
import json
from datetime import datetime
from html import unescape
from itertools import product
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from raee.config import TunedPolicy
from tests.flows.jobs import (
    Workplace,
    ask_server,
    data_of,
    entries_of,
    exits_of_entry,
    flow_states,
    manifest_of,
    neighbours_of,
    raee,
    rejects_of,
    repeated_data_of,
)
from tests.flows.opinions import opinions
from tests.texts import LABELS, sentences

_SUBJECTS = {
    "cooking": ("the soup", "fresh bread", "a slow roast", "the pasta", "my pancake"),
    "money": ("the bank", "my salary", "a cheap loan", "the rent", "her pension"),
    "sport": ("the striker", "our team", "a marathon", "the referee", "his backhand"),
}
_ENDS = {
    "cooking": ("needs more salt", "smells of garlic", "was burnt again", "tasted great"),
    "money": ("went up again", "was paid late", "is lower than expected", "costs too much"),
    "sport": ("won the match", "was too slow", "started badly", "decided the game"),
}


def _natural_rows():
    rows = [
        {"text": f"{subject} {end} {when}", "label": label}
        for label in _SUBJECTS
        for subject, end in product(_SUBJECTS[label], _ENDS[label])
        for when in ("today", "last week")
    ]
    rows = [rows[i * 53 % len(rows)] for i in range(len(rows))]  # labels mixed
    return [{"id": f"n{i}"} | row for i, row in enumerate(rows)]


def _lists(table, column):
    return np.array(table[column].to_pylist())


@pytest.fixture(scope="module")
def trained(tmp_path_factory, model_of) -> Path:
    """The folder of a version made with MiniLM, whose labels are the corpus's own."""
    place = Workplace(tmp_path_factory.mktemp("minilm"), model_of)
    version = place.build(
        name="minilm",
        corpus={"uri": place.write("natural.parquet", _natural_rows()), "id": "id"},
        prompt=None,
        backbone={
            "family": "sentence-encoder",
            "model": model_of("minilm"),
            "dtype": "float32",
        },
        key={"layer": 2},
        shard_rows=50,
    )
    return place.version(version, "minilm")


class TestPublishedVersion:
    def test_has_the_files_that_its_manifest_lists_and_no_others(self, trained):
        listed = manifest_of(trained)["files"]
        found = {
            (path, len(data), hashlib.sha256(data).hexdigest())
            for path, data in data_of(trained).items()
        }
        assert {(f["path"], f["bytes"], f["sha256"]) for f in listed} == found
        assert {f["path"]: f["rows"] for f in listed} == {
            "centre.safetensors": None,
            "entries/part-00000.parquet": 50,
            "entries/part-00001.parquet": 50,
            "entries/part-00002.parquet": 20,
            "far.safetensors": None,
            "keys/layer-02.faiss": 120,
            "neighbours/part-00000.parquet": 50,
            "neighbours/part-00001.parquet": 50,
            "neighbours/part-00002.parquet": 20,
            "probes.safetensors": None,
            "report.html": None,
            "words.safetensors": None,
        }

    def test_has_a_manifest_that_says_what_it_is(self, trained, model_of):
        manifest = manifest_of(trained)
        assert (manifest["format"], manifest["name"], manifest["id"]) == (4, "minilm", trained.name)
        assert manifest["parent"] is None
        assert datetime.fromisoformat(manifest["created_at"]).tzinfo is not None
        assert manifest["exits"] == exits_of_entry(6, 2)
        assert manifest["labels"] == ["cooking", "money", "sport"]
        assert (manifest["rows"], manifest["rejected"]) == (120, {})
        assert manifest["corpus"]["rows"] == 120
        assert len(manifest["corpus"]["fingerprint"]) == 64
        assert manifest["job"]["backbone"]["model"] == model_of("minilm")
        assert manifest["policy"] == TunedPolicy().model_dump()
        stages = ["centre", "sweep", "collect", "match", "index", "neighbours", "fit", "vote"]
        stages += ["tune", "evaluate", "report"]
        assert list(manifest["seconds"]) == stages
        assert manifest["code_version"]
        assert {"torch", "transformers", "faiss-cpu"} <= set(manifest["libraries"])
        weights = Path(model_of("minilm"), "model.safetensors").read_bytes()
        files_digest = hashlib.sha256(hashlib.sha256(weights).digest()).hexdigest()
        assert manifest["backbone"]["weights"] == manifest["key"]["weights"] == files_digest

    def test_has_entries_that_pyarrow_reads_in_the_corpus_order(self, trained):
        entries, rows = entries_of(trained), _natural_rows()
        assert entries.schema.names == [
            *("id", "text_hash", "text", "label", "answers", "confidences", "nearest_distance"),
            "tokens",
        ]
        assert entries.schema.field("label").type == pa.uint16()
        assert entries.schema.field("answers").type == pa.list_(pa.uint16(), 31)
        assert entries.schema.field("confidences").type == pa.list_(pa.float32(), 31)
        assert entries["id"].to_pylist() == [row["id"] for row in rows]
        assert entries["text"].to_pylist() == [row["text"] for row in rows]
        labels = manifest_of(trained)["labels"]
        assert [labels[i] for i in entries["label"].to_pylist()] == [row["label"] for row in rows]
        assert entries["text_hash"].to_pylist() == [
            hashlib.sha256(row["text"].encode()).hexdigest()[:32] for row in rows
        ]
        confidences = _lists(entries, "confidences")
        assert (confidences <= 1).all()
        # Of three labels the likeliest has a third; `de3` says how sure it is in another way.
        is_de3 = np.array([e.startswith("de3@") for e in manifest_of(trained)["exits"]])
        assert (confidences[:, ~is_de3] > 1 / 3 - 1e-6).all()
        assert (confidences[:, is_de3] >= 0).all()

    def test_has_an_index_whose_rows_are_the_entries(self, trained, model_of):
        index = faiss.read_index(str(trained / "keys/layer-02.faiss"))
        texts = entries_of(trained)["text"].to_pylist()
        assert index.ntotal == len(texts)
        tokenizer = AutoTokenizer.from_pretrained(model_of("minilm"))
        model = AutoModel.from_pretrained(model_of("minilm"))
        for row in range(0, len(texts), 11):
            with torch.inference_mode():
                inputs = tokenizer(texts[row], return_tensors="pt")
                states = model(**inputs, output_hidden_states=True).hidden_states[2]
            mean = torch.nn.functional.normalize(states[0].mean(dim=0), dim=0)
            np.testing.assert_allclose(index.reconstruct(row), mean.numpy(), atol=1e-5)

    def test_has_a_vote_and_a_nearest_distance_that_leave_each_row_out(self, trained):
        entries = entries_of(trained)
        index = faiss.read_index(str(trained / "keys/layer-02.faiss"))
        keys = index.reconstruct_n(0, index.ntotal).astype(np.float64)
        label = entries["label"].to_numpy()
        distances = np.square(keys[:, None] - keys[None]).sum(axis=2)
        np.fill_diagonal(distances, np.inf)
        votes = np.zeros((len(keys), 3))
        for row, nearest in enumerate(np.argsort(distances, axis=1)[:, :12]):
            np.add.at(votes[row], label[nearest], 1 / distances[row, nearest])
        votes /= votes.sum(axis=1, keepdims=True)
        place = manifest_of(trained)["exits"].index("vote@2")
        np.testing.assert_allclose(
            _lists(entries, "confidences")[:, place], votes.max(axis=1), atol=1e-5
        )
        np.testing.assert_array_equal(_lists(entries, "answers")[:, place], votes.argmax(axis=1))
        np.testing.assert_allclose(
            entries["nearest_distance"].to_numpy(), distances.min(axis=1), atol=1e-5
        )

    def test_lists_each_rows_nearest_others_by_the_key(self, trained):
        index = faiss.read_index(str(trained / "keys/layer-02.faiss"))
        keys = index.reconstruct_n(0, index.ntotal).astype(np.float64)
        distances = np.square(keys[:, None] - keys[None]).sum(axis=2)
        np.fill_diagonal(distances, np.inf)
        listed = neighbours_of(trained)
        assert listed.schema.names == ["rows-0", "distances-0"]
        rows, found = _lists(listed, "rows-0"), _lists(listed, "distances-0")
        assert rows.shape[1] == 48, "what is asked of them, and half as much again"
        np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :48], atol=1e-6)
        np.testing.assert_allclose(found, np.take_along_axis(distances, rows, axis=1), atol=1e-6)
        assert not (rows == np.arange(120)[:, None]).any()

    def test_has_metrics_that_follow_from_its_entries(self, trained):
        manifest, entries = manifest_of(trained), entries_of(trained)
        right = _lists(entries, "answers") == entries["label"].to_numpy()[:, None]
        accuracy = dict(zip(manifest["exits"], right.mean(axis=0), strict=True))
        metrics = manifest["metrics"]
        assert list(metrics) == [
            *("majority", "words", "logistic", "full", "fixed", "retrieval", "raee"),
            *("kernel", "de3", "cascade", "tuned"),
        ]
        majority = metrics.pop("majority")
        assert majority["accuracy"] == pytest.approx(1 / 3)
        assert (majority["mean_layers"], majority["exits"]) == (0, {})
        assert metrics["words"]["accuracy"] == pytest.approx(accuracy["words@0"])
        assert metrics["full"]["accuracy"] == pytest.approx(accuracy["head@6"])
        assert metrics["full"]["mean_layers"] == 6
        assert metrics["full"]["exits"] == {"head@6": 120}
        answering = [a for e, a in accuracy.items() if not e.startswith("de3@")]
        assert metrics["fixed"]["accuracy"] == pytest.approx(max(answering))
        assert metrics["logistic"]["accuracy"] == pytest.approx(accuracy["logistic@6"])
        assert metrics["retrieval"]["accuracy"] == pytest.approx(accuracy["vote@2"])
        assert metrics["retrieval"]["mean_layers"] == 2
        assert 2 <= metrics["raee"]["mean_layers"] <= 6
        for figures in metrics.values():
            assert figures["accuracy"] > 0.5, "these three topics are not hard"
            difference = figures["accuracy"] - majority["accuracy"]
            assert figures["against"]["majority"]["difference"] == pytest.approx(difference)
            by_label = figures["by_label"]
            assert [by_label[name]["rows"] for name in manifest["labels"]] == [40, 40, 40]
            recall = np.mean([f["recall"] for f in by_label.values()])
            assert recall == pytest.approx(figures["accuracy"]), "labels are balanced"

    def test_names_the_readings_that_a_rebuild_reuses(self, trained):
        swept, database = manifest_of(trained)["swept"], trained.parents[1]
        assert {f["path"]: f["rows"] for f in swept} == {
            f"swept/{trained.name}-00000{ending}": 120 for ending in (".parquet", "-states.parquet")
        }
        for file in swept:
            data = (database / file["path"]).read_bytes()
            assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        states, readings = (pq.read_table(database / f["path"]) for f in swept)
        assert readings.schema.names == [
            *("text_hash", "answers", "confidences", "tokens", "token_ids", "key-0")
        ]
        depths = [f"{depth:02d}" for depth in range(7)]
        kinds = ("mean", "head")
        assert states.schema.names == ["text_hash", *(f"{k}-{d}" for k in kinds for d in depths)]

    def test_leaves_no_work_behind(self, trained):
        assert list((trained.parents[1] / "work").iterdir()) == []


def test_the_same_build_gives_the_same_bytes(place):
    versions = []
    for store in ("one", "two"):
        place.store = place.root / store
        version = place.build()
        versions.append(repeated_data_of(place.version(version)))
    assert set(versions[0]) == {
        *(f"{folder}/part-0000{n}.parquet" for folder in ("entries", "neighbours") for n in (0, 1)),
        "keys/layer-01.faiss",
        "centre.safetensors",
        "far.safetensors",
        "probes.safetensors",
        "words.safetensors",
    }
    assert versions[0] == versions[1]


@pytest.mark.parametrize("shard_rows", [7, 40, "auto"])
def test_other_shards_give_the_same_rows_and_answers(published, shard_rows):
    (published.root / "other").mkdir()
    other = Workplace(published.root / "other", published.model_of)
    (version,) = published.version("").iterdir()
    ours = entries_of(version)
    theirs = entries_of(other.version(other.build(shard_rows=shard_rows)))
    for column in ("id", "text_hash", "text", "label", "answers"):
        assert ours[column].to_pylist() == theirs[column].to_pylist()
    np.testing.assert_allclose(
        _lists(ours, "confidences"), _lists(theirs, "confidences"), atol=1e-4
    )


def test_a_second_build_is_the_child_of_the_first_and_inherits_its_centre(published):
    (parent,) = (path.name for path in published.version("").iterdir())
    published.write("train.csv", sentences(60, seed=1))
    child = published.build()
    manifest = manifest_of(published.version(child))
    assert (manifest["parent"], manifest["rows"]) == (parent, 60)
    centres = [published.version(v) / "centre.safetensors" for v in (parent, child)]
    assert centres[0].read_bytes() == centres[1].read_bytes()
    assert sorted([parent, child]) == [parent, child]


def test_a_row_reads_the_same_in_a_child(published):
    (parent,) = (path.name for path in published.version("").iterdir())
    rows = sentences(40)
    published.write("train.csv", [*rows[20:], *sentences(5, seed=2), *rows[:20]])
    # The new rows' names collide with the old ones': the corpus is read without them.
    corpus = {"uri": str(published.root / "train.csv")}
    child = entries_of(published.version(published.build(corpus=corpus)))
    before = entries_of(published.version(parent))
    again = [*range(25, 45), *range(20)]
    assert [child["text"].to_pylist()[i] for i in again] == before["text"].to_pylist()
    # Its heads: what neighbours and probes say depends on the other rows.
    np.testing.assert_allclose(
        _lists(child, "confidences")[again, :5], _lists(before, "confidences")[:, :5], atol=1e-5
    )


def test_a_masked_lm_with_a_retriever_builds_and_classifies(place):
    settings = {
        "prompt": {
            "template": "{text} it was {mask}",
            "labels": {"bad": "terrible", "good": "great", "odd": "dull"},
        },
        "backbone": {"family": "masked-lm", "model": place.model_of("bert")},
        "key": {"model": place.model_of("bert-encoder")},
    }
    version = place.version(place.build(**settings))
    manifest = manifest_of(version)
    assert manifest["exits"] == exits_of_entry(4, 0)
    assert manifest["probes"]["state"] in ("mean", "answer")
    assert manifest["costs"]["seconds"]["retriever"] > 0
    assert "centre.safetensors" not in data_of(version)
    assert "keys/retriever.faiss" in data_of(version)
    assert manifest["key"]["weights"] != manifest["backbone"]["weights"]
    output = place.classify(str(place.root / "train.csv"), **settings)
    assert manifest_of(output)["rows_out"] == 40
    answer = raee("explain", place.job(**settings), "a dull plot", "--json")
    assert list(json.loads(answer.out)["exits"]) == exits_of_entry(4, 0)


def test_rows_that_cannot_be_used_are_kept_with_file_row_and_reason(place):
    rows = sentences(40)
    for place_of, change in {4: {"text": ""}, 5: {"label": ""}, 33: {"text": " \t"}}.items():
        rows[place_of] = rows[place_of] | change
    train = place.write("train.csv", rows)
    answer = raee("build", place.job(max_reject_fraction=0.1, shard_rows=3))
    assert "37 of 40 rows" not in answer.err
    assert "3 rejected" in answer.err
    version = place.version(answer.out.strip())
    manifest = manifest_of(version)
    assert (manifest["rows"], manifest["corpus"]["rows"]) == (37, 40)
    assert manifest["rejected"] == {"text is empty": 1, "no label": 1, "text is blank": 1}
    assert rejects_of(version) == [
        {"id": "row-004", "source_file": train, "row": 5, "reason": "text is empty"},
        {"id": "row-005", "source_file": train, "row": 6, "reason": "no label"},
        {"id": "row-033", "source_file": train, "row": 34, "reason": "text is blank"},
    ]
    kept = [row["id"] for i, row in enumerate(rows) if i not in (4, 5, 33)]
    assert entries_of(version)["id"].to_pylist() == kept
    paths = {f["path"] for f in manifest["files"]}
    assert any(path.startswith("rejects/") for path in paths)


def test_a_shard_without_a_usable_row_is_no_obstacle(place):
    rows = [
        row | {"text": "" if 10 <= i < 20 else row["text"]} for i, row in enumerate(sentences(30))
    ]
    place.write("train.csv", rows)
    version = place.version(place.build(max_reject_fraction=0.5))
    assert len(entries_of(version)) == 20
    output = place.classify(str(place.root / "train.csv"), max_reject_fraction=0.5)
    assert manifest_of(output)["rows_out"] == 20


def _no_json(constant):
    raise AssertionError(f"{constant} is no JSON: other readers refuse it")


@pytest.mark.parametrize("rows", [1, 2])
def test_a_corpus_may_be_tiny_and_of_one_label(place, rows):
    place.write("train.csv", [row | {"label": "good"} for row in sentences(rows)])
    answer = raee("build", place.job(prompt=None))
    assert answer.code == 0
    assert "Warning" not in answer.err
    version = place.version(answer.out.strip())
    assert manifest_of(version)["labels"] == ["good"]
    output = place.classify(str(place.root / "train.csv"), prompt=None, policy="raee")
    for folder in (version, output):
        json.loads((folder / "manifest.json").read_text(), parse_constant=_no_json)


def test_without_a_prompt_labels_that_are_numbers_are_in_their_order(place):
    rows = [row | {"label": str(i % 12)} for i, row in enumerate(sentences(24))]
    place.write("train.csv", rows)
    manifest = manifest_of(place.version(place.build(prompt=None)))
    assert manifest["labels"] == [str(i) for i in range(12)]


def test_any_unicode_goes_through(place):
    texts = [
        "nul \0 inside",
        "lone \r and \n",
        "😀 🏳️‍🌈",
        "שלום עולם",
        "a\u2028b",
        "\ufeffbom",
        "{text}",
    ]
    rows = [{"id": t, "text": t, "label": LABELS[i % 3]} for i, t in enumerate(texts)]
    train = place.write("train.csv", rows)
    assert entries_of(place.version(place.build()))["text"].to_pylist() == texts
    output = place.classify(train)
    assert manifest_of(output)["rows_out"] == len(texts)


def test_each_build_is_a_line_in_the_history_of_the_databases_artifact(place):
    versions = [place.build(name="history", policy=policy) for policy in ("raee", "full")]
    raee("promote", "history", versions[0], "--store", place.store, "--alias", "old")
    versions.append(place.build(name="history", policy="retrieval"))
    key = {"artifacts": {"key": {"any_": ["raee-history-versions"]}}, "sort": "CREATED_DESC"}
    history = ask_server("artifacts/filter", key)
    assert len(history) == 3
    newest = history[0]
    assert newest["type"] == "table"
    lines = json.loads(newest["data"])
    assert [line["id"] for line in lines] == versions[::-1]
    assert [line["aliases"] for line in lines] == ["production", "", "old, pinned"]
    assert [line["policy"] for line in lines] == ["retrieval", "full", "raee"]
    assert [line["promoted"] for line in lines] == ["yes", "yes", "yes"]
    assert [line["change"] == "" for line in lines] == [False, False, True]
    assert f"Production now points at {versions[2]}: against" in newest["description"]
    assert "on 40 rows in common" in newest["description"]
    assert flow_states("rebuild-database", "history") == ["COMPLETED"] * 3


def test_the_log_compares_the_jobs_policy_with_the_best_baseline(place):
    """The model's own head has learnt nothing."""
    place.write("train.csv", opinions(place.model_of("bert-encoder"), 100))
    answer = raee("build", place.job(policy="full"))
    version = place.only_version()
    against = manifest_of(version)["metrics"]["full"]["against"]
    best = min(("majority", "words", "logistic"), key=lambda name: against[name]["difference"])
    (line,) = (line for line in answer.err.splitlines() if f": full against {best} (" in line)
    assert f"{100 * against[best]['difference']:+.1f} points" in line
    (line,) = (line for line in answer.err.splitlines() if "alone is right more often" in line)
    assert f"database demo@{version.name}: " in line
    warned = line.partition(f"database demo@{version.name}: ")[2]
    assert f"{warned[0].upper()}{warned[1:]}." in unescape((version / "report.html").read_text())


def test_labels_with_a_single_row_are_named_before_anything_is_read(place):
    """The version is built: others of its labels may be as good as ever."""
    rows = sentences(40)
    place.write("train.csv", [*rows[:-2], *(row | {"label": row["id"]} for row in rows[-2:])])
    answer = raee("build", place.job(prompt=None))
    assert answer.code == 0, answer.err
    lines = answer.err.splitlines()
    (warned,) = (i for i, line in enumerate(lines) if "2 of 5 labels have a single row" in line)
    assert "demo: 2 of 5 labels have a single row: row-038, row-039; without" in lines[warned]
    assert "read centre" in lines[warned + 2]


def test_a_build_needs_no_metadata_of_how_it_was_installed(place, monkeypatch):
    """As with faiss from conda, or raee out of a source tree."""
    import importlib.metadata

    real = importlib.metadata.Distribution.from_name

    def from_name(name):
        if name in ("faiss-cpu", "raee"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata.Distribution, "from_name", from_name)
    manifest = manifest_of(place.version(place.build()))
    assert manifest["code_version"] == "0.1.0"
    assert all(manifest["libraries"].values())

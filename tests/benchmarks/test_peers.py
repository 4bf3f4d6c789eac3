"""`make benchmark-peers` and `make benchmark-check`: what is compared, and what is said of it."""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import AutoModel, AutoTokenizer

from benchmarks import quality
from benchmarks.peers import __main__ as peers
from benchmarks.peers import check, table, tables
from benchmarks.peers.encoders import plain_loop
from benchmarks.peers.process import running
from benchmarks.peers.table import ALONE, FULL_DEPTH, INT8, OURS, ROOT
from tests.flows.jobs import predictions_of
from tests.raee.models import save_model
from tests.texts import WORDS

_PROGRAM = """
import sys
from pathlib import Path
from benchmarks import quality
from benchmarks.peers import __main__ as peers
quality.RESULTS = Path(sys.argv[1])
peers.measure("sst2", ("tfidf", "transformers", "raee"), repeats=2)
"""
_BAD, _GOOD = WORDS[5:9], WORDS[9:12]


def _rows(rows, seed):
    """Opinions, each with a word that is in most texts of its label."""
    dice = random.Random(seed)
    texts, labels = [], []
    for i in range(rows):
        label = dice.random() < 0.4
        telling = dice.choice(_GOOD if label != (dice.random() < 0.1) else _BAD)
        words = [*dice.choices(WORDS[:5], k=dice.randint(1, 8)), telling, WORDS[i % 5]]
        texts.append(" ".join(words))
        labels.append(int(label))
    return pl.DataFrame(
        {
            "id": [f"{seed}-{i}" for i in range(rows)],
            "text": texts,
            "label": pl.Series(labels, dtype=pl.Int8),
            "label_name": [("negative", "positive")[label] for label in labels],
        }
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny sentence encoder."""
    return save_model("bert-encoder", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with two data sets of opinions, the last row of which is blank."""
    folder = tmp_path_factory.mktemp("data")
    for task in check.TASKS:
        (folder / task).mkdir()
        _rows(90, 1).write_parquet(folder / task / "train.parquet")
        blank = pl.col("id") == "2-40"
        test = _rows(41, 2).with_columns(text=pl.when(blank).then(pl.lit(" ")).otherwise("text"))
        test.write_parquet(folder / task / "test.parquet")
    return folder


def test_peers_and_raee_answer_the_rows_that_have_a_text_and_take_turns(tmp_path, data, model):
    results = tmp_path / "results"
    results.mkdir()
    env = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | {
        "RAEE_DATA": str(data),
        "RAEE_MINILM": str(model),
        "RAEE_PEERS_PYTHON": sys.executable,
    }
    run = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 240}
    done = subprocess.run([sys.executable, "-c", _PROGRAM, results], env=env, **run)
    assert done.returncode == 0, done.stderr
    found = json.loads((results / "peers" / "sst2.json").read_text())
    train, test = (pl.read_parquet(data / "sst2" / f"{part}.parquet") for part in ("train", "test"))
    test = test[:-1]
    assert found["labels"] == test["label"].to_list()
    by_name = found["peers"]
    words = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=by_name["tfidf"]["notes"]["C"])
    )
    words.fit(train["text"].to_list(), train["label"])
    assert by_name["tfidf"]["answers"] == words.predict(test["text"].to_list()).tolist()
    job, output = results / "minilm-sst2.yaml", tmp_path / "out"
    test.write_parquet(tmp_path / "test.parquet")
    arguments = ["--input", tmp_path / "test.parquet", "--output", output]
    here = {"RAEE_STORE": str(results / "store"), "PREFECT_HOME": str(results / "prefect")}
    command = [sys.executable, "-c", "from flows.cli.app import main; main()", "classify", job]
    said = subprocess.run([*command, *arguments], env=env | here, **run)
    assert said.returncode == 0, said.stderr
    own = predictions_of(output)["label_name"].to_pylist()
    assert by_name[OURS]["answers"] == [("negative", "positive").index(name) for name in own]
    assert [len(one["seconds"]) for one in by_name.values()] == [2, 2, 2]
    told = [line for line in done.stderr.splitlines() if line.startswith("sst2: repeat")]
    assert told == [f"sst2: repeat {i} of 2" for i in range(3)]


def test_a_peer_that_does_not_start_ends_the_benchmark_with_its_name(tmp_path, data, monkeypatch):
    monkeypatch.setenv("RAEE_PEERS_PYTHON", sys.executable)
    monkeypatch.setenv("RAEE_MINILM", str(tmp_path))
    message = "^peers: fasttext: ModuleNotFoundError: No module named 'fasttext'$"
    peer = running("fasttext", data / "sst2", tmp_path, tmp_path)
    with pytest.raises(SystemExit, match=message), peer:
        pass


def test_a_plain_loop_gives_each_text_the_vector_that_it_has_alone(model):
    texts = ["a film", "the story made me laugh and cry and laugh again", "bravo", "a warm plot"]
    found = plain_loop(str(model))(texts)
    tokenizer, encoder = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model)
    for text, vector in zip(texts, found, strict=True):
        with torch.inference_mode():
            states = encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean = states.mean(dim=0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)


def _found(task="sst2"):
    """Figures of 20 rows whose label is 1, on which peers are right from the first row on."""
    right = {"tfidf": 12, "static": 9, FULL_DEPTH: 10, INT8: 11, OURS: 20, ALONE: 12}
    seconds = {OURS: [1.0, 2.0, 4.0], FULL_DEPTH: [5.0, 8.0, 40.0]}
    found = {
        name: {
            "answers": [1] * count + [0] * (20 - count),
            "seconds": seconds.get(name, [2.0, 2.0, 2.0]),
            "versions": {"python": "3.11.0"},
        }
        for name, count in right.items()
    }
    here = {"machine": "a processor, 2 cores", "date": "2026-11-30"}
    return {"task": task, **here, "labels": [1] * 20, "peers": found}


def test_what_is_there_is_not_measured_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    monkeypatch.setenv("RAEE_DATA", "/nowhere")
    (tmp_path / "peers").mkdir()
    for task in quality.TASKS:
        peers.figures_of(task).write_text(json.dumps(_found(task)))
    peers.main()
    tasks = [line.split("|")[1].strip() for line in _lines(capsys.readouterr().out, "| ")]
    assert [task for task in tasks if task in quality.TASKS] == [*quality.TASKS] * 3


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_runs_only_where_the_processor_multiplies_it(monkeypatch, native):
    monkeypatch.setattr(peers, "is_native", lambda dtype: native or dtype != "bfloat16")
    left_out = set(table.PEERS) - set(peers.run_here())
    assert left_out == (set() if native else {table.BFLOAT16})


def test_a_data_set_that_there_is_none_of_is_said(monkeypatch):
    monkeypatch.setenv("RAEE_DATA", "/nowhere")
    with pytest.raises(SystemExit, match=r"^peers: imdb is none of trec, sst2, "):
        peers.main("imdb")


def _lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_raee_is_compared_with_the_peer_that_is_best_on_each_data_set():
    other = _found("cr")
    other["peers"][OURS]["answers"] = [1] * 3 + [0] * 17
    text = tables.tables_of([_found(), other])
    sst2 = "| sst2 | TF-IDF + LR | +40.0 | 8 | 0 | 0.0078 | **raee**, tuned | +0.0 | 1 |"
    cr = "| cr | TF-IDF + LR | -45.0 | 0 | 9 | 0.0039 | TF-IDF + LR | +0.0 | 1 |"
    assert sst2 in text
    assert cr in text
    (verdict,) = _lines(text, "| accuracy of raee against the best peer of each data set |")
    assert "worse on 1, better on 1 of 2; -2.5 points on average" in verdict
    assert "| sst2 | 0.600 (0.0078) | 0.450 (0.00098) |" in text
    assert "| **1.000** | 0.600 |" in text


def test_ratios_are_medians_of_repeats_and_their_mean_is_over_data_sets():
    other = _found("cr")
    other["peers"][FULL_DEPTH]["seconds"] = [1.0, 2.0, 4.0]
    text = tables.tables_of([_found(), other])
    (line,) = _lines(text, "| rows/s of raee / float32 full depth + LR |")
    assert line == (
        "| rows/s of raee / float32 full depth + LR | 3.0 (1.0 to 5.0), accuracy +50.0 points, "
        "significantly lower on 0 | >= 12 |"
    )
    (speeds,) = _lines(text, "| sst2 | 10 (10 to 10)")
    assert speeds.endswith("| 2 (0 to 4) | 10 (10 to 10) | 10 (5 to 20) | 10 (10 to 10) |")


def test_what_is_measured_is_what_is_recorded_and_runs_side_by_side(data, model, monkeypatch):
    monkeypatch.setattr(check, "REPEATS", 1)
    found = check.measure(data, str(model))
    for recorded in (yaml.safe_load(check.EXPECTED.read_text()) or {}).values():
        assert found.keys() == recorded["ratios"].keys()
    assert all(ratio > 0 for ratio in found.values())


def test_a_ratio_is_theirs_over_ours():
    assert check.ratio(lambda: time.sleep(0.2), lambda: time.sleep(0.05)) > 2


def test_a_ratio_that_fell_by_more_than_15_percent_fails(capsys):
    expected = {"first": 4.0, "second": 1.0, "third": 2.0}
    lines = check.compare({"first": 3.36, "second": 0.86, "third": 3.0, "new": 1.0}, expected)
    assert lines == [
        "first: 3.36 is 16% below the recorded 4.0",
        "new: 1.00, and none is recorded",
    ]
    assert "second: 0.86, recorded 1.00 (-14%)" in capsys.readouterr().out


def test_the_check_ends_with_1_and_a_line_if_a_ratio_fell(tmp_path, data, model, monkeypatch):
    program = (
        "import sys; from pathlib import Path; from benchmarks.peers import check;"
        "check.REPEATS = 1; check.EXPECTED = Path(sys.argv[1]); sys.argv = sys.argv[1:];"
        "check.main(*sys.argv[1:])"
    )
    env = os.environ | {"RAEE_DATA": str(data), "RAEE_MINILM": str(model)}
    path = tmp_path / "expected.yaml"

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", program, path, *arguments],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
        )

    done = run()
    assert done.returncode == 1
    assert "check: nothing is recorded of " in done.stderr
    done = run("record")
    assert done.returncode == 0, done.stderr
    recorded = yaml.safe_load(path.read_text())
    (here,) = recorded.values()
    first, *others = here["ratios"]
    here["ratios"][first] *= 1_000
    here["ratios"] |= dict.fromkeys(others, 0.001)
    path.write_text(yaml.safe_dump(recorded))
    done = run()
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("check: ")]
    assert len(told) == 1
    assert told[0].startswith(f"check: {first}: ")


def test_every_peer_names_a_module_and_a_job_that_there_is():
    for peer in table.PEERS.values():
        module = ROOT / "benchmarks" / "peers" / f"{peer.module}.py"
        assert f"def {peer.make}(task: Task) -> Made:" in module.read_text()
    for task in quality.TASKS:
        assert (ROOT / "examples" / "jobs" / f"{task}.yaml").exists()

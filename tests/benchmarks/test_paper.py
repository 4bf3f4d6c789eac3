"""`make benchmark-paper`: the paper's figures of a model, and ours on the same data sets."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from tokenizers import AddedToken
from transformers import AutoModelForMaskedLM, AutoTokenizer

from benchmarks import paper
from tests.raee.models import save_model
from tests.texts import WORDS

_ROOT = Path(paper.__file__).parents[1]
_FIGURES = {"accuracy": 0.9, "matthews": 0.25, "mean_layers": 3.5}
_PROGRAM = """
import sys
from pathlib import Path
from benchmarks import paper
paper.RESULTS = Path(sys.argv[1])
paper.main(*sys.argv[2:])
"""


def _model_that_says_correct(folder):
    """A tiny masked LM with the label words of cola, too."""
    save_model("bert", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder)
    words = ("correct", "incorrect", "this", "is")
    tokenizer.add_tokens([AddedToken(word, single_word=True) for word in words])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _write_data_set(folder, parts):
    folder.mkdir(parents=True)
    for seed, (part, rows) in enumerate(parts.items()):
        dice = random.Random(seed)
        texts = [" ".join(dice.choices(WORDS, k=dice.randint(3, 9))) for _ in range(rows)]
        rows = {
            "id": [f"{part}-{i}" for i in range(rows)],
            "text": texts,
            "label": pl.Series([len(text) % 2 for text in texts], dtype=pl.Int8),
        }
        pl.DataFrame(rows).write_parquet(folder / f"{part}.parquet")


def test_two_data_sets_are_built_and_evaluated_and_stand_beside_the_paper(tmp_path):
    _write_data_set(tmp_path / "data" / "sst2", {"train": 60, "dev": 20})
    _write_data_set(tmp_path / "data" / "cola", {"train": 60, "test": 20})
    elsewhere = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "RAEE_DATA": str(tmp_path / "data"),
        "RAEE_MODEL": str(_model_that_says_correct(tmp_path / "model")),
        "RAEE_STORE": str(tmp_path / "store"),
    }
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, tmp_path / "results", "roberta-large", "sst2", "cola"],
        env={k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | elsewhere,
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("| roberta-large |") :]
    lines = [re.split(r" *\| *", line)[1:-1] for line in table.splitlines()]
    assert lines[0] == ["roberta-large", "sst2", "cola (Matthews)"]
    assert lines[2:4] == [
        ["the paper's full depth", "83.60", "2.03"],
        ["the paper's RAEE", "84.63", "14.48"],
    ]
    for name, *cells in lines[4:7]:
        for task, metric, cell in zip(
            ("sst2", "cola"), ("accuracy", "matthews"), cells, strict=True
        ):
            found = json.loads((tmp_path / "results" / f"roberta-large-{task}.json").read_text())
            figures = found["policies"][name.strip("`")]
            assert cell == f"{100 * figures[metric]:.2f} @ {figures['mean_layers']:.2f}"
    assert [line[0] for line in lines[4:7]] == ["`full`", "`raee`", "`tuned`"]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder with figures of all data sets and models."""
    monkeypatch.setattr(paper, "RESULTS", tmp_path)
    for model in paper.WEIGHTS:
        for task in paper.TASKS:
            found = {"policies": dict.fromkeys(paper.OURS, _FIGURES)}
            paper.figures_of(model, task).write_text(json.dumps(found))
    return tmp_path


@pytest.mark.parametrize("model", sorted(set(paper.WEIGHTS) - set(paper.PAPER)))
def test_a_model_whose_published_figures_are_not_here_has_ours_alone(model, results):
    names = [
        line.split("|")[1].strip() for line in paper.table_of(model, paper.TASKS).splitlines()[:-2]
    ]
    assert names == [model, "---", "`full`", "`raee`", "`tuned`"]


def test_what_is_there_is_not_made_again(results, monkeypatch, capsys):
    monkeypatch.setenv("RAEE_DATA", "/nowhere")
    for name in ("RAEE_MODEL", "RAEE_STORE"):
        monkeypatch.setenv(name, "/nowhere")
    paper.main("roberta-large")
    line = next(line for line in capsys.readouterr().out.splitlines() if "`raee`" in line)
    assert line == f"| `raee` | {'90.00 @ 3.50 | ' * 7}25.00 @ 3.50 |"


@pytest.mark.parametrize("arguments", [(), ("bert",), ("t5-large", "imdb")])
def test_what_there_is_to_name_is_said(arguments):
    with pytest.raises(SystemExit, match=r"one of roberta-large, .*out of sst2, sst5"):
        paper.main(*arguments)

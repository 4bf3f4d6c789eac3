"""Every example job is one: it loads, and says of which data set and model it is."""

from pathlib import Path

import pytest

from raee.model.prompts import built_in_names
from tasks.job import load_job

_JOBS = Path(__file__).resolve().parents[1] / "examples" / "jobs"
_FAMILIES = {
    "": "sentence-encoder",
    "roberta-large": "masked-lm",
    "t5-large": "seq2seq-lm",
    "llama-3-8b": "causal-lm",
    "gemma-7b": "causal-lm",
}
"""By the folder of a model's jobs."""


@pytest.mark.parametrize("folder", _FAMILIES)
@pytest.mark.parametrize("task", built_in_names())
def test_a_models_job_for_a_data_set_loads(folder, task, monkeypatch):
    variables = {"DATA": "/data", "STORE": "/store", "MODEL": "/weights", "MINILM": "/minilm"}
    for name, value in variables.items():
        monkeypatch.setenv(f"RAEE_{name}", value)
    job = load_job(str(_JOBS / folder / f"{task}.yaml"))
    assert job.name == f"{folder}-{task}".strip("-")
    assert (job.prompt, job.store) == (task, "/store")
    assert (job.corpus.uri, job.corpus.id) == (f"/data/{task}/train.parquet", "id")
    assert job.backbone.family == _FAMILIES[folder]
    assert job.backbone.model == ("/weights" if folder else "/minilm")


def test_no_example_job_is_left_out():
    loaded = {_JOBS / folder / f"{task}.yaml" for folder in _FAMILIES for task in built_in_names()}
    assert set(_JOBS.rglob("*.yaml")) == loaded

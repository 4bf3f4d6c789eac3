"""`make train-small-causal`: a model that loads, of texts that no figure is judged on."""

import json
import math
import random
import time

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import small_causal
from tests.texts import WORDS

_STEPS = 40


@pytest.fixture
def data(tmp_path):
    """A folder of data sets in which texts stand twice, in test and dev splits, too."""
    dice = random.Random(0)
    texts = [" ".join(dice.choices(WORDS, k=dice.randint(3, 9))) for _ in range(300)]
    splits = {
        "sst2/train": texts[:150],
        "sst2/dev": [*texts[:5], "a dev text"],
        "mr/train": [*texts[100:200], " "],
        "mr/test": [*texts[150:160], "a test text"],
        "imdb/unlabelled": texts[200:],
    }
    for name, some in splits.items():
        path = tmp_path / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"id": range(len(some)), "text": some}).write_parquet(path)
    return tmp_path / "data"


@pytest.fixture
def tiny(monkeypatch, tmp_path, data):
    """The script makes a tiny model, in a fixed number of steps, into the folder that this is."""
    sizes = {"VOCABULARY": 300, "LAYERS": 2, "WIDTH": 32, "HEADS": 2, "INNER": 48, "LENGTH": 16}
    for name, value in {**sizes, "HELD_OUT": 20, "RESULTS": tmp_path, "PEAK": 1e-2}.items():
        monkeypatch.setattr(small_causal, name, value)
    monkeypatch.setattr(
        small_causal, "planned", lambda tokens, end: small_causal.begin(False, _STEPS)
    )
    monkeypatch.setenv("RAEE_DATA", str(data))
    monkeypatch.setenv("RAEE_CAUSAL", str(tmp_path / "model"))
    return tmp_path / "model"


def _weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_the_model_loads_as_any_causal_model_and_has_learnt_the_texts(tiny, tmp_path, data):
    small_causal.main()
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    ids = tokenizer("a warm film", return_tensors="pt")["input_ids"]
    assert ids[0, 0] == tokenizer.bos_token_id == model.config.bos_token_id
    assert tokenizer.decode(ids[0, 1:]) == "a warm film"
    assert tokenizer.pad_token_id == model.config.pad_token_id
    assert tokenizer.model_max_length == model.config.max_position_embeddings
    assert {path.name for path in tiny.iterdir()} >= {"model.safetensors", "tokenizer.json"}
    figures = json.loads((tmp_path / "small_causal.json").read_text())
    held_out = small_causal.texts_of(data)[:20]
    sequences = torch.from_numpy(small_causal.packed(tokenizer, held_out).astype(np.int64))
    with torch.inference_mode():
        loss = model(input_ids=sequences, labels=sequences).loss
    assert figures["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert figures["perplexity"] < 60  # 300 tokens at random; 28 words


def test_a_killed_run_goes_on_and_ends_with_the_weights_of_an_undisturbed_one(tiny, monkeypatch):
    small_causal.main()
    undisturbed = _weights(tiny)
    monkeypatch.setenv("RAEE_CAUSAL", str(tiny.with_name("killed")))
    monkeypatch.setattr(small_causal, "KEPT", -1.0)
    real, taken = small_causal.advance, []

    def advance(*arguments):
        if len(taken) == 25:
            taken.append("the kill")
            raise KeyboardInterrupt
        taken.append("a step")
        return real(*arguments)

    monkeypatch.setattr(small_causal, "advance", advance)
    with pytest.raises(KeyboardInterrupt):
        small_causal.main()
    small_causal.main()
    assert len(taken) == _STEPS + 1
    found = _weights(tiny.with_name("killed"))
    assert found.keys() == undisturbed.keys()
    assert all(torch.equal(found[name], undisturbed[name]) for name in found)
    assert not (tiny.with_name("killed") / "training").exists()


def test_a_model_that_is_there_is_not_trained_over(tiny):
    tiny.mkdir()
    (tiny / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match="has a model; remove it to train another"):
        small_causal.main()
    assert [path.name for path in tiny.iterdir()] == ["config.json"]


def test_no_text_of_a_test_or_dev_split_is_learnt_and_each_other_one_once(data):
    texts = small_causal.texts_of(data)
    assert sorted(texts) == sorted(set(texts))
    judging, learning = (
        {t for path in paths for t in pl.read_parquet(path)["text"]}
        for paths in (
            [*data.glob("*/test.parquet"), *data.glob("*/dev.parquet")],
            [*data.glob("*/train.parquet"), *data.glob("imdb/*.parquet")],
        )
    )
    assert judging & learning
    assert set(texts) == learning - judging - {" "}


def test_the_faster_precision_takes_as_many_steps_as_the_time_allows(monkeypatch):
    monkeypatch.setattr(small_causal, "LAYERS", 1)
    monkeypatch.setattr(
        small_causal, "seconds_a_step", lambda tokens, bfloat16: 0.5 if bfloat16 else 2.0
    )
    sequences = np.zeros((48 * small_causal.BATCH, 8), np.uint16)
    run = small_causal.planned(small_causal.Tokens(sequences, sequences), time.monotonic() + 1_008)
    assert run.bfloat16
    assert run.steps == pytest.approx(2_000, abs=20)  # 8 of the seconds are for the perplexity


def test_every_sequence_comes_once_before_any_comes_again():
    training = np.arange(40, dtype=np.uint16)[:, None]
    seen = [i for step in range(5) for i in small_causal.batch_of(training, step)[:, 0].tolist()]
    assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))
    assert seen[:40] != seen[40:]


def test_the_learning_rate_rises_and_then_falls_to_its_last_share():
    rates = [small_causal.rate_at(step, 1_000) for step in range(1_000)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == small_causal.PEAK
    assert rates[-1] == pytest.approx(small_causal.PEAK * small_causal.LAST, rel=0.01)

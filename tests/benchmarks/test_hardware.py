"""`make benchmark-hardware`: what is computed, and that rows leave where they are to."""

import numpy as np
import pytest
import torch
from transformers import BertConfig

from benchmarks.hardware import __main__ as hardware
from benchmarks.hardware import measure, rate, tables
from benchmarks.hardware.shapes import Shape, evenly, layer_operations
from benchmarks.random_models import random_model
from raee.model.native import native_formats
from tests.texts import WORDS

_CONFIG = BertConfig(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
)


def test_the_arithmetic_of_a_layer_is_that_of_its_products_on_real_tokens():
    assert layer_operations(_CONFIG, np.array([1, 5])).tolist() == [
        2 * (4 * 32 * 32 + 2 * 32 * 64) + 4 * 32,
        5 * 2 * (4 * 32 * 32 + 2 * 32 * 64) + 25 * 4 * 32,
    ]


def test_equally_many_rows_of_any_length_leave_at_each_depth():
    lengths = np.random.default_rng(1).integers(3, 60, 48)
    plan = evenly(lengths, 24)
    assert np.bincount(plan).tolist() == [0, *[2] * 24]
    longest = np.argsort(-lengths, kind="stable")[:24]
    assert sorted(plan[longest]) == [*range(1, 25)]
    assert len(evenly(lengths[:30], 24)) == 30


def test_batches_are_taken_from_all_lengths():
    assert measure.spaced("abcde", 1) == ["c"]
    assert measure.spaced("abcdef", 2) == ["b", "e"]
    assert measure.spaced("ab", 5) == ["a", "b"]


@pytest.mark.parametrize("dtype", native_formats())
def test_all_ways_to_a_product_give_nearly_the_same(dtype):
    dice = torch.Generator().manual_seed(0)
    weight, states = (torch.randn(size, 64, generator=dice) for size in (96, 40))
    exact = states @ weight.T
    for name, run in rate._ways(dtype, weight, states).items():
        found = run().float()
        found *= exact.norm() / found.norm()  # whole numbers of plain int8 have another scale
        assert (found - exact).norm() < 0.05 * exact.norm(), name


def test_a_shape_is_measured_in_its_repeats_and_its_tables_say_so(tmp_path):
    shape = Shape("tiny", _CONFIG, 1, 4, 2, 0.5)
    product = rate.Product("none", lambda: None, 10)
    folder = random_model(_CONFIG, tmp_path / "model")
    texts = [" ".join(WORDS[: 1 + i % 8]) for i in range(30)]
    found = measure.measured(shape, folder, "float32", texts, product)
    rows = len(texts)
    assert (found["rows"], found["swept_rows"]) == (rows, 4)
    assert found["layers_run"]["full"] == 3 * rows
    assert rows < found["layers_run"]["exits"] < 3 * rows
    assert found["operations"]["exits"] < found["operations"]["full"]
    assert [len(each) for each in found["seconds"].values()] == [2, 2]
    assert sorted(found["sweep_seconds"]) == ["loaded", "plain", "sweep"]
    text = tables.tables_of([found])
    assert text.count("| tiny, float32 |") == 3


def test_figures_are_of_the_same_repeat():
    found = {
        "layers_run": {"full": 200, "exits": 100},
        "seconds": {"full": [4.0, 6.0], "exits": [2.5, 2.0]},
        "operations": {"full": 80, "exits": 40},
        "rate": [40.0, 20.0],
        "sweep_seconds": {"sweep": [2.2, 3.0], "loaded": [2.0, 2.0]},
    }
    assert tables.shares(found) == [0.8, 1.5]
    assert tables.useful(found, "full") == pytest.approx([0.5, 2 / 3])
    assert tables.useful(found, "exits") == pytest.approx([0.4, 1.0])
    assert tables.overheads(found, "loaded") == pytest.approx([1.1, 1.5])
    assert tables.overheads(found, "plain") == []


def test_a_shape_that_there_is_none_of_is_said(monkeypatch):
    monkeypatch.setenv("RAEE_DATA", "/nowhere")
    with pytest.raises(SystemExit, match=r"^hardware: huge is none of large, base, minilm$"):
        hardware.main("huge")

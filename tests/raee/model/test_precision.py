"""A model's number format: what the job says, or the fastest that the hardware has."""

import pytest
import torch

from raee.model import precision
from raee.model.loaded import backbone_of
from raee.model.precision import Precision, in_precision, precision_of, settled


@pytest.fixture(autouse=True)
def anew():
    precision_of.cache_clear()
    yield
    precision_of.cache_clear()


def _taking(monkeypatch, **milliseconds):
    monkeypatch.setattr(precision, "native_formats", lambda: [*milliseconds])
    monkeypatch.setattr(precision, "_trial", lambda spec, formats: dict(milliseconds))


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ({"float32": 9.0, "bfloat16": 3.0, "int8": 2.9}, "bfloat16"),
        ({"float32": 9.0, "bfloat16": 3.0, "int8": 2.0}, "int8"),
        ({"float32": 9.0, "bfloat16": 8.5, "int8": 8.3}, "float32"),
        ({"float32": 9.0, "bfloat16": 900.0, "int8": 4.0}, "int8"),
        ({"float32": 9.0, "int8": 5.0}, "int8"),
    ],
)
def test_less_precision_has_to_be_worth_a_tenth(monkeypatch, spec_of, taken, chosen):
    _taking(monkeypatch, **taken)
    found = precision_of(spec_of("bert"))
    assert found.dtype == chosen
    assert found.milliseconds == taken
    assert all(f"{name} {each:.1f} ms" in found.why for name, each in taken.items())
    assert settled(spec_of("bert")).dtype == chosen


def test_nothing_is_tried_if_the_job_names_a_format(monkeypatch, spec_of):
    _taking(monkeypatch, float32=9.0, bfloat16=3.0)
    assert precision_of(spec_of("bert", "float16")) == Precision("float16", "the job names it", {})


def test_nothing_is_tried_if_the_processor_has_float32_alone(monkeypatch, spec_of):
    _taking(monkeypatch, float32=9.0)
    assert precision_of(spec_of("bert")).milliseconds == {}


@pytest.mark.parametrize("name", ["bert", "t5", "llama", "albert", "bert-encoder"])
def test_a_trial_runs_the_models_own_lowest_layer_in_each_format(spec_of, monkeypatch, name):
    threads = torch.get_num_threads()
    monkeypatch.setattr(precision, "native_formats", lambda: ["float32", "bfloat16"])
    monkeypatch.setattr(precision, "_SECONDS", 0.0)
    found = precision_of(spec_of(name))
    assert set(found.milliseconds) == {"float32", "bfloat16"}
    assert all(0 < each < 10_000 for each in found.milliseconds.values())
    assert torch.get_num_threads() == threads


def test_a_record_says_what_a_precision_was(monkeypatch, spec_of):
    _taking(monkeypatch, float32=9.0, bfloat16=3.0)
    found = precision_of(spec_of("bert"))
    assert Precision(**found.record) == found


def test_a_model_runs_in_the_format_that_is_named(spec_of):
    for dtype in ("float32", "bfloat16"):
        backbone = backbone_of(in_precision(spec_of("bert"), dtype))
        assert backbone.dtype == dtype
        assert backbone.identity == backbone.fingerprint | {"dtype": dtype}

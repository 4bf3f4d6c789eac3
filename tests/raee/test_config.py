"""The parts of a job file that say how the method runs."""

import pytest
from pydantic import TypeAdapter, ValidationError

from raee.config import (
    BackboneSpec,
    CascadePolicy,
    FullPolicy,
    KeySpec,
    PolicySpec,
    PromptSpec,
    RaeePolicy,
)

_policy = TypeAdapter(PolicySpec).validate_python


def test_a_policy_is_a_name_or_its_settings():
    assert _policy("full") == FullPolicy()
    assert _policy("raee") == RaeePolicy(k=12, threshold=0.9, top=3)
    assert _policy({"name": "cascade", "threshold": 0.5, "first": 2}) == CascadePolicy(
        threshold=0.5, first=2
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("nosuch", "'full', 'fixed', 'retrieval', 'raee', 'cascade'"),
        ({"k": 3}, "name"),
        ({"name": "raee", "threshhold": 0.5}, "threshhold"),
        ({"name": "raee", "k": 0}, "k"),
        ({"name": "raee", "threshold": 1.5}, "threshold"),
        ({"name": "raee", "threshold": float("nan")}, "threshold"),
        ({"name": "full", "k": 3}, "k"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(value, says):
    with pytest.raises(ValidationError, match=says):
        _policy(value)


def test_a_key_is_a_layer_of_the_backbone_or_another_model():
    own, other = KeySpec(layer=3), KeySpec(model="some/encoder")
    assert (own.of_backbone, own.depth, own.name) == (True, 3, "layer-03")
    assert (other.of_backbone, other.depth, other.name) == (False, 0, "retriever")


def test_a_layer_goes_with_the_backbone_only():
    with pytest.raises(ValidationError, match="a sentence encoder has one key"):
        KeySpec(model="some/encoder", layer=3)
    with pytest.raises(ValidationError, match="layer"):
        KeySpec(layer=-1)


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (BackboneSpec, {"family": "masked-lm", "model": "m", "revison": "main"}),
        (BackboneSpec, {"family": "causal", "model": "m"}),
        (BackboneSpec, {"family": "masked-lm", "model": "m", "dtype": "int8"}),
        (PromptSpec, {"labels": {}}),
        (PromptSpec, {"labels": {"a": "b"}, "mask": "x"}),
    ],
)
def test_an_unknown_key_or_value_is_an_error(settings, values):
    with pytest.raises(ValidationError):
        settings(**values)

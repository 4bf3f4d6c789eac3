"""The parts of a job file that say how the method runs."""

import pytest
from pydantic import TypeAdapter, ValidationError

from raee.config import (
    BackboneSpec,
    CascadePolicy,
    De3Policy,
    FarSpec,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    KeySpec,
    PolicySpec,
    PromptSpec,
    RaeePolicy,
    RetrievalPolicy,
    RiskSpec,
    TunedPolicy,
)

_ANY: TypeAdapter = TypeAdapter(PolicySpec)
_policy = _ANY.validate_python


def test_a_policy_is_a_name_or_its_settings():
    assert _policy("full") == FullPolicy()
    assert _policy("raee") == RaeePolicy(k=12, threshold=0.9, top=3)
    assert _policy({"name": "cascade", "threshold": 0.5, "first": 2}) == CascadePolicy(
        threshold=0.5, first=2
    )
    for kind in (FixedPolicy, RetrievalPolicy, KernelPolicy, CascadePolicy, De3Policy, TunedPolicy):
        own = kind()
        assert _policy(own.name) == own
        assert type(_policy(own.name)) is kind


@pytest.mark.parametrize(
    "policy",
    [
        FullPolicy(),
        FixedPolicy(exit="probes@3"),
        RetrievalPolicy(exit="vote@2"),
        RaeePolicy(k=3, threshold=0.75, top=1),
        KernelPolicy(k=7, readers=("vote",), bandwidth=0.5, smoothing=2.0, cost=0.0),
        CascadePolicy(readers=("vote", "probes"), first=1, last=3, threshold=(0.9, 0.8, 0.7)),
        CascadePolicy(threshold=0.5, last=4),
        De3Policy(first=2, threshold=0.25),
        TunedPolicy(accuracy="full"),
        TunedPolicy(accuracy=0.9),
        TunedPolicy(risk=RiskSpec(max_loss=0.01, confidence=0.9)),
    ],
    ids=str,
)
def test_a_policy_that_was_written_down_reads_back(policy):
    assert _ANY.validate_json(policy.model_dump_json()) == policy
    assert _policy(policy.model_dump()) == policy


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            "nosuch",
            "'full', 'fixed', 'retrieval', 'raee', 'kernel', 'cascade', 'de3', 'tuned'",
        ),
        ({"k": 3}, "name"),
        ({"name": "raee", "threshhold": 0.5}, "threshhold"),
        ({"name": "raee", "k": 0}, "k"),
        ({"name": "raee", "k": 10_001}, "k"),
        ({"name": "raee", "threshold": 1.5}, "threshold"),
        ({"name": "raee", "threshold": float("nan")}, "threshold"),
        ({"name": "full", "k": 3}, "k"),
        ({"name": "kernel", "readers": []}, "readers"),
        ({"name": "kernel", "readers": ["prob"]}, "readers"),
        ({"name": "kernel", "bandwidth": 0}, "bandwidth"),
        ({"name": "kernel", "smoothing": 0}, "smoothing"),
        ({"name": "kernel", "cost": -0.1}, "cost"),
        ({"name": "cascade", "readers": []}, "readers"),
        ({"name": "cascade", "first": -1}, "first"),
        ({"name": "cascade", "first": 3, "last": 2}, "`last` 2 is below `first` 3"),
        ({"name": "cascade", "threshold": -0.1}, "threshold"),
        ({"name": "cascade", "threshold": [0.5, 0.5]}, "thresholds by depth need `last`"),
        ({"name": "cascade", "threshold": [0.5, 1.5], "last": 1}, "threshold"),
        (
            {"name": "cascade", "threshold": [0.5, 0.5], "first": 1, "last": 3},
            "depths 1 to 3 need 3 thresholds, there are 2",
        ),
        ({"name": "cascade", "threshold": [], "last": 0}, "need 1 thresholds, there are 0"),
        ({"name": "de3", "threshold": [0.5], "last": 1}, "need 2 thresholds, there are 1"),
        ({"name": "de3", "readers": ["probe"]}, "readers"),
        ({"name": "tuned", "accuracy": "fast"}, "accuracy"),
        ({"name": "tuned", "accuracy": 90}, "accuracy"),
        ({"name": "tuned", "accuracy": 0.9, "risk": {"max_loss": 0.1}}, "not both"),
        ({"name": "tuned", "risk": {"max_loss": 0}}, "max_loss"),
        ({"name": "tuned", "risk": {"max_loss": 0.1, "confidence": 1}}, "confidence"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(value, says):
    with pytest.raises(ValidationError, match=says):
        _policy(value)


def test_a_threshold_is_one_number_or_one_a_depth():
    assert [CascadePolicy(threshold=0.7, first=1).threshold_at(d) for d in (1, 5)] == [0.7, 0.7]
    by_depth = De3Policy(threshold=(0.9, 0.8, 0.7), first=2, last=4)
    assert [by_depth.threshold_at(d) for d in (2, 3, 4)] == [0.9, 0.8, 0.7]


def test_a_key_is_a_layer_of_the_backbone_or_another_model():
    own, other = KeySpec(layer=3), KeySpec(model="some/encoder")
    assert (own.of_backbone, own.depth, own.depths, own.names) == (True, 3, (3,), ("layer-03",))
    assert (other.of_backbone, other.depth, other.depths) == (False, 0, (0,))
    assert other.names == ("retriever",)


def test_a_backbone_may_give_several_keys():
    keys = KeySpec(layers=(0, 3, 12))
    assert (keys.depth, keys.depths) == (0, (0, 3, 12))
    assert keys.names == ("layer-00", "layer-03", "layer-12")
    assert KeySpec(layers=(2,)).depths == KeySpec(layer=2).depths


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": "some/encoder", "layer": 3}, "a sentence encoder has one key"),
        ({"model": "some/encoder", "layers": (0,)}, "a sentence encoder has one key"),
        ({"layer": -1}, "layer"),
        ({"layers": (0, -1)}, "layers"),
        ({"layer": 1, "layers": (1, 2)}, "not both"),
        ({"layers": (2, 1)}, "go up and name each depth once"),
        ({"layers": (1, 1)}, "go up and name each depth once"),
    ],
)
def test_a_key_that_means_nothing_is_refused(values, says):
    with pytest.raises(ValidationError, match=says):
        KeySpec(**values)


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (BackboneSpec, {"family": "masked-lm", "model": "m", "revison": "main"}),
        (BackboneSpec, {"family": "causal", "model": "m"}),
        (BackboneSpec, {"family": "masked-lm", "model": "m", "dtype": "int4"}),
        (FarSpec, {"quantile": 0}),
        (FarSpec, {"quantile": 1.0}),
        (FarSpec, {"then": "drop"}),
        (PromptSpec, {"labels": {}}),
        (PromptSpec, {"labels": {"a": "b"}, "mask": "x"}),
    ],
)
def test_an_unknown_key_or_value_is_an_error(settings, values):
    with pytest.raises(ValidationError):
        settings(**values)


@pytest.mark.parametrize("in_a_list", [False, True])
def test_labels_are_as_many_as_can_be_numbered(in_a_list):
    def spec(count):
        labels = {str(n): str(n) for n in range(count)}
        given = [{name: word} for name, word in labels.items()] if in_a_list else labels
        return PromptSpec.model_validate({"labels": given})

    assert len(spec(2**16).labels) == 2**16
    with pytest.raises(ValidationError, match=r"65,537 labels \(0, 1, .* and 65,527 more\)"):
        spec(2**16 + 1)


def test_a_label_is_text_that_a_file_can_hold():
    with pytest.raises(ValidationError, match=r"'\\ud800' is not valid Unicode"):
        PromptSpec.model_validate({"labels": {"\ud800": "x"}})


def test_labels_in_a_list_keep_their_order_wherever_keys_do_not():
    spec = PromptSpec.model_validate({"labels": [{"good": "great"}, {"bad": "terrible"}]})
    assert list(spec.labels.items()) == [("good", "great"), ("bad", "terrible")]
    with pytest.raises(ValidationError, match="label 'good' stands twice"):
        PromptSpec.model_validate({"labels": [{"good": "great"}, {"good": "fine"}]})

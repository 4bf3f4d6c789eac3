"""How deep rows may run under a policy is known before the model is loaded."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raee.classify import classify
from raee.config import (
    CascadePolicy,
    FarSpec,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    KeySpec,
    RaeePolicy,
    RetrievalPolicy,
)
from raee.far_rows import deepest_run
from raee.model.loading import load_backbone
from tests.raee.databases import LABELS, TEXTS, UNSEEN, build, head_for
from tests.raee.models import LAYERS

FULL, ABSTAIN = FarSpec(quantile=0.5), FarSpec(quantile=0.5, then="abstain")

CASES = [
    (FullPolicy(), None, LAYERS),
    (FixedPolicy(exit="head@1"), None, 1),
    (FixedPolicy(exit="pool@2"), None, 2),
    (FixedPolicy(exit="head@0"), FULL, 0),  # no row comes to the key
    (FixedPolicy(exit="words@0"), FULL, 0),
    (FixedPolicy(exit="head@1"), FULL, LAYERS),
    (FixedPolicy(exit="head@1"), ABSTAIN, 1),
    (RetrievalPolicy(), None, 1),
    (RaeePolicy(k=4), ABSTAIN, LAYERS),
    (KernelPolicy(k=4, readers=("vote",)), None, 1),
    (CascadePolicy(readers=("words", "probe"), threshold=0.6, last=2), None, 2),
    (CascadePolicy(readers=("words", "probe"), threshold=0.6, last=2), FULL, LAYERS),
    (CascadePolicy(readers=("words", "probe"), threshold=0.6, last=2), ABSTAIN, 2),
]


@pytest.fixture(scope="module")
def database(backbone_of):
    labels = [i % len(LABELS) for i in range(len(TEXTS))]
    return build(backbone_of("bert"), TEXTS, labels, KeySpec(layer=1)).database


@pytest.mark.parametrize(("policy", "far", "deepest"), CASES)
def test_layers_above_the_deepest_that_a_row_may_run_are_not_needed(
    database, spec_of, policy, far, deepest
):
    assert deepest_run(database.entries, database.key, policy, far) == deepest
    part = load_backbone(spec_of("bert", "float32"), torch.device("cpu"), deepest)
    assert part.stack.depth == max(deepest, 2)
    partly = replace(database, backbone=part, head=head_for(part))
    found, right = (classify(d, policy, (*UNSEEN, *TEXTS), far=far) for d in (partly, database))
    assert found.layers.max() <= deepest
    for name in ("labels", "exits", "layers", "far"):
        np.testing.assert_array_equal(getattr(found, name), getattr(right, name))
    np.testing.assert_array_equal(found.confidences, right.confidences)

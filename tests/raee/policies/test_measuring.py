"""A cost table prices every reader of a database, and no pass through a model is free."""

from dataclasses import replace

import pytest

from raee.config import KeySpec
from raee.exits import swept_exits
from raee.policies.measuring import measure_costs
from tests.raee.databases import LABELS, TEXTS, build
from tests.raee.models import LAYERS


@pytest.fixture(scope="module")
def database_of(backbone_of):
    def of(key: KeySpec):
        retriever = None if key.of_backbone else backbone_of("mpnet-encoder")
        labels = [i % len(LABELS) for i in range(len(TEXTS))]
        return build(backbone_of("bert"), TEXTS, labels, key, retriever).database

    return of


def test_every_reader_has_a_price(database_of):
    costs = measure_costs(database_of(KeySpec(layers=(1, 3))), TEXTS)
    assert set(costs.reads) == {"head", "vote", "probe", "probes", "de3", "logistic"}
    assert min(costs.encode, costs.layer, *costs.reads.values()) > 0
    # One more depth of an average is one more probe.
    assert costs.reads["probes"] == costs.reads["probe"]
    assert costs.retriever == 0


def test_a_key_with_a_model_of_its_own_costs_its_pass(database_of):
    costs = measure_costs(database_of(KeySpec(model="a retriever")), TEXTS)
    assert costs.retriever > costs.layer
    assert "vote" not in costs.reads


def test_a_version_without_probes_is_measured_without_them(database_of):
    database = database_of(KeySpec(layer=LAYERS))
    exits, entries = swept_exits(LAYERS, (LAYERS,)), database.entries
    swept = replace(
        entries,
        exits=exits,
        answers=entries.answers[:, : len(exits)],
        confidences=entries.confidences[:, : len(exits)],
    )
    costs = measure_costs(replace(database, fits=None, entries=swept), TEXTS)
    assert set(costs.reads) == {"head", "vote"}

"""A cost table prices every reader of a database, and no pass through a model is free."""

from dataclasses import replace

import numpy as np
import pytest

from raee.config import KeySpec
from raee.exits import swept_exits
from raee.policies.measuring import measure_costs
from tests.raee.databases import LABELS, TEXTS, build, with_averages
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
    assert set(costs.reads) == {"head", "vote", "probe", "de3", "logistic", "words", "pool"}
    assert min(costs.encode, costs.enter, costs.layer, *costs.reads.values()) > 0
    # One more depth of a pool is one more probe and one more head.
    assert costs.reads["pool"] == costs.reads["probe"] + costs.reads["head"]
    assert costs.retriever == 0


@pytest.mark.parametrize("votes", [False, True])
def test_a_pool_asks_the_ngrams_once_and_the_votes_if_they_count(database_of, votes):
    database = database_of(KeySpec(layers=(1, 3)))
    pools = database.fits.parameters["pool"]
    weights = np.zeros_like(pools.votes)
    weights[3, 1] = 0.5 if votes else 0.0
    parameters = {**database.fits.parameters, "pool": replace(pools, votes=weights)}
    weighed = replace(database, fits=replace(database.fits, parameters=parameters))
    asked = ["words", "vote"] if votes else ["words"]
    assert measure_costs(weighed, TEXTS).once == {"pool": asked}


def test_an_average_of_an_older_version_costs_a_probe_a_depth(database_of):
    database = database_of(KeySpec(layer=1))
    parameters = {**database.fits.parameters, "probes": np.ones(LAYERS + 1)}
    older = replace(
        database,
        entries=with_averages(database.entries),
        fits=replace(database.fits, parameters=parameters),
    )
    costs = measure_costs(older, TEXTS)
    assert costs.reads["probes"] == costs.reads["probe"]
    assert costs.once["probes"] == []


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

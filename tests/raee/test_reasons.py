"""What spoke for an answer adds up to what the readers say."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import softmax

from raee.all_exits import read_all
from raee.build import build
from raee.config import Method
from raee.exits import Exit
from raee.model.batches import encode
from raee.readers.ngrams import token_ids
from raee.readers.pool import weights_at
from raee.reasons import experts_on, ngrams_on
from tests.flows.opinions import opinions

TEXT = "the film was great , bravo"


@pytest.fixture(scope="module")
def database(folder_of):
    encoder = str(folder_of("bert-encoder"))
    rows = opinions(encoder, 120)
    return _built(encoder, [r["text"] for r in rows], [r["label"] for r in rows])


def _built(encoder, texts, labels):
    backbone = {"family": "sentence-encoder", "model": encoder, "dtype": "float32"}
    method = Method.model_validate({"backbone": backbone, "policy": "full"})
    return build(method, texts, labels, "here").database


def test_n_grams_add_up_to_the_log_odds_less_the_biases(database):
    fitted = database.fits.parameters["words"]
    logs = fitted.logs(token_ids(encode(database.backbone, database.prompt, [TEXT]).token_ids))[0]
    for label in range(3):
        scores = logs - fitted.temperature * fitted.map.biases
        expected = scores[label] - np.delete(scores, label).mean()
        says = [ngram.log_odds for ngram in ngrams_on(database, TEXT, label)]
        assert sum(says) == pytest.approx(expected, abs=1e-4)
        assert says == sorted(says, reverse=True)


def test_n_grams_are_written_as_the_tokenizer_writes_them(database):
    good = database.entries.labels.index("good")
    found = ngrams_on(database, TEXT, good)
    names = {ngram.ngram for ngram in found}
    written = ["[CLS]", "the", "film", "was", "great", ",", "bravo", "[SEP]"]
    assert names <= {*written, *map(" ".join, pairwise(written))}
    assert {"great", "the film"} <= names
    best = max(found, key=lambda ngram: ngram.log_odds)
    assert "great" in best.ngram or "bravo" in best.ngram


@pytest.mark.parametrize("depth", [0, 2, 4])
def test_experts_make_up_the_pools_answer(database, depth):
    exit = Exit("pool", depth)
    pools = database.fits.parameters["pool"]
    total = pools.offsets[depth].copy()
    for label in range(3):
        experts = experts_on(database, TEXT, exit, label)
        assert len(experts) == len(weights_at(pools, depth))
        assert [e.weight for e in experts] == sorted((e.weight for e in experts), reverse=True)
        total[label] += sum(e.weight * np.log(e.probability) for e in experts)
    seen = read_all(database, [TEXT], 1).read
    position = database.entries.position_of(str(exit))
    assert softmax(total).argmax() == seen.answers[0, position]
    assert softmax(total).max() == pytest.approx(seen.confidences[0, position], abs=1e-5)


def test_another_reader_has_no_experts(database):
    assert experts_on(database, TEXT, Exit("probe", 2), 0) == []


def test_of_a_single_label_n_grams_say_nothing(folder_of):
    database = _built(str(folder_of("bert-encoder")), [TEXT, "a dull story"], ["good", "good"])
    assert ngrams_on(database, TEXT, 0) == []

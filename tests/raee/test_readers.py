"""Readers give distributions: of the model's head, and of the neighbours' votes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raee.answers import Neighbours
from raee.model.walk import walk
from raee.readers.head import head_reader, read_centre
from raee.readers.states import pooled, token_mean
from raee.readers.vote import vote
from tests.raee.databases import DESCRIBED, LABELS, TEXTS, head_for, whole_batch
from tests.raee.models import LAYERS, WIDTH


def _found(rows, distances) -> Neighbours:
    return Neighbours(np.array(rows, np.int64), np.array(distances, np.float32))


@given(
    distances=st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=12),
    n_labels=st.integers(1, 4),
    data=st.data(),
)
def test_a_vote_is_the_share_of_each_labels_weights(distances, n_labels, data):
    n = len(distances)
    labels = data.draw(st.lists(st.integers(0, n_labels - 1), min_size=n, max_size=n))
    expected = np.zeros(n_labels)
    for distance, label in zip(distances, labels, strict=True):
        expected[label] += 1 / max(distance, 1e-12)
    found = _found([range(n)], [distances])
    (votes,) = vote(found, np.array(labels, np.uint16), n_labels)
    np.testing.assert_allclose(votes, expected / expected.sum(), rtol=1e-5)
    assert votes.sum() == pytest.approx(1)


def test_a_query_without_neighbours_leaves_the_labels_equally_likely():
    found = _found([[-1, -1], [0, -1]], [[np.inf, np.inf], [0.5, np.inf]])
    votes = vote(found, np.array([2, 0], np.uint16), 4)
    assert votes.tolist() == [[0.25] * 4, [0, 0, 1, 0]]


def test_an_exact_duplicate_outvotes_all_others_finitely():
    found = _found([[0, 1, 2, 3]], [[0, 1e-3, 1e-3, 1e-3]])
    votes = vote(found, np.array([1, 0, 0, 0], np.uint16), 2)
    assert np.isfinite(votes).all()
    assert votes[0, 1] > 0.999


def test_duplicates_of_different_labels_share_the_vote():
    found = _found([[0, 1, 2]], [[0, 0, 0]])
    (votes,) = vote(found, np.array([1, 0, 1], np.uint16), 2)
    np.testing.assert_allclose(votes, [1 / 3, 2 / 3], rtol=1e-6)


def _by_depth(backbone, read) -> torch.Tensor:
    """(depths, texts, ..): what `read(depth, states, batch)` gives, in the order of TEXTS."""
    batch = whole_batch(backbone)
    result: list[torch.Tensor] = []

    def visit(depth, states, rows):
        answer = read(depth, states, batch)
        result.append(torch.empty_like(answer).index_copy(0, torch.as_tensor(batch.rows), answer))

    walk(backbone.stack, batch.inputs, visit)
    return torch.stack(result)


def test_a_cls_pooled_encoder_is_read_at_its_first_token(cls_encoder, plain_of):
    head = head_for(cls_encoder)
    own = _by_depth(
        cls_encoder,
        lambda depth, states, batch: head(
            depth, states, batch.inputs["attention_mask"], batch.answer_positions
        ),
    ).numpy()
    plain = plain_of("bert-encoder")
    centre = torch.stack([plain.embeddings(text, cls=True) for text in TEXTS]).mean(dim=0)
    expected = plain.cosine_distribution(TEXTS, DESCRIBED.words, centre, cls=True)
    np.testing.assert_allclose(own[1:], expected[1:], atol=1e-5)
    # Every text's first token is alike at depth 0: the reading knows nothing and says so.
    np.testing.assert_allclose(own[0], 1 / len(LABELS), atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "modernbert", "mpnet-encoder"])
def test_pooled_states_are_float32_unit_vectors(backbone_of, name):
    own = _by_depth(
        backbone_of(name),
        lambda depth, states, batch: pooled(
            backbone_of(name), depth, states, batch.inputs["attention_mask"]
        ),
    )
    assert own.dtype == torch.float32
    torch.testing.assert_close(own.norm(dim=2), torch.ones(LAYERS + 1, len(TEXTS)))


def test_padding_has_no_part_in_a_mean(backbone_of):
    backbone = backbone_of("bert-encoder")
    states = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    attention = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    padded = token_mean(backbone, 0, states, attention)[0]
    states[0, 3:] = 1e6
    torch.testing.assert_close(token_mean(backbone, 0, states, attention)[0], padded)


def test_the_centre_is_the_texts_mean_at_each_depth(backbone_of, plain_of):
    centre = read_centre(backbone_of("mpnet-encoder"), DESCRIBED, list(TEXTS))
    plain = [plain_of("mpnet-encoder").embeddings(text) for text in TEXTS]
    torch.testing.assert_close(centre, torch.stack(plain).mean(dim=0), atol=1e-5, rtol=0)


def test_a_sentence_encoders_reading_depends_on_its_centre(backbone_of):
    backbone = backbone_of("bert-encoder")
    batch = whole_batch(backbone)
    read = {}
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        centre = torch.randn(LAYERS + 1, WIDTH, generator=generator) / WIDTH
        head = head_reader(backbone, DESCRIBED, centre)

        def visit(depth, states, rows, head=head, seed=seed):
            attention = batch.inputs["attention_mask"]
            read[seed] = head(depth, states, attention, batch.answer_positions)

        walk(backbone.stack, batch.inputs, visit, deepest=0)
    assert (read[0] - read[1]).abs().max() > 0.01

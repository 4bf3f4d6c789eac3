"""Keys tell texts apart, whatever the encoder's own pooling is."""

import numpy as np
import torch
from torch.nn.functional import normalize

from raee.model.walk import walk
from raee.neighbours.keys import layer_key, retriever_keys
from tests.raee.databases import TEXTS, whole_batch
from tests.raee.models import LAYERS


def test_a_cls_pooled_encoders_layer_keys_are_means(cls_encoder, plain_of):
    batch = whole_batch(cls_encoder)
    keys = {}

    def visit(depth, states, rows):
        keys[depth] = layer_key(cls_encoder, depth, states, batch.inputs["attention_mask"])

    walk(cls_encoder.stack, batch.inputs, visit)
    plain = plain_of("bert-encoder")
    for depth in range(LAYERS + 1):
        means = [plain.hidden_states(TEXTS[row])[depth].mean(dim=0) for row in batch.rows]
        expected = normalize(torch.stack(means), dim=1).numpy()
        np.testing.assert_allclose(keys[depth], expected, atol=1e-5)
    # Its first token's state at depth 0 would be the same for every text.
    assert len(np.unique(keys[0].round(4), axis=0)) == len(TEXTS)


def test_a_cls_pooled_retrievers_keys_are_its_first_tokens(cls_encoder, plain_of):
    plain = plain_of("bert-encoder")
    expected = torch.stack([plain.embeddings(text, cls=True)[-1] for text in TEXTS]).numpy()
    np.testing.assert_allclose(retriever_keys(cls_encoder, TEXTS), expected, atol=1e-5)


def test_a_mean_pooled_retrievers_keys_are_its_means(backbone_of, plain_of):
    plain = plain_of("bert-encoder")
    expected = torch.stack([plain.embeddings(text)[-1] for text in TEXTS]).numpy()
    own = retriever_keys(backbone_of("bert-encoder"), TEXTS)
    np.testing.assert_allclose(own, expected, atol=1e-5)


def test_no_texts_have_no_keys(cls_encoder):
    assert retriever_keys(cls_encoder, ()).shape == (0, cls_encoder.hidden_size)

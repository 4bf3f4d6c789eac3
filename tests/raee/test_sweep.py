"""The sweep reads what the model's own head says at every depth of every row."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from raee.config import KeySpec
from raee.sweep import sweep
from tests.raee.databases import (
    TEXTS,
    head_for,
    plain_distributions,
    prompt_of,
)
from tests.raee.errors import refused
from tests.raee.models import LAYERS, MASKED_LMS, SENTENCE_ENCODERS, WIDTH

TINY = (*MASKED_LMS, *SENTENCE_ENCODERS)
TRAINED = ("minilm", "minilm-mlm")


@pytest.fixture
def swept(backbone_of):
    def run(name, texts=TEXTS, key=None, retriever=None, **options):
        backbone = backbone_of(name)
        return sweep(
            backbone,
            prompt_of(name),
            head_for(backbone),
            KeySpec() if key is None else key,
            retriever,
            texts,
            **options,
        )

    return run


@pytest.mark.parametrize("name", [*TINY, *TRAINED])
def test_answers_and_confidences_are_those_of_plain_transformers_calls(swept, plain_of, name):
    result = swept(name)
    plain = plain_distributions(plain_of(name), prompt_of(name)).transpose(1, 0, 2)
    # So that reading a wrong depth, or a wrong row, would show.
    assert name in TRAINED or (plain.argmax(2) != plain.argmax(2)[:, :1]).any(axis=1).mean() > 0.5
    np.testing.assert_allclose(result.confidences, plain.max(axis=2), atol=1e-5)
    of_answer = np.take_along_axis(plain, result.answers[..., None].astype(int), axis=2)[..., 0]
    np.testing.assert_allclose(of_answer, plain.max(axis=2), atol=1e-5)


@pytest.mark.parametrize("layer", [0, 2, LAYERS])
@pytest.mark.parametrize("name", TINY)
def test_the_key_is_the_mean_of_the_layers_states_over_real_tokens(swept, plain_of, name, layer):
    plain, prompt = plain_of(name), prompt_of(name)
    mask = plain.tokenizer.mask_token
    means = [plain.hidden_states(prompt.render(text, mask))[layer].mean(dim=0) for text in TEXTS]
    expected = normalize(torch.stack(means), dim=1).numpy()
    (keys,) = swept(name, key=KeySpec(layer=layer)).keys
    np.testing.assert_allclose(keys, expected, atol=1e-5)
    assert len(np.unique(keys.round(4), axis=0)) == len(TEXTS)


@pytest.mark.parametrize("name", ["modernbert", "bert-encoder"])
def test_several_keys_are_those_of_their_layers(swept, name):
    keys = swept(name, key=KeySpec(layers=(0, 2, LAYERS))).keys
    for own, layer in zip(keys, (0, 2, LAYERS), strict=True):
        np.testing.assert_array_equal(own, swept(name, key=KeySpec(layer=layer)).keys[0])


def test_a_retrievers_keys_are_its_embeddings_of_the_bare_text(swept, backbone_of, plain_of):
    retriever = backbone_of("mpnet-encoder")
    (keys,) = swept("bert", key=KeySpec(model="mpnet"), retriever=retriever).keys
    expected = torch.stack([plain_of("mpnet-encoder").embeddings(text)[-1] for text in TEXTS])
    np.testing.assert_allclose(keys, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["roberta", "bert-encoder"])
def test_a_second_sweep_gives_the_same_bytes(swept, name):
    first, second = swept(name), swept(name)
    assert first.answers.tobytes() == second.answers.tobytes()
    assert first.confidences.tobytes() == second.confidences.tobytes()
    assert first.keys[0].tobytes() == second.keys[0].tobytes()


@pytest.mark.parametrize("name", TINY)
def test_a_rows_reading_does_not_depend_on_its_shard(swept, name):
    whole = swept(name)
    for size in (1, 5):
        shards = [swept(name, TEXTS[i : i + size]) for i in range(0, len(TEXTS), size)]
        answers = np.concatenate([shard.answers for shard in shards])
        confidences = np.concatenate([shard.confidences for shard in shards])
        assert (answers == whole.answers).all()
        np.testing.assert_allclose(confidences, whole.confidences, atol=1e-4)
        keys = np.concatenate([shard.keys[0] for shard in shards])
        np.testing.assert_allclose(keys, whole.keys[0], atol=1e-5)


def test_every_row_is_counted_once(swept):
    done: list[int] = []
    swept("bert", on_rows=done.append)
    assert sum(done) == len(TEXTS)


def test_no_texts_give_empty_arrays_of_the_right_widths(swept):
    result = swept("bert", texts=(), key=KeySpec(layers=(0, 1)))
    assert result.answers.shape == result.confidences.shape == (0, LAYERS + 1)
    assert [keys.shape for keys in result.keys] == [(0, WIDTH)] * 2


def test_no_texts_have_a_retrievers_keys_of_the_right_width(swept, backbone_of):
    retriever = backbone_of("mpnet-encoder")
    (keys,) = swept("bert", texts=(), key=KeySpec(model="mpnet"), retriever=retriever).keys
    assert keys.shape == (0, WIDTH)
    assert keys.dtype == np.float32


def test_a_key_deeper_than_the_backbone_is_refused(swept):
    with refused(r"key\.layer 5 is deeper than the backbone \(4 layers\)"):
        swept("bert", key=KeySpec(layer=LAYERS + 1))
    with refused(r"key\.layers 5 is deeper than the backbone \(4 layers\)"):
        swept("bert", key=KeySpec(layers=(0, LAYERS + 1)))

"""A language model's head reads the tokens that its label words begin with at the answer."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import AutoModelForCausalLM

from raee.config import BackboneSpec, KeySpec
from raee.model.batches import encode
from raee.model.loading import load_backbone
from raee.model.prompts import Prompt
from raee.readers.head import head_reader
from raee.sweep import Labelled, sweep
from tests.raee.tokenizers import save_causal_lm

TEXTS = ("a dull story", "never again", "great")


@pytest.mark.parametrize(
    ("template", "chat", "words", "tokens"),
    [
        ("{text} It was", False, ("bad", "great"), ("Ġbad", "Ġgreat")),
        ("{text} It was", False, ("bad film", "great film"), ("Ġbad", "Ġgreat")),
        ("{text}\nIt was\n", False, ("bad", "great"), ("b", "g")),
        ("{text} was it good ?", True, ("bad", "great"), ("b", "g")),
    ],
    ids=["after a space", "of several tokens", "after a line", "in a chat"],
)
def test_a_causal_lms_label_word_is_the_token_that_it_begins_with_after_the_prompt(
    tmp_path, template, chat, words, tokens
):
    folder = save_causal_lm(tmp_path, "llama3")
    backbone = load_backbone(
        BackboneSpec(family="causal-lm", model=str(folder)), torch.device("cpu")
    )
    prompt = Prompt(("no", "yes"), words, template, chat)
    labelled = Labelled(np.array([0, 1, 0], np.uint16), 2, np.ones(3, bool))
    head = head_reader(backbone, prompt, None)
    found = sweep(backbone, prompt, head, KeySpec(), None, TEXTS, labelled).heads[-1]
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    columns = backbone.tokenizer.convert_tokens_to_ids([*tokens])
    for ids, distribution in zip(encode(backbone, prompt, TEXTS).token_ids, found, strict=True):
        with torch.no_grad():
            logits = plain(torch.tensor(ids[None].astype(np.int64))).logits[0, -1, columns]
        np.testing.assert_allclose(distribution, softmax(logits.numpy()), atol=1e-5)

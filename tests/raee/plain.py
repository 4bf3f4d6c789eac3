"""Readings of a model written with plain `transformers` calls: they share no code with `raee`.

Each text runs alone, unpadded, through the whole model.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer


class Plain:
    """A model with all its hidden states."""

    def __init__(
        self,
        folder: Path,
        masked_lm: bool,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        auto = AutoModelForMaskedLM if masked_lm else AutoModel
        self.model = auto.from_pretrained(folder, dtype=dtype).eval().to(device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def hidden_states(self, text: str) -> Tensor:
        """(depths, tokens, hidden): each depth as the model's own head expects it."""
        return _on_cpu(self._states(text))

    @torch.no_grad()
    def _states(self, text: str) -> Tensor:
        """As `hidden_states`, where and as the model runs.

        That is through the model's final norm, where it has one; `hidden_states` has applied it
        to the last depth.
        """
        states = torch.cat(self._output(text).hidden_states)
        if type(self.model).__name__ == "ModernBertForMaskedLM":
            states[:-1] = self.model.model.final_norm(states[:-1])
        return states

    @torch.no_grad()
    def mask_distribution(self, text: str, words: Sequence[str]) -> NDArray[np.float32]:
        """(depths, words): the head's distribution over words at the text's one mask token."""
        tokens = [self._token(word) for word in words]
        place = self._mask_place(text)
        logits = _head(self.model, self._states(text))[:, place]
        # The head, applied from outside, is the model's own.
        own = self._output(text).logits[0, place]
        assert torch.allclose(logits[-1], own, atol=0.1 if own.dtype is torch.bfloat16 else 1e-5)
        return _on_cpu(logits[:, tokens]).softmax(dim=1).numpy()

    def embeddings(self, text: str, cls: bool = False) -> Tensor:
        """(depths, hidden): the text's unit vector at each depth, mean of the tokens or the first.

        A sentence encoder's embedding is a unit vector: its last module normalises.
        """
        states = self.hidden_states(text)
        return normalize(states[:, 0] if cls else states.mean(dim=1), dim=1)

    def mask_states(self, text: str) -> Tensor:
        """(depths, hidden): the unit vector of the text's one mask token at each depth."""
        return normalize(self.hidden_states(text)[:, self._mask_place(text)], dim=1)

    def cosine_distribution(
        self, texts: Sequence[str], descriptions: Sequence[str], centre: Tensor, cls: bool = False
    ) -> NDArray[np.float32]:
        """(depths, texts, descriptions): softmax of 20 times the cosines, less the centre.

        centre: (depths, hidden).
        """
        of_texts = torch.stack([self.embeddings(text, cls) for text in texts], dim=1)
        of_labels = torch.stack([self.embeddings(label, cls) for label in descriptions], dim=1)
        of_texts = normalize(of_texts - centre[:, None], dim=2)
        of_labels = normalize(of_labels - centre[:, None], dim=2)
        return (20 * of_texts @ of_labels.transpose(1, 2)).softmax(dim=2).numpy()

    def _mask_place(self, text: str) -> int:
        return self._ids(text)[0].tolist().index(self.tokenizer.mask_token_id)

    def _ids(self, text: str) -> Tensor:
        return self.tokenizer(text, return_tensors="pt")["input_ids"].to(self.model.device)

    def _output(self, text: str):
        return self.model(input_ids=self._ids(text), output_hidden_states=True)

    def _token(self, word: str) -> int:
        (token,) = self.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        return token


def _on_cpu(tensor: Tensor) -> Tensor:
    """In the dtype that it has, but for bfloat16, which NumPy does not know."""
    tensor = tensor.cpu()
    return tensor.to(torch.float32) if tensor.dtype is torch.bfloat16 else tensor


def _head(model: nn.Module, states: Tensor) -> Tensor:
    """Each architecture's masked-LM head, as its forward writes it."""
    kind = type(model).__name__
    if kind == "RobertaForMaskedLM":
        return model.lm_head(states)
    if kind == "ElectraForMaskedLM":
        return model.generator_lm_head(model.generator_predictions(states))
    if kind == "AlbertForMaskedLM":
        return model.predictions(states)
    if kind == "DistilBertForMaskedLM":
        transformed = model.activation(model.vocab_transform(states))
        return model.vocab_projector(model.vocab_layer_norm(transformed))
    if kind == "ModernBertForMaskedLM":
        return model.decoder(model.head(states))
    if kind == "DebertaV2ForMaskedLM" and not model.config.legacy:
        return model.lm_predictions(states, model.deberta.embeddings.word_embeddings)
    return model.cls(states)  # BERT and DeBERTa v2

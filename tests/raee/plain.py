"""Readings of a model written with plain `transformers` calls: they share no code with `raee`.

Each text runs alone, unpadded, through the whole model.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)


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


class PlainCausal:
    """A causal LM, read at the last token of a text."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def states(self, text: str) -> list[Tensor]:
        """By depth, (tokens, hidden): the hidden states as the model's own head expects them."""
        ids = self.tokenizer(text, return_tensors="pt")["input_ids"]
        output = self.model(input_ids=ids, output_hidden_states=True)
        states = [each[0] for each in output.hidden_states]
        states[:-1] = [_causal_norm(self.model)(each) for each in states[:-1]]
        own = output.logits[0, -1]
        assert torch.allclose(_causal_head(self.model, states[-1][-1]), own, atol=1e-5)
        return states

    @torch.no_grad()
    def logits(self, text: str, words: Sequence[str]) -> NDArray[np.float32]:
        """(depths, words): what the head says at the last token."""
        answers = torch.stack([each[-1] for each in self.states(text)])
        after_a_space = [f" {word}" for word in words]
        return _causal_head(self.model, answers)[:, _tokens(self.tokenizer, after_a_space)].numpy()


class PlainSeq2Seq:
    """An encoder-decoder, read at the encoder's last token and at the decoder's first step."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def states(self, text: str) -> list[Tensor]:
        """By depth, (tokens, hidden): the encoder's, then the decoder's (1, hidden)."""
        model = self.model
        ids = self.tokenizer(text, return_tensors="pt")["input_ids"]
        first = torch.tensor([[model.config.decoder_start_token_id]])
        output = model(input_ids=ids, decoder_input_ids=first, output_hidden_states=True)
        states = [each[0] for each in output.encoder_hidden_states]
        decoded = [each[0] for each in output.decoder_hidden_states[1:]]
        if "T5" in type(model).__name__:  # BART has a norm in each layer and none after them
            states[:-1] = [model.encoder.final_layer_norm(each) for each in states[:-1]]
            decoded[:-1] = [model.decoder.final_layer_norm(each) for each in decoded[:-1]]
        assert torch.allclose(
            _seq2seq_head(model, decoded[-1][-1]), output.logits[0, -1], atol=1e-5
        )
        return [*states, *decoded]

    @torch.no_grad()
    def logits(self, text: str, words: Sequence[str]) -> NDArray[np.float32]:
        """(depths, words): what the head says at the last token of each depth.

        Nothing comes before a word in the decoder.
        """
        answers = torch.stack([each[-1] for each in self.states(text)])
        return _seq2seq_head(self.model, answers)[:, _tokens(self.tokenizer, words)].numpy()


def _tokens(tokenizer, words: Sequence[str]) -> list[int]:
    """The token that each word begins with, as it is written."""
    return [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]


def _causal_norm(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What each architecture's forward does between its last layer and its head."""
    kind = type(model).__name__
    if kind in ("GPT2LMHeadModel", "BloomForCausalLM"):
        return model.transformer.ln_f
    if kind == "GPTNeoXForCausalLM":
        return model.gpt_neox.final_layer_norm
    if kind == "OPTForCausalLM":
        decoder = model.model.decoder
        return decoder.project_out if decoder.final_layer_norm is None else decoder.final_layer_norm
    if kind == "Gemma3ForConditionalGeneration":
        return model.model.language_model.norm
    return model.model.norm


def _causal_head(model: nn.Module, states: Tensor) -> Tensor:
    """Each architecture's head, as its forward writes it."""
    kind = type(model).__name__
    logits = model.lm_head(states)
    if kind == "Gemma2ForCausalLM":
        cap = model.config.final_logit_softcapping
        return cap * torch.tanh(logits / cap)
    return logits / model.config.logits_scaling if kind == "GraniteForCausalLM" else logits


def _seq2seq_head(model: nn.Module, states: Tensor) -> Tensor:
    if "T5" not in type(model).__name__:
        return model.lm_head(states) + model.final_logits_bias[0]
    if getattr(model.config, "scale_decoder_outputs", False):
        states = states * model.config.d_model**-0.5
    return model.lm_head(states)


def _on_cpu(tensor: Tensor) -> Tensor:
    """In the dtype that it has, but for bfloat16, which NumPy does not know."""
    tensor = tensor.cpu()
    return tensor.to(torch.float32) if tensor.dtype is torch.bfloat16 else tensor


def _head(model: nn.Module, states: Tensor) -> Tensor:
    """Each architecture's masked-LM head, as its forward writes it."""
    kind = type(model).__name__
    if kind in ("RobertaForMaskedLM", "XLMRobertaForMaskedLM"):
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
    return model.cls(states)  # BERT, MobileBERT and DeBERTa v2

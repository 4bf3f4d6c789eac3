"""A language model's own head, cut down to the label words' columns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from raee.errors import InputError, cut
from raee.model.backbones import Backbone
from raee.model.frames import Frame, answer_tokens


def label_tokens(tokenizer: Any, words: Sequence[str], frame: Frame | None = None) -> list[int]:
    """The token that each label word begins with where the model answers, in the words' order.

    frame: of a model that writes: the token that comes right after the prompt.  Without, and if the
    words have a mask's position, a word is as it is after a space, and one token.  Raises
    InputError if a word has none or, for a mask, several, if it is unknown, or if two words begin
    with the same one.
    """
    written = frame is not None and frame.lead is not None
    tokens: dict[int, str] = {}
    for word, ids in zip(words, _all_tokens(tokenizer, words, frame), strict=True):
        pieces = tokenizer.convert_ids_to_tokens(ids)
        if not ids or (len(ids) > 1 and not written):
            raise InputError(
                f"label word {cut(repr(word))} is {len(ids)} tokens for this tokenizer "
                f"({cut(pieces)}); "
                "choose a word that is one token"
            )
        if tokenizer.unk_token_id in ids:
            raise InputError(
                f"label word {cut(repr(word))} is unknown to this tokenizer "
                f"({tokenizer.unk_token}); choose another word"
            )
        if ids[0] in tokens:
            both = f"label words {cut(repr(tokens[ids[0]]))} and {cut(repr(word))}"
            if written:
                raise InputError(
                    f"{both} both begin with the token {cut(repr(pieces[0]))} for this tokenizer; "
                    "choose words that begin differently"
                )
            raise InputError(
                f"{both} are the same token for this tokenizer; choose different words"
            )
        tokens[ids[0]] = word
    return list(tokens)


def _all_tokens(tokenizer: Any, words: Sequence[str], frame: Frame | None) -> list[list[int]]:
    """All tokens of each label word.  Raises InputError if words change the end of the prompt."""
    if frame is None or frame.lead is None or frame.in_decoder:
        space = "" if frame is not None and frame.in_decoder else " "
        return [tokenizer(space + word, add_special_tokens=False)["input_ids"] for word in words]
    found = [answer_tokens(tokenizer, frame, word) if word else ([], []) for word in words]
    for word, (prompt, own) in zip(words, found, strict=True):
        if own and prompt != found[0][0]:
            raise InputError(
                f"label words {cut(repr(words[0]))} and {cut(repr(word))} change the end of "
                "prompt.template differently for this tokenizer; end it in a space or a new line"
            )
    return [own for _, own in found]


class LabelColumns:
    """A masked LM's own head, cut down to the columns of the label words.

    The model's own forward runs with its base answering the given states and with every parameter
    that has a row for each word of the vocabulary reduced to the label words' rows.  So the head
    costs what its transform costs, whatever the size of the vocabulary, and no architecture is
    named.  Raises InputError if the reduced head answers other than the whole one.
    """

    def __init__(self, backbone: Backbone, tokens: Sequence[int]) -> None:
        self._model = backbone.model
        self._base = backbone.stack.model
        vocabulary = int(self._model.config.vocab_size)  # type: ignore[union-attr,arg-type]
        columns = torch.as_tensor(tokens, device=backbone.device)
        cut: dict[int, Tensor] = {}
        self._parameters = {
            name: cut.setdefault(id(parameter), parameter[columns])
            for name, parameter in self._model.named_parameters(remove_duplicate=False)
            if parameter.shape[:1] == (vocabulary,)
        }
        self._check(columns)

    def __call__(self, states: Tensor) -> Tensor:
        """Logits (n, labels) of states (n, hidden) that have gone through the final norm."""
        return self._head(states, self._parameters)

    def _head(self, states: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        with _answering(self._base, BaseModelOutput(last_hidden_state=states.unsqueeze(1))):
            output = torch.func.functional_call(
                self._model, parameters, kwargs={"input_ids": None}, tie_weights=False
            )
        return output.logits.squeeze(1)

    @torch.inference_mode()
    def _check(self, columns: Tensor) -> None:
        weight = next(self._base.parameters())
        generator = torch.Generator().manual_seed(0)
        states = torch.randn(2, self._hidden_size(), generator=generator).to(weight)
        whole = self._head(states, {}).float()
        # Half-precision products differ a little with the matrices' shapes, wrong columns a lot.
        tolerance = 0.05 * float(whole.std())
        if not torch.allclose(self(states).float(), whole[:, columns], rtol=0, atol=tolerance):
            raise InputError(
                f"{type(self._model).__name__}: its head cannot be cut down to the label words"
            )

    def _hidden_size(self) -> int:
        return int(self._base.config.hidden_size)  # type: ignore[union-attr,arg-type]


@contextmanager
def _answering(module: nn.Module, output: Any) -> Iterator[None]:
    """Within, `module` answers `output` whatever it is given."""
    module.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del module.forward

"""A language model's own head, cut down to the label words' columns."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from raee.errors import InputError, cut
from raee.model.backbones import Backbone
from raee.model.frames import Frame, answer_tokens


def label_tokens(tokenizer: Any, words: Sequence[str], frame: Frame) -> list[int]:
    """The token that each label word begins with where the model answers, in the words' order.

    A model that writes answers right after the frame; a word that has a mask's position is as it is
    after a space, and one token.  Raises InputError if a word has no token or, for a mask, several,
    if it is unknown, or if two words begin with the same one.
    """
    written = frame.lead is not None
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


def _all_tokens(tokenizer: Any, words: Sequence[str], frame: Frame) -> list[list[int]]:
    """All tokens of each label word.  Raises InputError if words change the end of the prompt."""
    if frame.lead is None or frame.in_decoder:
        space = "" if frame.in_decoder else " "
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
    """A language model's own head, cut down to the columns of the label words, in float32.

    The model's own forward runs with its base (its encoder and its decoder, if it has both)
    answering the given states, and with every parameter and buffer that has a row or a column for
    each word of the vocabulary reduced to the label words'.  So the head costs what its transform
    costs, whatever the size of the vocabulary, and no architecture is named.  It runs in float32:
    in half precision the logits of two labels are often the same number.  Raises InputError if the
    reduced head answers other than the whole one.
    """

    def __init__(self, backbone: Backbone, tokens: Sequence[int]) -> None:
        self._model = backbone.model
        self._stack = backbone.stack
        config: Any = self._model.config
        vocabulary = int(config.get_text_config().vocab_size)  # a model may read images, too
        columns = torch.as_tensor(tokens, device=backbone.device)
        below = {id(t) for p in self._stack.parts for t in _tensors(p.module).values()}
        made: dict[int, Tensor] = {}
        self._cut: dict[str, Tensor] = {}
        for name, tensor in _tensors(self._model).items():
            if tensor.is_mkldnn:
                continue  # a layer's weight, in an order of its own
            if vocabulary in (tensor.shape[:1] + tensor.shape[-1:]):
                of_vocabulary = 0 if tensor.shape[0] == vocabulary else -1
                if id(tensor) not in made:
                    made[id(tensor)] = tensor.index_select(of_vocabulary, columns).float()
                self._cut[name] = made[id(tensor)]
            elif id(tensor) not in below and tensor.is_floating_point():
                self._cut[name] = tensor.float()
        # Some models (OPT) call what lies in their base past it.
        self._answering = [
            (module, part.output)
            for part in self._stack.parts
            for module in part.module.modules()
            if any(inner is part.layers for inner in module.modules())
        ]
        self._check(columns)

    def __call__(self, states: Tensor) -> Tensor:
        """Logits (n, labels) of states (n, hidden) that have gone through the final norm."""
        return self._head(states.float(), self._cut)

    def _head(self, states: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        inputs = self._stack.given({"input_ids": states.new_zeros(len(states), 1).long()})
        with ExitStack() as answering:
            for module, kind in self._answering:
                answer = kind(last_hidden_state=states.unsqueeze(1))
                answering.enter_context(_answering(module, answer))
            output = torch.func.functional_call(
                self._model, tensors, kwargs={**inputs, "input_ids": None}, tie_weights=False
            )
        return output.logits.squeeze(1)

    @torch.inference_mode()
    def _check(self, columns: Tensor) -> None:
        weight = next(self._stack.model.parameters())
        generator = torch.Generator().manual_seed(0)
        states = torch.randn(2, self._stack.width, generator=generator).to(weight)
        whole = self._head(states, {}).float()
        # Half-precision products differ a little with the matrices' shapes, wrong columns a lot.
        tolerance = 0.05 * float(whole.std())
        if not torch.allclose(self(states).float(), whole[:, columns], rtol=0, atol=tolerance):
            raise InputError(
                f"{type(self._model).__name__}: its head cannot be cut down to the label words"
            )


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, with every name that they have."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


@contextmanager
def _answering(module: nn.Module, output: Any) -> Iterator[None]:
    """Within, `module` answers `output` whatever it is given."""
    module.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del module.forward

"""Texts as token ids, and rows as batches of a token budget."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.errors import InputError, cut
from raee.model.backbones import Backbone, Outline
from raee.model.coding import Ids, coded, token_ids
from raee.model.frames import Frame, closing_tokens, frame_of
from raee.model.long_texts import beginning
from raee.model.prompts import GENERATIVE, Prompt
from raee.model.room import budget_of, keep_to, no_room, on_device
from raee.model.shared import kept_prefix
from raee.model.walk import Inputs

_TEXTS_AT_ONCE = 1_000
"""Texts given to the tokenizer in one call: bounds what its Python lists take."""

_CHARACTERS = 8
"""Characters of a token: of so many for each token that a model takes, a text is too long."""

_KEPT_TOKENS = 8
"""Kept tokens that count as one of a batch: a layer takes memory for their keys and values only."""

_TELLING = 1_024
"""Tokens of a batch from which on it says what a device has room for: that one has none for less
may pass."""

_DIFFERENT = ("a", "The", "1", ".", " a", "\n", '"', "\u00e9", "\u4e2d", "\U0001f600")
"""Texts that begin in different ways: what tokens they have in common do not depend on a text."""

_FEW_CHARACTERS = 16
_LETTER = "[0-9A-Za-z]"
_VISIBLE = r"[^\p{C}\p{Z}\p{M}]"


@dataclass(frozen=True)
class Encoded:
    """Rows as token ids."""

    token_ids: list[NDArray[np.int32]]
    """One array a row, special tokens included."""
    answer_positions: NDArray[np.int64]
    """(n,) position of the token that each row is read at: the template's mask token, or the last
    one of a causal or an encoder-decoder model; -1 for sentence encoders."""
    truncated: NDArray[np.bool_]
    """(n,) True if the text did not fit the model and lost its end."""
    prefix: NDArray[np.int32]
    """The tokens that rows begin with whatever the text is: of models that write and of prompts
    with demonstrations; none of other prompts, whose tokens all count as a row's own."""
    shared: NDArray[np.int64]
    """(n,) how many of a row's first tokens are the first of `prefix`: all, unless the text has
    merged with the last ones; never the row's last token.  Only in a causal model are their states
    the same in all rows, too."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of each row."""
        return np.array([len(ids) for ids in self.token_ids], dtype=np.int64)

    @property
    def own_ids(self) -> list[NDArray[np.int32]]:
        """One array a row: its tokens without the shared ones, which tell no row from another."""
        return [ids[n:] for ids, n in zip(self.token_ids, self.shared, strict=True)]


@dataclass(frozen=True)
class Batch:
    """Some rows, padded to one length and on the model's device."""

    rows: NDArray[np.int64]
    """(n,) positions of the batch's rows among those encoded."""
    token_ids: list[NDArray[np.int32]]
    """One array a row, without padding and without the tokens that all rows share."""
    inputs: Inputs
    """What the model is called with.  Tokens whose keys and values are kept (`raee.model.shared`)
    do not pass the layers again."""
    own: Tensor
    """(n, tokens) int64, of the tokens that pass the layers: 1 at those that are a row's own."""
    answer_positions: Tensor
    """(n,) int64; as in `Encoded`, among the tokens that pass the layers."""


def check_room(backbone: Outline, prompt: Prompt) -> None:
    """Raises InputError if what surrounds a text leaves it no room in the model."""
    (alone,) = encode(backbone, prompt, [""]).token_ids
    if len(alone) >= backbone.max_tokens:
        raise _no_room(backbone, prompt, len(alone))


def encode(backbone: Outline, prompt: Prompt, texts: Sequence[str]) -> Encoded:
    """Texts in the prompt's template as token ids.

    A text that does not fit the model loses its last tokens; template and demonstrations lose none.
    Raises InputError if these alone do not fit, or the prompt is a chat that the tokenizer cannot
    write.
    """
    if backbone.prefix and prompt.template == "{text}":
        prompt = replace(prompt, template=backbone.prefix + prompt.template)
    if backbone.lower_case:
        prompt = replace(prompt, template=prompt.template.lower())
        texts = [text.lower() for text in texts]
    frame = frame_of(prompt, backbone.tokenizer, backbone.family)
    ids: list[Ids] = []
    truncated = np.zeros(len(texts), dtype=bool)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = slice(start, start + _TEXTS_AT_ONCE)
        fitting, truncated[some] = _fitting(backbone, prompt, frame, texts[some])
        ids += fitting
    positions = np.full(len(texts), -1, dtype=np.int64)
    if backbone.family in GENERATIVE:
        positions[:] = [len(row) - 1 for row in ids]
    elif "{mask}" in prompt.template:
        for i, row in enumerate(ids):
            # A text may hold the mask token too; the template's is the first or the last one.
            found = np.flatnonzero(row == backbone.tokenizer.mask_token_id)
            positions[i] = found[0] if prompt.mask_is_first else found[-1]
    prefix, shared = np.zeros(0, np.int32), np.zeros(len(texts), np.int64)
    if backbone.family in GENERATIVE or prompt.shown:
        prefix = _prefix(backbone, frame)
        shared[:] = [_common(prefix, row[:-1]) for row in ids]
    return Encoded(ids, positions, truncated, prefix, shared)


class Batches:
    """Rows in batches of at most `budget` tokens, padding included: longest first, then deepest.

    Tokens count that pass the layers, and a part of those whose keys and values are kept.  The
    longest rows come first, so that memory is at its highest in the first batch.  Whoever runs a
    batch does so within `room`:

        for batch in batches:
            with batches.room():
                ..
    """

    def __init__(
        self,
        backbone: Backbone,
        encoded: Encoded,
        depths: NDArray[np.int64] | None = None,
        budget: int | None = None,
        some: NDArray[np.bool_] | None = None,
    ) -> None:
        """Sort rows.

        depths: (n,) how deep each row is to run, if that is known.  budget: by default what the
        device has room for.  some: (n,) the rows that are batched; by default all.
        """
        self._backbone, self._encoded = backbone, encoded
        chosen = np.arange(len(encoded.token_ids)) if some is None else np.flatnonzero(some)
        self._order, self._start, self._next, self._no_room = chosen, 0, 0, False
        if not len(chosen):
            return  # no pass of the prefix for rows that have all left before the walk
        self._of_prefix, size = kept_prefix(backbone, encoded.prefix), len(encoded.prefix)
        has_kept = (self._of_prefix is not None) & (encoded.shared == size)
        self._kept = np.where(has_kept, size, 0)
        lengths = encoded.lengths - self._kept
        self._counted = lengths + self._kept // _KEPT_TOKENS
        deep = np.zeros_like(lengths) if depths is None else depths
        by = -deep[chosen], -lengths[chosen], self._kept[chosen]
        self._order = chosen[np.lexsort(by)]
        self._budget = budget_of(backbone) if budget is None else budget
        self._own_ids = encoded.own_ids

    def __iter__(self) -> Iterator[Batch]:
        while self._next < len(self._order):
            self._start = self._next
            rows = self._order[self._start :]
            rows = rows[: max(1, self._budget // int(self._counted[rows[0]]))]
            rows = rows[self._kept[rows] == self._kept[rows[0]]]
            self._next += len(rows)
            batch = None
            with self.room():
                batch = self._batch(rows)
            if batch is not None:
                yield batch
            del batch
            if self._no_room:  # what the error held is free by now
                self._come_again()

    @contextmanager
    def room(self) -> Iterator[None]:
        """Rows come again, in smaller batches, if the device has no room for the batch.

        What was done with them by then is done again.  Raises InputError if there is no room for
        one row.
        """
        try:
            yield
        except torch.OutOfMemoryError:
            if self._next - self._start == 1:
                (row,) = self._order[self._start : self._next]
                raise no_room(self._backbone, int(self._counted[row])) from None
            self._no_room = True

    def _come_again(self) -> None:
        """Go back to the rows of the batch that found no room, with half of its tokens."""
        rows = self._order[self._start : self._next]
        tokens = len(rows) * int(self._counted[rows[0]])
        self._next, self._no_room = self._start, False
        keep_to(self._backbone, max(tokens // 2, _TELLING))
        self._budget = tokens // 2

    def _batch(self, rows: NDArray[np.int64]) -> Batch:
        encoded, device = self._encoded, self._backbone.device
        before = int(self._kept[rows[0]])
        passing = [encoded.token_ids[i][before:] for i in rows]
        inputs = pad(passing, padding_of(self._backbone.tokenizer), device)
        shared = on_device(encoded.shared[rows] - before, device)
        real = inputs["attention_mask"]
        own = real * (torch.arange(real.shape[1], device=real.device) >= shared[:, None])
        if before and self._of_prefix:
            inputs = {**_after(before, inputs), **self._of_prefix}
        positions = on_device(encoded.answer_positions[rows] - before, device)
        return Batch(rows, [self._own_ids[i] for i in rows], inputs, own, positions)


def _after(before: int, inputs: Inputs) -> Inputs:
    """Rows that attend to so many tokens before their own, too."""
    real = inputs["attention_mask"]
    return {**inputs, "attention_mask": torch.cat([real.new_ones(len(real), before), real], dim=1)}


def pad(
    token_ids: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> dict[str, Tensor]:
    """Rows of token ids as `input_ids` and `attention_mask`, (n, longest) int64, padded right."""
    lengths = np.array([len(row) for row in token_ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_token_id, dtype=np.int64)
    ids[mask] = np.concatenate(token_ids)
    both = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    return {name: on_device(values, device) for name, values in both.items()}


def padding_of(tokenizer: Any) -> int:
    """The token that rows are padded with.

    No row attends to it, so any token will do if the tokenizer has none for that.
    """
    return 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def without_token(backbone: Outline, texts: pl.Series) -> pl.Series:
    """(rows,) True if the tokenizer makes nothing of a text.

    It is asked of texts that look so: without a visible character, or short and without a letter or
    a digit that every vocabulary has.
    """
    short = (texts.str.len_chars() <= _FEW_CHARACTERS) & ~texts.str.contains(_LETTER)
    suspect = short | ~texts.str.contains(_VISIBLE)
    asked = texts.filter(suspect).to_list()
    empty = np.zeros(len(texts), bool)
    if asked:
        found = token_ids(backbone.tokenizer, asked, special_tokens=False)
        empty[suspect.to_numpy()] = [not len(ids) for ids in found]
    return pl.Series(empty)


def _ids(backbone: Outline, frame: Frame, texts: Sequence[str]) -> list[Ids]:
    """Token ids of texts in their frame."""
    framed = [frame.around(text) + frame.answer for text in texts]
    found = token_ids(backbone.tokenizer, framed, frame.special_tokens)
    return [ids[: len(ids) - frame.closing] for ids in found]


def _prefix(backbone: Outline, frame: Frame) -> NDArray[np.int32]:
    """The tokens that all rows of a frame begin with: those that texts as different share."""
    first, *others = _ids(backbone, frame, _DIFFERENT)
    return first[: min(_common(first, ids) for ids in others)]


def _common(prefix: NDArray[np.int32], row: NDArray[np.int32]) -> int:
    """How many tokens two rows have in common from the first on."""
    size = min(len(prefix), len(row))
    differ = np.flatnonzero(prefix[:size] != row[:size])
    return int(differ[0]) if len(differ) else size


def _fitting(
    backbone: Outline, prompt: Prompt, frame: Frame, texts: Sequence[str]
) -> tuple[list[Ids], NDArray[np.bool_]]:
    """Token ids of texts in their frame, without as many of a text's last ones as are too many.

    It also returns, (n,), which texts lost their end.  Raises InputError if the frame alone does
    not fit.
    """
    found: dict[int, Ids] = {}
    over: list[int] = []
    read, limit = dict(enumerate(texts)), backbone.max_tokens
    end, most = frame.after + frame.answer, _CHARACTERS * limit
    left = {row: beginning(backbone.tokenizer, text, most, end) for row, text in read.items()}
    # Texts go in rounds, not one by one: the tokenizer shares many out among its threads.
    while left:
        read |= left
        found |= zip(left, _ids(backbone, frame, [*left.values()]), strict=True)
        over += [row for row in left if len(found[row]) > limit]
        left = {}
        for row, ids in found.items():
            size = len(read[row])
            if len(ids) <= limit and size < len(texts[row]):
                longer = beginning(backbone.tokenizer, texts[row], 2 * size, end)
                left[row] = longer if len(longer) > size else texts[row]
    spans = _spans(backbone, frame, [read[row] for row in over], [found[row] for row in over])
    for row, (begin, stop) in zip(over, spans, strict=True):
        kept = stop - (len(found[row]) - limit)
        if kept >= begin:
            found[row] = np.delete(found[row], slice(kept, stop))
            continue
        (found[row],) = _ids(backbone, frame, [""])
        if len(found[row]) > limit:
            raise _no_room(backbone, prompt, len(found[row]))
    truncated = np.zeros(len(texts), dtype=bool)
    truncated[over] = True
    return [found[row] for row in range(len(texts))], truncated


def _spans(
    backbone: Outline, frame: Frame, texts: Sequence[str], ids: Sequence[Ids]
) -> list[tuple[int, int]]:
    """Of each text in its frame, the first of its own tokens, and the one after the last.

    Only texts that more than special tokens come after are tokenized again, to say where each
    token stands.
    """
    if not texts:
        return []
    if not frame.after + frame.answer:
        (alone,) = _ids(backbone, frame, [""])
        special = closing_tokens(backbone.tokenizer) if frame.special_tokens else 0
        closing = special - frame.closing
        return [(len(alone) - closing, len(own) - closing) for own in ids]
    framed = [frame.around(text) + frame.answer for text in texts]
    found = coded(backbone.tokenizer, framed, frame.special_tokens)
    spans, before = [], len(frame.before)
    for i, text in enumerate(texts):
        after = before + len(text)
        own = [n for n, (b, e) in enumerate(found[i].offsets) if before <= b < e <= after]
        spans.append((own[0], own[-1] + 1) if own else (0, 0))
    return spans


def _no_room(backbone: Outline, prompt: Prompt, alone: int) -> InputError:
    beside = f" with {len(prompt.shown)} examples" if prompt.shown else ""
    template = f"prompt.template {cut(repr(prompt.template))}"
    return InputError(
        f"{template}{beside} alone is {alone} tokens; the model takes {backbone.max_tokens}"
    )

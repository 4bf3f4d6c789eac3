"""Texts, prompts, readings and small databases that several tests look at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from raee.answers import Answers, Neighbours, answers_of
from raee.config import Family, KeySpec
from raee.exits import Entries, Exit, exits_of, in_order
from raee.model.backbones import Backbone
from raee.model.batches import Batches, encode
from raee.model.prompts import Prompt
from raee.neighbours.index import Index, new_index
from raee.neighbours.lists import nearest_other_texts
from raee.policies.replay import Trial
from raee.readers.discriminant import linear_map, scatter_at
from raee.readers.fit import Judges, StateName, Unfitted, WordRows
from raee.readers.fitting import Fits, Fitted, fit_readers
from raee.readers.head import HeadReader, head_reader, read_centre
from raee.readers.linear import Linear
from raee.readers.ngrams import token_ids
from raee.readers.sums import sums_of
from raee.readers.vote import vote
from raee.reading import Database
from raee.sweep import Labelled, sweep
from raee.texts import Texts, copies_of
from tests.raee.models import ARCHITECTURES, MASKED_LMS, REFUSED

TEXTS = (
    "a dull story",
    "great , great plot and a warm actor made me laugh again , and never was it boring !",
    "",
    "the film made me cry .",
    "was it okay ? never again",
    "bravo",
    "the actor was bad and the plot was terrible and the story never made me laugh or cry",
    "scene 42 , xylophone zzz 2001",
    "warm warm warm warm warm warm warm warm warm warm warm warm warm warm warm warm warm",
    "it was good .",
    "\U0001f600 ünïcödé",
    "boring actor , boring scene , boring plot",
)
"""Short and long ones, in no order: one batch of them is padded to many lengths."""

UNSEEN = (
    "the story was warm and the plot was okay and the actor made me laugh again and again , again",
    "bad film",
    "",
    "never boring , bravo !",
    "a terrible , terrible scene",
    "it made me cry and laugh",
    "qwerty 12345",
    "the film was good and great and warm .",
)
"""Texts that are not in the database."""

LABELS = ("bad", "good", "so so")
MASKED = Prompt(LABELS, ("terrible", "great", "okay"), "{text} It was {mask}.")
ASKED = Prompt(LABELS, ("terrible", "great", "okay"), "{text} It was")
INSTRUCTED = replace(
    ASKED, template="was the film good , bad or okay ? never was a dull plot great : {text} It was"
)
"""A prompt of which most tokens come before the text."""
DESCRIBED = Prompt(LABELS, ("a terrible , bad film", "a great story", "it was okay"))
_PROMPTS = {
    "masked-lm": MASKED,
    "sentence-encoder": DESCRIBED,
    "causal-lm": ASKED,
    "seq2seq-lm": ASKED,
}


def is_masked_lm(name: str) -> bool:
    return name in MASKED_LMS or name == "minilm-mlm"


def named_family(name: str) -> Family:
    """The family of the model of a name."""
    if name in ARCHITECTURES or name in REFUSED:
        return (ARCHITECTURES | REFUSED)[name].family
    return "masked-lm" if is_masked_lm(name) else "sentence-encoder"


def prompt_of(name: str) -> Prompt:
    """What the tests ask of the model of a name."""
    return _PROMPTS[named_family(name)]


def prompt_for(backbone: Backbone) -> Prompt:
    """What the tests ask of a loaded model."""
    return _PROMPTS[backbone.family]


def head_for(backbone: Backbone, texts: Sequence[str] = TEXTS) -> HeadReader:
    """The head of `prompt_for`, a sentence encoder's with its centre over the texts."""
    prompt = prompt_for(backbone)
    described = backbone.family == "sentence-encoder"
    return head_reader(
        backbone, prompt, read_centre(backbone, prompt, list(texts)) if described else None
    )


def whole_batch(backbone: Backbone, texts: Sequence[str] = TEXTS):
    """All texts in one padded batch of a token budget that takes them."""
    (batch,) = Batches(backbone, encode(backbone, prompt_for(backbone), texts), budget=10**6)
    return batch


def plain_distributions(plain, prompt: Prompt, texts: Sequence[str] = TEXTS) -> NDArray[np.float32]:
    """(depths, texts, labels): the head's reading, by plain `transformers` calls."""
    if "{mask}" in prompt.template:
        mask = plain.tokenizer.mask_token
        rendered = [prompt.template.format(text=text, mask=mask) for text in texts]
        return np.stack([plain.mask_distribution(text, prompt.words) for text in rendered], axis=1)
    centre = torch.stack([plain.embeddings(text) for text in texts]).mean(dim=0)
    return plain.cosine_distribution(texts, prompt.words, centre)


def plain_states(
    plain, prompt: Prompt, state: StateName, texts: Sequence[str] = TEXTS, cls: bool = False
) -> NDArray:
    """(depths, texts, hidden): what probes read of texts, by plain `transformers` calls."""
    mask = plain.tokenizer.mask_token
    rendered = [prompt.template.format(text=text, mask=mask) for text in texts]
    if state == "answer" and not cls:
        return torch.stack([plain.mask_states(text) for text in rendered], dim=1).numpy()
    at_first = state == "answer"
    return torch.stack([plain.embeddings(text, at_first) for text in rendered], dim=1).numpy()


@dataclass(frozen=True)
class Built:
    """A database with what went into it."""

    database: Database
    neighbours: Neighbours
    """What its rows found among each other by the first key."""
    keys: tuple[NDArray[np.float32], ...]
    """For each key (rows, width)."""
    states: NDArray[np.float32]
    """(depths, rows, width) what the probes were fitted on."""
    fitted: Fitted

    def __len__(self) -> int:
        return len(self.database.entries)

    @property
    def trial(self) -> Trial:
        """All of its rows."""
        return Trial(self.database.entries, np.arange(len(self)), self.neighbours)


def build(
    backbone: Backbone,
    texts: Sequence[str],
    labels: Sequence[int],
    key: KeySpec,
    retriever: Backbone | None = None,
    vote_k: int = 5,
    state: StateName = "mean",
    asked: Prompt | None = None,
) -> Built:
    """Sweep texts and put them into a database, votes and probes without the text.

    asked: by default `prompt_for`, whose label words it has to have.
    """
    prompt, head = asked or prompt_for(backbone), head_for(backbone, texts)
    label, n_labels = np.array(labels, dtype=np.uint16), len(prompt.labels)
    labelled = Labelled(label, n_labels, np.ones(len(label), dtype=bool))
    swept = sweep(backbone, prompt, head, key, retriever, texts, labelled)
    indexes = tuple(_index(keys) for keys in swept.keys)
    hashes = swept.hashes
    found = [
        replace(
            nearest_other_texts(index, keys, vote_k, hashes, Texts(hashes)),
            own=np.arange(len(texts)),
        )
        for index, keys in zip(indexes, swept.keys, strict=True)
    ]
    states = swept.states[state]
    judges = Judges(states.__getitem__, label, hashes, copies_of(hashes, hashes, label, n_labels))
    votes = [vote(f, label, n_labels) for f in found]
    words = WordRows(token_ids(swept.token_ids), label, hashes, np.arange(len(texts)))
    unfitted = Unfitted(
        swept.heads, dict(zip(key.depths, votes, strict=True)) if key.of_backbone else {}
    )
    fitted = fit_readers(state, swept.sums[state], judges, words, unfitted)
    exits = exits_of(backbone.depth, key.depths)
    read = in_order(
        exits,
        {
            "sweep": Answers(swept.answers, swept.confidences),
            "neighbours": answers_of(votes),
            "fit": fitted.answers,
        },
    )
    entries = Entries(exits, prompt.labels, label, read.answers, read.confidences, hashes)
    database = Database(
        backbone=backbone,
        prompt=prompt,
        head=head,
        key=key,
        retriever=retriever,
        indexes=indexes,
        entries=entries,
        vote_k=vote_k,
        fits=fitted.fits,
        nearest=found[0].distances[:, 0],
    )
    return Built(database, found[0], swept.keys, states, fitted)


def without(built: Built, row: int) -> Database:
    """The database less one of its texts: keys, entries, and the probes as fitted on the others.

    What a fit chooses rather than computes stays: shrinkages and temperatures, a sentence encoder's
    centre, the labels' shares, and what is cross-fitted: regression, n-grams and pools.
    """
    database = built.database
    others = database.entries.hashes != database.entries.hashes[row]
    return replace(
        database,
        indexes=tuple(_index(keys[others]) for keys in built.keys),
        entries=database.entries[others],
        fits=_fitted_on(built, others),
        nearest=built.neighbours.distances[others, 0],
    )


def with_averages(entries: Entries) -> Entries:
    """The entries with exits that databases had before there were pools, which are always right."""
    depths = range(entries.exits[entries.full].depth + 1)
    right = np.repeat(entries.label[:, None], len(depths), axis=1)
    return replace(
        entries,
        exits=(*entries.exits, *(Exit("probes", depth) for depth in depths)),
        answers=np.column_stack([entries.answers, right]),
        confidences=np.column_stack([entries.confidences, np.ones(right.shape, np.float32)]),
    )


def _index(keys: NDArray[np.float32]) -> Index:
    index = new_index(keys.shape[1])
    index.add(keys)
    return index


def _fitted_on(built: Built, rows: NDArray[np.bool_]) -> Fits:
    fits, entries = built.fitted.fits, built.database.entries
    assert built.fitted.record["fit"] == "lda"
    states, label, n_labels = built.states[:, rows], entries.label[rows], len(entries.labels)
    sums = sums_of(states, label, n_labels)
    there, left = (np.bincount(y, minlength=n_labels) for y in (entries.label, label))
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.log(there / there.sum()) - np.log(left / left.sum())
    kept[left == 0] = 0.0
    maps = []
    for depth, shrinkage in enumerate(built.fitted.record["shrinkages"]):
        weights, biases = linear_map(scatter_at(sums, depth), shrinkage)
        temperature = fits.parameters["probe"][depth].temperature
        maps.append(Linear(weights, biases + kept, temperature))
    means = np.zeros_like(fits.parameters["de3"])
    for c in np.unique(label):
        means[:, c] = states[:, label == c].mean(axis=1, dtype=np.float64)
    return replace(fits, parameters={**fits.parameters, "probe": tuple(maps), "de3": means})

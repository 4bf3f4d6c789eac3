"""A build in memory: a database out of labelled texts, without a store and without an orchestrator.

The steps of `tasks.build` do the same to a corpus on disk, shard by shard, with the same functions:
on the same rows both come to the same database.  Only what is drawn differs: of more rows than
CENTRE_ROWS those that a sentence encoder's centre is read over, and of more than
`sample_rows` those that carry the figures of fitted readers.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.answers import Answers, Neighbours, answers_of, spread_over
from raee.config import (
    PAPER_NEIGHBOURS,
    KeySpec,
    Method,
)
from raee.drawn import evenly
from raee.errors import InputError, listed
from raee.examples import Candidates, rows_left
from raee.exits import Entries, Exit, exits_of, in_order
from raee.model.backbones import Backbone
from raee.model.batches import without_token
from raee.model.loaded import backbone_of, retriever_of
from raee.model.precision import settled
from raee.model.prompts import Prompt, examples_of
from raee.neighbours.choice import choose_index
from raee.neighbours.gpu import search_on
from raee.neighbours.index import Index
from raee.neighbours.lists import nearest_other_texts
from raee.neighbours.near_copies import copies_record
from raee.neighbours.training import built_index
from raee.policies.compared import beside_baselines, judged, metrics_of, objective_of
from raee.policies.costs import Costs
from raee.policies.measuring import measure_costs, texts_measured
from raee.policies.objectives import Tuning
from raee.policies.replay import Trial
from raee.policies.tuning import neighbours_needed, study
from raee.prepared import prepared
from raee.readers.discriminant import scatter_at
from raee.readers.fit import Judges, StateName, Unfitted, WordRows
from raee.readers.fitting import Fitted, fit_readers
from raee.readers.head import HeadReader, head_reader, pooled_state, sentence_head
from raee.readers.ngrams import token_ids
from raee.readers.probe import left_out_accuracy
from raee.readers.sums import Sums
from raee.readers.vote import vote
from raee.reading import Database
from raee.statistics.calibration import calibrated, fit_temperatures
from raee.statistics.far import far_of
from raee.sweep import Labelled, Sweep, joined, sweep, with_head
from raee.texts import Texts, copies_of

logger = logging.getLogger("raee")

CENTRE_ROWS = 4_096
"""Rows over which a sentence encoder's centre is read (docs/method.md)."""

SEED = 0
"""Of the rows that are drawn, and of all folds."""


@dataclass(frozen=True)
class Built:
    """A database with what a build finds out about it."""

    database: Database
    """With calibrated entries, temperatures and what says which rows are far."""
    centre: Tensor | None
    """(depths, width) what a sentence encoder's head is read against; None for a masked LM."""
    trial: Trial
    """The rows of which every exit was read, with their neighbours among all rows."""
    tuning: Tuning
    costs: Costs
    metrics: Mapping[str, dict[str, Any]]
    """By name the figures of the compared policies on the own rows, each without its text, beside
    the majority's (`raee.policies.compared.metrics_of`)."""
    copies: Mapping[str, Any]
    """Rows with equal and nearly equal texts."""


def build(
    method: Method,
    texts: Sequence[str],
    labels: Sequence[str],
    where: str,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Built:
    """Build a database of labelled texts.

    labels: of each text the name of its label.  where: the database, for messages.  on_rows is told
    of rows as they are swept.  Raises InputError if the method cannot be followed: a model that
    does not load, a label that the prompt does not name, a policy's exit that there is not; or if a
    text has no token.
    """
    candidates = Candidates(examples_of(method.prompt))
    candidates.add(texts, labels)
    counts = Counter(labels)
    prompt, *_ = prepared(method, len(texts), counts, candidates, settled, backbone_of)
    model = settled(method.backbone)
    backbone, retriever = backbone_of(model), retriever_of(method.key, model)
    _check_tokens(backbone, texts)
    left = rows_left(prompt, texts)
    texts, labels = [*compress(texts, left)], [*compress(labels, left)]
    place = {name: i for i, name in enumerate(prompt.labels)}
    label = np.array([place[name] for name in labels], np.uint16)
    labelled = Labelled(label, len(prompt.labels), sample_of(label, method.sample_rows))
    swept, head, centre = _swept(method, backbone, prompt, retriever, texts, labelled, on_rows)
    indexes = tuple(_indexed(method, keys) for keys in swept.keys)
    found = _neighbours(method, swept, indexes)
    judges = judges_of(swept, labelled)
    fitted = fit_on_best(
        {state: swept.sums[state] for state in judges},
        judges,
        _word_rows(method, swept, labelled),
        Unfitted(swept.heads, votes_of(method.key, found, labelled)),
    )
    raw = Database(
        backbone=backbone,
        prompt=prompt,
        head=head,
        key=method.key,
        retriever=retriever,
        indexes=tuple(search_on(backbone.device, index) for index in indexes),
        entries=_entries(backbone, method.key, prompt, swept, labelled, found, fitted),
        vote_k=PAPER_NEIGHBOURS,
        fits=fitted.fits,
        nearest=found[0].distances[:, 0],
    )
    rows = raw.entries.complete
    temperatures = fit_temperatures(raw.entries)
    depth, nearest = method.key.depth, found[0][rows]
    far = far_of(
        scatter_at(swept.sums["mean"], depth),
        swept.states["mean"][depth],
        label[rows],
        judges[fitted.fits.state].copies,
        nearest.distances[:, 0],
    )
    some = evenly(len(texts), texts_measured(raw))
    costs = measure_costs(raw, [texts[i] for i in some])
    copies = copies_record(raw.entries, found[0])
    entries = calibrated(raw.entries, temperatures)
    trial = Trial(entries, rows, nearest)
    studied = study(trial, costs, objective_of(method.policy), SEED, copies["barred"])
    names = [str(e) for e in entries.exits]
    runs = judged(method.policy, studied, trial, costs, names, where)
    metrics = metrics_of(runs, trial)
    beside = beside_baselines(method.policy.name, runs, metrics)
    if beside is not None and beside.better is not None:
        logger.warning("%s: %s", where, beside.better)
    return Built(
        database=replace(raw, entries=entries, temperatures=temperatures, far=far),
        centre=centre,
        trial=trial,
        tuning=studied.tuning,
        costs=costs,
        metrics=metrics,
        copies=copies,
    )


def _check_tokens(backbone: Backbone, texts: Sequence[str]) -> None:
    """Raises InputError if a text is blank or has no token: nothing could be read of it."""
    empty = without_token(backbone, pl.Series(texts, dtype=pl.String))
    unusable = [i for i, text in enumerate(texts) if empty[i] or not text.strip()]
    if unusable:
        raise InputError(
            f"{len(unusable):,} of {len(texts):,} texts are blank or have no token for this model "
            f"(rows {listed(unusable)}, from 0); leave them out"
        )


def sample_of(label: NDArray[np.uint16], rows: int) -> NDArray[np.bool_]:
    """(rows,) True in a sample of about so many rows, in which labels keep their shares.

    At least one row of each label is in it.  label: (rows,).
    """
    if rows >= len(label):
        return np.ones(len(label), bool)
    sampled = np.zeros(len(label), bool)
    order = np.random.default_rng(SEED).permutation(len(label))
    for own in (order[label[order] == c] for c in np.unique(label)):
        sampled[own[: max(1, round(rows * len(own) / len(label)))]] = True
    return sampled


def judges_of(swept: Sweep, labelled: Labelled) -> dict[StateName, Judges]:
    """By state, the rows on which fits are judged.  labelled: of all rows that were swept."""
    sampled, label, hashes = labelled.sample, labelled.label, swept.hashes
    copies = copies_of(hashes[sampled], hashes, label, labelled.labels)
    return {
        state: Judges(states.__getitem__, label[sampled], hashes[sampled], copies)
        for state, states in swept.states.items()
    }


def votes_of(
    key: KeySpec, found: Sequence[Neighbours], labelled: Labelled
) -> dict[int, NDArray[np.float32]]:
    """By a key's depth, (sampled rows, labels) the votes of rows' neighbours, for the pools.

    found: by each key, all rows' nearest rows of other texts.  There are none if the key has a
    model of its own: a pool is asked of every row, and each would run that model.
    """
    if not key.of_backbone:
        return {}
    label, labels, sampled = labelled.label, labelled.labels, labelled.sample
    return {
        depth: vote(neighbours[sampled].first(PAPER_NEIGHBOURS), label, labels)
        for depth, neighbours in zip(key.depths, found, strict=True)
    }


def fit_on_best(
    sums: Mapping[StateName, Sums],
    judges: Mapping[StateName, Judges],
    words: WordRows,
    unfitted: Unfitted,
    before: Mapping[str, Any] = MappingProxyType({}),
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Fitted:
    """Fit the readers on the state on which the closed form is right most often.

    sums, judges: of each state that may be read.  on_rows is told of `rows_of_fit`, evenly.  The
    others: as in `fit_readers`.
    """
    chosen = next(iter(sums))
    if len(sums) > 1:
        right = {s: left_out_accuracy(sums[s], judges[s], on_rows) for s in sums}
        chosen = max(right, key=lambda state: right[state])
    return fit_readers(chosen, sums[chosen], judges[chosen], words, unfitted, before, SEED, on_rows)


def rows_of_fit(states: int, rows: int) -> int:
    """Of how many rows `fit_on_best` tells.

    states: how many may be read; if there are several, each is read once to choose one.  rows: how
    many carry the figures.
    """
    return rows * (1 + (states if states > 1 else 0))


def answers_of_all(
    exits: Sequence[Exit],
    heads: Answers,
    at_key: Mapping[int, Neighbours],
    labelled: Labelled,
    rows: NDArray[np.bool_],
    fitted: Answers,
) -> Answers:
    """What all exits say of some rows, as they were read.

    heads: of these rows.  at_key: their neighbours by the key of each depth.  labelled: of all
    rows of the database.  rows: (rows,) those among these of which `fitted` has the answers.
    """
    votes = [
        e.of.among(at_key[e.depth].first(PAPER_NEIGHBOURS), labelled.label, labelled.labels)
        for e in exits
        if e.of.source == "neighbours"
    ]
    fits = spread_over(fitted, rows)
    return in_order(exits, {"sweep": heads, "neighbours": answers_of(votes), "fit": fits})


def _word_rows(method: Method, swept: Sweep, labelled: Labelled) -> WordRows:
    """The rows that n-grams are fitted on: all that are sampled, and more."""
    rows = sample_of(labelled.label, max(method.words_rows, method.sample_rows))
    rows |= labelled.sample
    return WordRows(
        token_ids([*swept.token_ids[rows]]),
        labelled.label[rows],
        swept.hashes[rows],
        np.flatnonzero(labelled.sample[rows]),
    )


def _swept(
    method: Method,
    backbone: Backbone,
    prompt: Prompt,
    retriever: Backbone | None,
    texts: Sequence[str],
    labelled: Labelled,
    on_rows: Callable[[int], None],
) -> tuple[Sweep, HeadReader, Tensor | None]:
    """Sweep all rows, each once; with the head, and the centre that it is read against."""
    sampled, everything = labelled.sample, np.ones(len(texts), bool)

    def read(head: HeadReader | None, some: NDArray[np.bool_], kept: NDArray[np.bool_]) -> Sweep:
        own = Labelled(labelled.label[some], labelled.labels, kept[some])
        own_texts = list(compress(texts, some))
        return sweep(backbone, prompt, head, method.key, retriever, own_texts, own, on_rows)

    if backbone.family != "sentence-encoder":
        words = head_reader(backbone, prompt, None)
        return read(words, everything, sampled), words, None
    of_centre = np.zeros(len(texts), bool)
    of_centre[evenly(len(texts), CENTRE_ROWS)] = True
    bare = read(None, of_centre, everything)
    mean = bare.states[pooled_state(backbone)].mean(axis=1, dtype=np.float64)
    centre = torch.from_numpy(mean).float()
    head = sentence_head(backbone, prompt, centre)
    first, others = with_head(bare, head, sampled[of_centre]), read(head, ~of_centre, sampled)
    return joined(first, others, of_centre, sampled), head, centre


def _indexed(method: Method, keys: NDArray[np.float32]) -> Index:
    rows, width = keys.shape
    spec = choose_index(rows, width) if method.index == "auto" else method.index
    return built_index(spec, rows, width, keys.__getitem__, [keys])[0]


def _neighbours(method: Method, swept: Sweep, indexes: Sequence[Index]) -> list[Neighbours]:
    """By each key all rows' nearest rows of other texts, as many as anybody asks."""
    hashes, texts, own = swept.hashes, Texts(swept.hashes), np.arange(len(swept.hashes))
    found: list[Neighbours] = []
    for index, keys in zip(indexes, swept.keys, strict=True):
        asked = PAPER_NEIGHBOURS if found else neighbours_needed(method.policy)
        found.append(replace(nearest_other_texts(index, keys, asked, hashes, texts), own=own))
    return found


def _entries(
    backbone: Backbone,
    key: KeySpec,
    prompt: Prompt,
    swept: Sweep,
    labelled: Labelled,
    found: Sequence[Neighbours],
    fitted: Fitted,
) -> Entries:
    """What all exits say of all rows; confidences are as they were read.  found: by each key."""
    exits = exits_of(backbone.depth, key.depths)
    at_key = dict(zip(key.depths, found, strict=True))
    heads = Answers(swept.answers, swept.confidences)
    read = answers_of_all(exits, heads, at_key, labelled, labelled.sample, fitted.answers)
    return Entries(
        exits, prompt.labels, labelled.label, read.answers, read.confidences, swept.hashes
    )

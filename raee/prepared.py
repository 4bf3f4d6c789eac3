"""A build before anything is read: its models and its job looked over, and its prompt."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import polars as pl

from raee.config import MOST_LABELS, BackboneSpec, Method
from raee.errors import InputError, cut, listed
from raee.examples import Candidates
from raee.exits import exits_of
from raee.labels import in_order as labels_in_order
from raee.labels import warn_of_single_rows
from raee.model.backbones import Outline
from raee.model.batches import check_room, without_token
from raee.model.frames import frame_of
from raee.model.heads import label_tokens
from raee.model.loaded import retriever_spec
from raee.model.loading import load_tokenizer
from raee.model.prompts import Prompt, declared_labels, resolve_prompt
from raee.neighbours.keys import PLAIN_TEXT, check_key
from raee.neighbours.training import check_index_spec
from raee.policies.table import check_policy


def prepared(
    method: Method,
    rows: int,
    counts: Mapping[str, int],
    candidates: Candidates,
    settle: Callable[[BackboneSpec], BackboneSpec],
    opened: Callable[[BackboneSpec], Outline],
) -> tuple[Prompt, Outline, Outline | None]:
    """The prompt and the models of a build, looked over before anything is read.

    counts: rows of each label.  candidates: the rows, which the prompt may show.  settle: names
    the backbone's number format.  opened: what is opened of a model, all of it or its small files.
    Returns prompt, backbone and the key's own model, if it has one.  Raises InputError as `build`
    does.
    """
    family = method.backbone.family
    declared = declared_labels(method.prompt, family)
    if declared is not None and (unknown := sorted(set(counts) - set(declared))):
        raise InputError(
            f"label {cut(repr(unknown[0]))} is not in the prompt; its labels are {listed(declared)}"
        )
    if len(counts) > MOST_LABELS:
        raise InputError(f"{len(counts):,} labels are more than the {MOST_LABELS:,} of a database")
    warn_of_single_rows(counts)
    prompt = resolve_prompt(method.prompt, family, labels_in_order(counts))
    if family != "sentence-encoder":  # before weights are loaded, or downloaded
        tokenizer = load_tokenizer(method.backbone)
        label_tokens(tokenizer, prompt.words, frame_of(prompt, tokenizer, family))
    model = settle(method.backbone)
    backbone = opened(model)
    shown = candidates.pick(prompt.labels, partial(_can_be_shown, backbone))
    prompt = replace(prompt, shown=shown)
    check_room(backbone, prompt)
    check_key(method.key, backbone)
    of_key = retriever_spec(method.key, model)
    retriever = None if of_key is None else opened(of_key)
    if retriever is not None:
        check_room(retriever, PLAIN_TEXT)
    if method.index != "auto":
        width = backbone.hidden_size if retriever is None else retriever.pooled_size
        check_index_spec(method.index, width, rows)
    check_policy(method.policy, exits_of(backbone.depth, method.key.depths))
    return prompt, backbone, retriever


def _can_be_shown(backbone: Outline, text: str) -> bool:
    """Whether a text has tokens, and none of them is a special one."""
    if any(token in text for token in backbone.tokenizer.all_special_tokens):
        return False
    return not without_token(backbone, pl.Series([text])).any()

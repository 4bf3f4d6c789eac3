"""A database in use: the policy that answers on it, and what calibrates its confidences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from raee.build import Built
from raee.classify import Predictions, classify
from raee.config import BackboneSpec, FarSpec, Method, PolicySpec, RunnablePolicy
from raee.errors import InputError
from raee.evaluation import PolicyFigures, compare_on, majority_figures, read_for
from raee.model.backbones import Backbone
from raee.model.batches import without_token
from raee.model.loaded import backbone_of, retriever_of
from raee.model.spec import ANYWHERE
from raee.neighbours.gpu import search_on
from raee.neighbours.index import Index, index_from
from raee.policies.baselines import MAJORITY
from raee.policies.compared import compared, runnable
from raee.policies.objectives import Tuning
from raee.policies.replay import replay
from raee.predictions import predictions_frame
from raee.readers.head import head_reader
from raee.reading import Database
from raee.statistics.calibration import Line, policy_lines

_REBUILT = ("backbone", "head", "retriever", "indexes")
"""What of a database is not pickled as it is: models go by their names."""


@dataclass(frozen=True)
class Runner:
    """A database and the policy that answers on it."""

    database: Database
    policy: PolicySpec
    """As it was asked for."""
    runs: RunnablePolicy
    """What answers: the policy, or what the database's tuning found for it."""
    lines: Mapping[int, Line]
    """By exit, what calibrates the confidences that are written."""
    far: FarSpec | None
    tuning: Tuning | None
    where: str
    """The database, for messages."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Their names, by the places that predictions have."""
        return self.database.entries.labels

    def classify(
        self, texts: Sequence[str], far: FarSpec | None, all_labels: bool = False
    ) -> Predictions:
        """Classify texts.  far, all_labels: as in `raee.classify.classify`."""
        return classify(
            self.database, self.runs, texts, far=far, lines=self.lines, all_labels=all_labels
        )

    def frame(self, texts: Sequence[str]) -> pl.DataFrame:
        """Classify texts; a row each, in their order.

        label (its place), label_name, confidence, reader, depth, layers, nearest_distance, usual,
        and flags: `cut`, `far`, and `no token` of a text of which the tokenizer makes nothing.
        """
        found = self.classify(texts, self.far)
        ids = pl.Series(range(len(texts)), dtype=pl.Int64)
        empty = without_token(self.database.backbone, pl.Series(texts, dtype=pl.String))
        flags = pl.when(empty).then(pl.concat_list("flags", pl.lit("no token"))).otherwise("flags")
        return predictions_frame(ids, self.database, found).with_columns(
            layers=pl.Series(found.layers, dtype=pl.Int16), flags=flags
        )

    def compare(self, texts: Sequence[str], right: NDArray[np.int32]) -> dict[str, PolicyFigures]:
        """`raee.evaluation.compare_on` with the policies that tables compare, and the majority."""
        names = [str(e) for e in self.database.entries.exits]
        policies = compared(self.policy, self.tuning, names, self.where)
        seen = read_for(self.database, policies, texts)
        found = compare_on(self.database, policies, texts, seen, right, self.policy.name, self.far)
        return {MAJORITY: majority_figures(self.database, right), **found}


def runner_of(built: Built, method: Method, where: str) -> Runner:
    """A database that was built in memory, in use.

    Raises InputError if nothing that its tuning found meets the method's policy.
    """
    runs = runnable(method.policy, built.tuning, where)
    lines = policy_lines(replay(runs, built.trial), built.trial)
    return Runner(built.database, method.policy, runs, lines, method.far, built.tuning, where)


@dataclass(frozen=True)
class Packed:
    """A database in use, without its models: what is pickled."""

    runner: dict[str, Any]
    """Its fields but the database."""
    database: dict[str, Any]
    """The fields but those that are made anew."""
    indexes: tuple[bytes, ...]
    backbone: BackboneSpec
    fingerprints: tuple[dict[str, str] | None, ...]
    """Of the backbone, and of the key's own model."""
    centre: NDArray[np.float32] | None


def packed(runner: Runner, backbone: BackboneSpec, centre: Tensor | None) -> Packed:
    """A database that was built in memory, in use.

    backbone: that it was built with; centre: as in `raee.build.Built`.
    """
    database = runner.database
    of_runner = {f.name: getattr(runner, f.name) for f in fields(Runner) if f.name != "database"}
    kept = [f.name for f in fields(Database) if f.name not in _REBUILT]
    dtype = database.backbone.dtype
    return Packed(
        runner=of_runner,
        database={name: getattr(database, name) for name in kept},
        indexes=tuple(_bytes_of(index) for index in database.indexes),
        backbone=backbone.model_copy(update={"dtype": dtype} | ANYWHERE),
        fingerprints=_fingerprints(database.backbone, database.retriever),
        centre=None if centre is None else centre.cpu().numpy(),
    )


def unpacked(parts: Packed) -> Runner:
    """What was packed, with its models loaded.

    Raises InputError if they are not there, or are not those that the database was built with.
    """
    key = parts.database["key"]
    backbone = backbone_of(parts.backbone)
    retriever = retriever_of(key, parts.backbone)
    if _fingerprints(backbone, retriever) != parts.fingerprints:
        raise InputError(
            f"{parts.runner['where']} was built with another model than {parts.backbone.model!r} "
            "is now; fit it anew, or use the model that it was built with"
        )
    centre = None if parts.centre is None else torch.from_numpy(parts.centre)
    indexes = (search_on(backbone.device, index_from(data)) for data in parts.indexes)
    database = Database(
        backbone=backbone,
        head=head_reader(backbone, parts.database["prompt"], centre),
        retriever=retriever,
        indexes=tuple(indexes),
        **parts.database,
    )
    return Runner(database=database, **parts.runner)


def _bytes_of(index: Index) -> bytes:
    pieces: list[bytes] = []
    index.write(pieces.append)
    return b"".join(pieces)


def _fingerprints(
    backbone: Backbone, retriever: Backbone | None
) -> tuple[dict[str, str] | None, ...]:
    return backbone.identity, None if retriever is None else retriever.identity

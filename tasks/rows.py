"""A shard's rows as a model reads them: those without a token for its tokenizer are rejects."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raee.examples import rows_left
from raee.model.backbones import Backbone
from raee.model.batches import without_token
from raee.model.prompts import Prompt
from storage.checked_rows import by_reason
from storage.corpus import CorpusSpec
from storage.scan import Shard, read_shard

NO_TOKEN = "text has no token"


@dataclass(frozen=True)
class ShardRows:
    """The rows of a shard."""

    usable: pl.DataFrame
    """Columns row, id, text, label."""
    rejects: pl.DataFrame
    """Columns id, source_file, row, reason."""

    def __len__(self) -> int:
        return len(self.usable)

    @property
    def texts(self) -> list[str]:
        """The texts of the usable rows."""
        return self.usable["text"].to_list()

    def without_shown(self, prompt: Prompt) -> "ShardRows":
        """The rows less those that have the text of one of the prompt's demonstrations."""
        left = pl.Series(rows_left(prompt, self.usable["text"]), dtype=pl.Boolean)
        return ShardRows(self.usable.filter(left), self.rejects)

    def rejected(self) -> dict[str, int]:
        """By reason, how many rows are not usable."""
        return by_reason(self.rejects)


def rows_of_shard(
    spec: CorpusSpec, shard: Shard, backbone: Backbone, labels: Sequence[str] | None
) -> ShardRows:
    """Read a shard.

    labels: as the prompt names them, if the corpus is labelled.  Raises InputError as `read_shard`
    does.
    """
    usable, rejects = read_shard(spec, shard, labels is not None, labels)
    empty = without_token(backbone, usable["text"])
    if not empty.any():
        return ShardRows(usable.drop("source_file"), rejects)
    gone = usable.filter(empty).select(
        "id", "source_file", pl.col("row"), pl.lit(NO_TOKEN).alias("reason")
    )
    return ShardRows(usable.filter(~empty).drop("source_file"), pl.concat([rejects, gone]))


def rejected_in(parts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """By reason, how many rows of all shards are rejected.  parts: those of each shard."""
    rejected: Counter[str] = Counter()
    for part in parts:
        rejected.update(part)
    return rejected


def label_numbers(labels: pl.Series, names: Sequence[str]) -> NDArray[np.uint16]:
    """(rows,) the number of each label: its index in `names`."""
    numbers = pl.Series(range(len(names)), dtype=pl.UInt16)
    return labels.replace_strict(pl.Series(names), numbers).to_numpy()

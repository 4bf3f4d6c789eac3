"""A data set as every peer gets it, and what a peer makes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """The rows of a split that have a text: blank ones are left out for all."""

    texts: list[str]
    labels: NDArray[np.int64]
    """(rows,) the data set's own numbers."""

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Task:
    """What a peer is made for."""

    train: Rows
    unlabelled: list[str]
    """The texts that it will classify: what a user has before anything is classified."""
    model: str
    """The sentence encoder's folder."""
    job: str
    """The job file of raee's database."""
    kept: Path
    """A folder for what takes long to make and depends on the model alone."""


class Made(NamedTuple):
    """A peer that is fitted."""

    answers: Callable[[list[str]], NDArray[np.int64]]
    """Texts to labels (rows,), as the data set has them."""
    notes: dict[str, Any]
    """What was chosen on the train rows."""


def read_rows(folder: Path, part: str) -> Rows:
    """The rows of FOLDER/PART.parquet; columns text and label."""
    found = pl.read_parquet(folder / f"{part}.parquet", columns=["text", "label"])
    found = found.filter(pl.col("text").str.strip_chars() != "")
    return Rows(found["text"].to_list(), found["label"].cast(pl.Int64).to_numpy())

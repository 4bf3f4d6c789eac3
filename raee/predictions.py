"""Predictions as a frame: what stands in which column of a classification's output."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raee.classify import Predictions
from raee.reading import Database


def predictions_frame(ids: pl.Series, database: Database, found: Predictions) -> pl.DataFrame:
    """A shard's predictions, in the order of its rows; null if a row was left unlabelled."""
    exits, names = database.entries.exits, database.entries.labels
    answered = pl.Series(found.labels >= 0)
    labels, places = _or_null(found.labels), _or_null(found.exits)
    flags = [
        pl.when(pl.Series(flagged)).then(pl.lit(pl.Series([[name]]))).otherwise(pl.lit(_NO_FLAG))
        for name, flagged in (("cut", found.truncated), ("far", found.far))
    ]
    return pl.DataFrame({"id": ids}).with_columns(
        label=labels,
        label_name=pl.Series(names, dtype=pl.String).gather(labels),
        confidence=pl.when(answered).then(pl.Series(found.confidences.astype(np.float32))),
        reader=pl.Series([e.reader for e in exits], dtype=pl.String).gather(places),
        depth=pl.Series([e.depth for e in exits], dtype=pl.Int16).gather(places),
        nearest_distance=_known(found.nearest),
        usual=_known(found.usual),
        flags=pl.concat_list(flags),
    )


_NO_FLAG = pl.Series([[]], dtype=pl.List(pl.String))


def _or_null(places: NDArray) -> pl.Series:
    """Places among others; null for none, which is a negative number."""
    found = pl.Series(places, dtype=pl.Int32)
    return found.set(found < 0, None)


def _known(values: NDArray) -> pl.Series:
    """Numbers; null for those that are not known, which are NaN."""
    return pl.Series(values.astype(np.float32)).fill_nan(None)

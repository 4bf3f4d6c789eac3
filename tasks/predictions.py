"""Predictions as Parquet: what stands in which column of a classification's output."""

import numpy as np
import polars as pl
import pyarrow as pa

from raee.classify import Predictions
from raee.reading import Database


def predictions_table(ids: pl.Series, database: Database, found: Predictions) -> pa.Table:
    """A shard's predictions, in the order of its rows; null where a row was left unlabelled."""
    exits, names = database.entries.exits, database.entries.labels
    answered = found.labels >= 0
    flags = zip(found.cut, found.far, strict=True)
    return pa.table(
        {
            "id": ids.to_arrow().cast(pa.string()),
            "label": pa.array(found.labels, pa.int32(), mask=~answered),
            "label_name": pa.array(
                [names[i] if i >= 0 else None for i in found.labels], pa.string()
            ),
            "confidence": pa.array(found.confidences, pa.float32(), mask=~answered),
            "reader": pa.array(
                [exits[i].reader if i >= 0 else None for i in found.exits], pa.string()
            ),
            "depth": pa.array(
                [exits[i].depth if i >= 0 else None for i in found.exits], pa.int16()
            ),
            "nearest_distance": pa.array(found.nearest, pa.float32(), mask=np.isnan(found.nearest)),
            "usual": pa.array(found.usual, pa.float32(), mask=np.isnan(found.usual)),
            "flags": pa.array(
                [["cut"] * bool(cut) + ["far"] * bool(far) for cut, far in flags],
                pa.list_(pa.string()),
            ),
        }
    )

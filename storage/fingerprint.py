"""A corpus's content in one name, whatever files and batches it comes in."""

import hashlib

import polars as pl


class Fingerprint:
    """SHA-256 of rows, in order."""

    def __init__(self) -> None:
        self._columns = [(hashlib.sha256(), hashlib.sha256()) for _ in range(3)]

    def add(self, frame: pl.DataFrame, labels: pl.Series) -> None:
        """Add rows: their ids and texts, and their labels' names, (rows,)."""
        columns = [frame["id"].replace("", None), frame["text"], labels]
        for (lengths, values), column in zip(self._columns, columns, strict=True):
            # Lengths and bytes go in separately: two different columns never have both alike.  A
            # missing value has the length -1.
            length = column.str.len_bytes().cast(pl.Int64).fill_null(-1).to_numpy()
            lengths.update(length.tobytes())
            values.update(column.drop_nulls().str.join("").cast(pl.Binary).item())

    def hex(self) -> str:
        """The fingerprint of all rows so far, in hex."""
        digests = [digest.digest() for pair in self._columns for digest in pair]
        return hashlib.sha256(b"".join(digests)).hexdigest()

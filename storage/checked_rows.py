"""Which rows of a corpus are usable, and why the others are not."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from raee.errors import InputError, cut, listed
from storage.corpus import CorpusSpec
from storage.corpus_files import CorpusFile
from storage.rows import Batch
from storage.values import BLANK_ID, BLANK_LABEL

_WHOLE = re.compile(r"(-?\d+)\.0+")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")


@dataclass(frozen=True)
class Checked:
    """A batch's rows."""

    usable: pl.DataFrame
    """Columns id, source_file, row (from 1), text, label; the label is null if none is read."""
    rejects: pl.DataFrame
    """Columns id, source_file, row (from 1), reason."""
    labels: pl.Series
    """All rows' labels, by the names that they have in the corpus."""


def by_reason(rejects: pl.DataFrame) -> dict[str, int]:
    """How many rows were rejected for each reason."""
    return dict(rejects["reason"].value_counts().iter_rows())


def check_batch(
    batch: Batch,
    file: CorpusFile,
    spec: CorpusSpec,
    labelled: bool,
    declared: Sequence[str] | None,
) -> Checked:
    """Tell a batch's usable rows from the others.

    declared: the labels that the prompt names, in order.  Raises InputError if a row's label is
    none of them.
    """
    rows = pl.int_range(batch.before + 1, batch.before + 1 + pl.len(), dtype=pl.Int64)
    frame = batch.frame.with_columns(row=rows, source_file=pl.lit(file.uri))
    if spec.id is None:
        frame = frame.with_columns(id=pl.format("{}:{}", pl.lit(file.name), "row"))
    own = _renamed(frame["label"], label_name)
    names = own if declared is None else _renamed(own, lambda name: declared_name(name, declared))
    text = pl.col("text")
    faults = [
        pl.col("fault"),
        pl.when(pl.col("id").fill_null("") == "").then(pl.lit(BLANK_ID)),
        pl.when(text.is_null()).then(pl.lit("text is null")),
        pl.when(text == "").then(pl.lit("text is empty")),
        pl.when(text.str.strip_chars() == "").then(pl.lit("text is blank")),
    ]
    if labelled:
        faults.append(pl.when(pl.col("label").is_null()).then(pl.lit(BLANK_LABEL)))
    frame = frame.with_columns(label=names).with_columns(fault=pl.coalesce(faults))
    bad = frame["fault"].is_not_null()
    usable, rejects = frame, frame.clear()
    if bad.any():
        usable, rejects = frame.filter(~bad), frame.filter(bad)
    if labelled and declared is not None:
        _check_declared(usable, file, declared)
    return Checked(
        usable.select("id", "source_file", "row", "text", "label"),
        rejects.select(
            pl.when(pl.col("id") != "").then("id").alias("id"),
            "source_file",
            "row",
            pl.col("fault").alias("reason"),
        ),
        own,
    )


def label_name(value: str) -> str | None:
    """A label's name in a corpus: 1.0 is 1, however it is written; None if it is blank."""
    name = value.strip()
    whole = _WHOLE.fullmatch(name)
    return (whole[1] if whole else name) or None


def declared_name(name: str, declared: Sequence[str]) -> str:
    """The prompt's name of a label; a whole number is an index into them if no name is a number."""
    if name in declared:
        return name
    if f"{name}.0" in declared:
        return f"{name}.0"
    if any(_NUMBER.fullmatch(label) for label in declared) or not name.isdecimal():
        return name
    return declared[int(name)] if len(name) < 10 and int(name) < len(declared) else name


def _renamed(labels: pl.Series, name: Callable[[str], str | None]) -> pl.Series:
    unique = labels.drop_nulls().unique()
    new = pl.Series([name(value) for value in unique.to_list()], dtype=pl.String)
    return labels.replace_strict(unique, new, default=None, return_dtype=pl.String)


def _check_declared(usable: pl.DataFrame, file: CorpusFile, declared: Sequence[str]) -> None:
    unknown = set(usable["label"].unique().to_list()) - set(declared)
    if not unknown:
        return
    row, name = usable.filter(pl.col("label").is_in(list(unknown))).select("row", "label").row(0)
    raise InputError(
        f"{file.uri} row {row}: label {cut(repr(name))} is not in the prompt; "
        f"its labels are {listed(declared)}"
    )

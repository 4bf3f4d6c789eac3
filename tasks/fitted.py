"""Fitted readers as the files that a version keeps, and back into memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from raee.exits import Exit
from raee.readers.fit import StateName
from raee.readers.fitting import Fits, Fitted
from raee.readers.sums import Sums, sums_from
from raee.readers.table import reader
from raee.readers.words import READER as READER_OF_WORDS
from raee.statistics.far import Far, far_from
from storage.checked import FileRecord
from storage.manifest import FAR, PROBES, WORDS
from storage.store import Folder
from storage.version_files import VersionFiles


def write_fits(folder: Folder, fits: Fits, sums: Mapping[StateName, Sums]) -> list[FileRecord]:
    """Write a version's fitted readers, and the sums of each state that they could have read.

    The sums of all states are kept because a later rebuild chooses the state anew.  N-grams are a
    file of their own.
    """
    tensors: dict[str, dict[str, NDArray[Any]]] = {PROBES: {}, WORDS: {}}
    for name, parameters in fits.parameters.items():
        own = WORDS if name == READER_OF_WORDS.name else PROBES
        tensors[own] |= reader(name).arrays(parameters)
    for state, found in sums.items():
        of_state = {f"sums_{state}_{name}": value for name, value in found.tensors().items()}
        tensors[PROBES] |= of_state
    return [write_arrays(folder, name, arrays) for name, arrays in tensors.items()]


def write_arrays(folder: Folder, name: str, arrays: dict[str, NDArray[Any]]) -> FileRecord:
    """Write named arrays, to be read with `safetensors`; returns the file's record."""
    # safetensors writes an array's memory as it lies, whatever the order of its elements.
    data = safetensors.numpy.save({n: np.ascontiguousarray(a) for n, a in arrays.items()})
    with folder.create(name) as file:
        file.write(data)
    return file.record()


def read_far(files: VersionFiles) -> Far:
    """The statistics by which a version finds rows that are unlike its own.

    Raises KeyError if the version has none.
    """
    return far_from(safetensors.numpy.load(files.read(FAR)))


def read_fits(files: VersionFiles, exits: Sequence[Exit], record: Mapping[str, Any]) -> Fits:
    """A version's fitted readers.  exits: the version's; record: the manifest's record of the fit.

    Raises KeyError if the version has no fitted readers.
    """
    tensors = safetensors.numpy.load(files.read(PROBES))
    if WORDS in files:
        tensors |= safetensors.numpy.load(files.read(WORDS))
    fitted = {e.reader: e.of for e in exits if e.of.source == "fit"}
    parameters = {name: of.from_arrays(tensors) for name, of in fitted.items()}
    return Fits(record["state"], parameters)


def read_sums(files: VersionFiles, state: StateName) -> Sums:
    """The sums that a version keeps of a state.  Raises KeyError if it has no fitted readers."""
    tensors = safetensors.numpy.load(files.read(PROBES))
    prefix = f"sums_{state}_"
    return sums_from(
        {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
    )


def fit_record(fitted: Fitted, sums: Sums, sampled: int) -> dict[str, Any]:
    """The manifest's record of a fit: all that it takes to do it again from the sums.

    sampled: how many rows carry the figures without the text.
    """
    return {
        "state": fitted.fits.state,
        "rows": int(sums.rows.sum()),
        "sampled_rows": sampled,
        **fitted.record,
    }

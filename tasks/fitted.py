"""Probes as files: what a version keeps of them, and back into memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from raee.far import Far, far_from
from raee.probes import Fitted, Linear, Probes, StateName
from raee.sums import Array, Sums, sums_from
from storage.checked import FileRecord
from storage.store import Folder
from storage.versions import FAR, PROBES


def write_probes(folder: Folder, fitted: Fitted, sums: Mapping[StateName, Sums]) -> FileRecord:
    """Write a version's probes, with the sums of each state that they could have been fitted on.

    A later rebuild chooses the state anew.
    """
    probes = fitted.probes
    tensors = {
        "weights": np.stack([m.weights for m in probes.maps]),
        "biases": np.stack([m.biases for m in probes.maps]),
        "temperatures": np.array([m.temperature for m in probes.maps]),
        "average_temperatures": probes.average_temperatures,
        "means": probes.means,
        "regression_weights": probes.regression.weights,
        "regression_biases": probes.regression.biases,
        "regression_temperature": np.array([probes.regression.temperature]),
        **{
            f"sums_{state}_{name}": value
            for state, found in sums.items()
            for name, value in found.tensors().items()
        },
    }
    return write_arrays(folder, PROBES, tensors)


def write_arrays(folder: Folder, name: str, arrays: dict[str, Array]) -> FileRecord:
    """Write named arrays; read them with `safetensors`."""
    # safetensors writes the memory of an array, in whatever order its elements lie there.
    data = safetensors.numpy.save({n: np.ascontiguousarray(a) for n, a in arrays.items()})
    with folder.create(name) as file:
        file.write(data)
    return file.record()


def read_far(folder: Folder) -> Far:
    """What a version says of rows that are unlike its own."""
    return far_from(safetensors.numpy.load(folder.read(FAR)))


def read_probes(folder: Folder, said: dict[str, Any]) -> Probes:
    """A version's probes.  said: the manifest's account of them."""
    tensors = safetensors.numpy.load(folder.read(PROBES))
    maps = zip(tensors["weights"], tensors["biases"], tensors["temperatures"], strict=True)
    return Probes(
        state=said["state"],
        fit=said["fit"],
        maps=tuple(Linear(weights, biases, float(t)) for weights, biases, t in maps),
        average_temperatures=tensors["average_temperatures"],
        means=tensors["means"],
        regression=Linear(
            tensors["regression_weights"],
            tensors["regression_biases"],
            float(tensors["regression_temperature"][0]),
        ),
    )


def read_sums(folder: Folder, state: StateName) -> Sums:
    """The sums of a state that a version keeps."""
    tensors = safetensors.numpy.load(folder.read(PROBES))
    prefix = f"sums_{state}_"
    return sums_from(
        {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
    )


def account(fitted: Fitted, sums: Sums, sampled: int, seed: int) -> dict[str, Any]:
    """What the manifest says of a fit: all that it takes to do it again from the sums.

    sampled: rows that carry the figures without the text; seed: of the regression's folds.
    """
    probes = fitted.probes
    return {
        "fit": probes.fit,
        "state": probes.state,
        "rows": int(sums.rows.sum()),
        "sampled_rows": sampled,
        "shrinkages": list(fitted.shrinkages),
        "temperatures": [m.temperature for m in probes.maps],
        "average_temperatures": probes.average_temperatures.tolist(),
        "accuracy_without_the_row": fitted.accuracy,
        "regression_penalty": fitted.penalty,
        "regression_seed": seed,
    }

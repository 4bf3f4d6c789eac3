"""An exact index searched on a GPU, as a product of matrices.

FAISS compares on the CPU, which takes longer than the layers do on a GPU.
"""

from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray

from raee.neighbours.index import Index, Nearest

_MOST_BYTES = 4 * 2**30
"""Bytes of keys that may be copied to a GPU; larger ones stay, since the memory is the model's."""

_DISTANCES = 2**27
"""Distances worked out in one step, a float32 each."""


def search_on(device: torch.device, index: Index) -> Index:
    """An index of the same keys that is searched on a GPU; the given one stays as it is.

    It is the given one if the device is the CPU, or if the index is not exact or too large.
    """
    size = 4 * index.width * len(index)
    if device.type == "cuda" and index.exact and 0 < size <= _MOST_BYTES:
        index = copy(index)
        index.nearest = nearest_on(device, index)
    return index


def nearest_on(device: torch.device, index: Index) -> Nearest:
    """A search among the keys that an index has now: they are copied to a device."""
    keys = torch.as_tensor(index.keys(0, len(index)), device=device)
    norms = keys.square().sum(dim=1)
    step = max(1, _DISTANCES // max(1, len(index)))

    @torch.inference_mode()
    def nearest(
        queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
        asked = torch.as_tensor(queries, device=device)
        steps = [
            _nearest(keys, norms, asked[start : start + step], k)
            for start in range(0, len(asked), step)
        ]
        nearly, rows, distances = (torch.cat(of).cpu().numpy() for of in zip(*steps, strict=True))
        return nearly, rows, distances

    return nearest


def _nearest(
    keys: torch.Tensor, norms: torch.Tensor, queries: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    # |q - x|^2 expanded, as FAISS does it: it finds rows, but does not say how far they are.
    expanded = torch.addmm(norms, queries, keys.T, alpha=-2)
    nearly, rows = expanded.topk(k, dim=1, largest=False)
    nearly += queries.square().sum(dim=1, keepdim=True)
    apart = queries[:, None].double() - keys[rows].double()
    return nearly, rows, apart.square().sum(dim=2)

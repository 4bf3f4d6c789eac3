"""How large a job's shards are, and which index it has, on this machine."""

import math

import torch

from raee.model.backbones import Outline
from raee.model.loading import device_of
from raee.neighbours.choice import choose_index
from storage.scan import Scan
from tasks.job import Job

SHARD_SECONDS = 30.0
"""Time of a shard by `shard_rows: auto`: long against a task's overhead, short against a crash."""

_REUSED = 0.1
"""Share of a new row's cost that a row costs whose readings a parent has, to be on the safe side:
the new rows may all be together."""

_FLOPS = {"cpu": 1e11, "cuda": 3e13, "mps": 1e12}
"""Operations a second that one core, or one GPU, is assumed to do; the order of size is enough."""

_CHARACTERS_PER_TOKEN = 4


def index_spec_of(job: Job, rows: int, width: int) -> str:
    """The FAISS factory string of an index: the job's own, or the one that `auto` is for its size.

    Raises InputError if there is no such index, or it cannot hold such keys.
    """
    return choose_index(rows, width) if job.index == "auto" else job.index


def shard_rows_of(job: Job, backbone: Outline, found: Scan, new: float = 1.0) -> int:
    """Rows of a shard: as the job says, or as `auto` is for the device that the job names.

    new: the share of rows that are read and not reused.  If the job names no device, this machine's
    counts, though workers may read elsewhere: chunks of shards go by the time that was measured.
    """
    if job.shard_rows == "auto":
        named = job.backbone.device
        device = device_of(job.backbone).type if named == "auto" else torch.device(named).type
        return auto_shard_rows(backbone, device, found.mean_characters, new)
    return job.shard_rows


def auto_shard_rows(backbone: Outline, device: str, mean_characters: float, new: float) -> int:
    """Rows that take about SHARD_SECONDS on this machine, in hundreds; never over 50,000.

    device: the type of the one that reads.
    """
    cores = torch.get_num_threads() if device == "cpu" else 1
    tokens = min(backbone.max_tokens, mean_characters / _CHARACTERS_PER_TOKEN + 2)
    row_flops = 2 * backbone.layer_parameters * tokens * (new + (1 - new) * _REUSED)
    rows = SHARD_SECONDS * _FLOPS[device] * cores / row_flops
    return min(50_000, max(1, math.ceil(rows / 100)) * 100)

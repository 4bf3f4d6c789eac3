"""Pruning of databases that are too small to show that little is lost."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from raee.config import RiskSpec


@contextmanager
def allowing(loss: float) -> Iterator[None]:
    """While this lasts, `raee prune` in this process may lose so much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.maintenance.prune.ALLOWED", RiskSpec(max_loss=loss))
        yield

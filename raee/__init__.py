"""Retrieval-augmented early exit: the method, without an orchestrator and without a store.

From labelled texts a frozen model's answer at every exit is recorded (`sweep`); for a new text
its nearest neighbours in that record say at which layer to leave the model (`policies`,
`classify`).  The method is RAEE (arXiv 2405.15198).
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raee.classifier import Classifier

__all__ = ["Classifier"]

__version__ = "0.1.0"

# Read by oneDNN when torch first multiplies on a CPU. It keeps its compiled kernels by the exact
# shape of a batch, 1,024 of them by default: with batches of every length that is half a gigabyte
# more the longer a process runs. A batch's layers share a few shapes, so a few kernels do.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")


def __getattr__(name: str) -> Any:
    """The front door, imported when it is asked for: who runs a command needs no scikit-learn."""
    if name != "Classifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from raee.classifier import Classifier

    return Classifier

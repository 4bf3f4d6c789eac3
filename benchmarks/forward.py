"""The sweep of a build, and the plain forward of the same batches.

Their ratio is what the hooks in the walk and the reading of every depth cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raee.config import KeySpec
from raee.model.backbones import Backbone
from raee.model.batches import Batches, encode
from raee.model.prompts import Prompt
from raee.readers.head import HeadReader
from raee.sweep import Labelled, sweep


@dataclass(frozen=True)
class Sweeping:
    """What is swept, and with which readers."""

    backbone: Backbone
    prompt: Prompt
    head: HeadReader
    key: KeySpec
    texts: Sequence[str]
    label: NDArray[np.uint16]
    """(rows,) the index of each label."""
    labels: int

    def sweep(self) -> None:
        """All that a build reads of its rows: every head, the key, and the sums for the probes."""
        everything = Labelled(self.label, self.labels, np.ones(len(self.texts), bool))
        sweep(self.backbone, self.prompt, self.head, self.key, None, self.texts, everything)

    @torch.inference_mode()
    def forward(self, model: Any = None) -> None:
        """Tokenise, and call a model on the sweep's batches; by default the sweep's own."""
        model = self.backbone.model if model is None else model
        for batch in Batches(self.backbone, encode(self.backbone, self.prompt, self.texts)):
            model(**batch.inputs)

"""What a reader is: what the rest of raee asks of one, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # for the fit's types alone: who reads a job needs neither scipy nor torch
    from raee.exits import Answers, Neighbours
    from raee.readers.fitting import Fitting

Array = NDArray[np.float64]
Due = NDArray[np.int64] | slice
"""Places among the present rows of those that are read."""

Source = Literal["sweep", "neighbours", "fit"]


@dataclass(frozen=True)
class Look:
    """How a reader is drawn: never by colour alone."""

    colour: str
    marker: str
    line: Literal["-", "--", "-.", ":", "none"]


@dataclass(frozen=True)
class Reading:
    """What an exit says of some rows."""

    distributions: NDArray[np.floating]
    """(rows, labels)."""
    confidences: NDArray[np.float32] | None = None
    """(rows,) how sure it is; None: the answer's probability."""


@dataclass(frozen=True)
class Fit:
    """A reader, fitted."""

    parameters: Any
    answers: Answers
    """On the rows that carry the figures, each without its text; (rows, its depths)."""
    account: dict[str, Any]
    """What the manifest says of the fit: with the sums, all that it takes to do it again."""


class Fitter(Protocol):
    """A fit under way, which is shown the states once, depth by depth."""

    def see(self, depth: int, states: NDArray[np.float32]) -> None:
        """Come to a depth.  states: (rows, width) of the rows that carry the figures."""

    def fit(self) -> Fit:
        """When all depths were seen."""


class Here(Protocol):
    """What a batch has at the depth that it has come to."""

    depth: int
    labels: int
    """How many there are."""
    label: NDArray[np.uint16]
    """(database rows,)."""

    def head(self, due: Due) -> NDArray[np.float32]:
        """(due, labels) what the model's own head says."""

    def neighbours(self, due: Due) -> Neighbours:
        """Those that vote, by the key at this depth."""

    def vectors(self, due: Due) -> NDArray[np.float32]:
        """(due, width) the state that readers are fitted on."""

    def parameters(self, name: str) -> Any:
        """A fitted reader's parameters."""

    def so_far(self, name: str, due: Due) -> Any:
        """(due, ..) what a reader has added up at the depths so far."""


class Reader:
    """A reader.  A subclass sets what differs, and its module has one instance as READER."""

    name: ClassVar[str]
    clause: ClassVar[str]
    """Who answers, for the report's sentences: "the model's own head"."""
    description: ClassVar[str]
    """What it is, for the report's list."""
    look: ClassVar[Look]
    source: ClassVar[Source] = "fit"
    """What its answers on the database's own rows come from."""
    is_the_models: ClassVar[bool] = False
    """Whether it is the model itself that answers, as without raee."""
    is_tempered: ClassVar[bool] = False
    """Whether its confidences get a temperature on the database's rows: they are not fitted."""
    learns_shares: ClassVar[bool] = True
    """Whether its distributions have learnt the database's label shares."""
    adds_up: ClassVar[bool] = False
    """Whether reading it at a depth takes what it has read at all depths before."""
    answers_as: ClassVar[str | None] = None
    """The reader whose answers it repeats, with confidences of its own: no answer is its own."""
    costs_as: ClassVar[str | None] = None
    """The reader whose measured seconds stand for its own."""

    def depths(self, deepest: int, key_depths: Sequence[int]) -> Sequence[int]:
        """Where it can be asked, of a model of `deepest` layers with keys at some depths."""
        return range(deepest + 1)

    def among(
        self, neighbours: Neighbours, label: NDArray[np.uint16], labels: int
    ) -> NDArray[np.floating]:
        """(queries, labels) distributions, of a reader that needs no more than neighbours.

        label: (database rows,); labels: how many there are.
        """
        raise NotImplementedError(f"{self.name} asks no neighbours")

    def fitter(self, fitting: Fitting) -> Fitter:
        """Begin a fit; of readers whose answers come from one."""
        raise NotImplementedError(f"{self.name} is not fitted")

    def arrays(self, parameters: Any) -> dict[str, Array]:
        """Its parameters as named arrays; a name is one reader's alone."""
        raise NotImplementedError(f"{self.name} is not fitted")

    def from_arrays(self, arrays: dict[str, Array]) -> Any:
        """The parameters out of arrays, among which there may be others."""
        raise NotImplementedError(f"{self.name} is not fitted")

    def pass_by(self, here: Here) -> Array:
        """(present rows, labels) what it adds up at a depth, of a reader that does."""
        raise NotImplementedError(f"{self.name} adds nothing up")

    def read(self, here: Here, due: Due) -> Reading:
        """What it says of some of the present rows."""
        raise NotImplementedError

"""What a reader is: what the rest of raee asks of one, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # for the fit's types alone: who reads a job needs neither scipy nor torch
    from raee.answers import Neighbours
    from raee.readers.fit import Fitter, Fitting
    from raee.readers.ngrams import TokenIds

Array = NDArray[np.float64]
Due = NDArray[np.int64] | slice
"""Positions, among the present rows, of the rows that are read."""

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
    """(rows,) how sure the exit is, from 0 to 1; None: the answer's probability."""


class BeforeWalk(Protocol):
    """What is known of rows before the model runs."""

    def token_ids(self, due: Due) -> TokenIds:
        """The rows' token ids, special ones included."""

    def parameters(self, name: str) -> Any:
        """A fitted reader's parameters."""


class Here(BeforeWalk, Protocol):
    """What a batch has at the depth that it has come to."""

    depth: int
    labels: int
    """How many labels there are."""
    label: NDArray[np.uint16]
    """(database rows,) the index of each row's label."""

    def head(self, due: Due) -> NDArray[np.float32]:
        """(due, labels) the distributions of the model's own head."""

    def neighbours(self, due: Due) -> Neighbours:
        """The neighbours that vote, (due, k), by the key at this depth."""

    def vectors(self, due: Due) -> NDArray[np.float32]:
        """(due, width) unit vectors: the state that readers are fitted on."""

    def wanted(self, name: str) -> Sequence[int]:
        """Depths at which a reader may be asked of this batch, ascending."""

    def so_far(self, name: str, due: Due) -> Mapping[str, Array]:
        """By name, (due, labels) all that a reader has kept at the depths up to this one."""


class Reader:
    """A reader.  A subclass sets what differs; its module has one instance of it as READER."""

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
    """Whether its confidences, which are not fitted, get a temperature on the database's rows."""
    learns_shares: ClassVar[bool] = True
    """Whether its distributions have learnt the database's label shares."""
    adds_up: ClassVar[bool] = False
    """Whether reading it at a depth needs what it has read at all depths before."""
    before_walk: ClassVar[bool] = False
    """Whether it needs no more than a row's token ids: rows that leave there are in no batch."""
    is_built: ClassVar[bool] = True
    """Whether new databases have it; if not, it is read in those that do."""
    successor: ClassVar[str | None] = None
    """The reader that new databases have in its place, if they do not have it."""
    answers_as: ClassVar[str | None] = None
    """The reader whose answers it repeats, with confidences of its own; None: it answers itself."""
    costs_as: ClassVar[tuple[str, ...]] = ()
    """Readers whose measured seconds are, together, taken for its own; none: its own are measured.
    """

    def depths(self, deepest: int, key_depths: Sequence[int]) -> Sequence[int]:
        """Depths at which it can be asked, of a model of `deepest` layers with keys at some."""
        return range(deepest + 1)

    def among(
        self, neighbours: Neighbours, label: NDArray[np.uint16], labels: int
    ) -> NDArray[np.floating]:
        """(queries, labels) distributions, if the reader needs no more than neighbours.

        label: (database rows,) the index of each row's label; labels: how many labels there are.
        """
        raise NotImplementedError(f"{self.name} asks no neighbours")

    def fitter(self, fitting: Fitting) -> Fitter:
        """Begin a fit, if the reader's answers come from one."""
        raise NotImplementedError(f"{self.name} is not fitted")

    def arrays(self, parameters: Any) -> dict[str, NDArray[Any]]:
        """Its parameters as named arrays; no other reader uses the same names."""
        raise NotImplementedError(f"{self.name} is not fitted")

    def from_arrays(self, arrays: dict[str, NDArray[Any]]) -> Any:
        """The parameters out of named arrays, which may hold other readers' too."""
        raise NotImplementedError(f"{self.name} is not fitted")

    def asks_once(self, parameters: Any) -> list[str]:
        """Readers that it asks once on a row's way, beside those that it `costs_as` a depth."""
        return []

    def pass_by(self, here: Here) -> dict[str, Array]:
        """By name, (present rows, labels) what it keeps of a depth, if it adds up."""
        raise NotImplementedError(f"{self.name} adds nothing up")

    def read_early(self, here: BeforeWalk, due: Due) -> Reading:
        """Read some rows before the walk, if the reader can."""
        raise NotImplementedError(f"{self.name} is not before the walk")

    def read(self, here: Here, due: Due) -> Reading:
        """Read some of the present rows at the depth that the batch has come to."""
        raise NotImplementedError

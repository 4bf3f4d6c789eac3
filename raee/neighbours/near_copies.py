"""Whether a labelled corpus holds near-copies: texts that differ by a word or two from another.

When such a row is read without its text, its near-copy is still in the database and all but gives
its label away: figures without the text are too good, and no promise can be certified on them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raee.answers import Neighbours
from raee.exits import Entries

_RANK = 12
"""Rank of the neighbour that a row's nearest is compared with: farther than the copies of a text,
near enough to say how crowded it is around the row.  A shorter list is read to its end."""

_FEWEST = 4
"""The fewest neighbours of a row that is judged: with fewer, its nearest is compared with too
little."""

_RATIO = 0.2
"""Ratio of the two squared distances below which the nearest is a near-copy.

It was found by simulation, as were the two constants below: draws of 100 to 3,000 rows of eight
public data sets, as they are and with near-copies of some rows, by keys of MiniLM-L6 at depths 0, 2
and 4.  It catches four in five of the copies with one word dropped, replaced or inserted if texts
have 20 words, half of them if texts have five.
"""

_SHARE = 0.04
"""Share of the rows from which near-copies are visible.

At most 2 % of the draws of any data set as it is reach it, if labels are compared.  From 350 rows
on, so do three in four and more of the draws with copies of 5 % of the rows, one word changed, and
all with 10 %: each copy makes two rows that give each other away.  By keys of the model's last
state, TREC as it is reaches it, too, from 1,000 rows on.
"""

_LEAST = 8
"""Number of rows from which near-copies are visible in small databases: four pairs."""


@dataclass(frozen=True)
class NearCopies:
    """How many of a database's rows are given away by a near-copy."""

    rows: int
    """Rows that were looked at."""
    near: int
    """Rows whose nearest other text is a near-copy."""
    telling: float
    """Near rows that are given away, as far as the nearest row tells their labels better than the
    12th nearest does; all of them if labels were not compared."""

    @property
    def share(self) -> float:
        """The share of the rows that is given away, from 0 to 1."""
        return self.telling / max(self.rows, 1)

    @property
    def visible(self) -> bool:
        """Whether more are given away than in a corpus without copies made from its own rows."""
        return self.telling >= _LEAST and self.share >= _SHARE


def near_copies(neighbours: Neighbours, label: NDArray[np.uint16] | None = None) -> NearCopies:
    """What the distances to other texts say about near-copies.

    neighbours: (rows, k) of all rows of a database, or of some if `own` says which, among the rows
    of other texts; 12 of them are looked at.  label: (database rows,).  If D of the N near rows
    have a nearest row, and F of them a 12th nearest, of another label than theirs, N (1 - D / F)
    are given away.  So minimal pairs do not count, since their labels differ as often as any
    neighbours' do: in CoLA they are a fifth of 3,000 rows, and figures without the text are no
    better for them.

    Near-copies of texts that have 11 more copies or near-copies are not seen: all the neighbours
    that are looked at are then equally near.
    """
    count, length = neighbours.rows.shape
    if length < _FEWEST:
        return NearCopies(count, 0, 0.0)
    known = (neighbours.rows >= 0).sum(axis=1)
    last = np.clip(known, 1, _RANK) - 1
    farther = neighbours.distances[np.arange(count), last]
    near = np.flatnonzero((known >= _FEWEST) & (neighbours.distances[:, 0] < _RATIO * farther))
    if label is None:
        return NearCopies(count, len(near), float(len(near)))
    own = near if neighbours.own is None else neighbours.own[near]
    differ = int((label[neighbours.rows[near, 0]] != label[own]).sum())
    farther_differ = int((label[neighbours.rows[near, last[near]]] != label[own]).sum())
    given_away = max(1 - differ / max(farther_differ, 1), 0.0)
    return NearCopies(count, len(near), len(near) * given_away)


def copies_record(entries: Entries, neighbours: Neighbours) -> dict[str, Any]:
    """Rows with equal and nearly equal texts, as a manifest has them.

    neighbours: of all rows, by the first key.  `barred` says why no promise can be certified on
    such rows; None if one can.
    """
    texts = entries.texts
    near = near_copies(neighbours, entries.label)
    barred = None
    if near.visible:
        barred = (
            f"{near.share:.0%} of the rows lie much nearer to another text than rows of a clean "
            "corpus do, as texts do that differ by a word or two: figures on the database's own "
            "rows are too good, and nothing can be promised on them; remove near-copies from the "
            "corpus"
        )
    return {
        "rows": len(entries),
        "texts": len(texts),
        "rows_with_an_equal": int(texts.repeated.sum()),
        "near_copies": round(near.share, 4),
        "near_copies_visible": near.visible,
        "barred": barred,
    }

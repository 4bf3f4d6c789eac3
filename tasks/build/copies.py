"""What a build says of copies among its rows."""

from typing import Any

from raee.exits import Entries, Neighbours
from raee.neighbours.near_copies import near_copies


def copies_account(entries: Entries, neighbours: Neighbours) -> dict[str, Any]:
    """Rows with equal and nearly equal texts, as a manifest has them.

    neighbours: of all rows, by the first key.  `barred` says why no promise can be certified on
    such rows; None where one can.
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

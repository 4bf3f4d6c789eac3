"""The labels of a corpus, before anything is built of them."""

import logging
from collections.abc import Iterable, Mapping

from raee.errors import listed

logger = logging.getLogger("raee")


def warn_of_single_rows(rows: Mapping[str, int]) -> None:
    """Log which labels have one row: figures are of rows without their text, so of none of these.

    rows: of each label.
    """
    single = sorted(label for label, count in rows.items() if count == 1)
    if single:
        logger.warning(
            "%s of %s labels have a single row: %s; without that row no vote and no probe can "
            "answer such a label, so what figures say of it is worth nothing; give it more rows",
            f"{len(single):,}",
            f"{len(rows):,}",
            listed(single),
        )


def in_order(names: Iterable[str]) -> list[str]:
    """Labels that no prompt puts in order: by name, and numbers by their value."""
    found = list(names)
    numbers = all(name.isdecimal() for name in found)
    return sorted(found, key=lambda name: (len(name) if numbers else 0, name))

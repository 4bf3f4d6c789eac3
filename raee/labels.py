"""What is said of a corpus' labels before anything is built of them."""

import logging
from collections.abc import Mapping

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

"""What log lines are about."""

import logging

from tasks.about import about


class _Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def test_lines_name_database_version_and_shard_and_only_within():
    logger, found = logging.getLogger("raee"), _Lines()
    logger.addHandler(found)
    logger.info("before")
    with about("films"):
        logger.info("read %d rows", 3)
        with about("films", "20261125-1", 4):
            logger.info("100 %% of %s", "it")
        logger.info("read")
    logger.info("after")
    logger.removeHandler(found)
    assert found.lines == [
        "before",
        "films: read 3 rows",
        "films@20261125-1 shard 4: 100 % of it",
        "films: read",
        "after",
    ]

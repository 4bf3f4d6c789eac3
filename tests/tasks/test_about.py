"""What log lines are about."""

import logging

from tasks.about import about


def test_lines_name_database_version_and_shard_and_only_within(caplog):
    logger = logging.getLogger("raee")
    logger.propagate = True
    with caplog.at_level(logging.INFO, logger="raee"):
        logger.info("before")
        with about("films"):
            logger.info("read %d rows", 3)
            with about("films", "20261125-1", 4):
                logger.info("100 %% of %s", "it")
            logger.info("read")
        logger.info("after")
    assert caplog.messages == [
        "before",
        "films: read 3 rows",
        "films@20261125-1 shard 4: 100 % of it",
        "films: read",
        "after",
    ]

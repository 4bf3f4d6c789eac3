"""A build of rows that are in memory, in this process: without a flow and without a server.

`raee.Classifier` publishes by it; no task uses it, it runs theirs.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from raee.config import in_words
from raee.errors import InputError, cut
from storage.checked_rows import label_name
from storage.scan import text_hash
from tasks.about import about
from tasks.build.gate import promote_if_as_good
from tasks.build.planning import forget_build, plan_build
from tasks.build.publish import publish_build
from tasks.build.table import BUILD_STEPS
from tasks.credentials import use_credentials
from tasks.job import Job


def publish_rows(settings: Mapping[str, Any], texts: Sequence[str], labels: Sequence[str]) -> str:
    """Build a version of labelled texts as the flow `rebuild-database` does; returns its id.

    settings: a job without its corpus.  The rows are the corpus: they lie in a file while this
    runs, which the version's manifest names though it is gone.  Its ids are made of texts: a row
    has the same in every version.  Raises InputError as the flow does, and if a corpus would change
    a label's name.
    """
    for name in set(labels):
        if label_name(name) != name:
            raise InputError(
                f"label {cut(repr(name))} would be {cut(repr(label_name(name)))} in a corpus; "
                "rename it"
            )
    with tempfile.TemporaryDirectory(prefix="raee-") as folder:
        corpus = Path(folder) / "rows.parquet"
        rows = {"id": _ids(texts), "text": texts, "label": labels}
        pl.DataFrame(rows, schema=dict.fromkeys(rows, pl.String)).write_parquet(corpus)
        try:
            job = Job.model_validate({**settings, "corpus": {"uri": str(corpus), "id": "id"}})
        except ValidationError as error:
            raise InputError(in_words(error)) from error
        return _build(job)


def _build(job: Job) -> str:
    use_credentials(job.credentials)
    with about(job.name):
        planned = plan_build.fn(job)
    if planned.unchanged:
        return planned.version
    with about(job.name, planned.version):
        if not planned.published:
            for step in BUILD_STEPS:
                for number in range(planned.shards) if step.per_shard else (None,):
                    step.run(planned.work, number)
            publish_build.fn(planned.work)
        promote_if_as_good.fn(job, job.database.version(planned.version))
        forget_build.fn(planned.work)
    return planned.version


def _ids(texts: Sequence[str]) -> list[str]:
    """(rows,) a name of each row: its text's hash, and how many rows before have the same."""
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        name = text_hash(text)
        ids.append(f"{name}-{seen[name]}")
        seen[name] += 1
    return ids

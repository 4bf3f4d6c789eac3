"""A build of rows that are in memory, in this process: without a flow and without a server."""

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
from tasks.build.collect import collect_readings
from tasks.build.fit import fit_database_probes
from tasks.build.gate import promote_if_as_good
from tasks.build.match import match_rows
from tasks.build.neighbours import build_index, write_part
from tasks.build.plan import forget_build, plan_build
from tasks.build.publish import evaluate_build, publish_build, tune_build
from tasks.build.sweep import check_swept, read_database_centre, sweep_shard
from tasks.credentials import use_credentials
from tasks.job import Job
from tasks.report.writing import write_report


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
        build = plan_build.fn(job)
    if build.unchanged:
        return build.version
    with about(job.name, build.version):
        if not build.published:
            read_database_centre.fn(build.work)
            for number in range(build.shards):
                sweep_shard.fn(build.work, number)
            check_swept.fn(build.work)
            collect_readings.fn(build.work)
            match_rows.fn(build.work)
            fit_database_probes.fn(build.work)
            build_index.fn(build.work)
            for number in range(build.shards):
                write_part.fn(build.work, number)
            for step in (tune_build, evaluate_build, write_report, publish_build):
                step.fn(build.work)
        promote_if_as_good.fn(job, build.version)
        forget_build.fn(build.work)
    return build.version


def _ids(texts: Sequence[str]) -> list[str]:
    """(rows,) a name of each row: its text's hash, and how many rows before have the same."""
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        name = text_hash(text)
        ids.append(f"{name}-{seen[name]}")
        seen[name] += 1
    return ids

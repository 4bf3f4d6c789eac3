"""raee, as `raee classify` runs a job."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.rows import Made, Task
from raee.classify import classify
from raee.policies.compared import runnable
from storage.checked_rows import declared_name
from tasks.classify.classification import BALANCE_ROWS
from tasks.classify.corpus_shift import label_shares, ratio_of
from tasks.job import load_job
from tasks.readings import load_database, load_readings, tuning_of


def raee(task: Task) -> Made:
    """The job's policy on the newest version of its database.

    Unless the job expects the database's label shares, those of the corpus are estimated first, on
    a sample as large as the command's.
    """
    job = load_job(task.job)
    version = job.database.open(None)
    manifest = version.manifest()
    database = load_database(version, job.backbone, job.key)
    runs = runnable(job.policy, tuning_of(manifest), version.where)
    lines = load_readings(version).written_lines(runs)
    ratio = None
    if job.balance != "database":
        texts = task.unlabelled
        rows = min(BALANCE_ROWS, len(texts))
        chosen = np.sort(np.random.default_rng(0).choice(len(texts), rows, replace=False))
        found = classify(database, runs, [texts[i] for i in chosen])
        predicted = np.bincount(found.labels, minlength=len(manifest.labels))
        ratio = ratio_of(
            label_shares(database.entries, database.index, runs, predicted), job.balance
        )
    number_of = {declared_name(str(n), manifest.labels): n for n in np.unique(task.train.labels)}
    numbers = np.array([number_of[name] for name in manifest.labels])

    def answers(texts: Sequence[str]) -> NDArray[np.int64]:
        found = classify(database, runs, texts, far=job.far, ratio=ratio, lines=lines)
        return numbers[found.labels]

    return Made(answers, {"policy": str(runs), "corrected": ratio is not None})

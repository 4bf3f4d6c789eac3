"""The steps of a build, in order: the only list of them; the flow and `publish_build` ask it."""

from typing import Any

from tasks.build.build import Build
from tasks.build.centre import read_database_centre
from tasks.build.collect import collect_readings
from tasks.build.fit import fit_database_probes
from tasks.build.match import match_rows
from tasks.build.neighbours import build_index, list_neighbours, write_part
from tasks.build.report import write_report
from tasks.build.sweep import check_swept, sweep_shard
from tasks.build.tune import evaluate_build, tune_build
from tasks.shard_steps import ShardStep
from tasks.steps import Step, in_order

BUILD_STEPS: tuple[Step[Build, Any] | ShardStep[Build, Any], ...] = in_order(
    [
        read_database_centre,
        sweep_shard,
        check_swept,
        collect_readings,
        match_rows,
        build_index,
        list_neighbours,
        fit_database_probes,
        write_part,
        tune_build,
        evaluate_build,
        write_report,
    ]
)
"""The flow runs them, the manifest has their seconds, and publishing copies their files."""

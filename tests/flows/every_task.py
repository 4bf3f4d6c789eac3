"""The Prefect tasks that the package declares."""

import importlib
import pkgutil

from prefect import Task

import tasks
from tasks.shard_steps import ShardStep
from tasks.steps import Step


def every_task() -> dict[str, Task]:
    """By the name that it has in its module, and in a step; a module may import another's."""
    found: dict[str, Task] = {}
    for module in pkgutil.walk_packages(tasks.__path__, "tasks."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Task):
                found[name] = value
            elif isinstance(value, Step):
                found[name] = value.task
            elif isinstance(value, ShardStep):
                found |= {f"{name}.walk": value.walk_task, f"{name}.write": value.write_task}
    return found

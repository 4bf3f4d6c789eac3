"""The machine that figures are measured on."""

import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.peers.table import THREADS
from raee.model.native import native_formats


def use_two_cores_alone() -> None:
    """Keep this process, and all that it starts, to two cores, on systems that can, and no GPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


def machine() -> dict[str, str]:
    """What figures depend on, and the day."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = models[0] if models else processor
    # A name such as "AMD EPYC" stands for processors with very different arithmetic.
    arithmetic = ", ".join([torch.backends.cpu.get_cpu_capability(), *native_formats()])
    return {
        "machine": f"{processor} ({arithmetic}), {os.cpu_count()} cores",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def versions(*packages: str) -> dict[str, str]:
    """Those of Python and of some packages."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, **{package: version(package) for package in packages}}


def machine_line(here: Mapping[str, str], of: Mapping[str, str]) -> str:
    """A line above a table: `machine()` and `versions()`."""
    listed = ", ".join(f"{package} {number}" for package, number in of.items())
    return f"{here['machine']}, {here['date']}; {listed}."

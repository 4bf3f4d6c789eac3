"""What all tests share: no network, one thread, the same examples in every run, shared data."""

import os
from pathlib import Path

import hypothesis
import pytest

# Before torch and transformers are imported.  A test never depends on what a hub answers; and
# threads that wait for each other on busy cores make a tiny model ten times slower than one does.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile("same-every-run", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same-every-run")

SHARED = Path(
    os.environ.get("RAEE_SHARED", Path(__file__).resolve().parents[2] / "shared")
).resolve()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data, prompts and models beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared folder at {SHARED}; RAEE_SHARED may name it")
    return SHARED

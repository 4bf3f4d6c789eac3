"""A hub that cannot be reached: one line at once, or what is on this disk."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from tests.ports import free_ports

_LOAD = """
import sys, time, torch, huggingface_hub
from raee.model.loading import load_backbone
from raee.config import BackboneSpec
from raee.errors import InputError

begun = time.monotonic()
try:
    spec = BackboneSpec(family="sentence-encoder", model="some/model")
    print("loaded", load_backbone(spec, torch.device("cpu")).depth)
except InputError as error:
    print(error)
assert time.monotonic() - begun < 5
assert not huggingface_hub.constants.HF_HUB_OFFLINE  # the next one asks again
"""


def _load(home, endpoint, **more):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", _LOAD],
        env=environment | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, **more},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def nobody() -> str:
    """The address of a hub that is not there."""
    return f"http://127.0.0.1:{free_ports(1)}"


def test_a_model_that_is_on_no_disk_is_one_line_at_once(tmp_path, nobody):
    done = _load(tmp_path, nobody)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith("backbone 'some/model' (revision 'main') cannot be loaded; give a local")
    assert f"connect to '{nobody}'" in line


def test_a_hub_that_never_answers_is_waited_for_once(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = _load(tmp_path, endpoint, HF_HUB_ETAG_TIMEOUT="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"connect to '{endpoint}'" in done.stdout


def test_a_model_that_was_loaded_before_needs_no_hub(folder_of, tmp_path, nobody):
    model = tmp_path / "hub" / "models--some--model"
    shutil.copytree(folder_of("bert-encoder"), model / "snapshots" / "0123abcd")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0123abcd")
    done = _load(tmp_path, nobody)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "loaded 4\n")

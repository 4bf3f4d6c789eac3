"""A broken setting of Prefect is one line that names the variable or the file."""

import os
import subprocess
import sys

import pytest

_READ = """
from raee.errors import InputError
from tasks.prefect_settings import read_settings, server_url
try:
    read_settings()
    print("server", server_url())
except InputError as error:
    print(error)
"""


def _read(folder, **more):
    """The message about the settings in a folder, which is also the home."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", _READ],
        env=environment
        | {"PREFECT_HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
        | more,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    return line


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("PREFECT_LOGGING_LEVEL", "nonsense", "Input should be 'DEBUG', 'INFO', "),
        ("PREFECT_API_REQUEST_TIMEOUT", "soon", "Input should be a valid number"),
        ("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "x", "Input should be 'warn', 'error' or"),
    ],
)
def test_a_variable_that_is_wrong_is_named(tmp_path, variable, value, why):
    line = _read(tmp_path, **{variable: value})
    assert line.startswith(f"Prefect's setting {variable} in the environment: {why}")


def test_a_variable_that_is_no_json_is_named(tmp_path):
    assert "(PREFECT_LOGGING)" in _read(tmp_path, PREFECT_LOGGING="{")


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("profiles.toml", "active = [", "profiles.toml: this is no TOML, and Prefect reads it: "),
        ("profiles.toml", "profiles = 3", "profiles.toml: a Prefect profile is a table of"),
        (
            "profiles.toml",
            'active = "mine"',
            "profiles.toml names the Prefect profile 'mine', which is not there; there are cloud, ",
        ),
        (
            "profiles.toml",
            'active = "mine"\n[profiles.mine]\nPREFECT_LOGGING_LEVEL = "nonsense"',
            "profiles.toml: Input should be 'DEBUG', 'INFO', ",
        ),
        ("prefect.toml", "x = [", "prefect.toml: this is no TOML, and Prefect reads it: "),
        (
            "prefect.toml",
            '[logging]\nlevel = "nonsense"',
            "PREFECT_LOGGING_LEVEL in one of .env, prefect.toml, pyproject.toml: Input should be ",
        ),
        ("pyproject.toml", "[tool", "pyproject.toml: this is no TOML, and Prefect reads it: "),
        (".env", "\udcff", ".env cannot be read, and Prefect reads it: 'utf-8' codec can't"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path, file, content, why):
    (tmp_path / file).write_text(content, "utf-8", errors="surrogateescape")
    assert why in _read(tmp_path)


def test_a_profile_that_is_not_there_is_named(tmp_path):
    line = _read(tmp_path, PREFECT_PROFILE="nothing")
    assert line.startswith("PREFECT_PROFILE names the Prefect profile 'nothing', which is not")


def test_what_is_empty_is_not_set(tmp_path):
    (tmp_path / "profiles.toml").write_text('[profiles.mine]\nPREFECT_API_URL = "http://it/api"')
    (tmp_path / ".env").mkdir()  # an environment, not variables
    assert _read(tmp_path, PREFECT_API_URL="", PREFECT_PROFILE=" ") == "server None"
    assert _read(tmp_path, PREFECT_API_URL=" ", PREFECT_PROFILE="mine") == "server http://it/api"

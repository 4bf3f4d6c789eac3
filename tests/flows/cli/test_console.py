"""Commands whose output goes to what cannot take it: no traceback, and a code that says enough."""

import json
import os
import subprocess
import sys

import pytest

from tests.flows.jobs import Workplace
from tests.texts import sentences

_LABELS = {"schön": "a good film", "悪い": "a bad film", "odd 😀": "an odd film"}
_COMMAND = [sys.executable, "-c", "from flows.cli.app import main; main()"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, model_of) -> Workplace:
    """A place with a version whose labels and texts no small encoding holds."""
    place = Workplace(tmp_path_factory.mktemp("letters"), model_of)
    rows = [
        row | {"label": list(_LABELS)[i % 3], "text": f"{row['text']} grün 悪い 😀"}
        for i, row in enumerate(sentences(40))
    ]
    place.write("train.csv", rows)
    place.build(prompt={"labels": _LABELS})
    return place


@pytest.fixture
def unread():
    """A pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def _commands(place):
    job, store = place.job(prompt={"labels": _LABELS}), ("--store", str(place.store))
    return {
        "explain": ("explain", job, "a warm film"),
        "evaluate": ("evaluate", job, "--input", str(place.root / "train.csv")),
        "tune": ("tune", job),
        "versions": ("versions", "demo", *store),
        "versions as JSON": ("versions", "demo", *store, "--json"),
        "show": ("show", "demo", *store),
        "verify": ("verify", "demo", *store),
        "help": ("versions", "--help"),
    }


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}], ids=str)
@pytest.mark.parametrize("name", ["explain", "evaluate", "show"])
def test_a_letter_that_the_outputs_encoding_lacks_is_written_as_its_number(
    place, name, environment
):
    """With LC_ALL=C alone Python writes UTF-8; without that, the locale's own ASCII."""
    no_utf8 = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [*_COMMAND, *_commands(place)[name]]
    ran = subprocess.run(
        command, capture_output=True, env=os.environ | no_utf8 | environment, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert b"Traceback" not in ran.stderr
    assert name == "evaluate" or r"\U0001f600" in ran.stdout.decode("ascii")


def test_an_error_is_said_in_whatever_encoding_there_is(place):
    job = place.job(prompt={"labels": _LABELS}, corpus={"uri": "/nowhere/悪い.csv"})
    ran = subprocess.run(
        [*_COMMAND, "evaluate", job, "--input", "/nowhere/悪い.csv"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict"},
        timeout=60,
    )
    assert ran.returncode == 2
    assert rb"raee: corpus /nowhere/\u60aa\u3044.csv: there is no such file" in ran.stderr
    assert b"Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "name", ["explain", "tune", "versions", "versions as JSON", "verify", "help"]
)
def test_a_reader_that_has_left_ends_a_command_without_a_word(place, unread, name):
    """As a shell says it of any program in front of `| head`."""
    command = [*_COMMAND, *_commands(place)[name]]
    ran = subprocess.run(command, stdout=unread, stderr=subprocess.PIPE, text=True, timeout=60)
    assert ran.returncode == 141
    said = [line for line in ran.stderr.splitlines() if line[2:3] + line[5:6] != "::"]
    assert said == []


@pytest.mark.parametrize("arguments", [("versions", "nothing", "--store", "/nowhere"), ("no",)])
def test_a_mistake_has_its_code_though_nobody_reads_what_it_is(unread, arguments):
    ran = subprocess.run([*_COMMAND, *arguments], stdout=unread, stderr=unread, timeout=60)
    assert ran.returncode == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("name", ["explain", "versions", "verify"])
def test_what_the_caller_closed_is_not_written_to(place, name, closed):
    line = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *_COMMAND, *_commands(place)[name]]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert bool(ran.stdout) == (closed == "2>&-")


def test_a_full_disk_behind_the_output_is_one_line(place):
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [*_COMMAND, *_commands(place)["versions"]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (ran.returncode, ran.stderr) == (1, "raee: No space left on device\n")


def test_figures_reach_their_file_though_nobody_reads_the_table(place, unread, tmp_path):
    file = tmp_path / "tuning.json"
    command = [*_COMMAND, *_commands(place)["tune"], "--json", str(file)]
    ran = subprocess.run(command, stdout=unread, stderr=subprocess.DEVNULL, timeout=60)
    assert ran.returncode == 141
    assert json.loads(file.read_text())["rows"] == 40

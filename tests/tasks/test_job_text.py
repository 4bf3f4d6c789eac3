"""A commented job file explains every key as the job does, and hides nothing in comments."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.corpus import CorpusSpec
from tasks.job import Job, load_job
from tasks.job_text import check_can_be_written, job_text
from tests.raee.errors import refused

_VALUES = {
    "name": "demo",
    "store": "./store",
    "corpus": {"uri": "a.csv", "text": "text", "label": "label"},
    "backbone": {"family": "sentence-encoder", "model": "m"},
}


def _loaded(folder, text):
    (folder / "job.yaml").write_text(text, "utf-8")
    return load_job(str(folder / "job.yaml"))


def _with_defaults(text):
    """A job file without the # before keys of the job and of its corpus and backbone."""
    keys = "|".join([*Job.model_fields, *CorpusSpec.model_fields, "revision", "dtype"])
    return re.sub(rf"^( *)# (?=({keys}): )", r"\1", text, flags=re.M)


def test_every_key_has_a_line_and_a_comment():
    text = job_text(_VALUES, [])
    lines = text.splitlines()
    for key, field in Job.model_fields.items():
        (number,) = [i for i, line in enumerate(lines) if re.match(rf"(# )?{key}:( |$)", line)]
        assert lines[number - 1].startswith("# "), key
        assert field.description is None or field.description.split()[0] in text
    assert max(map(len, lines)) <= 100


def test_a_comment_is_the_default(tmp_path):
    text = job_text(_VALUES, [])
    uncommented = _with_defaults(text)
    assert "\nsample_rows: 20000\n" in uncommented
    assert "\n  encoding: utf-8\n" in uncommented
    assert _loaded(tmp_path, uncommented) == _loaded(tmp_path, text)


@given(labels=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True))
def test_labels_are_a_prompt_without_the_marks(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("labels")
    text = job_text(_VALUES, labels)
    assert _loaded(folder, text).prompt is None
    if any("\0" in label or "${" in label for label in labels) or not labels:
        return
    begin = text.index("# prompt:")
    prompt, rest = text[begin:].split("\n\n", 1)
    uncommented = text[:begin] + re.sub("^# ", "", prompt, flags=re.M) + "\n\n" + rest
    if "# prompt: null" not in text:
        assert list(_loaded(folder, uncommented).prompt.labels) == labels


def test_too_many_labels_are_left_out():
    assert "# prompt: null\n" in job_text(_VALUES, [str(i) for i in range(51)])


@pytest.mark.parametrize("value", ["${HOME}", "a${B}c", "\0"])
def test_what_a_job_file_cannot_hold_is_refused(value):
    with refused("--text .*: a job file cannot hold a null byte, and takes"):
        check_can_be_written("--text", value)

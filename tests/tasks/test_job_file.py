"""What YAML would settle silently in a job file is one line that names the file and its line."""

import pytest

from tasks.job_file import read_job_file
from tests.raee.errors import refused

_UNQUOTED = {
    "a boolean": ["yes", "No", "on", "OFF", "true", "False"],
    "nothing": ["null", "~"],
    "a number": ["1", "1.0", "0x10", "012", "0b1", "1_000", "12:30:00", ".inf", ".nan"],
    "a date": ["2024-01-01", "2024-01-01 10:00:00"],
}
"""Words by what YAML takes them for."""


@pytest.fixture
def read(tmp_path):
    """Reads a job file of some content."""

    def read(content):
        path = tmp_path / "job.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_job_file(str(path))

    return read


class TestAKeyThatStandsTwice:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("name: a\nstore: s\nname: b", "line 3: key name stands twice, first in line 1"),
            ("a:\n  b: 1\n  c: 2\n  'b': 3", "line 4: key a.b stands twice, first in line 2"),
            ("a: {b: {c: 1, d: 2, c: 3}}", "line 1: key a.b.c stands twice, first in line 1"),
            ("a:\n- b: 1\n  b: 2", "line 3: key a.0.b stands twice, first in line 2"),
            ("a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x", "key c.<< stands twice, first in line 3"),
        ],
    )
    def test_is_refused_with_both_lines(self, read, content, message):
        with refused(f"job.yaml {message}$" if message.startswith("line") else message):
            read(content)

    def test_is_told_with_all_others_and_with_words_without_quotes(self, read):
        with refused(
            "job.yaml line 2: key a.b stands twice, first in line 2; line 3: key a stands twice, "
            'first in line 2; line 4: the key on is a boolean to YAML; put it in quotes: "on"$'
        ):
            read("name: x\na: {b: 1, b: 2}\na: 3\non: 4")

    def test_is_none_if_one_of_both_is_merged(self, read):
        found = read("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\ne: {b: 4, <<: [*x]}").values
        assert found["d"] == {"b": 3, "c": 2}
        assert found["e"] == {"b": 4, "c": 2}


@pytest.mark.parametrize(
    ("kind", "word"), [(k, word) for k, words in _UNQUOTED.items() for word in words]
)
class TestAWordThatYamlTakesForNoText:
    def test_is_no_key(self, read, kind, word):
        advice = f'the key {word} is {kind} to YAML; put it in quotes: "{word}"'
        with refused(f"job.yaml line 3: prompt.labels: {advice}$"):
            read(f"prompt:\n  labels:\n    {word}: it broke\n    other: x")
        with refused(f"job.yaml line 2: prompt.labels.1: {advice}$"):
            read(f"prompt: {{labels: [a: x,\n  {word}: it broke]}}")
        with refused(f"job.yaml line 1: {advice}$"):
            read(f"{word}: x")

    @pytest.mark.parametrize("quote", ['"', "'"])
    def test_is_a_key_in_quotes(self, read, kind, word, quote):
        assert read(f"labels: {{{quote}{word}{quote}: x}}").values == {"labels": {word: "x"}}

    def test_is_told_as_a_value(self, read, kind, word):
        assert read(f"a: {{b: x, c: [d, {word}]}}").unquoted == {"a.c.1": (word, kind)}


@pytest.mark.parametrize("word", ["y", "N", "0o12", "1e3", "=", "-", "it's", "012a", "!!str yes"])
def test_any_other_word_is_a_key_as_it_is_written(read, word):
    assert read(f"{word}: x").values == {word.removeprefix("!!str "): "x"}


class TestAFile:
    def test_that_is_not_there(self, tmp_path):
        with refused(r"nothing.yaml: there is no such job file$"):
            read_job_file(str(tmp_path / "nothing.yaml"))

    def test_that_is_a_folder(self, tmp_path):
        with refused(f"^{tmp_path} cannot be read: Is a directory$"):
            read_job_file(str(tmp_path))

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_is_read_in_every_encoding_that_says_its_name(self, read, encoding):
        assert read("name: gr\u00fcn \U0001f600".encode(encoding)).values == {
            "name": "gr\u00fcn \U0001f600"
        }

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            ("name: [", "job.yaml line 1: this is no YAML: "),
            ("name: x\n\tstore: y", r"line 2: this is no YAML: .*\\t.*; indent with spaces$"),
            ("name: x\ncorpus:\n\turi: y", r"line 3: this is no YAML: .*; indent with spaces$"),
            ("name: x\nstore: 'y", "job.yaml line 2: this is no YAML: "),
            ("name: !!python/name:os.system", "job.yaml line 1: this is no YAML: "),
            ("name: *x", "job.yaml line 1: this is no YAML: found undefined alias 'x'$"),
            ("a: x\nname: \a", "job.yaml line 2: this is no YAML: character U[+]0007 may not"),
            ("name: \0", "job.yaml: there are null bytes in it; save the file as UTF-8$"),
            ("name: x".encode("utf-16-le"), "job.yaml: there are null bytes in it; save the file"),
            (b"a: x\nname: \xff", "job.yaml line 2: this is no UTF-8; save the file as UTF-8$"),
            ('a: {b: "x\\0"}', "job.yaml line 1: a.b: there is a null byte in it$"),
            ("a: x\n---\nb: y", "job.yaml line 3: a second document begins; a job file has one$"),
            ("a: &x [b, *x]", "job.yaml line 1: a.1: this stands within itself$"),
            ("a: &x {b: *x}", "job.yaml line 1: a.b: this stands within itself$"),
            (
                "a:\n  ? [b, c]\n  : d",
                "job.yaml line 2: a: a key is a name, and no list or mapping",
            ),
            ("a:\n  ?\n  : d", "job.yaml line 2: a: a key has no name$"),
            (f"a: {'[' * 5_000}", "job.yaml: lists or mappings are nested too deep$"),
            (
                "a: 2026-13-45",
                "job.yaml line 1: a: 2026-13-45 cannot be a date; put text in quotes$",
            ),
            ("a: !!bool x", "job.yaml line 1: a: x cannot be a boolean; put text in quotes$"),
            ("a: !!timestamp x", "job.yaml line 1: a: x cannot be a date; put text in quotes$"),
            (f"a: {'9' * 5_000}", r"job.yaml line 1: a: 9{80}\.\. cannot be a number; put text in"),
            (f"a: {2**63}", f"job.yaml line 1: a: {2**63} is too large a number$"),
        ],
    )
    def test_that_says_nothing_clear(self, read, content, match):
        with refused(match):
            read(content)

    @pytest.mark.parametrize(
        "content", ["", "# nothing", "- a\n- b", "just words", "5", "---\n", "!!set {a}"]
    )
    def test_that_is_no_mapping(self, read, content):
        with refused("job.yaml: a job file is a mapping of keys such as name, store, corpus$"):
            read(content)

    def test_whose_anchors_would_grow_without_end_takes_no_time(self, read):
        lines = ["a: &a {x: x}"] + [
            f"{name}: &{name} {{{', '.join(f'k{i}: *{before}' for i in range(9))}}}"
            for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
        ]
        assert set(read("\n".join(lines)).values) == set("abcdefghijkl")

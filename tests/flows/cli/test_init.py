"""`raee init`: from a file that nobody has described to a job that builds."""

import os
import pty
import shlex
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.scan import scan
from tasks.job import load_job
from tasks.job_file import VARIABLE
from tests.flows.jobs import predictions_of, raee
from tests.rights import open_to_all, somebody_else
from tests.storage.corpora import write_corpus
from tests.texts import sentences

_COMMAND = [sys.executable, "-c", "from flows.cli.app import main; main()", "init"]

_LABELS = ("billing", "delivery", "product")


def _messages(rows=60, text="body", label="topic", id="message_id"):
    """Rows with a text, a label, an id, and two columns that are none of these."""
    return [
        {
            id: f"m-{i:03d}",
            text: f"message number {i} about my {_LABELS[i % 3]}, which is late again",
            label: _LABELS[i % 3],
            "weight": f"{i % 50}.{i}",
            "link": f"https://example.org/a-very-long-address-that-is-no-text/{'x' * 60}{i}",
        }
        for i in range(rows)
    ]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder that commands are given in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _initialised(*arguments):
    """The job of an init that succeeds, and its warnings."""
    answer = raee("init", *arguments)
    assert answer.code == 0, answer.err
    path = answer.out.splitlines()[0]
    lines = answer.err.splitlines()
    return load_job(path), [line[9:] for line in lines if line.startswith("warning: ")]


def _refused(*arguments):
    answer = raee("init", *arguments)
    assert (answer.code, answer.out) == (2, "")
    return answer.error


class TestProposal:
    @pytest.mark.parametrize(
        "form", ["csv", "tsv", "jsonl", "json", "parquet", "csv.gz", "jsonl.zst"]
    )
    def test_is_of_a_file_of_any_format(self, folder, form):
        write_corpus(folder / f"My Messages.{form}", _messages())
        answer = raee("init", f"My Messages.{form}")
        assert answer.out.splitlines() == [
            "my-messages.yaml",
            "raee build my-messages.yaml",
            "raee classify my-messages.yaml --input NEW.csv --output predictions",
        ]
        reasons = [line.partition(" (")[0] for line in answer.err.splitlines()]
        assert reasons == [
            "text column 'body': its values vary and are the longest",
            "label column 'topic': it has few different values, which repeat",
            "id column 'message_id': its name says so; texts to classify need it, too",
        ]
        job = load_job("my-messages.yaml")
        assert (job.name, job.store) == ("my-messages", "./store")
        assert job.backbone.model == "sentence-transformers/all-MiniLM-L6-v2"
        assert (job.corpus.text, job.corpus.label, job.corpus.id) == ("body", "topic", "message_id")
        found = scan(job.corpus)
        assert (found.rows, sorted(found.labels)) == (60, [*_LABELS])

    @pytest.mark.parametrize("address", ["parts", "parts/", "parts/*.csv"])
    def test_is_of_a_folder_or_a_glob(self, folder, address):
        for part in range(20):
            write_corpus(folder / f"parts/{part}.csv", _messages()[part * 3 : part * 3 + 3])
        job, warned = _initialised(address)
        assert (job.name, job.corpus.uri, warned) == ("parts", address, [])
        assert scan(job.corpus).rows == 60

    def test_takes_the_column_that_folders_are_named_after(self, folder):
        for label in _LABELS:
            rows = [{"body": row["body"]} for row in _messages() if row["topic"] == label]
            write_corpus(folder / f"parts/kind={label}/part.parquet", rows)
        job, _ = _initialised("parts")
        assert (job.corpus.label, job.corpus.id) == ("kind", None)

    @pytest.mark.parametrize(("delimiter", "ending"), [(";", "csv"), ("|", "tsv"), ("\t", "csv")])
    def test_sees_another_delimiter(self, folder, delimiter, ending):
        rows = [f"m{i}{delimiter}my letter, number {i}{delimiter}{'ab'[i % 2]}" for i in range(40)]
        head = delimiter.join(["id, if any", "what, in words", "kind"])
        (folder / f"a.{ending}").write_text("\n".join([head, *rows]))
        job, _ = _initialised(f"a.{ending}")
        assert (job.corpus.delimiter, job.corpus.text) == (delimiter, "what, in words")
        assert scan(job.corpus).labels == {"a": 20, "b": 20}

    def test_sees_quotes_that_are_none(self, folder):
        rows = [f'"so{" " * i}it goes {i}\t{"ab"[i % 2]}' for i in range(39)]
        (folder / "a.tsv").write_text("\n".join(["text\tlabel", *rows]))
        job, _ = _initialised("a.tsv")
        assert job.corpus.quote is None
        assert scan(job.corpus).rows == 39

    def test_sees_utf_16(self, folder):
        write_corpus(folder / "a.csv", _messages())
        (folder / "a.csv").write_bytes((folder / "a.csv").read_text().encode("utf-16"))
        job, _ = _initialised("a.csv")
        assert scan(job.corpus).rows == 60

    def test_of_another_encoding_says_how_to_go_on(self, folder):
        rows = [f"{i};ein schöner Tag, Nummer {i};{'ab'[i % 2]}" for i in range(40)]
        content = "\r\n".join(["Nr;Was;Art", *rows])
        (folder / "a.csv").write_bytes(content.encode("cp1252"))
        assert _refused("a.csv").startswith(
            "a.csv: not all of 'Was' is valid UTF-8; save the file as UTF-8"
        )
        said = _refused("a.csv", "--text", "Was", "--label", "Art")
        assert "(text is not valid UTF-8: 40); save the file as UTF-8" in said

    def test_of_a_header_in_another_encoding_says_how_to_go_on(self, folder):
        rows = [f"{i};ein guter Tag, Nummer {i};{'ab'[i % 2]}" for i in range(40)]
        content = "\r\n".join(["Nr;Erklärung;Art", *rows])
        (folder / "a.csv").write_bytes(content.encode("cp1252"))
        assert "a.csv: not all of 'Erkl\\udce4rung' is valid UTF-8" in _refused("a.csv")

    def test_of_several_texts_is_left_to_the_user(self, folder):
        rows = [row | {"reply": row["body"][:50] + row["message_id"]} for row in _messages()]
        write_corpus(folder / "a.csv", rows)
        assert _refused("a.csv") == "a.csv: the text may be 'body', 'reply'; name it: --text COLUMN"
        assert _initialised("a.csv", "--text", "reply")[0].corpus.text == "reply"

    def test_of_several_labels_is_left_to_the_user(self, folder):
        rows = [row | {"answered": "yn"[i % 2]} for i, row in enumerate(_messages())]
        write_corpus(folder / "a.csv", rows)
        said = "a.csv: the label may be 'answered', 'topic'; name it: --label COLUMN"
        assert _refused("a.csv") == said
        assert not (folder / "a.yaml").exists()

    def test_takes_columns_that_are_named_after_what_they_are(self, folder):
        rows = [
            row | {"answered": "yn"[i % 2], "reply": row["Text"], "key": row["ID"]}
            for i, row in enumerate(_messages(text="Text", label="Label", id="ID"))
        ]
        write_corpus(folder / "a.csv", rows)
        job, _ = _initialised("a.csv")
        assert (job.corpus.text, job.corpus.label, job.corpus.id) == ("Text", "Label", "ID")

    def test_without_a_label_names_the_columns(self, folder):
        write_corpus(folder / "a.csv", [{"body": f"a letter {i}", "n": i} for i in range(30)])
        assert _refused("a.csv") == (
            "a.csv: no column looks like the label, of 'body', 'n'; name it: --label COLUMN"
        )

    def test_without_a_label_names_the_columns_of_one_name(self, folder):
        lines = [f"a letter {i},{'ab'[i % 2]},{'ab'[i % 2]}" for i in range(40)]
        (folder / "a.csv").write_text("\n".join(["text,label,label", *lines]))
        assert "of 'text' (several are called 'label')" in _refused("a.csv")

    @pytest.mark.parametrize(
        ("file", "content", "said"),
        [
            ("a.csv", "", "corpus a.csv is empty"),
            ("a.csv", "text,label\n", "corpus a.csv is empty"),
            ("a.json", '[\n{"text": "x"},\n{"text": "y"}\n]', "one JSON list"),
            ("a.parquet", "text,label\n", "a.parquet cannot be read: "),
            ("a.txt", "text,label\n", "corpus a.txt: not one of .parquet, .csv"),
        ],
    )
    def test_of_what_is_no_corpus_is_refused(self, folder, file, content, said):
        (folder / file).write_text(content)
        assert said in _refused(file)

    def test_of_nothing_is_refused(self):
        assert _refused("a.csv") == "corpus a.csv: there is no such file or folder"


class TestFlags:
    def test_win(self, folder):
        write_corpus(folder / "a.csv", _messages())
        flags = ("--text", "link", "--label", "body", "--id", "weight", "--name", "other")
        job, _ = _initialised("a.csv", *flags, "--store", "s3://b/${X}", "--model", "models/m")
        assert (folder / "other.yaml").exists()
        assert (job.corpus.text, job.corpus.label, job.corpus.id) == ("link", "body", "weight")
        assert (job.name, job.store, job.backbone.model) == ("other", "s3://b/x", "models/m")

    @pytest.fixture(autouse=True)
    def _variable(self, monkeypatch):
        monkeypatch.setenv("X", "x")

    @pytest.mark.parametrize("role", ["text", "label", "id"])
    def test_that_name_no_column_list_those_there_are(self, folder, role):
        write_corpus(folder / "a.csv", _messages())
        names = "'message_id', 'body', 'topic', 'weight', 'link'"
        said = f"--{role} 'Body': a.csv has no such column; it has {names}"
        assert _refused("a.csv", f"--{role}", "Body") == said

    def test_that_name_one_of_two_columns_are_refused(self, folder):
        lines = [f"a letter {i},x,{'ab'[i % 2]}" for i in range(40)]
        (folder / "a.csv").write_text("\n".join(["body,kind,kind", *lines]))
        said = _refused("a.csv", "--label", "kind")
        assert said == "--label 'kind': several columns have this name"

    def test_that_name_one_column_twice_are_refused(self, folder):
        write_corpus(folder / "a.csv", _messages())
        said = _refused("a.csv", "--text", "topic", "--label", "topic")
        assert said == "--label 'topic': that is the column of the text"

    @pytest.mark.parametrize("flag", ["--output", "--store", "--model"])
    def test_that_are_empty_are_refused(self, flag, folder):
        write_corpus(folder / "a.csv", _messages())
        assert _refused("a.csv", flag, "") == f"{flag} is empty"

    @pytest.mark.parametrize("name", ["Other", "", "-x", "a b"])
    def test_a_name_that_is_none_of_a_database_is_refused(self, folder, name):
        write_corpus(folder / "a.csv", _messages())
        assert "use lowercase letters" in _refused("a.csv", f"--name={name}")


class TestJobFile:
    def test_is_never_written_over(self, folder):
        write_corpus(folder / "a.csv", _messages())
        (folder / "a.yaml").write_text("mine")
        assert _refused("a.csv") == "a.yaml is there already; --output names another file"
        assert (folder / "a.yaml").read_text() == "mine"
        assert _initialised("a.csv", "--output", "b.yaml")[0].name == "a"

    def test_in_a_folder_that_is_not_there_is_refused(self, folder):
        write_corpus(folder / "a.csv", _messages())
        said = "--output no/b.yaml: there is no folder no"
        assert _refused("a.csv", "--output", "no/b.yaml") == said

    def test_in_a_folder_that_may_not_be_written_is_refused(self, monkeypatch):
        with open_to_all() as readable:
            write_corpus(readable / "a.csv", _messages())
            with somebody_else():
                monkeypatch.chdir(readable)
                answer = raee("init", "a.csv")
            monkeypatch.undo()
        denied = "raee: a.yaml: access denied; may you read and write there?\n"
        assert (answer.code, answer.out, answer.err) == (2, "", denied)

    @pytest.mark.parametrize("path", ["my job.yaml", "it's.yaml", "$HOME;ls.yaml", "häß`x`.yaml"])
    def test_is_named_as_a_shell_takes_it(self, folder, path):
        write_corpus(folder / "a.csv", _messages())
        answer = raee("init", "a.csv", "--output", path)
        first, build, classify = answer.out.splitlines()
        assert first == path
        assert shlex.split(build) == ["raee", "build", path]
        assert shlex.split(classify)[:3] == ["raee", "classify", path]

    @pytest.mark.parametrize(
        ("input", "name"),
        [
            ("Ärger 2026.csv.gz", "arger-2026"),
            ("悪い/Train.csv", "train"),
            ("my.data.v2/*.csv", "my-data-v2"),
            ("a/悪い.csv", "a"),
            ("悪い.csv", "corpus"),
            (f"{'x' * 80}.csv", "x" * 63),
        ],
    )
    def test_is_named_after_the_input(self, folder, input, name):
        file = folder / input.replace("*", "part")
        file.parent.mkdir(exist_ok=True)
        ending = input.partition(".csv")[2]
        write_corpus(folder / f"a.csv{ending}", _messages())
        (folder / f"a.csv{ending}").rename(file)
        assert _initialised(input)[0].name == name


_ODD_NAMES = (
    *("my text", " text ", 'a "quoted" one', "it's", "a: b", "a #b", "- a", "yes", "null", "1e3"),
    *("1", "1.5", "~", "2026-11-29", "{a}", "[a", "*a", "&a", "!a", "%a", "@a", "`a", "a,b"),
    *("a\tb", "two\nlines", "悪い", "😀", "\u2028", "\x85", "\ufeff", "\x7f", "x" * 300, "${"),
    *("\\n", "<<"),
)


class TestOddNames:
    @pytest.mark.parametrize("odd", _ODD_NAMES)
    def test_of_columns_are_in_the_job(self, folder, odd):
        write_corpus(folder / "a.parquet", _messages(text=odd, label=f"{odd}2", id=f"{odd}id"))
        job, _ = _initialised("a.parquet")
        found = (job.corpus.text, job.corpus.label, job.corpus.id)
        assert found == (odd, f"{odd}2", f"{odd}id")

    @settings(max_examples=100)
    @given(
        names=st.lists(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
            min_size=3,
            max_size=3,
            unique=True,
        ),
        file=st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="/\0"),
            min_size=1,
            max_size=20,
        ),
    )
    def test_of_columns_and_files_are_in_the_job_or_refused(self, tmp_path_factory, names, file):
        folder = tmp_path_factory.mktemp("odd")
        text, label, id = names
        rows = [{text: f"a letter, number {i}", label: "ab"[i % 2], id: f"m{i}"} for i in range(20)]
        write_corpus(folder / "a.jsonl", rows)
        path = str((folder / "a.jsonl").rename(folder / f"{file}.jsonl"))
        flags = (f"--text={text}", f"--label={label}", f"--id={id}")
        answer = raee("init", path, f"--output={folder / 'job.yaml'}", *flags)
        if any("\0" in value or VARIABLE.search(value) for value in (*names, file)):
            assert (answer.code, "rename it" in answer.error) == (2, True)
            return
        assert answer.code == 0, answer.err
        corpus = load_job(str(folder / "job.yaml")).corpus
        assert (corpus.text, corpus.label, corpus.id, corpus.uri) == (*names, path)
        assert scan(corpus).labels == {"a": 10, "b": 10}

    @pytest.mark.parametrize("odd", ["${HOME}", "a\0b"])
    def test_that_no_job_file_holds_are_refused(self, folder, odd):
        write_corpus(folder / "a.jsonl", _messages(text=odd))
        assert "rename it" in _refused("a.jsonl")
        assert not (folder / "a.yaml").exists()


class TestWarnings:
    def _of(self, folder, rows, *flags):
        write_corpus(folder / "a.jsonl", rows)
        return _initialised("a.jsonl", *flags)[1]

    def test_rows_that_cannot_be_used(self, folder):
        rows = _messages(200)
        rows[3]["body"] = rows[4]["body"] = rows[5]["topic"] = ""
        assert self._of(folder, rows) == [
            "3 of 200 rows cannot be used (text is empty: 2, no label: 1); more than "
            "max_reject_fraction 0.01: a build stops"
        ]

    def test_a_label_with_one_row(self, folder):
        rows = _messages()
        rows[7]["topic"] = "odd"
        assert self._of(folder, rows) == [
            "labels with a single row, without which nothing can answer them: 'odd'"
        ]

    def test_more_labels_than_a_tenth_of_the_rows(self, folder):
        rows = [row | {"topic": str(i // 2)} for i, row in enumerate(_messages())]
        assert self._of(folder, rows, "--label", "topic") == [
            "30 labels in 60 rows: with fewer than 10 rows a label it may be no column of labels"
        ]

    def test_a_label_that_is_always_the_same(self, folder):
        rows = [row | {"topic": "x"} for row in _messages()]
        warned = self._of(folder, rows, "--label", "topic")
        assert warned == ["all of 60 rows have the label 'x'"]

    def test_a_first_line_that_is_a_row(self, folder):
        lines = [f"a letter {i},{'ab'[i % 2]}" for i in range(40)]
        (folder / "a.csv").write_text("\n".join(lines))
        (line,) = _initialised("a.csv")[1]
        assert line.startswith("the label column is called 'a', as one of the labels is")

    def test_texts_that_are_numbers(self, folder):
        warned = self._of(folder, _messages(), "--text", "weight")
        assert warned == ["the text column 'weight' holds numbers"]

    def test_ids_that_repeat(self, folder):
        warned = self._of(folder, _messages(), "--id", "topic")
        assert warned == ["values of the id column 'topic' repeat: a build stops"]

    def test_columns_of_one_name(self, folder):
        lines = [f"a letter {i},x,y,{'ab'[i % 2]}" for i in range(40)]
        (folder / "a.csv").write_text("\n".join(["body,n,n,kind", *lines]))
        assert _initialised("a.csv")[1] == ["several columns have one name: 'n'"]

    def test_no_row_that_can_be_used_is_an_error(self, folder):
        rows = [row | {"n": i} for i, row in enumerate(_messages())]
        write_corpus(folder / "a.parquet", rows)
        said = "a.parquet: no row can be used (text is no string but int: 60); choose other columns"
        assert _refused("a.parquet", "--text", "n") == said


class _Terminal:
    """A command at a terminal, and the user there."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*_COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, env=_environment()
        )
        os.close(slave)
        self.shown = ""

    def sees(self, words):
        """Wait until some words are on the screen."""
        while words not in self.shown:
            self.shown += self._read()

    def types(self, line):
        os.write(self.master, line.encode())

    def leaves(self):
        """The exit code, once the command has ended."""
        while more := self._read(at_end=""):
            self.shown += more
        os.close(self.master)
        return self.process.wait(60)

    def _read(self, at_end=None):
        try:
            return os.read(self.master, 4096).decode()
        except OSError:  # the command has ended
            assert at_end is not None, f"it ended, and had shown: {self.shown}"
            return at_end


def _environment():
    return os.environ | {"TERM": "dumb", "COLUMNS": "200"}


class TestAtATerminal:
    @pytest.fixture(autouse=True)
    def _corpus(self, folder):
        rows = [row | {"answered": "yn"[i % 2]} for i, row in enumerate(_messages())]
        write_corpus(folder / "a.csv", rows)

    def test_the_proposals_are_the_defaults(self):
        user = _Terminal("a.csv")
        user.sees("Which column is the text? [body]: ")
        assert "'topic': 3 different in 60 rows" in user.shown
        user.types("\n")
        user.sees("Which column is the label? [answered]: ")
        user.types("\n")
        user.sees("Are rows named by 'message_id'? [Y/n]: ")
        user.types("\n")
        assert user.leaves() == 0
        corpus = load_job("a.yaml").corpus
        assert (corpus.text, corpus.label, corpus.id) == ("body", "answered", "message_id")
        assert user.shown.splitlines()[-2] == "raee build a.yaml"

    def test_other_answers_count_and_a_wrong_one_is_asked_again(self):
        user = _Terminal("a.csv", "--text", "body")
        user.sees("Which column is the label? [answered]: ")
        user.types("tpoic\n")
        user.sees("a.csv has no such column; it has 'message_id'")
        user.types("topic\n")
        user.sees("Are rows named by 'message_id'? [Y/n]: ")
        user.types("n\n")
        assert user.leaves() == 0
        corpus = load_job("a.yaml").corpus
        assert (corpus.text, corpus.label, corpus.id) == ("body", "topic", None)

    def test_the_end_of_the_input_writes_nothing(self, folder):
        user = _Terminal("a.csv")
        user.sees("[body]: ")
        user.types("\x04")
        assert user.leaves() == 2
        assert user.shown.splitlines()[-1].endswith("nothing is written: there was no answer")
        assert not (folder / "a.yaml").exists()

    def test_ctrl_c_writes_nothing(self, folder):
        user = _Terminal("a.csv")
        user.sees("[body]: ")
        while user.process.poll() is None:  # it may come before the command waits for a line
            user.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                user.process.wait(5)
        assert user.leaves() == 130
        assert "Traceback" not in user.shown
        assert not (folder / "a.yaml").exists()


def test_no_model_library_and_no_orchestrator_are_imported(folder):
    write_corpus(folder / "a.csv", _messages())
    code = (
        "import sys; from flows.cli.app import app, run; run(app, ['init', 'a.csv']); "
        "print({'torch', 'transformers', 'faiss', 'prefect', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_next_two_commands_build_and_classify(folder, model_of):
    write_corpus(folder / "my films.csv", sentences(60))
    answer = raee("init", "my films.csv", "--model", model_of("bert-encoder"))
    assert answer.code == 0, answer.err
    _, build, classify = answer.out.splitlines()
    built = raee(*shlex.split(build)[1:])
    assert built.code == 0, built.err
    write_corpus(
        folder / "NEW.csv", [{"id": row["id"], "text": row["text"]} for row in sentences(5, seed=1)]
    )
    done = raee(*shlex.split(classify)[1:])
    assert done.code == 0, done.err
    assert len(predictions_of(folder / "predictions")) == 5

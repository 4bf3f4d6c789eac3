"""A user's mistake is one line and exit code 2, and nothing is written."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch

from tests.flows.jobs import flow_states, raee
from tests.texts import LABELS, sentences

_MASKED = "{text} it was {mask}"


def _refused(place, match, *arguments):
    """A command is refused with one line that holds `match`, and no file has changed."""
    before = place.files()
    answer = raee(*arguments)
    assert answer.code == 2, answer.err
    assert answer.out == ""
    assert match in answer.error
    assert "Traceback" not in answer.err
    assert place.files() == before


_JOBS = {
    "missing corpus": (
        {"corpus": {"uri": "/nowhere/train.csv"}},
        "/nowhere/train.csv: there is no such file or folder",
    ),
    "missing column": (
        {"corpus": {"uri": "{root}/train.csv", "text": "sentence"}},
        "no column 'sentence'; it has 'id', 'text', 'label'",
    ),
    "label not in the prompt": (
        {"prompt": {"labels": {"good": "good", "bad": "bad"}}},
        "label 'odd' is not in the prompt; its labels are",
    ),
    "prompt that is not built in": ({"prompt": "sst3"}, "prompt 'sst3' is not built in"),
    "prompt without a place for the text": (
        {"prompt": {"template": "it was", "labels": {label: label for label in LABELS}}},
        "prompt.template 'it was': family sentence-encoder needs {text} once",
    ),
    "prompt that alone is too long": (
        {
            "prompt": {
                "template": "film " * 70 + "{text}",
                "labels": {label: label for label in LABELS},
            }
        },
        "72 tokens; the model takes 64",
    ),
    "no model": (
        {"backbone": {"family": "sentence-encoder", "model": "/nowhere/model"}},
        "backbone '/nowhere/model' (revision 'main') cannot be loaded",
    ),
    "key deeper than the backbone": (
        {"key": {"layer": 5}},
        "key.layer 5 is deeper than the backbone (4 layers)",
    ),
    "exit that there is not": (
        {"policy": {"name": "fixed", "exit": "head@5"}},
        "exit 'head@5' is not in the database; it has head@0",
    ),
    "cascade that begins too deep": (
        {"policy": {"name": "cascade", "first": 5}},
        "policy.first 5 is deeper than the backbone (4 layers)",
    ),
    "unknown key": ({"stoer": "x"}, "job.yaml: stoer: unknown key"),
    "unset variable": ({"store": "${RAEE_TEST_UNSET}"}, "RAEE_TEST_UNSET is not set"),
    "unknown protocol": ({"store": "nowhere://bucket"}, "nowhere://bucket"),
}


class TestBuildRefuses:
    @pytest.mark.parametrize("name", _JOBS)
    def test_a_job_with(self, place, name):
        changed, match = _JOBS[name]
        changed = json.loads(json.dumps(changed).replace("{root}", str(place.root)))
        _refused(place, match, "build", place.job(**changed))
        assert not place.store.exists()

    def test_a_masked_lms_label_word_of_several_tokens(self, place):
        prompt = {"template": _MASKED, "labels": {"bad": "xyz", "good": "good", "odd": "dull"}}
        backbone = {"family": "masked-lm", "model": place.model_of("bert")}
        match = "label word 'xyz' is 3 tokens for this tokenizer (['x', '##y', '##z'])"
        _refused(place, match, "build", place.job(prompt=prompt, backbone=backbone))

    @pytest.mark.parametrize("content", ["", "id,text,label\n"])
    def test_an_empty_corpus(self, place, content):
        job = place.job()
        (place.root / "train.csv").write_text(content)
        _refused(place, "train.csv is empty", "build", job)

    def test_an_id_that_stands_twice(self, place):
        place.write("train.csv", [*sentences(5), sentences(3)[2]])
        _refused(place, "id 'row-002' stands twice", "build", place.job())

    def test_too_many_rows_that_cannot_be_used(self, place):
        place.write("train.csv", [*sentences(98), *({"text": "", "id": str(i)} for i in (1, 2))])
        match = "2 of 100 rows cannot be used (text is empty: 2), more than max_reject_fraction"
        _refused(place, match, "build", place.job())

    def test_a_missing_job_file(self, place):
        _refused(place, "there is no such job file", "build", place.root / "nothing.yaml")

    def test_a_job_file_that_is_no_yaml(self, place):
        (place.root / "job.yaml").write_text("name: [")
        _refused(place, "this is no YAML", "build", place.root / "job.yaml")

    def test_a_job_file_that_says_a_key_twice(self, place):
        job = Path(place.job())
        job.write_text(f"name: first\n{job.read_text()}")
        _refused(place, "key name stands twice, first in line 1", "build", job)

    def test_a_store_in_its_corpus(self, place):
        job = place.job(corpus={"uri": str(place.root), "id": "id"})
        _refused(place, "store lies in the corpus", "build", job)

    def test_a_store_that_is_a_file(self, place):
        job = place.job()
        place.store.write_text("")
        _refused(place, "a file stands where a folder should be", "build", job)

    def test_a_parent_whose_centre_is_damaged(self, published):
        centre = next(published.store.rglob("centre.safetensors"))
        centre.write_bytes(centre.read_bytes()[:-1] + b"\1")
        match = "centre.safetensors has another SHA-256 than its manifest says"
        _refused(published, match, "build", published.job())

    def test_a_parent_of_a_newer_format(self, published):
        manifest = next(published.store.rglob("manifest.json"))
        manifest.write_text('{"format": 5}')
        _refused(published, "is of format 5, newer than format 4", "build", published.job())


def test_a_refused_build_is_a_failed_run_that_is_not_retried(place):
    raee("build", place.job(name="refused", corpus={"uri": "/nowhere/train.csv"}))
    assert flow_states("rebuild-database", "refused") == ["FAILED"]


def _arguments(place, *more, **changed):
    """A classification's command line."""
    output = place.root / "out"
    return (
        *("classify", place.job(**changed)),
        *("--input", place.root / "new.csv", "--output", output),
        *more,
    )


@pytest.fixture
def ready(published):
    """A published version, and an input to classify."""
    published.write("new.csv", sentences(20, seed=5))
    return published


def _encoder(place, **changed):
    return {"family": "sentence-encoder", "model": place.model_of("bert-encoder")} | changed


class TestClassifyRefuses:
    def test_an_input_that_is_not_there(self, ready):
        (ready.root / "new.csv").unlink()
        _refused(ready, "new.csv: there is no such file or folder", *_arguments(ready))

    def test_an_input_without_the_text_column(self, ready):
        ready.write("new.csv", [{"id": "1", "sentence": "x"}])
        _refused(ready, "no column 'text'; it has 'id', 'sentence'", *_arguments(ready))

    def test_an_empty_input(self, ready):
        (ready.root / "new.csv").write_text("")
        _refused(ready, "new.csv is empty", *_arguments(ready))

    def test_a_store_without_the_database(self, ready):
        shutil.rmtree(ready.store)
        _refused(ready, "make one with `raee build`", *_arguments(ready))

    @pytest.mark.parametrize("version", ["20200101-000000-000000-00000000", "staging"])
    def test_a_version_or_alias_that_is_not_there(self, ready, version):
        match = f"no version or alias '{version}'"
        _refused(ready, match, *_arguments(ready, "--version", version))

    def test_a_version_that_leads_out_of_the_store(self, ready):
        match = "version '../demo': use lowercase letters, digits and dashes"
        _refused(ready, match, *_arguments(ready, "--version", "../demo"))

    def test_a_policy_that_is_not_there(self, ready):
        match = "policy: 'best' is none of 'full', 'fixed', 'retrieval', 'raee', 'kernel', "
        _refused(ready, match, *_arguments(ready, "--policy", "best"))

    def test_an_exit_that_the_database_does_not_have(self, ready):
        policy = {"name": "fixed", "exit": "vote@2"}
        match = "exit 'vote@2' is not in the database"
        _refused(ready, match, *_arguments(ready, policy=policy))

    def test_a_backbone_of_another_family(self, ready):
        backbone = {"family": "masked-lm", "model": ready.model_of("bert")}
        prompt = {"template": _MASKED, "labels": {"bad": "bad", "good": "good", "odd": "dull"}}
        match = "was built with backbone.family 'sentence-encoder', the job says 'masked-lm'"
        _refused(ready, match, *_arguments(ready, backbone=backbone, prompt=prompt))

    def test_a_backbone_of_another_revision(self, ready):
        match = "was built with backbone.revision 'main', the job says 'v2'"
        _refused(ready, match, *_arguments(ready, backbone=_encoder(ready, revision="v2")))

    def test_a_backbone_with_other_weights(self, ready):
        model = shutil.copytree(ready.model_of("bert-encoder"), ready.root / "model")
        weights = safetensors.torch.load_file(model / "model.safetensors")
        name = next(iter(weights))
        weights[name] = weights[name] + 1
        safetensors.torch.save_file(weights, model / "model.safetensors", {"format": "pt"})
        match = "was built with another backbone: weights"
        _refused(ready, match, *_arguments(ready, backbone=_encoder(ready, model=str(model))))

    def test_a_backbone_with_another_tokenizer(self, ready):
        model = Path(shutil.copytree(ready.model_of("bert-encoder"), ready.root / "model"))
        tokenizer = model / "tokenizer.json"
        tokenizer.write_text(tokenizer.read_text().replace('"warm"', '"cold"'))
        match = "was built with another backbone: tokenizer"
        _refused(ready, match, *_arguments(ready, backbone=_encoder(ready, model=str(model))))

    def test_a_key_of_another_layer(self, ready):
        _refused(ready, "was built with key {'model': ", *_arguments(ready, key={"layer": 2}))

    def test_another_label_set(self, ready):
        prompt = {"labels": {"bad": "a bad film", "good": "a good film"}}
        match = "has the labels bad, good, odd, the job's prompt has bad, good;"
        _refused(ready, match, *_arguments(ready, prompt=prompt))

    def test_labels_in_another_order(self, ready):
        prompt = {"labels": {label: f"a {label} film" for label in LABELS[::-1]}}
        job = ready.job(prompt=prompt)
        order = (LABELS[2], LABELS[1], LABELS[0])
        # A YAML mapping has an order; the helper writes keys sorted.
        text = Path(job).read_text()
        lines = [f"    {label}: a {label} film\n" for label in sorted(LABELS)]
        assert "".join(lines) in text
        text = text.replace("".join(lines), "".join(f"    {x}: a {x} film\n" for x in order))
        Path(job).write_text(text)
        arguments = ("--input", ready.root / "new.csv", "--output", ready.root / "out")
        _refused(ready, "the job's prompt has odd, good, bad", "classify", job, *arguments)

    def test_another_prompt(self, ready):
        prompt = {"labels": {label: f"one {label} film" for label in LABELS}}
        _refused(ready, "was built with another prompt", *_arguments(ready, prompt=prompt))

    @pytest.mark.parametrize(
        "file",
        [
            *("entries/part-00001.parquet", "neighbours/part-00001.parquet"),
            *("keys/layer-01.faiss", "centre.safetensors", "probes.safetensors"),
        ],
    )
    @pytest.mark.parametrize("harm", ["altered", "truncated", "missing", "empty"])
    def test_a_damaged_artifact_before_anything_reads_it(self, ready, file, harm):
        path = ready.only_version() / file
        data = path.read_bytes()
        harmed = {
            "altered": data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
            "truncated": data[: len(data) // 2],
            "empty": b"",
        }
        if harm == "missing":
            path.unlink()
        else:
            path.write_bytes(harmed[harm])
        match = f"{path.name} {'is missing' if harm == 'missing' else 'has '}"
        _refused(ready, match, *_arguments(ready))

    def test_a_damaged_manifest(self, ready):
        manifest = next(ready.store.rglob("manifest.json"))
        manifest.write_text(manifest.read_text()[:-50])
        _refused(ready, "manifest.json is damaged", *_arguments(ready))

    def test_an_output_folder_that_holds_something_else(self, ready):
        (ready.root / "out").mkdir()
        (ready.root / "out/notes.txt").write_text("mine")
        match = "is not empty (it holds notes.txt); give a new or empty folder"
        _refused(ready, match, *_arguments(ready))

    def test_an_output_that_is_a_file(self, ready):
        (ready.root / "out").write_text("mine")
        _refused(ready, "a file stands where a folder should be", *_arguments(ready))

    def test_an_output_below_a_file(self, ready):
        match = "a file stands where a folder should be"
        arguments = ("--input", ready.root / "new.csv", "--output", ready.root / "train.csv/out")
        _refused(ready, match, "classify", ready.job(), *arguments)

    @pytest.mark.parametrize("input", ["", "*", "**/*.parquet"])
    def test_an_output_in_its_input(self, ready, input):
        arguments = ("--input", f"{ready.root}/{input}", "--output", ready.root / "out")
        _refused(ready, "out lies in the input", "classify", ready.job(), *arguments)

    def test_an_input_in_its_output(self, ready):
        arguments = ("--input", ready.root / "new.csv", "--output", ready.root)
        _refused(ready, "new.csv lies in the output", "classify", ready.job(), *arguments)

    def test_a_database_for_an_input(self, ready):
        arguments = ("--input", ready.store, "--output", ready.root / "out")
        match = f"{ready.only_version()} holds a version of a database and no corpus"
        _refused(ready, match, "classify", ready.job(), *arguments)

    def test_an_output_for_an_input(self, ready):
        output = ready.classify(ready.root / "new.csv")
        arguments = ("--input", output, "--output", ready.root / "again")
        match = f"{output} holds a classification's output and no corpus"
        _refused(ready, match, "classify", ready.job(), *arguments)

    def test_an_output_folder_with_a_strange_manifest(self, ready):
        (ready.root / "out").mkdir()
        (ready.root / "out/manifest.json").write_text('{"name": "something else"}')
        match = "holds another job's output (a manifest that is not raee's)"
        _refused(ready, match, *_arguments(ready))

    @pytest.mark.parametrize("difference", ["input", "policy", "version"])
    def test_an_output_folder_that_holds_another_jobs_output(self, ready, difference):
        assert raee(*_arguments(ready)).code == 0
        more = ()
        if difference == "input":
            ready.write("new.csv", sentences(20, seed=6))
        if difference == "policy":
            more = ("--policy", "full")
        if difference == "version":
            ready.build(keep_text=False)
        _refused(ready, "holds another job's output", *_arguments(ready, *more))


class TestEvaluateRefuses:
    def _arguments(self, place, **changed):
        return "evaluate", place.job(**changed), "--input", place.root / "new.csv"

    def test_labels_that_the_database_does_not_know(self, ready):
        ready.write("new.csv", [{"id": "1", "text": "x", "label": "new"}])
        _refused(ready, "label 'new' is not in the prompt", *self._arguments(ready))

    def test_rows_without_labels(self, ready):
        ready.write("new.csv", [{"id": "1", "text": "x"}])
        _refused(ready, "no column 'label'; it has 'id', 'text'", *self._arguments(ready))

    def test_a_version_that_is_not_there(self, ready):
        match = "no version or alias 'x'"
        _refused(ready, match, *self._arguments(ready), "--version", "x")

    def test_a_place_for_its_figures_that_is_not_there_before_it_begins(self, ready):
        target = ready.root / "nowhere/figures.json"
        answer = raee(*self._arguments(ready), "--json", target)
        assert answer.code == 2
        assert "there is no folder" in answer.error
        assert answer.err.count("\n") == 1


class TestOtherCommandsRefuse:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("versions", "nothing"),
            ("show", "nothing"),
            ("show", "demo@nothing"),
            ("verify", "nothing"),
            ("verify", "demo@nothing"),
            ("promote", "demo", "nothing"),
            ("promote", "nothing", "x"),
            ("rollback", "demo", "--alias", "nothing"),
            ("rollback", "nothing"),
            ("prune", "nothing"),
            ("prune", "demo@nothing"),
        ],
        ids=" ".join,
    )
    def test_what_is_not_there(self, ready, arguments):
        _refused(ready, "nothing", *arguments, "--store", ready.store)

    def test_to_roll_back_to_what_was_never_promoted(self, ready):
        match = "alias 'production' of database demo has no version to roll back to"
        _refused(ready, match, "rollback", "demo", "--store", ready.store)

    @pytest.mark.parametrize("command", [("tune",), ("explain", "a warm film")])
    def test_a_version_that_is_not_there(self, ready, command):
        name, *text = command
        match = "no version or alias 'nothing'"
        _refused(ready, match, name, ready.job(), *text, "--version", "nothing")

    @pytest.mark.parametrize(
        "arguments",
        [
            ("versions", "../demo"),
            ("show", "../demo"),
            ("show", "demo@../x"),
            ("verify", "demo@../x"),
            ("prune", "demo@../x"),
            ("promote", "demo", "../x"),
            ("rollback", "demo", "--alias", "../versions"),
            ("promote", "../demo", "x"),
        ],
        ids=" ".join,
    )
    def test_names_that_lead_out_of_the_store(self, ready, arguments):
        match = "use lowercase letters, digits and dashes"
        _refused(ready, match, *arguments, "--store", ready.store)

    def test_an_alias_that_is_no_name(self, ready):
        version = next(ready.store.rglob("manifest.json")).parent.name
        arguments = ("promote", "demo", version, "--alias", "Prod!", "--store", ready.store)
        _refused(ready, "alias 'Prod!': use lowercase letters", *arguments)

    @pytest.mark.parametrize(
        "arguments", [("build",), ("classify", "x"), ("nonsense",), ("build", "x", "--nonsense")]
    )
    def test_a_wrong_command_line_and_say_how_to_do_it(self, arguments):
        answer = raee(*arguments)
        assert answer.code == 2
        assert "Usage: " in answer.err
        assert "Traceback" not in answer.err

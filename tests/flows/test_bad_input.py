"""A user's mistake is one line and exit code 2, and nothing is written."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch

from tests.flows.jobs import flow_states, manifest_of, raee, start_raee
from tests.raee.tokenizers import save_causal_lm
from tests.texts import LABELS, sentences

_PR_SET_SECUREBITS = 28
_NO_ROOT = 1

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


_ASKED = "What is it? {text} It is "

_PROMPTS_OF_CAUSAL_LMS = {
    "a template without the text": (
        {"template": "it was"},
        "prompt.template 'it was': family causal-lm needs {text} once and no {mask}",
    ),
    "a template with a mask": (
        {"template": _MASKED},
        "prompt.template '{text} it was {mask}': family causal-lm needs {text} once and no {mask}",
    ),
    "no template": ({}, "prompt.template is missing: family causal-lm needs one with {text} once"),
    "an instruction without the text": (
        {"template": "chat", "instruction": "What?"},
        "prompt.instruction 'What?': family causal-lm needs {text} once and no {mask}",
    ),
    "an instruction without a chat": (
        {"template": _ASKED, "instruction": _ASKED},
        "prompt.instruction: it goes with `template: chat`",
    ),
    "a chat that the tokenizer has no template for": (
        {"template": "chat"},
        "prompt.template 'chat': this model's tokenizer has no chat template; give a template",
    ),
    "label words that begin alike": (
        {"template": _ASKED, "labels": {"bad": "very bad", "good": "very good", "odd": "odd"}},
        "label words 'very bad' and 'very good' both begin with the token 'Ġvery' for this",
    ),
    "examples that leave a text no room": (
        {"template": _ASKED, "examples": 4},
        "with 12 examples alone is ",
    ),
    "a built-in prompt and labels": (
        {"name": "sst2"},
        "prompt.labels: the prompt of `name` has its own; give `name` or `labels`",
    ),
    "less than no examples": (
        {"template": _ASKED, "examples": -1},
        "prompt.examples: input should",
    ),
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

    @pytest.mark.parametrize("name", _PROMPTS_OF_CAUSAL_LMS)
    def test_of_a_causal_lm(self, place, tmp_path_factory, name):
        prompt, match = _PROMPTS_OF_CAUSAL_LMS[name]
        model = save_causal_lm(tmp_path_factory.mktemp("models"))
        backbone = {"family": "causal-lm", "model": str(model)}
        prompt = {"labels": dict(zip(LABELS, ("bad", "great", "okay"), strict=True)), **prompt}
        _refused(place, match, "build", place.job(prompt=prompt, backbone=backbone))
        assert not place.store.exists()

    @pytest.mark.parametrize(
        "name",
        ["a chat that the tokenizer has no template for", "label words that begin alike"],
    )
    def test_what_the_tokenizer_tells_before_weights_are_read(self, place, tmp_path_factory, name):
        prompt, match = _PROMPTS_OF_CAUSAL_LMS[name]
        model = save_causal_lm(tmp_path_factory.mktemp("models"))
        (model / "model.safetensors").unlink()
        backbone = {"family": "causal-lm", "model": str(model)}
        prompt = {"labels": dict(zip(LABELS, ("bad", "great", "okay"), strict=True)), **prompt}
        _refused(place, match, "build", place.job(prompt=prompt, backbone=backbone))

    @pytest.mark.parametrize("word", ["", "  "])
    def test_a_blank_label_word(self, place, word):
        labels = {label: label for label in LABELS} | {"odd": word}
        match = "prompt.labels: 'odd' is "
        _refused(place, match, "build", place.job(prompt={"labels": labels}))

    def test_examples_that_leave_a_text_no_room(self, place):
        labels = {"bad": "bad", "good": "good", "odd": "dull"}
        prompt = {"template": _MASKED, "labels": labels, "examples": 5}
        backbone = {"family": "masked-lm", "model": place.model_of("bert")}
        match = "prompt.template '{text} it was {mask}' with 15 examples alone is "
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

    def test_more_labels_than_a_database_holds(self, place):
        rows = [{"id": n, "text": f"text {n}", "label": f"label {n}"} for n in range(2**16 + 1)]
        place.write("train.csv", rows)
        match = "the corpus has more labels (label 0, label 1, "
        _refused(place, match, "build", place.job(prompt=None))
        assert not place.store.exists()

    @pytest.mark.parametrize("command", ["build", "classify"])
    def test_a_job_that_is_larger_than_the_orchestrator_takes(self, place, command):
        labels = {f"label {n}": "x" * 1_000 + str(n) for n in range(600)}
        more = () if command == "build" else ("--input", place.root, "--output", place.root / "out")
        match = "bytes as JSON, and the Prefect server takes 524,288; let the corpus name"
        _refused(place, match, command, place.job(prompt={"labels": labels}), *more)

    def test_a_label_of_the_prompt_that_no_file_holds(self, place):
        prompt = {"labels": {"\ud800": "x", "b": "y"}}
        _refused(place, r"'\ud800' is not valid Unicode", "build", place.job(prompt=prompt))

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


@pytest.fixture
def speechless(place):
    """A backbone that has no answer in numbers to any text with the word `bravo`."""
    model = Path(shutil.copytree(place.model_of("bert-encoder"), place.root / "speechless"))
    word = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]["bravo"]
    weights = safetensors.torch.load_file(model / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][word] = float("nan")
    safetensors.torch.save_file(weights, model / "model.safetensors", {"format": "pt"})
    return {"family": "sentence-encoder", "model": str(model), "dtype": "float32"}


class TestAModelThatAnswersNoNumbers:
    MATCH = "with what are no numbers: its weights are damaged, or leave the range of float32"

    def _rows(self, place, name, text):
        place.write(name, [r for r in sentences(40) if "bravo" not in r["text"]] + [text])

    def _build(self, place, **changed):
        answer = raee("build", place.job(**changed))
        assert answer.code == 2, answer.err
        assert self.MATCH in answer.error
        assert not (place.store / "databases/demo/versions").exists()

    def test_a_text_of_a_build(self, place, speechless):
        self._rows(place, "train.csv", {"id": "x", "text": "bravo", "label": "odd"})
        self._build(place, backbone=speechless)

    def test_what_describes_a_label(self, place, speechless):
        self._rows(place, "train.csv", {"id": "x", "text": "a film", "label": "odd"})
        labels = {label: f"bravo {label}" for label in LABELS}
        self._build(place, backbone=speechless, prompt={"labels": labels})

    def test_a_text_by_its_keys_own_model(self, place, speechless):
        self._rows(place, "train.csv", {"id": "x", "text": "bravo", "label": "odd"})
        self._build(place, key={"model": speechless["model"]})

    @pytest.mark.parametrize("policy", ["full", "cascade", "kernel"])
    def test_a_text_to_classify(self, place, speechless, policy):
        self._rows(place, "train.csv", {"id": "x", "text": "a film", "label": "odd"})
        place.build(backbone=speechless)
        self._rows(place, "new.csv", {"id": "x", "text": "a bravo film", "label": ""})
        arguments = _arguments(place, "--policy", policy, backbone=speechless)
        answer = raee(*arguments)
        assert answer.code == 2, answer.err
        assert f"answers 'a bravo film' {self.MATCH}" in answer.error


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

    def test_a_device_that_is_not_there(self, ready):
        match = "backbone.device 'cuda:99' is not there; this machine has cpu"
        _refused(ready, match, *_arguments(ready, backbone=_encoder(ready, device="cuda:99")))

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

    def test_another_prompt_of_which_it_names_some_of_many_labels(self, ready):
        prompt = {"labels": {f"label {n:03d} {'x' * 100}": f"word {n}" for n in range(300)}}
        arguments = _arguments(ready, prompt=prompt)
        match = f"label 009 {'x' * 68}.. and 290 more; build it anew"
        _refused(ready, match, *arguments)

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

    @pytest.mark.parametrize("command", ["classify", "explain", "tune", "prune", "build"])
    def test_a_manifest_in_which_something_was_changed(self, ready, command):
        version = ready.only_version()
        said = manifest_of(version)
        said["costs"]["rows"] += 1
        (version / "manifest.json").write_text(json.dumps(said))
        ready.write("train.csv", sentences(41))
        arguments = {
            "classify": _arguments(ready),
            "explain": ("explain", ready.job(), "a warm film"),
            "tune": ("tune", ready.job()),
            "prune": ("prune", "demo", "--store", ready.store),
            "build": ("build", ready.job()),
        }
        match = f"{version.name} is damaged: manifest.json has another digest than it says"
        _refused(ready, match, *arguments[command])

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


class TestPlaceForFiguresRefused:
    """In one line, before any work: a line of progress would be a second one."""

    @pytest.fixture(params=["evaluate", "tune"])
    def command(self, request, ready):
        more = ("--input", ready.root / "new.csv") if request.param == "evaluate" else ()
        return (request.param, ready.job(), *more, "--json")

    @pytest.mark.parametrize(
        ("name", "match"),
        [
            ("nowhere/figures.json", "there is no folder /"),
            ("job.yaml/figures.json", "there is no folder /"),
            ("", "it is a folder; name a file in it"),
            ("x" * 300, "File name too long"),
        ],
    )
    def test_where_none_can_be(self, ready, command, name, match):
        target = ready.root / name
        before = ready.files()
        answer = raee(*command, target)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert answer.error.startswith(f"--json {target}: {match}")
        assert ready.files() == before

    @pytest.mark.parametrize("there", [False, True])
    def test_where_nobody_may_write(self, ready, command, there):
        folder = ready.root / "folder"
        folder.mkdir()
        if there:
            (folder / "figures.json").touch(0o400)
        folder.chmod(0o500)
        ran = _run_without_privileges(*command, folder / "figures.json")
        what = "you may not write it" if there else f"you may not write to {folder}"
        assert ran.stderr == f"raee: --json {folder}/figures.json: {what}\n"
        assert (ran.returncode, ran.stdout) == (2, "")


@pytest.mark.parametrize("command", ["evaluate", "tune"])
def test_figures_are_printed_though_their_file_cannot_be_written(ready, command):
    more = ("--input", ready.root / "new.csv") if command == "evaluate" else ()
    answer = raee(command, ready.job(), *more, "--json", "/dev/full")
    assert answer.code == 1
    assert "accuracy" in answer.out
    assert answer.error == "/dev/full: No space left on device"


def _run_without_privileges(*arguments):
    """Run a command to which the modes of files apply, even if root runs the tests."""

    def drop():
        if os.getuid() == 0 and ctypes.CDLL(None).prctl(_PR_SET_SECUREBITS, _NO_ROOT) != 0:
            os._exit(77)

    command = [sys.executable, "-c", "from flows.cli.app import main; main()", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, preexec_fn=drop, timeout=60)
    if ran.returncode == 77:
        pytest.skip("root cannot drop its privileges here")
    return ran


class TestOtherCommandsRefuse:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("versions", "nothing"),
            ("versions", "nothing", "--json"),
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

    @pytest.mark.parametrize("damage", [None, "production/00000001.json", "manifest.json"])
    @pytest.mark.parametrize(
        "command", [("versions", "demo"), ("show", "demo"), ("prune", "demo"), ("gc", "demo")]
    )
    def test_as_json_what_they_refuse_without(self, ready, command, damage):
        if damage is None:
            shutil.rmtree(ready.store)
        else:
            next(ready.store.rglob(damage)).write_text("{")
        answers = [raee(*command, *more, "--store", ready.store) for more in ((), ("--json",))]
        assert [answer.code for answer in answers] == [2, 2]
        assert answers[0].error == answers[1].error

    @pytest.mark.parametrize("number", [1, 2, 3, 5])
    def test_an_argument_that_is_no_text(self, ready, number):
        arguments = ["explain", ready.job(), "the plot", "--version", "production"]
        arguments.insert(number, "caf\udce9")  # as Python reads what is no UTF-8
        match = r"the argument 'caf\udce9' is not valid utf-8; convert it"
        _refused(ready, match, *arguments)

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


@pytest.mark.parametrize(
    "command",
    [
        *(("build", "{job}"), ("classify", "{job}", "--input", "x", "--output", "out")),
        *(("evaluate", "{job}", "--input", "x"), ("tune", "{job}"), ("explain", "{job}", "text")),
        *(("prune", "demo", "--store", "{store}"), ("verify", "demo", "--store", "{store}")),
        *(("deploy", "{job}"), ("up", "{job}")),
    ],
    ids=lambda command: command[0],
)
def test_a_setting_of_prefects_that_is_wrong_is_one_line_of_every_command(place, command):
    job = place.job(credentials="the-stores")  # without, evaluate and explain ask Prefect nothing
    arguments = [each.format(job=job, store=place.store) for each in command]
    started = start_raee(*arguments, env=os.environ | {"PREFECT_LOGGING_LEVEL": "nonsense"})
    out, err = started.communicate(timeout=120)
    assert (started.returncode, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("raee: Prefect's setting PREFECT_LOGGING_LEVEL in the environment: ")
    assert not place.store.exists()

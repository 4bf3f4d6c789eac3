import json
import re

import jsonschema
import pytest
import yaml

from raee.config import (
    CascadePolicy,
    FarSpec,
    FixedPolicy,
    Method,
    RaeePolicy,
    RiskSpec,
    TunedPolicy,
)
from raee.errors import InputError
from tasks.job import Job, load_job, validated_policy
from tests.raee.errors import refused

_JOB = {
    "name": "sst2",
    "store": "/data/raee",
    "corpus": {"uri": "train.parquet", "id": "id"},
    "prompt": {"template": "{text} It was {mask}.", "labels": {"no": "bad", "yes": "great"}},
    "backbone": {"family": "masked-lm", "model": "FacebookAI/roberta-large"},
    "key": {"model": "backbone", "layer": 3},
    "policy": {"name": "raee", "k": 5},
    "max_reject_fraction": 0.5,
    "shard_rows": 100,
}


@pytest.fixture
def load(tmp_path):
    """Loads a job file of some content, or of `_JOB` with some keys changed."""

    def load(content=None, **changed):
        path = tmp_path / "job.yaml"
        if content is None:
            content = yaml.safe_dump(_JOB | changed)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_job(str(path))

    return load


def test_a_job_file_says_what_it_says(load):
    job = load()
    assert job.name == "sst2"
    assert job.corpus.text == "text"
    assert job.key.names == ("layer-03",)
    assert job.policy == RaeePolicy(k=5)
    assert (job.keep_text, job.index, job.shard_rows) == (True, "auto", 100)


def test_what_python_sets_is_what_a_job_file_sets():
    for name, field in Method.model_fields.items():
        of_job = Job.model_fields[name]
        assert (field.annotation, field.default, field.metadata) == (
            *(of_job.annotation, of_job.default),
            of_job.metadata,
        )


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"policy": "tuned"},
        {"policy": {"name": "tuned", "risk": {"max_loss": 0.02, "confidence": 0.95}}},
        {"prompt": "sst2", "shard_rows": "auto", "far": None},
        {"prompt": {"labels": [{"no": "bad"}, {"yes": "great"}]}},
    ],
)
def test_the_orchestrators_server_takes_what_a_job_file_may_say(changed):
    """It checks a flow's parameters against their JSON schema before the flow sees them."""
    jsonschema.validate(_JOB | changed, Job.model_json_schema())


@pytest.mark.parametrize("changed", [{"policy": 3}, {"policy": {"name": "none"}}, {"nmae": "x"}])
def test_the_orchestrators_server_refuses_what_no_job_file_may_say(changed):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(_JOB | changed, Job.model_json_schema())


def test_the_design_documents_job_file_is_one(load):
    job = load(
        """
        name: sst2
        store: s3://bucket/raee          # or a folder
        corpus: {uri: data/train/*.parquet, id: id, text: text, label: label}
        prompt: sst2
        backbone: {family: masked-lm, model: FacebookAI/roberta-large, revision: main, dtype: auto}
        key: {model: backbone, layer: 0}
        policy: {name: tuned, accuracy: best}
        far: {quantile: 0.999, then: full}
        balance: auto
        sample_rows: 20000
        words_rows: 200000
        index: auto
        keep_text: true
        max_reject_fraction: 0.01
        shard_rows: auto
        """
    )
    defaults = Job.model_validate(
        {key: _JOB[key] for key in ("name", "backbone")}
        | {"store": "s3://bucket/raee", "prompt": "sst2"}
        | {"corpus": {"uri": "data/train/*.parquet", "id": "id"}}
    )
    assert job == defaults


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"prompt": None},
        {"prompt": "trec"},
        {"policy": "cascade"},
        {"policy": {"name": "fixed", "exit": "head@4"}},
        {"policy": {"name": "cascade", "last": 1, "threshold": [0.5, 0.9]}},
        {"policy": {"name": "tuned", "risk": {"max_loss": 0.01}}},
        {"key": {"model": "/models/minilm", "revision": "abc"}},
        {"key": {"layers": [0, 2]}},
        {"far": None},
        {"far": {"quantile": 0.9, "then": "abstain"}},
        {"balance": "corpus"},
        {"shard_rows": "auto"},
    ],
)
def test_a_job_comes_back_from_json(load, changed):
    job = load(**changed)
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert Job.model_validate(json.loads(json.dumps(job.model_dump(mode="json")))) == job


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("raee", RaeePolicy()),
        ("cascade", CascadePolicy()),
        ({"name": "cascade", "threshold": 0.5}, CascadePolicy(threshold=0.5)),
        ({"name": "fixed", "exit": "vote@3"}, FixedPolicy(exit="vote@3")),
        ("tuned", TunedPolicy()),
        ({"name": "tuned", "accuracy": 0.9}, TunedPolicy(accuracy=0.9)),
        (
            {"name": "tuned", "risk": {"max_loss": 0.02}},
            TunedPolicy(risk=RiskSpec(max_loss=0.02, confidence=0.95)),
        ),
    ],
)
def test_a_policy_is_a_name_or_has_settings(load, policy, expected):
    assert load(policy=policy).policy == expected


def test_without_a_policy_the_tuned_one_runs_and_far_rows_go_to_full_depth():
    least = {key: _JOB[key] for key in ("name", "store", "corpus", "backbone")}
    job = Job.model_validate(least)
    assert job.policy == TunedPolicy(accuracy="best", risk=None)
    assert job.far == FarSpec(quantile=0.999, then="full")
    assert (job.balance, job.sample_rows) == ("auto", 20_000)


def test_a_job_of_the_first_format_still_reads():
    """A manifest of it names neither `far`, `balance` and `sample_rows` nor a key's `layers`."""
    key = {"model": "backbone", "layer": 3, "revision": "main"}
    policy = {"name": "cascade", "threshold": 0.9, "first": 0}
    job = Job.model_validate(_JOB | {"key": key, "policy": policy})
    assert (job.key.depths, job.policy.threshold) == ((3,), 0.9)


class TestVariables:
    def test_are_expanded_from_the_environment(self, load, monkeypatch):
        monkeypatch.setenv("RAEE_TEST_ROOT", "/data")
        monkeypatch.setenv("RAEE_TEST_EMPTY", "")
        corpus = {"uri": "${RAEE_TEST_ROOT}/x/${RAEE_TEST_EMPTY}${RAEE_TEST_ROOT}.csv"}
        job = load(store="${RAEE_TEST_ROOT}", corpus=corpus)
        assert job.store == "/data"
        assert job.corpus.uri == "/data/x//data.csv"

    def test_are_expanded_in_lists_too(self, load, monkeypatch):
        monkeypatch.setenv("RAEE_TEST_WORD", "great")
        job = load(prompt={"labels": [{"no": "bad"}, {"yes": "${RAEE_TEST_WORD}"}]})
        assert job.prompt.labels == {"no": "bad", "yes": "great"}

    def test_are_not_expanded_twice(self, load, monkeypatch):
        monkeypatch.setenv("RAEE_TEST_ROOT", "${RAEE_TEST_UNSET}")
        monkeypatch.delenv("RAEE_TEST_UNSET", raising=False)
        assert load(store="${RAEE_TEST_ROOT}").store == "${RAEE_TEST_UNSET}"

    def test_need_braces(self, load):
        assert load(store="$HOME/{text}").store == "$HOME/{text}"

    @pytest.mark.parametrize(
        ("key", "changed"),
        [
            ("store", {"store": "${RAEE_TEST_UNSET}"}),
            ("corpus.uri", {"corpus": {"uri": "a/${RAEE_TEST_UNSET}/b.csv"}}),
            ("prompt.labels.no", {"prompt": {"labels": {"no": "${RAEE_TEST_UNSET}"}}}),
            (
                "prompt.labels.1.b",
                {"prompt": {"labels": [{"a": "x"}, {"b": "${RAEE_TEST_UNSET}"}]}},
            ),
        ],
    )
    def test_that_are_not_set_are_named_with_their_key(self, load, monkeypatch, key, changed):
        monkeypatch.delenv("RAEE_TEST_UNSET", raising=False)
        with refused(f"job.yaml: {key}: environment variable RAEE_TEST_UNSET is not set"):
            load(**changed)


class TestRefused:
    """Every mistake is one line that names the file and the key."""

    @pytest.mark.parametrize(
        ("key", "changed"),
        [
            ("strenght", {"strenght": 5}),
            ("backbone.size", {"backbone": _JOB["backbone"] | {"size": "large"}}),
            ("policy.k", {"policy": {"name": "full", "k": 3}}),
            ("policy.risk.max", {"policy": {"name": "tuned", "risk": {"max_loss": 0.1, "max": 1}}}),
        ],
    )
    def test_unknown_key(self, load, key, changed):
        with refused(f"job.yaml: {key}: unknown key$"):
            load(**changed)

    @pytest.mark.parametrize(
        ("key", "meant", "changed"),
        [
            ("stoer", "store", {"stoer": "x"}),
            ("max_rejects_fraction", "max_reject_fraction", {"max_rejects_fraction": 1}),
            ("corpus.url", "uri", {"corpus": {"uri": "x", "url": "y"}}),
            ("prompt.templ", "template", {"prompt": {"labels": {"a": "b"}, "templ": "x"}}),
            ("key.layr", "layer", {"key": {"layr": 3}}),
            ("policy.kk", "k", {"policy": {"name": "raee", "kk": 3}}),
            ("policy.pricee", "price", {"policy": {"name": "tuned", "pricee": 0}}),
            (
                "policy.risk.confidenc",
                "confidence",
                {"policy": {"name": "tuned", "risk": {"max_loss": 0.1, "confidenc": 1}}},
            ),
            ("far.quantil", "quantile", {"far": {"quantil": 0.9}}),
        ],
    )
    def test_unknown_key_that_is_nearly_one_of_its_section(self, load, key, meant, changed):
        with refused(f"job.yaml: {key}: unknown key; did you mean {meant}[?]$"):
            load(**changed)

    @pytest.mark.parametrize(
        ("key", "changed"),
        [
            ("corpus.uri", {"corpus": {}}),
            ("prompt.labels", {"prompt": {"template": "{text}"}}),
            ("backbone.family", {"backbone": {"model": "x"}}),
            ("backbone.model", {"backbone": {"family": "masked-lm"}}),
            ("policy.name", {"policy": {"k": 12}}),
            ("policy.risk.max_loss", {"policy": {"name": "tuned", "risk": {"confidence": 0.9}}}),
        ],
    )
    def test_missing_key(self, load, key, changed):
        with refused(f"job.yaml: {key}: missing$"):
            load(**changed)

    def test_missing_keys_all_in_one_line(self, load):
        with refused("job.yaml: store: missing; corpus: missing; backbone: missing$"):
            load("name: x")

    def test_what_is_long_is_truncated(self, load):
        with refused(r"job.yaml: name: string should .{,200}\(it is 'x{77}\.\.\)$"):
            load(name="x" * 100_000)
        labels = {f"label {n}": 5 for n in range(4_000)}
        with refused(r"; prompt.labels.label 1005: .{,100}; and 3,990 more$"):
            load(prompt={"labels": labels})
        with refused(r"prompt: .{,300}\(it is \['x.{,80}, \.\.\.\]\)$"):
            load(prompt=["x"] * 4_000)

    @pytest.mark.parametrize(
        ("key", "changed"),
        [
            ("name", {"name": "SST2"}),
            ("name", {"name": "../x"}),
            ("name", {"name": "-x"}),
            ("name", {"name": "x" * 64}),
            ("name", {"name": 5}),
            ("store", {"store": ""}),
            ("corpus", {"corpus": "train.csv"}),
            ("corpus.label", {"corpus": {"uri": "x", "label": 5}}),
            ("prompt", {"prompt": 5}),
            ("prompt.labels", {"prompt": {"labels": {}}}),
            ("prompt.labels.strong", {"prompt": {"labels": {"strong": 5}}}),
            ("prompt.labels", {"prompt": {"labels": ["strong", "weak"]}}),
            ("backbone.family", {"backbone": {"family": "causal", "model": "x"}}),
            ("backbone.dtype", {"backbone": _JOB["backbone"] | {"dtype": "int4"}}),
            ("key.layer", {"key": {"layer": -1}}),
            ("key", {"key": {"model": "/models/minilm", "layer": 3}}),
            ("policy", {"policy": 5}),
            ("policy.k", {"policy": {"name": "raee", "k": 0}}),
            ("policy.threshold", {"policy": {"name": "raee", "threshold": 1.5}}),
            ("policy.cost", {"policy": {"name": "kernel", "cost": float("inf")}}),
            ("policy.threshold", {"policy": {"name": "cascade", "threshold": 1.5}}),
            ("policy", {"policy": {"name": "cascade", "threshold": [0.5]}}),
            ("policy", {"policy": {"name": "cascade", "threshold": [0.5, 0.9], "last": 2}}),
            ("policy", {"policy": {"name": "cascade", "first": 3, "last": 1}}),
            ("policy.readers", {"policy": {"name": "cascade", "readers": []}}),
            ("policy.readers.0", {"policy": {"name": "kernel", "readers": ["hed"]}}),
            ("policy.accuracy", {"policy": {"name": "tuned", "accuracy": "good"}}),
            ("policy.accuracy", {"policy": {"name": "tuned", "accuracy": 1.5}}),
            ("policy.risk.max_loss", {"policy": {"name": "tuned", "risk": {"max_loss": 0}}}),
            (
                "policy",
                {"policy": {"name": "tuned", "accuracy": "full", "risk": {"max_loss": 0.1}}},
            ),
            ("key.layers.0", {"key": {"layers": [-1]}}),
            ("key", {"key": {"layers": [2, 1]}}),
            ("key", {"key": {"layers": [1, 1]}}),
            ("key", {"key": {"layers": [1], "layer": 2}}),
            ("key", {"key": {"model": "/models/minilm", "layers": [1]}}),
            ("far", {"far": "full"}),
            ("far.quantile", {"far": {"quantile": 1}}),
            ("far.then", {"far": {"then": "stop"}}),
            ("balance", {"balance": "even"}),
            ("sample_rows", {"sample_rows": 0}),
            ("index", {"index": ""}),
            ("credentials", {"credentials": ""}),
            ("single_writer", {"single_writer": "often"}),
            ("keep_text", {"keep_text": "perhaps"}),
            ("max_reject_fraction", {"max_reject_fraction": 1.01}),
            ("max_reject_fraction", {"max_reject_fraction": float("nan")}),
            ("shard_rows", {"shard_rows": 0}),
            ("shard_rows", {"shard_rows": "some"}),
        ],
    )
    def test_bad_value(self, load, key, changed):
        with refused(rf"job.yaml: {key}: .+ \(it is .+\)"):
            load(**changed)

    @pytest.mark.parametrize(
        ("changed", "line"),
        [
            ({"policy": None}, "policy: input should be a name or a mapping (it is null)"),
            ({"corpus": "x.csv"}, "corpus: input should be a mapping (it is 'x.csv')"),
            ({"key": {"layers": "0"}}, "key.layers: input should be a list (it is '0')"),
            ({"prompt": {"labels": {}}}, "prompt.labels: input should not be empty (it is {})"),
            (
                {"policy": {"name": "kernel", "readers": ["x"]}},
                "policy.readers.0: there is no reader 'x'; there are head, vote, probe, probes, "
                "de3, logistic, words, pool (it is 'x')",
            ),
        ],
    )
    def test_in_the_words_of_yaml_and_each_mistake_once(self, load, changed, line):
        with refused(f"job.yaml: {re.escape(line)}$"):
            load(**changed)

    @pytest.mark.parametrize(
        ("changed", "line"),
        [
            (
                {"policy": {"name": "tuned", "accuracy": 1.5}},
                "policy.accuracy: input should be 'best' or 'full' (it is 1.5); "
                "policy.accuracy: input should be less than or equal to 1 (it is 1.5)",
            ),
            (
                {"policy": {"name": "cascade", "last": 1, "threshold": [0.5, 2]}},
                "policy.threshold: input should be a valid number (it is [0.5, 2]); "
                "policy.threshold.1: input should be less than or equal to 1 (it is 2)",
            ),
            (
                {"shard_rows": 0},
                "shard_rows: input should be greater than or equal to 1 (it is 0); "
                "shard_rows: input should be 'auto' (it is 0)",
            ),
        ],
    )
    def test_a_value_of_several_kinds_by_the_keys_that_the_user_wrote(self, load, changed, line):
        with refused(f"job.yaml: {re.escape(line)}$"):
            load(**changed)

    @pytest.mark.parametrize(
        ("key", "shown", "content"),
        [
            ("store", "no, a boolean to YAML; put text in quotes", "store: no"),
            ("name", "012, a number to YAML; put text in quotes", "name: 012"),
            (
                "corpus.label",
                "2024-01-01, a date to YAML; put text in quotes",
                "corpus: {uri: x, label: 2024-01-01}",
            ),
            (
                "prompt.labels.bad",
                "off, a boolean to YAML; put text in quotes",
                "prompt: {labels: {bad: off}}",
            ),
            ("prompt.labels", r"\[Yes, 'no'\]", "prompt: {labels: [Yes, 'no']}"),
            ("sample_rows", "0x0", "sample_rows: 0x0"),
        ],
    )
    def test_a_value_is_shown_as_it_is_written(self, load, key, shown, content):
        with refused(rf"job.yaml: .*\b{key}: [^;]+ \(it is {shown}\)"):
            load(content)

    def test_a_value_is_shown_in_a_line_however_large_it_is(self, load):
        anchors = ["a: &a [x, x, x, x, x]"] + [
            f"{name}: &{name} [{', '.join([f'*{before}'] * 5)}]"
            for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
        ]
        for content in ("\n".join([*anchors, "name: *l"]), f"name: {'x' * 100_000}"):
            with pytest.raises(InputError) as caught:
                load(content)
            assert len(str(caught.value)) < 2_000

    @pytest.mark.parametrize("policy", ["best", {"name": "best"}])
    def test_unknown_policy_with_those_that_are_there(self, load, policy):
        with refused("job.yaml: policy: 'best' is none of 'full', 'fixed', 'retrieval', 'raee'"):
            load(policy=policy)


def test_a_policy_by_name_has_its_defaults():
    assert validated_policy("raee") == RaeePolicy()


def test_a_policy_that_is_not_there_is_refused_with_those_that_are():
    with refused(
        "policy: 'best' is none of 'full', 'fixed', 'retrieval', 'raee', 'kernel', 'cascade'"
    ):
        validated_policy("best")


def test_a_job_file_need_not_be_ascii(load, tmp_path):
    labels = {"schlecht": "schlecht 😀", "груб": "груб"}
    assert load(prompt={"labels": labels}).prompt.labels == labels

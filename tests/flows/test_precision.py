"""In which number format a build reads, and what becomes of it in rebuilds and with workers."""

import json

import pytest

from raee.model import precision as trials
from tasks.build import planning
from tasks.build.build import PRECISION, Build
from tasks.build.centre import read_database_centre
from tasks.build.planning import plan_build
from tasks.build.sweep import sweep_shard
from tasks.classify import plan as classify_planning
from tasks.classify.plan import plan_classification
from tasks.job import load_job
from tests.flows.jobs import Workplace, manifest_of, predictions_of, raee
from tests.flows.rebuilds import Swept
from tests.texts import sentences


@pytest.fixture
def fastest(monkeypatch):
    """Says which format a trial finds fastest; the trials are real."""

    def say(name: str) -> None:
        monkeypatch.setattr(trials, "native_formats", lambda: ["float32", name])
        monkeypatch.setattr(trials, "_SECONDS", 0.0)
        monkeypatch.setattr(trials, "_WORTH", 1e9)
        trials.precision_of.cache_clear()

    yield say
    trials.precision_of.cache_clear()


@pytest.fixture
def place(tmp_path, model_of) -> Workplace:
    return Workplace(tmp_path, model_of)


def _auto(place, **more):
    model = place.model_of("bert-encoder")
    return {"backbone": {"family": "sentence-encoder", "model": model, **more}}


def test_a_manifest_says_what_was_chosen_and_why_and_a_rebuild_keeps_it(
    place, fastest, monkeypatch
):
    fastest("bfloat16")
    first = place.version(place.build(**_auto(place)))
    chosen = manifest_of(first)["precision"]
    assert chosen["dtype"] == manifest_of(first)["backbone"]["dtype"] == "bfloat16"
    assert set(chosen["milliseconds"]) == {"float32", "bfloat16"}
    assert chosen["why"].startswith("the fastest: float32 ")
    # Another machine may find another one: the readings that are reused are in the parent's.
    monkeypatch.setattr(trials, "native_formats", lambda: ["float32"])
    trials.precision_of.cache_clear()
    swept = Swept(monkeypatch)
    assert raee("build", place.job(**_auto(place))).out.strip() == first.name
    place.write("train.csv", sentences(50))
    second = place.version(place.build(**_auto(place)))
    assert swept.texts().total() == 10
    assert manifest_of(second)["precision"] == chosen
    assert len(predictions_of(place.classify(place.write("new.csv", sentences(6)), "out"))) == 6


def test_a_format_that_is_named_is_a_change_and_nothing_is_reused(place, fastest, monkeypatch):
    fastest("bfloat16")
    place.build(**_auto(place))
    swept = Swept(monkeypatch)
    named = place.version(place.build(**_auto(place, dtype="float32")))
    assert swept.texts().total() == 40
    assert manifest_of(named)["precision"]["why"] == "the job names it"
    # The format that is found anew is another than that.
    assert (
        manifest_of(place.version(place.build(**_auto(place))))["backbone"]["dtype"] == "bfloat16"
    )


def test_who_classifies_in_another_format_than_the_versions_is_told(place, fastest, caplog):
    fastest("bfloat16")
    place.build(**_auto(place))
    input = place.write("new.csv", sentences(6))
    place.classify(input, "out", **_auto(place))
    assert "fitted to that" not in caplog.text
    place.classify(input, "again", **_auto(place, dtype="float32"))
    assert (
        "was read in bfloat16 and fitted to that; the job has it classify in float32" in caplog.text
    )


def test_a_version_of_an_older_raee_is_read_anew_once(place, fastest, caplog):
    version = place.version(place.build(**_auto(place, dtype="float32")))
    _forget_precision(version)
    fastest("bfloat16")
    answer = raee("build", place.job(**_auto(place)))
    assert f"nothing of version {version.name} is reused: it was read in float32" in answer.err
    again = raee("build", place.job(**_auto(place)))
    assert "nothing has changed" in again.err


def test_with_workers_no_model_is_loaded_to_plan_and_the_first_that_reads_chooses(
    place, fastest, monkeypatch
):
    fastest("bfloat16")
    for module in (planning, classify_planning):
        name = "backbone_of" if module is planning else "load_database"
        monkeypatch.setattr(module, name, None)
    planned = plan_build.fn(load_job(place.job(**_auto(place))), by_workers=True)
    build = Build(planned.work)
    assert build.plan.precision is None
    assert not build.folder.exists(PRECISION)
    read_database_centre.run(planned.work)
    assert json.loads(build.folder.read(PRECISION))["dtype"] == "bfloat16"
    # Another worker, whose machine would choose another format.
    monkeypatch.setattr(trials, "native_formats", lambda: ["float32"])
    trials.precision_of.cache_clear()
    sweep_shard.run(planned.work, 0)
    assert Build(planned.work).precision.dtype == build.precision.dtype == "bfloat16"
    assert build.backbone.dtype == "bfloat16"


def test_with_workers_no_model_is_loaded_to_plan_a_classification(place, monkeypatch):
    version = place.build()
    job = load_job(place.job())
    monkeypatch.setattr(classify_planning, "load_database", None)
    input = place.write("new.csv", sentences(6))
    options = job, input, str(place.root / "out"), None, job.policy
    planned = plan_classification.fn(*options, by_workers=True)
    assert (planned.rows, planned.version) == (6, version)


def _forget_precision(version):
    path = version / "manifest.json"
    fields = json.loads(path.read_text())
    del fields["precision"], fields["digest"]
    fields["job"]["backbone"]["dtype"] = "auto"
    path.write_text(json.dumps(fields))

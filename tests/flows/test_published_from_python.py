"""A version that Python published is one as any other for every command."""

import pytest

from raee import Classifier
from tests.flows.jobs import Workplace, manifest_of, predictions_of, raee
from tests.texts import LABELS, sentences

ROWS = sentences(60)


@pytest.fixture(scope="module")
def place(tmp_path_factory, model_of) -> Workplace:
    """A place whose job is that of a version which Python has published there."""
    place = Workplace(tmp_path_factory.mktemp("python"), model_of)
    prompt = {"labels": {label: f"a {label} film" for label in LABELS}}
    classifier = Classifier(model_of("bert-encoder"), prompt=prompt, key={"layer": 1})
    texts, labels = [row["text"] for row in ROWS], [row["label"] for row in ROWS]
    version = classifier.fit(texts, labels).publish(str(place.store), "demo")
    assert place.only_version().name == version
    return place


def test_it_is_whole_and_classifies(place):
    version = place.only_version().name
    listed = raee("versions", "demo", "--store", place.store)
    assert listed.code == 0
    assert version in listed.out
    assert raee("verify", f"demo@{version}", "--store", place.store).code == 0
    output = place.classify(place.write("new.csv", sentences(20, seed=1)), "out")
    assert manifest_of(output)["version"] == version
    found = predictions_of(output)
    loaded = Classifier.load(str(place.store), "demo")
    own = loaded.classify([row["text"] for row in sentences(20, seed=1)])
    assert found["label_name"].to_pylist() == own["label"].to_list()
    assert found["confidence"].to_pylist() == pytest.approx(own["confidence"].to_list(), abs=1e-4)
    assert found["depth"].to_pylist() == own["depth"].to_list()


def test_commands_build_on_it_prune_it_and_collect_it(place):
    first = place.only_version().name
    assert "<svg" in (place.version(first) / "report.html").read_text()
    assert raee("tune", place.job()).code == 0
    place.write("train.csv", [*ROWS, *sentences(80, seed=3)[60:]])
    built = raee("build", place.job())
    assert built.code == 0, built.err
    assert "20 rows are new, 60 known" in built.err
    second = manifest_of(place.version(built.out.strip()))
    assert second["parent"] == first
    assert raee("promote", "demo", first, "--store", place.store).code == 0
    pruned = raee("prune", f"demo@{first}", "--store", place.store)
    assert pruned.code == 0, pruned.err
    collected = raee("gc", "demo", "--keep", "1", "--store", place.store)
    assert collected.code == 0, collected.err
    assert Classifier.load(str(place.store), "demo@production").predict(["a film"]).shape == (1,)

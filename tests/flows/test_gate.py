"""A build promotes its version unless it is worse than production beyond noise."""

import json

from tests.flows.jobs import manifest_of, raee
from tests.flows.opinions import opinions
from tests.texts import sentences


def _built(place, **changed):
    """Build a version; its id, and what the gate said of it."""
    answer = raee("build", place.job(**{"shard_rows": 100} | changed))
    assert answer.code == 0, answer.err
    version = answer.out.strip()
    said = [line for line in answer.err.splitlines() if "promoted" in line or "now points" in line]
    assert len(said) == 1
    assert version in said[0]
    return version, said[0]


def _production(place):
    lines = json.loads(raee("versions", "demo", "--store", place.store, "--json").out)
    (version,) = (line["id"] for line in lines if "production" in line["aliases"])
    return version


def test_a_worse_version_stays_out_and_the_flow_says_why(taught):
    before = taught.only_version().name
    assert _production(taught) == before
    worse, said = _built(taught, policy={"name": "fixed", "exit": "head@0"})
    assert (
        f"{worse} stays unpromoted: it is worse beyond noise: against production ({before})" in said
    )
    assert "on 300 rows in common" in said
    assert said.endswith("below 0.007")
    assert _production(taught) == before
    output = taught.classify(str(taught.root / "train.csv"), shard_rows=100)
    assert manifest_of(output)["version"] == before
    # It is there for whoever names it.
    assert raee("promote", "demo", worse, "--store", taught.store).code == 0


def test_corrected_labels_count_for_both(taught):
    """The old version is not right because it answers as its wrong labels taught it."""
    corrected = opinions(taught.model_of("bert-encoder"), 300, noise=0)
    before = {row["id"]: row["label"] for row in opinions(taught.model_of("bert-encoder"), 300)}
    assert [row["id"] for row in corrected] == list(before)
    changed = sum(row["label"] != before[row["id"]] for row in corrected)
    assert changed > 10
    taught.write("train.csv", corrected)
    version, said = _built(taught)
    assert f"production now points at {version}: against production" in said
    assert "on 300 rows in common the probes' mean accuracy" in said
    figures = manifest_of(taught.version(version))["metrics"]["tuned"]
    pace = f"{figures['accuracy']:.4f} at {1000 * figures['seconds_per_row']:.2f} ms a row"
    assert f"its policy has {pace}, before 0." in said
    assert _production(taught) == version


def test_without_a_row_in_common_accuracies_are_compared(published):
    """A corrected text under its old name is another row."""
    rows = [row | {"text": f"{row['text']} again"} for row in sentences(40)]
    published.write("train.csv", rows)
    version, said = _built(published)
    assert f"production now points at {version}: against" in said
    assert "no row in common; accuracy 0." in said
    assert _production(published) == version

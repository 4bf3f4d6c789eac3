"""`raee evaluate`: every policy on labelled texts that the database has not seen."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score, matthews_corrcoef

from tests.flows.jobs import Workplace, entries_of, manifest_of, predictions_of, raee
from tests.flows.opinions import opinions
from tests.texts import LABELS

_ROWS = 90
_POLICIES = [
    *("words", "logistic", "full", "fixed", "retrieval", "raee"),
    *("kernel", "de3", "cascade", "tuned"),
]
_BASELINES = ("majority", "words", "logistic")


@pytest.fixture(scope="module")
def place(taught_once) -> Workplace:
    """The shared place: only its outputs are written here, each under its own name."""
    rows = opinions(taught_once.model_of("bert-encoder"), _ROWS, seed=11)
    taught_once.write("evaluate/test.csv", rows)
    far = [
        {"id": f"far-{i}", "text": f"zz{i} ??? qq{i} !!!", "label": LABELS[i % 3]}
        for i in range(10)
    ]
    taught_once.write("evaluate/far.csv", [*rows[:20], *far])
    skewed = opinions(taught_once.model_of("bert-encoder"), 150, 9, shares=(0, 1, 0), telling=1)
    taught_once.write("evaluate/skewed.csv", skewed)
    return taught_once


def _evaluated(place, input, **changed):
    """The figures, and what the command printed."""
    file = place.root / "evaluate/figures.json"
    arguments = ("--input", place.root / f"evaluate/{input}", "--json", file)
    answer = raee("evaluate", place.job(**changed), *arguments)
    assert answer.code == 0, answer.err
    return json.loads(file.read_text()), answer.out


@pytest.fixture(scope="module")
def evaluated(place):
    return _evaluated(place, "test.csv")


@pytest.fixture
def figures(evaluated):
    return evaluated[0]


def _labels(place, input="test.csv"):
    lines = (place.root / f"evaluate/{input}").read_text().splitlines()[1:]
    return [line.split(",")[2] for line in lines]


def _classified(place, input, output, **changed):
    """What a classification answers, row by row; and its manifest."""
    where = place.classify(
        str(place.root / f"evaluate/{input}"), f"evaluate/{output}", **changed, shard_rows=100
    )
    return predictions_of(where)["label_name"].to_pylist(), manifest_of(where)


def test_the_documented_figures_are_there_for_every_compared_policy(figures, place):
    assert (figures["rows"], figures["labels"], figures["depth"]) == (_ROWS, list(LABELS), 4)
    assert figures["version"] == place.only_version().name
    assert list(figures["policies"]) == list(figures["settings"]) == _POLICIES
    for policy in figures["policies"].values():
        assert 0 <= policy["accuracy"] <= 1
        assert policy["rows_per_second"] > 0
        assert sum(policy["exits"].values()) == _ROWS


def test_scores_are_those_of_what_a_classification_answers(figures, place):
    right = _labels(place)
    for name, said in figures["policies"].items():
        # The job's own policy looks at far rows, as a classification does; the others do not.
        more = {} if name == "tuned" else {"far": None}
        answers, manifest = _classified(
            place, "test.csv", name, policy=figures["settings"][name], **more
        )
        hits = [a == b for a, b in zip(answers, right, strict=True)]
        assert said["accuracy"] == pytest.approx(np.mean(hits))
        assert said["macro_f1"] == pytest.approx(f1_score(right, answers, average="macro"))
        assert said["matthews"] == pytest.approx(matthews_corrcoef(right, answers))
        assert said["mean_layers"] == pytest.approx(manifest["mean_layers"])
        assert said["exits"] == manifest["exits"]


def test_an_interval_contains_the_accuracy_and_is_as_wide_as_the_rows_allow(figures):
    for said in figures["policies"].values():
        low, high = said["accuracy_interval"]
        accuracy = said["accuracy"]
        assert low <= accuracy <= high
        error = np.sqrt(accuracy * (1 - accuracy) / _ROWS)
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.2, abs=1e-9)


@pytest.mark.parametrize("name", ["full", "words", "logistic"])
def test_policies_are_compared_with_each_baseline_row_by_row(figures, name):
    baseline = figures["policies"][name]
    itself = baseline["against"][name]
    assert (itself["wins"], itself["losses"], itself["p_value"]) == (0, 0, 1.0)
    for said in figures["policies"].values():
        assert set(said["against"]) == {"full", *_BASELINES}
        against = said["against"][name]
        wins, losses = against["wins"], against["losses"]
        assert (wins - losses) / _ROWS == pytest.approx(said["accuracy"] - baseline["accuracy"])
        assert against["difference"] == pytest.approx(said["accuracy"] - baseline["accuracy"])
        low, high = against["difference_interval"]
        assert low <= against["difference"] <= high
        assert 0 <= wins + losses <= _ROWS
        expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        assert against["p_value"] == pytest.approx(expected)


def test_the_majority_is_the_databases_most_frequent_label_and_no_policy(figures, place):
    entries, right = entries_of(place.only_version()), _labels(place)
    counts = np.bincount(entries["label"].to_numpy())
    most = manifest_of(place.only_version())["labels"][counts.argmax()]
    found = figures["majority"]
    assert found["accuracy"] == pytest.approx(np.mean([label == most for label in right]))
    assert (found["mean_layers"], found["rows_per_second"], found["exits"]) == (0, None, {})
    for said in figures["policies"].values():
        difference = said["accuracy"] - found["accuracy"]
        assert said["against"]["majority"]["difference"] == pytest.approx(difference)


def test_the_jobs_policy_is_compared_with_the_best_baseline_in_words(evaluated):
    figures, out = evaluated
    against = figures["policies"]["tuned"]["against"]
    best = min(_BASELINES, key=lambda name: against[name]["difference"])
    assert figures["notes"][0].startswith(f"tuned against {best} (")
    assert f"{100 * against[best]['difference']:+.1f} points" in figures["notes"][0]
    assert out.splitlines()[-len(figures["notes"]) :] == figures["notes"]


def test_a_better_baseline_is_named(place):
    """The model's own head has learnt nothing."""
    figures, out = _evaluated(place, "test.csv", policy="full")
    assert "is right more often than full, beyond noise" in figures["notes"][1]
    assert out.splitlines()[-1] == figures["notes"][1]


def test_what_a_policy_chooses_it_chooses_on_the_database(figures, place):
    manifest, entries = manifest_of(place.only_version()), entries_of(place.only_version())
    right = np.array(entries["answers"].to_pylist()) == entries["label"].to_numpy()[:, None]
    rates = dict(zip(manifest["exits"], right.sum(axis=0), strict=True))
    (exit,) = figures["policies"]["fixed"]["exits"]
    assert rates[exit] == max(n for e, n in rates.items() if not e.startswith("de3@"))
    for name in ("kernel", "de3", "cascade"):
        assert figures["settings"][name] == manifest["tuning"]["families"][name]["policy"]


def test_the_table_has_a_line_for_each_policy(evaluated):
    figures, out = evaluated
    lines = out.splitlines()
    assert lines[0].split()[:5] == ["policy", "accuracy", "95", "%", "macro-F1"]
    lines = lines[: len(lines) - len(figures["notes"])]
    assert [line.split()[0] for line in lines[1:]] == ["majority", *_POLICIES]
    shown = [figures["majority"], *figures["policies"].values()]
    for line, said in zip(lines[1:], shown, strict=True):
        low, high = said["accuracy_interval"]
        expected = [f"{said['accuracy']:.3f}", f"{low:.3f}", "to", f"{high:.3f}"]
        assert line.split()[1:5] == expected


def test_a_jobs_own_policy_has_the_jobs_settings(place):
    policy = {"name": "cascade", "readers": ["head"], "threshold": 0.4}
    figures, _ = _evaluated(place, "test.csv", policy=policy)
    assert list(figures["policies"]) == _POLICIES
    assert figures["settings"]["cascade"] == policy | {"first": 0, "last": None}
    assert all(exit.startswith("head@") for exit in figures["policies"]["cascade"]["exits"])


def test_rows_left_unlabelled_are_not_right(place):
    changed = {"policy": "retrieval", "far": {"quantile": 0.9, "then": "abstain"}}
    figures, _ = _evaluated(place, "far.csv", **changed)
    said = figures["policies"]["retrieval"]
    answers, manifest = _classified(place, "far.csv", "far", **changed)
    assert said["far"] == said["exits"]["abstain"] == answers.count(None) >= 10
    assert said["exits"] == manifest["exits"]
    right = [a == b for a, b in zip(answers, _labels(place, "far.csv"), strict=True)]
    assert said["accuracy"] == pytest.approx(np.mean(right))
    assert "abstain" not in figures["policies"]["full"]["exits"]
    assert figures["policies"]["full"]["far"] == 0


def test_readers_are_corrected_by_the_corpus_shares_where_the_job_says_so(place):
    policy = {"name": "fixed", "exit": "probe@0"}
    plain, _ = _evaluated(place, "skewed.csv", policy=policy, balance="database")
    found, _ = _evaluated(place, "skewed.csv", policy=policy, balance="corpus")
    accuracy = [f["policies"]["fixed"]["accuracy"] for f in (plain, found)]
    assert accuracy[1] > accuracy[0]
    answers, _ = _classified(place, "skewed.csv", "skewed", policy=policy, balance="corpus")
    right = [a == b for a, b in zip(answers, _labels(place, "skewed.csv"), strict=True)]
    assert accuracy[1] == pytest.approx(np.mean(right))
    # The head has learnt no shares.
    heads = [f["policies"]["full"]["accuracy"] for f in (plain, found)]
    assert heads[0] == heads[1]


def test_an_objective_that_nothing_reaches_leaves_only_that_policy_out(place):
    figures, _ = _evaluated(place, "far.csv", policy={"name": "tuned", "accuracy": 0.99})
    assert list(figures["policies"]) == _POLICIES[:-1]
    assert figures["notes"] == []

"""`raee explain`: what a version says of one text, and why it leaves where it does."""

import json

import numpy as np
import pytest

from raee.config import PRICE
from raee.statistics.calibration import Line
from tests.flows.jobs import (
    Workplace,
    entries_of,
    exits_of_entry,
    manifest_of,
    predictions_of,
    raee,
)
from tests.flows.opinions import mean_states, opinions
from tests.texts import sentences

_FAR = "zzz ??? 999 qqq !!! 000 xxx 111"


@pytest.fixture(scope="module")
def place(taught_once) -> Workplace:
    """The shared place: only its outputs are written here, each under its own name."""
    return taught_once


def _explained(place, text, *more, **changed):
    answer = raee("explain", place.job(**changed), text, "--json", *more)
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def _texts(place):
    return [row["text"] for row in opinions(place.model_of("bert-encoder"), 8, seed=4)]


class TestAsJson:
    def test_says_what_was_asked_and_what_ran(self, place):
        found = _explained(place, "the film was terrible")
        version = place.only_version().name
        assert (found["database"], found["version"], found["depth"]) == ("demo", version, 4)
        assert found["policy"] == {
            "name": "tuned",
            "accuracy": "best",
            "price": PRICE,
            "risk": None,
        }
        output = place.classify(str(place.root / "train.csv"), "explain/runs", shard_rows=100)
        assert found["runs"] == manifest_of(output)["runs"]
        assert (found["far"], found["cut"]) == (False, False)

    def test_names_the_nearest_neighbours(self, place):
        text = "a warm story made the plot great"
        entries = entries_of(place.only_version())
        keys = mean_states(place.model_of("bert-encoder"), [text, *entries["text"].to_pylist()])[1]
        distances = np.square(keys[1:] - keys[0]).sum(axis=1)
        nearest = np.argsort(distances)[:5]
        labels = manifest_of(place.only_version())["labels"]
        answers = np.array(entries["answers"].to_pylist())
        found = _explained(place, text)["neighbours"]
        for near, row in zip(found, nearest.tolist(), strict=True):
            assert near["id"] == entries["id"][row].as_py()
            assert near["text"] == entries["text"][row].as_py()
            assert near["label"] == labels[entries["label"][row].as_py()]
            assert near["distance"] == pytest.approx(distances[row], abs=1e-5)
            right = [d for d in range(5) if answers[row, d] == entries["label"][row].as_py()]
            assert near["right_heads"] == right

    def test_reads_every_exit_as_a_classification_does(self, place):
        text = _texts(place)[0]
        found = _explained(place, text)["exits"]
        assert list(found) == exits_of_entry(4, 1)
        input = place.write("explain/one.csv", [{"id": "1", "text": text}])
        for exit in ("head@0", "vote@1", "pool@2", "de3@1", "logistic@4", "words@0"):
            policy = {"name": "fixed", "exit": exit}
            if exit == "de3@1":
                policy = {"name": "de3", "first": 1, "last": 1}
            output = place.classify(input, f"explain/{exit}", policy=policy, far=None)
            (row,) = predictions_of(output).to_pylist()
            assert (row["reader"], row["depth"]) == (exit.split("@")[0], int(exit[-1]))
            assert found[exit]["label"] == row["label_name"]
            # What is written is calibrated on the rows that leave there, here on all.
            line = manifest_of(output)["calibration"][exit]
            said = Line(**line)(np.array([found[exit]["confidence"]]), 3)[0]
            assert row["confidence"] == pytest.approx(said, abs=1e-5)

    def test_names_how_often_each_exit_is_right_in_the_database(self, place):
        entries = entries_of(place.only_version())
        right = np.array(entries["answers"].to_pylist()) == entries["label"].to_numpy()[:, None]
        found = _explained(place, "the plot")["exits"]
        np.testing.assert_allclose([e["rate"] for e in found.values()], right.mean(axis=0))

    @pytest.mark.parametrize(
        "policy",
        [
            "tuned",
            "full",
            "fixed",
            "retrieval",
            "raee",
            "kernel",
            "de3",
            {"name": "cascade", "threshold": 0.6},
            {"name": "raee", "k": 40},
        ],
        ids=str,
    )
    def test_answers_as_a_classification_does(self, place, policy):
        texts = _texts(place)[:3]
        rows = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
        input = place.write("explain/some.csv", rows)
        output = place.classify(input, f"explain/{policy}", policy=policy)
        layers = 0
        for text, row in zip(texts, predictions_of(output).to_pylist(), strict=True):
            found = _explained(place, text, policy=policy)
            assert found["label"] == row["label_name"]
            assert found["exit"] == f"{row['reader']}@{row['depth']}"
            assert found["confidence"] == pytest.approx(row["confidence"], abs=1e-5)
            assert found["why"]
            layers += found["layers"]
        assert manifest_of(output)["layers_run"] == layers


class TestWhy:
    def test_of_a_cascade_goes_through_its_checkpoints(self, place):
        policy = {"name": "cascade", "threshold": 0.97}
        for text in _texts(place):
            found = _explained(place, text, policy=policy)
            depth = int(found["exit"].removeprefix("probe@"))
            for at, line in enumerate(found["why"]):
                said = found["exits"][f"probe@{at}"]["confidence"]
                if at < depth:
                    assert said < 0.97
                    assert line == (
                        f"probe@{at} is sure to {said:.3f} of 0.970: not enough, it goes on"
                    )
                elif said >= 0.97:
                    assert line == (
                        f"probe@{at} is sure to {said:.3f} of 0.970: enough, the text leaves"
                    )
                else:
                    assert line == f"probe@4 is the last checkpoint: the text leaves ({said:.3f})"
            assert len(found["why"]) == depth + 1

    @pytest.mark.parametrize("k", [5, 40])
    def test_of_the_papers_rule_are_the_neighbours_scores(self, place, k):
        """All of the neighbours that the rule asks, not only those that are shown."""
        for text in _texts(place):
            found = _explained(place, text, policy={"name": "raee", "k": k})
            (line,) = found["why"]
            told = line.removeprefix("its neighbours score the exits so: ")
            scores = {e: float(s) for e, s in (pair.split() for pair in told.split(", "))}
            assert set(scores) == {f"head@{d}" for d in range(5)}
            assert list(scores.values()) == sorted(scores.values(), reverse=True)
            assert next(iter(scores)) == found["exit"], told

    def test_of_the_kernel_are_its_scores(self, place):
        for text in _texts(place)[:4]:
            found = _explained(place, text, policy={"name": "kernel", "k": 32})
            (line,) = found["why"]
            told = line.removeprefix("its neighbours score the exits so: ")
            assert told.split()[0] == found["exit"]

    def test_of_a_policy_without_a_choice_is_its_exit(self, place):
        policy = {"name": "fixed", "exit": "probe@2"}
        found = _explained(place, "the plot", policy=policy)
        assert found["why"] == ["every text leaves at probe@2"]
        assert (found["exit"], found["layers"]) == ("probe@2", 2)


class TestWhatSpokeForTheAnswer:
    def test_are_n_grams_of_the_text(self, place):
        text = "bravo , a great film"
        found = _explained(place, text, policy={"name": "fixed", "exit": "words@0"}, far=None)
        assert found["label"] == "good"
        most = [line["log_odds"] for line in found["ngrams_for"]]
        least = [line["log_odds"] for line in found["ngrams_against"]]
        assert most == sorted(most, reverse=True)
        assert least == sorted(least)
        assert 0 < len(most) <= 5
        assert min(most) > 0
        assert max(least, default=-1) < 0
        words = f"[CLS] {text} [SEP]"
        assert all(line["ngram"] in words for line in found["ngrams_for"])
        assert any(line["ngram"] in ("great", "bravo") for line in found["ngrams_for"])
        assert found["experts"] == []

    def test_are_the_experts_of_the_pool_that_answered(self, place):
        pool = manifest_of(place.only_version())["probes"]["pool"]
        text = _texts(place)[0]
        found = _explained(place, text, policy={"name": "fixed", "exit": "pool@3"}, far=None)
        weights = {e["expert"].replace("head@3", "head"): e["weight"] for e in found["experts"]}
        assert weights == pytest.approx(pool[3], abs=1e-4)
        assert list(weights.values()) == sorted(weights.values(), reverse=True)
        by_exit = {e["expert"]: e["probability"] for e in found["experts"]}
        for expert in by_exit.keys() & {f"probe@{d}" for d in range(4)}:
            said = found["exits"][expert]
            if said["label"] == found["label"]:
                assert by_exit[expert] == pytest.approx(said["confidence"], abs=1e-5)

    def test_is_nothing_of_a_text_that_is_left_unlabelled(self, place):
        changed = {"policy": "raee", "far": {"then": "abstain"}}
        found = _explained(place, _FAR, **changed)
        assert found["ngrams_for"] == found["ngrams_against"] == found["experts"] == []

    def test_is_shown_between_the_answer_and_the_neighbours(self, place):
        policy = {"name": "fixed", "exit": "pool@2"}
        text = "bravo , a great film"
        found = _explained(place, text, policy=policy, far=None)
        lines = [
            line.rstrip()
            for line in raee("explain", place.job(policy=policy, far=None), text).out.splitlines()
        ]
        heads = [
            next(i for i, line in enumerate(lines) if line.startswith(head))
            for head in ("answer", "log-odds", "weight", "distance", "exit")
        ]
        assert heads == sorted(heads)
        ngrams = [*found["ngrams_for"], *found["ngrams_against"][::-1]]
        assert lines[heads[1] + 1 : heads[2]] == [
            f"{line['log_odds']:+.2f}     {line['ngram']}" for line in ngrams
        ]
        first = found["experts"][0]
        assert lines[heads[2] + 1].split() == [
            f"{first['weight']:.2f}",
            first["expert"],
            f"{first['probability']:.3f}",
        ]


class TestAFarText:
    def test_runs_to_full_depth(self, place):
        found = _explained(place, _FAR, policy={"name": "fixed", "exit": "vote@1"})
        assert found["far"]
        assert found["layers"] == 4
        assert found["exit"].endswith("@4")
        assert found["why"] == ["it is unlike the database's own rows: it is far"]

    def test_is_left_unlabelled_where_the_job_says_so(self, place):
        changed = {"policy": "raee", "far": {"then": "abstain"}}
        found = _explained(place, _FAR, **changed)
        assert found["far"]
        assert (found["label"], found["confidence"], found["exit"]) == (None, None, None)
        assert found["layers"] == 1
        answer = raee("explain", place.job(**changed), _FAR)
        line = answer.out.splitlines()[1]
        assert line.split()[:2] == ["none", "1"]
        assert line.rstrip().endswith("it is far")

    def test_is_like_any_other_where_nothing_is_far(self, place):
        policy = {"name": "fixed", "exit": "vote@1"}
        found = _explained(place, _FAR, far=None, policy=policy)
        assert (found["far"], found["exit"]) == (False, "vote@1")

    def test_that_left_before_its_neighbours_were_known_is_not_far(self, place):
        found = _explained(place, _FAR, policy={"name": "fixed", "exit": "probe@0"})
        assert (found["far"], found["exit"]) == (False, "probe@0")


class TestAsText:
    def test_has_the_answer_the_neighbours_and_every_exit(self, place):
        text = "bravo , a great story"
        found = _explained(place, text)
        answer = raee("explain", place.job(), text)
        assert answer.code == 0, answer.err
        lines = [line.rstrip() for line in answer.out.splitlines()]
        heads = [
            i for i, line in enumerate(lines) if line.split()[0] in ("answer", "distance", "exit")
        ]
        assert [lines[i].split()[0] for i in heads] == ["answer", "distance", "exit"]
        assert lines[1].split()[:3] == [
            found["label"],
            f"{found['confidence']:.3f}",
            found["exit"],
        ]
        assert f"{found['layers']} of 4" in lines[1]
        shown = lines[heads[1] + 1 : heads[2]]
        assert len(shown) == 5
        for line, near in zip(shown, found["neighbours"], strict=True):
            assert line.split()[:2] == [f"{near['distance']:.3f}", near["label"]]
            assert line.endswith(near["text"])
        named = [line.split()[0] for line in lines[heads[2] + 1 :]]
        assert named == exits_of_entry(4, 1)

    def test_brackets_are_no_markup(self, place):
        answer = raee("explain", place.job(), "[bold] the plot [/]")
        assert answer.code == 0, answer.err


@pytest.fixture(scope="module")
def without_text(tmp_path_factory, model_of) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("without"), model_of)
    place.build(keep_text=False)
    return place


class TestEntriesThatDoNotKeepTheText:
    def test_have_its_hash(self, without_text):
        names = entries_of(without_text.only_version()).schema.names
        assert "text" not in names
        assert "text_hash" in names

    def test_are_named_by_their_ids(self, without_text):
        found = _explained(without_text, "the plot", keep_text=False)
        assert [near["text"] for near in found["neighbours"]] == [None] * 5
        ids = [near["id"] for near in found["neighbours"]]
        lines = raee("explain", without_text.job(keep_text=False), "the plot").out.splitlines()
        assert [line.rstrip().split()[-1] for line in lines if "row-" in line] == ids

    def test_are_no_obstacle_to_a_report(self, without_text):
        report = (without_text.only_version() / "report.html").read_text()
        longest = max((row["text"] for row in sentences(40)), key=len)
        assert longest not in report


class TestRefused:
    @pytest.mark.parametrize("text", ["", "  \n\t"])
    def test_an_empty_text(self, place, text):
        answer = raee("explain", place.job(), text)
        assert (answer.code, answer.out, answer.error) == (2, "", "the text is empty")

    def test_a_policy_that_is_not_there(self, place):
        answer = raee("explain", place.job(), "the plot", "--policy", "best")
        assert answer.code == 2
        assert "policy: 'best' is none of" in answer.error

    def test_an_exit_that_is_not_there(self, place):
        job = place.job(policy={"name": "fixed", "exit": "vote@2"})
        answer = raee("explain", job, "the plot")
        assert answer.code == 2
        assert "exit 'vote@2' is not in the database" in answer.error

    def test_an_objective_that_nothing_reaches(self, place):
        answer = raee("explain", place.job(policy={"name": "tuned", "accuracy": 0.99}), "the plot")
        assert answer.code == 2
        assert "policy.accuracy 0.99: no policy reaches it" in answer.error

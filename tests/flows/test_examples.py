"""Labelled rows that a model is shown: picked once a version, kept, and no rows of the database."""

import numpy as np
import pytest

from raee.examples import text_key
from tests.flows.jobs import entries_of, manifest_of, predictions_of, raee
from tests.flows.rebuilds import MASKED, Swept
from tests.raee.plain import Plain
from tests.texts import sentences

ROWS = sentences(40)
WORDS = MASKED["prompt"]["labels"]
SETTINGS = {"prompt": MASKED["prompt"] | {"examples": 1}, "shard_rows": 20, "policy": "full"}


@pytest.fixture
def settings(place):
    return SETTINGS | {
        "backbone": {"family": "masked-lm", "model": place.model_of("bert"), "dtype": "float32"}
    }


@pytest.fixture
def built(place, settings):
    """A place with a version that is shown one row of each label."""
    place.build(**settings)
    return place


def _whole(shown, text):
    """What the model is given, written out."""
    before = "".join(f"{each['text']} it was {WORDS[each['label']]} " for each in shown)
    return f"{before}{text} it was [MASK]"


def _heads(place, shown, texts):
    """(texts, labels) what the model itself says at full depth of texts that fit it."""
    plain = Plain(place.model_of("bert"), masked_lm=True)
    return np.array(
        [plain.mask_distribution(_whole(shown, text), [*WORDS.values()])[-1] for text in texts]
    )


def _fits(shown, text):
    return len(_whole(shown, text).split()) + 2 <= 64


class TestVersion:
    def test_keeps_them_and_leaves_their_texts_out(self, built):
        version = built.only_version()
        prompt, entries = manifest_of(version)["prompt"], entries_of(version)
        shown = {each["key"]: each for each in prompt["shown"]}
        by_key = {key: [r for r in ROWS if text_key(r["text"]) == key] for key in shown}
        assert prompt["examples"] == 1
        assert {each["label"] for each in shown.values()} == {*WORDS}
        for key, rows in by_key.items():
            assert shown[key]["text"] == rows[0]["text"]
            assert shown[key]["label"] in {row["label"] for row in rows}
        out = {row["id"] for rows in by_key.values() for row in rows}
        assert {*entries["id"].to_pylist()} == {row["id"] for row in ROWS} - out
        assert manifest_of(version)["rows"] == len(ROWS) - len(out)
        corpus = manifest_of(version)["corpus"]
        assert (corpus["rows"], corpus["shown"]) == (len(ROWS), len(out))
        verified = raee("verify", "demo", "--store", built.store)
        assert verified.code == 0, verified.err

    def test_answers_as_the_model_does_that_is_shown_them(self, built, settings):
        version = built.only_version()
        shown = manifest_of(version)["prompt"]["shown"]
        new = [r | {"id": f"new-{r['id']}"} for r in sentences(30, seed=1)]
        new = [row for row in new if _fits(shown, row["text"])]
        assert len(new) > 10
        output = built.classify(built.write("new.csv", new), **settings)
        found = predictions_of(output)
        expected = _heads(built, shown, [row["text"] for row in new])
        names = [[*WORDS][i] for i in expected.argmax(axis=1)]
        assert found["label_name"].to_pylist() == names
        entries = entries_of(version)
        read = {r["id"]: r["text"] for r in ROWS if _fits(shown, r["text"])}
        exit = manifest_of(version)["exits"].index("head@4")
        own = [i for i, name in enumerate(entries["id"].to_pylist()) if name in read]
        expected = _heads(built, shown, [read[entries["id"][i].as_py()] for i in own])
        answers = [entries["answers"][i].as_py()[exit] for i in own]
        assert answers == expected.argmax(axis=1).tolist()


class TestRebuild:
    @pytest.fixture
    def swept(self, monkeypatch) -> Swept:
        return Swept(monkeypatch)

    def test_of_the_same_rows_makes_no_version(self, built, settings):
        answer = raee("build", built.job(**settings))
        assert "nothing has changed since version" in answer.err

    def test_keeps_them_while_they_are_in_the_corpus(self, built, settings, swept):
        first = built.only_version()
        more = [row | {"id": f"more-{row['id']}"} for row in sentences(30, seed=2)]
        built.write("train.csv", [*ROWS, *more])
        second = built.version(built.build(**settings))
        assert manifest_of(second)["prompt"] == manifest_of(first)["prompt"]
        assert 0 < swept.texts().total() <= 30

    def test_picks_others_if_one_is_gone_and_reads_all_rows_anew(self, built, settings, swept):
        shown = manifest_of(built.only_version())["prompt"]["shown"]
        rows = [row for row in ROWS if text_key(row["text"]) != shown[0]["key"]]
        built.write("train.csv", rows)
        second = built.version(built.build(**settings))
        assert manifest_of(second)["prompt"]["shown"] != shown
        assert swept.texts().total() == manifest_of(second)["rows"]


def test_a_job_that_asks_for_other_examples_does_not_fit(built, settings):
    other = settings | {"prompt": settings["prompt"] | {"examples": 2}}
    arguments = ("--input", built.root / "train.csv", "--output", built.root / "out")
    answer = raee("classify", built.job(**other), *arguments)
    assert answer.code == 2
    assert "was built with another prompt than the job's" in answer.error

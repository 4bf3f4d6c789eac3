"""A published version answers in Python as it does on a corpus."""

import pickle

import numpy as np
import polars as pl
import pytest

from raee import Classifier
from tests.flows.opinions import opinions
from tests.raee.errors import refused
from tests.raee.models import save_model
from tests.texts import LABELS


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return str(save_model("bert-encoder", tmp_path_factory.mktemp("model") / "encoder"))


@pytest.fixture(scope="module")
def rows(encoder):
    found = opinions(encoder, 120)
    return [row["text"] for row in found], [row["label"] for row in found]


@pytest.fixture(scope="module")
def fitted(encoder, rows) -> Classifier:
    policy = {"name": "cascade", "threshold": 0.7}
    return Classifier(encoder, key={"layers": [0, 2]}, policy=policy).fit(*rows)


@pytest.fixture(scope="module")
def store(fitted, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("store")
    fitted.publish(folder, "demo")
    return str(folder)


def test_what_was_published_answers_as_what_was_fitted(fitted, store, rows):
    for name in ("demo", "demo@production"):
        loaded = Classifier.load(store, name)
        assert loaded.classes_.tolist() == list(LABELS)
        assert loaded.predict(rows[0]).tolist() == fitted.predict(rows[0]).tolist()
        np.testing.assert_allclose(
            loaded.predict_proba(rows[0]), fitted.predict_proba(rows[0]), atol=1e-4
        )
        own, theirs = loaded.classify(rows[0]), fitted.classify(rows[0])
        assert own.drop("confidence").equals(theirs.drop("confidence"))
        tables = [c.evaluate(*rows).select("policy", "accuracy") for c in (loaded, fitted)]
        some = pl.col("policy").is_in(["full", "fixed", "logistic", "cascade"])
        assert tables[0].filter(some).equals(tables[1].filter(some))


def test_it_has_the_parameters_of_its_job_and_is_fitted_anew_with_them(fitted, store, rows):
    loaded = Classifier.load(store, "demo")
    assert loaded.get_params()["policy"]["threshold"] == 0.7
    assert loaded.get_params()["family"] == "sentence-encoder"
    again = loaded.fit(*rows)
    assert again.predict(rows[0]).tolist() == fitted.predict(rows[0]).tolist()
    assert loaded.publish(store, "again") == Classifier.load(store, "again")._address[1][6:]


def test_labels_that_were_numbers_are_names_of_a_version(encoder, rows, tmp_path):
    numbers = [10 * LABELS.index(name) for name in rows[1]]
    Classifier(encoder, policy="fixed").fit(rows[0], numbers).publish(str(tmp_path), "demo")
    loaded = Classifier.load(tmp_path, "demo")
    assert loaded.classes_.tolist() == ["0", "10", "20"]
    assert loaded.evaluate(rows[0], numbers).filter(policy="fixed")["accuracy"][0] > 0.6


def test_it_is_pickled_by_its_address(store, rows):
    loaded = Classifier.load(store, "demo@production")
    data = pickle.dumps(loaded)
    assert len(data) < 2_000
    assert pickle.loads(data).classify(rows[0]).equals(loaded.classify(rows[0]))


def test_what_was_loaded_has_no_rows_to_publish(store, tmp_path):
    with refused("database demo@.* was loaded; fit rows before they are published"):
        Classifier.load(store, "demo").publish(str(tmp_path), "demo")


def test_a_version_that_is_not_there_is_refused(store):
    with refused("database demo in .* has no version or alias 'nightly'"):
        Classifier.load(store, "demo@nightly")
    with refused("there is no version of database other"):
        Classifier.load(store, "other")

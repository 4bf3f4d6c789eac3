"""A classifier is used as people do in a notebook, and keeps to scikit-learn's habits."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from raee import Classifier
from raee.errors import InputError
from raee.model.loaded import forget_models
from raee.policies.compared import COMPARED
from tests.flows.opinions import opinions
from tests.raee.errors import refused
from tests.raee.models import save_model
from tests.texts import LABELS

UNSEEN = ["a great warm film", "the plot was dull and boring", "okay , never again"]


@pytest.fixture(scope="module")
def encoder(folder_of) -> str:
    return str(folder_of("bert-encoder"))


@pytest.fixture(scope="module")
def rows(encoder) -> tuple[list[str], list[str]]:
    found = opinions(encoder, 120)
    return [row["text"] for row in found], [row["label"] for row in found]


@pytest.fixture(scope="module")
def tuned(encoder, rows) -> Classifier:
    return Classifier(encoder, key={"layers": [0, 2]}).fit(*rows)


class TestAnswers:
    def test_it_learns_what_there_is_to_learn(self, encoder, tuned):
        unseen = opinions(encoder, 150, seed=1)
        right = [row["label"] for row in unseen]
        assert tuned.score([row["text"] for row in unseen], right) > 0.6

    def test_a_trained_model_answers_what_people_mean(self, folder_of):
        texts = [
            *("where is my parcel", "the courier lost my package", "the delivery is late"),
            *("my parcel has not arrived", "wrong delivery address", "track my package"),
            *("I was charged twice", "refund my payment", "the invoice is wrong"),
            *("my card was declined", "why is my bill so high", "cancel the charge"),
        ]
        labels = ["delivery"] * 6 + ["billing"] * 6
        classifier = Classifier(folder_of("minilm"), policy="fixed").fit(texts, labels)
        found = classifier.predict(["the package never came", "you billed me two times"])
        assert found.tolist() == ["delivery", "billing"]

    def test_predictions_probabilities_and_the_frame_agree(self, tuned, rows):
        texts = [*rows[0], *UNSEEN]
        labels, chances, frame = (
            tuned.predict(texts),
            tuned.predict_proba(texts),
            tuned.classify(texts),
        )
        assert tuned.classes_.tolist() == sorted(LABELS)
        assert chances.shape == (len(texts), 3)
        np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-5)
        assert tuned.classes_[chances.argmax(axis=1)].tolist() == labels.tolist()
        assert frame["label"].to_list() == labels.tolist()
        sure = frame["confidence"].to_numpy() > 0.34
        np.testing.assert_allclose(
            chances.max(axis=1)[sure], frame["confidence"].to_numpy()[sure], atol=1e-3
        )

    def test_the_frame_says_where_a_row_left(self, tuned, encoder, rows):
        frame = tuned.classify(UNSEEN)
        assert frame.columns == ["label", "confidence", "reader", "depth", "layers", "flags"]
        assert frame["label"].dtype == pl.String
        full = Classifier(encoder, policy="full").fit(*rows).classify(UNSEEN)
        assert full["reader"].unique().to_list() == ["head"]
        assert full["layers"].unique().to_list() == [4]
        assert (frame["layers"] >= frame["depth"]).all()

    def test_flags_name_texts_that_are_cut_or_have_no_token(self, encoder, rows):
        classifier = Classifier(encoder, far=None).fit(*rows)
        frame = classifier.classify(["a film", "a " * 200, "", " \t"])
        assert frame["flags"].to_list() == [[], ["cut"], ["no token"], ["no token"]]
        assert frame["label"].null_count() == 0

    def test_rows_that_are_left_unlabelled_have_no_label_but_are_predicted(self, encoder, rows):
        far = {"quantile": 0.3, "then": "abstain"}
        classifier = Classifier(encoder, far=far, policy="full").fit(*rows)
        frame = classifier.classify(rows[0])
        unlabelled = frame["label"].is_null()
        assert 0 < unlabelled.sum() < len(frame)
        assert frame.filter(unlabelled)["flags"].to_list() == [["far"]] * unlabelled.sum()
        found = classifier.predict(rows[0])
        assert set(found) <= set(LABELS)
        assert found[~unlabelled.to_numpy()].tolist() == frame["label"].drop_nulls().to_list()
        assert not np.isnan(classifier.predict_proba(rows[0])).any()

    def test_the_evaluation_has_a_row_for_each_policy(self, tuned, encoder, rows):
        most = max(LABELS, key=rows[1].count)
        unseen = opinions(encoder, 60, seed=2)
        texts, labels = [r["text"] for r in unseen], [r["label"] for r in unseen]
        found = tuned.evaluate(texts, labels)
        assert found["policy"].to_list() == list(COMPARED)
        assert found.columns == [
            *("policy", "accuracy", "low", "high", "macro_f1", "matthews", "mean_layers"),
            *("rows_per_second", "exits"),
        ]
        own = found.filter(policy="tuned")
        assert own["accuracy"].item() == tuned.score(texts, labels)
        assert own["mean_layers"].item() == tuned.classify(texts)["layers"].mean()
        assert (found["low"] <= found["accuracy"]).all()
        assert (found["accuracy"] <= found["high"]).all()
        assert found.filter(policy="full")["exits"].item() == "head@4:60"
        majority = found.row(0, named=True)
        assert majority["accuracy"] == np.mean([label == most for label in labels])
        assert (majority["mean_layers"], majority["exits"]) == (0.0, "")
        assert found["rows_per_second"].is_null().to_list() == [True] + [False] * (len(found) - 1)


class TestKindsOfInput:
    def test_lists_arrays_and_series_come_to_the_same(self, encoder, rows):
        texts, labels = rows
        expected = Classifier(encoder, policy="fixed").fit(texts, labels).predict_proba(UNSEEN)
        for kind in (tuple, np.array, pl.Series):
            found = Classifier(encoder, policy="fixed").fit(kind(texts), kind(labels))
            np.testing.assert_array_equal(found.predict_proba(kind(UNSEEN)), expected)

    @pytest.mark.parametrize(
        "values", [{"bad": 10, "good": 9, "odd": -1}, {"bad": True, "good": False, "odd": False}]
    )
    def test_labels_come_back_as_what_they_were_given(self, values, encoder, rows):
        given = np.array([values[name] for name in rows[1]])
        classifier = Classifier(encoder, policy="fixed").fit(rows[0], given)
        found = classifier.predict(rows[0])
        assert found.dtype == given.dtype
        assert (found == given).mean() > 0.6
        assert classifier.classes_.tolist() == sorted(set(values.values()))
        chances = classifier.predict_proba(rows[0])
        assert (classifier.classes_[chances.argmax(axis=1)] == found).all()
        assert classifier.classify(rows[0])["label"].to_list() == found.tolist()
        assert classifier.evaluate(rows[0], given).filter(policy="fixed")["accuracy"][0] > 0.6

    def test_a_masked_lm_is_known_by_its_files_and_asked_with_a_prompt(self, folder_of, rows):
        words = dict(zip(LABELS, ("terrible", "great", "okay"), strict=True))
        prompt = {"template": "{text} It was {mask}.", "labels": words | {"none": "never"}}
        classifier = Classifier(folder_of("bert"), prompt=prompt, policy="fixed").fit(*rows)
        assert classifier.classes_.tolist() == ["bad", "good", "none", "odd"]
        assert classifier.predict_proba(UNSEEN).shape == (3, 4)


class TestHabits:
    @pytest.mark.parametrize(
        "check",
        [
            estimator_checks.check_estimator_cloneable,
            estimator_checks.check_estimator_repr,
            estimator_checks.check_get_params_invariance,
            estimator_checks.check_mixin_order,
            estimator_checks.check_no_attributes_set_in_init,
            estimator_checks.check_set_params,
            estimator_checks.check_valid_tag_types,
        ],
        ids=lambda check: check.__name__,
    )
    def test_scikit_learns_own_checks_pass(self, check, encoder):
        check("Classifier", Classifier(encoder))

    def test_a_fit_changes_no_parameter_and_ends_what_it_adds_in_an_underscore(self, tuned):
        assert tuned.get_params()["key"] == {"layers": [0, 2]}
        assert tuned.get_params()["family"] is None
        public = {name for name in vars(tuned) if not name.startswith("_")}
        assert public - set(tuned.get_params()) == {"classes_"}

    def test_a_clone_is_not_fitted_and_asks_the_same(self, tuned):
        copy = clone(tuned)
        assert copy.get_params() == tuned.get_params()
        with pytest.raises(NotFittedError):
            copy.predict(UNSEEN)

    def test_it_is_cross_validated(self, encoder, rows):
        found = cross_val_score(Classifier(encoder), *rows, cv=3)
        assert found.mean() > 0.5
        losses = cross_val_score(
            Classifier(encoder, policy="fixed"), *map(np.array, rows), scoring="neg_log_loss", cv=2
        )
        assert (losses > -1.2).all()

    def test_it_ends_a_pipeline(self, encoder, rows):
        def lowered(texts):
            return [text.lower() for text in texts]

        steps = [("lower", FunctionTransformer(lowered)), ("raee", Classifier(encoder))]
        found = Pipeline(steps).fit([text.upper() for text in rows[0]], rows[1])
        assert found.score(*rows) > 0.6

    def test_a_grid_searches_its_policies(self, encoder, rows):
        policies = ["full", {"name": "fixed", "exit": "probe@3"}]
        found = GridSearchCV(Classifier(encoder), {"policy": policies}, cv=2).fit(*rows)
        assert found.best_params_ == {"policy": policies[1]}
        assert found.predict(UNSEEN).shape == (3,)

    def test_threads_may_share_one_and_fit_others_beside_it(self, encoder, tuned, rows):
        def fitted(_):
            return Classifier(encoder, policy="fixed").fit(*rows).predict_proba(rows[0])

        def asked(_):
            return tuned.predict_proba(rows[0])

        one, other = asked(0), fitted(0)
        with ThreadPoolExecutor(8) as threads:
            answers, fits = threads.map(asked, range(24)), threads.map(fitted, range(4))
        for found, expected in (*((a, one) for a in answers), *((f, other) for f in fits)):
            np.testing.assert_array_equal(found, expected)

    def test_a_fitted_one_is_pickled_without_its_model(self, tuned, rows, folder_of):
        data = pickle.dumps(tuned)
        again = pickle.loads(data)
        np.testing.assert_array_equal(again.predict_proba(UNSEEN), tuned.predict_proba(UNSEEN))
        assert again.classify(rows[0]).equals(tuned.classify(rows[0]))
        assert again.get_params() == tuned.get_params()
        weights = folder_of("minilm") / "model.safetensors"
        large = Classifier(folder_of("minilm"), policy="full").fit(rows[0][:20], rows[1][:20])
        assert len(pickle.dumps(large)) < weights.stat().st_size / 10

    def test_a_pickle_is_read_on_a_machine_without_the_device(self, encoder, rows):
        classifier = Classifier(encoder, policy="full", device="cpu", attn_implementation="eager")
        data = pickle.dumps(classifier.fit(*rows))
        # What it names is not looked for where it is read.
        data = data.replace(b"eager", b"nopes")
        again = pickle.loads(data)
        np.testing.assert_allclose(
            again.predict_proba(UNSEEN), classifier.predict_proba(UNSEEN), atol=1e-5
        )

    def test_one_that_is_not_fitted_is_pickled_too(self, encoder):
        again = pickle.loads(pickle.dumps(Classifier(encoder, policy="full")))
        assert again.get_params() == Classifier(encoder, policy="full").get_params()

    def test_a_pickle_whose_model_is_another_by_now_is_refused(self, tmp_path, rows):
        folder = save_model("bert-encoder", tmp_path / "model")
        data = pickle.dumps(Classifier(folder, policy="full").fit(*rows))
        forget_models()
        with (folder / "tokenizer_config.json").open("a") as file:
            file.write("\n")
        with refused("was built with another model than"):
            pickle.loads(data)


class TestBadInput:
    @pytest.mark.parametrize("method", ["predict", "predict_proba", "classify"])
    def test_what_is_not_fitted_says_so(self, method, encoder):
        with pytest.raises(NotFittedError, match=r"knows no rows yet; call fit\(texts, labels\)"):
            getattr(Classifier(encoder), method)(UNSEEN)
        with pytest.raises(NotFittedError):
            Classifier(encoder).evaluate(UNSEEN, [*"abc"])
        with pytest.raises(NotFittedError):
            Classifier(encoder).publish("store", "demo")

    def test_errors_are_value_errors(self, encoder):
        assert issubclass(InputError, ValueError)
        with pytest.raises(ValueError, match="there are 3 texts and 2 labels"):
            Classifier(encoder).fit(UNSEEN, ["a", "b"])

    @pytest.mark.parametrize(
        ("texts", "labels", "match"),
        [
            ([], [], "there are no texts"),
            (["a film", None], ["x", "y"], r"texts\[1\] is None"),
            (["a film", "bad"], ["x", "x"], "all labels are 'x'; a classifier needs two"),
            (["a film", ""], ["x", "y"], "1 of 2 texts are blank or have no token"),
        ],
    )
    def test_rows_that_cannot_be_fitted_are_refused(self, texts, labels, match, encoder):
        with refused(match):
            Classifier(encoder).fit(texts, labels)

    @pytest.mark.parametrize(
        ("changed", "match"),
        [
            ({"policy": "nope"}, "^policy: Input tag 'nope'"),
            (
                {"family": "gpt"},
                "^family: Input should be 'masked-lm', 'sentence-encoder', "
                "'causal-lm' or 'seq2seq-lm'",
            ),
            ({"dtype": "int4"}, "^dtype: Input should be"),
            ({"revision": None}, "^revision: Input should be a valid string"),
            ({"prompt": {"label": {}}}, "^prompt.PromptSpec.labels: Field required; "),
            ({"sample_rows": 0}, "^sample_rows: Input should be greater"),
            ({"far": {"then": "stop"}}, "^far.then: Input should be 'full' or 'abstain'"),
            ({"policy": {"name": "tuned", "accuracy": 1.0}}, "no policy reaches it"),
            ({"model": "/nowhere"}, "model '/nowhere' .* is not there"),
        ],
    )
    def test_parameters_that_are_none_are_refused_by_their_names(
        self, changed, match, encoder, rows
    ):
        with refused(match):
            Classifier(**{"model": encoder, **changed}).fit(*rows)

    def test_what_is_no_store_or_no_name_is_refused(self, tuned, tmp_path):
        with refused("store: None is no folder and no address"):
            tuned.publish(None, "demo")
        with refused("store: 3 is no folder"):
            Classifier.load(3, "demo")
        with refused("name: None is no database's name"):
            Classifier.load(tmp_path, None)

    def test_texts_and_labels_that_are_none_are_refused_of_a_fitted_one(self, tuned):
        with refused("there are no texts"):
            tuned.predict([])
        with refused(r"texts\[1\] is 3 \(int\)"):
            tuned.classify(["a", 3])
        with refused(r"labels\[1\], 'huh', is none of bad, good, odd"):
            tuned.evaluate(["a", "b"], ["bad", "huh"])

    def test_a_label_with_one_row_is_warned_of_and_can_be_answered(self, encoder, caplog):
        texts, labels = ["a great film", "a good plot", "dull"], ["good", "good", "bad"]
        classifier = Classifier(encoder, policy="fixed").fit(texts, labels)
        assert "1 of 2 labels have a single row: bad" in caplog.text
        assert classifier.classes_.tolist() == ["bad", "good"]

"""The front door for Python: a database in scikit-learn's habits.

What loads a model is imported when it is needed: to make a classifier takes no torch.
"""
# ruff: noqa: N803 - scikit-learn knows texts and labels by the names X and y

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from os import PathLike
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from raee.columns import classes_of, labels_of, names_of, texts_of
from raee.config import FarSpec, KeySpec, Method, PolicySpec, PromptSpec, in_words
from raee.errors import InputError, cut, listed
from raee.model.prompts import declared_labels

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from raee.classify import Predictions
    from raee.runner import Runner

_FAR = FarSpec()
_NOT_FITTED = "this %(name)s knows no rows yet; call fit(texts, labels), or Classifier.load(..)"
_WHERE = "the classifier"
_TURN = threading.RLock()

P = ParamSpec("P")
R = TypeVar("R")


def _in_turn(method: Callable[P, R]) -> Callable[P, R]:
    """Threads wait for each other: models are shared, and run one pass at a time."""

    @wraps(method)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _TURN:
            return method(*args, **kwargs)

    return alone


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifies texts with a frozen model at a fraction of its layers (docs/python.md).

    Parameters are the keys of a job file (docs/job.md):

    model: hub name or folder of a sentence encoder or a language model; safetensors weights only.
    family: `sentence-encoder`, `masked-lm`, `causal-lm` or `seq2seq-lm`; by default what the
        model's files say.
    revision: of the model on the hub.
    dtype: `auto` (bfloat16 on a GPU that has it, on a CPU the fastest that it has), or one by its
        name.
    device, device_map, attn_implementation, trust_remote_code, pickled_weights: how the model is
        loaded; a pickle, and what is published, may be read on machines without that device.
    prompt: a built-in prompt's name, or {"template": .., "labels": {label name: words}}, and
        more keys; a sentence encoder needs none: labels are then their own descriptions.
    key: by which vectors neighbours are found, such as {"layers": [0, 4]}; default: depth 0.
    policy: at which exit a row answers: a name, or a mapping with settings.
    far: what becomes of rows unlike those that it was fitted on; None: nothing.
    sample_rows: rows that carry the figures of fitted readers.
    words_rows: rows that n-grams are fitted on.
    index: FAISS factory string, or `auto`.

    Texts and labels are lists, arrays (rows,) or series; labels strings, whole numbers or truth
    values.  Bad input raises InputError, a ValueError; what was not fitted raises scikit-learn's
    NotFittedError.  The policy `tuned` weighs accuracy against seconds that are measured when it
    is fitted: of two fits on the same rows each may pick another policy of about the same worth.
    """

    classes_: NDArray[Any]
    """(classes,) the labels, ascending."""
    _runner: "Runner"
    _class_of: NDArray[np.int64]
    """(labels,) by their places in the database, those among the classes."""
    _built: "tuple[Method, Tensor | None] | None"
    """How it was fitted, and the centre that was read; None if it was loaded."""
    _rows: tuple[list[str], list[str]]
    """The texts that it was fitted on, and the names of their labels."""
    _address: tuple[str, str]
    """The store and the version that it was loaded from."""

    def __init__(
        self,
        model: str | PathLike[str],
        *,
        family: str | None = None,
        revision: str = "main",
        dtype: str = "auto",
        device: str = "auto",
        device_map: str | None = None,
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        pickled_weights: bool = False,
        prompt: str | Mapping[str, Any] | PromptSpec | None = None,
        key: Mapping[str, Any] | KeySpec | None = None,
        policy: str | Mapping[str, Any] | PolicySpec = "tuned",
        far: Mapping[str, Any] | FarSpec | None = _FAR,
        sample_rows: int = 20_000,
        words_rows: int = 200_000,
        index: str = "auto",
    ) -> None:
        self.model = model
        self.family = family
        self.revision = revision
        self.dtype = dtype
        self.device = device
        self.device_map = device_map
        self.attn_implementation = attn_implementation
        self.trust_remote_code = trust_remote_code
        self.pickled_weights = pickled_weights
        self.prompt = prompt
        self.key = key
        self.policy = policy
        self.far = far
        self.sample_rows = sample_rows
        self.words_rows = words_rows
        self.index = index

    @_in_turn
    def fit(self, X: Iterable[Any], y: Iterable[Any]) -> Self:
        """Build a database of labelled texts in memory: what `raee build` does, without a store.

        X: texts (rows,).  y: their labels (rows,).  Raises InputError if a text is blank or no
        string, labels are missing or all alike, or a parameter is none.
        """
        texts = texts_of(X)
        labels = labels_of(y, len(texts))
        method = self._method()
        declared = declared_labels(method.prompt, method.backbone.family)
        classes = classes_of(labels, declared)
        from raee.build import build
        from raee.runner import runner_of

        names = names_of(labels)
        built = build(method, texts, names, _WHERE)
        self._use(runner_of(built, method, _WHERE), classes)
        self._built, self._rows = (method, built.centre), (texts, names)
        return self

    @_in_turn
    def predict(self, X: Iterable[Any]) -> NDArray[Any]:
        """The label of each text, (rows,), of the kind that was fitted.

        Every row is answered: what `far` would leave unlabelled runs to full depth.
        """
        found = self._answers(X)
        answered: NDArray[Any] = self.classes_[self._class_of[found.labels]]
        return answered

    @_in_turn
    def predict_proba(self, X: Iterable[Any]) -> NDArray[np.float32]:
        """(rows, classes) how likely each label is, as the exit says that answers; calibrated.

        The largest of a row is its answer's confidence, unless that is less than a guess.
        """
        found = self._answers(X, all_labels=True).distributions
        assert found is not None, "distributions are asked for"
        return found[:, np.argsort(self._class_of)]

    @_in_turn
    def classify(self, X: Iterable[Any]) -> "pl.DataFrame":
        """A row for each text: label, confidence, reader, depth, layers, flags.

        label and confidence are null if `far` left the row unlabelled.  layers: those that it ran.
        flags: `cut` if the text lost its end, `far` if it is unlike the fitted rows, `no token` if
        the tokenizer makes nothing of it.
        """
        import polars as pl

        runner = self._fitted()
        frame = runner.frame(texts_of(X))
        labels = pl.Series("label", self.classes_[self._class_of]).gather(frame["label"])
        others = ["confidence", "reader", "depth", "layers", "flags"]
        return frame.select(labels, *others)

    @_in_turn
    def evaluate(self, X: Iterable[Any], y: Iterable[Any]) -> "pl.DataFrame":
        """Every policy and baseline on labelled texts that were not fitted: a row for each.

        policy, accuracy, its 95 % interval (low, high), macro_f1, matthews, mean_layers,
        rows_per_second, and rows by exit, most frequent first.  `majority` is the most frequent
        label, which takes no time, `words` n-grams with logistic regression, `logistic` full depth
        with logistic regression, `full` the model's own head, `tuned` what `tuned` picks.
        """
        import polars as pl

        runner, texts = self._fitted(), texts_of(X)
        names = names_of(labels_of(y, len(texts)))
        places = {name: i for i, name in enumerate(runner.labels)}
        for row, name in enumerate(names):
            if name not in places:
                known = listed(places)
                raise InputError(f"labels[{row}], {cut(repr(name))}, is none of {known}")
        right = np.array([places[name] for name in names], np.int32)
        rows = [
            {
                "policy": name,
                "accuracy": found.accuracy,
                "low": found.accuracy_interval[0],
                "high": found.accuracy_interval[1],
                "macro_f1": found.macro_f1,
                "matthews": found.matthews,
                "mean_layers": found.mean_layers,
                "rows_per_second": found.rows_per_second,
                "exits": " ".join(f"{exit}:{n}" for exit, n in found.exits.items()),
            }
            for name, found in runner.compare(texts, right).items()
        ]
        return pl.DataFrame(rows)

    @_in_turn
    def publish(self, store: str | PathLike[str], name: str) -> str:
        """Publish the fitted rows as a version of a database in a store; returns its id.

        It is a version as any other: the rows are built anew as `raee build` would, once more
        through the model but for those that the database's newest version has read.  Costs are
        measured anew, too: of policies of about the same worth, its tuning may pick another.  It is
        promoted to `production` unless it is worse beyond noise than what is there.  Raises
        InputError if this classifier was loaded, not fitted; OSError if the store does not answer.
        """
        runner = self._fitted()
        if self._built is None:
            raise InputError(f"{runner.where} was loaded; fit rows before they are published")
        settings = self._built[0].model_dump(mode="json") | {"store": _address(store), "name": name}
        from tasks.build.in_process import publish_rows

        return publish_rows(settings, *self._rows)

    @classmethod
    @_in_turn
    def load(cls, store: str | PathLike[str], name: str) -> Self:
        """A classifier that answers as a version of a database does.

        name: a database, or with a version or an alias `support@production`; without, the version
        in production.  Labels are their names.  Raises InputError if there is no such version, it
        is damaged, or its model is not the one that it was built with.
        """
        address = _address(store)
        method, runner, version = _loaded(address, name)
        parameters = method.model_dump()
        loaded = cls(**parameters.pop("backbone"), **parameters)
        loaded._use(runner, np.unique(np.array(runner.labels)))
        loaded._built, loaded._address = None, (address, version)
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        """Models go by their names; what was loaded goes by its address."""
        state = dict(super().__getstate__())
        runner = state.pop("_runner", None)
        if runner is not None and self._built is not None:
            from raee.runner import packed

            method, centre = self._built
            state["_packed"] = packed(runner, method.backbone, centre)
        return state

    @_in_turn
    def __setstate__(self, state: dict[str, Any]) -> None:
        """Raises InputError if the models or the version are not there, or not the same."""
        parts = state.pop("_packed", None)
        super().__setstate__(state)
        if parts is not None:
            from raee.runner import unpacked

            self._runner = unpacked(parts)
        elif "classes_" in state:
            self._runner = _loaded(*self._address)[1]

    def __sklearn_tags__(self) -> Any:
        """One column of texts, and no numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array, tags.input_tags.two_d_array = True, False
        tags.input_tags.string = True
        tags.non_deterministic = True
        return tags

    def _method(self) -> Method:
        """The parameters; raises InputError if one of them is none."""
        values: dict[str, Any] = {
            "prompt": self.prompt,
            "backbone": {
                "family": self.family,
                "model": str(self.model),
                "revision": self.revision,
                "dtype": self.dtype,
                "device": self.device,
                "device_map": self.device_map,
                "attn_implementation": self.attn_implementation,
                "trust_remote_code": self.trust_remote_code,
                "pickled_weights": self.pickled_weights,
            },
            "key": {} if self.key is None else self.key,
            "policy": self.policy,
            "far": self.far,
            "sample_rows": self.sample_rows,
            "words_rows": self.words_rows,
            "index": self.index,
        }
        try:
            if self.family is None:
                from raee.model.family import family_of

                family = family_of(str(self.model), self.revision)
                values["backbone"] |= {"family": family}
            return Method.model_validate(values)
        except ValidationError as error:
            raise InputError(in_words(error)) from error

    def _use(self, runner: "Runner", classes: NDArray[Any]) -> None:
        self._runner, self.classes_ = runner, classes
        place = {name: i for i, name in enumerate(names_of(classes))}
        self._class_of = np.array([place[name] for name in runner.labels])

    def _fitted(self) -> "Runner":
        check_is_fitted(self, "classes_", msg=_NOT_FITTED)
        return self._runner

    def _answers(self, X: Iterable[Any], all_labels: bool = False) -> "Predictions":
        """What is said of texts if every row is to be answered."""
        runner = self._fitted()
        far = None if runner.far is None else runner.far.model_copy(update={"then": "full"})
        return runner.classify(texts_of(X), far, all_labels)


def _address(store: str | PathLike[str]) -> str:
    """A store as settings have it; raises InputError for what is no address."""
    if not isinstance(store, str | PathLike):
        raise InputError(f"store: {cut(repr(store))} is no folder and no address")
    return str(store)


def _loaded(store: str, name: str) -> tuple[Method, "Runner", str]:
    """A version's method, the version in use, and its whole name: database and id."""
    if not isinstance(name, str):
        raise InputError(f"name: {cut(repr(name))} is no database's name")
    from tasks.classify.in_process import load_version

    return load_version(store, name)

"""Peers that know no order of words, or hardly any: TF-IDF, fastText, a static embedding."""

import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.peers.regression import fit_vectors, fit_words, folds
from benchmarks.peers.rows import Made, Rows, Task
from benchmarks.peers.table import THREADS

_RATES, _EPOCHS = (0.1, 0.5, 1.0), (5, 25, 50)
_BUCKETS = 200_000
"""Hashes of fastText's 2-grams: more than short texts have, and a tenth of its default, most of
whose time goes into them."""
_LABEL = "__label__"


def tfidf(task: Task) -> Made:
    """Words and pairs of words, weighted by TF-IDF, and logistic regression."""
    words = TfidfVectorizer(ngram_range=(1, 2))
    model, notes = fit_words(words, task.train.texts, task.train.labels)
    return Made(model.predict, notes)


def static(task: Task) -> Made:
    """The mean of vectors that model2vec distils of the encoder's tokens, and logistic regression.

    The distillation is kept: it is the same for every data set.
    """
    from model2vec import StaticModel
    from model2vec.distill import distill

    folder = task.kept / "model2vec"
    if not folder.exists():
        begun = folder.with_suffix(".begun")
        shutil.rmtree(begun, ignore_errors=True)
        distill(task.model, device="cpu").save_pretrained(begun)
        begun.rename(folder)
    embedding = StaticModel.from_pretrained(folder)
    model, notes = fit_vectors(embedding.encode(task.train.texts), task.train.labels)
    return Made(lambda texts: model.predict(embedding.encode(texts)), notes)


def fasttext(task: Task) -> Made:
    """FastText's classifier of words and pairs of words, lower-cased.

    Its learning rate and epochs have the best cross-validated accuracy on the train rows.
    """
    rows = task.train
    settings = [dict(zip(("lr", "epoch"), pair, strict=True)) for pair in product(_RATES, _EPOCHS)]
    right = [0] * len(settings)
    for some, others in folds().split(rows.texts, rows.labels):
        learning, judging = _of(rows, some), _of(rows, others)
        for i, setting in enumerate(settings):
            found = _answers(_trained(learning, setting), judging.texts)
            right[i] += int((found == judging.labels).sum())
    best = int(np.argmax(right))
    model = _trained(rows, settings[best])
    notes = {**settings[best], "cross_validated": right[best] / len(rows)}
    return Made(lambda texts: _answers(model, texts), notes)


def _of(rows: Rows, some: NDArray[np.int64]) -> Rows:
    return Rows([rows.texts[i] for i in some], rows.labels[some])


def _trained(rows: Rows, setting: dict[str, Any]) -> Any:
    from fasttext import train_supervised

    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.txt"
        lines = zip(rows.labels, map(_line, rows.texts), strict=True)
        path.write_text("".join(f"{_LABEL}{label} {text}\n" for label, text in lines), "utf-8")
        return train_supervised(
            str(path), wordNgrams=2, bucket=_BUCKETS, thread=THREADS, verbose=0, **setting
        )


def _line(text: str) -> str:
    """A text on one line, as fastText reads it."""
    return " ".join(text.lower().split())


def _answers(model: Any, texts: Sequence[str]) -> NDArray[np.int64]:
    names, _ = model.predict([*map(_line, texts)])
    return np.array([int(best[0].removeprefix(_LABEL)) for best in names])

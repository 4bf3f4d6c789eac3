"""A database is built of labelled texts in memory.

That it is the one that the real steps publish, tests/tasks/build/test_in_process.py says.
"""

from collections import Counter

import numpy as np
import pytest
import torch

import raee.build
from raee.build import build, sample_of
from raee.config import Method
from raee.model.loaded import backbone_of
from raee.policies.compared import COMPARED
from tests.raee.errors import refused
from tests.raee.plain import Plain
from tests.raee.runs import rows_of, rows_run
from tests.texts import LABELS, sentences

ROWS = sentences(60)
TEXTS, NAMES = [row["text"] for row in ROWS], [row["label"] for row in ROWS]


@pytest.fixture(scope="module")
def method_of(folder_of):
    def method(**others) -> Method:
        backbone = {
            "family": "sentence-encoder",
            "model": str(folder_of("bert-encoder")),
            "dtype": "float32",
        }
        return Method.model_validate({"backbone": backbone, **others})

    return method


def test_the_compared_policies_are_judged(method_of):
    built = build(method_of(), TEXTS, NAMES, "here")
    assert list(built.metrics) == list(COMPARED)
    assert set(built.costs.reads) == {e.reader for e in built.database.entries.exits}


def test_a_warning_says_which_baseline_is_better(method_of, caplog):
    labels = ["good" if "great" in text else "bad" for text in TEXTS]
    build(method_of(policy="full"), TEXTS, labels, "here")
    (said,) = (record for record in caplog.records if "alone is right" in record.message)
    assert said.levelname == "WARNING"
    assert said.message.startswith("here: ")
    assert "than full" in said.message or "as full" in said.message


def test_of_many_rows_some_carry_the_figures_of_fitted_readers(method_of):
    built = build(method_of(sample_rows=30), TEXTS, NAMES, "here")
    entries = built.database.entries
    assert len(entries) == 60
    assert len(built.trial) == len(entries.complete) == pytest.approx(30, abs=2)
    assert {LABELS[i] for i in built.trial.label} == set(LABELS)


def test_a_sample_keeps_the_shares_of_the_labels():
    label = np.repeat(np.arange(3, dtype=np.uint16), [600, 299, 1])
    counts = Counter(label[sample_of(label, 90)].tolist())
    assert counts == {0: 60, 1: 30, 2: 1}
    assert sample_of(label, 900).all()


def test_rows_are_told_of_as_they_are_swept(method_of):
    done: list[int] = []
    build(method_of(), TEXTS, NAMES, "here", done.append)
    assert sum(done) == 60


@pytest.mark.parametrize("centre_rows", [20, 4_096])
def test_no_row_runs_twice_and_heads_are_those_of_plain_calls(
    centre_rows, method_of, folder_of, monkeypatch
):
    """Until costs are measured, for which some rows run once more."""
    texts = list(dict.fromkeys(TEXTS))
    names = [NAMES[TEXTS.index(text)] for text in texts]
    method, swept = method_of(sample_rows=30), []
    measure_costs, backbone = raee.build.measure_costs, backbone_of(method.backbone)
    with rows_run(backbone) as seen:

        def measured(*args):
            swept.append(Counter(seen))
            return measure_costs(*args)

        monkeypatch.setattr(raee.build, "measure_costs", measured)
        monkeypatch.setattr(raee.build, "CENTRE_ROWS", centre_rows)
        built = build(method, texts, names, "here")
    words = built.database.prompt.words
    assert swept == [rows_of(backbone, [*texts, *words])]

    plain = Plain(folder_of("bert-encoder"), masked_lm=False)
    if centre_rows < len(texts):
        some = np.linspace(0, len(texts) - 1, centre_rows).astype(int)
    else:
        some = np.arange(len(texts))
    centre = torch.stack([plain.embeddings(texts[i]) for i in some]).mean(dim=0)
    torch.testing.assert_close(built.centre, centre, atol=1e-6, rtol=0)
    expected = plain.cosine_distribution(texts, words, centre).transpose(1, 0, 2)
    entries = built.database.entries
    heads = [i for i, e in enumerate(entries.exits) if e.reader == "head"]
    answers = entries.answers[:, heads].astype(int)
    of_answer = np.take_along_axis(expected, answers[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(of_answer, expected.max(axis=2), atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"prompt": {"labels": {"good": "a", "odd": "b"}}}, "label 'bad' is not in the prompt"),
        ({"key": {"layer": 9}}, "key.layer 9 is deeper than the backbone"),
        ({"policy": {"name": "fixed", "exit": "head@9"}}, "exit 'head@9' is not in the database"),
        ({"index": "IVF64,Flat"}, "is trained on at least 64 rows, the database has 60"),
        ({"index": "Nonsense"}, "is none that is built here"),
    ],
)
def test_what_cannot_be_built_is_refused_before_a_row_is_read(changed, match, method_of):
    done: list[int] = []
    with refused(match):
        build(method_of(**changed), TEXTS, NAMES, "here", done.append)
    assert done == []


def test_texts_without_a_token_are_refused_with_their_rows(method_of):
    with refused(r"2 of 4 texts are blank or have no token .*\(rows 1, 3, from 0\)"):
        build(method_of(), ["a", "", "b", " \n"], [*"xyxy"], "here")


def test_a_label_with_one_row_is_warned_of(method_of, caplog):
    build(method_of(), ["a film", "a plot", "bad"], [*"xxy"], "here")
    assert "1 of 2 labels have a single row: y" in caplog.text

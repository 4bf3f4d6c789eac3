"""Copies in a corpus: figures are those of the corpus without them; near-copies bar promises."""

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pytest

from tests.flows.jobs import Answer, Workplace, entries_of, manifest_of, raee
from tests.flows.opinions import opinions

_ROWS, _AGAIN = 320, 80

_SETTLED = ("full", "logistic", "fixed", "retrieval", "raee")
"""Policies whose figures do not hang on what this machine's clock says."""

_RISK = {"name": "tuned", "risk": {"max_loss": 0.25, "confidence": 0.9}}


@dataclass(frozen=True)
class _Built:
    place: Workplace
    name: str
    said: Answer

    @property
    def version(self) -> Path:
        return self.place.only_version(self.name)

    @property
    def accuracy(self) -> dict[str, float]:
        return {n: m["accuracy"] for n, m in manifest_of(self.version)["metrics"].items()}

    @property
    def report(self) -> str:
        return (self.version / "report.html").read_text()


@pytest.fixture(scope="module")
def built(tmp_path_factory, model_of):
    """Versions of the same rows, alone, with copies of a quarter of them, and with near-copies."""
    place = Workplace(tmp_path_factory.mktemp("copies"), model_of)
    rows = list({r["text"]: r for r in opinions(model_of("bert-encoder"), _ROWS + 40)}.values())
    rows = rows[:_ROWS]
    some = [rows[i] for i in np.random.default_rng(0).choice(_ROWS, _AGAIN, replace=False)]
    # Other characters, which no tokenizer sees.
    copies = [row | {"id": f"c{row['id']}", "text": row["text"].replace(" ", "  ")} for row in some]
    near = [row | {"id": f"n{row['id']}", "text": _one_word_changed(row["text"])} for row in some]
    found = {}
    for name, corpus in (("uncopied", rows), ("copied", rows + copies), ("near", rows + near)):
        place.write("train.csv", corpus)
        said = raee("build", place.job(name=name, shard_rows=100))
        assert said.code == 0, said.err
        found[name] = _Built(place, name, said)
    return found


def _one_word_changed(text: str) -> str:
    words = text.split()
    words[len(words) // 2] = "never"
    return " ".join(words)


class TestEqualTexts:
    def test_are_counted_where_the_model_cannot_tell_them_apart(self, built):
        said = manifest_of(built["copied"].version)["copies"]
        assert (said["rows"], said["texts"]) == (_ROWS + _AGAIN, _ROWS)
        assert said["rows_with_an_equal"] == 2 * _AGAIN
        assert (said["near_copies_visible"], said["barred"]) == (False, None)
        tokens = entries_of(built["copied"].version)["tokens"].to_numpy()
        assert len(np.unique(tokens)) == _ROWS

    def test_leave_every_figure_as_it_is_without_them(self, built):
        alone, copied = built["uncopied"].accuracy, built["copied"].accuracy
        noise = np.sqrt(0.25 / _ROWS)
        for name in _SETTLED:
            assert abs(copied[name] - alone[name]) < 2 * noise, name

    def test_would_flatter_a_vote_that_leaves_out_the_row_alone(self, built):
        """Or the test above would protect nothing."""
        version = built["copied"].version
        label = entries_of(version)["label"].to_numpy()
        index = faiss.read_index(str(version / "keys/layer-01.faiss"))
        _, nearest = index.search(index.reconstruct_n(0, index.ntotal), 2)
        itself = np.arange(len(label))
        other = np.where(nearest[:, 0] == itself, nearest[:, 1], nearest[:, 0])
        flattered = float((label[other] == label).mean())
        assert flattered > built["uncopied"].accuracy["retrieval"] + 0.1

    def test_are_no_evidence_of_their_own(self, built):
        tuning = manifest_of(built["copied"].version)["tuning"]
        assert (tuning["rows"], tuning["texts"]) == (_ROWS + _AGAIN, _ROWS)
        assert tuning["promise"]["texts"] == _ROWS

    def test_are_told_by_the_log_and_the_report(self, built):
        copied, alone = built["copied"], built["uncopied"]
        told = f"{2 * _AGAIN} of {_ROWS + _AGAIN} rows have a text that another row has, too"
        assert sum(told in line for line in copied.said.err.splitlines()) == 1
        assert "have a text that another row has, too" not in alone.said.err
        assert f"{2 * _AGAIN} rows have a text that another row has, too" in copied.report
        assert "have a text that another row has, too" not in alone.report


class TestNearCopies:
    def test_are_seen(self, built):
        said = manifest_of(built["near"].version)["copies"]
        assert said["near_copies_visible"]
        assert said["rows_with_an_equal"] == 0
        share = f"{said['near_copies']:.0%} of the rows lie much nearer to another text"
        assert said["barred"].startswith(share)

    def test_are_not_seen_where_there_are_none(self, built):
        said = manifest_of(built["uncopied"].version)["copies"]
        assert (said["near_copies_visible"], said["barred"]) == (False, None)

    def test_are_told_by_the_log_and_the_report(self, built):
        barred = manifest_of(built["near"].version)["copies"]["barred"]
        assert sum(barred in line for line in built["near"].said.err.splitlines()) == 1
        assert barred[1:].replace("'", "&#39;") in built["near"].report
        assert "lie much nearer to another text" not in built["uncopied"].said.err
        assert "lie much nearer to another text" not in built["uncopied"].report

    @pytest.mark.parametrize("name", ["uncopied", "near"])
    def test_bar_a_promise_that_would_be_given_without_them(self, built, name):
        place = built[name].place
        place.write("new.csv", opinions(place.model_of("bert-encoder"), 10, seed=1))
        output = place.root / f"out-{name}"
        arguments = ("--input", place.root / "new.csv", "--output", output)
        answer = raee("classify", place.job(name=name, policy=_RISK), *arguments)
        assert answer.code == 0, answer.err
        promise = manifest_of(built[name].version)["tuning"]["promise"]
        kept = manifest_of(output)["runs"] == promise["baseline"]["policy"]
        assert kept == (name == "near")
        assert ("can be promised to lose at most" in answer.err) == kept
        if kept:
            assert f"({promise['barred']}); every row runs to full depth" in answer.err

    def test_bar_it_when_the_version_is_tuned_again(self, built, tmp_path):
        place, version = built["near"].place, built["near"].version
        answer = raee("tune", place.job(name="near"), "--json", tmp_path / "tuning.json")
        assert answer.code == 0, answer.err
        promise = manifest_of(version)["tuning"]["promise"]
        assert promise["barred"]
        assert promise["barred"] in (tmp_path / "tuning.json").read_text()

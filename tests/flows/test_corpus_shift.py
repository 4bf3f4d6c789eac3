"""What a classification says of its corpus against the database: far rows, drift, label shares."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from tests.flows.jobs import (
    Workplace,
    entries_of,
    interrupted_after_a_shard,
    manifest_of,
    predictions_of,
    raee,
)
from tests.flows.opinions import opinions

_SHARD = {"shard_rows": 100}
_PROBE = {"name": "fixed", "exit": "probe@0"}
_JUNK = [{"id": f"junk-{i}", "text": f"zz{i % 7} ??? {i} qq{i} !!!"} for i in range(20)]


@pytest.fixture(scope="module")
def place(taught_once) -> Workplace:
    """The shared place: only its outputs are written here, each under its own name."""
    like = opinions(taught_once.model_of("bert-encoder"), 120, seed=8)
    taught_once.write("shift/like.csv", like)
    texts = [{"id": row["id"], "text": row["text"]} for row in [*like[:40], *_JUNK]]
    taught_once.write("shift/mixed.csv", texts)
    taught_once.write("shift/junk.csv", _JUNK)
    skewed = opinions(taught_once.model_of("bert-encoder"), 180, 9, shares=(0, 1, 0), telling=1)
    taught_once.write("shift/skewed.csv", skewed)
    return taught_once


def _classified(place, input, output, **changed):
    """A classification's folder, and what the command said on the way."""
    where = place.root / "shift" / output
    job = place.job(**_SHARD | changed)
    answer = raee("classify", job, "--input", place.root / f"shift/{input}", "--output", where)
    assert answer.code == 0, answer.err
    return where, answer.err


class TestFarRows:
    def test_are_flagged_and_run_to_full_depth(self, place):
        output, _ = _classified(place, "mixed.csv", "far-full", policy="retrieval")
        table, manifest = predictions_of(output), manifest_of(output)
        flags = table["flags"].to_pylist()
        assert all("far" in row for row in flags[40:]), "texts of other words"
        assert sum("far" in row for row in flags[:40]) <= 2
        usual = table["usual"].to_numpy()
        assert [("far" in row) for row in flags] == (usual <= np.float32(0.001)).tolist()
        assert np.median(usual[:40]) > 0.2, "rows like the database's are usual ones"
        far = sum("far" in row for row in flags)
        assert manifest["far"] == {
            "quantile": 0.999,
            "then": "full",
            "score": "three distances",
            "limit": manifest["far"]["limit"],
            "rows_looked_at": 60,
            "rows": far,
            "share": far / 60,
        }
        depths = table["depth"].to_pylist()
        assert all(d == (4 if "far" in row else 1) for d, row in zip(depths, flags, strict=True))
        assert table["label"].null_count == 0

    def test_are_left_unlabelled_where_the_job_says_so(self, place):
        far = {"quantile": 0.99, "then": "abstain"}
        output, _ = _classified(place, "mixed.csv", "far-abstain", policy="raee", far=far)
        table, manifest = predictions_of(output), manifest_of(output)
        is_far = np.array(["far" in row for row in table["flags"].to_pylist()])
        assert is_far[40:].all()
        for column in ("label", "label_name", "confidence", "reader", "depth"):
            np.testing.assert_array_equal(table[column].is_null().to_numpy(), is_far)
        assert table["nearest_distance"].null_count == 0
        assert manifest["exits"]["abstain"] == is_far.sum() == manifest["far"]["rows"]
        assert sum(manifest["exits"].values()) == manifest["rows_out"] == 60
        assert manifest["far"]["then"] == "abstain"
        # They ran to the key's depth, where they were found to be far, and no further.
        layers = np.where(is_far, 1, np.maximum(table["depth"].fill_null(0).to_numpy(), 1))
        assert manifest["layers_run"] == layers.sum()

    def test_are_the_more_the_smaller_the_quantile(self, place):
        counts = []
        for quantile in (0.5, 0.9, 0.999):
            far = {"quantile": quantile, "then": "abstain"}
            output, _ = _classified(
                place, "like.csv", f"far-{quantile}", policy="retrieval", far=far
            )
            counts.append(manifest_of(output)["far"]["share"])
        assert counts == sorted(counts, reverse=True)
        # Half of the database's own rows are farther than its median.
        assert 0.35 < counts[0] < 0.65

    def test_are_not_looked_for_where_the_job_says_so(self, place):
        output, _ = _classified(place, "mixed.csv", "far-off", policy="full", far=None)
        manifest, table = manifest_of(output), predictions_of(output)
        assert manifest["far"] is None
        assert table["flags"].to_pylist() == [[]] * 60
        assert table["nearest_distance"].null_count == 60

    def test_that_leave_before_the_keys_depth_are_not_looked_at(self, place):
        output, _ = _classified(place, "mixed.csv", "far-early", policy=_PROBE)
        manifest, table = manifest_of(output), predictions_of(output)
        assert table["nearest_distance"].null_count == 60
        assert (manifest["far"]["rows_looked_at"], manifest["far"]["rows"]) == (0, 0)
        assert manifest["far"]["share"] is None
        assert manifest["layers_run"] == 0


class TestDrift:
    def test_is_none_to_speak_of_in_a_corpus_like_the_database(self, place):
        output, err = _classified(place, "like.csv", "no-drift", policy="retrieval")
        drift = manifest_of(output)["drift"]
        assert not drift["beyond_noise"]
        assert "lies elsewhere" not in err

    def test_is_told_of_a_corpus_unlike_the_database(self, place):
        output, err = _classified(place, "junk.csv", "drift", policy="retrieval")
        drift = manifest_of(output)["drift"]
        # The database's own p-values lie evenly between 0 and 1.
        even = (np.arange(1, 201) - 0.5) / 200
        expected = ks_2samp(predictions_of(output)["usual"].to_numpy(), even)
        assert drift["kolmogorov_smirnov"] == pytest.approx(expected.statistic, abs=0.02)
        assert (drift["beyond_noise"], drift["direction"]) == (True, "farther")
        (told,) = (line for line in err.splitlines() if "lies elsewhere" in line)
        assert "its rows are farther than the database's own lie to each other" in told
        assert f"by {drift['kolmogorov_smirnov']:.2f} (Kolmogorov-Smirnov)" in told

    def test_is_unknown_where_no_row_was_looked_at(self, place):
        output, _ = _classified(place, "junk.csv", "no-look", policy="full", far=None)
        assert manifest_of(output)["drift"] is None


class TestLabelShares:
    def test_of_a_corpus_like_the_database_do_not_differ(self, place):
        output, err = _classified(place, "like.csv", "shares", policy=_PROBE)
        balance = manifest_of(output)["balance"]
        assert (balance["corrected"], balance["differ_beyond_noise"]) == (False, False)
        assert "label shares differ" not in err
        entries, table = entries_of(place.only_version()), predictions_of(output)
        for place_of_it, (name, said) in enumerate(balance["labels"].items()):
            share = (entries["label"].to_numpy() == place_of_it).mean()
            assert said["database"] == pytest.approx(share, abs=1e-4)
            answered = np.mean([a == name for a in table["label_name"].to_pylist()])
            assert said["predicted"] == pytest.approx(answered, abs=1e-4)
            assert abs(said["estimated"] - said["database"]) < 4 * said["standard_error"]

    def test_of_another_corpus_are_estimated_with_a_warning(self, place):
        changed = {"policy": _PROBE, "balance": "database"}
        output, err = _classified(place, "skewed.csv", "skewed", **changed)
        balance = manifest_of(output)["balance"]
        assert balance["differ_beyond_noise"]
        assert not balance["corrected"]
        good = balance["labels"]["good"]
        assert good["estimated"] > 0.75 > good["database"]
        (told,) = (line for line in err.splitlines() if "label shares differ" in line)
        assert f"good {good['estimated']:.2f} (database {good['database']:.2f})" in told
        assert "`balance: auto` corrects the readers by them" in told

    def test_correct_the_readers_unless_the_job_says_otherwise(self, place):
        """By as much of the estimate as is not noise."""
        output, err = _classified(place, "skewed.csv", "auto", policy=_PROBE, far=None)
        balance = manifest_of(output)["balance"]
        assert (balance["corrected"], balance["differ_beyond_noise"]) == (True, True)
        assert "the readers are corrected by them" in err
        moved = {n: s["estimated"] - s["database"] for n, s in balance["labels"].items()}
        noise = {n: s["standard_error"] for n, s in balance["labels"].items()}
        kept = 1 - len(moved) / sum((moved[n] / noise[n]) ** 2 for n in moved)
        assert 0.5 < kept < 1
        for (name, said), ratio in zip(balance["labels"].items(), balance["ratio"], strict=True):
            expected = 1 + kept * moved[name] / said["database"]
            assert ratio == pytest.approx(max(expected, 1e-3), rel=0.02, abs=2e-3)

    def test_correct_the_readers_by_all_of_the_estimate_where_the_job_says_so(self, place):
        changed = {"policy": _PROBE, "far": None}
        plain, _ = _classified(place, "skewed.csv", "plain", balance="database", **changed)
        output, _ = _classified(place, "skewed.csv", "corrected", balance="corpus", **changed)
        balance = manifest_of(output)["balance"]
        assert balance["corrected"]
        assert balance["differ_beyond_noise"]
        ratio = np.array(balance["ratio"])
        shares = balance["labels"]
        expected = [max(s["estimated"] / s["database"], 1e-3) for s in shares.values()]
        np.testing.assert_allclose(ratio, expected, rtol=0.01, atol=1e-3)
        # Of rows that a reader was sure of, nothing changes; the others follow the shares.
        before, after = predictions_of(plain), predictions_of(output)
        good = [(t["label_name"].to_numpy(zero_copy_only=False) == "good") for t in (before, after)]
        assert (good[1] | ~good[0]).all(), "a row that was good is still"
        assert good[1].sum() > good[0].sum()

    def test_do_not_correct_what_does_not_differ_beyond_noise(self, place):
        """An estimate from a few hundred rows is noise, too."""
        changed = {"policy": _PROBE, "far": None}
        plain, _ = _classified(place, "like.csv", "like-plain", balance="database", **changed)
        for balance in ("auto", "corpus"):
            output, _ = _classified(
                place, "like.csv", f"like-{balance}", balance=balance, **changed
            )
            assert manifest_of(output)["balance"]["ratio"] == [1.0, 1.0, 1.0]
            for column in ("label", "reader", "depth"):
                assert predictions_of(plain)[column].equals(predictions_of(output)[column])

    def test_are_estimated_once_however_often_a_classification_is_stopped(
        self, place, monkeypatch, tmp_path
    ):
        """Or rows of one corpus would be read by different shares."""
        changed = {"balance": "corpus", "shard_rows": 50}
        expected, _ = _classified(place, "skewed.csv", "undisturbed", **changed)
        output = place.root / "shift/stopped"
        input = place.root / "shift/skewed.csv"
        arguments = (place.job(**changed), "--input", input, "--output", output)
        interrupted_after_a_shard(monkeypatch, arguments, output)
        saved = (output / "_work/balance.json").read_bytes()
        assert len(list(output.glob("_work/part-*.json"))) == 1
        answer = raee("classify", *arguments)
        assert answer.code == 0, answer.err
        assert "estimate balance" not in answer.err
        ours, theirs = manifest_of(output)["balance"], manifest_of(expected)["balance"]
        assert ours == theirs
        assert str(ours["ratio"][0]).encode() in saved
        parts = [sorted(folder.glob("part-*.parquet")) for folder in (output, expected)]
        assert len(parts[0]) == 4
        assert [p.read_bytes() for p in parts[0]] == [p.read_bytes() for p in parts[1]]

    def test_another_balance_is_another_classification(self, place):
        output, _ = _classified(place, "like.csv", "balanced", balance="corpus")
        job = place.job(**_SHARD)
        answer = raee("classify", job, "--input", place.root / "shift/like.csv", "--output", output)
        assert answer.code == 2
        assert "holds another job's output" in answer.error

"""`policy: tuned` runs what the version's tuning found for the job's objective."""

import json
import shutil

import numpy as np
import pytest

from raee.config import PRICE
from raee.policies.baselines import BASELINES
from raee.statistics.calibration import Line
from tests.flows.jobs import Answer, Workplace, ask_server, manifest_of, predictions_of, raee
from tests.flows.opinions import opinions

_UNREACHABLE = {"name": "tuned", "accuracy": 0.99}


@pytest.fixture(scope="module")
def place(taught_once) -> Workplace:
    """The shared place: only its outputs are written here, each under its own name."""
    taught_once.write("tuning.csv", opinions(taught_once.model_of("bert-encoder"), 80, seed=1))
    return taught_once


def _tuning(place):
    return manifest_of(place.only_version())["tuning"]


def _points(place):
    tuning = _tuning(place)
    return [*tuning["front"], tuning["full_depth"]]


def _cheapest(points, good):
    """As the documentation says: the cheapest on all rows, of equals the most accurate."""
    found = [p for p in points if good(p["fitted"]["accuracy"])]
    return min(found, key=lambda p: (p["fitted"]["seconds_per_row"], -p["fitted"]["accuracy"]))[
        "policy"
    ]


def _classified(place, output, policy):
    return place.classify(
        str(place.root / "tuning.csv"), f"tuning/{output}", policy=policy, shard_rows=100
    )


class TestObjectives:
    @pytest.mark.parametrize("price", [PRICE, 0.0, 0.5])
    def test_best_is_what_has_most_left_after_its_price(self, place, price):
        full = _tuning(place)["full_depth"]["fitted"]["seconds_per_row"]
        policy = {"name": "tuned", "price": price}
        manifest = manifest_of(_classified(place, f"best-{price}", policy))
        assert manifest["policy"] == {
            "name": "tuned",
            "accuracy": "best",
            "price": price,
            "risk": None,
        }

        def left(point):
            fitted = point["fitted"]
            return fitted["accuracy"] - price * fitted["seconds_per_row"] / full

        best = max(_points(place), key=left)
        runs = next(p for p in _points(place) if p["policy"] == manifest["runs"])
        assert left(runs) == pytest.approx(left(best))

    def test_full_is_the_cheapest_as_good_as_the_best_exit_at_full_depth(self, place):
        full = _tuning(place)["full_depth"]
        assert full["policy"]["exit"].endswith("@4")
        output = _classified(place, "full", {"name": "tuned", "accuracy": "full"})
        needed = full["fitted"]["accuracy"]
        expected = _cheapest(_points(place), lambda accuracy: accuracy >= needed)
        assert manifest_of(output)["runs"] == expected

    def test_a_number_is_the_cheapest_that_reaches_it_less_a_standard_error(self, place):
        texts = _tuning(place)["texts"]

        def lower(accuracy):
            return accuracy - np.sqrt(accuracy * (1 - accuracy) / texts)

        reached = sorted({lower(p["fitted"]["accuracy"]) for p in _tuning(place)["front"]})
        assert len(reached) > 2, "there is something to choose from"
        for number in (reached[0], reached[-1]):
            policy = {"name": "tuned", "accuracy": float(number) - 1e-9}
            output = _classified(place, f"number-{number:.3f}", policy)
            expected = _cheapest(_points(place), lambda a, n=number: lower(a) >= n - 1e-9)
            assert manifest_of(output)["runs"] == expected

    def test_a_risk_that_nothing_cheaper_meets_is_full_depth_with_a_warning(self, place):
        risk = {"max_loss": 0.001, "confidence": 0.99}
        input, output = place.root / "tuning.csv", place.root / "tuning/risk"
        job = place.job(policy={"name": "tuned", "risk": risk})
        answer = raee("classify", job, "--input", input, "--output", output)
        assert answer.code == 0, answer.err
        manifest = manifest_of(output)
        assert manifest["policy"]["risk"] == risk
        assert manifest["runs"] == _tuning(place)["promise"]["baseline"]["policy"]
        assert manifest["mean_layers"] == 4
        assert (
            "no cheaper policy can be promised to lose at most 0.001 of the accuracy with "
            "confidence 0.99; every row runs to full depth" in answer.err
        )

    def test_a_risk_that_something_cheaper_meets_runs_it(self, place):
        risk = {"max_loss": 0.25, "confidence": 0.9}
        input, output = place.root / "tuning.csv", place.root / "tuning/some-risk"
        job = place.job(policy={"name": "tuned", "risk": risk})
        answer = raee("classify", job, "--input", input, "--output", output)
        assert answer.code == 0, answer.err
        assert "can be promised" not in answer.err
        runs, tuning = manifest_of(output)["runs"], _tuning(place)
        (step,) = (s for s in tuning["promise"]["steps"] if s["policy"] == runs)
        assert (step["lost"] - step["gained"]) / tuning["texts"] < 0.25

    def test_one_that_nothing_reaches_is_refused_in_one_line(self, place):
        input, output = place.root / "tuning.csv", place.root / "tuning/unreachable"
        job = place.job(policy=_UNREACHABLE)
        answer = raee("classify", job, "--input", input, "--output", output)
        assert (answer.code, answer.out) == (2, "")
        best = max(p["fitted"]["accuracy"] for p in _tuning(place)["front"])
        lower = best - np.sqrt(best * (1 - best) / _tuning(place)["texts"])
        assert answer.error.endswith(
            "policy.accuracy 0.99: no policy reaches it less one standard error; the best has "
            f"{best:.3f}, less one {lower:.3f}"
        )
        assert not output.exists()


class TestWhatRuns:
    def test_answers_as_the_policy_that_was_found(self, place):
        tuned = _classified(place, "tuned", "tuned")
        itself = _classified(place, "itself", manifest_of(tuned)["runs"])
        assert predictions_of(tuned).equals(predictions_of(itself))

    def test_lets_rows_leave_at_the_thresholds_that_the_manifest_names(self, place):
        """The best cascade, whatever its cost on this machine makes of it."""
        cascade = _tuning(place)["families"]["cascade"]["policy"]
        output = _classified(place, "cascade", cascade)
        manifest, table = manifest_of(output), predictions_of(output)
        assert manifest["runs"] == cascade
        first = cascade["first"]
        last = 4 if cascade["last"] is None else cascade["last"]
        thresholds = cascade["threshold"]
        if not isinstance(thresholds, list):
            thresholds = [thresholds] * (last - first + 1)
        lines = manifest["calibration"]
        for reader, depth, confidence, flags in zip(
            *(table[c].to_pylist() for c in ("reader", "depth", "confidence", "flags")),
            strict=True,
        ):
            if flags:
                continue
            assert reader in cascade["readers"]
            assert first <= depth <= last
            # Rows leave by what was read; what is written is calibrated.
            needed = np.array([thresholds[depth - first]])
            if depth != last and f"{reader}@{depth}" in lines:
                least = Line(**lines[f"{reader}@{depth}"])(needed, 3)[0]
                assert confidence >= least - 1e-5


class TestTune:
    def test_writes_what_the_build_found(self, place, tmp_path):
        answer = raee("tune", place.job(), "--json", tmp_path / "tuning.json")
        assert answer.code == 0, answer.err
        assert json.loads((tmp_path / "tuning.json").read_text()) == _tuning(place)

    def test_prints_the_front_the_families_and_the_keys(self, place):
        tuning = _tuning(place)
        lines = raee("tune", place.job()).out.splitlines()
        version = place.only_version().name
        assert lines[0].strip() == (
            f"database demo@{version}: {tuning['tried']:,} policies tried on 300 rows; accuracy is "
            "cross-fitted"
        )
        (picked,) = (line for line in lines if line.rstrip().endswith("<- the job's policy"))
        runs = manifest_of(_classified(place, "printed", "tuned"))["runs"]
        (point,) = (p for p in tuning["front"] if p["policy"] == runs)
        fitted = point["fitted"]
        assert picked.split()[:4] == [
            f"{point['cross_fitted']['accuracy']:.4f}",
            f"{fitted['accuracy']:.4f}",
            f"{fitted['mean_layers']:.2f}",
            f"{1000 * fitted['seconds_per_row']:.2f}",
        ]
        assert sum("(best exit at full depth)" in line for line in lines) == 1
        kinds = lines.index(next(line for line in lines if "best of each kind" in line))
        named = [
            line.split()[4].rstrip(",") for line in lines[kinds + 1 :][: len(tuning["families"])]
        ]
        assert named == list(tuning["families"])
        assert [line.split()[0] for line in lines if line.startswith("vote@")] == ["vote@1"]

    def test_prints_the_baselines_with_the_policys_difference_to_each(self, place):
        metrics = manifest_of(place.only_version())["metrics"]
        lines = [line.rstrip() for line in raee("tune", place.job()).out.splitlines()]
        start = lines.index("tuned against what people do without raee, on the same rows")
        for line, (name, title) in zip(lines[start + 2 :], BASELINES.items(), strict=False):
            figures, against = metrics[name], metrics["tuned"]["against"][name]
            assert line.split()[:2] == [
                f"{figures['accuracy']:.4f}",
                f"{figures['mean_layers']:.2f}",
            ]
            low, high = against["difference_interval"]
            assert f"{name}: {title}" in line
            assert f"{against['difference']:+.4f}" in line
            assert line.endswith(f"{low:+.4f} to {high:+.4f}  {against['p_value']:.2g}")

    def test_says_which_baseline_is_better(self, place):
        out = raee("tune", place.job(policy="full")).out
        assert "alone is right more often than full, beyond noise" in out.splitlines()[-1]

    def test_marks_the_objective_that_the_job_names(self, place):
        cheapest = _tuning(place)["front"][0]["fitted"]
        job = place.job(policy={"name": "tuned", "accuracy": 0.01})
        (line,) = (x for x in raee("tune", job).out.splitlines() if "<- the job's policy" in x)
        assert line.split()[1:3] == [
            f"{cheapest['accuracy']:.4f}",
            f"{cheapest['mean_layers']:.2f}",
        ]

    def test_refuses_an_objective_that_nothing_reaches(self, place):
        answer = raee("tune", place.job(policy=_UNREACHABLE))
        assert (answer.code, answer.out) == (2, "")
        assert f"database demo@{place.only_version().name}: policy.accuracy 0.99" in answer.error


@pytest.fixture(scope="module")
def unreachable(taught_once, tmp_path_factory) -> tuple[Workplace, Answer]:
    """A place whose only version was built for what nothing reaches, and what the build said."""
    place = Workplace(tmp_path_factory.mktemp("unreachable"), taught_once.model_of)
    place.write("train.csv", opinions(place.model_of("bert-encoder"), 100))
    return place, raee("build", place.job(name="far-off", policy=_UNREACHABLE, shard_rows=100))


class TestAnUnreachableObjective:
    def test_is_a_version_that_stays_unpromoted_and_says_why(self, unreachable):
        place, answer = unreachable
        version = place.only_version("far-off").name
        assert (answer.code, answer.out) == (0, f"{version}\n")
        why = f"database far-off@{version}: policy.accuracy 0.99: no policy reaches it"
        (said,) = (line for line in answer.err.splitlines() if "stays unpromoted" in line)
        assert f"{version} stays unpromoted: its own policy cannot be met: " in said
        assert why.removeprefix(f"database far-off@{version}: ") in said
        assert "tuned" not in manifest_of(place.only_version("far-off"))["metrics"]
        assert raee("verify", "far-off", "--store", place.store).code == 0
        key = {"artifacts": {"key": {"any_": ["raee-far-off-versions"]}}, "sort": "CREATED_DESC"}
        newest = ask_server("artifacts/filter", key)[0]
        assert f"{version} stays unpromoted" in newest["description"]

    def test_leaves_no_alias(self, unreachable):
        place, _ = unreachable
        (line,) = json.loads(raee("versions", "far-off", "--store", place.store, "--json").out)
        assert (line["aliases"], line["policy"]) == ([], "tuned")

    def test_is_refused_when_it_should_classify_but_another_policy_is_not(self, unreachable):
        place, _ = unreachable
        input = str(place.root / "train.csv")
        job = place.job(name="far-off", policy=_UNREACHABLE)
        answer = raee("classify", job, "--input", input, "--output", place.root / "no")
        assert answer.code == 2
        assert "policy.accuracy 0.99: no policy reaches it" in answer.error
        assert not (place.root / "no").exists()
        output = place.classify(
            input, "full", "--policy", "full", name="far-off", policy=_UNREACHABLE
        )
        assert manifest_of(output)["rows_out"] == 100

    def test_does_not_hinder_the_next_build_where_it_was_promoted_by_hand(
        self, unreachable, tmp_path
    ):
        shutil.copytree(unreachable[0].root, tmp_path / "place")
        place = Workplace(tmp_path / "place", unreachable[0].model_of)
        first = place.only_version("far-off").name
        raee("promote", "far-off", first, "--store", place.store)
        answer = raee("build", place.job(name="far-off", shard_rows=100))
        assert answer.code == 0, answer.err
        second = answer.out.strip()
        (said,) = (line for line in answer.err.splitlines() if "production now points" in line)
        assert f"production now points at {second}: production ({first}) cannot be run: " in said

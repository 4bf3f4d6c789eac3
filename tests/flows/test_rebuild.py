"""A rebuild reads only what is new, and is what a build from nothing is."""

import random
import shutil

import pytest

from tests.flows.jobs import Workplace, entries_of, manifest_of, raee
from tests.flows.rebuilds import (
    CHANGES,
    ENCODER,
    MASKED,
    History,
    Swept,
    added,
    assert_alike,
    new_rows,
    removed,
    repeated,
)
from tests.texts import LABELS, WORDS

_SAMPLED = ENCODER | {"sample_rows": 45, "key": {"layer": 1}}


def _first_rows():
    """Rows of which some texts stand twice, and some three times."""
    dice = random.Random(0)
    rows = [
        {"id": f"r{i}", "text": " ".join(dice.choices(WORDS, k=dice.randint(2, 12)))}
        for i in range(74)
    ]
    rows += [
        {"id": f"{rows[i]['id']}-{n}", "text": rows[i]["text"]} for n, i in enumerate((3, 5, 3, 8))
    ]
    return [row | {"label": dice.choice(LABELS)} for row in rows]


@pytest.fixture(scope="session")
def parent_of(tmp_path_factory, model_of):
    """The place where a job's first version is published; made once."""
    made = {}

    def parent(name, job):
        if name not in made:
            made[name] = History(Workplace(tmp_path_factory.mktemp(name), model_of), **job)
            made[name].rebuild(_first_rows())
        return made[name].place.root

    return parent


@pytest.fixture
def history_of(parent_of, tmp_path, model_of, swept):
    """Makes a history of the test's own, of which the first version is there."""
    jobs = {"encoder": ENCODER, "sampled": _SAMPLED}
    masked = MASKED | {"backbone": MASKED["backbone"] | {"model": model_of("bert")}}
    jobs["masked"] = masked

    def history(name):
        root = tmp_path / "place"
        shutil.copytree(parent_of(name, jobs[name]), root)
        swept.texts()  # by the first version
        return History(Workplace(root, model_of), **jobs[name])

    return history


@pytest.fixture
def swept(monkeypatch) -> Swept:
    return Swept(monkeypatch)


@pytest.fixture(autouse=True)
def small_files_of_readings(monkeypatch):
    """As if the database were large: files of readings of which most is used are kept."""
    monkeypatch.setattr("tasks.build.collect.PART_ROWS", 20)


def _shared(version, other):
    return {f["path"] for f in manifest_of(version)["swept"]} & {
        f["path"] for f in manifest_of(other)["swept"]
    }


@pytest.mark.parametrize("kind", ["encoder", "masked", "sampled"])
def test_rebuilds_after_any_changes_are_as_builds_from_nothing(history_of, swept, kind, tmp_path):
    """A walk over all changes, two at a time, four rebuilds long."""
    history, rows, dice = history_of(kind), _first_rows(), random.Random(kind)
    changes = dice.sample(CHANGES, len(CHANGES))
    changes += changes[:2]
    for step in range(4):
        parent, texts = history.newest, {row["text"] for row in rows}
        for change in changes[2 * step : 2 * step + 2]:
            rows = change(rows, dice)
        expected = history.from_nothing(rows, tmp_path / f"nothing-{step}")
        assert swept.texts().total() >= len(rows)
        version = history.rebuild(rows)
        assert manifest_of(version)["parent"] == parent.name
        new = [row["text"] for row in rows if row["text"] not in texts]
        read = swept.texts()
        assert sorted(t for t in read.elements() if t not in texts) == sorted(new)
        if kind != "sampled":  # there rows come into the sample, whose states nobody has kept
            assert read.total() == len(new)
        assert_alike(version, expected)


def test_files_of_readings_are_shared_as_long_as_most_of_them_is_used(history_of):
    history, rows, dice = history_of("encoder"), _first_rows(), random.Random(1)
    first = history.newest
    second = history.rebuild(added(rows, dice))
    assert len(_shared(first, second)) == 8, "the readings of 74 texts, and their states"
    written = {f["path"] for f in manifest_of(second)["swept"]} - _shared(first, second)
    assert written == {f"swept/{second.name}-00000{end}" for end in (".parquet", "-states.parquet")}
    third = history.rebuild(rows[:44])
    # Of the third file's twenty rows four are left, and are written anew.
    assert _shared(first, third) == {
        f"swept/{first.name}-0000{n}{end}"
        for n in (0, 1)
        for end in (".parquet", "-states.parquet")
    }
    for version in (first, second, third):
        answer = raee("verify", f"demo@{version.name}", "--store", history.place.store)
        assert answer.code == 0, answer.out


def test_a_row_that_comes_back_is_read_again(history_of, swept, tmp_path):
    """Its readings may still lie there, but the sums are without it."""
    history, rows = history_of("encoder"), _first_rows()
    history.rebuild(rows[5:])
    assert swept.texts().total() == 0
    expected = history.from_nothing(rows, tmp_path / "nothing")
    swept.texts()
    version = history.rebuild(rows)
    back = {row["text"] for row in rows[:5]} - {row["text"] for row in rows[5:]}
    assert set(swept.texts()) == back
    assert_alike(version, expected)


def test_a_database_smaller_than_its_lists_may_grow_again(history_of, tmp_path):
    history, rows, dice = history_of("encoder"), _first_rows(), random.Random(2)
    for number, some in enumerate((rows[:20], [*rows[:20], *new_rows(60, dice)])):
        expected = history.from_nothing(some, tmp_path / f"nothing-{number}")
        assert_alike(history.rebuild(some), expected)


def test_a_shard_of_which_no_row_is_usable_is_no_obstacle(history_of, tmp_path):
    history, rows = history_of("encoder"), _first_rows()
    history.job["max_reject_fraction"] = 0.9
    rows = [row | ({"text": ""} if 30 <= i < 60 else {}) for i, row in enumerate(rows)]
    expected = history.from_nothing(rows, tmp_path / "nothing")
    version = history.rebuild(rows)
    assert len(entries_of(version)) == 48
    assert_alike(version, expected)


def test_a_label_that_loses_its_last_row_and_gets_another(history_of, tmp_path):
    history, rows = history_of("encoder"), _first_rows()
    others = [row for row in rows if row["label"] != "odd"]
    for number, some in enumerate((others, rows)):
        expected = history.from_nothing(some, tmp_path / f"nothing-{number}")
        assert_alike(history.rebuild(some), expected)


def test_without_texts_and_all_states_nothing_can_be_taken_out_of_the_sums(history_of, swept):
    history, rows = history_of("sampled"), _first_rows()
    history.job["keep_text"] = False
    history.rebuild(rows)
    assert swept.texts().total() == 0, "the first version has them"
    version = history.newest
    history.place.write("train.csv", rows[1:])
    answer = raee("build", history.place.job(**history.job))
    assert answer.code == 0
    assert f"nothing of version {version.name} is reused: it keeps neither" in answer.err
    assert swept.texts().total() == len(rows) - 1


def test_rows_of_a_text_are_told_apart_by_their_order_alone(history_of, swept):
    """Corrected labels, names and order make no text new."""
    history, rows, dice = history_of("encoder"), _first_rows(), random.Random(3)
    rows = [row | {"id": f"other-{i}"} for i, row in enumerate(removed(rows, dice))]
    version = history.rebuild(rows)
    assert swept.texts().total() == 0
    assert entries_of(version)["id"].to_pylist() == [row["id"] for row in rows]
    again = repeated(rows, dice)
    history.rebuild(again)
    assert swept.texts() == {
        row["text"]: sum(r["text"] == row["text"] for r in again)
        for row in again
        if row["text"] not in {r["text"] for r in rows}
    }


def test_shards_are_cut_by_the_share_of_texts_that_are_new(history_of, monkeypatch):
    import tasks.build.planning

    told, real = [], tasks.build.planning.shard_rows_of

    def shard_rows_of(job, backbone, found, new):
        told.append(new)
        return real(job, backbone, found, new)

    history, dice = history_of("encoder"), random.Random(4)
    monkeypatch.setattr(tasks.build.planning, "shard_rows_of", shard_rows_of)
    history.rebuild([*_first_rows()[:40], *new_rows(10, dice)])
    assert told == [pytest.approx(0.2)]


def test_the_seconds_of_a_centre_are_those_of_the_build_that_read_it(published):
    parent = manifest_of(published.only_version())
    prompt = {
        "template": "It says: {text}",
        "labels": {label: f"a {label} film" for label in LABELS},
    }
    published.write("train.csv", new_rows(35, random.Random(1)))
    reused = manifest_of(published.version(published.build()))
    read_anew = manifest_of(published.version(published.build(prompt=prompt)))
    assert reused["parent"] == parent["id"]
    assert read_anew["parent"] == reused["id"]
    assert parent["seconds"]["centre"] > 0
    assert reused["seconds"]["centre"] == 0
    assert read_anew["seconds"]["centre"] > 0

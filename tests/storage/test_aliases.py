import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from raee.errors import InputError
from storage.aliases import aliases, history, promote, resolve_version, rollback
from storage.store import Folder
from tests.raee.errors import refused
from tests.storage.databases import NAME, publish_version


@pytest.fixture
def versions(store):
    return [publish_version(store) for _ in range(4)]


def _points_at(store):
    return resolve_version(store, NAME, "production")


def test_a_promoted_version_is_what_the_alias_means(store, versions):
    before = datetime.now(UTC)
    record = promote(store, NAME, versions[1])
    assert (record.version, record.previous, record.action) == (versions[1], None, "promote")
    assert before <= record.updated_at <= datetime.now(UTC)
    assert "@" in record.by
    assert _points_at(store) == versions[1]
    assert promote(store, NAME, versions[2]).previous == versions[1]
    assert _points_at(store) == versions[2]


def test_aliases_know_nothing_of_each_other(store, versions):
    promote(store, NAME, versions[0], "production")
    promote(store, NAME, versions[1], "staging")
    promote(store, NAME, versions[2], "production")
    assert aliases(store, NAME) == {"production": versions[2], "staging": versions[1]}
    assert [r.version for r in history(store, NAME, "staging")] == [versions[1]]
    rollback(store, NAME)
    assert aliases(store, NAME) == {"production": versions[0], "staging": versions[1]}


def test_rolling_back_twice_goes_two_versions_back(store, versions):
    for version in versions[:3]:
        promote(store, NAME, version)
    assert rollback(store, NAME).version == versions[1]
    assert rollback(store, NAME).version == versions[0]
    assert _points_at(store) == versions[0]
    with refused("alias 'production' of database demo has no version to roll back to"):
        rollback(store, NAME)
    assert _points_at(store) == versions[0]


def test_a_rollback_leaves_the_whole_history(store, versions):
    for version in versions[:2]:
        promote(store, NAME, version)
    rollback(store, NAME)
    found = history(store, NAME, "production")
    a, b = versions[:2]
    assert [(r.action, r.version, r.previous) for r in found] == [
        ("promote", a, None),
        ("promote", b, a),
        ("rollback", a, b),
    ]
    names = Folder(f"{store}/databases/{NAME}/aliases/production").names()
    assert names == ["00000001.json", "00000002.json", "00000003.json"]


def test_after_a_rollback_the_next_one_passes_over_what_was_rolled_back(store, versions):
    a, b, c, _ = versions
    promote(store, NAME, a)
    promote(store, NAME, b)
    rollback(store, NAME)
    promote(store, NAME, c)
    assert rollback(store, NAME).version == a


def test_promoting_a_version_again_is_no_step_to_roll_back(store, versions):
    for version in (versions[0], versions[1], versions[1]):
        promote(store, NAME, version)
    assert rollback(store, NAME).version == versions[0]


def test_there_is_nothing_to_roll_back_to_where_nothing_stood_before(store, versions):
    with refused("no version to roll back to; it was never set"):
        rollback(store, NAME)
    promote(store, NAME, versions[0])
    with refused("no version to roll back to"):
        rollback(store, NAME)
    assert len(history(store, NAME, "production")) == 1


def test_only_a_version_that_is_there_can_be_promoted(store, versions):
    with refused(f"has no version '20200101-000000'; the newest is {versions[-1]}"):
        promote(store, NAME, "20200101-000000")
    assert aliases(store, NAME) == {}


def test_a_version_that_is_gone_cannot_be_rolled_back_to(store, versions):
    promote(store, NAME, versions[0])
    promote(store, NAME, versions[1])
    Folder(f"{store}/databases/{NAME}/versions/{versions[0]}").remove()
    with refused(f"has no version '{versions[0]}'"):
        rollback(store, NAME)
    assert _points_at(store) == versions[1]


def test_of_racing_promotes_one_wins_each_number(tmp_path):
    store = str(tmp_path)
    versions = [publish_version(store) for _ in range(8)]
    start = threading.Barrier(len(versions))

    def race(version):
        won, lost = [], []
        start.wait()
        for _ in range(10):
            try:
                won.append(promote(store, NAME, version))
            except InputError as error:
                lost.append(str(error))
        return won, lost

    with ThreadPoolExecutor(len(versions)) as pool:
        answers = list(pool.map(race, versions))
    won = [record for records, _ in answers for record in records]
    for message in (m for _, messages in answers for m in messages):
        assert "was changed by somebody else meanwhile" in message
    changes = history(store, NAME, "production")
    assert len(changes) == len(won) >= 10
    assert sorted(r.updated_at for r in won) == sorted(r.updated_at for r in changes)
    # Each was made knowing the one before it.
    assert [r.previous for r in changes] == [None, *(r.version for r in changes[:-1])]


def test_the_highest_number_counts(store, versions):
    for i in range(11):
        promote(store, NAME, versions[i % 2])
    assert _points_at(store) == versions[0]
    assert len(history(store, NAME, "production")) == 11


class TestResolving:
    def test_without_a_name_gives_production_or_the_newest(self, store, versions):
        assert resolve_version(store, NAME, None) == versions[-1]
        promote(store, NAME, versions[1], "staging")
        assert resolve_version(store, NAME, None) == versions[-1]
        promote(store, NAME, versions[0])
        assert resolve_version(store, NAME, None) == versions[0]

    def test_takes_ids_and_aliases(self, store, versions):
        promote(store, NAME, versions[2], "nightly")
        assert resolve_version(store, NAME, versions[1]) == versions[1]
        assert resolve_version(store, NAME, "nightly") == versions[2]

    def test_of_what_is_not_there_names_the_aliases(self, store, versions):
        with refused("has no version or alias 'nightly' .aliases: none."):
            resolve_version(store, NAME, "nightly")
        promote(store, NAME, versions[2], "weekly")
        with refused("no version or alias 'nightly' .aliases: weekly.; `raee versions demo`"):
            resolve_version(store, NAME, "nightly")

    def test_where_there_is_no_version_says_how_to_make_one(self, store):
        with refused("no version of database demo in .*databases there: none.*`raee build`"):
            resolve_version(store, NAME, None)


@pytest.mark.parametrize("alias", ["../versions", "..", "a/b", "", "Prod", "a b", "/x"])
def test_no_alias_leads_out_of_its_folder(store, versions, alias):
    for ask in (
        lambda: promote(store, NAME, versions[0], alias),
        lambda: rollback(store, NAME, alias),
        lambda: history(store, NAME, alias),
        lambda: resolve_version(store, NAME, alias),
    ):
        with refused("use lowercase letters, digits and dashes"):
            ask()
    assert aliases(store, NAME) == {}


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 7}', b"\xff"])
def test_a_damaged_record_is_one_line(store, versions, content):
    promote(store, NAME, versions[0])
    with Folder(f"{store}/databases/{NAME}/aliases/production").create("00000001.json") as file:
        file.write(content)
    with refused("aliases/production is damaged: "):
        resolve_version(store, NAME, None)

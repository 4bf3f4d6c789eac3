import os
import socket
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from storage.conditional import require_conditional_writes
from storage.database import Database
from storage.gc import collect
from storage.manifest import MANIFEST
from storage.store import Folder
from tests.raee.errors import refused
from tests.storage.databases import NAME, demo, publish_version
from tests.storage.racers import ANY


@pytest.fixture
def versions(store):
    return [publish_version(store) for _ in range(4)]


def _points_at(store):
    return demo(store).open("production").id


def test_a_promoted_version_is_what_the_alias_means(store, versions):
    before = datetime.now(UTC)
    record = demo(store).promote(versions[1])
    assert (record.version, record.previous, record.action) == (versions[1], None, "promote")
    assert before <= record.updated_at <= datetime.now(UTC)
    assert record.by.endswith(f"@{socket.gethostname()}:{os.getpid()}")
    assert _points_at(store) == versions[1]
    assert demo(store).promote(versions[2]).previous == versions[1]
    assert _points_at(store) == demo(store).current("production") == versions[2]
    assert demo(store).current("staging") is None


def test_aliases_know_nothing_of_each_other(store, versions):
    demo(store).promote(versions[0], "production")
    demo(store).promote(versions[1], "staging")
    demo(store).promote(versions[2], "production")
    assert demo(store).aliases() == {"production": versions[2], "staging": versions[1]}
    assert [r.version for r in demo(store).history("staging")] == [versions[1]]
    demo(store).rollback()
    assert demo(store).aliases() == {"production": versions[0], "staging": versions[1]}


def test_rolling_back_twice_goes_two_versions_back(store, versions):
    for version in versions[:3]:
        demo(store).promote(version)
    assert demo(store).rollback().version == versions[1]
    assert demo(store).rollback().version == versions[0]
    assert _points_at(store) == versions[0]
    with refused("alias 'production' of database demo has no version to roll back to"):
        demo(store).rollback()
    assert _points_at(store) == versions[0]


def test_a_rollback_leaves_the_whole_history(store, versions):
    for version in versions[:2]:
        demo(store).promote(version)
    demo(store).rollback()
    found = demo(store).history("production")
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
    demo(store).promote(a)
    demo(store).promote(b)
    demo(store).rollback()
    demo(store).promote(c)
    assert demo(store).rollback().version == a


def test_promoting_a_version_again_is_no_step_to_roll_back(store, versions):
    for version in (versions[0], versions[1], versions[1]):
        demo(store).promote(version)
    assert demo(store).rollback().version == versions[0]


def test_there_is_nothing_to_roll_back_to_where_nothing_stood_before(store, versions):
    with refused("no version to roll back to; it was never set"):
        demo(store).rollback()
    demo(store).promote(versions[0])
    with refused("no version to roll back to"):
        demo(store).rollback()
    assert len(demo(store).history("production")) == 1


def test_only_a_version_that_is_there_can_be_promoted(store, versions):
    with refused(f"has no version '20200101-000000'; the newest is {versions[-1]}"):
        demo(store).promote("20200101-000000")
    assert demo(store).aliases() == {}


def test_a_version_that_is_gone_cannot_be_rolled_back_to(store, versions):
    demo(store).promote(versions[0])
    demo(store).promote(versions[1])
    Folder(f"{store}/databases/{NAME}/versions/{versions[0]}").remove()
    with refused(f"has no version '{versions[0]}'"):
        demo(store).rollback()
    assert _points_at(store) == versions[1]


def _race(store, action, versions, if_current=ANY):
    """What one process for each version says of promoting it (or rolling back), all at once."""
    command = [sys.executable, "-m", "tests.storage.racers", action, store, if_current, *versions]
    answers = subprocess.check_output(command, text=True, timeout=120).splitlines()
    assert len(answers) == len(versions)
    return answers


def _check_history(store):
    """It is gapless, and each change was made knowing the one before it."""
    changes = demo(store).history("production")
    names = Folder(f"{store}/databases/{NAME}/aliases/production").names()
    assert names == [f"{i + 1:08d}.json" for i in range(len(changes))]
    assert [r.previous for r in changes] == [None, *(r.version for r in changes[:-1])]
    return changes


class TestRacingProcesses:
    def test_that_promote_each_get_their_turn(self, shared_store):
        versions = [publish_version(shared_store) for _ in range(16)]
        answers = _race(shared_store, "promote", versions)
        changes = _check_history(shared_store)
        assert sorted(answers) == sorted(f"won {r.version} {r.by}" for r in changes)
        assert sorted(r.version for r in changes) == versions
        assert len({r.by for r in changes}) == 16

    def test_that_promote_from_one_version_one_wins_and_the_others_know(self, shared_store):
        first, *versions = [publish_version(shared_store) for _ in range(17)]
        Database(shared_store, NAME).promote(first)
        answers = _race(shared_store, "promote", versions, if_current=first)
        (won,) = [answer for answer in answers if answer.startswith("won")]
        winner = won.split()[1]
        assert [r.version for r in _check_history(shared_store)] == [first, winner]
        for lost in (answer for answer in answers if answer != won):
            assert lost.startswith(f"lost alias 'production' of database demo points at {winner}, ")

    def test_that_roll_back_go_back_a_version_each(self, shared_store):
        versions = [publish_version(shared_store) for _ in range(4)]
        for version in versions:
            Database(shared_store, NAME).promote(version)
        answers = _race(shared_store, "rollback", versions)
        assert (
            sorted(answer.split()[1] for answer in answers if answer.startswith("won"))
            == (versions[:3])
        )
        (lost,) = [answer for answer in answers if answer.startswith("lost")]
        assert "has no version to roll back to" in lost
        assert len(_check_history(shared_store)) == 7


class TestIfCurrent:
    def test_changes_the_alias_where_it_points_there(self, store, versions):
        demo(store).promote(versions[0], if_current="")  # where it is not set
        demo(store).promote(versions[1], if_current=versions[0])
        demo(store).rollback(if_current=versions[1])
        assert [r.version for r in demo(store).history("production")] == [
            versions[0],
            versions[1],
            versions[0],
        ]

    def test_is_refused_where_it_points_elsewhere(self, store, versions):
        a, b, c, _ = versions
        with refused(f"alias 'production' of database demo is not set, not at {a}; somebody else"):
            demo(store).promote(b, if_current=a)
        demo(store).promote(a)
        demo(store).promote(b)
        with refused(f"'production' of database demo points at {b}, not at {a}; somebody else"):
            demo(store).promote(c, if_current=a)
        with refused(f"'production' of database demo points at {b}, not unset; somebody else"):
            demo(store).promote(c, if_current="")
        with refused(f"points at {b}, not at {c}; somebody else has changed it: look at it and"):
            demo(store).rollback(if_current=c)
        assert [r.version for r in demo(store).history("production")] == [a, b]

    def test_must_be_the_id_of_a_version(self, store, versions):
        for change in (
            lambda: demo(store).promote(versions[0], if_current="../x"),
            lambda: demo(store).rollback(if_current="../x"),
        ):
            with refused("version '../x': use lowercase letters, digits and dashes"):
                change()


def test_a_change_that_never_gets_its_turn_says_so(store, versions, monkeypatch):
    def taken(*_):
        raise FileExistsError

    waited = []
    monkeypatch.setattr("storage.aliases.time.sleep", waited.append)
    demo(store).promote(versions[0])
    monkeypatch.setattr(Folder, "write_new", taken)
    with refused("was changed by somebody else meanwhile, 20 times in a row; look at it and try"):
        demo(store).promote(versions[1])
    assert len(waited) == 20
    assert len(set(waited)) == 20, "waits that are alike would meet again"


def test_a_version_that_goes_while_it_is_promoted_is_told(store, versions, monkeypatch):
    """A collector looked at the aliases before, and deletes after."""
    write_new = Folder.write_new

    def collected(folder, name, data):
        demo(store).version(versions[0]).folder.delete(MANIFEST)
        write_new(folder, name, data)

    require_conditional_writes(store)
    monkeypatch.setattr(Folder, "write_new", collected)
    with refused(f"version {versions[0]} of database demo was deleted just now, and alias 'produc"):
        demo(store).promote(versions[0])


def test_a_writer_without_a_name_is_its_number(store, versions, monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 1001")

    monkeypatch.setattr("storage.aliases.getpass.getuser", nameless)
    by = demo(store).promote(versions[0]).by
    assert by == f"{os.getuid()}@{socket.gethostname()}:{os.getpid()}"


def test_other_files_in_an_aliases_folder_are_no_records(store, versions):
    demo(store).promote(versions[0])
    folder = Folder(f"{store}/databases/{NAME}/aliases/production")
    for name in ("notes.txt", "00000002.json~", "2.json", "000000004.json"):
        folder.write_new(name, b"x")
    assert _points_at(store) == versions[0]
    demo(store).promote(versions[1])
    assert [r.version for r in demo(store).history("production")] == versions[:2]


def test_the_highest_number_counts(store, versions):
    for i in range(11):
        demo(store).promote(versions[i % 2])
    assert _points_at(store) == versions[0]
    assert len(demo(store).history("production")) == 11


class TestResolving:
    def test_without_a_name_gives_production_or_the_newest(self, store, versions):
        assert demo(store).open().id == versions[-1]
        demo(store).promote(versions[1], "staging")
        assert demo(store).open().id == versions[-1]
        demo(store).promote(versions[0])
        assert demo(store).open().id == versions[0]

    def test_takes_ids_and_aliases(self, store, versions):
        demo(store).promote(versions[2], "nightly")
        assert demo(store).open(versions[1]).id == versions[1]
        assert demo(store).open("nightly").id == versions[2]

    def test_of_what_is_not_there_names_the_aliases(self, store, versions):
        with refused("has no version or alias 'nightly' .aliases: none."):
            demo(store).open("nightly")
        demo(store).promote(versions[2], "weekly")
        with refused("no version or alias 'nightly' .aliases: weekly.; `raee versions demo`"):
            demo(store).open("nightly")

    def test_where_there_is_no_version_says_how_to_make_one(self, store):
        with refused("no version of database demo in .*databases there: none.*`raee build`"):
            demo(store).open()

    def test_of_many_aliases_and_databases_some_are_named(self, tmp_path):
        store = str(tmp_path)
        version = publish_version(store)
        for number in range(12):
            demo(store).promote(version, f"alias-{number:02d}")
            Folder(store).write_new(f"databases/base-{number:02d}/x", b"")
        with refused("aliases: alias-00, .*, alias-09 and 2 more.; `raee versions demo` lists"):
            demo(store).open("nightly")
        with refused("databases there: base-00, .*, base-09 and 3 more.; make one with"):
            Database(store, "other").open()
        with refused("databases there: base-00, .*, base-09 and 3 more$"):
            Database(store, "other").version("x").manifest()
        with refused("databases there: base-00, .*, base-09 and 3 more.$"):
            collect(Database(store, "other"))


@pytest.mark.parametrize("alias", ["../versions", "..", "a/b", "", "Prod", "a b", "/x"])
def test_no_alias_leads_out_of_its_folder(tmp_path, alias):
    store = str(tmp_path)
    version = publish_version(store)
    for ask in (
        lambda: demo(store).promote(version, alias),
        lambda: demo(store).rollback(alias),
        lambda: demo(store).history(alias),
        lambda: demo(store).open(alias).id,
    ):
        with refused("use lowercase letters, digits and dashes"):
            ask()
    assert demo(store).aliases() == {}


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 7}', b"\xff"])
def test_a_damaged_record_is_one_line(store, versions, content):
    demo(store).promote(versions[0])
    with Folder(f"{store}/databases/{NAME}/aliases/production").create("00000001.json") as file:
        file.write(content)
    with refused("aliases/production/00000001.json is damaged: "):
        demo(store).open()

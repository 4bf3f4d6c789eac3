"""Stores that cannot refuse a taken name, as some servers and disks cannot."""

import errno
import os

import pytest

import storage.conditional
import storage.store
from raee.errors import InputError
from storage.conditional import SINGLE_WRITER, require_conditional_writes
from storage.database import Database
from storage.faults import stays
from storage.store import Folder
from tests.raee.errors import refused
from tests.storage.databases import NAME, publish_version
from tests.storage.proxy import between, error


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Makes this process one that has probed no store yet; again when called."""

    def forget():
        monkeypatch.setattr(storage.conditional, "_probed", {})
        monkeypatch.setattr(storage.store, "_single_writers", set())

    forget()
    return forget


def _ignore(request):
    request.headers.pop("If-None-Match", None)


def _do_not_know(request):
    known = request.method != "PUT" or "If-None-Match" not in request.headers
    return None if known else (501, error("NotImplemented"))


def _no_links(*_):
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.fixture(params=["no links", _ignore, _do_not_know])
def unable(request, moto, store_on, use, monkeypatch):
    """A store that cannot refuse a taken name."""
    if request.param == "no links":
        monkeypatch.setattr(os, "link", _no_links)
        yield store_on("local")
        return
    store = store_on("moto")
    with between(moto, request.param) as server:
        use(server)
        yield store


def test_a_store_that_refuses_a_taken_name_is_as_it_was(store):
    for single_writer in (False, True):
        require_conditional_writes(store, single_writer)
    assert Folder(store).files() == []
    Folder(store).write_new("a", b"x")
    with pytest.raises(FileExistsError):
        Folder(store).write_new("a", b"y")


def test_a_store_is_probed_once(moto, store_on, use):
    store, written = store_on("moto"), []
    with between(moto, lambda r: written.append(r) if r.method == "PUT" else None) as server:
        use(server)
        for address in (store, f"{store}/", store):
            require_conditional_writes(address)
    assert len(written) == 2


def test_a_store_that_cannot_is_refused(unable):
    for _ in range(2):
        with refused(f"^store {unable} .* say `single_writer: true` in the job if only one"):
            require_conditional_writes(unable)
    assert Folder(unable).files() == []


_TAKEN = [
    (412, b""),
    (412, error("PreconditionFailed")),
    (412, error("ConditionNotMet")),
    (304, b""),
    (409, b""),
    (409, error("ConditionalRequestConflict")),
    (409, error("OperationAborted")),
    (409, error("ObjectAlreadyExists")),
]
"""What servers answer to a conditional write of a taken name."""


def _answering(answer):
    """Writes an object once, and answers so to any other write that is conditional."""
    there = set()

    def spoil(request):
        if request.method != "PUT" or "If-None-Match" not in request.headers:
            return None
        if request.path in there:
            return answer
        there.add(request.path)
        return None

    return spoil


@pytest.mark.parametrize("answer", _TAKEN)
class TestHoweverAServerSaysThatANameIsTaken:
    @pytest.fixture(autouse=True)
    def server(self, answer, moto, store_on, use, monkeypatch):
        monkeypatch.setattr(storage.store, "_CONFLICT_WAITS", (0.001, 0.001))
        self.store = store_on("moto")
        with between(moto, _answering(answer)) as server:
            use(server)
            yield

    def test_it_is_a_store_that_can_refuse_it(self):
        require_conditional_writes(self.store)
        assert storage.store._single_writers == set()
        assert Folder(self.store).files() == []

    def test_the_file_stays_as_it_was(self):
        folder = Folder(self.store)
        folder.write_new("a", b"first")
        with pytest.raises(FileExistsError):
            folder.write_new("a", b"second")
        assert folder.read("a") == b"first"

    def test_a_file_of_the_same_content_is_an_earlier_tries_own(self):
        for _ in range(2):
            Folder(self.store).write_new("a", b"first")

    def test_aliases_move_on(self):
        versions = [publish_version(self.store, {"a": b"x"}) for _ in range(2)]
        for version in versions:
            Database(self.store, NAME).promote(version)
        found = [record.version for record in Database(self.store, NAME).history("production")]
        assert found == versions


@pytest.mark.parametrize("answer", _TAKEN)
def test_a_server_that_says_so_of_every_file_is_not_trusted(
    moto, store_on, use, monkeypatch, answer
):
    monkeypatch.setattr(storage.store, "_CONFLICT_WAITS", (0.001,))
    store = store_on("moto")
    with between(moto, lambda r: answer if r.method == "PUT" else None) as server:
        use(server)
        if answer[0] == 409:  # a conflict, for all that it says, and one may pass
            with pytest.raises(OSError, match=f"^.*{store}: the server says ") as caught:
                require_conditional_writes(store)
            assert not stays(caught.value)
        else:
            with refused(f"^store {store} says of a new file that it is there already, so"):
                require_conditional_writes(store)


@pytest.mark.parametrize("answer", [(501, b""), (400, error("InvalidArgument")), (405, b"")])
def test_servers_say_in_many_ways_that_they_cannot(moto, store_on, use, answer):
    store = store_on("moto")
    with between(moto, lambda request: _do_not_know(request) and answer) as server:
        use(server)
        with refused("say `single_writer: true` in the job"):
            require_conditional_writes(store)


class TestOneWriter:
    def test_looks_before_it_writes(self, unable):
        require_conditional_writes(unable, single_writer=True)
        folder = Folder(unable) / "deep"
        folder.write_new("a", b"first")
        with pytest.raises(FileExistsError):
            folder.write_new("a", b"second")
        assert folder.read("a") == b"first"
        assert folder.names() == ["a"]

    def test_need_not_be_promised_again(self, unable, new_process):
        require_conditional_writes(unable, single_writer=True)
        require_conditional_writes(unable, single_writer=True)
        assert Folder(unable).names() == [SINGLE_WRITER]
        new_process()
        require_conditional_writes(unable)
        Folder(unable).write_new("a", b"x")
        with pytest.raises(FileExistsError):
            Folder(unable).write_new("a", b"y")

    def test_is_of_one_store(self, unable):
        require_conditional_writes(unable, single_writer=True)
        with pytest.raises(InputError, match="single_writer"):
            require_conditional_writes(f"{unable}-2")
        assert storage.store._single_writers == {unable}

    def test_can_publish_promote_and_roll_back(self, unable, new_process):
        require_conditional_writes(unable, single_writer=True)
        versions = [publish_version(unable, {"a": b"x"}) for _ in range(2)]
        new_process()
        for version in versions:
            Database(unable, NAME).promote(version)
        Database(unable, NAME).rollback()
        found = [record.version for record in Database(unable, NAME).history("production")]
        assert found == [*versions, versions[0]]


def test_an_alias_does_not_change_where_a_change_could_be_undone(unable):
    require_conditional_writes(unable, single_writer=True)
    version = publish_version(unable)
    Folder(unable).delete(SINGLE_WRITER)
    storage.store._single_writers.clear()
    with refused("single_writer: true"):
        Database(unable, NAME).promote(version)
    assert Database(unable, NAME).history("production") == []


def test_a_store_that_may_not_be_written_is_not_taken_for_one_that_cannot(moto, store_on, use):
    store = store_on("moto")
    with between(moto, lambda r: (403, error("AccessDenied")) if r.method == "PUT" else None) as it:
        use(it)
        with refused("access denied"):
            require_conditional_writes(store, single_writer=True)
    use(moto)
    with refused("s3://no-such-bucket/x: there is no such bucket"):
        require_conditional_writes("s3://no-such-bucket/x")

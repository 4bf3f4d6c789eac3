"""What can go wrong only where the store is a server."""

import hashlib
import re

import pytest

import storage.store
from raee.errors import InputError
from storage.store import Folder
from tests import s3
from tests.ports import free_ports
from tests.raee.errors import refused
from tests.storage.proxy import CUT, LOST, between, error

_PART = 5 << 20
"""The smallest part that S3 takes."""


@pytest.fixture(params=["moto", "ceph"])
def remote(request, store_on, monkeypatch):
    """A store on a server, to which files go in parts as small as it takes."""
    monkeypatch.setattr(storage.store, "_BLOCK", _PART)
    return store_on(request.param)


def _unfinished(folder):
    """Keys of multipart uploads that nobody has completed or dropped."""
    prefix = folder._path.partition("/")[2]
    listed = folder._fs.call_s3("list_multipart_uploads", Bucket=s3.BUCKET, Prefix=prefix)
    return [upload["Key"] for upload in listed.get("Uploads", [])]


class TestPartByPart:
    @pytest.mark.parametrize("size", [0, 1, _PART - 1, _PART, _PART + 1, 2 * _PART + 7])
    def test_a_file_of_any_size_arrives_as_it_was(self, remote, size):
        data = hashlib.shake_128(b"data").digest(size)
        folder = Folder(remote)
        with folder.create("a.bin") as file:
            for start in range(0, size, 999_983):
                file.write(data[start : start + 999_983])
        assert file.record() == folder.record("a.bin")
        assert file.record().sha256 == hashlib.sha256(data).hexdigest()
        assert [(found.name, found.bytes) for found in folder.files()] == [("a.bin", size)]
        assert _unfinished(folder) == []

    @pytest.mark.parametrize("size", [3, _PART + 3])
    @pytest.mark.parametrize("there_before", [True, False])
    def test_a_block_that_fails_leaves_nothing(self, remote, size, there_before):
        folder = Folder(remote)
        if there_before:
            folder.write_new("a.bin", b"old")

        def fail():
            with folder.create("a.bin") as file:
                file.write(b"x" * size)
                assert bool(_unfinished(folder)) == (size > _PART), "what this test is about"
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()
        assert folder.names() == ["a.bin"] * there_before
        assert not there_before or folder.read("a.bin") == b"old"
        assert _unfinished(folder) == []

    def test_an_upload_that_the_server_will_not_complete_leaves_nothing(
        self, moto, store_on, use, monkeypatch
    ):
        monkeypatch.setattr(storage.store, "_BLOCK", _PART)
        store = store_on("moto")

        def no_completion(request):
            if request.method == "POST" and "uploadId" in request.path:
                return 403, error("AccessDenied")
            return None

        with between(moto, no_completion) as spoilt:
            use(spoilt)
            folder = Folder(store)
            with refused("access denied"), folder.create("a.bin") as file:
                file.write(b"x" * (_PART + 3))
            assert folder.names() == []
            assert _unfinished(folder) == []


def test_only_what_is_asked_for_is_read(moto, store_on, use, monkeypatch):
    monkeypatch.setattr(storage.store, "_SMALL", 1_000)
    store = store_on("moto")
    Folder(store).write_new("a.bin", bytes(range(250)) * 400)
    ranges = []

    def note(request):
        if request.method == "GET":
            ranges.append(request.headers.get("Range"))

    with between(moto, note) as watched:
        use(watched)
        with Folder(store).open("a.bin") as file:
            file.seek(50_100)
            assert file.read(3) == bytes([100, 101, 102])
            file.seek(-2, 2)
            assert file.read() == bytes([248, 249])
    assert ranges == ["bytes=0-999", "bytes=50100-50102", "bytes=99998-99999"]


def test_what_is_read_in_order_comes_in_large_pieces(moto, store_on, use, monkeypatch):
    for name, size in {"_SMALL": 1_000, "_CHUNK": 1_000, "_BLOCK": 20_000}.items():
        monkeypatch.setattr(storage.store, name, size)
    store = store_on("moto")
    data = bytes(range(250)) * 400
    Folder(store).write_new("a.bin", data)
    asked = []
    with between(moto, asked.append) as watched:
        use(watched)
        assert b"".join(Folder(store).chunks("a.bin")) == data
    assert len([request for request in asked if request.method == "GET"]) <= 7


def test_a_small_file_comes_with_one_request(moto, store_on, use):
    store = store_on("moto")
    Folder(store).write_new("a.bin", b"0123456789")
    asked = []
    with between(moto, asked.append) as watched:
        use(watched)
        with Folder(store).open("a.bin") as file:
            file.seek(-3, 2)
            assert file.read() == b"789"
            file.seek(2)
            assert file.read(3) == b"234"
    assert [request.method for request in asked] == ["GET"]


def test_folders_that_other_tools_write_as_files_are_no_files(store_on):
    folder = Folder(store_on("moto"))
    folder.write_new("a/b.json", b"{}")
    for name in ("", "a/", "empty/"):
        folder._fs.call_s3(
            "put_object", Bucket=s3.BUCKET, Key=f"{folder._path.partition('/')[2]}/{name}"
        )
    assert [found.name for found in folder.files()] == ["a/b.json"]
    assert folder.names() == ["a", "empty"]
    folder.remove()
    assert folder.names() == []


def test_a_file_is_no_folder_of_the_same_name(store_on):
    folder = Folder(store_on("moto"))
    folder.write_new("a", b"x")
    assert (folder / "a").names() == []
    assert (folder / "a").files() == []


def test_what_could_not_be_deleted_is_told(moto, store_on, use):
    store = store_on("moto")
    Folder(store).write_new("work/a", b"x")

    def keep(request):
        if request.method == "POST" and request.path.endswith("?delete"):
            return 200, b"<DeleteResult><Error><Code>AccessDenied</Code></Error></DeleteResult>"
        return None

    with between(moto, keep) as spoilt:
        use(spoilt)
        with pytest.raises(OSError, match="work/a could not be deleted"):
            (Folder(store) / "work").remove()


def _asked(folder):
    """All that tells a missing bucket from an empty one, by name."""

    def create():
        with folder.create("a") as file:
            file.write(b"x")

    return {
        "names": folder.names,
        "files": folder.files,
        "size": lambda: folder.size("a"),
        "read": lambda: folder.read("a"),
        "open": lambda: folder.open("a"),
        "record": lambda: folder.record("a"),
        "write_new": lambda: folder.write_new("a", b"x"),
        "create": create,
        "copy": lambda: folder.copy(["a"], folder / "b"),
        "remove": folder.remove,
    }


class TestRefusals:
    """Each is one line that names the store, and has no credential in it."""

    @pytest.mark.parametrize("kind", ["moto", "ceph"])
    def test_no_such_bucket(self, store_on, kind):
        store_on(kind)
        for ask in _asked(Folder("s3://no-such-bucket/x")).values():
            with refused("s3://no-such-bucket/x: there is no such bucket; make it, or correct"):
                ask()

    @pytest.mark.parametrize(
        ("user", "match"),
        [
            ({"key": "nobody"}, "does not know the access key; check AWS_ACCESS_KEY_ID"),
            (
                {"secret": "wrongsecret"},
                "not belong to the access key; check AWS_SECRET_ACCESS_KEY",
            ),
        ],
    )
    def test_wrong_credentials(self, ceph, use, user, match):
        use(s3.Server(ceph.url, **user))
        folder = Folder("s3://tests/x")
        for ask in (*_asked(folder).values(), lambda: folder.exists("a")):
            with pytest.raises(InputError) as caught:
                ask()
            said = str(caught.value)
            # The answer to a HEAD request cannot say more than that it is one.
            assert re.fullmatch(f"s3://tests/x: (.*{match}|access denied; check .*)", said)
            assert "nobody" not in said
            assert "wrongsecret" not in said

    def test_no_credentials(self, moto, use, monkeypatch):
        use(moto)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        s3.notice_environment()
        with refused("s3://tests/x: there are no credentials; set AWS_ACCESS_KEY_ID and"):
            Folder("s3://tests/x").names()

    def test_an_endpoint_that_is_none(self, moto, use):
        use(moto, AWS_ENDPOINT_URL="nonsense")
        with refused("s3://tests/x: .* check AWS_ENDPOINT_URL"):
            Folder("s3://tests/x").names()

    def test_anything_else_has_words_too(self, moto, use):
        with between(moto, lambda request: (400, error("InvalidWeather"))) as spoilt:
            use(spoilt)
            with pytest.raises(OSError, match="InvalidWeather"):
                Folder("s3://tests/x").names()
        with between(moto, lambda request: (409, b"")) as spoilt:
            use(spoilt)
            with pytest.raises(OSError, match=r"409|Conflict"):
                Folder("s3://tests/x").names()


def test_a_server_that_does_not_answer_is_no_mistake_of_the_user(moto, use):
    """What may pass is worth another try."""
    port = free_ports(1)
    use(s3.Server(f"http://127.0.0.1:{port}"), AWS_MAX_ATTEMPTS="1")
    with pytest.raises(ConnectionError, match=f"s3://tests/x: 127.0.0.1:{port} does not answer"):
        Folder("s3://tests/x").names()


def test_a_conflict_of_two_writes_is_tried_again(moto, store_on, use):
    conflicts = []

    def conflict(request):
        if request.method == "PUT" and len(conflicts) < 2:
            conflicts.append(request)
            return 409, error("ConditionalRequestConflict")
        return None

    store = store_on("moto")
    with between(moto, conflict) as spoilt:
        use(spoilt)
        Folder(store).write_new("a", b"x")
        assert Folder(store).read("a") == b"x"
    assert len(conflicts) == 2


def _first(method, answer):
    """Spoils the first request of a method; and what it has spoilt."""
    spoilt = []

    def spoil(request):
        if request.method != method or spoilt:
            return None
        spoilt.append(request)
        return answer

    return spoil, spoilt


def test_a_write_whose_answer_was_lost_went_through(moto, store_on, use):
    """The second try finds the name taken, by its own file."""
    lose, lost = _first("PUT", LOST)
    store = store_on("moto")
    with between(moto, lose) as spoilt:
        use(spoilt)
        Folder(store).write_new("a", b"mine")
        assert lost
        with pytest.raises(FileExistsError):
            Folder(store).write_new("a", b"yours")
    assert Folder(store).read("a") == b"mine"


class TestAFileReadWhole:
    """What steps say to each other: files of a line, thousands of them."""

    def test_takes_one_request_whether_it_is_there_or_not(self, moto, store_on, use):
        requests = []

        def notice(request):
            requests.append(request.method)

        store = store_on("moto")
        Folder(store).write_new("a", b"mine")
        with between(moto, notice) as seen:
            use(seen)
            assert Folder(store).read("a") == b"mine"
            with pytest.raises(FileNotFoundError):
                Folder(store).read("b")
        assert requests == ["GET", "GET"]

    def test_is_read_again_where_it_was_cut_short(self, moto, store_on, use):
        cut_once, cut = _first("GET", CUT)
        store = store_on("moto")
        Folder(store).write_new("a", b"mine")
        with between(moto, cut_once) as spoilt:
            use(spoilt)
            assert Folder(store).read("a") == b"mine"
        assert cut

    def test_is_never_half_of_it(self, moto, store_on, use):
        store = store_on("moto")
        Folder(store).write_new("a", b"mine")
        with between(moto, lambda request: CUT if request.method == "GET" else None) as spoilt:
            use(spoilt)
            with pytest.raises(ConnectionError, match=f"{store}: the connection broke"):
                Folder(store).read("a")

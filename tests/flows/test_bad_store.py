"""A store that is none, may not be written or is full: one line that names the place."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import s3
from tests.flows.jobs import Workplace, raee
from tests.rights import open_to_all, somebody_else
from tests.storage.proxy import between, error
from tests.texts import sentences

pytestmark = pytest.mark.usefixtures("impatient")


def _classify(place: Workplace, output: object, **changed: object) -> tuple[object, ...]:
    input = place.write("new.csv", sentences(5, seed=5))
    return "classify", place.job(**changed), "--input", input, "--output", output


class TestAStoreThatIsAFile:
    """Or lies below one."""

    def _refused(self, place, *command):
        file = place.root / "file"
        answer = raee(*command)
        assert (answer.code, answer.out) == (2, "")
        assert answer.error == f"{file}: a file stands where a folder should be"
        assert file.read_text() == "mine"

    @pytest.fixture(params=["", "/below"])
    def store(self, request, place):
        (place.root / "file").write_text("mine")
        return f"{place.root}/file{request.param}"

    @pytest.mark.parametrize(
        "command", ["versions", "show", "verify", "promote", "rollback", "gc", "prune"]
    )
    def test_for_commands_on_it(self, place, store, command):
        version = ("x",) if command == "promote" else ()
        self._refused(place, command, "demo", *version, "--store", store)

    @pytest.mark.parametrize(
        "command", [("build",), ("tune",), ("explain", "x"), ("evaluate", "--input", "train.csv")]
    )
    def test_for_commands_on_a_job(self, place, store, command, monkeypatch):
        monkeypatch.chdir(place.root)
        name, *more = command
        self._refused(place, name, place.job(store=store), *more)

    def test_for_a_classification_and_its_output(self, place, published, store):
        self._refused(place, *_classify(place, place.root / "out", store=store))
        self._refused(place, *_classify(place, store, store=str(published.store)))


class TestAStoreThatMayNotBeWritten:
    @pytest.mark.parametrize("command", ["promote", "rollback", "gc"])
    def test_is_named_by_commands_that_write(self, published, command):
        version = published.only_version().name
        with open_to_all() as folder:
            shutil.copytree(published.store, folder / "store")
            (folder / "store/databases/demo/work/dead").mkdir(parents=True)
            (folder / "store/databases/demo/work/dead/a").write_text("left")
            before = sorted(folder.rglob("*"))
            more = {"promote": (version,), "rollback": (), "gc": ("--older-than", "0")}[command]
            with somebody_else():
                answer = raee(command, "demo", *more, "--store", folder / "store")
            assert sorted(folder.rglob("*")) == before
        assert (answer.code, answer.out) == (2, "")
        assert answer.error.startswith(f"{folder}/store/")
        assert answer.error.endswith(": access denied; may you read and write there?")

    def test_is_read_by_the_others(self, published):
        with open_to_all() as folder:
            shutil.copytree(published.store, folder / "store")
            with somebody_else():
                for command in ("versions", "show", "verify"):
                    answer = raee(command, "demo", "--store", folder / "store")
                    assert answer.code == 0, answer.err

    def test_is_named_where_it_may_not_even_be_read(self):
        with open_to_all() as folder:
            (folder / "store").mkdir(mode=0)
            with somebody_else():
                answer = raee("versions", "demo", "--store", folder / "store")
        assert (answer.code, answer.out) == (2, "")
        assert answer.error.startswith(f"{folder}/store/databases/demo/")
        assert answer.error.endswith(": access denied; may you read and write there?")


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many bytes; returns its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(size: int) -> Path:
        options = ("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
        if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode:
            pytest.skip("no disk can be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for each in mounted:
        subprocess.run(["umount", "--lazy", each], check=True)  # files of it may still be mapped


def _check_full(answer, folder, out=""):
    assert answer.code == 1
    assert answer.out.startswith(out)
    assert bool(answer.out) == bool(out)
    assert answer.error.startswith(f"{folder}/")
    assert answer.error.endswith(": No space left on device")


@pytest.mark.parametrize("size", [4 << 10, 40 << 10, 200 << 10])
def test_a_disk_that_a_build_fills(place, disk, size):
    store = disk(size) / "store"
    _check_full(raee("build", place.job(store=str(store))), store)
    assert not list(store.glob("databases/*/versions/*/manifest.json"))


def test_a_disk_that_is_full(published, disk):
    folder = disk(2 << 20)
    store, version = folder / "store", published.only_version().name
    shutil.copytree(published.store, store)
    with (folder / "rest").open("wb", 0) as rest, suppress(OSError):
        while True:
            rest.write(bytes(4096))
    _check_full(raee("promote", "demo", version, "--store", store), folder)
    _check_full(raee("rollback", "demo", "--store", store), folder)
    tune = ("tune", published.job(store=str(store)))
    # The table is not lost with the file.
    _check_full(raee(*tune, "--json", folder / "figures.json"), folder, f"database demo@{version}")
    _check_full(raee(*_classify(published, folder / "out", store=str(store))), folder)
    assert raee("verify", "demo", "--store", store).code == 0


def test_a_disk_that_can_only_be_read(published, disk):
    folder = disk(2 << 20)
    store, version = folder / "store", published.only_version().name
    shutil.copytree(published.store, store)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    for answer in (
        raee("promote", "demo", version, "--store", store),
        raee("build", published.job(store=str(store), name="other")),
        raee(*_classify(published, folder / "out")),
    ):
        assert (answer.code, answer.out) == (2, "")
        assert answer.error.startswith(f"{folder}/")
        assert answer.error.endswith(": it can only be read there")
    answer = raee("tune", published.job(), "--json", folder / "figures.json")
    assert answer.error == f"--json {folder}/figures.json: you may not write to {folder}"
    assert raee("tune", published.job(store=str(store))).code == 0


def test_a_file_that_may_not_be_so_large(published):
    program = """
import resource, signal, sys
from flows.cli.app import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
main()
"""
    arguments = ("promote", "demo", published.only_version().name, "--store", published.store)
    answer = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60
    )
    aliases = published.store / "databases/demo/aliases"
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith(f"raee: {aliases}/production/0000000")
    assert answer.stderr.endswith(".json: File too large\n")
    assert answer.stderr.count("\n") == 1
    assert [path.name for path in (aliases / "production").iterdir()] == ["00000001.json"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, error("QuotaExceeded")), "the quota is used up"),
        ((400, error("XMinioAdminBucketQuotaExceeded")), "the quota is used up"),
        ((507, error("XMinioStorageFull")), "the server's disks are full"),
    ],
)
def test_a_bucket_without_room(published, moto, store_on, monkeypatch, answer, said):
    output, refused = f"{store_on('moto')}/out", []

    def refuse(request):
        if request.method != "PUT" or "/_work/part-" not in request.path:
            return None
        refused.append(request)
        return answer

    with between(moto, refuse) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        s3.notice_environment()
        found = raee(*_classify(published, output))
    assert (found.code, found.out) == (1, "")
    assert found.error.startswith(f"{output}/_work")
    assert found.error.endswith(f": {said}")
    assert len(refused) == 1


@pytest.mark.parametrize("command", [("tune",), ("evaluate", "--input", "train.csv")])
def test_figures_are_refused_before_any_work_where_a_folder_stands(place, command):
    name, *more = command
    answer = raee(name, place.job(), *more, "--json", place.root)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"raee: --json {place.root}: it is a folder; name a file in it\n"

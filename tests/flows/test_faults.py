"""A store that fails under a whole build or classification: what may pass is tried again."""

import errno
import random
import shutil
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from storage.database import Database
from tests.flows.jobs import Answer, Workplace, raee, repeated_data_of
from tests.storage.faulty import EVER, Fault, full, weather
from tests.texts import sentences

_ERRORS: dict[str, Callable[[], Exception]] = {
    "error": lambda: OSError(errno.EIO, "Input/output error"),
    "connection": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "time-out": lambda: TimeoutError("timed out"),
}


pytestmark = pytest.mark.usefixtures("impatient")


class _Undisturbed(NamedTuple):
    place: Workplace
    """Where a version is published and a corpus classified."""
    built: dict[str, int]
    """How often a build asks the store for what."""
    classified: dict[str, int]
    written: int
    """Bytes that a build writes."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, model_of) -> _Undisturbed:
    place = Workplace(tmp_path_factory.mktemp("undisturbed"), model_of)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAEE_CACHE", str(place.root / "cache"))
        with weather() as built:
            assert _build(place).code == 0
        with weather() as classified:
            assert _classify(place).code == 0
    return _Undisturbed(place, dict(built.calls), dict(classified.calls), built.written)


@pytest.fixture
def copied(undisturbed, tmp_path) -> Workplace:
    """A place of the test's own with the undisturbed version; no process has read it before."""
    shutil.copytree(undisturbed.place.store, tmp_path / "place/store")
    return Workplace(tmp_path / "place", undisturbed.place.model_of)


def _store(place: Workplace) -> str:
    return f"faulty://{place.store}"


def _build(place: Workplace) -> Answer:
    return raee("build", place.job(store=_store(place)))


def _classify(place: Workplace) -> Answer:
    input = place.root / "new.csv"
    if not input.exists():  # written anew, it is another input
        place.write(input.name, sentences(40, seed=9))
    return raee(
        "classify",
        place.job(store=_store(place)),
        "--input",
        input,
        "--output",
        f"faulty://{place.root}/out",
    )


def _points(seed: int, calls: dict[str, int], **fault: object) -> list[Fault]:
    """A fault at one call of each kind."""
    dice = random.Random(seed)
    return [Fault(call, first=dice.randint(1, n), **fault) for call, n in sorted(calls.items())]


def _in_threes(points: Sequence[Fault]) -> list[Sequence[Fault]]:
    """As many as one task survives: it has three more tries."""
    return [points[start : start + 3] for start in range(0, len(points), 3)]


def _check_built(place: Workplace, undisturbed: _Undisturbed) -> None:
    """There is one version, whole, with the bytes of the undisturbed build."""
    assert raee("verify", "demo", "--store", _store(place)).code == 0
    ours, theirs = place.only_version(), undisturbed.place.only_version()
    assert repeated_data_of(ours) == repeated_data_of(theirs)


def _check_failed(place: Workplace, answer: Answer, said: str) -> None:
    """One line says what is wrong, and no version is listed."""
    assert answer.code in (1, 2)
    assert answer.out == ""
    assert said in answer.error
    assert Database(_store(place), "demo").ids() == []


def _predictions(place: Workplace) -> dict[str, bytes]:
    output = place.root / "out"
    assert [p.name for p in output.iterdir() if not p.name.startswith("part-")] == ["manifest.json"]
    return {path.name: path.read_bytes() for path in output.glob("part-*")}


@pytest.mark.parametrize(
    ("error", "late"), [("error", False), ("connection", True), ("time-out", False)]
)
class TestErrorsThatPass:
    """late: the store does what it is asked, and the answer is lost."""

    def test_do_not_change_what_is_built(self, place, undisturbed, error, late):
        points = _points(len(error), undisturbed.built, error=_ERRORS[error], late=late)
        for some in _in_threes(points):
            shutil.rmtree(place.store, ignore_errors=True)
            with weather(*some):
                answer = _build(place)
            assert answer.code == 0, answer.err
            _check_built(place, undisturbed)

    def test_do_not_change_what_is_classified(self, copied, undisturbed, error, late):
        points = _points(len(error), undisturbed.classified, error=_ERRORS[error], late=late)
        for some in _in_threes(points):
            shutil.rmtree(copied.root / "out", ignore_errors=True)
            with weather(*some):
                answer = _classify(copied)
            assert answer.code == 0, answer.err
            assert _predictions(copied) == _predictions(undisturbed.place)


@pytest.mark.parametrize("share", [0.01, 0.97])
def test_a_full_disk_is_one_line_and_the_next_build_goes_on(place, undisturbed, share):
    with weather(room=int(share * undisturbed.written)):
        answer = _build(place)
    _check_failed(place, answer, "No space left on device")
    assert _store(place) in answer.error
    assert _build(place).code == 0
    _check_built(place, undisturbed)


def test_a_disk_that_is_full_for_the_manifest_publishes_nothing(place, undisturbed):
    faults = [Fault("pipe_file", full, times=EVER, below="/manifest.json")]
    with weather(*faults):
        _check_failed(place, _build(place), "No space left on device")
    assert _build(place).code == 0
    _check_built(place, undisturbed)


def test_a_server_that_is_gone_is_one_line_and_the_next_build_goes_on(place, undisturbed):
    faults = [
        Fault(call, _ERRORS["connection"], first=n // 2, times=EVER)
        for call, n in undisturbed.built.items()
    ]
    with weather(*faults):
        answer = _build(place)
    _check_failed(place, answer, "Connection reset by peer")
    assert _store(place) in answer.error
    assert _build(place).code == 0
    _check_built(place, undisturbed)


def test_an_output_on_a_full_disk_is_no_output(copied, undisturbed):
    for room in (0, 6_000):
        with weather(room=room):
            answer = _classify(copied)
        assert answer.code == 1
        assert "No space left on device" in answer.error
        assert not (copied.root / "out/manifest.json").exists()
    assert _classify(copied).code == 0
    assert _predictions(copied) == _predictions(undisturbed.place)


class TestReadsCutShort:
    def test_never_change_what_is_built(self, place, undisturbed):
        firsts = random.Random(0).sample(range(1, undisturbed.built["read"] + 1), 10)
        with weather(*[Fault("read", first=first, short=True) for first in firsts]):
            answer = _build(place)
        if answer.code:  # a table without its end is no table
            _check_failed(place, answer, f"{_store(place)}/databases/demo/work/")
            assert _build(place).code == 0
        _check_built(place, undisturbed)

    @pytest.mark.parametrize("files", ["entries/part-*", "keys/*", "probes.*"])
    def test_of_a_version_are_told_by_the_name_of_the_file(self, copied, files):
        name = str(next(copied.only_version().glob(files)).relative_to(copied.only_version()))
        with weather(Fault("read", short=True, times=EVER, below=name)):
            for answer in (_classify(copied), raee("verify", "demo", "--store", _store(copied))):
                assert answer.code == 1
                assert f"{name}: cut short in reading" in answer.error
        assert not (copied.root / "out").exists()


def test_a_slow_store_only_takes_time(copied, undisturbed):
    faults = [Fault(call, seconds=0.02, times=5) for call in undisturbed.classified]
    with weather(*faults):
        assert _classify(copied).code == 0
    assert _predictions(copied) == _predictions(undisturbed.place)

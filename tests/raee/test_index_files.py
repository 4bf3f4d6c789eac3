"""Index files are mapped, and damaged ones are errors, never a crash of the interpreter."""

import io
import re
import subprocess
import sys

import faiss
import numpy as np
import pytest

from raee.neighbours.index import new_index, open_index
from raee.neighbours.training import trained_index
from tests.raee.clusters import clustered
from tests.raee.errors import refused

KEYS = clustered(800)

KINDS = ["Flat", "IVF16,Flat", "IVF16_HNSW8,SQ8", "IVF16,PQ4x6", "OPQ2,IVF16,PQ2x6", "PCA8,Flat",
         "HNSW8", "HNSW8,SQ8", "SQ8", "PQ4x6"]  # fmt: skip


def _index(spec, keys=KEYS):
    index = trained_index(spec, keys.shape[1], keys)
    index.add(keys)
    return index


@pytest.fixture(scope="module", params=KINDS)
def written(request, tmp_path_factory):
    """An index and its file."""
    index = _index(request.param)
    if index.widths:
        index.searched = 32 if request.param.startswith("HNSW8") else 4
    path = tmp_path_factory.mktemp("index") / "layer-00.faiss"
    with path.open("wb") as file:
        index.write(file.write)
    return index, path


def test_a_mapped_index_finds_what_the_one_in_memory_finds(written):
    index, path = written
    again = open_index(path)
    assert (len(again), again.exact, again.searched) == (len(index), index.exact, index.searched)
    np.testing.assert_array_equal(again.keys(5, 700), index.keys(5, 700))
    found, expected = (i.search(KEYS[:300], 12, np.arange(300)) for i in (again, index))
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.distances, expected.distances)


def test_how_widely_to_search_reaches_every_reader_of_the_file(written):
    index, path = written
    plain = faiss.read_index(str(path))
    while isinstance(plain, faiss.IndexPreTransform):
        plain = faiss.downcast_index(plain.index)
    if isinstance(plain, faiss.IndexIVF):
        assert plain.nprobe == index.searched
    elif isinstance(plain, faiss.IndexHNSW):
        assert plain.hnsw.efSearch == index.searched


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("spec", ["Flat", "IVF16,Flat", "IVF16,SQ8"])
def test_keys_stay_in_the_file(spec, tmp_path):
    keys = clustered(100_000, width=128)
    path = tmp_path / "layer-00.faiss"
    with path.open("wb") as file:
        index = trained_index(spec, 128, keys[:1_000])
        index.add(keys)
        index.write(file.write)
    script = """
import re, sys
from pathlib import Path
from raee.neighbours.index import open_index
def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = own()
index = open_index(Path(sys.argv[1]))
index.keys(0, 2_000)
print(own() - before)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) * 1024 < path.stat().st_size / 3


def test_a_missing_file_and_a_kind_that_is_not_read_are_named(tmp_path):
    path = tmp_path / "layer-00.faiss"
    with refused(re.escape(f"there is no index {path}; fetch its version again")):
        open_index(path)
    faiss.write_index(faiss.IndexFlatIP(8), str(path))
    with refused(re.escape(f"{path} is an index of a kind that is not read here (IndexFlatIP)")):
        open_index(path)


@pytest.mark.parametrize("content", [b"", b"x", b"IxF2", b"no index at all" * 100, b"\0" * 4096])
def test_a_file_that_is_no_index_is_named(content, tmp_path):
    path = tmp_path / "layer-00.faiss"
    path.write_bytes(content)
    with refused(re.escape(f"{path} is no whole index; `raee verify`")):
        open_index(path)


ATTACK = """
import resource, sys
from pathlib import Path
import numpy as np
from raee.errors import InputError
from raee.neighbours.index import open_index

# A file may ask for no more memory than a small multiple of itself.
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
path = Path(sys.argv[1])
whole = path.read_bytes()
queries = np.ones((20, 16), np.float32)
damaged = path.with_suffix(".damaged")

def opens(content):
    damaged.write_bytes(content)
    try:
        index = open_index(damaged)
    except InputError as error:
        assert str(damaged) in str(error), error
        return False
    try:
        if index.width == 16:
            index.search(queries, 5)
        index.keys(0, min(len(index), 50))
    except (RuntimeError, MemoryError, InputError):
        pass
    return True

spread = np.linspace(0, len(whole) - 1, 40, dtype=int).tolist()
for end in sorted({*range(0, 250), *spread, *range(len(whole) - 9, len(whole))}):
    assert not opens(whole[:end]), f"a file cut at {end} opens"
for place in sorted({*range(0, 200), *spread, *range(len(whole) - 9, len(whole))}):
    for value in (0x00, 0x7F, 0xFF):
        changed = bytearray(whole)
        changed[place] = value
        opens(bytes(changed))
assert opens(whole)
print("alive")
"""


def test_no_damage_crashes_the_interpreter(written):
    _, path = written
    ran = subprocess.run(
        [sys.executable, "-c", ATTACK, path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "alive\n"


def test_an_index_that_was_opened_is_not_written_as_a_file_name(tmp_path):
    path = tmp_path / "layer-00.faiss"
    with path.open("wb") as file:
        _index("IVF16,Flat").write(file.write)
    with pytest.raises(AssertionError, match="mapped lists"):
        open_index(path).write(io.BytesIO().write)


def test_an_empty_exact_index_can_be_read(tmp_path):
    path = tmp_path / "layer-00.faiss"
    with path.open("wb") as file:
        new_index(8).write(file.write)
    assert len(open_index(path)) == 0

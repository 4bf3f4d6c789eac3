"""A corpus on a web server, and what its answers mean: what passes is worth another try."""

import subprocess
import sys
from dataclasses import replace

import pytest

from storage.corpus import CorpusSpec, read_batches, whole
from storage.corpus_files import list_corpus
from storage.database import Database
from storage.faults import stays
from storage.scan import scan
from storage.store import Folder
from tests.ports import free_ports
from tests.raee.errors import refused
from tests.storage.web import web

_FILES = {"/a.csv": b"text,label\na warm film,good\n"}


def test_is_read():
    with web(_FILES) as server:
        assert scan(CorpusSpec(uri=f"{server.url}/a.csv")).rows == 1


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, r"access denied \(401 Unauthorized\); check who you are and what you may"),
        (403, r"access denied \(403 Forbidden\); check who you are and what you may"),
        (404, "there is no such file or folder"),
        (410, "the server says 410 Gone; check the address"),
        (400, "the server says 400 Bad Request; check the address"),
        (302, "it is redirected without an end; correct the address"),
        (501, "the server says 501 Not Implemented; check the address"),
    ],
)
def test_an_answer_that_stays_is_one_line(status, said):
    with web(_FILES, lambda asked: status) as server:
        uri = f"{server.url}/a.csv"
        with refused(f"^corpus {uri}: {said}$"):
            list_corpus(uri)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_that_passes_is_worth_another_try(status):
    with web(_FILES, lambda asked: status) as server:
        uri = f"{server.url}/a.csv"
        with pytest.raises(
            ConnectionError, match=f"^corpus {uri}: the server says {status} "
        ) as it:
            list_corpus(uri)
        assert not stays(it.value)


def test_an_answer_that_passes_is_told_at_whichever_request_it_comes():
    with web(_FILES) as server:
        scan(CorpusSpec(uri=f"{server.url}/a.csv"))
    told = 0
    for place in range(1, len(server.asked) + 1):
        with web(_FILES, lambda asked, place=place: 503 if len(asked) == place else None) as spoilt:
            try:
                assert scan(CorpusSpec(uri=f"{spoilt.url}/a.csv")).rows == 1
            except ConnectionError:
                told += 1
    assert told


@pytest.mark.parametrize("breaks", [True, False])
def test_a_server_that_does_not_answer_is_worth_another_try(breaks):
    with web(_FILES, lambda asked: 0) as server:
        url = server.url if breaks else f"http://127.0.0.1:{free_ports(1)}"
        uri = f"{url}/a.csv"
        with pytest.raises(ConnectionError, match=f"^corpus {uri}: the server does not answer "):
            list_corpus(uri)


def test_an_answer_while_it_is_read_means_the_same():
    with web(_FILES) as server:
        (file,) = list_corpus(f"{server.url}/a.csv").files
    for status, kind in ((503, ConnectionError), (403, ValueError)):
        with web(_FILES, lambda asked, status=status: status) as server:
            found = whole(replace(file, uri=f"{server.url}/a.csv"))
            with pytest.raises(kind, match=str(status)):
                list(read_batches(CorpusSpec(uri=server.url), found, True))


def test_the_web_is_no_place_for_a_store():
    with web({}) as server:
        with refused(f"^{server.url}: the web is only read; give a folder, or s3://bucket/folder$"):
            Database(server.url, "demo").ids()
        nothing = f"^{server.url}: nothing can be written at addresses of this kind$"
        with refused(nothing), Folder(server.url).create("a"):
            pass


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("foo://bar/a.csv", "Protocol not known: foo"),
        ("gs://bucket/a.csv", "Please install gcsfs to access Google Storage"),
    ],
)
def test_a_kind_of_address_that_is_not_known_here_is_one_line(uri, said):
    with refused(f"^corpus {uri}: {said}$"):
        list_corpus(uri)
    with refused(f"^{uri}: {said}$"):
        Folder(uri)


def test_the_web_without_its_library_is_one_line():
    program = """
import sys
sys.modules["aiohttp"] = None
from raee.errors import InputError
from storage.corpus_files import list_corpus
try:
    list_corpus("http://127.0.0.1/a.csv")
except InputError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert said.startswith(b"corpus http://127.0.0.1/a.csv: HTTPFileSystem requires ")
    assert b"aiohttp" in said
    assert said.count(b"\n") == 1

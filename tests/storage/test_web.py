"""A corpus on a web server: files, pages that list them, and what servers refuse."""

import os
from random import Random

import pytest

from storage.corpus import CorpusSpec
from storage.corpus_files import list_corpus
from storage.scan import count, read_shard, scan
from tests.ports import free_ports
from tests.raee.errors import refused
from tests.storage.corpora import read_all, write_corpus
from tests.storage.site import serving

_ROWS = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(200)]


@pytest.mark.parametrize("form", ["csv", "csv.gz", "jsonl", "parquet"])
def test_any_format_is_read(tmp_path, form):
    write_corpus(tmp_path / f"a b.{form}", _ROWS)
    with serving(tmp_path) as site:
        for address in (f"/a b.{form}", f"/a%20b.{form}", "/", f"/*.{form}"):
            _, rows, rejects = read_all(CorpusSpec(uri=site.url + address), 120)
            assert [row.text for row in rows] == [row["text"] for row in _ROWS]
            assert rejects == []


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_a_signed_address_is_read_and_its_query_is_in_no_id(tmp_path, form):
    write_corpus(tmp_path / f"a.{form}", _ROWS)
    with serving(tmp_path, query="sig=a%2Fb%3D&to=*.x") as site:
        address = f"{site.url}/a.{form}?sig=a%2Fb%3D&to=*.x"
        _, rows, _ = read_all(CorpusSpec(uri=address), 120)
        assert [row.id for row in rows] == [f"a.{form}:{i}" for i in range(1, 201)]
        with refused(r"access denied \(403 Forbidden\); check who you are and what you may"):
            count(CorpusSpec(uri=f"{site.url}/a.{form}?sig=a"))


def test_a_file_is_not_taken_for_a_page(tmp_path):
    write_corpus(tmp_path / "a.parquet", _ROWS)
    links = [{"text": f'<a href="{i}.csv">', "label": "x"} for i in range(200)]
    write_corpus(tmp_path / "b.csv", links)
    with serving(tmp_path) as site:
        list_corpus(f"{site.url}/a.parquet")
        assert [method for method, *_ in site.asked] == ["HEAD"], "it may be many gigabytes"
        assert len(read_all(CorpusSpec(uri=f"{site.url}/b.csv"), 200)[1]) == 200


@pytest.mark.parametrize("address", ["", "/a.csv"])
def test_a_file_that_changes_meanwhile_is_seen(tmp_path, address):
    path = tmp_path / "a.csv"
    write_corpus(path, _ROWS)
    with serving(tmp_path) as site:
        spec = CorpusSpec(uri=site.url + address)
        (shard,) = scan(spec).shards(200)
        path.write_bytes(path.read_bytes().replace(b"text 7", b"TEXT 7"))
        os.utime(path, (0, 0))
        with refused("a.csv has changed since it was looked at"):
            read_shard(spec, shard, True, None)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_server_without_parts_is_named(tmp_path, form):
    noise = Random(0)
    rows = [{"text": noise.randbytes(100).hex(), "label": "x"} for _ in range(60_000)]
    write_corpus(tmp_path / f"a.{form}", rows)
    said = f"a.{form}: the server gives no parts of a file, or no size; download it"
    with serving(tmp_path, parts=False) as site, refused(said):
        count(CorpusSpec(uri=f"{site.url}/a.{form}"))


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (404, ValueError, ": there is no such file or folder"),
        (401, ValueError, r": access denied \(401 "),
        (302, ValueError, ": it is redirected without an end; correct the address"),
        (503, OSError, ": the server says 503 "),
    ],
)
def test_what_a_server_refuses_is_one_line(tmp_path, status, kind, said):
    with serving(tmp_path, status=status) as site:
        for address in ("/a.csv", "/a.csv/"):
            with pytest.raises(kind, match=said) as caught:
                list_corpus(site.url + address)
            assert len(str(caught.value).splitlines()) == 1


def test_no_server_is_tried_again(tmp_path):
    with pytest.raises(ConnectionError, match=r"a\.csv: the server does not answer"):
        list_corpus(f"http://127.0.0.1:{free_ports(1)}/a.csv")

"""Every command does on S3 what it does in a folder: corpora, stores and outputs alike."""

import json

import pytest

from flows.maintain_store import maintain_store
from storage.store import Folder
from tests import s3
from tests.flows.jobs import Workplace, raee
from tests.flows.opinions import opinions
from tests.storage.corpora import write_corpus
from tests.storage.proxy import between

_ROWS = 120

_REQUESTS = 42
"""Of a build for each of its shards, two of them for what a machine's cache does not have yet."""


@pytest.fixture(params=["local", "ceph"])
def anywhere(request, tmp_path, model_of, store_on):
    """A place whose store, corpora and outputs all lie in a folder, or all on a server."""
    uri = store_on(request.param)
    s3.notice_environment()
    place = Workplace(tmp_path, model_of)
    rows = opinions(model_of("bert-encoder"), _ROWS)
    corpora = Folder(uri) / "corpora"
    for name, some in (("train", rows), ("more", rows[5:]), ("new", rows[:30])):
        with open(write_corpus(tmp_path / f"{name}.csv", some), "rb") as file:
            corpora.write_new(f"{name}.csv", file.read())
    return place, uri


def test_every_command_works_on_it(anywhere):
    place, uri = anywhere
    store = ("--store", f"{uri}/store")

    def job(corpus: str) -> str:
        return place.job(
            store=f"{uri}/store",
            corpus={"uri": f"{uri}/corpora/{corpus}.csv", "id": "id"},
            key={"layers": [0, 2]},
            shard_rows=50,
        )

    def said(*arguments: object) -> str:
        answer = raee(*arguments)
        assert answer.code == 0, answer.err
        assert "testsecret" not in answer.out + answer.err
        return answer.out.strip()

    first = said("build", job("train"))
    assert said("build", job("train")) == first, "nothing has changed"
    second = said("build", job("more"))
    assert [v["id"] for v in json.loads(said("versions", "demo", *store, "--json"))] == [
        second,
        first,
    ]
    said("promote", "demo", second, *store)
    assert f"-> {first}" in said("promote", "demo", first, *store, "--if-current", second)
    assert f"-> {second}" in said("rollback", "demo", *store)
    said("verify", "demo", *store)
    manifest = said("show", f"demo@{first}", *store, "--json")
    assert json.loads(manifest)["rows"] == _ROWS
    assert "testsecret" not in manifest
    input = ("--input", f"{uri}/corpora/new.csv")
    output = f"{uri}/out"
    assert said("classify", job("more"), *input, "--output", output) == output
    assert said("classify", job("more"), *input, "--output", output) == output, "it is there"
    done = json.loads(Folder(output).read("manifest.json"))
    assert (done["rows_in"], done["rows_out"], done["version"]) == (30, 30, second)
    assert Folder(output).names() == ["manifest.json", "part-00000.parquet"]
    assert "tuned" in said("evaluate", job("more"), *input)
    assert "full depth" in said("tune", job("more"))
    assert said("explain", job("more"), "a good film", "--json").startswith("{")
    child = said("prune", f"demo@{second}", *store, "--json")
    if (pruned := json.loads(child)["version"]) is not None:
        said("verify", f"demo@{pruned}", *store)
    kept = said("gc", "demo", *store, "--keep", "1", "--dry-run")
    assert first in kept
    said("gc", "demo", *store, "--keep", "1")
    assert first not in said("versions", "demo", *store)
    said("verify", f"demo@{second}", *store)
    (kept,) = maintain_store(f"{uri}/store", keep=1)
    assert (kept.database, kept.faults) == ("demo", [])


def test_a_build_asks_a_server_no_more_than_so_often_a_shard(
    tmp_path, model_of, store_on, moto, monkeypatch
):
    """Each request takes its time, and most of them are made by one process."""
    store = store_on("moto")
    place = Workplace(tmp_path, model_of)
    asked = []
    with between(moto, asked.append) as seen:
        monkeypatch.setenv("AWS_ENDPOINT_URL", seen.url)
        monkeypatch.setenv("RAEE_CACHE", str(tmp_path / "cache"))
        s3.notice_environment()
        counts = []
        for shard_rows in (20, 5):
            asked.clear()
            place.build(name=f"by-{shard_rows}", store=store, shard_rows=shard_rows)
            counts.append(len(asked))
    few, many = counts
    assert few < many < few + (8 - 2) * _REQUESTS

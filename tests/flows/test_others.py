"""A published version is read by others' programs, without a line of ours."""

import duckdb
import faiss
import numpy as np
import polars as pl
import pyarrow.dataset as ds
import pyarrow.fs
import pytest
import s3fs

from tests import s3
from tests.flows.jobs import manifest_of


@pytest.fixture
def version(published):
    return published.only_version()


@pytest.fixture
def on_a_server(version, ceph):
    """The bucket's path of a version, copied there by others, and the server."""
    fs = s3fs.S3FileSystem(
        endpoint_url=ceph.url, key=ceph.key, secret=ceph.secret, skip_instance_cache=True
    )
    path = f"{s3.BUCKET}/others/{version.name}"
    fs.put(str(version), path, recursive=True)
    return path, ceph


def test_duckdb_counts_labels(version):
    found = duckdb.sql(
        f"select label, count(*) from '{version}/entries/*.parquet' group by label order by label"
    ).fetchall()
    assert sum(rows for _, rows in found) == manifest_of(version)["rows"]


def test_polars_and_faiss_find_the_nearest_entries(version):
    entries = pl.read_parquet(f"{version}/entries/*.parquet")
    index = faiss.read_index(str(version / "keys/layer-01.faiss"))
    assert index.ntotal == len(entries) == manifest_of(version)["rows"]
    distances, rows = index.search(index.reconstruct_n(0, len(entries)), 8)
    assert (rows[:, 0] == np.arange(len(entries))).mean() > 0.5, "a row is its own nearest"
    tokens = entries["tokens"].to_numpy()
    distances[tokens[rows] == tokens[:, None]] = np.inf  # equal texts are no neighbours
    lists = pl.read_parquet(f"{version}/neighbours/*.parquet")
    nearest = np.array(lists["distances-0"].to_list())[:, 0]
    np.testing.assert_allclose(nearest, distances.min(axis=1), atol=1e-5)
    np.testing.assert_allclose(entries["nearest_distance"].to_numpy(), nearest, atol=1e-7)
    exits = manifest_of(version)["exits"]
    assert len(entries["answers"][0]) == len(exits)


def test_pyarrow_reads_it_from_a_server(on_a_server):
    path, server = on_a_server
    fs = pyarrow.fs.S3FileSystem(
        access_key=server.key,
        secret_key=server.secret,
        endpoint_override=server.url.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
    )
    table = ds.dataset(f"{path}/entries", filesystem=fs).to_table(columns=["id", "label"])
    assert len(table) > 0
    assert table["label"].null_count == 0

"""A version is plain files: whoever speaks S3 can list and fetch it."""

import hashlib
import os
import shutil
import subprocess

import pytest

from storage.manifest import MANIFEST
from tests.storage.databases import demo, publish_version

_FILES = {"entries/part-00000.parquet": b"entries" * 1_000, "keys/layer-00.faiss": b"keys" * 100}


@pytest.fixture
def aws():
    """Runs the AWS command line against a server; gives what it prints."""
    program = shutil.which("aws")
    if program is None:
        pytest.skip("no aws here; `make services` installs it")

    def run(server, *arguments):
        command = [program, "s3", "--endpoint-url", server.url, *arguments]
        return subprocess.check_output(
            command, text=True, timeout=120, env={**os.environ, **server.environment}
        )

    return run


def test_the_aws_command_line_lists_and_fetches_a_version(ceph, store_on, tmp_path, aws):
    store = store_on("ceph")
    version = publish_version(store, _FILES)
    folder = demo(store).version(version).folder
    listed = aws(ceph, "ls", f"{folder}/", "--recursive").splitlines()
    key = folder.uri.removeprefix("s3://").partition("/")[2]
    assert {line.split()[3]: int(line.split()[2]) for line in listed} == {
        f"{key}/{name}": folder.size(name) for name in (*_FILES, MANIFEST)
    }
    file = demo(store).version(version).manifest().files[0]
    aws(ceph, "cp", "--quiet", f"{folder}/{file.path}", str(tmp_path / "fetched"))
    assert hashlib.sha256((tmp_path / "fetched").read_bytes()).hexdigest() == file.sha256

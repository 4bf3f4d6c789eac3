"""A job names a block of the orchestrator for S3: its secrets reach the server and nothing else."""

import json
import uuid

import pytest

from storage.store import Folder, use_s3_options
from tests import s3
from tests.flows.jobs import Workplace, raee


@pytest.fixture
def block(ceph, server, monkeypatch):
    """The name of a block with the only credentials that there are, and the server."""
    from prefect_aws import AwsClientParameters, AwsCredentials

    for name in ceph.environment:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3.notice_environment()
    name = f"lake-{uuid.uuid4().hex[:8]}"
    AwsCredentials(
        aws_access_key_id=ceph.key,
        aws_secret_access_key=ceph.secret,
        region_name="us-east-1",
        aws_client_parameters=AwsClientParameters(endpoint_url=ceph.url),
    ).save(name)
    yield name, ceph
    use_s3_options({})


def test_a_build_and_a_classification_use_the_block(place: Workplace, block):
    name, server = block
    store = f"s3://{s3.BUCKET}/{uuid.uuid4().hex}"
    job = place.job(store=store, credentials=name)
    said = [raee("build", job)]
    assert said[0].code == 0, said[0].err
    input = place.write("new.csv", [{"id": "a", "text": "a good film"}])
    arguments = ("--input", input, "--output", f"{store}/out")
    said.append(raee("classify", job, *arguments))
    assert said[1].code == 0, said[1].err
    version = said[0].out.strip()
    manifest = Folder(store).read(f"databases/demo/versions/{version}/manifest.json").decode()
    written = Folder(f"{store}/out").read("manifest.json").decode()
    assert json.loads(manifest)["job"]["credentials"] == name
    for text in (manifest, written, *(a.out + a.err for a in said)):
        assert server.secret not in text


def test_the_commands_on_a_store_use_the_block_and_keep_it_for_no_other(place, block):
    name, _ = block
    store = f"s3://{s3.BUCKET}/{uuid.uuid4().hex}"
    first, second = (
        place.build(store=store, credentials=name, policy=policy) for policy in ("tuned", "full")
    )
    for command, said in {
        ("versions", "demo"): first,
        ("show", f"demo@{second}"): second,
        ("promote", "demo", first): first,
        ("promote", "demo", second): second,
        ("rollback", "demo"): first,
        ("verify", "demo"): "all as written",
        ("gc", "demo"): "nothing is to be collected",
        ("prune", "demo"): "no tenth of its rows can go",
    }.items():
        answer = raee(*command, "--store", store, "--credentials", name)
        assert answer.code == 0, answer.err
        assert said in answer.out
        without = raee(*command, "--store", store)
        assert (without.code, without.out) == (2, "")


@pytest.mark.parametrize(
    "command",
    [
        *(("versions", "demo"), ("show", "demo"), ("promote", "demo", "x"), ("rollback", "demo")),
        *(("verify", "demo"), ("gc", "demo"), ("prune", "demo")),
    ],
    ids=lambda command: command[0],
)
def test_a_command_on_a_store_refuses_a_block_that_is_not_there(tmp_path, server, command):
    answer = raee(*command, "--store", tmp_path, "--credentials", "nowhere")
    assert (answer.code, answer.out) == (2, "")
    assert "there is no block aws-credentials/nowhere" in answer.error


def test_a_block_that_is_not_there_is_one_line(place: Workplace, server):
    answer = raee("build", place.job(credentials="nowhere"))
    assert (answer.code, answer.out) == (2, "")
    assert "there is no block aws-credentials/nowhere" in answer.error
    assert not place.store.exists()

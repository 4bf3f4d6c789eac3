"""Credentials of a store, out of a Prefect block: no job and no manifest holds the key to S3.

Without a block they come from where every AWS tool looks: environment, profile, instance.
"""

from typing import Any

from raee.errors import InputError
from tasks.prefect_settings import read_settings


def use_credentials(block: str | None) -> None:
    """Reach S3 from now on with that block, or without one as the environment says.

    Raises InputError if there is no such block, or it holds no credentials.
    """
    from storage.store import use_s3_options  # slow to import, and commands import this module

    use_s3_options({} if block is None else _options(block))


def _options(name: str) -> dict[str, Any]:
    """The options of s3fs."""
    read_settings()
    from prefect_aws import AwsCredentials  # takes seconds to import, and few jobs need it

    try:
        block = AwsCredentials.load(name)
    except ValueError as error:
        raise InputError(
            f"credentials: there is no block aws-credentials/{name}; make it in the "
            "orchestrator's UI, or leave `credentials` out"
        ) from error
    # The block's own session resolves a profile or an assumed role.
    found = block.get_boto3_session().get_credentials()  # type: ignore[union-attr]
    if found is None:
        raise InputError(f"credentials: the block aws-credentials/{name} holds no access key")
    key = found.get_frozen_credentials()
    client = block.aws_client_parameters  # type: ignore[union-attr]
    more = {
        "region_name": block.region_name,  # type: ignore[union-attr]
        "verify": client.verify_cert_path or client.verify,
    }
    return {
        "key": key.access_key,
        "secret": key.secret_key,
        "token": key.token,
        "endpoint_url": client.endpoint_url,
        "client_kwargs": {n: v for n, v in more.items() if v is not None},
    }

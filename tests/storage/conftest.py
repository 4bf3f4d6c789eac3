import uuid

import pytest

from storage.store import Folder


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    """An empty store, on the disk and behind fsspec: nothing may work on only one of them."""
    uri = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    yield uri
    Folder(uri).remove()

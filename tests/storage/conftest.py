import pytest

from tests import s3
from tests.storage.leftovers import aging


# Of the module, so that the tests on one server follow each other and share its connections.
@pytest.fixture(scope="module", params=["local", "memory", "moto", "ceph"])
def kind(request):
    return request.param


@pytest.fixture
def store(kind, store_on):
    """An empty store of every kind: nothing may work on only one of them."""
    return store_on(kind)


@pytest.fixture(params=["local", "moto", "ceph"])
def shared_store(request, store_on):
    """An empty store of every kind that several processes can write to."""
    return store_on(request.param)


@pytest.fixture
def use(monkeypatch):
    """Makes a server the one that the environment names, with what else it should say."""

    def use(server, **others):
        for name, value in {**server.environment, **others}.items():
            monkeypatch.setenv(name, value)
        s3.notice_environment()

    return use


@pytest.fixture
def age(monkeypatch):
    """Makes what stands in a store look older, for `collect`."""
    return aging(monkeypatch)

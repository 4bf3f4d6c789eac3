"""What stays as it is is said at once, in one line; what may pass is tried again first."""

import pytest

from tests import s3
from tests.flows.jobs import raee
from tests.storage.proxy import between, error
from tests.storage.web import web
from tests.texts import sentences

pytestmark = pytest.mark.usefixtures("impatient")

_TRIES = 4


@pytest.fixture
def classify(published):
    """Runs a classification of an input; without one, of a file that is there."""

    def classify(input=None, output=None):
        input = input or published.write("new.csv", sentences(20, seed=5))
        output = output or published.root / "out"
        return raee("classify", published.job(), "--input", input, "--output", output)

    return classify


@pytest.fixture
def corpus(published):
    """An input's path on a web server, and its content."""
    with open(published.write("new.csv", sentences(20, seed=5)), "rb") as file:
        return {"/new.csv": file.read()}


class TestAWebServer:
    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_that_refuses_is_asked_once(self, classify, corpus, status):
        with web(corpus, lambda asked: status) as server:
            answer = classify(f"{server.url}/new.csv")
        assert (answer.code, answer.out) == (2, "")
        assert f"corpus {server.url}/new.csv: " in answer.error
        assert server.asked == ["HEAD /new.csv", "GET /new.csv"], "fsspec's two ways, once"

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_that_recovers_is_read(self, classify, corpus, status):
        with web(corpus, lambda asked: status if len(asked) < _TRIES else None) as server:
            answer = classify(f"{server.url}/new.csv")
        assert answer.code == 0, answer.err

    def test_that_does_not_recover_is_given_up(self, classify, corpus):
        with web(corpus, lambda asked: 503) as server:
            answer = classify(f"{server.url}/new.csv")
        assert (answer.code, answer.out) == (1, "")
        assert answer.error.endswith("new.csv: the server says 503 Service Unavailable")
        assert server.asked == ["HEAD /new.csv", "GET /new.csv"] * _TRIES


class TestAnS3Server:
    @pytest.fixture
    def use(self, monkeypatch):
        def use(server):
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
            s3.notice_environment()

        return use

    @pytest.mark.parametrize("code", ["AccessDenied", "AllAccessDisabled", "InvalidObjectState"])
    @pytest.mark.parametrize("method", ["GET", "PUT"])
    def test_that_refuses_is_asked_once(self, classify, moto, store_on, use, method, code):
        output, refused = f"{store_on('moto')}/out", []

        def refuse(request):
            if request.method != method:
                return None
            refused.append(request)
            return 403, error(code)

        with between(moto, refuse) as server:
            use(server)
            answer = classify(output=output)
        assert (answer.code, answer.out) == (2, "")
        assert f"{output}" in answer.error
        assert "access denied" in answer.error
        assert len(refused) == 1

    def test_that_does_not_know_who_asks_is_asked_once(self, classify, moto, store_on, use):
        output, refused = f"{store_on('moto')}/out", []

        def refuse(request):
            refused.append(request)
            return 401, error("Unauthorized")

        with between(moto, refuse) as server:
            use(server)
            answer = classify(output=output)
        assert (answer.code, answer.out) == (2, "")
        assert "access denied (401)" in answer.error
        assert len(refused) <= 2, "an object, then a folder of its name"

    @pytest.mark.parametrize(
        ("status", "code"),
        [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"), (504, "")],
    )
    def test_that_recovers_is_written(self, classify, moto, store_on, use, status, code):
        output, spoilt = f"{store_on('moto')}/out", []

        def spoil(request):
            if request.method != "PUT" or len(spoilt) == 2:
                return None
            spoilt.append(request)
            return status, error(code)

        with between(moto, spoil) as server:
            use(server)
            answer = classify(output=output)
        assert answer.code == 0, answer.err
        assert len(spoilt) == 2


@pytest.mark.parametrize("address", ["foo://bar/out", "gs://bucket/out"])
def test_an_address_of_a_kind_that_is_not_known_here_is_one_line(classify, address):
    for answer in (classify(output=address), classify(input=f"{address}/a.csv")):
        assert (answer.code, answer.out) == (2, "")
        assert address in answer.error


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("_work", "_work: a file stands where a folder should be"),
        ("_work/plan.json/x", "_work/plan.json: a folder stands where a file should be"),
        ("part-00000.parquet/x", "is not empty (it holds part-00000.parquet); give a new or empty"),
    ],
)
def test_something_else_in_the_way_of_an_output_is_one_line(classify, published, name, said):
    path = published.root / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    answer = classify()
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.error


def test_a_folder_in_place_of_a_versions_file_is_one_line(classify, published):
    path = published.only_version() / "probes.safetensors"
    path.unlink()
    path.mkdir()
    for answer in (classify(), raee("verify", "demo", "--store", published.store)):
        assert (answer.code, answer.out) == (2, "")
        assert answer.error == f"{path}: a folder stands where a file should be"

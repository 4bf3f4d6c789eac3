"""What is written must not lie where it would be read, whatever the addresses look like."""

import pytest

from storage.apart import check_output_apart, check_store_apart
from storage.corpus import CorpusSpec
from storage.scan import scan
from tests.raee.errors import refused
from tests.storage.corpora import uploaded, write_corpus

_INSIDE = [
    ("data", "data/pred"),
    ("data/", "data/deep/er/pred/"),
    ("data", "./data//pred"),
    ("data", "data/../data/pred"),
    ("data", "file://{here}/data/pred"),
    ("file://{here}/data", "data/pred"),
    ("data", "link/pred"),
    ("link", "data/pred"),
    ("link/*", "data/pred"),
    (".", "pred"),
    ("data/a.csv", "data/a.csv/pred"),
    ("data/*", "data/pred"),
    ("data/*.parquet", "data/pred.parquet"),
    ("data/*/*", "data/pred"),
    ("data/*/part-*.parquet", "data/pred"),
    ("data/p??d/*.json", "data/pred"),
    ("data/[a-q]*/*", "data/pred"),
    ("data/**", "data/pred"),
    ("**/*.parquet", "data/pred"),
    ("data/**/rejects/*", "data/pred"),
    ("da[t]a", "da[t]a/pred"),
    ("s3://bucket/data", "s3://bucket/data/pred"),
    ("s3://bucket", "s3://bucket/pred"),
    ("s3a://bucket/data/", "s3://bucket/data/pred/"),
    ("s3://bucket/data/**/*.parquet", "s3://bucket/data/pred"),
    ("memory://data", "memory://data/pred"),
]

_APART = [
    ("data", "pred"),
    ("data", "data-pred"),
    ("data", "data/../pred"),
    ("data/a.csv", "data/pred"),
    ("data/*.csv", "data/pred"),
    ("data/*.csv.gz", "data/pred"),
    ("data/*/*.csv", "data/pred"),
    ("data/**/*.[c]sv", "data/pred"),
    ("data/[!p]*/*", "data/pred"),
    ("data/*/*.parquet", "data/deep/pred.csv"),
    ("data", "s3://data/pred"),
    ("s3://bucket/data", "s3://bucket/database"),
    ("s3://bucket/data", "s3://other/data/pred"),
    ("s3://data", "memory://data/pred"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to name addresses in, with data and a link to them."""
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("input", "output"), _INSIDE)
def test_an_output_in_its_input_is_refused(here, input, output):
    input, output = (address.format(here=here) for address in (input, output))
    with refused("^output .* lies in the input .*; give a folder apart from it$"):
        check_output_apart(input, output)


@pytest.mark.parametrize(("input", "output"), _APART)
def test_an_output_beside_its_input_is_not(here, input, output):
    check_output_apart(input, output)


@pytest.mark.parametrize(
    ("input", "output"),
    [("data", "data/"), ("link", "data"), ("data", "file://{here}/data"), ("s3://b", "s3://b/")],
)
def test_an_output_that_is_its_input_is_refused(here, input, output):
    with refused("^output .* is its own input; give a folder apart from it$"):
        check_output_apart(input, output.format(here=here))


@pytest.mark.parametrize(
    ("input", "output"),
    [
        ("data/a.csv", "data"),
        ("data/*.csv", "data"),
        ("data/new", "link"),
        ("data/new*/a.csv", "data"),
        ("s3://bucket/data/a.csv", "s3://bucket/data"),
        ("s3://bucket/data/a.csv", "s3://bucket"),
    ],
)
def test_an_input_in_its_output_is_refused(here, input, output):
    with refused(f"^input .*{input[-5:].replace('*', '.')} lies in the output {output}; give a"):
        check_output_apart(input, output)


@pytest.mark.parametrize(
    ("corpus", "store"),
    [("data", "data/store"), (".", "store"), ("**/*.parquet", "store"), ("s3://b", "s3://b/raee")],
)
def test_a_store_in_its_corpus_is_refused(here, corpus, store):
    with refused("^store .* lies in the corpus .*, and the next build would read it; give one of"):
        check_store_apart(corpus, store)


@pytest.mark.parametrize(
    ("corpus", "store"),
    [("data", "store"), ("**/*.csv", "."), ("data", "."), ("s3://b/corpora", "s3://b")],
)
def test_a_corpus_beside_the_databases_is_not(here, corpus, store):
    check_store_apart(corpus, store)


@pytest.fixture(params=["local", "memory", "moto"])
def kind(request):
    return request.param


class TestAFolderWithAManifest:
    def _corpus(self, tmp_path, store, manifest):
        rows = [{"id": "1", "text": "a warm film", "label": "good"}]
        write_corpus(tmp_path / "a/deep/part-00000.parquet", rows)
        (tmp_path / "a/deep/manifest.json").write_text(manifest)
        return uploaded(tmp_path / "a", store)

    @pytest.mark.parametrize(
        ("manifest", "what"),
        [
            ('{\n "format": 1,\n "name": "demo",\n', "a version of a database"),
            ('{\n "format": 4,\n "key": "0123",\n', "a classification's output"),
        ],
    )
    def test_of_ours_is_no_corpus_but_its_files_are(self, tmp_path, store, manifest, what):
        uri = self._corpus(tmp_path, store, manifest)
        for address in (uri, f"{uri}/deep", f"{uri}/**/*", f"{uri}/deep/manifest.json"):
            with refused(f"^corpus .*: .*{uri}/deep holds {what} and no corpus; name the files"):
                scan(CorpusSpec(uri=address))
        for address in (f"{uri}/deep/part-*.parquet", f"{uri}/deep/part-00000.parquet"):
            assert scan(CorpusSpec(uri=address)).rows == 1

    @pytest.mark.parametrize(
        "manifest",
        [
            "",
            '{"text": "a", "label": "b"}\n',
            '{"format": "x", "name": "y", "text": "a", "label": "b"}\n',
            '{"format": 1, "names": ["y"], "text": "a", "label": "b"}\n',
        ],
    )
    def test_of_others_is_read(self, tmp_path, store, manifest):
        uri = self._corpus(tmp_path, store, manifest)
        assert scan(CorpusSpec(uri=uri)).rows == (2 if manifest else 1)

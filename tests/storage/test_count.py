"""An unlabelled corpus is counted, not read."""

import pytest

from storage.corpus import CorpusSpec
from storage.scan import count
from storage.store import Folder
from tests.raee.errors import refused
from tests.storage.corpora import COMPRESSED, FORMATS, read_all, uploaded, write_corpus
from tests.storage.proxy import between

_ROWS = [{"id": f"r{i}", "text": f'text, "{i}"\n{"x" * 500}', "more": i} for i in range(100)]


@pytest.mark.parametrize("form", [*FORMATS, *COMPRESSED])
def test_of_any_format(tmp_path, form):
    rows = [r | {"text": ""} if i % 7 == 0 else r for i, r in enumerate(_ROWS)]
    for name, some in (("a", rows[:30]), ("b", rows[30:])):
        write_corpus(tmp_path / f"{name}.{form}", some)
    found, rows, rejects = read_all(CorpusSpec(uri=str(tmp_path), id="id"), 7, labelled=False)
    assert found.rows == found.total == 100
    assert (len(rows), len(rejects)) == (85, 15), "each shard says which of its rows are unusable"
    assert found.mean_characters > 0


def test_of_many_parquet_files_takes_two_requests_each(tmp_path, moto, store_on, use):
    for i in range(40):
        write_corpus(tmp_path / f"a/{i:02d}.parquet", _ROWS[: i + 1])
    folder = Folder(uploaded(tmp_path / "a", store_on("moto")))
    size = sum(path.stat().st_size for path in (tmp_path / "a").iterdir())
    asked = []
    with between(moto, lambda request: asked.append(request.method)) as watched:
        use(watched)
        assert count(CorpusSpec(uri=folder.uri)).rows == sum(range(1, 41))
    assert size > 40_000
    # And a few for the listing, and for the first rows, whose length is taken for that of all.
    assert len(asked) < 2 * 40 + 20


def test_columns_are_looked_for_in_every_file(tmp_path):
    write_corpus(tmp_path / "a.csv", _ROWS)
    for form in ("csv", "parquet", "jsonl"):
        path = tmp_path / f"b.{form}"
        write_corpus(path, [{"id": 1, "words": "x"}])
        with refused(f"b.{form}: no column 'text'; it has 'id', 'words'"):
            count(CorpusSpec(uri=str(tmp_path)))
        path.unlink()


def test_an_empty_corpus_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("text\n")
    with refused("is empty"):
        count(CorpusSpec(uri=str(tmp_path)))


def test_its_name_changes_with_a_file(tmp_path):
    uri = write_corpus(tmp_path / "a.csv", _ROWS)
    found = {count(CorpusSpec(uri=uri)).fingerprint for _ in range(2)}
    write_corpus(tmp_path / "a.csv", _ROWS[1:])
    found.add(count(CorpusSpec(uri=uri)).fingerprint)
    assert len(found) == 2

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raee.errors import InputError
from storage.checked import FileRecord
from storage.database import Database, check_name, new_version_id, verify
from storage.manifest import FORMAT, MANIFEST, NAME_PATTERN
from storage.store import Folder
from tests.raee.errors import refused
from tests.storage.databases import NAME, demo, manifest, publish_version
from tests.storage.proxy import between

_FILES = {"entries/part-00000.parquet": b"entries" * 1_000, "keys/layer-00.faiss": b"keys" * 100}


def test_ids_sort_by_time():
    begun = datetime(2026, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    steps = [timedelta(microseconds=1), timedelta(seconds=1), timedelta(days=40), timedelta(3_000)]
    times = [begun, *(begun + step for step in steps)]
    ids = [new_version_id(time) for time in times]
    assert ids == sorted(ids)


def test_ids_of_one_moment_are_still_unique():
    now = datetime.now(UTC)
    assert len({new_version_id(now) for _ in range(1_000)}) == 1_000


def test_an_id_is_of_this_moment():
    before = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    version = new_version_id()
    assert before <= version <= f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-~"


def test_without_a_manifest_there_is_no_version(store):
    whole = publish_version(store, _FILES)
    half = new_version_id()
    demo(store).version(half).folder.write_new("entries/part-00000.parquet", b"entries")
    assert demo(store).ids() == [whole]
    with refused(f"has no version '{half}'; the newest is {whole}"):
        demo(store).version(half).manifest()


def test_versions_are_listed_oldest_first(store):
    assert demo(store).ids() == []
    ids = [publish_version(store) for _ in range(4)]
    assert demo(store).ids() == ids
    assert Database(store, "another").ids() == []


def test_a_version_is_published_once(store):
    version = publish_version(store, _FILES)
    folder = demo(store).version(version).folder
    before = folder.read(MANIFEST)
    with pytest.raises(FileExistsError):
        demo(store).version(version).publish(manifest(version, rows=4))
    assert folder.read(MANIFEST) == before


def test_a_manifest_comes_back_as_it_was(store):
    version = publish_version(store, _FILES)
    back = demo(store).version(version).manifest()
    assert (back.id, back.format, back.labels) == (version, FORMAT, ["no", "yes"])
    assert {file.path: file.bytes for file in back.files} == {p: len(d) for p, d in _FILES.items()}


def test_a_missing_version_says_what_there_is(store):
    with refused("database demo in .* has no version 'x'; it has none; databases there: none"):
        demo(store).version("x").manifest()
    publish_version(store)
    with refused("database other .* it has none; databases there: demo"):
        Database(store, "other").version("x").manifest()


def test_a_manifest_of_the_first_format_still_reads(store):
    """It says nothing of probes, costs, tuning and pruning, which came with the second, and has no
    digest."""
    version = publish_version(store, _FILES)
    folder = demo(store).version(version).folder
    said = json.loads(folder.read(MANIFEST)) | {"format": 1}
    for later in ("probes", "costs", "tuning", "pruned", "digest"):
        del said[later]
    with folder.create(MANIFEST) as file:
        file.write(json.dumps(said).encode())
    back = demo(store).version(version).manifest()
    assert (back.format, back.rows) == (1, 3)
    assert (back.probes, back.costs, back.tuning, back.pruned) == (None, None, None, None)
    demo(store).version(version).require_whole(back, list(_FILES))


def test_a_manifest_keeps_what_was_fitted_measured_tuned_and_pruned(store):
    version = new_version_id()
    said = {
        "probes": {"fit": "lda", "temperatures": [0.1, 1 / 3, 1e-12]},
        "costs": {"machine": "x", "rows": 3, "seconds": {"layer": 1.25e-5, "reads": {"head": 0.0}}},
        "tuning": {"front": [{"policy": {"name": "cascade", "last": None}}]},
        "pruned": {"of": "x", "share": 0.4},
    }
    demo(store).version(version).publish(manifest(version, **said))
    back = demo(store).version(version).manifest()
    assert {key: getattr(back, key) for key in said} == said


class TestDigest:
    """What a manifest says is as safe as the files that it names."""

    def _written(self, store):
        version = demo(store).version(new_version_id())
        said = {"labels": ["schön", "悪い 😀"], "costs": {"seconds": 1.25e-5}, "rows": 2**40}
        version.publish(manifest(version.id, **said))
        return version

    def test_is_of_all_else_that_the_manifest_says(self, store):
        version = self._written(store)
        said = json.loads(version.folder.read(MANIFEST))
        digest = said.pop("digest")
        plain = json.dumps(said, sort_keys=True, separators=(",", ":"))
        assert digest == hashlib.sha256(plain.encode("ascii")).hexdigest()
        assert version.manifest().digest == digest
        assert version.manifest_faults() == []

    @pytest.mark.parametrize(
        "changed",
        [
            {"labels": ["schon", "悪い 😀"]},
            {"labels": ["悪い 😀", "schön"]},
            {"rows": 2**40 + 1},
            {"costs": {"seconds": 1.26e-5}},
            {"parent": "x"},
            {"digest": "0" * 64},
        ],
        ids=str,
    )
    def test_tells_of_any_change(self, tmp_path, changed):
        version = self._written(str(tmp_path))
        said = json.loads(version.folder.read(MANIFEST)) | changed
        with version.folder.create(MANIFEST) as file:
            file.write(json.dumps(said).encode())
        (fault,) = version.manifest_faults()
        assert fault.startswith("manifest.json has another digest than it says")
        with refused("is damaged: manifest.json has another digest .* or build anew"):
            version.require_whole(version.manifest(), [])

    def test_does_not_mind_how_the_manifest_is_laid_out(self, tmp_path):
        version = self._written(str(tmp_path))
        said = json.loads(version.folder.read(MANIFEST))
        with version.folder.create(MANIFEST) as file:
            file.write(json.dumps(dict(reversed(said.items())), indent=4).encode())
        assert version.manifest_faults() == []

    def test_is_not_missed_where_there_never_was_one(self, tmp_path):
        version = self._written(str(tmp_path))
        said = json.loads(version.folder.read(MANIFEST))
        del said["digest"]
        with version.folder.create(MANIFEST) as file:
            file.write(json.dumps(said).encode())
        assert version.manifest_faults() == []
        assert version.manifest().digest is None

    def test_is_made_anew_of_a_version_that_was_made_of_another(self, tmp_path):
        """As a pruned version is."""
        parent = self._written(str(tmp_path)).manifest()
        child = demo(str(tmp_path)).version(new_version_id())
        child.publish(parent.model_copy(update={"id": child.id, "parent": parent.id}))
        assert child.manifest_faults() == []
        assert child.manifest().digest != parent.digest

    @pytest.mark.parametrize("content", [None, b""])
    def test_of_a_version_that_was_collected_just_now_is_no_crash(self, tmp_path, content):
        version = self._written(str(tmp_path))
        if content is None:
            version.folder.delete(MANIFEST)
        else:
            with version.folder.create(MANIFEST) as file:
                file.write(content)
        assert version.manifest_faults() == ["manifest.json is missing"]


def _damage(store, content):
    version = publish_version(store)
    with demo(store).version(version).folder.create(MANIFEST) as file:
        file.write(content)
    return version


def test_a_newer_format_is_refused_by_name(store):
    version = _damage(
        store, json.dumps({"format": FORMAT + 1, "what": "is not known yet"}).encode()
    )
    with refused(f"{MANIFEST} is of format {FORMAT + 1}, newer than format {FORMAT}.*upgrade raee"):
        demo(store).version(version).manifest()


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff\xfe\0",
        b'{"format": "one"}',
        b'{"format": 1}',
        b'{"format": 1, "unknown": 2}',
        b'{"format": 1, "a\\nb": 2}',
    ],
)
def test_a_damaged_manifest_is_one_line(store, content):
    version = _damage(store, content)
    with refused(f"{version}/{MANIFEST} is damaged: "):
        demo(store).version(version).manifest()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 5_000_000,
        b'{"format": 1, "job": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_001,
        b'{"format": 1e400}',
        b'{"format": 1, "name": "\\ud800"}',
        hashlib.shake_128(b"garbage").digest(10_000_000),
        '{"format": 1, "name": "ä"}'.encode("latin-1"),
    ],
    ids=lambda content: content[:12],
)
def test_a_manifest_that_means_harm_is_one_line(tmp_path, content):
    version = _damage(str(tmp_path), content)
    with refused(f"{version}/{MANIFEST} is damaged: "):
        demo(str(tmp_path)).version(version).manifest()


def _publish_said(store, **changed):
    """Publish a version whose manifest says what no build would write."""
    version = new_version_id()
    said = json.loads(manifest(version).model_dump_json()) | changed
    demo(store).version(version).folder.write_new(MANIFEST, json.dumps(said).encode())
    return version


_FILE = {"path": "a", "bytes": 1, "sha256": "0" * 64, "rows": None}


@pytest.mark.parametrize("field", ["files", "swept"])
class TestHostileManifest:
    """A manifest may come from anywhere, and what it names is read, copied and deleted."""

    @pytest.mark.parametrize(
        "path",
        [
            "..",
            "../../other/versions/x/manifest.json",
            "a/../../b",
            "/etc/passwd",
            "//server/share",
            "a//b",
            "a/",
            "",
            ".",
            "./a",
            "..\\a",
            "C:\\a",
            "s3://other/a",
            "a\nb",
            "a\0",
            "a\u2028b",
            MANIFEST,
        ],
    )
    def test_leads_nowhere_else(self, tmp_path, field, path):
        version = _publish_said(str(tmp_path), **{field: [_FILE | {"path": path}]})
        before = Folder(str(tmp_path)).files()
        with refused(f"{version}/{MANIFEST} is damaged: {field} .*no path of a file of its own"):
            demo(str(tmp_path)).version(version).manifest()
        assert Folder(str(tmp_path)).files() == before

    @pytest.mark.parametrize(
        ("changed", "match"),
        [
            ({"bytes": -1}, "'a' has less than nothing in it"),
            ({"rows": -1}, "'a' has less than nothing in it"),
            ({"bytes": 0.5}, "integer"),
            ({"sha256": ""}, "no SHA-256 of 'a'"),
            ({"sha256": "0" * 63}, "no SHA-256 of 'a'"),
            ({"sha256": "G" * 64}, "no SHA-256 of 'a'"),
            ({"sha256": "0" * 64 + "\n"}, "no SHA-256 of 'a'"),
            ({"sha256": "x" * 10_000_000}, "no SHA-256 of 'a'"),
            ({"path": "../" + "x" * 10_000_000}, "no path of a file of its own: '../xxx"),
            ({"path": 7}, "string"),
            ({"more": 1}, ""),
        ],
    )
    def test_says_nothing_impossible_of_a_file(self, tmp_path, field, changed, match):
        version = _publish_said(str(tmp_path), **{field: [_FILE | changed]})
        with refused(f"{version}/{MANIFEST} is damaged: {field}.* {match}"):
            demo(str(tmp_path)).version(version).manifest()

    def test_names_a_file_once(self, tmp_path, field):
        version = _publish_said(str(tmp_path), **{field: [_FILE, _FILE | {"bytes": 2}]})
        with refused("no path of a file of its own: 'a'"):
            demo(str(tmp_path)).version(version).manifest()


@pytest.mark.parametrize("changed", [{"name": "other"}, {"id": "20260101-000000"}, {"id": "a\nb"}])
def test_a_manifest_is_of_the_version_where_it_lies(store, changed):
    version = _publish_said(store, **changed)
    with refused(f"{version}/{MANIFEST} is damaged: it is the manifest of '"):
        demo(store).version(version).manifest()


def test_a_build_cannot_publish_what_it_would_refuse_to_read():
    for path in ("../a", MANIFEST):
        with pytest.raises(ValidationError):
            manifest("x", (FileRecord(path, 1, "0" * 64),))


@pytest.mark.parametrize(
    "path", ["a", "entries/part-00000.parquet", "keys/layer-00.faiss", "grün 😀/a b", "...", "a..b"]
)
def test_any_path_below_the_version_will_do(path):
    assert manifest("x", (FileRecord(path, 0, "a1" * 32, 0),)).files[0].path == path


class TestDeadBuild:
    """Its manifest is empty, so that nobody publishes what it left."""

    @pytest.fixture
    def dead(self, store):
        version = new_version_id()
        demo(store).version(version).folder.write_new(MANIFEST, b"")
        return version

    def test_is_no_version(self, store, dead):
        whole = publish_version(store)
        assert demo(store).ids() == [whole]
        assert not demo(store).version(dead).exists()
        for ask in (
            lambda: demo(store).version(dead).manifest(),
            lambda: demo(store).open(dead).id,
            lambda: demo(store).promote(dead),
        ):
            with refused(f"has no version (or alias )?'{dead}'"):
                ask()
        assert demo(store).open().id == whole

    def test_never_publishes(self, store, dead):
        with pytest.raises(FileExistsError):
            demo(store).version(dead).publish(manifest(dead))
        assert demo(store).ids() == []


def test_what_lies_elsewhere_is_no_version(store):
    whole = publish_version(store, _FILES)
    versions = Folder(f"{store}/databases/{NAME}/versions")
    for path in (MANIFEST, f"Not-An-Id/{MANIFEST}", f"a/b/{MANIFEST}", f"b/{MANIFEST}.json"):
        versions.write_new(path, b"{}")
    assert demo(store).ids() == [whole]
    assert demo(store).version(whole).exists()


def test_versions_are_found_with_one_listing(moto, store_on, use):
    store = store_on("moto")
    ids = [publish_version(store, _FILES) for _ in range(3)]
    asked = []
    with between(moto, asked.append) as watched:
        use(watched)
        assert demo(store).ids() == ids
    assert [request.method for request in asked] == ["GET"]


def test_a_whole_version_has_no_faults(store):
    version = demo(store).version(publish_version(store, _FILES))
    found = version.manifest()
    assert verify(version.folder, found.files) == []
    version.require_whole(found, list(_FILES))


class TestDamagedFiles:
    @pytest.fixture
    def damaged(self, tmp_path):
        """A version whose first file is whole, and the others missing, truncated and altered."""
        files = dict.fromkeys(("a-whole", "b-missing", "c-truncated", "d-altered"), b"content" * 99)
        version = demo(str(tmp_path)).version(publish_version(str(tmp_path), files))
        found = version.manifest()
        path = tmp_path / "databases" / NAME / "versions" / version.id
        (path / "b-missing").unlink()
        (path / "c-truncated").write_bytes((b"content" * 99)[:-1])
        (path / "d-altered").write_bytes(b"C" + (b"content" * 99)[1:])
        return version, found

    def test_are_each_found_with_what_is_wrong(self, damaged):
        version, found = damaged
        assert verify(version.folder, found.files) == [
            "b-missing is missing",
            "c-truncated has 692 bytes, its manifest says 693",
            "d-altered has another SHA-256 than its manifest says",
        ]

    def test_are_refused_before_anything_reads_them(self, damaged):
        version, found = damaged
        for path in ("b-missing", "c-truncated", "d-altered"):
            with refused(f"is damaged: {path} .*Roll back to another version or build anew"):
                version.require_whole(found, ["a-whole", path])

    def test_do_not_matter_to_those_who_do_not_read_them(self, damaged):
        version, found = damaged
        version.require_whole(found, ["a-whole"])


@pytest.mark.parametrize("name", ["a", "7", "trec-6", "a--b", "a-", "x" * 63])
def test_names_are_lowercase_letters_digits_and_dashes(name):
    check_name("database", name)


@pytest.mark.parametrize(
    "name",
    ["", "A", "a b", "-a", "x" * 64, "a/b", "../x", "..", ".", "ä", "a\n", "a_b", "a@b", "٣"],
)
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match="use lowercase letters, digits and dashes"):
        check_name("database", name)


@given(st.text() | st.text("abz09-/.\n", max_size=70) | st.from_regex(NAME_PATTERN))
def test_any_name_is_one_or_is_refused_before_anything_is_looked_at(name):
    """The store is none: whoever asks it anything would hear of that instead."""
    legal = len(name) <= 63 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    legal = legal and name[:1] not in ("", "-")
    match = "nowhere://x: " if legal else "use lowercase letters, digits and dashes"
    for ask in (
        lambda: Database("nowhere://x", name).ids(),
        lambda: Database("nowhere://x", NAME).version(name).exists(),
        lambda: Database("nowhere://x", name).version("x").manifest(),
        lambda: Database("nowhere://x", NAME).version(name).manifest(),
        lambda: Database("nowhere://x", NAME).history(name),
        lambda: Database("nowhere://x", NAME).promote("x", name),
        lambda: Database("nowhere://x", NAME).promote(name),
        lambda: Database("nowhere://x", NAME).rollback(name),
        lambda: Database("nowhere://x", NAME).open(name).id,
        lambda: Database("nowhere://x", name).open(),
    ):
        with refused(match):
            ask()


def test_ids_are_names():
    check_name("version", new_version_id())


@pytest.mark.parametrize("escape", ["..", "../other", "a/../../other", "/etc", ""])
def test_no_name_leads_out_of_its_folder(tmp_path, escape):
    store = str(tmp_path / "store")
    Folder(store).write_new(f"databases/other/versions/x/{MANIFEST}", b"{}")
    for ask in (
        lambda: Database(store, escape).ids(),
        lambda: Database(store, escape).version("x").folder,
        lambda: demo(store).version(escape).folder,
        lambda: demo(store).version(f"../../other/versions/{escape}").manifest(),
    ):
        with refused("use lowercase letters, digits and dashes"):
            ask()

"""Dependencies point one way: flows -> tasks -> (raee, storage)."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_MODULES = [
    p for f in ("raee", "storage", "tasks", "flows") for p in sorted((_ROOT / f).glob("**/*.py"))
]


def _imports(path):
    """Everything that a module imports, wherever in it, by its whole name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_of(name, packages):
    return any(name == p or name.startswith(f"{p}.") for p in packages)


_FORBIDDEN = {
    "raee": ("prefect", "storage", "tasks", "flows", "fsspec", "s3fs"),
    "storage": ("prefect", "tasks", "flows", "torch", "transformers", "faiss"),
    "tasks": ("flows",),
    "flows": (),
}

_ALLOWED = {"raee/classifier.py": ("tasks.build.in_process", "tasks.classify.in_process")}
"""The front door publishes and loads; tests/raee/test_imports.py: all else needs neither."""


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: str(path.relative_to(_ROOT)))
class TestModule:
    def test_imports_only_what_its_layer_may(self, path):
        package = path.relative_to(_ROOT).parts[0]
        names = set(_imports(path))
        allowed = _ALLOWED.get(path.relative_to(_ROOT).as_posix(), ())
        forbidden = [n for n in names if _is_of(n, _FORBIDDEN[package]) and not _is_of(n, allowed)]
        assert forbidden == []
        if package == "storage":
            assert [
                n for n in names if _is_of(n, ["raee"]) and not _is_of(n, ["raee.errors"])
            ] == []

    def test_can_be_read_in_one_sitting(self, path):
        assert len(path.read_text("utf-8").splitlines()) <= 400


def test_only_the_store_and_the_corpus_know_about_protocols():
    knowing = {p.relative_to(_ROOT).as_posix() for p in _MODULES if _knows_fsspec(p)}
    assert knowing == {"storage/store.py", "storage/corpus.py", "storage/corpus_files.py"}


def _knows_fsspec(path):
    return any(_is_of(name, ["fsspec", "s3fs"]) for name in _imports(path))


def test_every_layer_is_looked_at():
    assert {p.relative_to(_ROOT).parts[0] for p in _MODULES} == set(_FORBIDDEN)
    assert len(_MODULES) > 30


def test_no_module_needs_itself_by_way_of_others():
    """Whatever it imports, wherever in it: who changes a module knows what lies below it."""
    names = {".".join(p.relative_to(_ROOT).with_suffix("").parts): p for p in _MODULES}
    needs = {name: {n for n in _imports(path) if n in names} for name, path in names.items()}
    TopologicalSorter(needs).prepare()  # raises CycleError, which names the circle

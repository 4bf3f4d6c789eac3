"""What importing the method brings along: dependencies point one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import raee

_MODULES = sorted(Path(raee.__file__).parent.glob("**/*.py"))


def test_reading_a_job_file_loads_no_model_library():
    heavy = "{'torch', 'transformers', 'faiss', 'prefect'}"
    code = f"import sys, raee.config, raee.errors; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def _modules_after(code):
    """The packages that a Python of its own has imported after each `seen()` in some code."""
    heavy = "{'torch', 'transformers', 'faiss', 'sklearn', 'prefect', 'storage', 'tasks', 'flows'}"
    seen = f"import sys\ndef seen(): print(*sorted({heavy} & set(sys.modules)))\n"
    done = subprocess.run(
        [sys.executable, "-c", seen + code], capture_output=True, text=True, check=True
    )
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_importing_raee_costs_nothing_and_its_front_door_no_model_library():
    assert _modules_after("import raee; seen()\nfrom raee import Classifier; seen()") == [
        set(),
        {"sklearn"},
    ]


def test_raee_is_imported_in_a_moment():
    code = "import time; t = time.process_time(); import raee; print(time.process_time() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.2


def test_what_raee_has_not_is_no_attribute():
    assert raee.__all__ == ["Classifier"]
    with pytest.raises(AttributeError, match="module 'raee' has no attribute 'nothing'"):
        _ = raee.nothing


def test_a_classifier_needs_a_store_only_when_it_publishes_and_never_a_server(folder_of, tmp_path):
    encoder, store = str(folder_of("bert-encoder")), str(tmp_path / "store")
    code = f"""
from raee import Classifier
rows = ["a great film", "a good plot", "dull", "a boring scene"], ["yes", "yes", "no", "no"]
classifier = Classifier({encoder!r}, policy="full").fit(*rows)
classifier.predict(rows[0]); classifier.classify(rows[0]); classifier.evaluate(*rows)
seen()
classifier.publish({store!r}, "demo")
Classifier.load({store!r}, "demo@production").predict(rows[0])
seen()
print(*{{m for m in sys.modules if m in ("prefect.server.api.server", "uvicorn")}})
"""
    fitted, published, server = _modules_after(code)
    assert fitted == {"torch", "transformers", "faiss", "sklearn"}
    assert published == fitted | {"prefect", "storage", "tasks"}
    assert server == set()


@pytest.mark.parametrize("module", _MODULES, ids=lambda path: path.stem)
def test_the_method_brings_along_no_orchestrator_and_no_store(module):
    """What functions import when they are called, `tests/test_layout.py` looks at."""
    imported = set()
    for node in ast.parse(module.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert not imported & {"prefect", "storage", "tasks", "flows"}

"""What importing the method brings along: dependencies point one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import raee

_MODULES = sorted(Path(raee.__file__).parent.glob("*.py"))


def test_reading_a_job_file_loads_no_model_library():
    heavy = "{'torch', 'transformers', 'faiss', 'prefect'}"
    code = f"import sys, raee.config, raee.errors; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("module", _MODULES, ids=lambda path: path.stem)
def test_the_method_knows_no_orchestrator_and_no_store(module):
    imported = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert not imported & {"prefect", "storage", "tasks", "flows"}

"""The recipes pass the type checker of editors in its strictest mode; mypy has them among the project's own files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT, TESTS

pytest.importorskip("basedpyright", reason="pip install -e '.[lint]'")

pytestmark = pytest.mark.process


def complaints(folder: Path, *files: Path) -> list[str]:
    """What pyright says of these files, beside the package."""
    project = folder / "pyrightconfig.json"
    settings = {
        "include": [str(file) for file in files],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT), str(TESTS / "recipes")],
    }
    project.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--project", str(project), "--pythonpath", sys.executable]
    done = subprocess.run([*command, "--outputjson"], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] >= len(files)
    return [f"{Path(found['file']).name}: {found['message']}" for found in report["generalDiagnostics"]]


def test_the_recipes_are_well_typed_and_a_fault_beside_them_is_found(tmp_path: Path) -> None:
    """A wrong type of an argument. In one run, which takes seconds."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from invoicing_async.web import http_status\n\nhttp_status(1)\n")
    (found,) = complaints(tmp_path, TESTS / "recipes", wrong)
    assert found.startswith("wrong.py: ")

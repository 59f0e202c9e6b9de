"""Users' code under mypy --strict and pyright: what is documented is taken, what is wrong refused, no type unknown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import ROOT, TESTS
from readme_blocks import modules

for checker in ("mypy", "basedpyright"):
    pytest.importorskip(checker, reason="pip install -e '.[lint]'")

SAMPLES = TESTS / "typing" / "samples"
REJECTED = SAMPLES / "rejected.py"
STRICT = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "reportDeprecated": "none"}
"""Pyright's settings; what newer versions of Python call otherwise is no mistake."""

pytestmark = pytest.mark.process


def run(tool: str, *arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", tool, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False).stdout


def users_code(folder: Path) -> None:
    """Write down the samples and every Python block of the README, away from this project's own settings."""
    for sample in SAMPLES.glob("*.py"):
        (folder / sample.name).write_text(sample.read_text())
    for name, block in modules().items():
        (folder / f"{name}.py").write_text(block)


def judge(told: dict[str, dict[int, str]]) -> None:
    """Hold what a checker said of each file's lines against what it is to say: nothing, but of what is marked wrong."""
    found = told.pop(REJECTED.stem)
    assert told == {}, "what is documented was refused"
    wrong = {number: line for number, line in enumerate(REJECTED.read_text().splitlines(), 1) if "# wrong" in line}
    assert {number: line for number, line in wrong.items() if number not in found} == {}, "a mistake was taken"
    assert {number: text for number, text in found.items() if number not in wrong} == {}, "more was refused"


def test_mypy_takes_what_is_documented_and_refuses_mistakes(tmp_path: Path) -> None:
    users_code(tmp_path)
    out = run("mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", ".", cwd=tmp_path)
    told: dict[str, dict[int, str]] = {}
    for file, line, text in re.findall(r"^(.+)\.py:(\d+): error: (.+)$", out, re.MULTILINE):
        told.setdefault(file, {})[int(line)] = text
    judge(told)


def test_pyright_takes_what_is_documented_and_refuses_mistakes(tmp_path: Path) -> None:
    users_code(tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(STRICT))
    told: dict[str, dict[int, str]] = {}
    for found in asked_pyright(cwd=tmp_path)["generalDiagnostics"]:
        if found["severity"] == "error":
            told.setdefault(Path(found["file"]).stem, {})[found["range"]["start"]["line"] + 1] = found["message"]
    judge(told)


def test_every_public_name_has_a_type(tmp_path: Path) -> None:
    """So an editor shows it, and no type checker guesses it in its own way."""
    told = asked_pyright("--verifytypes", "invoicing_async", "--ignoreexternal", cwd=tmp_path)["typeCompleteness"]
    unknown = [
        f"{symbol['name']}: {found['message']}"
        for symbol in told["symbols"]
        for found in symbol["diagnostics"]
        if found["severity"] == "error"
    ]
    assert unknown == []
    assert told["completenessScore"] == 1


def asked_pyright(*arguments: str, cwd: Path) -> Any:
    return json.loads(run("basedpyright", "--pythonpath", sys.executable, *arguments, "--outputjson", cwd=cwd))

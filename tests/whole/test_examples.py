"""What the examples show is to be had: they import nothing of the library but its public names."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest
from places import TESTS

FILES = sorted((TESTS / "example_service").glob("*.py"))


def imported(file: Path) -> list[tuple[str, str]]:
    """Each module of the library that a file imports from, with the name."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom | ast.Import)]
    froms = [
        (node.module or "", alias.name) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    wholes = [(alias.name, "") for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return [(module, name) for module, name in froms + wholes if module.split(".")[0] == "invoicing_async"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_imports_public_names_only(file: Path) -> None:
    """Of modules whose path holds no underscore, what they list in `__all__`; and looks no private attribute up."""
    for module, name in imported(file):
        assert not any(part.startswith("_") for part in module.split(".")), module
        assert name in import_module(module).__all__, f"{module}.{name}"
    private = [
        node.attr
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__")
    ]
    assert private == []


def test_there_is_a_service_and_its_tests() -> None:
    assert {"order_desk.py", "test_order_desk.py"} <= {file.name for file in FILES}
    assert all(imported(file) for file in FILES if "order_desk" in file.name)

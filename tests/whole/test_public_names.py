"""The package's names: each is imported when it is asked for, and everything that lists them agrees."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import invoicing_async

PACKAGE = Path(invoicing_async.__file__).parent
MODULES = sorted(file.stem for file in PACKAGE.glob("[a-z]*.py"))


def seen_by_type_checkers() -> dict[str, str]:
    """Each name of the block that only type checkers read, with the module it is from."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_what_a_type_checker_sees_is_what_there_is() -> None:
    """The three lists of names (for type checkers, for `*`, and of where each is) are one."""
    assert seen_by_type_checkers() == invoicing_async._HOMES
    assert {*invoicing_async.__all__} == {*invoicing_async._HOMES, "VERSION"}


@pytest.mark.parametrize("name", [*invoicing_async._HOMES])
def test_a_name_is_the_one_of_its_module(name: str) -> None:
    """It is the same object, however it is reached, and is kept once it was asked for."""
    there = import_module(f"invoicing_async.{invoicing_async._HOMES[name]}")
    found = getattr(invoicing_async, name)
    assert found is getattr(there, name)
    assert vars(invoicing_async)[name] is found
    assert not isinstance(found, type) or pickle.loads(pickle.dumps(found)) is found


def test_a_star_gives_every_name_and_dir_lists_them() -> None:
    """In a fresh process, before and after any of them was asked for."""
    told = run("import invoicing_async as a; print(*dir(a)); from invoicing_async import *; print(*dir())").splitlines()
    listed, given = (set(line.split()) for line in told)
    assert {*invoicing_async.__all__, "__version__"} <= listed
    assert {*invoicing_async.__all__} <= given


def test_a_value_unpickles_where_nothing_was_imported_yet() -> None:
    """A worker process that was only handed the bytes reads them."""
    data = pickle.dumps(invoicing_async.RetryPolicy(attempts=3))
    assert run(f"import pickle; print(pickle.loads({data!r}).attempts)") == "3\n"


def test_public_modules_are_there_without_an_import_of_their_own() -> None:
    """`invoicing_async.errors.ApiError` works after `import invoicing_async` alone, and so does each other one."""
    names = [name for name in MODULES if not name.startswith("_")]
    assert {"errors", "events", "runs"} <= {*names}
    told = run(f"import invoicing_async as a; print(*(getattr(a, name).__name__ for name in {names}))")
    assert told.split() == [f"invoicing_async.{name}" for name in names]


@pytest.mark.parametrize("name", ["absent", "_absent", "__wrapped__", "Sesion", ""])
def test_any_other_name_is_an_attribute_error(name: str) -> None:
    """So `hasattr` is answered, and a typing mistake is told at once."""
    package: Any = invoicing_async
    assert not hasattr(package, name)

"""Which foreign package is used where, and what importing the package loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import invoicing_async

PACKAGE = Path(invoicing_async.__file__).parent

ADAPTERS = {
    "aiohttp": ("_transport",),
    "yarl": ("_transport",),
    "multidict": ("_transport",),
    "tenacity": ("session/_retries.py",),
    "cattrs": ("_einvoices/draft_json.py",),
    "hmac": ("_core/signing.py",),
    "sqlite3": ("_durable",),
    "time": ("_core/clock.py",),
    "random": ("_core/clock.py",),
    "secrets": ("_core/clock.py",),
    "obstore": ("_objects.py",),
    "tempfile": ("_objects.py",),
    "fpdf": ("sandbox/_pdf_page.py",),
    "psycopg": ("_durable/postgres",),
    "procrastinate": ("worker",),
    "pytest": ("testing/plugin.py",),
    "cyclopts": ("cli",),
    "jinja2": ("reports/_page.py",),
    "markupsafe": ("reports/_page.py", "reports/_filters.py"),
    "rich": ("cli",),
    "opentelemetry": ("telemetry",),
    "uvloop": ("cli", "__main__.py"),
}
"""Where a package, or a module of the standard library that is not pure, may be used."""

WRITERS = (
    "_files", "_durable", "cli/commands/repair.py", "cli/commands/invoices.py", "cli/terminal", "__main__.py",
    "worker/_status.py",
)  # fmt: skip
"""What writes files: documents, run files, and on the command line what its user asks for; the entry only opens
the null
device, in the place of a closed stream."""


MODULES = sorted(PACKAGE.rglob("*.py"))


@cache
def nodes(file: Path) -> list[ast.AST]:
    """All that a module is made of."""
    return [*ast.walk(ast.parse(file.read_text()))]


def is_below(file: Path, places: tuple[str, ...]) -> bool:
    relative = file.relative_to(PACKAGE)
    return any(relative.is_relative_to(place) or relative.stem == place for place in places)


def foreign_imports(file: Path) -> Iterator[str]:
    for node in nodes(file):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]


def test_each_foreign_package_has_its_adapter() -> None:
    """Network, files, time, chance and the other packages are used only where the table says."""
    used = {(str(file.relative_to(PACKAGE)), imported) for file in MODULES for imported in foreign_imports(file)}
    assert {name for _, name in used} >= ADAPTERS.keys()
    assert {(file, name) for file, name in used if not is_below(PACKAGE / file, ADAPTERS.get(name, (".",)))} == set()


def test_files_are_opened_for_writing_only_where_the_table_says() -> None:
    """Nothing else makes or changes a file."""
    writers = {
        file
        for file in MODULES
        for node in nodes(file)
        if isinstance(node, ast.Attribute) and node.attr in {"write_text", "write_bytes", "O_CREAT", "O_WRONLY"}
    }
    assert [file for file in writers if not is_below(file, WRITERS)] == []


def loaded_by(code: str) -> set[str]:
    """The packages of others that are loaded when this code has run."""
    code += "; import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return {name for name in out.split() if not name.startswith("_") and name not in sys.stdlib_module_names}


def test_what_is_of_a_server_is_loaded_when_a_run_is_on_one() -> None:
    """Runs in files, and every command on them, need no driver."""
    loaded = loaded_by("import invoicing_async.runs, invoicing_async.repair, invoicing_async.cli")
    assert not loaded & {"psycopg", "psycopg_binary", "psycopg_pool", "procrastinate"}


def test_importing_the_package_imports_nothing_until_a_name_is_asked_for() -> None:
    """`import invoicing_async` costs nothing; all its names load three core packages, and no extra."""
    assert loaded_by("import invoicing_async") == {"invoicing_async"}
    core = {"tenacity", "attrs", "attr", "cattrs", "typing_extensions"}
    assert loaded_by("from invoicing_async import *") <= core | {"invoicing_async"}


def test_the_network_loads_aiohttp_and_no_extra() -> None:
    """Whoever goes there waits for aiohttp and what it needs."""
    needed = {
        "aiohappyeyeballs", "cython_runtime", "aiosignal", "frozenlist", "idna", "multidict", "propcache",
        "typing_extensions", "yarl", "attr", "attrs", "cattrs",
        "backports",  # a namespace, where anything is in it: aiohttp looks there for zstd
    }  # fmt: skip
    assert loaded_by("import invoicing_async._transport.client") <= needed | {"aiohttp", "invoicing_async"}


def test_public_names_are_real() -> None:
    """`__all__` (kept sorted by the linter) names each thing once, and it is there."""
    assert len(set(invoicing_async.__all__)) == len(invoicing_async.__all__)
    assert all(hasattr(invoicing_async, name) for name in invoicing_async.__all__)


def test_the_version_is_the_installed_one() -> None:
    """`__version__` is looked up when asked for, and an unknown attribute is refused."""
    assert invoicing_async.__version__ == invoicing_async.VERSION
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = invoicing_async.absent  # type: ignore[attr-defined] # which is what it is to say

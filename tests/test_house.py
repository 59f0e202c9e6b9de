"""The rules of the house: who may import whom, and which foreign package is used where."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import invoicing_async

PACKAGE = Path(invoicing_async.__file__).parent

LEVELS = (
    {
        "errors",
        "models",
        "polling",
        "policies",
        "events",
        "_http",
        "_cells",
        "_naming",
        "_lock",
        "_pdf",
        "_clock",
        "_codings",
        "_heads",
        "_sockets",
        "_states",
        "_wal",
        "_seen",
        "_slots",
        "_tasks",
        "_secrecy",
        "_ramp",
        "_claims",
        "_learning",
        "_text",
        "_encodings",
        "_links",
        "_xml",
        "_characters",
        "_credential_watch",
    },
    {
        "_existing",
        "_integrity",
        "_signing",
        "auth",
        "_wire",
        "_rules",
        "_governor",
        "_refusals",
        "_outcomes",
        "_answers",
        "_batch",
        "_scheduler",
        "_poll_errors",
        "_aiohttp",
        "_disk",
        "_store",
        "_run_settings",
        "_shape",
        "_table",
        "_spreadsheet",
    },
    {"session", "_download", "_causes"},
    {"documents", "invoices", "drafts", "sandbox", "_exports"},
    {"runs", "_sheet"},
    {"repair"},
    {"cli", "__init__"},
    {"__main__"},
)
"""Imports point only downward: from a higher number to a lower one."""

SIDEWAYS = {
    ("invoices", "_exports"),  # a finished invoice's document is fetched in a module of its own
    ("models", "errors"),  # a value of a wrong type is refused by the error that names a draft's faults
    ("_scheduler", "_poll_errors"),  # what a failed poll means is decided apart from when the next one comes
    ("polling", "_learning"),  # a Poller that learns is a schedule over the learned distribution
    ("auth", "_signing"),  # a signature is what HmacAuth is made of
    ("_tasks", "errors"),  # what a closing session cuts off ends with its error
    ("errors", "_text"),  # an error's message holds a service's words
    ("auth", "_wire"),  # a token's answer is decoded where all answers are
    ("_wire", "_answers"),  # an answer is read as JSON before it is a value
    ("_store", "_integrity"),  # a run file is looked at where it is opened
    ("_disk", "_existing"),  # what stands under a name is decided where a file is given it
    ("_wire", "_shape"),  # a draft in the service's own names is put under the model's
    ("_wire", "_rules"),  # a draft from a file is read and judged at once
}

THIRD_PARTIES = {
    "aiohttp": {"_aiohttp"},
    "yarl": {"_aiohttp"},
    "multidict": {"_aiohttp"},
    "tenacity": {"session"},
    "cattrs": {"_wire"},
    "hmac": {"_signing"},
    "sqlite3": {"_store", "_integrity"},
    "time": {"_clock"},
    "random": {"_clock"},
    "secrets": {"_clock"},
    "tempfile": set(),
    "fpdf": {"_page"},
    "cyclopts": {"cli"},
    "rich": {"cli"},
    "uvloop": {"cli", "__main__"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def owner(file: Path) -> str:
    """The name a module goes by in the rules: its own, or that of the package or face it is a part of."""
    relative = file.relative_to(PACKAGE)
    if len(relative.parts) > 1:
        return relative.parts[0]
    return "sandbox" if relative.stem == "_page" or relative.stem.startswith("_sandbox") else relative.stem


def own_imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            depth = len(file.relative_to(PACKAGE).parts) - node.level
            if node.module and depth == 0:
                yield node.module.split(".")[0]
            elif depth == 0:
                yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("invoicing_async."):
            yield node.module.split(".")[1]


def foreign_imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]


def level(name: str) -> int:
    return next(number for number, names in enumerate(LEVELS) if name in names)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_only_downward(file: Path) -> None:
    """No module imports one of its own level or above, but for the pairs that say why."""
    name = owner(file)
    for imported in own_imports(file):
        target = "sandbox" if imported == "_page" or imported.startswith("_sandbox") else imported
        if target != name and (name, target) not in SIDEWAYS:
            assert level(target) < level(name), f"{name} imports {target}"


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_each_foreign_package_has_its_door(file: Path) -> None:
    """Network, files, time, chance and the other packages are used only where the house says."""
    names = {owner(file), file.stem}
    for imported in foreign_imports(file):
        if imported in THIRD_PARTIES:
            assert names & THIRD_PARTIES[imported], f"{file.name} imports {imported}"


def test_files_are_opened_for_writing_only_at_the_doors() -> None:
    """Only `_disk`, `_store` with its `_lock` and the command line's report write files."""
    writers = {
        owner(file)
        for file in modules()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"write_text", "write_bytes", "O_CREAT", "O_WRONLY"}
    }
    assert writers <= {"_disk", "_store", "_lock", "cli"}


def test_importing_the_package_imports_the_core_only() -> None:
    """`import invoicing_async` loads the four core packages and what they need, and no extra."""
    code = "import sys, invoicing_async; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    core = {"aiohttp", "tenacity", "attrs", "cattrs", "attr", "invoicing_async"}
    needed = {
        "aiohappyeyeballs", "cython_runtime", "aiosignal", "frozenlist", "idna", "multidict", "propcache",
        "typing_extensions", "yarl",
    }  # fmt: skip
    loaded = {name for name in out.split() if not name.startswith("_") and name not in sys.stdlib_module_names}
    assert loaded <= core | needed


def test_public_names_are_real() -> None:
    """`__all__` (kept sorted by the linter) names each thing once, and it is there."""
    assert len(set(invoicing_async.__all__)) == len(invoicing_async.__all__)
    assert all(hasattr(invoicing_async, name) for name in invoicing_async.__all__)


def test_the_version_is_the_installed_one() -> None:
    """`__version__` is looked up when asked for, and an unknown attribute is refused."""
    assert invoicing_async.__version__ == invoicing_async.VERSION
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = invoicing_async.absent

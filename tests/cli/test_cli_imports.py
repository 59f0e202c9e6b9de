"""What each command imports: no more than it needs, so that it is there at once."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib import import_module

import pytest
from served import command

from invoicing_async import VERSION
from invoicing_async.cli.app import COMMANDS
from invoicing_async.sandbox import SandboxCredentials

CODE = """
import os, runpy, sys
sys.argv = ["invoicing-async", *{tokens}]
try:
    runpy.run_module("invoicing_async", run_name="__main__")
except SystemExit as ended:
    code = ended.code
print(code, *sys.modules, file=sys.stderr)
"""


def told(*tokens: str) -> tuple[int, str, set[str]]:
    """Run a command in a process of its own: its exit code, what it printed, the modules it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(tokens=tokens)], capture_output=True, text=True, check=True
    )
    code, *modules = done.stderr.splitlines()[-1].split()
    return int(code), done.stdout, {*modules}


def packages(modules: set[str]) -> set[str]:
    """The packages of others among them."""
    return {name.split(".")[0] for name in modules if not name.startswith("_")} - sys.stdlib_module_names


def test_the_version_needs_nothing() -> None:
    """Neither a package of others nor a module of ours is loaded for it, nor the installed packages looked through."""
    code, out, modules = told("--version")
    assert (code, out) == (0, f"{VERSION}\n")
    assert packages(modules) == {"invoicing_async"}
    assert {name for name in modules if name.startswith("invoicing_async.")} <= {"invoicing_async.__main__"}
    assert not modules & {"importlib.metadata", "asyncio", "inspect"}


@pytest.mark.parametrize("buffered", ["", "1"])
def test_nobody_need_hear_the_version(buffered: str) -> None:
    """A reader that has left is no error."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            command("--version"),
            stdout=write,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": buffered},
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "tokens",
    [("--help",), (), ("documents", "--help"), ("documents", "download", "--help"), ("runs", "resume", "--help")],
    ids=" ".join,
)
@pytest.mark.process
def test_help_needs_no_network(tokens: tuple[str, ...]) -> None:
    """Help is shown without aiohttp; that of all commands without a single one of them."""
    code, out, modules = told(*tokens)
    assert (code, "Usage" in out) == (0, True)
    assert "aiohttp" not in packages(modules)
    if not tokens or tokens == ("--help",):
        assert not modules & {"asyncio.tasks", "tenacity", "cattrs", "sqlite3"}
        assert not modules & {f"invoicing_async.cli.commands.{name}" for name in COMMANDS}


@pytest.mark.process
def test_a_signature_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent, so nothing that could send is loaded."""
    for name, value in {"base_url": "https://host/api/v1", **SandboxCredentials().partner()}.items():
        monkeypatch.setenv(f"INVOICING_DOCUMENTS_{name.upper()}", value)
    code, out, modules = told("sign", "--timestamp", "1")
    assert (code, "Headers as they are sent" in out) == (0, True)
    assert "aiohttp" not in packages(modules)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    """The line is the first of the command's own description, and the rest of that is not lost."""
    where, line = COMMANDS[name]
    module, attribute = where.split(":")
    found = getattr(import_module(f"invoicing_async.cli.commands.{module}"), attribute)
    if inspect.isfunction(found):
        said = (inspect.getdoc(found) or "").split("\n\nParameters\n")[0]
        assert said == line
    assert found.__name__ == name if inspect.isfunction(found) else found.name == (name,)

"""The package's rooms and floors, as its imports are, and as the README draws them."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

import architecture
import pytest
from architecture import (
    FLOORS,
    NAMES,
    OPENING,
    ROOMS,
    ROOT,
    STORE,
    YET,
    Arrows,
    arrows,
    drawing,
    essential,
    faults,
    hidden_from_cli,
    imports,
    into_server,
    into_store,
    is_of_server,
    modules,
    named_in,
)
from places import README


def drawn() -> Arrows:
    """The arrows of the package as it is."""
    return arrows(imports())


def test_no_import_points_up_or_sideways() -> None:
    """A room imports from the floors below its own only; the exceptions are listed, and the list only gets shorter."""
    assert faults(drawn()) - YET == set()
    assert YET - faults(drawn()) == set(), "these are mended: take them out of YET"


def test_the_command_line_imports_nothing_that_begins_with_an_underscore() -> None:
    """What the command line does, a program can do with public names."""
    assert hidden_from_cli(drawn()) == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Every module can be read after those that it imports."""
    assert len(list(TopologicalSorter(imports()).static_order())) == len(imports())


def test_only_what_opens_a_run_knows_the_store_that_it_is_kept_in() -> None:
    """All else names the protocols. `runs` has public names that are of files: `SqliteReader` and `holder_of`."""
    public = {("runs", "_durable.ledger"), ("runs", "_durable.lock")}
    assert {arrow for arrow in into_store(imports()) if arrow[0] != OPENING} == public
    assert {other for name, other in into_store(imports()) if name == OPENING} == {"_durable.ledger"}


def test_only_what_opens_a_run_knows_the_server_that_it_is_kept_on() -> None:
    """When it is asked for one, so that nobody else loads the driver. Neither store knows the other."""
    found = imports()
    assert {name for name, _ in into_server(found)} == {OPENING}
    assert {(name, other) for name in filter(is_of_server, found) for other in found[name] & STORE} == set()
    assert {other for name in STORE for other in found[name] if is_of_server(other)} == set()


def test_the_store_is_of_modules_that_there_are() -> None:
    assert {*STORE, OPENING} <= imports().keys()


def test_only_what_opens_a_run_names_a_class_of_the_store() -> None:
    sqlite = {"SqliteLedger", "SqliteReader"}
    told = {name: text for name, file in modules().items() if "Sqlite" in (text := file.read_text())}
    naming = {name for name, text in told.items() if sqlite & named_in(text)}
    assert naming == {"_durable.ledger", OPENING, "runs"}


def test_every_module_is_in_one_room() -> None:
    """The tables name each room and each module once, and nothing that is not there."""
    inside = [*NAMES, *(name for names in ROOMS.values() for name in names)]
    assert len(set(inside)) == len(inside)
    assert {*inside, ROOT} == {name.split(".")[0] for name in imports()}
    assert sorted([*ROOMS, *NAMES]) == sorted(name for names in FLOORS.values() for name in names)


def test_there_are_few_rooms_at_first_sight() -> None:
    """At most fifteen."""
    assert len(ROOMS) + len(NAMES) <= 15


def test_the_readme_shows_the_drawing() -> None:
    """It is as `python tests/support/architecture.py` prints it."""
    shown = re.findall(r"^```mermaid\n(flowchart.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert shown == [drawing(drawn())], "print it anew: python tests/support/architecture.py"


def test_the_command_prints_the_drawing_for_the_readme(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["architecture.py"])
    architecture.main()
    assert capsys.readouterr().out == f"```mermaid\n{drawing(drawn())}```\n"


def test_the_command_prints_what_breaks_the_rules(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["architecture.py", "--rules"])
    architecture.main()
    printed = {tuple(line.split()[:3:2]) for line in capsys.readouterr().out.splitlines()}
    assert printed == faults(drawn())


# The functions that the rules rest on, on packages that are made up.


def made(folder: Path, **files: str) -> Path:
    package = folder / "invoicing_async"
    for name, text in {"__init__": "", **files}.items():
        file = package / f"{name.replace('__in__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return package


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from . import errors", {"errors"}),
        ("from . import nothing_of_a_module", {"__init__"}),
        ("from .errors import ApiError", {"errors"}),
        ("from ._core import http", {"_core.http"}),
        ("from ._core import Request", {"_core"}),
        ("from ._core.http import Request", {"_core.http"}),
        ("import invoicing_async.errors", {"errors"}),
        ("from invoicing_async._core.http import Request", {"_core.http"}),
        ("from invoicing_async import errors", {"errors"}),
        ("def late():\n    from .errors import ApiError", {"errors"}),
        ("if TYPE_CHECKING:\n    from .errors import ApiError\nelse:\n    from ._core import http", {"_core.http"}),
        ("import json\nfrom invoicing_async_of_another import x", set()),
    ],
)
def test_what_runs_of_a_modules_imports_is_found(tmp_path: Path, line: str, expected: set[str]) -> None:
    package = made(tmp_path, errors="", session=line, _core__in____init__="", _core__in__http="")
    assert imports(package)["session"] == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from . import clock", {"_core.clock"}),
        ("from .clock import Clock", {"_core.clock"}),
        ("from ..errors import ApiError", {"errors"}),
        ("from .. import errors", {"errors"}),
    ],
)
def test_an_import_within_a_package_is_found(tmp_path: Path, line: str, expected: set[str]) -> None:
    package = made(tmp_path, errors="", _core__in____init__="", _core__in__http=line, _core__in__clock="")
    assert imports(package)["_core.http"] == expected


@pytest.mark.parametrize(
    ("name", "other", "wrong"),
    [
        ("session", "_core.http", False),
        ("_durable.ledger", "documents", False),
        ("_core.http", "_transport.client", True),
        ("_files.writer", "_einvoices.decode", True),
        ("documents", "invoices", True),
        ("_durable.ledger", "cli.app", True),
    ],
)
def test_an_arrow_is_right_only_downward(name: str, other: str, *, wrong: bool) -> None:
    assert bool(faults(arrows({name: frozenset({other})}))) is wrong


def test_what_is_within_one_room_is_no_arrow() -> None:
    assert arrows({"_core.http": frozenset({"_core.clock", "_core.tasks"})}) == set()


@pytest.mark.parametrize(
    ("name", "other", "found"),
    [
        ("_durable.overview", "_durable.lock", True),
        ("cli.commands.runs", "_durable.ledger", True),
        (OPENING, "_durable.ledger", True),
        ("_durable.ledger", "_durable.writer", False),
        ("_durable.ledger", "_durable.records", False),
        ("_durable.overview", "_durable.protocol", False),
    ],
)
def test_an_import_of_the_store_is_found_outside_it(name: str, other: str, *, found: bool) -> None:
    assert bool(into_store({name: frozenset({other})})) is found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from .ledger import SqliteReader", True),
        ("from .ledger import SqliteReader as Reader", True),
        ("opened = runs.SqliteReader.read(file)", True),
        ("async def of(ledger: SqliteReader): pass", True),
        ("__doc__ = 'beside a SqliteReader'", False),
        ("from .protocol import LedgerReader", False),
    ],
)
def test_the_name_of_a_class_is_found_in_code(line: str, *, found: bool) -> None:
    assert ("SqliteReader" in named_in(line)) is found


def test_a_module_of_no_room_is_refused() -> None:
    with pytest.raises(KeyError, match="_attic is in no room"):
        arrows({"_attic": frozenset({"errors"})})


def test_an_arrow_that_others_make_up_is_not_drawn() -> None:
    assert essential(frozenset({("a", "b"), ("b", "c"), ("a", "c"), ("a", "d")})) == {
        ("a", "b"),
        ("b", "c"),
        ("a", "d"),
    }


def test_what_breaks_the_rules_is_drawn_dotted() -> None:
    drawn = drawing(frozenset({("session", "_core.http"), ("_core.http", "session")}))
    assert "  session --> core\n" in drawn
    assert "  core -.-> session\n" in drawn

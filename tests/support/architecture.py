"""The package as a stranger sees it at a glance: its rooms, which floor each is on, and the drawing of its imports.

`python tests/support/architecture.py` prints the block for the README, with `--all` every arrow, with `--rules` the
imports that point up or sideways.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

Imports = Mapping[str, frozenset[str]]
"""For each module, by its name below the package, the modules of the package that it imports when it runs."""
Arrows = frozenset[tuple[str, str]]
"""Who imports whom."""

PACKAGE = Path(__file__).resolve().parents[2] / "invoicing_async"
ROOT = "__init__"

FLOORS = {
    "command line": ("cli",),
    "settings, ids, reports, repair and testing: for people and their tests": ("tools",),
    "durable runs": ("runs",),
    "features": ("documents", "invoices", "drafts", "sandbox"),
    "one verb": ("session",),
    "credentials": ("auth",),
    "network, files, e-invoices, load": ("transport", "_files", "_einvoices", "_governor"),
    "core": ("_core",),
    "values": ("values",),
}
"""From the top down: a room imports from the floors below its own, and from no other room of its own."""

ROOMS = {
    "_core": {"_core", "clock"},
    "values": {"_values", "errors", "events", "health", "models", "policies", "polling"},
    "transport": {"_transport", "transport"},
    "_files": {"_files", "_objects", "stores"},
    "runs": {"_durable", "runs"},
    "tools": {"ids", "repair", "reports", "settings", "telemetry", "testing", "web", "worker"},
    "cli": {"cli", "__main__"},
}
"""The rooms that are more than the package, or the module, of their name."""

NAMES = (
    "_einvoices", "_governor", "auth", "session", "documents", "invoices", "drafts", "sandbox",
)  # fmt: skip
"""The rooms that are one package or module."""

STORE = frozenset(
    f"_durable.{name}"
    for name in (
        "database", "intake", "integrity", "ledger", "lock", "opening", "queries", "report_queries", "schema",
        "transaction", "transitions", "wal", "writer",
    )
)  # fmt: skip
"""The modules that know that a run is kept in a file of SQLite."""

SERVER = "_durable.postgres"
"""The package that knows that a run is kept on a server of PostgreSQL."""

OPENING = "_durable.ledgers"
"""The one module that knows which stores there are; all else has a `Ledger` or a `LedgerReader` of it."""

YET: set[tuple[str, str]] = set()
"""Imports that break the rules until what they are for is moved."""


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Every module by its name below the package; a package goes by its own name, the whole by `__init__`."""
    files = {file.relative_to(package).with_suffix(""): file for file in sorted(package.rglob("*.py"))}
    return {".".join(path.parts).removesuffix(".__init__"): file for path, file in files.items()}


@cache
def imports(package: Path = PACKAGE) -> Imports:
    """Who imports what, as it was when it was first asked for."""
    files = modules(package)
    return {name: frozenset(_imported(file, package, files)) - {name} for name, file in files.items()}


def _imported(file: Path, package: Path, known: Mapping[str, Path]) -> Iterator[str]:
    folder = file.relative_to(package).parent.parts
    for node in _run_nodes(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) + 1 - node.level] if node.level else ()
            stem = [*above, *(node.module or "").split(".")] if node.level else (node.module or "").split(".")
            names = [".".join(filter(None, [*stem, alias.name])) for alias in node.names]
            if not node.level and stem[0] != package.name:
                continue
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == package.name]
        else:
            continue
        yield from (_nearest(name.removeprefix(f"{package.name}."), known) for name in names)


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk what runs: all statements but the blocks that only the type checker reads. An import is never below them."""
    left = [tree]
    while left:
        node = left.pop()
        yield node
        is_typing = isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        for field in ("orelse",) if is_typing else ("body", "orelse", "handlers", "finalbody", "cases"):
            below = getattr(node, field, ())
            left += below if isinstance(below, list) else ()  # of an expression it is no list


def _nearest(name: str, known: Mapping[str, Path]) -> str:
    """The module that a dotted name is, or is in."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or ROOT


def room(module: str) -> str:
    """The room of a module; raises `KeyError` for one that has none."""
    first = module.split(".", maxsplit=1)[0]
    if first in NAMES:
        return first
    for name, inside in ROOMS.items():
        if first in inside:
            return name
    raise KeyError(f"{module} is in no room: put it into the package of one, or into ROOMS")


def floor(name: str) -> int:
    """How far below the top a room is."""
    return next(number for number, names in enumerate(FLOORS.values()) if name in names)


def arrows(found: Imports) -> Arrows:
    """Who imports whom, module by module, between rooms. The package's own `__init__` stands above all of them."""
    pairs = ((name, other) for name, others in found.items() if name != ROOT for other in others if other != ROOT)
    return frozenset((name, other) for name, other in pairs if room(name) != room(other))


def faults(found: Arrows) -> Arrows:
    """The arrows that point up or sideways."""
    return frozenset((name, other) for name, other in found if floor(room(other)) <= floor(room(name)))


def hidden_from_cli(found: Arrows) -> set[str]:
    """The private modules that the command line imports: what it needs should be had by a program too."""
    others = {other for name, other in found if room(name) == "cli"}
    return {other for other in others if any(part.startswith("_") for part in other.split("."))}


def into_store(found: Imports) -> Arrows:
    """Who imports a module of the store from outside it."""
    return frozenset((name, other) for name, others in found.items() if name not in STORE for other in others & STORE)


def into_server(found: Imports) -> Arrows:
    """Who imports a module of the store on a server from outside it."""
    return frozenset(
        (name, other)
        for name, others in found.items()
        for other in others
        if is_of_server(other) and not is_of_server(name)
    )


def is_of_server(module: str) -> bool:
    return f"{module}.".startswith(f"{SERVER}.")


def named_in(text: str) -> set[str]:
    """The names that a module's code has, its imports included; not the words of its texts."""
    nodes = [*ast.walk(ast.parse(text))]
    return {
        *(node.id for node in nodes if isinstance(node, ast.Name)),
        *(node.attr for node in nodes if isinstance(node, ast.Attribute)),
        *(node.name for node in nodes if isinstance(node, ast.alias)),
    }


def between_rooms(found: Arrows) -> Arrows:
    return frozenset((room(name), room(other)) for name, other in found)


def essential(found: Arrows) -> Arrows:
    """Leave out every arrow that others make up together. There must be no circle."""
    return frozenset((name, other) for name, other in found if other not in _reached(found - {(name, other)}, name))


def _reached(found: Arrows, start: str) -> set[str]:
    reached, new = set[str](), {start}
    while new:
        reached |= new
        new = {other for name, other in found if name in new} - reached
    return reached


def drawing(found: Arrows, *, every: bool = False) -> str:
    """A Mermaid flowchart: the rooms floor by floor, and who imports from whom; dotted is what breaks the rules.

    An arrow that others make up together is left out, unless `every` one is wanted.
    """
    wrong = between_rooms(faults(found))
    right = between_rooms(found) - wrong
    lines = ["flowchart TD"]
    for number, (title, names) in enumerate(FLOORS.items()):
        boxes = (f'    {_id(name)}["{name}"]' for name in names)
        lines += [f'  subgraph floor{len(FLOORS) - number}["{title}"]', *boxes, "  end"]
    lines += [f"  {_id(name)} --> {_id(other)}" for name, other in _sorted(right if every else essential(right))]
    lines += [f"  {_id(name)} -.-> {_id(other)}" for name, other in _sorted(wrong)]
    return "\n".join(lines) + "\n"


def _sorted(found: Arrows) -> list[tuple[str, str]]:
    order = [name for names in FLOORS.values() for name in names]
    return sorted(found, key=lambda arrow: (order.index(arrow[0]), order.index(arrow[1])))


def _id(name: str) -> str:
    return name.removeprefix("_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="draw the arrows too that others make up together")
    parser.add_argument("--rules", action="store_true", help="print the imports that point up or sideways")
    options = parser.parse_args()
    found = arrows(imports())
    if options.rules:
        text = "".join(f"{name} -> {other}  ({room(name)} -> {room(other)})\n" for name, other in sorted(faults(found)))
    else:
        text = f"```mermaid\n{drawing(found, every=options.all)}```\n"
    sys.stdout.write(text)


if __name__ == "__main__":
    main()

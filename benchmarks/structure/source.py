"""What a reader meets in the package's source: functions, how long and how private they are, modules and classes."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LONG_MODULE, LONG_CLASS = 400, 200


class Found(NamedTuple):
    """One function where it is defined. `owner` is its class, empty for none."""

    file: str
    line: int
    owner: str
    name: str
    lines: int
    uses: int
    """References in the whole package to this function, told apart from others of its name by module and class."""
    namesakes: int
    """References in the whole package to the bare name, whoever bears it."""

    @property
    def private(self) -> bool:
        return self.name.startswith("_") and not self.name.endswith("__")

    @property
    def used_once(self) -> bool:
        return self.private and self.uses == 1

    @property
    def name_used_once(self) -> bool:
        return self.private and self.namesakes == 1

    @property
    def shown(self) -> str:
        return f"{self.file}:{self.line} {self.owner + '.' if self.owner else ''}{self.name}"


class Module:
    """One file: its tree, its functions with the class each belongs to, and the names it refers to."""

    def __init__(self, file: Path, package: Path) -> None:
        self.name = str(file.relative_to(package))
        text = file.read_text()
        self.lines = len(text.splitlines())
        self.tree = ast.parse(text)

    @cached_property
    def functions(self) -> list[tuple[Function, ast.ClassDef | None]]:
        return list(_functions(self.tree, None))

    @cached_property
    def names(self) -> Counter[str]:
        """Plain names that are read."""
        nodes = (node for node in ast.walk(self.tree) if isinstance(node, ast.Name))
        return Counter(node.id for node in nodes if isinstance(node.ctx, ast.Load))

    @cached_property
    def imported(self) -> set[str]:
        imports = (node for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom))
        return {alias.name for node in imports for alias in node.names}

    @cached_property
    def attributes(self) -> Counter[str]:
        """Attributes of anything but the object itself."""
        return Counter(node.attr for node in _attributes(self.tree) if not _is_own(node))


class Source:
    """The whole package below a folder."""

    def __init__(self, package: Path) -> None:
        self.modules = [Module(file, package) for file in sorted(package.rglob("*.py"))]
        self.attributes = sum((module.attributes for module in self.modules), Counter[str]())

    @cached_property
    def functions(self) -> list[Found]:
        return [self._found(module, *pair) for module in self.modules for pair in module.functions]

    def _found(self, module: Module, function: Function, owner: ast.ClassDef | None) -> Found:
        name = function.name
        uses = self._uses_of_method(name, owner) if owner else self._uses_of_function(name, module)
        where, line = owner.name if owner else "", function.lineno
        return Found(module.name, line, where, name, body_lines(function), uses, self.references[name])

    @cached_property
    def references(self) -> Counter[str]:
        """How often each name is read, plainly or as an attribute of anything."""
        attributes = Counter(node.attr for module in self.modules for node in _attributes(module.tree))
        return sum((module.names for module in self.modules), attributes)

    def _uses_of_method(self, name: str, owner: ast.ClassDef) -> int:
        own = sum(node.attr == name for node in _attributes(owner) if _is_own(node))
        inside = sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(owner))
        return own + inside + self.attributes[name]

    def _uses_of_function(self, name: str, module: Module) -> int:
        users = [other for other in self.modules if other is module or name in other.imported]
        return sum(user.names[name] for user in users) + self.attributes[name]

    @cached_property
    def classes(self) -> list[tuple[str, int]]:
        return [
            (f"{module.name}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
            for module in self.modules
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef)
        ]

    @cached_property
    def giving(self) -> list[str]:
        """Where a docstring begins with "Give"."""
        return [
            f"{module.name}:{node.body[0].lineno}"
            for module in self.modules
            for node in ast.walk(module.tree)
            if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module))
            and (ast.get_docstring(node) or "").split(maxsplit=1)[:1] == ["Give"]
        ]

    def lists(self) -> dict[str, list[str]]:
        """What stands behind the counts, by the name of the figure."""
        return {
            "private functions used once": [f"{one.shown} ({one.lines})" for one in self.functions if one.used_once],
            "private names used once": [f"{one.shown} ({one.lines})" for one in self.functions if one.name_used_once],
            "modules over 400 lines": [f"{one.name} ({one.lines})" for one in self.modules if one.lines > LONG_MODULE],
            "classes over 200 lines": [f"{name} ({lines})" for name, lines in self.classes if lines > LONG_CLASS],
            'docstrings that begin "Give"': self.giving,
        }

    def figures(self) -> dict[str, float]:
        functions = self.functions
        lengths = [one.lines for one in functions if one.lines]
        lists = self.lists()
        once, names_once = lists.pop("private functions used once"), lists.pop("private names used once")
        return {
            "lines": sum(module.lines for module in self.modules),
            "modules": len(self.modules),
            "functions": len(functions),
            "private functions, %": _share(sum(one.private for one in functions), len(functions)),
            "private, name used once, %": _share(len(names_once), len(functions)),
            "private, itself used once, %": _share(len(once), len(functions)),
            "lines of a function, median": median(lengths),
            "lines of a function, p90": round(quantiles(lengths, n=10)[-1], 1),
            "lines of a function, most": max(lengths),
            **{name: len(found) for name, found in lists.items()},
        }


def body_lines(function: Function) -> int:
    """Lines of a function's statements; 0 if it has none of its own, as in a protocol."""
    statements = [
        one for one in function.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
    ]
    return (function.end_lineno or 0) - statements[0].lineno + 1 if statements else 0


def _functions(tree: ast.AST, owner: ast.ClassDef | None) -> Iterator[tuple[Function, ast.ClassDef | None]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, FUNCTIONS):
            yield node, owner
            yield from _functions(node, None)
        else:
            yield from _functions(node, node if isinstance(node, ast.ClassDef) else owner)


def _attributes(tree: ast.AST) -> Iterator[ast.Attribute]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))


def _is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


def _share(part: int, whole: int) -> float:
    return round(100 * part / whole, 1)

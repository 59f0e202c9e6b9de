"""The README's code blocks, and the functions that they define."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

from places import README, TESTS

RECIPES = {file.read_text(): file.stem for file in (TESTS / "recipes").glob("*.py")}
"""The modules of `tests/recipes` by their text: a block that is one of them has its name, and others may import it."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def modules() -> dict[str, str]:
    """The Python blocks by the names of modules that they would be, each one a module of its own."""
    return {RECIPES.get(block, f"readme_{number}"): block for number, block in enumerate(blocks("python"), 1)}


def example(name: str) -> Any:
    """The function of that name, from the block that defines it."""
    block = next(block for block in blocks("python") if f"def {name}(" in block)
    module = ModuleType("readme")
    exec(compile(block, "README.md", "exec", dont_inherit=True), module.__dict__)
    return getattr(module, name)

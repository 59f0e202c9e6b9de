"""The README's code blocks, and the functions that they define."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Any

from places import README


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def example(name: str) -> Any:
    """The function of that name, from the block that defines it."""
    block = next(block for block in blocks("python") if f"def {name}(" in block)
    module = ModuleType("readme")
    # FastAPI looks names up in the module a function says it is from.
    sys.modules["readme"] = module
    exec(compile(block, "README.md", "exec", dont_inherit=True), module.__dict__)
    return getattr(module, name)

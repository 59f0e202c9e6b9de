"""What a session holds for its features, such as the threads that write files, and closes with itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Resource", "Resources"]


class Resource(Protocol):
    """Something a session holds for its features and closes with itself."""

    async def close(self) -> None: ...


class Resources(dict[type[Any], Any]):
    """One of each kind, made when it is asked for first; `check` raises if it is too late for that."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check

    def __missing__(self, kind: type[Any]) -> Any:
        self._check()
        made = self[kind] = kind()
        return made

    async def close(self) -> None:
        """Close all of them, the last one first, and hold none any more."""
        held = list(self.values())
        self.clear()
        for resource in reversed(held):
            await resource.close()

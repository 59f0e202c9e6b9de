"""Where the results of a worker wait to be taken: a few, so that a slow consumer slows the work down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

from .._durable.streams import MERGED

__all__ = ["Outlet"]

T = TypeVar("T")


class Outlet(Generic[T]):
    """Results on their way from the work to whoever takes them, until it is closed; then its error is raised."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[list[T]] = asyncio.Queue(MERGED)
        self._is_left = False
        self.error: Exception | None = None

    async def put(self, result: T) -> None:
        """Wait until there is room, and put a result there; it is dropped when nobody takes any more."""
        if not self._is_left:
            await self._ready.put([result])

    async def close(self) -> None:
        """Let the taking of all that is there come to an end."""
        if not self._is_left:
            await self._ready.put([])

    def leave(self) -> None:
        """Say that nobody takes any more."""
        self._is_left = True
        while not self._ready.empty():
            self._ready.get_nowait()

    async def taken(self) -> AsyncGenerator[T]:
        """Yield the results, and raise the error at their end."""
        while result := await self._ready.get():
            yield result[0]
        self._is_left = True
        if self.error is not None:
            raise self.error

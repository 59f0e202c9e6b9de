"""Stopping a run: what is in flight finishes, what waits begins nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any, Self, TypeVar

from ..errors import InvoicingError, Sent
from ..session import Sleep

__all__ = ["StopToken", "StoppedError"]

T = TypeVar("T")


class StoppedError(InvoicingError):
    """The run was asked to stop while this waited."""

    sent: Sent = "no"


class StopToken:
    """The request to stop a run, which ends waits for time and begins nothing more."""

    def __init__(self) -> None:
        self.asked = False
        self._waits: set[asyncio.Timeout] = set()
        self._parts: set[Self] = set()

    def ask(self) -> None:
        if not self.asked:
            self.asked = True
            for wait in self._waits:
                wait.reschedule(0)
            for part in self._parts:
                part.ask()

    @contextmanager
    def part(self) -> Iterator[Self]:
        """Have a token for the block that is asked when this one is, and that may be asked alone."""
        part = type(self)()
        part.asked = self.asked
        self._parts.add(part)
        try:
            yield part
        finally:
            self._parts.discard(part)

    @asynccontextmanager
    async def interrupts(self) -> AsyncIterator[None]:
        """Raise `StoppedError` in place of what is awaited in the block."""
        if self.asked:
            raise StoppedError("the run was asked to stop")
        wait = asyncio.timeout(None)
        self._waits.add(wait)
        try:
            async with wait:
                yield
        except TimeoutError:
            if not wait.expired():
                raise
            raise StoppedError("the run was asked to stop") from None
        finally:
            self._waits.discard(wait)

    def sleep(self, sleep: Sleep) -> Sleep:
        """Return a sleep that is cut short."""

        async def cut(seconds: float) -> None:
            async with self.interrupts():
                await sleep(seconds)

        return cut

    async def until_stopped(self, source: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Yield what a generator yields, until the run is asked to stop."""
        nothing: Any = object()
        async with aclosing(source):
            value = await self._next(source, nothing)
            while value is not nothing:
                yield value
                value = await self._next(source, nothing)

    async def _next(self, source: AsyncGenerator[T], nothing: T) -> T:
        with suppress(StoppedError):
            async with self.interrupts():
                return await anext(source, nothing)
        return nothing

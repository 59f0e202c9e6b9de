"""When a clock that turns itself may: once nobody uses it, and no service in another thread is at work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["PATIENCE", "QUIET_SECONDS", "Quiet", "Work"]

QUIET_TURNS = 32
"""Turns of the loop in which nothing asks the clock for anything, before all that can be done counts as done."""
QUIET_SECONDS = 0.002
"""Real seconds that this takes at least: for what is under way in a socket or in another thread."""
PATIENCE = 1.0
"""Real seconds that a service in another thread has at most for what it works at, before that counts as done."""
LOOKS = 0.002
"""Real seconds between two looks at such a service."""

Work: TypeAlias = Callable[[], tuple[int, int]]
"""Returns how many requests a service answered so far, and how many it works at."""
AtWork: TypeAlias = tuple[tuple[int, int], ...]


class Quiet:
    """`uses` counts what is asked of the clock."""

    def __init__(self) -> None:
        self.uses = 0
        self._services: dict[asyncio.AbstractEventLoop, Work] = {}
        self._given_up: AtWork = ()
        """What the services were at when their time was up."""

    @contextmanager
    def patient(self, work: Work) -> Iterator[None]:
        """Count a service in this thread as at work while it works at more than sleeps in its loop."""
        loop = asyncio.get_running_loop()
        self._services[loop] = work
        try:
            yield
        finally:
            del self._services[loop]

    async def settled(self, quiet: float, sleepers: Mapping[asyncio.AbstractEventLoop, int]) -> None:
        """Return when nothing has asked the clock for anything for `quiet` seconds, and no service is at work."""
        await self._unused(quiet)
        while (found := self._at_work(sleepers)) and found != self._given_up:
            loop = asyncio.get_running_loop()
            until = loop.time() + PATIENCE
            while self._at_work(sleepers) == found and loop.time() < until:  # noqa: ASYNC110 - another thread's
                await asyncio.sleep(LOOKS)
            if self._at_work(sleepers) == found:
                self._given_up = found
            await self._unused(quiet)

    async def _unused(self, quiet: float) -> None:
        seen = None
        while seen != self.uses:
            seen = self.uses
            await _turns()
            for loop in tuple(self._services):
                await _turns_of(loop)
            if quiet:
                await asyncio.sleep(quiet)

    def _at_work(self, sleepers: Mapping[asyncio.AbstractEventLoop, int]) -> AtWork:
        found = [(loop, work()) for loop, work in tuple(self._services.items())]
        return tuple((answered, busy) for loop, (answered, busy) in found if busy > sleepers.get(loop, 0))


async def _turns() -> None:
    for _ in range(QUIET_TURNS):
        await asyncio.sleep(0)


async def _turns_of(loop: asyncio.AbstractEventLoop) -> None:
    """Let another thread's loop find what was sent to it, however slow that thread is; one that ends is let go."""
    turning = _turns()
    try:
        turned = asyncio.run_coroutine_threadsafe(turning, loop)
    except RuntimeError:  # it is closed
        turning.close()
    else:
        await asyncio.wait([asyncio.wrap_future(turned)], timeout=PATIENCE)

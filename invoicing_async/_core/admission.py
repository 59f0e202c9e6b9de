"""Admission: when an attempt may begin, by the limits of its session.

A place among the calls under way comes first, then the turn in the rate limit: paced attempts that then queued for a
place would begin in a burst.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from ..errors import SessionError
from ..policies import Limits
from .clock import Clock
from .rate_limiter import RateLimiter
from .semaphore import FifoSemaphore

__all__ = ["WIDE", "Admission"]

PREPARING = 4
"""One in so many calls as may be under way at once may do beforehand what has to be done before its first byte. More
of them would fill the places of a slow disk's calls, but after a crash each is a doubt that need not be."""

WIDE = 32
"""Up to so many calls at once, the default, nobody does: there a crash leaves in doubt what was in flight, no more."""


class Admission:
    """The places and the rate that all calls of one session, or of several, share.

    Each acquired place is released once. `ahead` is how many calls may wait for a place and prepare meanwhile.
    """

    __slots__ = ("_can_prepare", "_clock", "_loop", "_rate", "_sessions", "_turn", "ahead", "places", "preparing")

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self.places = FifoSemaphore(limits.concurrency)
        self.preparing = FifoSemaphore(limits.concurrency // PREPARING)
        """Those who may prepare while they wait for a place."""
        self._can_prepare = limits.concurrency > WIDE and limits.per_second is None
        self._rate = RateLimiter(limits.per_second, limits.burst) if limits.per_second else None
        self._turn = FifoSemaphore(1)
        self._clock = clock
        self.ahead = self.preparing.free if self._can_prepare else 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sessions = 0

    def join(self) -> None:
        """Begin to be one of its sessions. Raises `SessionError` if another has it in another event loop."""
        loop = asyncio.get_running_loop()
        if self._sessions and self._loop is not loop:
            raise SessionError("these limits are shared with an open session of another event loop")
        self._loop = loop
        self._sessions += 1

    def leave(self) -> None:
        """End being one of its sessions."""
        self._sessions -= 1

    def try_acquire(self) -> bool:
        """Take a place if nothing has to be waited for, and tell whether it was so."""
        return self._rate is None and self.places.try_acquire()

    async def acquire(self, prepare: Callable[[], Awaitable[None]] | None = None, *, owner: Hashable = "") -> bool:
        """Wait for a place and for the turn in the rate limit, and tell whether `prepare` was awaited meanwhile.

        Several owners take turns in both, however many wait for each. `prepare` is awaited if all of many places are
        taken and a place is all that is waited for: few at a time, next in line. What it records as begun waits for its
        first byte, and a crash leaves it in doubt.
        """
        if prepare is not None and self._can_prepare and not self.places.free:
            await self.preparing.acquire()
            try:
                await prepare()
                await self.places.acquire(owner)
            finally:
                self.preparing.release()
            return True
        await self.places.acquire(owner)
        try:
            if self._rate is not None:
                await self._take_turn(owner)
        except BaseException:
            self.places.release()
            raise
        return False

    async def _take_turn(self, owner: Hashable) -> None:
        """Wait for the turn in the rate limit, and take it when it has come: who gives up leaves none unused."""
        assert self._rate is not None  # noqa: S101 - who calls this has looked; for the type checker
        await self._turn.acquire(owner)
        try:
            now = self._clock.monotonic()
            wait = self._rate.wait(now)
            if wait > 0:
                await self._clock.sleep(wait)
            self._rate.take(now + wait, self._clock.monotonic())
        finally:
            self._turn.release()

    def release(self) -> None:
        """Return the place."""
        self.places.release()

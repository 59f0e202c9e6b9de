"""A counted number of places, taken at once where one is free and in order where none is.

`asyncio.Semaphore` can only be awaited, and hands its places out in another turn of the loop. Here a free place is
taken without an await, as nearly every one of a batch's is, and one given back goes straight to who waits longest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from .fair import FairQueue

__all__ = ["FifoSemaphore"]


class FifoSemaphore:
    """So many places. Whoever waits is served in order, and nobody who comes later gets ahead."""

    __slots__ = ("_free", "_waiters")

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiters: FairQueue[Hashable, asyncio.Future[None]] = FairQueue()

    @property
    def free(self) -> int:
        """How many places nobody has; less than 0 of those that were forced."""
        return self._free

    def try_acquire(self) -> bool:
        """Take a place if one is free, and tell whether it was."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    async def acquire(self, owner: Hashable = None) -> None:
        """Take a place, waiting for one if need be; several owners take turns, however many wait for each."""
        if self._free > 0:
            self._free -= 1
            return
        waiter = self.waiter(owner)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                # It was given a place that it will not use.
                self.release()
            raise

    def waiter(self, owner: Hashable = None) -> asyncio.Future[None]:
        """Wait from this moment on, behind who waits already: what is returned is done with a place, or cancelled."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.push(owner, waiter)
        return waiter

    def force(self) -> None:
        """Take a place that nobody may have to give: the next that is returned pays for it."""
        self._free -= 1

    def release(self) -> None:
        """Return a place: to the first that waits, else to the free ones."""
        if self._free < 0:
            self._free += 1
            return
        while self._waiters.lines:
            waiter = self._waiters.pop()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

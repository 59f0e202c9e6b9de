"""The places of a batch: one for each item from when it is read until its outcome is taken.

Whoever waits for the next item of the input has a place as well. What the input yields next may wait for an item that
has backed off, as where invoices are exported as they finish; if all places were held so, nothing would go on. So
before long such a place is lent to an item that comes back; who waited takes another before it begins its item.
"""

from __future__ import annotations

import asyncio
from typing import Any

from .batch_source import Reader, Source
from .semaphore import FifoSemaphore

__all__ = ["Places"]

LENT_AFTER = 0.1
"""Seconds after which places of those who wait for an item are lent, while an item waits for one to come back."""


class Places(FifoSemaphore):
    """Places to be taken in order; every one that is given back was taken, lent or forced before.

    `lent` is how many places of those who wait for an item others have at the moment.
    """

    __slots__ = ("_returning", "_source", "_timer", "lent")

    def __init__(self, places: int, source: Source[Any] | Reader[Any]) -> None:
        super().__init__(places)
        self._source = source
        self._returning: dict[asyncio.Future[None], None] = {}
        """Who waits for a place to come back to; one that is lent ends the wait as one that was given back does."""
        self._timer: asyncio.TimerHandle | None = None
        self.lent = 0

    def read_in_vain(self) -> None:
        """Return the place of one that gets no item any more, unless it is lent."""
        if self.lent:
            self.lent -= 1
        else:
            self.release()

    async def take_back(self) -> None:
        """Take a place for an item that was read, in exchange for the one that is lent."""
        self.lent -= 1
        try:
            await self.acquire()
        except BaseException:
            self.force()
            raise

    async def come_back(self) -> None:
        """Take a place for an item that gave its own away. Cut off, it has one too: its outcome gives one back."""
        if self.try_acquire():
            return
        taking = self.waiter()  # at once: a task of its own would wait behind who comes later
        self._returning[taking] = None
        self._look_again()
        try:
            await taking
        except BaseException:
            if taking.cancelled():
                self.force()
            raise
        finally:
            del self._returning[taking]
            if not self._returning and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _look_again(self) -> None:
        if self._timer is None and self._source.waits:
            self._timer = asyncio.get_running_loop().call_later(LENT_AFTER, self._lend)

    def _lend(self) -> None:
        """Lend what can be lent to those who wait longest."""
        self._timer = None
        waiting = [taking for taking in self._returning if not taking.done()]
        for taking in waiting[: max(0, self._source.asking - self.lent)]:
            taking.set_result(None)
            self.lent += 1
        self._look_again()

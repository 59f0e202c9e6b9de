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
from .tasks import started

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
        self._returning: dict[asyncio.Task[None], bool] = {}
        """Who waits for a place to come back to, and whether one was lent to it."""
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
        taking = started(self.acquire())
        self._returning[taking] = False
        self._look_again()
        try:
            await asyncio.wait([taking])
        except BaseException:
            if not self._returning[taking] and taking.cancel():
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
        for taking, _ in zip([*self._returning], range(self._source.asking - self.lent), strict=False):
            if not self._returning[taking] and taking.cancel():
                self._returning[taking] = True
                self.lent += 1
        self._look_again()

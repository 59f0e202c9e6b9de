"""The input of a batch: its items, one after the other, and what is left of them after an error."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sized
from typing import Generic, TypeVar

from .tasks import started

__all__ = ["Item", "Left", "Reader", "Sleep", "Source"]

_log = logging.getLogger("invoicing_async")


Item = TypeVar("Item")


Sleep = Callable[[float], Awaitable[None]]


READ_ON = 10_000
"""Items of an input that may be endless that are still read after an error has ended the batch."""


READ_ON_FOR = 2.0
"""Seconds that such an input may take for them in all."""


IDLE = 0.5
"""Seconds for which one item of it is waited for."""


class Left(Generic[Item]):
    """What of an input is still read when the batch has ended, so that each item has an outcome."""

    def __init__(self, source: Source[Item] | Reader[Item]) -> None:
        self._source = source
        self._number = 0
        self._seconds = READ_ON_FOR

    async def read(self) -> Item:
        """Return the next item. Raises `StopAsyncIteration` at the end, and when no more is to be waited for."""
        if self._source.is_finite:
            return await self._source.read()
        self._number += 1
        if self._number > READ_ON or self._seconds <= 0:
            raise StopAsyncIteration
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(min(self._seconds, IDLE)):
                return await self._source.read()
        except TimeoutError:
            raise StopAsyncIteration from None
        finally:
            self._seconds -= loop.time() - begun


def _told(error: BaseException) -> BaseException:
    """Return an input's error as it is to be raised: its cancellation is none of whoever reads the outcomes.

    Raised as it is, a task group would take it for its own and say nothing.
    """
    if not isinstance(error, asyncio.CancelledError):
        return error
    told = RuntimeError("the input was cancelled before its end: not every item was read")
    told.__cause__ = error
    return told


class Source(Generic[Item]):
    """One iterator over a plain input."""

    waits = False
    """True if the next item has to be awaited."""
    asking = 0
    """How many wait for an item."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.is_finite = isinstance(items, Sized)
        self.ended = False
        self.error: BaseException | None = None
        self._items = iter(items)

    def next(self) -> Item:
        """Return the next item. Raises `StopAsyncIteration` at the end and after an error, which is kept."""
        if not self.ended:
            try:
                return next(self._items)
            except StopIteration:
                self.ended = True
            except KeyboardInterrupt:
                raise
            except BaseException as exc:  # noqa: BLE001 - the caller's iterator may raise anything; it is raised later
                self.ended = True
                self.error = _told(exc)
        raise StopAsyncIteration

    async def read(self) -> Item:
        """Return the next item, as `next`."""
        return self.next()

    def dismiss(self) -> None:
        """End the waits for an item: there are none."""

    async def close(self) -> None:
        """Leave the input: an iterator of the caller's own needs nothing."""


class Reader(Generic[Item]):
    """Reads an asynchronous input in one task of its own, from its first step to its closing.

    So what is written around a `yield` of an async generator works there as it is written: `asyncio.timeout`, a
    `TaskGroup`. It reads an item when one is asked for; who asks may be cancelled, which takes nothing from the input.
    """

    waits = True
    is_finite = False

    def __init__(self, items: AsyncIterable[Item]) -> None:
        self._through = False
        self.error: BaseException | None = None
        self._items = aiter(items)
        self._asking: deque[asyncio.Future[Item]] = deque()
        self._kept: deque[Item] = deque()
        self._asked: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._left = False

    @property
    def ended(self) -> bool:
        """True if nothing more will come."""
        return self._through and not self._kept

    def next(self) -> Item:
        """Return what is there already. Raises `StopAsyncIteration` if nothing is; see `read`."""
        if self._kept:
            return self._kept.popleft()
        raise StopAsyncIteration

    @property
    def asking(self) -> int:
        """How many wait for an item."""
        return sum(not asking.done() for asking in self._asking)

    async def read(self) -> Item:
        """Return the next item. Raises `StopAsyncIteration` at the end and after an error, which is kept."""
        if self._kept or self._through:
            return self.next()
        asking: asyncio.Future[Item] = asyncio.get_running_loop().create_future()
        self._asking.append(asking)
        if self._task is None:
            self._task = started(self._served())
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)
        try:
            return await asking
        except asyncio.CancelledError:
            if asking.done() and not asking.cancelled() and asking.exception() is None:
                self._kept.append(asking.result())
            raise

    def dismiss(self) -> None:
        """End the waits for an item; what is read meanwhile is kept."""
        for asking in self._asking:
            if not asking.done():
                asking.set_exception(StopAsyncIteration())
                asking.exception()
        self._asking.clear()

    async def close(self) -> None:
        """End the reading and close the input, in the task that read it."""
        if self._task is not None:
            self._left = True
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _served(self) -> None:
        try:
            while not self._left:
                self._hand_over(await self._item())
        except StopAsyncIteration:
            pass
        except BaseException as exc:  # noqa: BLE001 - the caller's iterator may raise anything; it is raised later
            self.error = _told(exc)
        try:
            if self._left and hasattr(self._items, "aclose"):
                await self._items.aclose()
        except BaseException as exc:  # noqa: BLE001 - nobody is left to hear it
            _log.debug("the input could not be closed: %r", exc)
        self._through = True
        self.dismiss()

    async def _item(self) -> Item:
        """Wait until somebody asks for an item, then for the item."""
        try:
            while not any(not asking.done() for asking in self._asking):
                self._asked = asyncio.get_running_loop().create_future()
                await self._asked
        except asyncio.CancelledError as cut:
            throw = getattr(self._items, "athrow", None)
            if self._left or throw is None:
                raise
            # Something in the input cuts it off while it stands at its `yield`, so that is where it is to be heard.
            item: Item = await throw(cut)
            return item
        return await anext(self._items)

    def _hand_over(self, item: Item) -> None:
        while self._asking:
            asking = self._asking.popleft()
            if not asking.done():
                asking.set_result(item)
                return
        self._kept.append(item)

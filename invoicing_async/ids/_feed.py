"""A blocking input, read in a thread of its own and taken from the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from threading import Semaphore, Thread
from typing import Generic, Self, TypeVar

__all__ = ["Feed"]

T = TypeVar("T")
ROOM = 1024
"""Items that are read ahead."""


class Feed(Generic[T]):
    """A blocking iterator as an asynchronous one: a thread reads it, at most `room` items ahead of who takes them.

    For ids that come through a pipe: waiting for the next one holds up nothing else in the loop. Make it in a running
    loop. What the iterator raises is raised after the items before it. The thread is a daemon: it may be waiting for
    an item that never comes when the program ends.

        feed = Feed(read_ids(sys.stdin.buffer))
        async for outcome in documents.download_many(feed, "invoices"): ...
    """

    def __init__(self, items: Iterator[T], *, room: int = ROOM) -> None:
        self._items = items
        self._left = False
        self._loop = asyncio.get_running_loop()
        self._room = Semaphore(room)
        self._ready: deque[T] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: Exception | None = None
        Thread(target=self._read, name="invoicing-input", daemon=True).start()

    def end(self) -> None:
        """End the iteration now: whoever waits for an item gets none, and what was read ahead is dropped.

        Call it in the loop. The thread stays where it is until its item comes.
        """
        self._left = True
        self._wake()

    def _read(self) -> None:
        try:
            for item in self._items:
                self._room.acquire()
                self._ready.append(item)
                self._tell()
        except Exception as error:  # noqa: BLE001 - raised again where the items are taken
            self._error = error
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody takes any more
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._left:
            ended = self._ended
            if self._ready:
                self._room.release()
                return self._ready.popleft()
            if ended:
                break
            self._waiter = self._loop.create_future()
            await self._waiter
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

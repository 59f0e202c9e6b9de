"""Many pieces of work at once, bounded on both sides, given as they finish.

An item takes one of `concurrency` places when it is read and gives it back when the consumer takes its outcome: a
slow consumer stops the reading of the input. While an item backs off another may use its place, for up to `PARKED`
times the concurrency of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from ._slots import Slots

__all__ = ["bounded"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Sleep = Callable[[float], Awaitable[None]]

PARKED = 8


async def bounded(
    items: Iterable[Item] | AsyncIterable[Item],
    work: Callable[[Item, Sleep], Awaitable[Outcome]],
    *,
    concurrency: int,
    sleep: Sleep,
    abandoned: Callable[[Item, BaseException], Outcome],
    cancel: bool = True,
) -> AsyncGenerator[Outcome]:
    """Give the outcome of `work` for each item, in the order in which they finish.

    `work` gets the item and a `sleep` to back off with. What it raises ends the whole: what is in flight is
    cancelled (or with `cancel` false, finishes), every item not finished is given as `abandoned(item, error)`, then
    the error is raised. An error of the input itself is raised after what is in flight has finished. Leaving early
    cancels what is in flight.
    """
    batch = _Batch(items, work, concurrency, sleep, abandoned, cancel)
    try:
        while await batch.has_more():
            yield batch.taken()
        async for outcome in batch.rest():
            yield outcome
    finally:
        await batch.cancel()


class _Batch(Generic[Item, Outcome]):
    def __init__(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        work: Callable[[Item, Sleep], Awaitable[Outcome]],
        concurrency: int,
        sleep: Sleep,
        abandoned: Callable[[Item, BaseException], Outcome],
        cancel: bool,  # noqa: FBT001 - private, called in one place
    ) -> None:
        self._source = _Source(items)
        self._work = work
        self._concurrency = concurrency
        self._sleep = sleep
        self._abandoned = abandoned
        self._cancel = cancel
        self._places = Slots(concurrency)
        self._finished: deque[Outcome] = deque()
        self._news: asyncio.Future[None] | None = None
        self._workers: set[asyncio.Task[None]] = set()
        self._parked = 0
        self._resting: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        self._begun = False

    async def has_more(self) -> bool:
        """Wait until an outcome is there; false when there will be none."""
        if not self._begun:
            self._begun = True
            self._spawn()
        while not self._finished:
            if not self._workers:
                return False
            await self._heard()
        return True

    def taken(self) -> Outcome:
        """Give the next outcome, and its place to another item."""
        self._places.give()
        return self._finished.popleft()

    async def rest(self) -> AsyncGenerator[Outcome]:
        """Give what was not begun, then raise what ended the batch."""
        if self._error is not None:
            async for item in self._source.rest():
                yield self._abandoned(item, self._error)
            raise self._error
        if self._source.error is not None:
            raise self._source.error

    async def cancel(self) -> None:
        """End every worker, whatever it is doing."""
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)

    async def _heard(self) -> None:
        self._news = asyncio.get_running_loop().create_future()
        await self._news

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    @property
    def _crowded(self) -> bool:
        return len(self._workers) > self._concurrency + self._parked

    def _spawn(self) -> None:
        """Start a worker if there may be more to read and every present one has an item."""
        if self._source.ended or self._error is not None or len(self._workers) >= self._concurrency + self._parked:
            return
        worker = asyncio.create_task(self._worked())
        self._workers.add(worker)
        worker.add_done_callback(self._ended)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if error is not None and self._error is None:
            self._error = error
            # Whoever backs off has nothing in flight.
            ending = self._workers - {self._source.reader} if self._cancel else self._resting
            for other in ending:
                other.cancel()
        self._tell()

    async def _worked(self) -> None:
        while not self._source.ended and not self._is_over():
            if self._crowded:
                self._leave()
                return
            if not self._places.take_now():
                await self._places.take()
            try:
                item = await self._source.read() if self._source.waits else self._source.next()
            except StopAsyncIteration:
                self._places.give()
                return
            self._spawn()
            if self._is_over():
                # While the item was waited for.
                self._finished.append(self._abandoned(item, self._cause(asyncio.CancelledError())))
                return
            try:
                self._finished.append(await self._work(item, self._park))
            except BaseException as exc:
                # Cancelled as another item's error ends the batch, or because the batch is left: nobody reads then.
                self._finished.append(self._abandoned(item, self._cause(exc)))
                raise
            self._tell()

    def _leave(self) -> None:
        # At once, not when the loop calls `_ended`: others that finish in the same step must not leave for it too.
        self._workers -= {asyncio.current_task()}

    def _is_over(self) -> bool:
        return self._error is not None

    def _cause(self, exc: BaseException) -> BaseException:
        """What ended the batch, or this item of it."""
        return exc if self._error is None else self._error

    async def _park(self, seconds: float) -> None:
        worker = asyncio.current_task()
        assert worker is not None  # noqa: S101 - work runs in a worker; for the type checker
        self._resting.add(worker)
        try:
            await self._rest(seconds)
        finally:
            self._resting.discard(worker)

    async def _rest(self, seconds: float) -> None:
        if self._parked >= self._concurrency * PARKED:
            await self._sleep(seconds)
            return
        self._parked += 1
        self._places.give()
        self._spawn()
        try:
            await self._sleep(seconds)
        finally:
            self._parked -= 1
        await self._places.take()


class _Source(Generic[Item]):
    """One iterator over either kind of input, read by one task at a time.

    `reader` is the task that waits for the input now: cancelling it would end an async generator and lose its rest.
    """

    def __init__(self, items: Iterable[Item] | AsyncIterable[Item]) -> None:
        self.ended = False
        self.error: BaseException | None = None
        self.reader: asyncio.Task[None] | None = None
        self._reading = asyncio.Lock()
        self._async = aiter(items) if isinstance(items, AsyncIterable) else None
        self._sync = iter(()) if isinstance(items, AsyncIterable) else iter(items)
        self.waits = self._async is not None
        """True if the next item has to be awaited."""

    def next(self) -> Item:
        """Give the next item of an input that does not wait; see `read`."""
        if not self.ended:
            try:
                return next(self._sync)
            except StopIteration:
                self.ended = True
            except Exception as exc:  # noqa: BLE001 - the caller's iterator may raise anything; it is raised later
                self.ended = True
                self.error = exc
        raise StopAsyncIteration

    async def read(self) -> Item:
        """Give the next item. Raises `StopAsyncIteration` at the end and after an error, which is kept."""
        if self._async is None:
            return self.next()
        if self.ended:
            raise StopAsyncIteration
        try:
            async with self._reading:
                return await self._awaited(self._async)
        except StopAsyncIteration:
            self.ended = True
        except Exception as exc:  # noqa: BLE001 - the caller's iterator may raise anything; it is raised again later
            self.ended = True
            self.error = exc
        raise StopAsyncIteration

    async def _awaited(self, source: AsyncIterator[Item]) -> Item:
        if self.ended:
            raise StopAsyncIteration
        self.reader = asyncio.current_task()
        try:
            return await anext(source)
        finally:
            self.reader = None

    async def rest(self) -> AsyncIterator[Item]:
        """Give what was not read yet."""
        while True:
            try:
                item = await self.read()
            except StopAsyncIteration:
                return
            yield item

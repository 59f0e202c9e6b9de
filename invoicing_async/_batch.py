"""Many pieces of work at once, bounded on both sides, given as they finish.

An item takes one of `concurrency` places when it is read and gives it back when the consumer takes its outcome: a
slow consumer stops the reading of the input. While an item backs off another may use its place, for up to `PARKED`
times the concurrency of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sized
from contextvars import ContextVar
from typing import Generic, TypeVar

from attrs import frozen

from ._ramp import Cause, Ramp, Streak, Verdict
from ._slots import Slots
from ._tasks import current, started
from .errors import BatchStoppedError

__all__ = ["Careful", "bounded", "in_batch"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Sleep = Callable[[float], Awaitable[None]]

PARKED = 8

READ_ON = 10_000
"""Items of an input that may be endless that are still read after an error has ended the batch."""

READ_ON_FOR = 2.0
"""Seconds that such an input may take for them in all."""

IDLE = 0.5
"""Seconds for which one item of it is waited for."""

_log = logging.getLogger("invoicing_async")
_working: ContextVar[bool] = ContextVar("invoicing_async_batch", default=False)


@frozen
class Careful(Generic[Outcome]):
    """A batch that starts with a few and may stop early: `judge` says what an outcome tells of the service.

    It ends with `BatchStoppedError` when so many outcomes had the same cause, as `_ramp.limit` says; a
    `stop_after` of None starts with all at once and goes on whatever comes.
    """

    judge: Callable[[Outcome], Cause | Verdict]
    stop_after: int | None


async def bounded(
    items: Iterable[Item] | AsyncIterable[Item],
    work: Callable[[Item, Sleep], Awaitable[Outcome]],
    *,
    concurrency: int,
    sleep: Sleep,
    abandoned: Callable[[Item, BaseException], Outcome],
    cancel: bool = True,
    careful: Careful[Outcome] | None = None,
) -> AsyncGenerator[Outcome]:
    """Give the outcome of `work` for each item, in the order in which they finish.

    `work` gets the item and a `sleep` to back off with. What it raises ends the whole: what is in flight is cancelled
    (or with `cancel` false, finishes), every item not finished is given as `abandoned(item, error)`, then the error is
    raised. Of an input without a length, which may be endless or idle, only what comes at once is still read for that:
    `READ_ON` items, for `READ_ON_FOR` seconds. Whatever ends the input but its exhaustion is raised after what is in
    flight has finished. An asynchronous input is read, and closed, by one task. Leaving early cancels what is in
    flight. `careful` begins with one item and ends the batch, as an error does, when the same trouble meets the first
    of them.
    """
    batch = _Batch(items, work, concurrency, sleep, abandoned, cancel, careful)
    try:
        while await batch.has_more():
            yield batch.taken()
        async for outcome in batch.rest():
            yield outcome
    finally:
        await batch.cancel()


def in_batch() -> bool:
    """Tell whether a batch's work runs here: a `sleep` may take longer then, since it waits for a place at its end."""
    return _working.get()


class _Batch(Generic[Item, Outcome]):
    def __init__(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        work: Callable[[Item, Sleep], Awaitable[Outcome]],
        concurrency: int,
        sleep: Sleep,
        abandoned: Callable[[Item, BaseException], Outcome],
        cancel: bool,  # noqa: FBT001 - private, called in one place
        careful: Careful[Outcome] | None,
    ) -> None:
        self._source = _Reader(items) if isinstance(items, AsyncIterable) else _Source(items)
        self._work = work
        self._concurrency = concurrency
        self._sleep = sleep
        self._abandoned = abandoned
        self._cancel = cancel
        self._careful = careful
        self._ramp = Ramp(concurrency, concurrency if careful is None or careful.stop_after is None else 1)
        self._streak = Streak(careful.stop_after if careful else None, concurrency)
        self._places = Slots(self._ramp.places)
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
            left = _Left(self._source)
            while True:
                try:
                    item = await left.read()
                except StopAsyncIteration:
                    break
                yield self._abandoned(item, self._error)
            raise self._error
        if self._source.error is not None:
            raise self._source.error

    async def cancel(self) -> None:
        """End every worker and the reading of the input, whatever they are doing."""
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        try:
            if workers:
                await asyncio.wait(workers)
        finally:
            await self._source.close()

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
        worker = started(self._worked())
        self._workers.add(worker)
        worker.add_done_callback(self._ended)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if error is not None:
            self._end(error)
        self._tell()

    def _end(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            self._source.dismiss()
            # Whoever backs off has nothing in flight.
            ending = self._workers if self._cancel else self._resting
            for other in ending - {asyncio.current_task()}:
                other.cancel()

    async def _worked(self) -> None:
        _working.set(True)
        while not self._source.ended and not self._is_over():
            if self._crowded:
                self._leave()
                return
            if not self._places.take_now():
                await self._places.take()
                if self._is_over():
                    self._places.give()
                    return
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
                outcome = await self._work(item, self._park)
            except BaseException as exc:
                # Cancelled as another item's error ends the batch, or because the batch is left: nobody reads then.
                self._finished.append(self._abandoned(item, self._cause(exc)))
                raise
            self._finished.append(outcome)
            if self._careful is not None:
                self._judged(self._careful.judge(outcome))
            self._tell()

    def _judged(self, found: Cause | Verdict) -> None:
        if isinstance(found, Cause):
            first = self._streak.meet(found)
            if first is not None:
                self._end(BatchStoppedError.after(first.error, self._streak.count(first)))
            return
        if found is Verdict.WELL:
            self._streak.succeed()
        if found is not Verdict.SILENT and self._ramp.grow():
            self._places.give()

    def _leave(self) -> None:
        # At once, not when the loop calls `_ended`: others that finish in the same step must not leave for it too.
        self._workers -= {current()}

    def _is_over(self) -> bool:
        return self._error is not None

    def _cause(self, exc: BaseException) -> BaseException:
        """What ended the batch, or this item of it."""
        return exc if self._error is None else self._error

    async def _park(self, seconds: float) -> None:
        worker = current()
        self._resting.add(worker)
        try:
            await self._rest(seconds)
        finally:
            self._resting.discard(worker)

    async def _rest(self, seconds: float) -> None:
        if self._parked >= self._ramp.places * PARKED:
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


class _Left(Generic[Item]):
    """What of an input is still read when the batch has ended, so that each item has an outcome."""

    def __init__(self, source: _Source[Item] | _Reader[Item]) -> None:
        self._source = source
        self._number = 0
        self._seconds = READ_ON_FOR

    async def read(self) -> Item:
        """Give the next item. Raises `StopAsyncIteration` at the end, and when no more is to be waited for."""
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


class _Source(Generic[Item]):
    """One iterator over a plain input."""

    waits = False
    """True if the next item has to be awaited."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.is_finite = isinstance(items, Sized)
        self.ended = False
        self.error: BaseException | None = None
        self._items = iter(items)

    def next(self) -> Item:
        """Give the next item. Raises `StopAsyncIteration` at the end and after an error, which is kept."""
        if not self.ended:
            try:
                return next(self._items)
            except StopIteration:
                self.ended = True
            except KeyboardInterrupt:
                raise
            except BaseException as exc:  # noqa: BLE001 - the caller's iterator may raise anything; it is raised later
                self.ended = True
                self.error = exc
        raise StopAsyncIteration

    async def read(self) -> Item:
        """Give the next item, as `next`."""
        return self.next()

    def dismiss(self) -> None:
        """Send away who waits for an item: nobody does."""

    async def close(self) -> None:
        """Leave the input: an iterator of the caller's own needs nothing."""


class _Reader(Generic[Item]):
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
        """Give what is there already. Raises `StopAsyncIteration` if nothing is; see `read`."""
        if self._kept:
            return self._kept.popleft()
        raise StopAsyncIteration

    async def read(self) -> Item:
        """Give the next item. Raises `StopAsyncIteration` at the end and after an error, which is kept."""
        if self._kept or self._through:
            return self.next()
        asking: asyncio.Future[Item] = asyncio.get_running_loop().create_future()
        self._asking.append(asking)
        self._wake()
        try:
            return await asking
        except asyncio.CancelledError:
            if asking.done() and not asking.cancelled() and asking.exception() is None:
                self._kept.append(asking.result())
            raise

    def dismiss(self) -> None:
        """Send away who waits for an item; what is read meanwhile is kept."""
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

    def _wake(self) -> None:
        if self._task is None:
            self._task = started(self._served())
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)

    async def _served(self) -> None:
        try:
            while not self._left:
                self._give(await self._item())
        except StopAsyncIteration:
            pass
        except BaseException as exc:  # noqa: BLE001 - the caller's iterator may raise anything; it is raised later
            self.error = exc
        try:
            if self._left and hasattr(self._items, "aclose"):
                await self._items.aclose()
        except BaseException as exc:  # noqa: BLE001 - nobody is left to hear it
            _log.debug("the input could not be closed: %r", exc)
        self._end()

    async def _item(self) -> Item:
        try:
            await self._anybody()
        except asyncio.CancelledError as cut:
            throw = getattr(self._items, "athrow", None)
            if self._left or throw is None:
                raise
            # Something in the input cuts it off while it stands at its `yield`, so that is where it is to be heard.
            item: Item = await throw(cut)
            return item
        return await anext(self._items)

    async def _anybody(self) -> None:
        """Wait until somebody asks for an item."""
        while True:
            while self._asking and self._asking[0].done():
                self._asking.popleft()
            if self._asking:
                return
            self._asked = asyncio.get_running_loop().create_future()
            await self._asked

    def _give(self, item: Item) -> None:
        while self._asking:
            asking = self._asking.popleft()
            if not asking.done():
                asking.set_result(item)
                return
        self._kept.append(item)

    def _end(self) -> None:
        self._through = True
        self.dismiss()

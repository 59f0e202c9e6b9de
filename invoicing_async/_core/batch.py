"""Many pieces of work at once, bounded on both sides, given as they finish.

An item takes one of `concurrency` places when it is read and gives it back when the consumer takes its outcome: a
slow consumer stops the reading of the input. While an item backs off another may use its place, for up to `PARKED`
times the concurrency of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Generic, TypeVar

from attrs import frozen

from .._values.validators import at_least_one
from ..errors import BatchStoppedError
from .batch_source import Item, Left, Reader, Sleep, Source
from .ramp import Cause, Ramp, Streak, Verdict
from .semaphore import FifoSemaphore
from .tasks import current, started

__all__ = ["Careful", "bounded", "checked_places", "in_batch"]

Outcome = TypeVar("Outcome")


PARKED = 8


_working: ContextVar[bool] = ContextVar("invoicing_async_batch", default=False)


@frozen
class Careful(Generic[Outcome]):
    """A batch that starts with a few and may stop early: `judge` says what an outcome tells of the service.

    It ends with `BatchStoppedError` when so many outcomes had the same cause, as `_core.ramp.limit` says; a
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
    """Yield the outcome of `work` for each item, in the order in which they finish.

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


def checked_places(concurrency: int | None, default: int) -> int:
    """Return how many items a batch has under way. Raises `ValueError` for fewer than one."""
    if concurrency is None:
        return default
    at_least_one("concurrency", concurrency)
    return concurrency


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
        self._source = Reader(items) if isinstance(items, AsyncIterable) else Source(items)
        self._work = work
        self._concurrency = concurrency
        self._sleep = sleep
        self._abandoned = abandoned
        self._cancel = cancel
        self._careful = careful
        self._ramp = Ramp(concurrency, concurrency if careful is None or careful.stop_after is None else 1)
        self._streak = Streak(careful.stop_after if careful else None, concurrency)
        self._places = FifoSemaphore(self._ramp.places)
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
        """Return the next outcome, and its place to another item."""
        self._places.release()
        return self._finished.popleft()

    async def rest(self) -> AsyncGenerator[Outcome]:
        """Yield what was not begun, then raise what ended the batch."""
        if self._error is not None:
            left = Left(self._source)
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
            if not self._places.try_acquire():
                await self._places.acquire()
                if self._is_over():
                    self._places.release()
                    return
            try:
                item = await self._source.read() if self._source.waits else self._source.next()
            except StopAsyncIteration:
                self._places.release()
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
            self._places.release()

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
        self._places.release()
        self._spawn()
        try:
            await self._sleep(seconds)
        finally:
            self._parked -= 1
        await self._places.acquire()

"""Work for many items at once, with outcomes as they finish and a limit on both sides.

An item takes one of `concurrency` places when it is read and gives it back when the consumer takes its outcome: a
slow consumer stops the reading of the input. While an item backs off another may use its place, for up to
`BACKING_OFF` times the concurrency of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from attrs import frozen

from .._values.validators import at_least_one
from ..errors import BatchStoppedError
from .batch_places import Places
from .batch_source import Item, Left, Reader, Sleep, Source
from .ramp import Cause, Ramp, Streak, Verdict
from .tasks import current, started

__all__ = ["Careful", "checked_places", "in_batch", "is_batch_item", "map_concurrently", "stopped_by", "until_end"]

Outcome = TypeVar("Outcome")


BACKING_OFF = 8
"""Times the concurrency of a batch that may back off while others use their places."""

_working: ContextVar[_Batch[Any, Any] | None] = ContextVar("invoicing_async_batch", default=None)


@frozen
class Careful(Generic[Outcome]):
    """A batch that starts with a few and may stop early: `judge` says what an outcome tells of the service.

    It ends with `BatchStoppedError` when so many outcomes had the same cause, as `_core.ramp.limit` says; a
    `stop_after` of None starts with all at once and goes on whatever comes.
    """

    judge: Callable[[Outcome], Cause | Verdict]
    stop_after: int | None


async def map_concurrently(
    items: Iterable[Item] | AsyncIterable[Item],
    work: Callable[[Item, Sleep], Awaitable[Outcome]],
    *,
    concurrency: int,
    sleep: Sleep,
    on_not_started: Callable[[Item, BaseException], Outcome],
    cancel: bool = True,
    careful: Careful[Outcome] | None = None,
) -> AsyncGenerator[Outcome]:
    """Yield the outcome of `work` for each item, in the order in which they finish.

    `work` gets the item and a `sleep` to back off with. What it raises ends the whole: what is in flight is cancelled
    (or with `cancel` false, finishes), `on_not_started(item, error)` is yielded for every item not finished, then the
    error is raised. Of an input without a length, which may be endless or idle, only what comes at once is still read
    for that: `READ_ON` items, for `READ_ON_FOR` seconds. Whatever ends the input but its exhaustion is raised after
    what is in flight has finished. An asynchronous input is read, and closed, by one task. Leaving early cancels what
    is in flight. `careful` begins with one item and ends the batch, as an error does, when the same trouble meets the
    first of them.
    """
    batch = _Batch(items, work, concurrency, sleep, on_not_started, cancel, careful)
    try:
        batch.spawn()
        while batch.finished or batch.workers:
            if batch.finished:
                batch.places.release()
                yield batch.finished.popleft()
            else:
                batch.news = asyncio.get_running_loop().create_future()
                await batch.news
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
    return _working.get() is not None


def is_batch_item() -> bool:
    """Tell whether this task is an item of a batch, and not only begun by one."""
    batch = _working.get()
    return batch is not None and current() in batch.workers


async def until_end() -> None:
    """Let the batch that this task is an item of do everything else first; where too many wait, do nothing."""
    batch = _working.get()
    if batch is not None:
        await batch.until_end()


class _Batch(Generic[Item, Outcome]):
    def __init__(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        work: Callable[[Item, Sleep], Awaitable[Outcome]],
        concurrency: int,
        sleep: Sleep,
        on_not_started: Callable[[Item, BaseException], Outcome],
        cancel: bool,  # noqa: FBT001 - private, called in one place
        careful: Careful[Outcome] | None,
    ) -> None:
        self._source = Reader(items) if isinstance(items, AsyncIterable) else Source(items)
        self._work = work
        self._concurrency = concurrency
        self._sleep = sleep
        self._on_not_started = on_not_started
        self._cancel = cancel
        self._careful = careful
        self._ramp = Ramp(concurrency, concurrency if careful is None or careful.stop_after is None else 1)
        self._streak = Streak(careful.stop_after if careful else None, concurrency)
        self.places = Places(self._ramp.places, self._source)
        self.finished: deque[Outcome] = deque()
        """Outcomes that nobody took so far; each still has its place."""
        self.news: asyncio.Future[None] | None = None
        """Done when there may be an outcome, while somebody waits for one."""
        self.workers: set[asyncio.Task[None]] = set()
        self._most = concurrency
        """Workers at most: one for each place, and one for each item that backs off without a place."""
        self._backing_off: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        self._last: list[asyncio.Future[None]] = []
        """Items that wait until everything else is done."""

    async def rest(self) -> AsyncGenerator[Outcome]:
        """Yield what was not begun, then raise what ended the batch."""
        if self._error is not None:
            left = Left(self._source)
            while True:
                try:
                    item = await left.read()
                except StopAsyncIteration:
                    break
                yield self._on_not_started(item, self._error)
            raise self._error
        if self._source.error is not None:
            raise self._source.error

    async def cancel(self) -> None:
        """End every worker and the reading of the input, whatever they are doing."""
        workers = list(self.workers)
        for worker in workers:
            worker.cancel()
        try:
            if workers:
                await asyncio.wait(workers)
        finally:
            await self._source.close()

    def spawn(self) -> None:
        """Start a worker if there may be more to read."""
        if not self._source.ended and self._error is None:
            worker = started(self._worked())
            self.workers.add(worker)
            worker.add_done_callback(self._ended)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self.workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if error is not None:
            self._end(error)
        self._begin_last()
        self._tell()

    def _tell(self) -> None:
        if self.news is not None and not self.news.done():
            self.news.set_result(None)

    def _end(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            self._source.dismiss()
            # Whoever backs off has nothing in flight.
            ending = self.workers if self._cancel else self._backing_off
            for other in ending - {asyncio.current_task()}:
                other.cancel()

    async def _worked(self) -> None:
        _working.set(self)
        while not self._source.ended:
            if len(self.workers) > self._most:
                # At once, not when the loop calls `_ended`: others that finish in the same step must not leave as well.
                self.workers.discard(current())
                return
            await self.places.acquire()
            if self._is_over():
                self.places.release()
                return
            try:
                item = await self._source.read() if self._source.waits else self._source.next()
            except StopAsyncIteration:
                self.places.read_in_vain()
                return
            if len(self.workers) < self._most:
                self.spawn()
            try:
                if self.places.lent:
                    await self.places.take_back()
                if self._source.waits and self._is_over():  # it came as the batch ended
                    raise asyncio.CancelledError  # noqa: TRY301 - as if it had been cut off
                outcome = await self._work(item, self._back_off)
            except BaseException as exc:
                # Cancelled as another item's error ends the batch, or because the batch is left: nobody reads then.
                self.finished.append(self._on_not_started(item, self._cause(exc)))
                raise
            self.finished.append(outcome)
            if self._careful is not None:
                self._judged(self._careful.judge(outcome))
            self._tell()

    def _judged(self, found: Cause | Verdict) -> None:
        if isinstance(found, Cause):
            first = self._streak.meet(found)
            if first is not None:
                self._end(stopped_by(first.error, self._streak.count(first)))
            return
        if found is Verdict.WELL:
            self._streak.succeed()
        if found is not Verdict.SILENT and self._ramp.grow():
            self.places.release()

    def _is_over(self) -> bool:
        return self._error is not None

    def _cause(self, exc: BaseException) -> BaseException:
        """Return what ended the batch, or this item of it."""
        return exc if self._error is None else self._error

    async def _back_off(self, seconds: float) -> None:
        """Wait between two attempts of an item while another item uses its place."""
        if self._is_crowded:
            worker = current()
            self._backing_off.add(worker)
            try:
                await self._sleep(seconds)
            finally:
                self._backing_off.discard(worker)
            return
        await self._give_way(self._sleep(seconds))

    async def until_end(self) -> None:
        """Wait until every item that is read has finished or waits here too; not at all where too many wait."""
        if self._is_crowded:
            return
        end = asyncio.get_running_loop().create_future()
        self._last.append(end)
        try:
            await self._give_way(self._awaited_end(end))
        finally:
            if end in self._last:
                self._last.remove(end)

    async def _awaited_end(self, end: asyncio.Future[None]) -> None:
        self._begin_last()
        await end

    def _begin_last(self) -> None:
        if self._last and self._source.ended and len(self.workers) <= len(self._last):
            last, self._last = self._last, []
            for end in last:
                if not end.done():
                    end.set_result(None)

    @property
    def _is_crowded(self) -> bool:
        """True if so many wait without a place already that another one keeps its own."""
        return self._most - self._concurrency >= self._ramp.places * BACKING_OFF

    async def _give_way(self, wait: Awaitable[None]) -> None:
        """Wait while another item uses this one's place."""
        worker = current()
        self._backing_off.add(worker)
        try:
            self._most += 1
            self.places.release()
            if len(self.workers) < self._most:
                self.spawn()
            try:
                await wait
            except BaseException:
                self.places.force()
                raise
            finally:
                self._most -= 1
            await self.places.come_back()
        finally:
            self._backing_off.discard(worker)


def stopped_by(cause: Exception, count: int) -> BatchStoppedError:
    """Return the error of a batch that so many with the same cause ended."""
    text = f"stopped after {count} with the same cause and no success: {cause}"
    return BatchStoppedError(text, cause=cause, count=count)

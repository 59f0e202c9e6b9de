"""One scheduler for any number of operations that are awaited: a heap of due times and one timer.

An operation is polled once however many watch it, at most `concurrency` polls run at a time, and an operation
costs a few hundred bytes while it waits. There is no task while nothing is watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from typing import Protocol

from ._clock import Clock
from .errors import ApiError, InvoicingError, PollTimeoutError
from .models import InvoiceRequest, RequestStatus

__all__ = ["Result", "Schedule", "Scheduler", "Watcher"]

TICK = 1e-6
"""Seconds by which a float's rounding may miss a deadline."""

Result = InvoiceRequest | Exception


class Schedule(Protocol):
    """When to poll; `Poller` is one."""

    @property
    def timeout(self) -> float | None:
        """Seconds after which the wait gives up, None for never."""

    @property
    def poll_timeout(self) -> float:
        """Seconds after which one poll counts as failed."""

    @property
    def errors(self) -> int:
        """Failed polls in a row that are tolerated."""

    def delay(self, attempt: int, elapsed: float = 0.0, *, chance: float = 0.0) -> float | None:
        """Seconds to wait before poll `attempt`, `elapsed` seconds after the wait began; None to give up."""

    def learn(self, after: float, by: float) -> None:
        """Hear that an operation was not terminal `after` seconds and was `by` seconds after it began."""


class Watcher(Protocol):
    """Somebody who waits for operations under one schedule."""

    @property
    def schedule(self) -> Schedule: ...

    def deadline(self, begun: float) -> float | None:
        """When it gives up on an operation that began then, both in monotonic seconds; None for never."""

    def deliver(self, request_id: str, result: Result) -> None:
        """Take an operation's end: its terminal answer, or why nothing more will come."""


class _Operation:
    __slots__ = ("begun", "due", "errors", "last_new", "polls", "status", "task", "watchers")

    def __init__(self, begun: float, watcher: Watcher) -> None:
        self.begun = begun
        self.due = begun
        self.watchers: tuple[Watcher, ...] = (watcher,)
        self.polls = 0
        self.errors = 0
        self.last_new = 0.0
        self.status: str | None = None
        self.task: asyncio.Task[None] | None = None


class Scheduler:
    """Polls what is watched until it is terminal. `transient` tells which errors only mean to ask again."""

    def __init__(
        self,
        poll: Callable[[str, float], Awaitable[InvoiceRequest]],
        *,
        clock: Clock,
        concurrency: int,
        transient: Callable[[InvoicingError], bool],
        heard: Callable[[InvoiceRequest, int], None],
    ) -> None:
        self._poll = poll
        self._clock = clock
        self._concurrency = concurrency
        self._transient = transient
        self._heard = heard
        self._operations: dict[str, _Operation] = {}
        self._heap: list[tuple[float, str]] = []
        self._active = 0
        self._timer: asyncio.Task[None] | None = None
        self._timer_due = 0.0
        self._leaving: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._operations)

    def watch(self, request_id: str, watcher: Watcher, *, age: float = 0.0, spread: bool = False) -> bool:
        """Begin to watch an operation that was submitted `age` seconds ago; false if this watcher does already.

        `spread` draws the first poll evenly from the first wait, so that many begun together do not poll together.
        """
        now = self._clock.monotonic()
        operation = self._operations.get(request_id)
        if operation is not None:
            if watcher in operation.watchers:
                return False
            operation.watchers = (*operation.watchers, watcher)
            return True
        wait = watcher.schedule.delay(1, age, chance=self._clock.random())
        operation = self._operations[request_id] = _Operation(now - age, watcher)
        if wait is None:
            self._deliver(request_id, operation, _spent(request_id, operation, age))
            return True
        self._place(request_id, operation, now + (wait * self._clock.random() if spread else wait))
        self._pump()
        return True

    async def unwatch(self, request_id: str, watcher: Watcher) -> None:
        """Stop watching; the last one to leave ends the polling, not the operation."""
        self.leave(request_id, watcher)
        await self.settle()

    def leave(self, request_id: str, watcher: Watcher) -> None:
        """Take a watcher away; `settle` afterwards waits for what that cancels."""
        operation = self._operations.get(request_id)
        if operation is None:
            return
        operation.watchers = tuple(other for other in operation.watchers if other is not watcher)
        if not operation.watchers:
            self._remove(request_id)
            if operation.task is not None:
                self._end(operation.task)

    async def unwatch_all(self, watcher: Watcher) -> None:
        """Stop watching everything a watcher watches."""
        watched = [number for number, operation in self._operations.items() if watcher in operation.watchers]
        for request_id in watched:
            self.leave(request_id, watcher)
        await self.settle()

    async def settle(self) -> None:
        """Wait until cancelled polls have ended, and the timer if nothing is watched any more."""
        if not self._operations and self._timer is not None:
            self._end(self._timer)
            self._timer = None
        while self._leaving:
            await asyncio.wait(self._leaving)

    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _remove(self, request_id: str) -> None:
        del self._operations[request_id]
        if not self._operations:
            self._heap.clear()

    def _place(self, request_id: str, operation: _Operation, due: float) -> None:
        operation.due = due
        heappush(self._heap, (due, request_id))

    def _pump(self) -> None:
        """Start the polls that are due, and the timer for the next."""
        now = self._clock.monotonic()
        while self._heap and self._active < self._concurrency:
            due, request_id = self._heap[0]
            operation = self._operations.get(request_id)
            if operation is None or operation.due != due or operation.task is not None:
                heappop(self._heap)  # left behind by somebody who stopped watching
                continue
            if due > now:
                self._set_timer(due, now)
                return
            heappop(self._heap)
            self._active += 1
            operation.task = asyncio.create_task(self._polled(request_id, operation))

    def _set_timer(self, due: float, now: float) -> None:
        # A timer that fires early only looks again; it need not be replaced.
        if self._timer is not None and self._timer_due <= due:
            return
        if self._timer is not None:
            self._end(self._timer)
        self._timer_due = due
        self._timer = asyncio.create_task(self._tick(due - now))

    async def _tick(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timer = None
        self._pump()

    async def _polled(self, request_id: str, operation: _Operation) -> None:
        try:
            answer = await self._poll(request_id, operation.watchers[0].schedule.poll_timeout)
            self._answered(request_id, operation, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear it
            self._failed(request_id, operation, error)
        finally:
            self._active -= 1
            operation.task = None
            self._pump()

    def _answered(self, request_id: str, operation: _Operation, answer: InvoiceRequest) -> None:
        operation.polls += 1
        operation.errors = 0
        self._heard(answer, operation.polls)
        age = self._clock.monotonic() - operation.begun
        if answer.terminal:
            operation.watchers[0].schedule.learn(operation.last_new, age)
            self._deliver(request_id, operation, answer)
            return
        operation.status = str(answer.status)
        operation.last_new = age
        self._again(request_id, operation)

    def _failed(self, request_id: str, operation: _Operation, error: Exception) -> None:
        operation.polls += 1
        operation.errors += 1
        tolerated = isinstance(error, InvoicingError) and self._transient(error)
        if not tolerated or operation.errors > operation.watchers[0].schedule.errors:
            self._deliver(request_id, operation, error)
            return
        retry_after = error.retry_after if isinstance(error, ApiError) else None
        self._again(request_id, operation, floor=retry_after or 0.0)

    def _deliver(self, request_id: str, operation: _Operation, result: Result) -> None:
        self._remove(request_id)
        for watcher in operation.watchers:
            watcher.deliver(request_id, result)

    def _again(self, request_id: str, operation: _Operation, *, floor: float = 0.0) -> None:
        """Place the next poll, not before `floor` seconds; who would have given up by then hears it now."""
        now = self._clock.monotonic()
        self._expire(request_id, operation, now + floor)
        if not operation.watchers:
            self._remove(request_id)
            return
        wait = self._wait(request_id, operation, now - operation.begun)
        if wait is None:
            self._remove(request_id)
            return
        deadlines = (watcher.deadline(operation.begun) for watcher in operation.watchers)
        last = min((deadline for deadline in deadlines if deadline is not None), default=None)
        due = now + max(wait, floor)
        self._place(request_id, operation, due if last is None else min(due, last))

    def _wait(self, request_id: str, operation: _Operation, age: float) -> float | None:
        """Ask the first watcher's schedule; whose schedule gives up hears it and leaves the word to the next."""
        while operation.watchers:
            first = operation.watchers[0]
            wait = first.schedule.delay(operation.polls + 1, age, chance=self._clock.random())
            if wait is not None:
                return wait
            operation.watchers = operation.watchers[1:]
            first.deliver(request_id, _spent(request_id, operation, age))
        return None

    def _expire(self, request_id: str, operation: _Operation, when: float) -> None:
        staying: list[Watcher] = []
        for watcher in operation.watchers:
            deadline = watcher.deadline(operation.begun)
            if deadline is not None and when >= deadline - TICK:
                watcher.deliver(request_id, _spent(request_id, operation, when - operation.begun))
            else:
                staying.append(watcher)
        operation.watchers = tuple(staying)


def _spent(request_id: str, operation: _Operation, age: float) -> PollTimeoutError:
    status = operation.status
    last = None if status is None else InvoiceRequest(request_id=request_id, status=_known(status))
    text = f"request {request_id} is {status or 'not answered'} after {age:g} s and {operation.polls} polls"
    return PollTimeoutError(text, request_id=request_id, last=last, polls=operation.polls)


def _known(status: str) -> RequestStatus | str:
    return RequestStatus[status] if status in RequestStatus.__members__ else status

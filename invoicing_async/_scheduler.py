"""One scheduler for any number of operations that are awaited: a heap of due times and one timer.

An operation is polled once however many watch it, at most `concurrency` polls run at a time, and an operation
costs a few hundred bytes while it waits. There is no task while nothing is watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from ._clock import Clock
from ._poll_errors import Meaning, meaning, status_of
from ._tasks import started
from .errors import ApiError, PollTimeoutError, SessionError
from .models import InvoiceRequest
from .polling import ERROR_TIME, NOT_FOUND_GRACE

__all__ = ["Result", "Schedule", "Scheduler", "Watcher"]

TICK = 1e-6
"""Seconds by which a float's rounding may miss a deadline."""

STINT = 32
"""Polls that one task makes before it lets another take over: those in memory never give way by themselves."""

BACKOFF_FIRST, BACKOFF_CEILING = 0.5, 15.0
"""Seconds from which, and up to which, the wait after a failed poll is drawn, twice as long for each failure in a row:
a service that comes back is not met by everybody at once."""

LATE = 1.0
"""Seconds behind its time from which a poll may be too late for those who wait for it."""

Result = InvoiceRequest | Exception


class Schedule(Protocol):
    """When to poll; `Poller` is one.

    It may also have `error_time` and `not_found_grace` as `Poller` has them, and `spread`: false if its first poll
    must not be drawn from the first wait.
    """

    @property
    def timeout(self) -> float | None:
        """Seconds after which the wait gives up, None for never."""

    @property
    def poll_timeout(self) -> float:
        """Seconds after which one poll counts as failed."""

    @property
    def errors(self) -> int:
        """Failed polls in a row that are tolerated, however short a time they take."""

    def delay(self, attempt: int, elapsed: float = 0.0, *, chance: float = 0.0) -> float | None:
        """Seconds to wait before poll `attempt`, `elapsed` seconds after the wait began; None to give up."""

    def learn(self, after: float, by: float, *, done: bool) -> None:
        """Hear that an operation was NEW at age `after` and, at age `by`, either `done` or still NEW."""


class Watcher(Protocol):
    """Somebody who waits for operations under one schedule."""

    @property
    def schedule(self) -> Schedule: ...

    def deliver(self, request_id: str, result: Result) -> None:
        """Take an operation's end: its terminal answer, or why nothing more will come."""


class _Watch(NamedTuple):
    """One watcher's wait for one operation: its own time and its own count of polls begin when it comes."""

    watcher: Watcher
    since: float
    before: int


class _Operation:
    __slots__ = (
        "begun",
        "due",
        "errors",
        "failing_since",
        "last_new",
        "not_before",
        "polls",
        "said",
        "status",
        "task",
        "watches",
    )

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.due = begun
        self.not_before = begun
        self.watches: tuple[_Watch, ...] = ()
        self.polls = 0
        self.errors = 0
        self.failing_since = begun
        self.said: int | None = None
        self.last_new = 0.0
        self.status: str | None = None
        self.task: asyncio.Task[None] | None = None

    def is_watched_by(self, watcher: Watcher) -> bool:
        return any(watch.watcher is watcher for watch in self.watches)


class Scheduler:
    """Polls what is watched until it is terminal. `fatal` tells which errors every other poll would meet too.

    `sleep` waits until the next poll is due; its `SessionError` ends every wait.

    Several watchers of one operation share its polls: the most eager schedule places the next, and each watcher has
    its own timeout and its own budget of errors.
    """

    def __init__(
        self,
        poll: Callable[[str, float], Awaitable[InvoiceRequest]],
        *,
        clock: Clock,
        concurrency: int,
        fatal: Callable[[Exception], bool],
        heard: Callable[[InvoiceRequest, int], None],
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._poll = poll
        self._clock = clock
        self._concurrency = concurrency
        self._fatal = fatal
        self._heard = heard
        self._sleep = sleep or clock.sleep
        self._operations: dict[str, _Operation] = {}
        self._heap: list[tuple[float, str]] = []
        self._active = 0
        self._timer: asyncio.Task[None] | None = None
        self._timer_due = 0.0
        self._leaving: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._operations)

    def watch(self, request_id: str, watcher: Watcher, *, spread: bool = False) -> bool:
        """Begin to watch an operation; false if this watcher does already.

        `spread` draws the first poll evenly from the first wait, so that many begun together do not poll together,
        unless the schedule sees to that itself.
        """
        now = self._clock.monotonic()
        operation = self._operations.get(request_id)
        if operation is None:
            operation = self._operations[request_id] = _Operation(now)
        elif operation.is_watched_by(watcher):
            return False
        watch = _Watch(watcher, now, operation.polls)
        operation.watches = (*operation.watches, watch)
        if operation.task is not None:
            return True  # the poll that runs is its first
        wait = self._asked(request_id, operation, watch, now, floor=max(0.0, operation.not_before - now))
        if wait is None:
            self._remove_unwatched(request_id, operation)
            return True
        spread = spread and getattr(watcher.schedule, "spread", True)
        due = max(operation.not_before, now + (wait * self._clock.random() if spread else wait))
        if len(operation.watches) == 1 or due < operation.due:
            self._place(request_id, operation, due)
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
        operation.watches = tuple(watch for watch in operation.watches if watch.watcher is not watcher)
        if self._remove_unwatched(request_id, operation) and operation.task is not None:
            self._end(operation.task)

    async def unwatch_all(self, watcher: Watcher) -> None:
        """Stop watching everything a watcher watches."""
        watched = [number for number, operation in self._operations.items() if operation.is_watched_by(watcher)]
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

    def _remove_unwatched(self, request_id: str, operation: _Operation) -> bool:
        if not operation.watches:
            self._remove(request_id)
        return not operation.watches

    def _place(self, request_id: str, operation: _Operation, due: float) -> None:
        operation.due = due
        heappush(self._heap, (due, request_id))

    def _pump(self) -> None:
        """Start the polls that are due, and the timer for the next."""
        now = self._clock.monotonic()
        while self._active < self._concurrency:
            due = self._next(now)
            if due is None:
                return
            self._active += 1
            task = due[1].task = started(self._work(*due))
            # Not a `finally` of its own: a task that is cancelled before it begins runs none.
            task.add_done_callback(self._worked)

    def _worked(self, _: asyncio.Task[None]) -> None:
        self._active -= 1
        self._pump()

    def _next(self, now: float) -> tuple[str, _Operation] | None:
        """Take the operation that has been due longest; if none is, see to it that the next one is not missed."""
        while self._heap:
            due, request_id = self._heap[0]
            operation = self._operations.get(request_id)
            if operation is None or operation.due != due or operation.task is not None:
                heappop(self._heap)  # left behind by somebody who stopped watching, or by a sooner poll
                continue
            if due > now:
                self._set_timer(due, now)
                return None
            heappop(self._heap)
            if now - due > LATE:
                self._give_up(request_id, operation, now)
            if operation.watches:
                return request_id, operation
        return None

    def _give_up(self, request_id: str, operation: _Operation, now: float) -> None:
        """Tell those whose time was spent a whole poll ago: a service that hangs must not hold them for ever."""
        for watch in operation.watches:
            schedule = watch.watcher.schedule
            if schedule.timeout is not None and now - watch.since > schedule.timeout + schedule.poll_timeout:
                self._part(request_id, operation, watch, _spent(request_id, operation, now - watch.since))
        self._remove_unwatched(request_id, operation)

    def _set_timer(self, due: float, now: float) -> None:
        # A timer that fires early only looks again; it need not be replaced.
        if self._timer is not None and self._timer_due <= due:
            return
        if self._timer is not None:
            self._end(self._timer)
        self._timer_due = due
        self._timer = started(self._tick(due - now))

    async def _tick(self, seconds: float) -> None:
        try:
            await self._sleep(seconds)
        except SessionError as error:
            self._end_all(error)
        self._timer = None
        self._pump()

    async def _work(self, request_id: str, operation: _Operation) -> None:
        """Poll an operation, and after it others that are due: a task for each poll would cost as much as its JSON."""
        task = operation.task
        for _ in range(STINT):
            await self._polled(request_id, operation)
            due = self._next(self._clock.monotonic())
            if due is None:
                return
            request_id, operation = due
            operation.task = task
        operation.task = None
        self._place(request_id, operation, operation.due)

    async def _polled(self, request_id: str, operation: _Operation) -> None:
        operation.polls += 1
        try:
            answer = await self._poll(request_id, operation.watches[0].watcher.schedule.poll_timeout)
            operation.task = None
            if self._operations.get(request_id) is operation:
                self._answered(request_id, operation, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear it
            operation.task = None
            if self._operations.get(request_id) is operation:
                self._failed(request_id, operation, error)

    def _answered(self, request_id: str, operation: _Operation, answer: InvoiceRequest) -> None:
        operation.errors, operation.said = 0, None
        self._heard(answer, operation.polls)
        now = self._clock.monotonic()
        age = now - operation.begun
        operation.watches[0].watcher.schedule.learn(operation.last_new, age, done=answer.terminal)
        if answer.terminal:
            self._deliver(request_id, operation, answer)
            return
        operation.status = answer.status
        operation.last_new = age
        self._again(request_id, operation, now)

    def _failed(self, request_id: str, operation: _Operation, error: Exception) -> None:
        if self._fatal(error):
            self._end_all(error)
            return
        now = self._clock.monotonic()
        grace = max(getattr(watch.watcher.schedule, "not_found_grace", NOT_FOUND_GRACE) for watch in operation.watches)
        found = meaning(error, age=now - operation.begun, grace=grace, before=operation.said)
        operation.said = status_of(error)
        if found is Meaning.FINAL:
            self._deliver(request_id, operation, error)
            return
        backoff = 0.0
        if found is Meaning.FAILED:
            self._count(request_id, operation, error, now)
            backoff = min(BACKOFF_CEILING, BACKOFF_FIRST * 2.0 ** min(operation.errors - 1, 100))
        retry_after = error.retry_after if isinstance(error, ApiError) else None
        least = backoff * self._clock.random()
        if operation.errors > 1 and retry_after:
            # Who is sent away twice came back together with others.
            least += retry_after
        self._again(request_id, operation, now, floor=retry_after or 0.0, least=least)

    def _count(self, request_id: str, operation: _Operation, error: Exception, now: float) -> None:
        """Count a failed poll, and end the waits whose budget it exceeds: in number and in time."""
        operation.errors += 1
        if operation.errors == 1:
            operation.failing_since = now
        for watch in operation.watches:
            schedule = watch.watcher.schedule
            lasting = now - max(operation.failing_since, watch.since)
            enough = not schedule.errors or lasting >= getattr(schedule, "error_time", ERROR_TIME)
            if operation.errors > schedule.errors and enough:
                self._part(request_id, operation, watch, error)

    def _end_all(self, error: Exception) -> None:
        """End every wait, and the polls under way, by what the next poll would meet too."""
        for request_id, operation in list(self._operations.items()):
            self._deliver(request_id, operation, error)
            if operation.task is not None:
                self._end(operation.task)

    def _deliver(self, request_id: str, operation: _Operation, result: Result) -> None:
        self._remove(request_id)
        for watch in operation.watches:
            watch.watcher.deliver(request_id, result)

    def _part(self, request_id: str, operation: _Operation, watch: _Watch, result: Result) -> None:
        """End one watcher's wait."""
        operation.watches = tuple(other for other in operation.watches if other is not watch)
        watch.watcher.deliver(request_id, result)

    def _again(
        self, request_id: str, operation: _Operation, now: float, *, floor: float = 0.0, least: float = 0.0
    ) -> None:
        """Place the next poll where the most eager watcher wants it, not before `floor` seconds.

        Nor before `least`, but for the last poll of who has not that long left.
        """
        wait: float | None = None
        for watch in operation.watches:
            asked = self._asked(request_id, operation, watch, now, floor=floor, least=least)
            if asked is not None and (wait is None or asked < wait):
                wait = asked
        if wait is None:
            self._remove(request_id)
            return
        if floor:
            operation.not_before = now + floor
        self._place(request_id, operation, now + wait)
        if self._active < self._concurrency:
            self._set_timer(operation.due, now)

    def _asked(
        self,
        request_id: str,
        operation: _Operation,
        watch: _Watch,
        now: float,
        *,
        floor: float,
        least: float = 0.0,
    ) -> float | None:
        """Ask one watcher how long to wait; who gives up, or would have by `floor`, hears it now."""
        schedule, elapsed = watch.watcher.schedule, now - watch.since
        left = float("inf") if schedule.timeout is None else schedule.timeout - elapsed
        result: Exception | None = None
        try:
            if left - floor > TICK:
                attempt = operation.polls - watch.before + 1
                wait = schedule.delay(attempt, elapsed, chance=self._clock.random())
                if wait is not None:
                    return min(max(wait, floor, least), left)
        except Exception as error:  # noqa: BLE001 - somebody's own schedule; the others are not concerned
            result = error
        self._part(request_id, operation, watch, result or _spent(request_id, operation, elapsed))
        return None


def _spent(request_id: str, operation: _Operation, age: float) -> PollTimeoutError:
    status = operation.status
    last = None if status is None else InvoiceRequest(request_id=request_id, status=status)
    text = f"request {request_id} is {status or 'not answered'} after {age:g} s and {operation.polls} polls"
    return PollTimeoutError(text, request_id=request_id, last=last, polls=operation.polls)

"""One operation that is awaited: who waits for it, how long, and what the end of a poll means for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import NamedTuple

from ..errors import PollTimeoutError
from ..models import InvoiceRequest
from ..polling import ERROR_TIME, NOT_FOUND_GRACE
from .poll_errors import Meaning, Pause, meaning, pause_after, status_of
from .schedules import Result, Watcher

__all__ = ["Operation", "Operations", "Watch"]

TICK = 1e-6
"""Seconds by which a float's rounding may miss a deadline."""


class Watch(NamedTuple):
    """One watcher's wait for one operation: its own time and its own count of polls begin when it comes."""

    watcher: Watcher
    since: float
    before: int


class Operation:
    """One operation and those who watch it. It polls nothing and holds no clock: it is told the time and what came."""

    __slots__ = (
        "begun", "due", "errors", "failing_since", "last_new", "not_before", "polls", "request_id", "said", "status",
        "task", "watches",
    )  # fmt: skip

    def __init__(self, request_id: str, begun: float) -> None:
        self.request_id = request_id
        self.begun = begun
        self.due = begun
        self.not_before = begun
        self.watches: tuple[Watch, ...] = ()
        self.polls = 0
        self.errors = 0
        self.failing_since = begun
        self.said: int | None = None
        self.last_new = 0.0
        self.status: str | None = None
        self.task: asyncio.Task[None] | None = None

    def is_watched_by(self, watcher: Watcher) -> bool:
        return any(watch.watcher is watcher for watch in self.watches)

    def add(self, watcher: Watcher, now: float) -> Watch:
        """Note who waits from now on."""
        watch = Watch(watcher, now, self.polls)
        self.watches = (*self.watches, watch)
        return watch

    def leave(self, watcher: Watcher) -> None:
        self.watches = tuple(watch for watch in self.watches if watch.watcher is not watcher)

    def deliver(self, result: Result) -> None:
        """End every watcher's wait."""
        for watch in self.watches:
            watch.watcher.deliver(self.request_id, result)

    def part(self, watch: Watch, result: Result) -> None:
        """End one watcher's wait."""
        self.watches = tuple(other for other in self.watches if other is not watch)
        watch.watcher.deliver(self.request_id, result)

    def give_up_late(self, now: float) -> None:
        """Tell those whose time was spent a whole poll ago: a service that hangs must not hold them for ever."""
        for watch in self.watches:
            schedule = watch.watcher.schedule
            if schedule.timeout is not None and now - watch.since > schedule.timeout + schedule.poll_timeout:
                self.part(watch, self._spent(now - watch.since))

    def next_wait(
        self,
        now: float,
        *,
        chance: Callable[[], float],
        floor: float = 0.0,
        least: float = 0.0,
        watches: Iterable[Watch] | None = None,
    ) -> float | None:
        """Return the seconds after which the most eager of the watchers wants the next poll, None if nobody does.

        Not before `floor`, nor before `least`, but for the last poll of who has not that long left. Who gives up, or
        would have by `floor`, is told now. `watches` are those who are asked, None for all.
        """
        soonest: float | None = None
        for watch in self.watches if watches is None else watches:
            schedule, elapsed = watch.watcher.schedule, now - watch.since
            left = float("inf") if schedule.timeout is None else schedule.timeout - elapsed
            wait: float | None = None
            failure: Exception | None = None
            try:
                if left - floor > TICK:
                    wait = schedule.delay(self.polls - watch.before + 1, elapsed, chance=chance())
                    wait = None if wait is None else min(max(wait, floor, least), left)
            except Exception as error:  # noqa: BLE001 - somebody's own schedule; the others are not concerned
                failure = error
            if wait is None:
                self.part(watch, failure or self._spent(elapsed))
            elif soonest is None or wait < soonest:
                soonest = wait
        return soonest

    def failed(self, error: Exception, now: float, *, chance: Callable[[], float]) -> Pause | None:
        """Take in a failed poll, and return how long to leave the service alone; None if asking again cannot mend it.

        It ends the waits whose budget of errors is spent.
        """
        grace = max(getattr(watch.watcher.schedule, "not_found_grace", NOT_FOUND_GRACE) for watch in self.watches)
        found = meaning(error, age=now - self.begun, grace=grace, before=self.said)
        self.said = status_of(error)
        if found is Meaning.FINAL:
            return None
        if found is Meaning.FAILED:
            self.errors += 1
            if self.errors == 1:
                self.failing_since = now
            for watch in self.watches:
                schedule = watch.watcher.schedule
                lasting = now - max(self.failing_since, watch.since)
                enough = not schedule.errors or lasting >= getattr(schedule, "error_time", ERROR_TIME)
                if self.errors > schedule.errors and enough:
                    self.part(watch, error)
        pause = pause_after(error, found, self.errors, chance=chance())
        if pause.floor:
            self.not_before = now + pause.floor
        return pause

    def _spent(self, age: float) -> PollTimeoutError:
        request_id, status = self.request_id, self.status
        last = None if status is None else InvoiceRequest(request_id=request_id, status=status)
        text = f"request {request_id} is {status or 'not answered'} after {age:g} s and {self.polls} polls"
        return PollTimeoutError(text, request_id=request_id, last=last, polls=self.polls)


class Operations(dict[str, Operation]):
    """All operations that are awaited, by their request ids, and a heap of when each is due."""

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[tuple[float, str]] = []

    def remove(self, operation: Operation) -> None:
        del self[operation.request_id]
        if not self:
            self._heap.clear()

    def end(self, operation: Operation, result: Result) -> None:
        """Remove an operation, and end the waits of all who watch it."""
        self.remove(operation)
        operation.deliver(result)

    def remove_unwatched(self, operation: Operation) -> bool:
        """Remove an operation that nobody waits for; tell if it was one."""
        if not operation.watches:
            self.remove(operation)
        return not operation.watches

    def place(self, operation: Operation, due: float) -> None:
        operation.due = due
        heappush(self._heap, (due, operation.request_id))

    def take_due(self, now: float) -> tuple[Operation | None, float | None]:
        """Take the operation that has been due longest and is not being polled; else tell when the next one is due."""
        while self._heap:
            due, request_id = self._heap[0]
            operation = self.get(request_id)
            left_behind = operation is None or operation.due != due or operation.task is not None
            if due > now and not left_behind:
                return None, due
            heappop(self._heap)
            if not left_behind:
                return operation, None
        return None, None

"""One scheduler for any number of operations that are awaited: a heap of due times and one timer.

An operation is polled once however many watch it, at most `concurrency` polls run at a time, and an operation
costs a few hundred bytes while it waits. There is no task while nothing is watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .._core.clock import Clock
from .._core.tasks import started
from ..models import InvoiceRequest
from .operation import Operation, Operations
from .poll_timer import Ending, Timer
from .schedules import Result, Schedule, Watcher

__all__ = ["Result", "Schedule", "Scheduler", "Watcher"]

POLLS_PER_TASK = 32
"""Polls that one task makes before another task runs: a transport in memory never yields to the loop by itself."""

LATE = 1.0
"""Seconds behind its time from which a poll may be too late for those who wait for it."""


class Scheduler:
    """Polls each watched operation until it is terminal. `fatal` tells which errors every other poll would meet too.

    `sleep` waits until the next poll is due; its `SessionError` ends every wait. `age_now` is a clock that stands
    still while polls cannot be made, by which waits grow old. Several watchers of one operation share its polls: the
    most eager schedule places the next, and each has its own timeout and budget of errors.
    """

    def __init__(
        self,
        poll: Callable[[str, float], Awaitable[InvoiceRequest]],
        *,
        clock: Clock,
        concurrency: int,
        fatal: Callable[[Exception], bool],
        on_answer: Callable[[InvoiceRequest, int], None],
        sleep: Callable[[float], Awaitable[None]] | None = None,
        age_now: Callable[[], float] | None = None,
    ) -> None:
        self._poll = poll
        self._clock = clock
        self._concurrency = concurrency
        self._fatal = fatal
        self._on_answer = on_answer
        self._age_now = age_now or clock.monotonic
        self._operations = Operations()
        self._active = 0
        self._ending = Ending()
        self._timer = Timer(sleep or clock.sleep, self._ending, on_time=self._pump, on_end=self._end_all)

    def __len__(self) -> int:
        return len(self._operations)

    def watch(self, request_id: str, watcher: Watcher, *, spread: bool = False) -> bool:
        """Begin to watch an operation; false if this watcher does already.

        `spread` draws the first poll evenly from the first wait, so that many begun together do not poll together,
        unless the schedule sees to that itself.
        """
        now = self._clock.monotonic()
        age_now = self._age_now()
        operation = self._operations.get(request_id)
        if operation is None:
            operation = self._operations[request_id] = Operation(request_id, age_now)
        elif operation.is_watched_by(watcher):
            return False
        watch = operation.add(watcher, age_now)
        if operation.task is not None:
            return True  # the poll that runs is its first
        floor = max(0.0, operation.not_before - now)
        wait = operation.next_wait(age_now, chance=self._clock.random, floor=floor, watches=(watch,))
        if wait is None:
            self._operations.remove_unwatched(operation)
            return True
        if spread and getattr(watcher.schedule, "spread", True):
            wait *= self._clock.random()
        due = max(operation.not_before, now + wait)
        if len(operation.watches) == 1 or due < operation.due:
            self._operations.place(operation, due)
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
        operation.leave(watcher)
        if self._operations.remove_unwatched(operation) and operation.task is not None:
            self._ending.end(operation.task)

    async def unwatch_all(self, watcher: Watcher) -> None:
        """Stop watching everything a watcher watches."""
        for request_id, operation in list(self._operations.items()):
            if operation.is_watched_by(watcher):
                self.leave(request_id, watcher)
        await self.settle()

    async def settle(self) -> None:
        """Wait until cancelled polls have ended, and the timer if nothing is watched any more."""
        if not self._operations and self._timer.task is not None:
            self._timer.stop()
        while self._ending:
            await asyncio.wait(self._ending)

    def _pump(self) -> None:
        """Start the polls that are due, and the timer for the next."""
        now = self._clock.monotonic()
        while self._active < self._concurrency:
            operation = self._next(now)
            if operation is None:
                return
            self._active += 1
            task = operation.task = started(self._work(operation))
            # Not a `finally` of its own: a task that is cancelled before it begins runs none.
            task.add_done_callback(self._worked)

    def _worked(self, _: asyncio.Task[None]) -> None:
        self._active -= 1
        self._pump()

    def _next(self, now: float) -> Operation | None:
        """Take the operation that has been due longest; if none is, see to it that the next one is not missed."""
        while True:
            operation, due = self._operations.take_due(now)
            if operation is None:
                if due is not None:
                    self._timer.set(due, now)
                return None
            if now - operation.due > LATE:
                operation.give_up_late(self._age_now())
                self._operations.remove_unwatched(operation)
            if operation.watches:
                return operation

    async def _work(self, operation: Operation) -> None:
        """Poll an operation, and after it others that are due: a task for each poll would cost as much as its JSON."""
        task = operation.task
        for _ in range(POLLS_PER_TASK):
            operation.task = task
            operation.polls += 1
            try:
                answer = await self._poll(operation.request_id, operation.watches[0].watcher.schedule.poll_timeout)
                operation.task = None
                if self._operations.get(operation.request_id) is operation:
                    self._answered(operation, answer)
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
                operation.task = None
                if self._operations.get(operation.request_id) is operation:
                    self._failed(operation, error)
            due = self._next(self._clock.monotonic())
            if due is None:
                return
            operation = due
        self._operations.place(operation, operation.due)

    def _answered(self, operation: Operation, answer: InvoiceRequest) -> None:
        operation.errors, operation.said = 0, None
        self._on_answer(answer, operation.polls)
        now = self._clock.monotonic()
        age_now = self._age_now()
        age, done = age_now - operation.begun, answer.terminal
        operation.watches[0].watcher.schedule.learn(operation.last_new, age, done=done)
        if done:
            self._operations.end(operation, answer)
            return
        operation.status, operation.last_new = answer.status, age
        self._place_again(operation, now, operation.next_wait(age_now, chance=self._clock.random))

    def _failed(self, operation: Operation, error: Exception) -> None:
        if self._fatal(error):
            self._end_all(error)
            return
        now, chance = self._clock.monotonic(), self._clock.random
        age_now = self._age_now()
        pause = operation.failed(error, age_now, chance=chance)
        if pause is None:
            self._operations.end(operation, error)
            return
        wait = operation.next_wait(age_now, chance=chance, floor=pause.floor, least=pause.least)
        self._place_again(operation, now, wait)

    def _place_again(self, operation: Operation, now: float, wait: float | None) -> None:
        """Place the next poll, or remove what nobody waits for any more."""
        if wait is None:
            self._operations.remove(operation)
            return
        self._operations.place(operation, now + wait)
        if self._active < self._concurrency:
            self._timer.set(operation.due, now)

    def _end_all(self, error: Exception) -> None:
        """End every wait, and the polls under way, by what the next poll would meet too."""
        for operation in list(self._operations.values()):
            self._operations.end(operation, error)
            if operation.task is not None:
                self._ending.end(operation.task)

"""Time and chance. No other module asks for the time, sleeps or draws a random number."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from functools import partial
from random import random as drawn
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from attrs import define, field

__all__ = ["Clock", "ClockTimeout", "RealClock", "boottime_of", "token"]


class ClockTimeout(Protocol):
    """The context manager that `Clock.timeout` returns, as `asyncio.timeout` does."""

    def expired(self) -> bool:
        """True if the time-out ended the block."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...


class Clock(Protocol):
    """Time and chance, in one object that a test can replace."""

    def now(self) -> float:
        """Seconds since the epoch, for timestamps that leave this machine."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back, for durations."""

    def random(self) -> float:
        """A number drawn evenly from [0, 1)."""

    async def sleep(self, seconds: float, /) -> None:
        """Suspend this task."""

    def timeout(self, seconds: float | None) -> ClockTimeout:
        """Cancel the block after so many seconds and raise `TimeoutError` in its place; None never does.

        What came in time is read first, also by a process that was stopped or a loop that was blocked meanwhile.
        """


TURNS = 16
"""Turns of the loop between a time-out's end and its verdict. One reads what lies in a socket, the next wakes whoever
waits for it; the others are for a body of some megabytes."""


_boottime = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic


def boottime_of(clock: Clock) -> Callable[[], float]:
    """Return what tells the seconds by a clock that goes on while the machine sleeps; where it has none, `monotonic`.

    A method `boottime`, which `Clock` does not ask for: those of before have none.
    """
    found: Callable[[], float] = getattr(clock, "boottime", clock.monotonic)
    return found


class RealClock:
    """The machine's clock and generator. One serves one event loop."""

    if TYPE_CHECKING:

        def now(self) -> float: ...
        def monotonic(self) -> float: ...
        def boottime(self) -> float: ...
        def random(self) -> float: ...
        async def sleep(self, seconds: float, /) -> None: ...

    else:  # they are asked several times for each item: without a frame of their own
        now = staticmethod(time.time)
        monotonic = staticmethod(time.monotonic)
        boottime = staticmethod(_boottime)
        random = staticmethod(drawn)
        sleep = staticmethod(asyncio.sleep)

    def __init__(self) -> None:
        self._timer: SharedTimer | None = None

    def timeout(self, seconds: float | None) -> ClockTimeout:
        """Limit a block as `asyncio.timeout` does, but read what came in time first; all share one timer."""
        if seconds is None:
            return asyncio.timeout(None)
        loop = asyncio.get_running_loop()
        timer = self._timer
        if timer is None or timer.loop is not loop:
            timer = self._timer = SharedTimer(loop)
        return SharedTimeout(timer, loop.time() + seconds)


class SharedTimer:
    """One timer of the loop for any number of time-outs.

    A timer each, made and cancelled for every request, costs more than signing it: the loop keeps what is
    cancelled in its heap and sorts it out in Python. Here a time-out costs a set's `add` and `discard`, and the timer
    goes on to the earliest one whenever it fires.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.running: set[SharedTimeout] = set()
        self.when = math.inf
        """When it fires, in seconds of the loop's clock."""
        self._handle: asyncio.TimerHandle | None = None

    def set(self, when: float) -> None:
        """Fire at that time and not when it was set for."""
        if self._handle is not None:
            self._handle.cancel()
        self.when, self._handle = when, self.loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self.when, self._handle = math.inf, None
        now = self.loop.time()
        due = [timeout for timeout in self.running if timeout.when <= now]
        self.running.difference_update(due)
        if self.running:
            self.set(min(timeout.when for timeout in self.running))
        self._expire(due, TURNS)

    def _expire(self, due: list[SharedTimeout], turns: int) -> None:
        """Let the loop read what lies in its sockets before silence is judged; a block that ends by that is whole."""
        due = [timeout for timeout in due if timeout.task is not None]
        if turns and due:
            self.loop.call_soon(self._expire, due, turns - 1)
            return
        for timeout in due:
            timeout.expire()


@define(eq=False)
class SharedTimeout:
    """An `asyncio.timeout` whose timer is shared; spelled out, since wrapping one costs as much again."""

    _timer: SharedTimer
    when: float
    task: asyncio.Task[Any] | None = field(default=None, init=False)
    """The task inside the block."""
    _cancelling: int = field(default=0, init=False)
    _expired: bool = field(default=False, init=False)

    def expired(self) -> bool:
        return self._expired

    def expire(self) -> None:
        """End the block if it runs still."""
        if self.task is not None:
            self._expired = True
            self.task.cancel()

    async def __aenter__(self) -> Self:
        task = self.task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time-out belongs in a task")
        self._cancelling = task.cancelling()
        timer = self._timer
        timer.running.add(self)
        if self.when < timer.when:
            timer.set(self.when)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.running.discard(self)
        task, self.task = self.task, None
        # A cancellation of somebody else's that came as well goes on as one.
        mine = self._expired and task is not None and task.uncancel() <= self._cancelling
        if mine and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from exc


def token(size: int = 8) -> str:
    """Return a random name of `size` bytes in hex, unlike any other on any machine."""
    return secrets.token_hex(size)

"""The door to time and chance. Nothing else asks for the time, sleeps or draws a random number."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from types import TracebackType
from typing import Any, Protocol, Self

__all__ = ["Bound", "Clock", "RealClock", "token"]


class Bound(Protocol):
    """A block of bounded duration, as `asyncio.timeout` gives one."""

    def expired(self) -> bool:
        """True if the block was ended by its bound."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...


class Clock(Protocol):
    """Time and chance as one thing that a test can turn by hand."""

    def now(self) -> float:
        """Seconds since the epoch, for timestamps that leave this machine."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back, for durations."""

    def random(self) -> float:
        """A number drawn evenly from [0, 1)."""

    async def sleep(self, seconds: float) -> None:
        """Suspend this task."""

    def timeout(self, seconds: float | None) -> Bound:
        """Cancel the block after so many seconds and raise `TimeoutError` in its place; None never does.

        What came in time is read first, also by a process that was stopped or a loop that was blocked meanwhile.
        """


TURNS = 16
"""Turns of the loop between a bound's end and its verdict. One reads what lies in a socket, the next wakes whoever
waits for it; the others are for a body of some megabytes."""


class RealClock:
    """The machine's clock and generator. One serves one event loop."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    random = staticmethod(random.random)
    sleep = staticmethod(asyncio.sleep)

    def __init__(self) -> None:
        self._watch: _Watch | None = None

    def timeout(self, seconds: float | None) -> Bound:
        """Bound a block as `asyncio.timeout` does, but read what came in time first; all bounds share one timer."""
        if seconds is None:
            return asyncio.timeout(None)
        loop = asyncio.get_running_loop()
        if self._watch is None or self._watch.loop is not loop:
            self._watch = _Watch(loop)
        return _Shared(self._watch, loop.time() + seconds)


class _Watch:
    """One timer of the loop for any number of bounds.

    A timer each, made and cancelled for every request, costs more than signing it: the loop keeps what is
    cancelled in its heap and sorts it out in Python. Here a bound costs a set's `add` and `discard`, and the timer
    goes on to the earliest bound whenever it fires.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._bounds: set[_Shared] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, bound: _Shared) -> None:
        self._bounds.add(bound)
        if self._timer is None or bound.when < self._timer.when():
            self._set(bound.when)

    def discard(self, bound: _Shared) -> None:
        self._bounds.discard(bound)

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self.loop.time()
        due = [bound for bound in self._bounds if bound.when <= now]
        self._bounds.difference_update(due)
        if self._bounds:
            self._set(min(bound.when for bound in self._bounds))
        self._turn(due, TURNS)

    def _turn(self, due: list[_Shared], turns: int) -> None:
        """Let the loop read what lies in its sockets before silence is judged; a block that ends by that is whole."""
        due = [bound for bound in due if bound.running]
        if turns and due:
            self.loop.call_soon(self._turn, due, turns - 1)
            return
        for bound in due:
            bound.expire()


class _Shared:
    """An `asyncio.timeout` whose timer is the watch's; spelled out, since wrapping one costs as much again."""

    __slots__ = ("_cancelling", "_expired", "_task", "_watch", "when")

    def __init__(self, watch: _Watch, when: float) -> None:
        self._watch = watch
        self._expired = False
        self._cancelling = 0
        self._task: asyncio.Task[Any] | None = None
        self.when = when

    def expired(self) -> bool:
        return self._expired

    @property
    def running(self) -> bool:
        return self._task is not None

    def expire(self) -> None:
        if self._task is not None:
            self._expired = True
            self._task.cancel()

    async def __aenter__(self) -> Self:
        task = self._task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a bound belongs in a task")
        self._cancelling = task.cancelling()
        self._watch.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.discard(self)
        task, self._task = self._task, None
        # A cancellation of somebody else's that came as well goes on as one.
        mine = self._expired and task is not None and task.uncancel() <= self._cancelling
        if mine and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from exc


def token(size: int = 8) -> str:
    """A random name of `size` bytes in hex, unlike any other on any machine."""
    return secrets.token_hex(size)

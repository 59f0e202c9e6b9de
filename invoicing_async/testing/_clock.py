"""A clock that a test turns, or that turns itself to whatever is due next."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from threading import RLock
from types import TracebackType
from typing import Self

from attrs import Factory, define

from .._core.clock import ClockTimeout
from ._quiet import QUIET_SECONDS, Quiet, Work

__all__ = ["START", "FakeClock"]

START = 1_758_100_350.0
"""Epoch seconds at which a `FakeClock` begins unless it is told otherwise."""


@define(eq=False)
class _Timer:
    """What is due at a time, in its own loop; `over` if nobody waits for it any more."""

    when: float
    fire: Callable[[], None]
    is_sleep: bool
    over: bool = False
    loop: asyncio.AbstractEventLoop = Factory(asyncio.get_running_loop)

    def wake(self) -> None:
        if not self.over:
            self.over = True
            self.fire()


@define(eq=False)
class _Limit:
    """An `asyncio.timeout` that a `FakeClock` ends."""

    _add: Callable[[Callable[[], None]], _Timer]
    _inner: asyncio.Timeout = Factory(lambda: asyncio.timeout(None))
    _timer: _Timer | None = None

    def expired(self) -> bool:
        return self._inner.expired()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        self._timer = self._add(lambda: self._inner.reschedule(asyncio.get_running_loop().time() - 1))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.over = True
        await self._inner.__aexit__(kind, exc, trace)


class FakeClock:
    """A `Clock` in which hours pass in no time.

    Time stands still until a test turns it: `advance` at once, `elapse` step by step. With `auto` it also turns itself
    towards the next sleep that is due, once nothing else is left to do: no sleep or time-out began or ended for some
    turns of the loop and `quiet` real seconds. A time-out that is due before that sleep ends at its own time. Time-outs
    alone never move it, so a service that hangs is left to `advance`; and since what sleeps again and again would move
    it for ever, turn `auto` off beside a task that does. Beside sockets or threads of your own, whose work it does not
    see, raise `quiet` to what that takes.

    `start` is what `now` begins with, in epoch seconds. `chances` are the numbers that `random` returns in turn, from
    [0, 1); the last one is repeated. One clock may serve several loops in several threads.
    """

    def __init__(
        self,
        *,
        auto: bool = True,
        chances: tuple[float, ...] = (0.5,),
        start: float = START,
        quiet: float = QUIET_SECONDS,
    ) -> None:
        self.start: float = start
        self.elapsed: float = 0.0
        """Seconds that have passed on it."""
        self._auto = auto
        self.quiet: float = quiet
        self.slept: list[float] = []
        """How long each sleep was to be, in seconds, in the order in which they began."""
        self._chances = list(chances)
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = count()
        self._quiet = Quiet()
        self._lock = RLock()
        self._sleepers: Counter[asyncio.AbstractEventLoop] = Counter()
        self._drivers: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"FakeClock({self.elapsed:g} s passed, {self.sleeping} waiting)"

    @property
    def auto(self) -> bool:
        """Whether it turns itself; may be changed at any time."""
        return self._auto

    @auto.setter
    def auto(self, auto: bool) -> None:
        self._auto = auto
        for loop, number in tuple(self._sleepers.items()):
            if number and not loop.is_closed():
                loop.call_soon_threadsafe(self._begin_driving, loop)

    def now(self) -> float:
        """Return epoch seconds."""
        self._quiet.uses += 1
        return self.start + self.elapsed

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        self._quiet.uses += 1
        return self.elapsed

    def random(self) -> float:
        """Return the next of `chances`."""
        return self._chances.pop(0) if len(self._chances) > 1 else self._chances[0]

    def timeout(self, seconds: float | None) -> ClockTimeout:
        """Limit a block as `asyncio.timeout` does, by this clock."""
        if seconds is None:
            return asyncio.timeout(None)
        return _Limit(lambda fire: self._add(seconds, fire, is_sleep=False))

    async def sleep(self, seconds: float) -> None:
        """Suspend this task until the clock was turned so far."""
        self.slept.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        timer = self._add(seconds, lambda: None if woken.done() else woken.set_result(None), is_sleep=True)
        self._sleepers[loop] += 1
        self._begin_driving(loop)
        try:
            await woken
        finally:
            timer.over = True
            self._sleepers[loop] -= 1
            if not self._sleepers[loop] and loop in self._drivers:
                self._drivers.pop(loop).cancel()

    def patient(self, work: Work) -> AbstractContextManager[None]:
        """Do not turn by itself while a service in this thread works: for those whose callers are in other threads.

        What it works at without an end, as one that hangs, counts for a second only.
        """
        return self._quiet.patient(work)

    @property
    def sleeping(self) -> int:
        """How many sleeps and time-outs wait for the clock now: a test waits until it is what it expects."""
        return len(self._waiting())

    def advance(self, seconds: float) -> None:
        """Turn the clock, and fire what falls due in its order. What that wakes runs when the caller next awaits."""
        self._turn_to(self.elapsed + seconds)

    async def elapse(self, seconds: float) -> None:
        """Let so many seconds pass in steps: what falls due runs, sleeps again, and falls due again."""
        until = self.elapsed + seconds
        await self._quiet.settled(self.quiet, self._sleepers)
        while (due := min((timer.when for timer in self._waiting()), default=until)) < until:
            self._turn_to(due)
            await self._quiet.settled(self.quiet, self._sleepers)
        self._turn_to(until)
        await self._quiet.settled(self.quiet, self._sleepers)

    def _turn_to(self, until: float) -> None:
        """Turn the clock on, never back."""
        with self._lock:
            while self._timers and self._timers[0][0] <= until:
                when, _, timer = heapq.heappop(self._timers)
                self.elapsed = max(self.elapsed, when)
                _wake(timer)
            self.elapsed = max(self.elapsed, until)
            self._quiet.uses += 1

    def _add(self, seconds: float, fire: Callable[[], None], *, is_sleep: bool) -> _Timer:
        with self._lock:
            self._quiet.uses += 1
            timer = _Timer(self.elapsed + seconds, fire, is_sleep)
            if seconds <= 0:
                timer.wake()
            else:
                heapq.heappush(self._timers, (timer.when, next(self._order), timer))
            return timer

    def _waiting(self) -> list[_Timer]:
        with self._lock:
            return [timer for _, _, timer in self._timers if not timer.over]

    def _begin_driving(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.auto and self._sleepers[loop] and loop not in self._drivers:
            self._drivers[loop] = loop.create_task(self._drive(loop))

    async def _drive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Turn the clock towards the next sleep when all is quiet; whoever ends the loop's last sleep ends this."""
        while self.auto:
            await self._quiet.settled(self.quiet, self._sleepers)
            waiting = self._waiting()
            if self._auto and any(timer.is_sleep for timer in waiting):
                self._turn_to(min(timer.when for timer in waiting))
        self._drivers.pop(loop, None)


def _wake(timer: _Timer) -> None:
    """Wake whoever waits for a timer, in its own loop."""
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if timer.loop is running:
        timer.wake()
    elif not timer.loop.is_closed():
        timer.loop.call_soon_threadsafe(timer.wake)

"""Where attempts wait for their lane, in an event loop, and the lanes of one session.

Whoever waits is served in order. There is a task only while somebody waits for a time to come.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite

from attrs import define, field, frozen

from .._core.clock import Clock
from .._core.tasks import started
from ..errors import ServiceDownError
from ..events import Event, LimitChanged, Paused, Probing, Resumed
from ..health import Health, LaneHealth
from ..policies import Limits, OutagePolicy
from .lane import Answer, Lane, LaneKey, Ticket

__all__ = ["Gate", "Governor"]

MANY = 64
"""Lanes from which on those of other hosts are let go of when they are idle."""


@frozen(eq=False)
class _Waiter:
    future: asyncio.Future[Ticket]
    patience: float | None
    """Seconds of a pause that it waits through, None if it waits for no service that is down."""

    def is_spent(self, pause: float, *, is_down: bool) -> bool:
        """Tell whether a pause of so many seconds is more than it waits for."""
        return is_down if self.patience is None else pause >= self.patience


@define(eq=False)
class Gate:
    """The lane of one kind of call, and who waits for it. Each ticket goes back once, by `leave`."""

    key: LaneKey
    lane: Lane
    _most: int
    """How many attempts may be sent at once whatever the lane allows: others wait, with their turn, for a place."""
    _clock: Clock
    _tell: Callable[[Event], None] | None
    _on_answer: Callable[[], None]
    _waiters: deque[_Waiter] = field(factory=deque)
    _timer: asyncio.Task[None] | None = None
    _timer_due: float = 0.0
    _stood_still: float = 0.0
    _waits: bool = True
    """False once nobody waits any more for a service that is down."""

    @property
    def is_idle(self) -> bool:
        """True if nothing is under way or waits here, and nothing is wrong."""
        return not self.lane.in_use and not self._waiters and self.lane.outage.is_calm

    def try_enter(self) -> Ticket | None:
        """Begin an attempt if nothing has to be waited for."""
        lane = self.lane
        if self._waiters or not lane.outage.is_calm or lane.in_use >= lane.limit:
            return None
        return lane.begin(self._clock.monotonic())

    async def enter(self, patience: float | None) -> Ticket:
        """Wait for the turn in the lane.

        `patience` are the seconds of a pause that are waited through, None for a call that does not wait while the
        service is down. Raises `ServiceDownError` when the service is down for longer than that.
        """
        now = self._clock.monotonic()
        if patience is None and self.lane.outage.is_stopped and (self._waiters or self.lane.wait(now)):
            raise self.error(now)
        waiter = _Waiter(asyncio.get_running_loop().create_future(), patience)
        self._waiters.append(waiter)
        self._pump()
        try:
            return await waiter.future
        except BaseException:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                # It got a turn that it will not use.
                self.leave(waiter.future.result(), Answer.SILENT)
            raise

    def leave(self, ticket: Ticket, answer: Answer, *, retry_after: float | None = None, patient: bool = True) -> None:
        """End an attempt, `patient` if it was a batch's; see `Lane.end`."""
        lane, clock = self.lane, self._clock
        if not lane.is_known and answer is not Answer.SILENT and answer is not Answer.UNREACHABLE:
            self._on_answer()
        since, limit, now = lane.outage.since, min(lane.limit, self._most), clock.monotonic()
        lane.end(ticket, answer, now, clock.random, retry_after=retry_after, patient=patient)
        if since is not None and lane.outage.since is None:
            self._stood_still += now - since
        if since != lane.outage.since or ticket.is_probe or limit != min(lane.limit, self._most):
            self._tell_changes(since, limit, now, is_probe=ticket.is_probe)
        if self._waiters:
            self._pump()

    def hold_left(self) -> float:
        """Return the seconds before an attempt may begin, by what is known."""
        wait = self.lane.outage.wait(self._clock.monotonic())
        return wait if isfinite(wait) else 0.0

    def stood_still(self) -> float:
        """Return for how many seconds the service was down in all: time that counts for nobody's patience of polls."""
        since = self.lane.outage.since
        return self._stood_still + (0.0 if since is None else self._clock.monotonic() - since)

    def error(self, now: float) -> ServiceDownError:
        """Return the error of a call that does not wait."""
        since = self.lane.outage.paused_since(now)
        epoch = self._clock.now() - (0.0 if since is None else now - since)
        probe = self.hold_left()
        lasting = now - (now if since is None else since)
        known = "is down since" if self.lane.is_known else "never answered, be it down or the address wrong, for"
        text = f"the service {known} {lasting:.0f} s; next try in {probe:.0f} s"
        return ServiceDownError(text, since=epoch, next_probe=probe)

    def health(self) -> LaneHealth:
        """Return how the lane is doing."""
        lane, now = self.lane, self._clock.monotonic()
        since = lane.outage.paused_since(now)
        return LaneHealth(
            operation=self.key.operation,
            store=self.key.store,
            state=lane.state(now),
            since=None if since is None else self._clock.now() - (now - since),
            next_probe=None if since is None else self.hold_left(),
            in_use=lane.in_use,
            concurrency=min(lane.limit, self._most),
        )

    def stop_waiting(self) -> None:
        """Let nobody wait for a service that is down, now and from now on."""
        self._waits = False
        self._pump()

    def end(self) -> None:
        """End the waiting for a time to come."""
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, now: float) -> Ticket:
        ticket = self.lane.begin(now)
        if ticket.is_probe and self._tell is not None:
            self._tell(Probing(operation=self.key.operation, store=self.key.store))
        return ticket

    def _pump(self) -> None:
        """Let those who wait have their turns, in order, and end the wait of those whose patience is spent."""
        lane, waiters, now = self.lane, self._waiters, self._clock.monotonic()
        while waiters:
            wait = lane.wait(now)
            if wait:
                since = lane.outage.paused_since(now)
                if since is not None:
                    is_down = lane.outage.is_stopped
                    spent = (each for each in waiters if not self._waits or each.is_spent(now - since, is_down=is_down))
                    for waiter in list(spent):
                        waiters.remove(waiter)
                        if not waiter.future.done():
                            waiter.future.set_exception(self.error(now))
                if waiters and isfinite(wait):
                    self._wake_after(wait, now)
                return
            waiter = waiters.popleft()
            if not waiter.future.done():
                waiter.future.set_result(self._begin(now))

    def _wake_after(self, seconds: float, now: float) -> None:
        if self._timer is not None and not self._timer.done() and self._timer_due <= now + seconds:
            return
        self._stop_timer()
        self._timer_due = now + seconds
        self._timer = started(self._woken(seconds))

    async def _woken(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timer = None
        self._pump()

    def _tell_changes(self, since: float | None, limit: int, now: float, *, is_probe: bool) -> None:
        """Tell of a pause that began or goes on after a probe, or ended, and of another limit."""
        if self._tell is None:
            return
        operation, store, outage = self.key.operation, self.key.store, self.lane.outage
        if outage.since is not None and (since is None or is_probe):
            paused = 0.0 if since is None else now - since
            self._tell(Paused(operation=operation, store=store, next_probe=self.hold_left(), paused=paused))
        elif since is not None and outage.since is None:
            self._tell(Resumed(operation=operation, store=store, paused=now - since))
        if limit != min(self.lane.limit, self._most):
            concurrency = min(self.lane.limit, self._most)
            self._tell(LimitChanged(operation=operation, store=store, concurrency=concurrency))


class Governor:
    """The lanes of one session's service, each made by its first call.

    `ahead` attempts more than `Limits.concurrency` have their turn: they prepare while they wait for a place.
    """

    def __init__(
        self,
        limits: Limits,
        policy: OutagePolicy,
        clock: Clock,
        *,
        ahead: int = 0,
        tell: Callable[[Event], None] | None = None,
    ) -> None:
        self._limits = limits
        self._top = limits.concurrency + ahead
        self._policy = policy
        self._clock = clock
        self._tell = tell
        self._listeners: Counter[Callable[[Event], None]] = Counter()
        self._gates: dict[tuple[str, str, str], Gate] = {}
        self._is_known = False
        self._waits = True

    def gate(self, service: str, operation: str, store: str) -> Gate:
        """Return the one gate of this kind of call; `service` is a base URL, empty for the session's own."""
        gate = self._gates.get((service, operation, store))
        if gate is None:
            if service and len(self._gates) >= MANY:
                # Links lead to any number of hosts: let go of the lanes of which nothing is known that matters.
                for name, there in list(self._gates.items()):
                    if name[0] and there.is_idle:
                        del self._gates[name]
            lane = Lane(
                self._policy, self._top, self._limits.adaptive, self._limits.concurrency, is_known=self._is_known
            )
            gate = self._made(LaneKey(service, operation, store), lane)
            if not self._waits:
                gate.stop_waiting()
            self._gates[service, operation, store] = gate
        return gate

    def health(self) -> Health:
        """Return how each lane is doing."""
        return Health(lanes=tuple(gate.health() for gate in self._gates.values()))

    @contextmanager
    def heard_by(self, listener: Callable[[Event], None]) -> Iterator[None]:
        """Call `listener` with each event of a lane while the block runs; one that is there twice is called once."""
        self._listeners[listener] += 1
        try:
            yield
        finally:
            self._listeners[listener] -= 1
            self._listeners += Counter()

    def stop_waiting(self) -> None:
        """Let no call wait for a service that is down, now and from now on."""
        self._waits = False
        for gate in self._gates.values():
            gate.stop_waiting()

    def open(self) -> None:
        """Begin to hear what other processes learn of the lanes that they share."""

    def close(self) -> None:
        """End every timer."""
        for gate in self._gates.values():
            gate.end()

    def _made(self, key: LaneKey, lane: Lane) -> Gate:
        return Gate(key, lane, self._limits.concurrency, self._clock, self._told, self._answered)

    def _told(self, event: Event) -> None:
        if self._tell is not None:
            self._tell(event)
        for listener in [*self._listeners]:
            listener(event)

    def _answered(self) -> None:
        self._is_known = True
        for gate in self._gates.values():
            gate.lane.is_known = True

"""The faults in force: since when, what each did, and the order in which a call meets them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import formatdate
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from attrs import define, evolve, field

from .._core.clock import Clock
from ..errors import TransportError
from ._answers import CutError, Reply
from ._faults import Fault, InFlight, Proceed
from ._service_faults import ClockSkew, Outage
from ._shared import Shared

__all__ = ["Injected", "InjectedFaults", "ServiceClock"]

F = TypeVar("F", bound=Fault)


@define
class Injected:
    """One fault in force."""

    fault: Fault
    shared: Shared
    began: float
    counts: Counter[str] = field(factory=Counter)
    memory: Any = None

    @property
    def age(self) -> float:
        """Seconds since the fault was put in force."""
        return self.shared.clock.monotonic() - self.began

    async def pass_on(self, flight: InFlight, proceed: Proceed) -> Reply:
        """Apply the fault to a call that it hits, and let any other go on."""
        if self.fault.hits(self, flight.call, flight.arrived - self.began):
            return await self.fault.apply(self, flight, proceed)
        return await proceed()


class InjectedFaults:
    """All faults in force, in the order in which a call meets them.

    `watchers` are called whenever other faults are put in force.
    """

    def __init__(self) -> None:
        self.watchers: set[Callable[[], None]] = set()
        self._active: dict[Fault, Injected] = {}

    def put(self, faults: Iterable[Fault], shared: Shared) -> None:
        """Put these faults in force from now, in the place of all others. Raises `ValueError` for one given twice."""
        now = shared.clock.monotonic()
        active: dict[Fault, Injected] = {}
        for fault in faults:
            if fault in active:
                raise ValueError(f"the fault {fault} is given twice")
            active[fault] = Injected(fault, shared, now, memory=fault.memory(shared))
        self._active = active
        for watcher in self.watchers:
            watcher()

    @property
    def counts(self) -> Mapping[Fault, Counter[str]]:
        """What each fault did so far."""
        return MappingProxyType({fault: injected.counts for fault, injected in self._active.items()})

    def skew(self) -> float:
        """Seconds by which the services' clock is ahead now."""
        return sum(fault.seconds for fault, injected in self._of(ClockSkew) if fault.holds(injected.age))

    def refusing(self) -> Injected | None:
        """Return the outage that refuses connections now."""
        return next((injected for fault, injected in self._of(Outage) if fault.refuses(injected.age)), None)

    def next_change(self) -> float | None:
        """Return the seconds until connections may begin or cease to be refused; None if they never do."""
        outages = ((fault, injected) for fault, injected in self._of(Outage) if fault.answer == "refused")
        changes = (fault.next_change(injected.age) for fault, injected in outages)
        return min((change for change in changes if change is not None), default=None)

    def connect(self, *, sent: bool = False) -> None:
        """Raise `TransportError` while connections are refused; a call that was `sent` before loses its answer."""
        outage = self.refusing()
        if outage is not None and sent:
            outage.counts["cut"] += 1
            raise CutError("the sandbox went down before it answered")
        if outage is not None:
            outage.counts["refused"] += 1
            raise TransportError("the sandbox refuses connections", sent="no")

    async def answer(self, flight: InFlight, genuine: Proceed) -> Reply:
        """Let a call meet the faults, and behind them the services."""
        proceed = genuine
        for injected in reversed(self._active.values()):
            proceed = partial(injected.pass_on, flight, proceed)
        reply = await proceed()
        for fault, injected in self._of(ClockSkew):
            if fault.hits(injected, flight.call, injected.age):
                injected.counts["answers"] += 1
                date = formatdate(injected.shared.clock.now(), usegmt=True)
                reply = evolve(reply, headers={**reply.headers, "Date": date})
        return reply

    def _of(self, kind: type[F]) -> Iterator[tuple[F, Injected]]:
        return ((fault, injected) for fault, injected in self._active.items() if isinstance(fault, kind))


class ServiceClock:
    """The clock that the services go by: the sandbox's own, with the skew of its faults in `now`."""

    def __init__(self, clock: Clock, skew: Callable[[], float]) -> None:
        self._skew = skew
        self._clock = clock
        self.monotonic = clock.monotonic
        self.random = clock.random
        self.sleep = clock.sleep
        self.timeout = clock.timeout

    def now(self) -> float:
        """Return the seconds since the epoch that the services believe in."""
        return self._clock.now() + self._skew()

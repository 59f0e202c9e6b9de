"""One lane: when its next attempt may begin, from how the ones before it ended. Pure, time and chance are handed in."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf

from attrs import define, field, frozen

from ..health import LaneState
from ..policies import OutagePolicy
from .budget import RetryBudget
from .concurrency import BEGIN, ConcurrencyLimit
from .outage import KEPT, Outage

__all__ = ["Answer", "Lane", "LaneKey", "Ticket"]


@frozen
class LaneKey:
    """What shares a lane: the calls of one operation for one store of one service."""

    service: str
    operation: str
    store: str = ""


class Answer(Enum):
    """What the end of an attempt says of the service."""

    SUCCESS = "success"
    """It did what it was asked."""
    ALIVE = "alive"
    """It answered about this call alone: 400, 404, 422, or something that is not as documented."""
    REFUSED = "refused"
    """It is unwell or has too much to do: SYS_DEP_503, 429, a gateway's 502, 503 or 504."""
    UNREACHABLE = "unreachable"
    """No whole answer came: refused, reset, timed out."""
    SILENT = "silent"
    """Nothing: the attempt ended before it was sent, or was cancelled."""


@define(eq=False)
class Ticket:
    """An attempt that is under way."""

    begun: float
    pauses: int
    """The lane's pauses before it."""
    is_busy: bool
    is_probe: bool


@define
class Lane:
    """The attempts of one kind of call. `begin` each when `wait` says 0, and `end` each once. Times are monotonic."""

    policy: OutagePolicy
    top: int
    adaptive: bool = True
    most: float = inf
    """How many of them may be sent at once; the others prepare."""
    in_use: int = 0
    answers: int = 0
    """How many there were: an attempt that failed counts against its item only if there was one since the last."""
    failing: int = 0
    """How many calls failed since the last answer, each counted once."""
    is_known: bool = True
    """False until the service first answered, be it that it is unwell: what never did may be a wrong address."""
    pauses: int = 0
    limit: int = field(init=False)
    """How many attempts may be under way at once while all is well."""
    outage: Outage = field(init=False)
    budget: RetryBudget = field(init=False, factory=RetryBudget)
    concurrency: ConcurrencyLimit = field(init=False)

    @limit.default
    def _first_limit(self) -> int:
        return min(self.top, BEGIN) if self.adaptive else self.top

    @outage.default
    def _outage(self) -> Outage:
        return Outage(self.policy)

    @concurrency.default
    def _concurrency(self) -> ConcurrencyLimit:
        return ConcurrencyLimit(self.top)

    @property
    def allowed(self) -> int:
        """How many attempts may be under way now: each failure closes a place, down to one, until a later answer."""
        outage, allowed = self.outage, self.limit
        if outage.closed or outage.places < allowed:
            allowed = max(1, int(min(allowed, self.most, outage.places)) - outage.closed)
        return allowed

    def wait(self, now: float) -> float:
        """Return the seconds before an attempt may begin: 0 for now, infinity if another has to end first."""
        if self.outage.is_calm:
            return 0.0 if self.in_use < self.limit else inf
        seconds = self.outage.wait(now)
        if seconds == 0 and not self.outage.is_stopped and self.in_use >= self.allowed:
            return inf
        return seconds

    def state(self, now: float) -> LaneState:
        """Return what the lane does now."""
        return self.outage.state(now)

    def begin(self, now: float) -> Ticket:
        """Begin an attempt."""
        self.in_use += 1
        is_probe = self.outage.since is not None
        if is_probe:
            self.outage.probe()
        return Ticket(now, self.pauses, 2 * self.in_use >= self.limit, is_probe)

    def end(
        self,
        ticket: Ticket,
        answer: Answer,
        now: float,
        random: Callable[[], float],
        *,
        retry_after: float | None = None,
        patient: bool = True,
    ) -> None:
        """End an attempt; `retry_after` are the seconds that the service asked to wait, `random` draws from [0, 1).

        A `patient` one is a batch's: where nothing ever answered, it begins no pause, so that a batch with a wrong
        address ends, and waits for nothing.
        """
        self.in_use -= 1
        if ticket.is_probe:
            self.outage.probed()
        if retry_after:
            self.outage.hold(retry_after, now)
        if answer is Answer.SUCCESS:
            if self.budget.tokens < self.budget.capacity:
                self.budget.refund()
            self._answered(ticket, now)
        elif answer is Answer.ALIVE:
            self._answered(ticket, now)
        elif answer is not Answer.SILENT:
            self._failed(ticket, answer, now, random, patient=patient)
        if self.adaptive:
            self.limit = self.concurrency.places

    def _answered(self, ticket: Ticket, now: float) -> None:
        outage, ends_pause = self.outage, False
        self.answers += 1
        self.failing = 0
        outage.share *= KEPT
        if not outage.is_calm:
            ends_pause = outage.answer(self.limit, begun=ticket.begun)
        if not self.adaptive or outage.places != inf:
            # What was begun before the pause went well: the service was never down, only asked too much.
            if ends_pause and self.adaptive and not ticket.is_probe and ticket.pauses < self.pauses:
                self.concurrency.crowd(self.in_use + 1, now)
            return
        self.concurrency.succeed(now - ticket.begun, now, busy=ticket.is_busy)

    def _failed(
        self, ticket: Ticket, answer: Answer, now: float, random: Callable[[], float], *, patient: bool
    ) -> None:
        top = int(min(self.limit, self.most))
        counts = self.is_known or not patient or self.outage.is_stopped
        if counts and self.outage.fail(now, random, top=top, probe=ticket.is_probe, answers=self.answers):
            self.pauses += 1
            self.concurrency.restart()
        elif answer is Answer.REFUSED and not self.outage.is_stopped:
            self.concurrency.refuse(now)

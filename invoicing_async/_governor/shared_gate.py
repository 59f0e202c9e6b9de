"""A lane whose pauses several processes share: what one of them learns is told to all, and one at a time probes."""

from __future__ import annotations

import asyncio

from attrs import define, field

from .._core.shared_lanes import LaneNews, LanePause, LaneReport, SharedLanes
from .._core.tasks import started
from ..errors import InvoicingError
from .gate import Gate
from .lane import Answer, LaneKey, Ticket
from .shared_outage import SharedOutage

__all__ = ["SharedGate", "lane_name"]

NEWS = 0.05
"""Seconds that a later end of a wait has to differ by to be another: two reckonings of one moment differ by less."""


def lane_name(key: LaneKey) -> str:
    """Return what all processes call a lane: its operation, then its store and its service if it has one."""
    if key.service:
        return f"{key.operation} {key.store or '-'} {key.service}"
    return f"{key.operation} {key.store}".rstrip()


@define(eq=False, kw_only=True)
class SharedGate(Gate):
    """As `Gate`. While what all share is away nobody probes, and what is known of a pause stays."""

    shared: SharedLanes
    outage: SharedOutage
    """The lane's."""
    _claiming: asyncio.Task[None] | None = None
    _name: str = field(init=False)

    @_name.default
    def _named(self) -> str:
        return lane_name(self.key)

    async def enter(self, patience: float | None) -> Ticket:
        """Do as `Gate.enter`; who does not wait for a service that is down makes the probe, if it is due and free."""
        outage, clock = self.outage, self._clock
        if patience is None and not self._waiters and outage.is_due(clock.monotonic()):
            granted = await self.shared.claim(self._name)
            outage.claimed(clock.monotonic(), granted=granted)
            try:
                return await super().enter(patience)
            finally:
                self._release_unused()
        return await super().enter(patience)

    def leave(self, ticket: Ticket, answer: Answer, *, retry_after: float | None = None, patient: bool = True) -> None:
        """Do as `Gate.leave`, and tell the others what this says of the lane."""
        outage = self.outage
        since, due, held = outage.since, outage.next_probe, outage.held_until
        if answer is Answer.SUCCESS or answer is Answer.ALIVE:
            outage.answered(ticket.begun)
        super().leave(ticket, answer, retry_after=retry_after, patient=patient)
        if retry_after and outage.held_until > held:
            self._report(LaneNews.HELD, until=outage.held_until)
        if since is None and outage.since is not None:
            self._report(LaneNews.PAUSED, since=outage.since, until=outage.next_probe, distance=outage.distance)
        elif since is not None and outage.since is None:
            self._report(LaneNews.RESUMED)
        elif ticket.is_probe and outage.since is not None and outage.next_probe != due:
            self._report(LaneNews.PROBED, until=outage.next_probe, distance=outage.distance)
        elif ticket.is_probe:
            self._report(LaneNews.RELEASED)

    def hear(self, pause: LanePause | None) -> None:
        """Hear what all know of this lane, None if there is no pause."""
        lane, outage, now = self.lane, self.outage, self._clock.monotonic()
        if pause is None and outage.since is None:
            return
        since, limit = outage.since, min(lane.limit, self._most)
        if pause is None or pause.since is None:
            if since is not None:
                outage.resume()
                self._stood_still += now - since
        elif outage.adopt(pause):
            lane.pauses += 1
            lane.is_known = True
            lane.concurrency.restart()
        elif outage.since is None and outage.is_forgotten(pause, now):
            self._report(LaneNews.RESUMED)
        if pause is not None and pause.held_until > max(now, outage.held_until) + NEWS:
            outage.hold(pause.held_until - now, now)
        if since != outage.since:
            self._tell_changes(since, limit, now, is_probe=False)
        if self._waiters:
            self._pump()

    def end(self) -> None:
        """End the waiting for a time to come, and for a probe."""
        super().end()
        if self._claiming is not None:
            self._claiming.cancel()

    def _pump(self) -> None:
        super()._pump()
        if self._waiters and self._claiming is None and self.outage.is_due(self._clock.monotonic()):
            self._claiming = started(self._claim())

    async def _claim(self) -> None:
        try:
            granted = await self.shared.claim(self._name)
        except InvoicingError as error:
            while self._waiters:
                waiter = self._waiters.popleft()
                if not waiter.future.done():
                    waiter.future.set_exception(error)
            return
        finally:
            self._claiming = None
        self.outage.claimed(self._clock.monotonic(), granted=granted)
        self._pump()
        self._release_unused()

    def _release_unused(self) -> None:
        """Let others probe if nobody here does: who would have gave up meanwhile."""
        if self.outage.is_claimed:
            self.outage.is_claimed = False
            self._report(LaneNews.RELEASED)

    def _report(self, news: LaneNews, *, since: float = 0.0, until: float = 0.0, distance: float = 0.0) -> None:
        self.shared.report(LaneReport(lane=self._name, news=news, since=since, until=until, distance=distance))

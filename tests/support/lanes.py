"""Lanes that several sessions of one virtual loop share, as processes share those of a database; and sessions on them.

The rules are those of the statements, in Python. Its wall clock is an hour off in each process, and nobody notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

from attrs import define, evolve, field
from outages import Unsteady
from session_calls import BASE
from vtime import VirtualClock

from invoicing_async._core.shared_lanes import Hear, LaneNews, LanePause, LaneReport, Lease
from invoicing_async.auth import StaticToken
from invoicing_async.policies import Limits
from invoicing_async.session import Session
from invoicing_async.session._shared_limits import limits_over

PROBE_LEASE = 5.0


def now() -> float:
    return asyncio.get_running_loop().time()


@define
class Row:
    pause: LanePause = field(factory=LanePause)
    probe_by: int | None = None


@define
class Database:
    """What all processes reach, unless it is `away`; each statement takes `seconds`."""

    seconds: float = 0.002
    away: bool = False
    free_at: float = -inf
    rows: dict[str, Row] = field(factory=dict)
    statements: int = 0
    probes: list[tuple[float, int]] = field(factory=list)
    """When a probe was claimed, and by whom."""

    async def asked(self) -> None:
        while self.away:  # noqa: ASYNC110 - in virtual time, where a look costs nothing
            await asyncio.sleep(0.1)
        self.statements += 1
        await asyncio.sleep(self.seconds)

    def pauses(self, worker: int) -> dict[str, LanePause]:
        return {
            lane: row.pause if row.probe_by != worker else evolve(row.pause, probed_until=-inf)
            for lane, row in self.rows.items()
            if row.pause.since is not None or row.pause.held_until > now()
        }

    def take(self, report: LaneReport, worker: int) -> None:
        row = self.rows.setdefault(report.lane, Row())
        pause = row.pause
        if report.news is LaneNews.HELD:
            row.pause = evolve(pause, held_until=max(pause.held_until, report.until))
        elif report.news is LaneNews.PAUSED and pause.since is None:
            row.pause = evolve(pause, since=report.since, next_probe=report.until, distance=report.distance)
        elif report.news is LaneNews.RESUMED:
            row.pause, row.probe_by = LanePause(held_until=pause.held_until), None
        elif row.probe_by == worker:
            row.probe_by, row.pause = None, evolve(pause, probed_until=-inf)
            if report.news is LaneNews.PROBED:
                row.pause = evolve(row.pause, next_probe=report.until, distance=report.distance)


@define(eq=False)
class Lanes:
    """One process's `SharedLanes`."""

    database: Database
    worker: int
    hearing: list[Hear] = field(factory=list)
    reports: list[LaneReport] = field(factory=list)
    claimed: set[str] = field(factory=set)
    task: asyncio.Task[None] | None = None

    def join(self, hear: Hear) -> None:
        self.hearing.append(hear)
        self.task = self.task or asyncio.get_running_loop().create_task(self.serve())

    def leave(self, hear: Hear) -> None:
        self.hearing.remove(hear)
        if not self.hearing:
            self.kill()

    def kill(self) -> None:
        """End as by kill -9: nothing more is said or renewed."""
        if self.task is not None:
            self.task.cancel()
            self.task = None

    async def serve(self) -> None:
        looked = -inf
        while True:
            if self.reports:
                report = self.reports[0]
                await self.database.asked()
                self.database.take(report, self.worker)
                del self.reports[0]
            elif now() >= looked + 1.0:
                looked = now()
                await self.database.asked()
                for lane in self.claimed:
                    row = self.database.rows[lane]
                    if row.probe_by == self.worker:
                        row.pause = evolve(row.pause, probed_until=now() + PROBE_LEASE)
                self.tell()
            else:
                await asyncio.sleep(0.01)

    def tell(self) -> None:
        if not self.reports:
            for hear in self.hearing:
                hear(self.database.pauses(self.worker))

    async def lease(self, permits: int, per_second: float) -> Lease:
        asked = now()
        await self.database.asked()
        begins = max(self.database.free_at, now())
        self.database.free_at = begins + permits / per_second
        self.tell()
        return Lease(permits=permits, begins=begins, ends=self.database.free_at, took=now() - asked)

    async def claim(self, lane: str) -> bool:
        await self.database.asked()
        row = self.database.rows.setdefault(lane, Row())
        pause = row.pause
        is_free = row.probe_by in {None, self.worker} or pause.probed_until <= now()
        if pause.since is None or pause.next_probe > now() + 0.05 or not is_free:
            return False
        self.claimed.add(lane)
        row.probe_by, row.pause = self.worker, evolve(pause, probed_until=now() + PROBE_LEASE)
        self.database.probes.append((now(), self.worker))
        return True

    def report(self, report: LaneReport) -> None:
        if report.news not in {LaneNews.PAUSED, LaneNews.HELD}:
            self.claimed.discard(report.lane)
        self.reports.append(report)


class WrongClock(VirtualClock):
    """A host whose wall clock is an hour off."""

    def now(self) -> float:
        return super().now() + 3600.0


@asynccontextmanager
async def sharing(
    database: Database, service: Unsteady, worker: int, *, limits: Limits | None = None, **settings: Any
) -> AsyncIterator[Session]:
    """A session of one process."""
    lanes = Lanes(database, worker)
    clock = WrongClock(worker) if worker % 2 else VirtualClock(worker)
    shared = limits_over(limits or Limits(concurrency=64, adaptive=False), lanes)
    options = {"auth": StaticToken("t"), "transport": service, "clock": clock, **settings}
    try:
        async with Session(BASE, limits=shared, **options) as session:
            yield session
    finally:
        lanes.kill()

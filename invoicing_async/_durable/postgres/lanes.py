"""The rate and the pauses of a run, shared by all who work on it: rows of `invoicing.lanes`.

They have a connection of their own: a lease is of use for a tenth of a second, too short to wait behind a page of a
report or a group commit. Pauses come with each lease, and are looked up each second where nothing is leased. All times
are the database's, which are reckoned into this process's monotonic clock: no host's wall clock has a say.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf

from attrs import define, field

from ..._core.clock import Clock, RealClock
from ..._core.shared_lanes import Hear, LaneNews, LaneReport, Lease
from ..._core.tasks import started
from ...errors import InvoicingError, SessionError
from ..records import LedgerAwayError
from .lane_connection import Connect, LaneConnection, Rows
from .lane_statements import CLAIM, LEASE, LOOK, LOOK_AND_RENEW, LOOKS, REPORTS

__all__ = ["PostgresLanes"]

LOOKING = 1.0
"""Seconds between two looks at the pauses."""

FIRST_RETRY, LAST_RETRY = 0.1, 2.0
"""Seconds before the database is asked again that was away, at first and at last."""

PARTING = 1.0
"""Seconds that closing waits for reports on their way."""

_log = logging.getLogger("invoicing_async")


@define(eq=False)
class _Request:
    """A statement, its values as they are when it is executed, and whoever waits for its rows."""

    statement: str
    values: Callable[[], Mapping[str, object]]
    answer: asyncio.Future[Rows] | None = None


@define(eq=False)
class PostgresLanes:
    """The lanes of one run for one worker: a `SharedLanes`. `connect` makes a connection to the run's database.

    It connects when it is first needed, and again whenever the database was away. Everything is asked in order.
    """

    _connect: Connect
    run: int = field(kw_only=True)
    worker: int = field(kw_only=True)
    _clock: Clock = field(factory=RealClock, kw_only=True)
    _connection: LaneConnection = field(init=False)
    _queue: deque[_Request] = field(factory=deque, init=False)
    _listeners: list[Hear] = field(factory=list, init=False)
    _probes: set[str] = field(factory=set, init=False)
    """The lanes whose one probe this process may make."""
    _told_rate: float | None = field(default=None, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)
    _wake: asyncio.Event = field(factory=asyncio.Event, init=False)
    _look_at: float = field(default=-inf, init=False)
    _is_closed: bool = field(default=False, init=False)

    @_connection.default
    def _made(self) -> LaneConnection:
        return LaneConnection(self._connect, self.run, self.worker, self._clock)

    def join(self, hear: Hear) -> None:
        """Begin to look for pauses, at once and then each second, and tell `hear` of them."""
        self._listeners.append(hear)
        self._look_at = -inf
        self._serve_soon()

    def leave(self, hear: Hear) -> None:
        """End telling it; without anybody there is no looking."""
        if hear in self._listeners:
            self._listeners.remove(hear)

    async def lease(self, permits: int, per_second: float) -> Lease:
        """Lease permits of the run's rate; what this process wants anew is the run's from then on."""

        def values() -> Mapping[str, object]:
            wanted = None if per_second == self._told_rate else per_second
            return {"permits": permits, "per_second": per_second, "set": wanted}

        rows = await self._asked(LEASE, values)
        self._told_rate = per_second
        _, free_at, rate, *_ = rows[0]
        ends = self._connection.time.here(free_at)
        return Lease(permits=permits, begins=ends - permits / rate, ends=ends, took=self._connection.took)

    async def claim(self, lane: str) -> bool:
        """Ask to make the one probe of a lane."""
        if lane in self._probes:
            return False
        self._probes.add(lane)
        try:
            granted = bool(await self._asked(CLAIM, lambda: {"lane": lane}))
        except BaseException:
            self._probes.discard(lane)
            self.report(LaneReport(lane=lane, news=LaneNews.RELEASED))
            raise
        if not granted:
            self._probes.discard(lane)
            self._look_at = -inf  # what became of it is soon known
            self._wake.set()
        return granted

    def report(self, report: LaneReport) -> None:
        """Tell the others, as soon as the database can be reached."""
        if report.news in {LaneNews.PROBED, LaneNews.RELEASED, LaneNews.RESUMED}:
            self._probes.discard(report.lane)
        made = self._clock.monotonic()

        def values() -> Mapping[str, object]:
            now = self._clock.monotonic()
            return {
                "lane": report.lane,
                "since": now - report.since,
                "until": report.until - now,
                "distance": report.distance,
                "ago": now - made,
            }

        if not self._is_closed:
            self._queue.append(_Request(REPORTS[report.news], values))
            self._look_at = -inf
            self._serve_soon()

    async def aclose(self) -> None:
        """Send the reports that are on their way if the database is there, and end. Doing it twice does nothing."""
        if self._queue and self._connection.is_made:
            with suppress(TimeoutError, InvoicingError):
                async with asyncio.timeout(PARTING):
                    await self._asked(LOOK, dict)  # what is asked before it is done before it
        self._is_closed = True
        self._listeners.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._connection.close()
        self._fail(self._closed_error())

    def _closed_error(self) -> SessionError:
        return SessionError("the run whose limits these are is closed")

    async def _asked(self, statement: str, values: Callable[[], Mapping[str, object]]) -> Rows:
        if self._is_closed:
            raise self._closed_error()
        request = _Request(statement, values, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._serve_soon()
        assert request.answer is not None  # noqa: S101 - it was made above; for the type checker
        return await request.answer

    def _serve_soon(self) -> None:
        if self._is_closed:
            raise self._closed_error()
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = started(self._serve())

    async def _serve(self) -> None:
        wait = FIRST_RETRY
        while True:
            request = await self._next()
            if request.answer is not None and request.answer.done():
                self._queue.popleft()  # whoever asked gave up
                continue
            try:
                rows = await self._connection.execute(request.statement, request.values)
            except (LedgerAwayError, OSError) as error:  # a time-out is an OSError
                if wait == FIRST_RETRY:
                    _log.warning("the rate and the pauses of the run are not shared until this is over: %s", error)
                await self._connection.close()
                await self._clock.sleep(wait)
                wait = min(LAST_RETRY, 2 * wait)
            except InvoicingError as error:
                _log.warning("the rate and the pauses of the run are not shared: %s", error)
                await self._connection.close()
                self._fail(error)
                await self._clock.sleep(wait)
            else:
                wait = FIRST_RETRY
                self._answer(request, rows)

    async def _next(self) -> _Request:
        """Return what is asked, else after a while a look; what is returned is still in the queue."""
        while not self._queue:
            self._wake.clear()
            left = self._look_at - self._clock.monotonic() if self._listeners else None
            if left is not None and left <= 0:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()
        if self._queue:
            return self._queue[0]
        return _Request(LOOK_AND_RENEW if self._probes else LOOK, lambda: {"probes": [*self._probes]})

    def _answer(self, request: _Request, rows: Rows) -> None:
        if self._queue and self._queue[0] is request:
            self._queue.popleft()
        if request.answer is not None and not request.answer.done():
            request.answer.set_result(rows)
        if request.statement in LOOKS:
            # A lease renews no probe: while one is under way there is a look each second beside the leases.
            if request.statement != LEASE or not self._probes:
                self._look_at = self._clock.monotonic() + LOOKING
            if not any(queued.statement in REPORTS.values() for queued in self._queue):
                self._tell(rows)

    def _tell(self, rows: Rows) -> None:
        """Tell of all pauses; what is still to be reported is newer, and heard of with the next look."""
        pauses = {row[3]: self._connection.pause(row) for row in rows if row[3] is not None}
        for hear in [*self._listeners]:
            hear(pauses)

    def _fail(self, error: InvoicingError) -> None:
        """End everything that is asked, with an error."""
        queue, self._queue = self._queue, deque()
        for request in queue:
            if request.answer is not None and not request.answer.done():
                request.answer.set_exception(error)

"""All that goes on in a worker: its shifts, its heartbeat, its planner and the lives of its engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from procrastinate import App

from .._core.clock import RealClock
from .._core.tasks import started
from .._durable.ledgers import server_parameters
from .._durable.records import RunHaltedError
from .._durable.states import RunKind
from ..events import Event, RunHalted
from ._engine import EngineSettings
from ._folder import SharedFolder
from ._lives import EngineLives
from ._options import Options
from ._outlet import Outlet
from ._planner import Planner
from ._queue import JobQueue
from ._shared import Orders, SharedLedger
from ._shift import Shift
from ._shifts import Parts, Shifts
from ._watchdog import Watchdog

__all__ = ["Crew"]

T = TypeVar("T")

HEARTBEAT = "heartbeat"


class Crew(Generic[T]):
    """What works on a run from when it is begun until its end; `outlet` has the results."""

    def __init__(
        self,
        ledger: SharedLedger,
        begin: Callable[[], Shift[T]],
        options: Options,
        tell: Callable[[Event], None],
        folder: SharedFolder,
    ) -> None:
        self._ledger = ledger
        self._folder = folder
        self._options = options
        self._tell = tell
        self._clock = RealClock()
        self._watchdog: Watchdog | None = None
        self.outlet: Outlet[T] = Outlet()
        self.shifts: Shifts[T] = Shifts(begin, self.outlet)
        self.lives = EngineLives(
            EngineSettings(
                parameters=server_parameters(ledger.name),
                is_pooled=options.is_pooled,
                app=options.app,
            ),
            self,
            self._queue,
            name=ledger.name,
            slots=options.slots,
            listen=options.listen and not options.is_pooled,
            clock=self._clock,
            tell=tell,
            sign=self._sign,
        )
        self._planner = Planner(
            self.sweep_intents,
            self.lives,
            every=options.every,
            exports=lambda: self.shifts.exports,
            is_idle=lambda: not (self.parts or self.shifts.is_paused or self.shifts.is_ending),
            tell=tell,
        )
        self.parts: Parts[T] = Parts(self.shifts, self.lives, options.slots, ended=self._planner.nudge)
        self.heartbeat: float | None = None
        self.is_halted = False
        self._shifts_over: asyncio.Task[None]
        self._others: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Be known as a worker of the run, and go to work."""
        await self._obey(await self._beaten())
        self._folder.sign()
        if self._options.watchdog is not None:
            self._watchdog = Watchdog(self._options.watchdog)
        self._shifts_over = started(self.shifts.go_on())
        self._others = [
            started(self._guarded(work))
            for work in (self.keep_beating(), self.plan_until_rest(), self.lives.go_on(), self._folder.sweep())
        ]

    async def plan(self) -> None:
        """See that everything open has a job."""
        await self._planner.plan()

    async def work(self, job: int, run: int, lo: int, hi: int) -> None:
        """Do a job: work on a chunk. The job may be cut off, and then the work goes on without it."""
        if run != self._ledger.run:
            raise ValueError(f"this worker is of run {self._ledger.run}, the job of run {run}")
        try:
            if self.shifts.is_ending:  # keep the job until this worker has ended, so that nobody is in its way
                await asyncio.Event().wait()
            await self.parts.work((lo, hi))
        except asyncio.CancelledError:
            self.let_go(job)
            raise

    def let_go(self, job: int) -> None:
        """Take a job away with the next plan: it may not have been ended in the queue, and would count as under way."""
        self._planner.cut.add(job)

    async def room(self) -> None:
        """Wait until there is room for another chunk."""
        await self.parts.room()

    def stop(self, *, at_once: bool = False) -> None:
        """Begin nothing more; with `at_once` cut off what is in flight too, and let that be recorded."""
        self.shifts.stop()
        if at_once:
            self._shifts_over.cancel()

    async def end(self) -> None:
        """Let what is in flight finish, and end; cancelled, what is in flight is cut off and recorded first."""
        self.stop()
        try:
            await asyncio.wait([self._shifts_over])
        except asyncio.CancelledError:
            self.stop(at_once=True)
            await asyncio.wait([self._shifts_over])
            raise
        finally:
            await self.parts.close()
            for task in self._others:
                task.cancel()
            await asyncio.wait(self._others)
            if self._watchdog is not None:
                self._watchdog.close()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Let an error that ends a part of the crew end all of it."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whoever takes the results is told
            self.shifts.stop(error)

    async def plan_until_rest(self) -> None:
        """Plan, and end when the run rests."""
        await self._planner.go_on(until_rest=self._options.until_done)
        self.shifts.rest()

    async def keep_beating(self) -> None:
        """Say every few seconds that this worker lives, and do as it is told."""
        while True:
            await self._clock.sleep(self._options.heartbeat)
            await self._obey(await self._beaten())

    async def _beaten(self) -> Orders:
        orders = await self._ledger.beat(doing=self.doing, slots=self._options.slots)
        self.heartbeat = self._clock.now()
        self._sign()
        return orders

    async def _obey(self, orders: Orders) -> None:
        if orders.halted and not self.is_halted:
            self.is_halted = True
            self._tell(RunHalted(run=self._ledger.address.run))
            text = f"run {self._ledger.address.run!r} is halted: its database came back older than it had been"
            self.shifts.stop(RunHaltedError(text))
        self.shifts.pause(orders.paused)

    @property
    def doing(self) -> str:
        """What this worker is at."""
        states = {
            "halted": self.is_halted,
            "stopping": self.shifts.is_ending,
            "paused": self.shifts.is_paused,
            "waiting": not self.lives.is_live,
            "working": len(self.parts) > 0,
        }
        return next((name for name, holds in states.items() if holds), "idle")

    def _queue(self, app: App) -> JobQueue:
        ledger, options = self._ledger, self._options
        return JobQueue(app, ledger.run, ledger.kind, most=options.chunk, slots=options.slots)

    async def sweep_intents(self) -> None:
        """Put in doubt what was sent too long ago."""
        if self._ledger.kind is RunKind.INVOICES:
            await self._ledger.sweep()

    def _sign(self) -> None:
        if self._watchdog is not None:
            self._watchdog.sign(HEARTBEAT)

"""When a run's calls waited because the service was down: heard of the session's lanes, and kept in the run file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Protocol, TypeVar, runtime_checkable

from attrs import astuple, evolve, frozen

from .._core.tasks import started
from ..events import Event, Paused, Resumed
from ..session._feature import Feature
from .protocol import Ledger
from .transaction import Transaction

__all__ = ["Pause", "PauseLog", "write_pause"]

T = TypeVar("T")

_log = logging.getLogger("invoicing_async")


@frozen
class Pause:
    """A pause of the calls of one `operation`, in epoch seconds.

    `until` is its end if `is_over`, else when it was last known to go on: it was given up, or its process died. It is
    never before `begun`, whatever was done to the clock meanwhile.
    """

    operation: str
    begun: float
    until: float
    is_over: bool = False

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "until", max(self.until, self.begun))


@runtime_checkable
class KeepsPauses(Protocol):
    """A ledger that keeps pauses; one that does not has none to show."""

    async def record_pause(self, pause: Pause) -> None: ...


def write_pause(transaction: Transaction, pause: Pause) -> None:
    transaction.execute("INSERT OR REPLACE INTO pauses VALUES (?, ?, ?, ?)", astuple(pause))


class PauseLog:
    """Records the pauses of one run, as they begin, go on and end: nothing waits for that but the end of the work."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._open: dict[tuple[str, str], Pause] = {}
        self._at_work = 0
        self._writing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def of(self, client: Feature) -> AsyncIterator[None]:
        """Record the pauses of a client's calls while the block runs."""
        self._at_work += 1
        try:
            with client.lanes_heard_by(self._hear):
                yield
        finally:
            self._at_work -= 1
            if not self._at_work:  # nobody waits for what goes on: it is known as far as this
                for pause in self._open.values():
                    self._record(evolve(pause, until=self._ledger.now()))
                self._open.clear()
            if self._writing:
                await asyncio.wait(self._writing)

    async def during(self, items: AsyncGenerator[T], *, of: Feature) -> AsyncGenerator[T]:
        """Yield what is yielded, and record the pauses meanwhile."""
        async with self.of(of), aclosing(items):
            async for item in items:
                yield item

    def _hear(self, event: Event) -> None:
        if isinstance(event, Paused):
            now = self._ledger.now()
            known = self._open.get((event.operation, event.store), Pause(event.operation, now, now))
            pause = self._open[event.operation, event.store] = evolve(known, until=now)
            self._record(pause)
        elif isinstance(event, Resumed) and (ended := self._open.pop((event.operation, event.store), None)):
            self._record(evolve(ended, until=self._ledger.now(), is_over=True))

    def _record(self, pause: Pause) -> None:
        if isinstance(self._ledger, KeepsPauses):
            task = started(self._write(self._ledger, pause))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _write(self, ledger: KeepsPauses, pause: Pause) -> None:
        try:
            await ledger.record_pause(pause)
        except Exception as error:  # noqa: BLE001 - a line of a report is no reason to end a run
            _log.warning("a pause of %s could not be recorded: %s", pause.operation, error)

"""When a run's calls waited because the service was down: heard of the session's lanes, and kept in the run file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from attrs import evolve

from .._core.tasks import started
from ..events import Event, Paused, Resumed
from ..session._feature import Feature
from .protocol import Ledger
from .records import Pause

__all__ = ["PauseLog"]

T = TypeVar("T")

_log = logging.getLogger("invoicing_async")


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
        task = started(self._write(pause))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, pause: Pause) -> None:
        try:
            await self._ledger.record_pause(pause)
        except Exception as error:  # noqa: BLE001 - a line of a report is no reason to end a run
            _log.warning("a pause of %s could not be recorded: %s", pause.operation, error)

"""The lives of the engine, one after the other: an engine that ended, for whatever reason, is made anew.

The engine ends quietly when one query of its heartbeat fails (procrastinate #1513, #1591, #1596): its `run` returns,
and the process lives on and fetches nothing. So its end is never taken for an end of the work. What a job does is not
its engine's: it goes on, and a job that comes again for the same chunk joins it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from procrastinate.exceptions import ProcrastinateException

from .._core.clock import Clock
from .._durable.ledgers import ledger_tables, server_error
from .._durable.records import LedgerAwayError, LedgerServerError, RunFileError
from ..events import Event, QueueLost, QueueReconnected
from ._blueprint import ChunkWorker
from ._engine import EngineSettings, opened_app, run_engine
from ._outlook import Chunk
from ._queue import JobQueue

__all__ = ["EngineLives"]

_log = logging.getLogger("invoicing_async")

T = TypeVar("T")

FIRST, CEILING = 0.2, 4.0
"""Seconds before the engine is made anew, at first and at most, give or take half of them.

So few that a run is as fast as before ten seconds after its database is back, however long that was away.
"""

MANY = 20
"""How often one engine's queue may refuse the same before that is taken for good."""

GIVEN_UP = 60.0
"""Seconds for which one engine after the other ends by what waiting does not mend, before there is no other."""

ASKED = 5.0
"""Seconds that the database has to say whether it is there."""

LONG = 30.0
"""Seconds after which a life was a long one, so that the next begins soon."""


class EngineLives:
    """Keeps an engine at work for the run of this name.

    `sign` is called when it is known whether the database can be reached.
    """

    def __init__(
        self,
        settings: EngineSettings,
        worker: ChunkWorker,
        queue: Callable[..., JobQueue],
        *,
        name: str,
        slots: int,
        listen: bool,
        clock: Clock,
        tell: Callable[[Event], None],
        sign: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._queue = queue
        self._name = name
        self._slots = slots
        self._listen = listen
        self._clock = clock
        self._tell = tell
        self._sign = sign
        self._live: asyncio.Future[JobQueue] = asyncio.get_running_loop().create_future()
        self._lost_at: float | None = None
        self._wrong_since: float | None = None
        self.count = 0

    @property
    def is_live(self) -> bool:
        """Whether there is an engine at this moment."""
        return self._live.done()

    async def asked(self, ask: Callable[[JobQueue], Awaitable[T]]) -> T:
        """Ask the queue, for as long as the database takes. Raises what it meets again and again in one life."""
        met: tuple[JobQueue | None, int] = (None, 0)
        while True:
            queue = await asyncio.shield(self._live)
            try:
                return await ask(queue)
            except ProcrastinateException as error:
                times = met[1] + 1 if met[0] is queue else 1
                met = (queue, times)
                if times > MANY:
                    raise self._for_good(error) from error
                _log.info("the queue did not answer, it is asked again: %s", error.__cause__ or error)
                await self._clock.sleep(FIRST * times)

    async def left_open(self, chunk: Chunk, *, export: bool) -> dict[str, str]:
        """Return what a chunk still has to do: each open item by its key, with a mark of how it stands."""
        return await self.asked(lambda queue: queue.left_open(chunk, export=export))

    async def walked(self, chunk: Chunk, left: dict[str, str]) -> None:
        """Note that a chunk was worked through, and as what its open items were left."""
        await self.asked(lambda queue: queue.walked(chunk, left))

    async def go_on(self) -> None:
        """Keep an engine at work until this is cancelled. Raises what no other engine would be spared."""
        wait = FIRST
        while True:
            begun = self._clock.monotonic()
            error: Exception | None = None
            try:
                async with self._life() as (app_queue, run):
                    self._begun(app_queue)
                    await run()
            except Exception as caught:
                if self.count == 0 and isinstance(caught, (LedgerServerError, ValueError)):
                    raise  # there never was a queue
                error = caught
            self._sign()
            self._lost(error)
            is_long = self._clock.monotonic() - begun > LONG
            await self._count_wrong(error, is_long=is_long)
            self._sign()
            wait = FIRST if is_long else min(CEILING, 2 * wait)
            await self._clock.sleep(wait * (0.5 + self._clock.random()))

    async def _count_wrong(self, error: Exception | None, *, is_long: bool) -> None:
        """Raise `LedgerServerError` when nothing but trouble was met for long that does not pass by itself."""
        if is_long or await self._is_away(error):
            self._wrong_since = None
            return
        now = self._clock.monotonic()
        self._wrong_since = self._wrong_since or now
        if now - self._wrong_since > GIVEN_UP:
            raise self._for_good(error) from error

    async def _is_away(self, error: Exception | None) -> bool:
        """Tell whether an engine ended since the database is away; where its error does not say, it is asked."""
        said = self._said(error)
        if isinstance(said, LedgerServerError) and not isinstance(said, LedgerAwayError):
            return False
        try:
            async with asyncio.timeout(ASKED):
                await ledger_tables(self._name)
        except (LedgerAwayError, TimeoutError):
            return True
        except RunFileError:
            return False
        return isinstance(said, LedgerAwayError)

    def _for_good(self, error: Exception | None) -> LedgerServerError:
        why = self._said(error) or "its engine ends at once"
        return LedgerServerError(f"the queue of {self._name} cannot be worked with: {why}")

    def _said(self, error: Exception | None) -> Exception | None:
        """Return what the database says in an error, in our words, or the error itself."""
        return error and (server_error(error, self._name) or error)

    @asynccontextmanager
    async def _life(self) -> AsyncIterator[tuple[JobQueue, Callable[[], Awaitable[None]]]]:
        async with opened_app(self._settings) as app:
            queue = self._queue(app)

            async def run() -> None:
                await run_engine(app, self._worker, queue.name, slots=self._slots, listen=self._listen)

            try:
                yield queue, run
            finally:
                self._live = asyncio.get_running_loop().create_future()

    def _begun(self, queue: JobQueue) -> None:
        self.count += 1
        self._live.set_result(queue)
        if self._lost_at is not None:
            self._tell(QueueReconnected(away=self._clock.monotonic() - self._lost_at))
            self._lost_at = None

    def _lost(self, error: Exception | None) -> None:
        if self._lost_at is None:
            self._lost_at = self._clock.monotonic()
            self._tell(QueueLost(error=error))

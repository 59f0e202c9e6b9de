"""The connection by which a process shares the lanes of a run, and the database's time as its answers tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, TypeAlias

from attrs import define, field
from psycopg import Error

from ..._core.clock import Clock
from ..._core.shared_lanes import LanePause
from .connection import Connection
from .errors import translate_error
from .lane_statements import LOOKS

__all__ = ["Connect", "LaneConnection", "Reckoning", "Rows"]

PATIENCE = 10.0
"""Seconds that an answer may take: all of these statements do little, and wait for each other alone."""

Connect: TypeAlias = Callable[[], Awaitable[Connection]]
Rows: TypeAlias = Sequence[tuple[Any, ...]]


@define
class Reckoning:
    """The database's time in terms of this process's monotonic clock: pure.

    An answer that was given between two moments here says where the database's time was between them; the narrowest
    counts, until one contradicts it: then one of the clocks stood still or was set.
    """

    _ahead: float = 0.0
    _width: float = inf

    def learn(self, at: float, *, sent: float, received: float) -> None:
        """Take in that it was `at` there at some moment between the two."""
        width, ahead = received - sent, at - (sent + received) / 2
        if width <= self._width or abs(ahead - self._ahead) > (width + self._width) / 2:
            self._ahead, self._width = ahead, width

    def here(self, at: float) -> float:
        """Return the monotonic time of one of the database's."""
        return at - self._ahead


@define(eq=False)
class LaneConnection:
    """Connects when it is first needed, and again after `close`."""

    _connect: Connect
    run: int
    worker: int
    _clock: Clock
    time: Reckoning = field(factory=Reckoning, init=False)
    took: float = field(default=0.0, init=False)
    """The seconds that the last lease or look took."""
    _connection: Connection | None = field(default=None, init=False)

    @property
    def is_made(self) -> bool:
        """True if there is a connection, as far as is known."""
        return self._connection is not None

    async def execute(self, statement: str, values: Callable[[], Mapping[str, object]]) -> Rows:
        """Execute a statement, with its values as they are once there is a connection, and return its rows.

        Raises `LedgerServerError`, `LedgerAwayError` among them, and `TimeoutError`.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                if self._connection is None:
                    self._connection = await self._connect()
                sent = self._clock.monotonic()
                parameters = {"run": self.run, "worker": self.worker, **values()}
                cursor = await self._connection.execute(statement, parameters)
                rows = await cursor.fetchall() if cursor.description else []
                received = self._clock.monotonic()
        except Error as error:
            raise translate_error(error, "the run") from error
        if statement in LOOKS:
            self.time.learn(rows[0][0], sent=sent, received=received)
            self.took = received - sent
        return rows

    def pause(self, row: tuple[Any, ...]) -> LanePause:
        """Return what a row of a lease or a look says of its lane."""
        since, next_probe, distance, probe_by, probed_until, held_until = row[4:]
        here = self.time.here
        return LanePause(
            since=None if since is None else here(since),
            next_probe=-inf if next_probe is None else here(next_probe),
            distance=distance or 0.0,
            probed_until=-inf if probed_until is None or probe_by == self.worker else here(probed_until),
            held_until=-inf if held_until is None else here(held_until),
        )

    async def close(self) -> None:
        """Let the connection go."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Error, OSError):
                await connection.close()

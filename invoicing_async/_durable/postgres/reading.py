"""The connection that a run is read by: made anew when it was lost, and one of its own for what reads for long."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from ..._core.clock import Clock, RealClock
from ..address import ServerAddress
from ..records import LedgerAwayError, RunFileError
from .connection import Connection, open_connection
from .errors import database_errors

__all__ = ["IN_ORDER", "Reading"]

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds between two tries to reach a database that is away: the first, doubled until the longest."""

IN_ORDER = b"SET enable_bitmapscan = off"
"""Lets a page be read in the order of an index: where few rows are expected and many are there, all would be sorted."""

_log = logging.getLogger("invoicing_async")

Row = tuple[Any, ...]
Values = Mapping[str, object]


class Reading:
    """Reads by one connection, statement after statement, in autocommit.

    With `waits` a read lasts as long as the database is away; without, it is tried once more on a new connection, and
    then fails.
    """

    def __init__(
        self,
        address: ServerAddress,
        *,
        waits: bool,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.address = address
        self._environ = dict(os.environ if environ is None else environ)
        self._waits = waits
        self._ticks = RealClock() if clock is None else clock
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._is_closed = False
        self._is_away = False
        """Whether it was told that the database is away, for all who wait for it."""

    async def rows(self, sql: str, values: Values) -> list[Row]:
        """Return all rows of a statement. Raises as `open_connection`, and `RunFileError` when it is closed."""
        wait, tries = FIRST_WAIT, 0
        while True:
            try:
                rows = await self._rows(sql, values)
            except LedgerAwayError as error:
                tries += 1
                if not self._waits and tries > 1:
                    raise
                if self._waits and tries > 1:
                    if not self._is_away:
                        self._is_away = True
                        _log.warning("%s; reading waits until it is back", error.message)
                    await self._ticks.sleep(wait)
                    wait = min(2 * wait, LONGEST_WAIT)
            else:
                if self._is_away:
                    self._is_away = False
                    _log.warning("the database of %s is back: reading goes on", self.address.text)
                return rows

    async def _rows(self, sql: str, values: Values) -> list[Row]:
        async with self._opening:
            if self._is_closed:
                raise RunFileError(f"{self.address.text} is closed")
            if self._connection is None or self._connection.closed:
                self._connection = await open_connection(self.address, environ=self._environ)
                if self._connection.prepare_threshold is not None:  # else it would be set for whoever has it next
                    with database_errors(self.address.text):
                        await self._connection.execute(IN_ORDER)
            connection = self._connection
        with database_errors(self.address.text):
            return await (await connection.execute(sql.encode(), values)).fetchall()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Read everything as it is at one moment, by a connection of its own, which disturbs nobody."""
        if self._is_closed:
            raise RunFileError(f"{self.address.text} is closed")
        with database_errors(self.address.text):
            async with await open_connection(self.address, environ=self._environ) as connection:
                await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield connection

    async def close(self) -> None:
        """Let go. Closing twice does nothing."""
        self._is_closed = True
        async with self._opening:
            if self._connection is not None:
                await self._connection.close()

"""What a group of operations is recorded with: the connection for writing, and whose group it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias

from attrs import define, field, frozen
from psycopg import AsyncRawCursor

from ..._core.clock import Clock
from .arrays import storable
from .connection import Connection

__all__ = ["Answer", "DatabaseClock", "Group", "Job", "Operation", "Session", "TurnLostError", "UndoneError", "Worker"]

Value: TypeAlias = str | int | float | None


class TurnLostError(Exception):
    """The counter of this worker's groups does not stand where it was left: what was lost may have been done."""


class UndoneError(Exception):
    """A group of one operation failed by the operation's own `error`, and nothing of it was recorded."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@frozen
class Worker:
    """Whoever has a run open to work on it, as it is registered; `started` is in microseconds of the epoch.

    In a database that came back older another may have been given its number since: that one differs in the rest.
    """

    number: int
    host: str
    pid: int
    version: str
    started: int = 0

    def said(self) -> tuple[str, int, int]:
        """Return what tells it from any other."""
        return self.host, self.pid, self.started


@define(eq=False)
class DatabaseClock:
    """The database's time, as far as the last answers tell; with a clock (in tests) that clock's."""

    given: Clock | None
    host: Clock
    offset: float = field(default=0.0, init=False)

    def now(self) -> float:
        return self.host.now() + self.offset if self.given is None else self.given.now()

    def parameter(self) -> float | None:
        """Return what statements take as the time: nothing, so that they ask the database, or a clock's."""
        return None if self.given is None else self.given.now()

    def learn(self, at: float, *, asked: float) -> None:
        """Take in that it was `at` there at some moment between `asked` and now, both by the host's clock."""
        self.offset = min(max(self.offset, at - self.host.now()), at - asked)


@define(eq=False)
class Session:
    """The connection for writing as it is at this moment, and the group that is recorded on it."""

    connection: Connection
    run: int
    worker: int
    number: int
    clock: DatabaseClock
    verifies: bool = False
    """Whether each change is looked at before it is made, since an index has refused one of many."""
    _cursor: AsyncRawCursor[tuple[Any, ...]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._cursor = AsyncRawCursor(self.connection)

    async def rows(self, statement: bytes, *values: Value) -> list[tuple[Any, ...]]:
        """Execute a statement; its values go as text, so that each statement is prepared once."""
        cursor = await self._cursor.execute(
            statement, [None if value is None else storable(str(value)) for value in values]
        )
        return await cursor.fetchall() if cursor.description else []

    async def row(self, statement: bytes, *values: Value) -> tuple[Any, ...] | None:
        """Execute a statement of one row at most."""
        rows = await self.rows(statement, *values)
        return rows[0] if rows else None


Operation: TypeAlias = Callable[[Session], Awaitable[Any]]
"""What is done in a transaction of its own. It may be done again, from its beginning, if the connection is lost."""


@define(eq=False)
class Job:
    """An operation and whoever waits for it."""

    operation: Any
    future: asyncio.Future[Any]


@frozen
class Answer:
    """What came of an operation."""

    job: Job
    result: Any = None
    error: Exception | None = None


class Group(Protocol):
    """Operations that are recorded in one transaction."""

    @property
    def jobs(self) -> Sequence[Job]:
        """Each operation, with whoever waits for it."""

    async def record(self, session: Session) -> list[Answer]:
        """Do it all, once. Raises `TurnLostError`, `UndoneError`, and the errors of psycopg."""

    async def recall(self, session: Session) -> list[Answer]:
        """Return the answers to what was recorded before its answer was lost; what is missing was not done."""

    def apart(self) -> list[Group]:
        """Return a group for each operation."""

"""What an operation works with inside the writer's thread: the connection, the time, the counts not yet written."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from itertools import chain
from typing import Any, TypeAlias, TypeVar

from .._core.clock import Clock
from .integrity import Log
from .records import Item, one_line
from .schema import WITH_PAYLOAD
from .states import Event, State

__all__ = [
    "NOTHING_LEARNED",
    "SENDING",
    "TEXT",
    "TOGETHER",
    "Answer",
    "Job",
    "Operation",
    "Transaction",
    "current_of",
    "find_item",
    "in_parts",
    "insert_rows",
    "one_line",
    "store_meta",
]

T = TypeVar("T")


TOGETHER = 256
"""Rows of one statement."""


class Transaction:
    """The connection, the time, the counts not yet written: what an operation works with inside the thread."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, log: Log) -> None:
        self.log = log
        self.connection = connection
        self.execute = connection.execute
        self.now = clock.now
        self.unique_requests = False
        """True where an index lets no two items have one request id, so that nothing need be read before a change."""
        self.counts: defaultdict[str, int] = defaultdict(int)
        """By how much this transaction changes the number of items in each state."""
        self.current: dict[int, tuple[str, int]] = {}
        """The state and attempt, as committed, of items that are about to be sent or are being sent: what is most
        often looked for."""
        self.noted: set[int] = set()
        """The items of which the service accepted a request beside their own; they are never sent again. One that could
        not be written down stays here: what is known of it is known."""
        self.changed: dict[int, int | None] = {}
        """The attempt of each item that is being sent after this transaction, None for any other that it changes."""

    def one(self, sql: str, *values: object) -> Any:
        row = self.execute(sql, values).fetchone()
        return row[0] if row else None

    def begin(self) -> None:
        self.counts, self.changed = defaultdict(int), {}

    def remember(self, changed: Mapping[int, int | None]) -> None:
        """Keep at hand what was committed of these items: the attempt of those being sent, nothing of the others."""
        for seq, attempt in changed.items():
            if attempt is None:
                self.current.pop(seq, None)
            else:
                self.current[seq] = SENDING, attempt

    def flush(self) -> None:
        """Write the counts."""
        rows = [(change, state) for state, change in self.counts.items() if change]
        if rows:
            self.connection.executemany("UPDATE tally SET count = count + ? WHERE state = ?", rows)
        self.counts.clear()


Operation: TypeAlias = Callable[[Transaction], Any]


Job: TypeAlias = tuple["asyncio.Future[Any]", Operation]


Answer: TypeAlias = tuple["asyncio.Future[Any]", Any, Exception | None]


def find_item(transaction: Transaction, ref: int | str) -> Item | None:
    column = "seq" if isinstance(ref, int) else "key"
    row = transaction.execute(f"{WITH_PAYLOAD} WHERE i.{column} = ?", (ref,)).fetchone()
    return Item(*row) if row else None


def current_of(transaction: Transaction, ref: int | str) -> tuple[int, str, int]:
    """Return the seq, state and attempt of an item: reading and writing whole rows costs twice the time."""
    column = "seq" if isinstance(ref, int) else "key"
    sql = f"SELECT seq, state, attempt FROM items WHERE {column} = ?"  # noqa: S608 - one of two constants
    row: tuple[int, str, int] | None = transaction.execute(sql, (ref,)).fetchone()
    if row is None:
        raise ValueError(f"this run has no item {ref!r}")
    return row


def store_meta(transaction: Transaction, name: str, value: str) -> None:
    transaction.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


TEXT: dict[StrEnum, str] = {member: member.value for kind in (State, Event) for member in kind}


SENDING = TEXT[State.SENDING]


NOTHING_LEARNED = (None,) * 8


def insert_rows(transaction: Transaction, into: str, rows: list[tuple[Any, ...]], more: str = "") -> None:
    """Insert rows, many in one statement; `more` is what each has beside."""
    # Filled up with rows that mean nothing, so that there are few different statements.
    for part in in_parts(rows, filler=(None,) * len(rows[0]) if rows else None):
        values = ",".join(["(" + ",".join("?" * len(part[0])) + ")"] * len(part))
        sql = f"INSERT INTO {into} SELECT *{more} FROM (VALUES {values}) WHERE column1 IS NOT NULL"  # noqa: S608 - made of constants
        transaction.execute(sql, tuple(chain.from_iterable(part)))


def in_parts(rows: list[T], filler: T | None = None) -> Iterator[list[T]]:
    """Cut rows into parts, the last filled up with `filler`, or its own last row, to one of a few dozen sizes."""
    for at in range(0, len(rows), TOGETHER):
        part = rows[at : at + TOGETHER]
        step = 1 << max(0, len(part).bit_length() - 4)
        yield part + [part[-1] if filler is None else filler] * (-len(part) % step)

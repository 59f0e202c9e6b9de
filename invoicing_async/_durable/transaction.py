"""What an operation works with inside the writer's thread: the connection, the time, the counts not yet written."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cache
from itertools import chain
from typing import Any, TypeAlias, TypeVar

from .._core.clock import Clock
from .integrity import Log
from .records import Item
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
    "find_item",
    "in_parts",
    "insert_rows",
    "one_line",
    "standing_of",
]

T = TypeVar("T")


TOGETHER = 256
"""Rows of one statement."""


class Transaction:
    """What an operation works with, inside the thread: the connection, the time, the counts not yet written."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, log: Log) -> None:
        self.log = log
        self.connection = connection
        self.execute = connection.execute
        self.now = clock.now
        self.tally: dict[str, int] = {}
        self.standing: dict[int, tuple[str, int]] = {}
        """The state and attempt, as committed, of items that are about to be sent or are being sent: what is most
        often looked for."""
        self.moved: dict[int, int | None] = {}
        """The attempt of each item that this transaction makes one that is being sent, None for any other it moves."""

    def one(self, sql: str, *values: object) -> Any:
        row = self.execute(sql, values).fetchone()
        return row[0] if row else None

    def count(self, state: str, change: int) -> None:
        self.tally[state] = self.tally.get(state, 0) + change

    def move(self, before: str, after: str) -> None:
        if before != after:
            tally = self.tally
            tally[before] = tally.get(before, 0) - 1
            tally[after] = tally.get(after, 0) + 1

    def begin(self) -> None:
        self.tally, self.moved = {}, {}

    def committed(self) -> None:
        for seq, attempt in self.moved.items():
            if attempt is None:
                self.standing.pop(seq, None)
            else:
                self.standing[seq] = SENDING, attempt

    def counted(self) -> list[tuple[Any, ...]]:
        """Return the counts not yet written as rows of `moves`."""
        tally, self.tally = self.tally, {}
        more = (None, None, *NOTHING_LEARNED, None, None)
        return [(0, state, change, *more) for state, change in tally.items() if change]

    def flush(self) -> None:
        moved = [(change, state) for state, change in self.tally.items() if change]
        if moved:
            self.connection.executemany("UPDATE tally SET count = count + ? WHERE state = ?", moved)
        self.tally = {}


Operation: TypeAlias = Callable[[Transaction], Any]


Job: TypeAlias = tuple["asyncio.Future[Any]", Operation]


Answer: TypeAlias = tuple["asyncio.Future[Any]", Any, Exception | None]


def find_item(transaction: Transaction, ref: int | str) -> Item | None:
    row = transaction.execute(f"{WITH_PAYLOAD} WHERE i.{_column(ref)} = ?", (ref,)).fetchone()
    return Item(*row) if row else None


def _column(ref: int | str) -> str:
    return "seq" if isinstance(ref, int) else "key"


def standing_of(transaction: Transaction, ref: int | str) -> tuple[int, str, int]:
    """The seq, state and attempt of an item: reading and writing whole rows costs twice the time."""
    sql = f"SELECT seq, state, attempt FROM items WHERE {_column(ref)} = ?"  # noqa: S608 - one of two constants
    row: tuple[int, str, int] | None = transaction.execute(sql, (ref,)).fetchone()
    if row is None:
        raise ValueError(f"this run has no item {ref!r}")
    return row


TEXT: dict[StrEnum, str] = {member: member.value for kind in (State, Event) for member in kind}


SENDING = TEXT[State.SENDING]


NOTHING_LEARNED = (None,) * 8


def insert_rows(transaction: Transaction, into: str, rows: list[tuple[Any, ...]], more: str = "") -> None:
    """Insert rows, many in one statement; `more` is what each has beside."""
    # Filled up with rows that mean nothing, so that there are few different statements.
    for part in in_parts(rows, filler=(None,) * len(rows[0]) if rows else None):
        transaction.execute(_insert_sql(into, len(part[0]), len(part), more), tuple(chain.from_iterable(part)))


def in_parts(rows: list[T], filler: T | None = None) -> Iterator[list[T]]:
    """Cut rows into parts, the last filled up with `filler`, or its own last row, to one of a few dozen sizes."""
    for at in range(0, len(rows), TOGETHER):
        part = rows[at : at + TOGETHER]
        step = 1 << max(0, len(part).bit_length() - 4)
        yield part + [part[-1] if filler is None else filler] * (-len(part) % step)


@cache
def _insert_sql(into: str, width: int, count: int, more: str) -> str:
    values = ",".join(["(" + ",".join("?" * width) + ")"] * count)
    return f"INSERT INTO {into} SELECT *{more} FROM (VALUES {values}) WHERE column1 IS NOT NULL"  # noqa: S608 - made of constants


def one_line(text: str | None) -> str | None:
    return None if text is None else " ".join(text.split())[:1000]

"""Taking in a run that was kept elsewhere, by COPY: one transaction, however large the run is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias

from attrs import define, field
from psycopg.errors import UniqueViolation

from ..address import ServerAddress
from ..importing import ImportedRun
from ..protocol import LedgerReader
from ..records import RunFileError, json_text
from ..states import RunKind
from .connection import Connection, open_connection
from .errors import database_errors

__all__ = ["PostgresTaker", "open_taker"]

Row: TypeAlias = tuple[Any, ...]

PAGE = 5_000
"""Rows that are read from the run at a time."""

_ITEM = (
    "run, seq, key, state, attempt, request_id, other_request_id, invoice_id, path, size, sha256, code, error, result, "
    "payload_sha256, sent_at, updated"
)
_STAGED = """
CREATE TEMP TABLE carried (
    id bigint, item bigint, event text COLLATE "C", at timestamptz, detail text
) ON COMMIT DROP
"""
_JOURNAL = """
INSERT INTO invoicing.journal (run, item, event, attempt, at, detail)
SELECT %s, item, event, count(*) FILTER (WHERE event = 'intent') OVER (PARTITION BY item ORDER BY id), at, detail
FROM carried ORDER BY id
"""
"""An entry of a file says nothing of its attempt: that is the number of intents up to it."""

_TALLY = """
INSERT INTO invoicing.tally (run, state, worker, count)
SELECT run, state, 0, count(*) FROM invoicing.items WHERE run = %s GROUP BY run, state
RETURNING state, count
"""
_LAST = """
UPDATE invoicing.runs SET last_seq = coalesce((SELECT max(seq) FROM invoicing.items WHERE run = %(run)s), 0)
WHERE run = %(run)s
"""
_RUN = """
INSERT INTO invoicing.runs (name, kind, settings, created, late, last_seq, last_command)
VALUES (%s, %s, %s, %s, %s, 0, 1) RETURNING run
"""
_FOUND = """
SELECT kind, extract(epoch FROM created)::double precision,
    (SELECT coalesce(sum(count), 0) FROM invoicing.tally WHERE tally.run = runs.run),
    (SELECT count(*) FROM invoicing.journal WHERE journal.run = runs.run)
FROM invoicing.runs WHERE name = %s
"""
SAME = 1e-5
"""Seconds by which the moment that a run was made may differ: the database keeps microseconds."""


@asynccontextmanager
async def open_taker(address: ServerAddress) -> AsyncIterator[PostgresTaker]:
    """Connect to where a run is to be. Raises as `open_connection` does."""
    connection = await open_connection(address, to_write=True)
    try:
        yield PostgresTaker(address, connection)
    finally:
        await connection.close()


@define
class PostgresTaker:
    """The place on a server where a run is to be. `may_be_there` is as `RunTaker` has it."""

    _where: ServerAddress
    _connection: Connection
    may_be_there: bool = field(default=False, init=False)

    @property
    def address(self) -> str:
        """What commands name the run by here."""
        return self._where.text

    async def has(self, source: LedgerReader) -> ImportedRun | None:
        """Return what is here of this very run, None if nothing is. Raises `RunFileError` for another of its name."""
        with database_errors(self.address):
            found = await self._rows(_FOUND, (self._where.run,))
        if not found:
            return None
        [(kind, created, items, entries)] = found
        if kind != source.kind.value or abs(created - source.created) > SAME:
            raise self._taken()
        return ImportedRun(to=self.address, kind=source.kind, items=int(items), entries=entries, known=True)

    async def take(self, source: LedgerReader, *, sealed: Callable[[], Awaitable[None]]) -> ImportedRun:
        """Take in all of a run in one transaction, and wait for `sealed` before it is committed."""
        with database_errors(self.address):
            await self._connection.execute("BEGIN")
            try:
                taken = await self._taken_in(source)
                await sealed()
            except UniqueViolation as error:
                await self._connection.execute("ROLLBACK")
                if error.diag.constraint_name != "items_request":
                    raise self._taken() from error
                text = f"two items of {source.name} have one request id, which no run on a server may have"
                raise RunFileError(text) from error
            except BaseException:
                await self._connection.close()  # and with it goes what was not committed
                raise
            self.may_be_there = True
            await self._connection.execute("COMMIT")
        return taken

    async def _taken_in(self, source: LedgerReader) -> ImportedRun:
        values = (self._where.run, source.kind.value, json_text(source.settings), _moment(source.created), source.late)
        [(run,)] = await self._rows(_RUN, values)
        items = await self._copied(f"invoicing.items ({_ITEM})", items_of(run, source))
        entries = 0
        if source.kind is RunKind.INVOICES:
            await self._copied("invoicing.drafts (run, seq, payload)", drafts_of(run, source))
            await self._connection.execute(_STAGED)
            entries = await self._copied("carried (id, item, event, at, detail)", entries_of(source))
            await self._connection.execute(_JOURNAL, (run,))
        else:
            await self._copied("invoicing.duplicates (run, command, key, times)", duplicates_of(run, source))
        await self._copied("invoicing.pauses (run, operation, begun, until, is_over)", pauses_of(run, source))
        await self._connection.execute(_LAST, {"run": run})
        here: dict[str, int] = dict(await self._rows(_TALLY, (run,)))
        if here != (there := {state: count for state, count in (await source.counts()).items() if count}):
            raise RunFileError(f"{source.name} counts {there} items, and holds {here}: nothing was carried over")
        return ImportedRun(to=self.address, kind=source.kind, items=items, entries=entries)

    async def _copied(self, into: str, rows: AsyncIterator[Row]) -> int:
        count = 0
        async with self._connection.cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN") as copy:
            async for row in rows:
                await copy.write_row(row)
                count += 1
        return count

    async def _rows(self, sql: str, values: tuple[Any, ...]) -> list[Row]:
        return await (await self._connection.execute(sql.encode(), values)).fetchall()

    def _taken(self) -> RunFileError:
        error = RunFileError(f"there is a run at {self.address} already: nothing was carried over")
        error.hint = "Give the run another name there."
        return error


async def items_of(run: int, source: LedgerReader) -> AsyncIterator[Row]:
    async with aclosing(source.items()) as items:
        async for item in items:
            learned = (item.request_id, item.other_request_id, item.invoice_id, item.path, item.size, item.sha256)
            said = (_text(item.code), _text(item.error), _text(item.result), item.payload_sha256)
            times = (None if item.sent_at is None else _moment(item.sent_at), _moment(item.updated))
            yield run, item.seq, item.key, item.state, item.attempt, *learned, *said, *times


async def drafts_of(run: int, source: LedgerReader) -> AsyncIterator[Row]:
    async with aclosing(source.items(payload=True)) as items:
        async for item in items:
            if item.payload is not None:
                yield run, item.seq, _text(item.payload)


async def entries_of(source: LedgerReader) -> AsyncIterator[Row]:
    after = 0
    while page := await source.journal(after=after, limit=PAGE):
        for entry in page:
            detail = json_text(entry.detail) if entry.detail else None
            yield entry.seq, entry.item, entry.event.value, _moment(entry.at), detail
        after = page[-1].seq


async def duplicates_of(run: int, source: LedgerReader) -> AsyncIterator[Row]:
    after = ""
    while page := await source.duplicates(after=after, limit=PAGE):
        for key, times in page:
            yield run, 1, key, times
        after = page[-1][0]


async def pauses_of(run: int, source: LedgerReader) -> AsyncIterator[Row]:
    for pause in await source.pauses():
        yield run, pause.operation, _moment(pause.begun), _moment(pause.until), pause.is_over


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _text(text: str | None) -> str | None:
    """Return a text as the database can keep it: it has no NUL."""
    return None if text is None else text.replace("\0", "\N{REPLACEMENT CHARACTER}")

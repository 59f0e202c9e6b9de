"""Taking in a run that was kept elsewhere, by COPY: one transaction, however large the run is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from attrs import define, field
from psycopg.errors import UniqueViolation

from ..address import ServerAddress
from ..importing import ImportedRun
from ..protocol import LedgerReader
from ..records import Item, RunFileError, json_text
from ..states import RunKind
from .connection import Connection, open_connection
from .errors import database_errors

__all__ = ["PostgresTaker", "open_taker"]

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
            row = await (await self._connection.execute(_FOUND, (self._where.run,))).fetchone()
        if row is None:
            return None
        kind, created, items, entries = row
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
                raise self._refused(error, source) from error
            except BaseException:
                await self._connection.close()  # and with it goes what was not committed
                raise
            self.may_be_there = True
            await self._connection.execute("COMMIT")
        return taken

    async def _taken_in(self, source: LedgerReader) -> ImportedRun:
        created = _moment(source.created)
        settings = json_text(source.settings)
        values = (self._where.run, source.kind.value, settings, created, source.late)
        row = await (await self._connection.execute(_RUN, values)).fetchone()
        assert row is not None  # noqa: S101 - RETURNING always has one; for the type checker
        run: int = row[0]
        items = await self._items(run, source)
        entries = 0
        if source.kind is RunKind.INVOICES:
            await self._drafts(run, source)
            entries = await self._journal(run, source)
        else:
            await self._duplicates(run, source)
        await self._pauses(run, source)
        await self._connection.execute(_TALLY, (run,))
        await self._compare(run, source)
        return ImportedRun(to=self.address, kind=source.kind, items=items, entries=entries)

    async def _copied(self, into: str, rows: AsyncIterator[Iterable[Any]]) -> int:
        count = 0
        async with self._connection.cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN") as copy:
            async for row in rows:
                await copy.write_row(tuple(row))
                count += 1
        return count

    async def _items(self, run: int, source: LedgerReader) -> int:
        async def rows() -> AsyncIterator[Iterable[Any]]:
            async with aclosing(source.items()) as items:
                async for item in items:
                    yield _row(run, item)

        count = await self._copied(f"invoicing.items ({_ITEM})", rows())
        await self._connection.execute(
            "UPDATE invoicing.runs SET last_seq = coalesce((SELECT max(seq) FROM invoicing.items WHERE run = %s), 0) "
            "WHERE run = %s",
            (run, run),
        )
        return count

    async def _drafts(self, run: int, source: LedgerReader) -> None:
        async def rows() -> AsyncIterator[Iterable[Any]]:
            async with aclosing(source.items(payload=True)) as items:
                async for item in items:
                    if item.payload is not None:
                        yield run, item.seq, _text(item.payload)

        await self._copied("invoicing.drafts (run, seq, payload)", rows())

    async def _journal(self, run: int, source: LedgerReader) -> int:
        async def rows() -> AsyncIterator[Iterable[Any]]:
            after = 0
            while page := await source.journal(after=after, limit=PAGE):
                for entry in page:
                    detail = json_text(entry.detail) if entry.detail else None
                    yield entry.seq, entry.item, entry.event.value, _moment(entry.at), detail
                after = page[-1].seq

        await self._connection.execute(_STAGED)
        count = await self._copied("carried (id, item, event, at, detail)", rows())
        await self._connection.execute(_JOURNAL, (run,))
        return count

    async def _duplicates(self, run: int, source: LedgerReader) -> None:
        async def rows() -> AsyncIterator[Iterable[Any]]:
            after = ""
            while page := await source.duplicates(after=after, limit=PAGE):
                for key, times in page:
                    yield run, 1, key, times
                after = page[-1][0]

        await self._copied("invoicing.duplicates (run, command, key, times)", rows())

    async def _pauses(self, run: int, source: LedgerReader) -> None:
        pauses = await source.pauses()

        async def rows() -> AsyncIterator[Iterable[Any]]:
            for pause in pauses:
                yield run, pause.operation, _moment(pause.begun), _moment(pause.until), pause.is_over

        await self._copied("invoicing.pauses (run, operation, begun, until, is_over)", rows())

    async def _compare(self, run: int, source: LedgerReader) -> None:
        """Raise `RunFileError` unless every state has as many items here as there."""
        found = await self._connection.execute("SELECT state, count FROM invoicing.tally WHERE run = %s", (run,))
        here = {state: count for state, count in await found.fetchall() if count}
        there = {state: count for state, count in (await source.counts()).items() if count}
        if here != there:
            raise RunFileError(f"{source.name} counts {there} items, and holds {here}: nothing was carried over")

    def _refused(self, error: UniqueViolation, source: LedgerReader) -> RunFileError:
        if error.diag.constraint_name == "items_request":
            return RunFileError(f"two items of {source.name} have one request id, which no run on a server may have")
        return self._taken()

    def _taken(self) -> RunFileError:
        error = RunFileError(f"there is a run at {self.address} already: nothing was carried over")
        error.hint = "Give the run another name there."
        return error


def _row(run: int, item: Item) -> Iterable[Any]:
    learned = (item.request_id, item.other_request_id, item.invoice_id, item.path, item.size, item.sha256)
    said = (_text(item.code), _text(item.error), _text(item.result), item.payload_sha256)
    sent = None if item.sent_at is None else _moment(item.sent_at)
    return (run, item.seq, item.key, item.state, item.attempt, *learned, *said, sent, _moment(item.updated))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _text(text: str | None) -> str | None:
    """Return a text as the database can keep it: it has no NUL."""
    return None if text is None else text.replace("\0", "\N{REPLACEMENT CHARACTER}")

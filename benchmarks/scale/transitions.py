"""One process that records transitions as fast as it can: `transitions.py KIND WHERE FIRST COUNT WRITERS`.

KIND is a ledger (`postgres`, `sqlite`) or `naive`: psycopg and a commit a row. WHERE is the run's address, or a folder.
Each writer takes the next item and records its three events, one after the other, as a submission does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from processes import Spent, say, wait_for_word

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.protocol import Ledger
from invoicing_async._durable.records import Change, NewDraft
from invoicing_async._durable.states import Event, RunKind

EVENTS = (Event.INTENT, Event.ACCEPTED_NEW, Event.POLL_SUCCESS)
CONNECTIONS = 10
"""Of the naive ledger's pool."""

Record: TypeAlias = Callable[[int, Event], Awaitable[object]]


def request_of(seq: int) -> str:
    return f"00000000-0000-4000-8000-{seq:012x}"


def change(seq: int, event: Event) -> Change:
    request = request_of(seq) if event is Event.ACCEPTED_NEW else None
    return Change(ref=seq, event=event, attempt=0 if event is Event.INTENT else 1, request_id=request)


def recorded_in(ledger: Ledger) -> Record:
    return lambda seq, event: ledger.transition_many((change(seq, event),))


@asynccontextmanager
async def sqlite(folder: str, numbers: Sequence[int]) -> AsyncIterator[Record]:
    async with SqliteLedger.open(Path(folder) / "run.db", kind=RunKind.INVOICES) as ledger:
        await ledger.add_drafts(NewDraft(key=f"ORDER-{seq}", payload="{}", payload_sha256="") for seq in numbers)
        yield recorded_in(ledger)


@asynccontextmanager
async def postgres(where: str, _: Sequence[int]) -> AsyncIterator[Record]:
    from invoicing_async._durable.postgres.ledger import PostgresLedger

    address = run_address(where)
    assert isinstance(address, ServerAddress)
    async with PostgresLedger.open(address) as ledger:
        yield recorded_in(ledger)


@asynccontextmanager
async def naive(where: str, _: Sequence[int]) -> AsyncIterator[Record]:
    """What one would write: a table of items, a pool of connections, a statement and its commit an event."""
    from psycopg_pool import AsyncConnectionPool

    server = where.partition("?run=")[0]
    async with AsyncConnectionPool(
        server, min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs={"autocommit": True}, open=False
    ) as pool:
        async with pool.connection() as connection:
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS naive (key text PRIMARY KEY, state text NOT NULL, request_id text)"
            )

        async def record(seq: int, event: Event) -> None:
            async with pool.connection() as connection:
                if event is Event.INTENT:
                    await connection.execute("INSERT INTO naive VALUES (%s, 'sending')", (f"{where}-{seq}",))
                else:
                    statement = "UPDATE naive SET state = %s, request_id = coalesce(%s, request_id) WHERE key = %s"
                    request = request_of(seq) if event is Event.ACCEPTED_NEW else None
                    await connection.execute(statement, (event.value, request, f"{where}-{seq}"))

        yield record


KINDS = {"sqlite": sqlite, "postgres": postgres, "naive": naive}


async def write(record: Record, numbers: Iterator[int]) -> None:
    for seq in numbers:
        for event in EVENTS:
            await record(seq, event)


async def main(kind: str, where: str, first: int, count: int, writers: int) -> None:
    numbers = range(first, first + count)
    async with KINDS[kind](where, numbers) as record:
        wait_for_word()
        spent, rest = Spent(), iter(numbers)
        with spent:
            await asyncio.gather(*(write(record, rest) for _ in range(writers)))
    say(seconds=spent.seconds, cpu=spent.cpu, transitions=count * len(EVENTS))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))

"""A run of millions of items: how it is made, and what is asked of it.

It stands in the middle of its work: of the first six tenths one in a thousand could not be sent and was left by the
workers before, a hundred are being sent, the rest was saved; the last four tenths are planned. So a planner walks
through every chunk that was left before it comes to what is due.

In a process of its own: `large.py page WHERE COUNT`, and `large.py work WHERE URL SECONDS PLACES`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from statistics import median
from typing import Any

from processes import resident, say, wait_for_word

from invoicing_async import AsyncInvoices
from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.drafts import new_draft
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.states import RunKind
from invoicing_async.runs import InvoiceRun

MADE = """
INSERT INTO invoicing.items (run, seq, key, state, attempt, request_id, path, size, sha256, payload_sha256, sent_at,
    updated)
SELECT %(run)s, seq, 'ORDER-' || seq, state, CASE WHEN state = 'planned' THEN 0 ELSE 1 END,
    CASE WHEN state = 'success' THEN '00000000-0000-4000-8000-' || lpad(to_hex(seq), 12, '0') END,
    CASE WHEN state = 'success' THEN 'made/' || seq || '.pdf' END,
    CASE WHEN state = 'success' THEN 40000 END, CASE WHEN state = 'success' THEN %(digest)s END, %(digest)s,
    CASE WHEN state = 'planned' THEN NULL ELSE now() + interval '1 d' END, now()
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS seq CROSS JOIN LATERAL (SELECT CASE
    WHEN seq > %(items)s * 0.6 THEN 'planned' WHEN seq <= 100 THEN 'sending' WHEN seq %% 1000 = 0 THEN 'not_sent'
    ELSE 'success' END AS state) AS stands
"""
DRAFTS = """
INSERT INTO invoicing.drafts (run, seq, payload)
SELECT run, seq, %s FROM invoicing.items
WHERE run = %s AND state IN ('planned', 'not_sent') AND (state = 'not_sent' OR seq <= %s)
"""
TALLY = """
INSERT INTO invoicing.tally (run, state, worker, count)
SELECT run, state, 0, count(*) FROM invoicing.items WHERE run = %s GROUP BY run, state
"""
WITH_DRAFT = 50_000
"""Planned items that have their draft, so that a worker can send them; the others are never come to."""
PART = 1_000_000


def execute(database: Any, statement: str, values: dict[str, object]) -> None:
    import psycopg

    with psycopg.connect(database.address(run=None), autocommit=True) as connection:
        connection.execute(statement.encode(), values)


def made(database: Any, items: int) -> tuple[str, int]:
    """Make the run; return its address and its number."""
    from invoices import draft

    one = new_draft(draft(1), ())
    [(run,)] = database.psql(
        "INSERT INTO invoicing.runs (name, kind, settings, created, last_seq, late)"
        " VALUES ('large', 'invoices', '{}', clock_timestamp(), %s, 36) RETURNING run",
        items,
    )
    for first in range(1, items + 1, PART):
        last = min(first + PART - 1, items)
        values = {"run": run, "first": first, "last": last, "items": items, "digest": one.payload_sha256}
        execute(database, MADE, values)
    database.psql(DRAFTS, one.payload, run, int(items * 0.6) + WITH_DRAFT)
    database.psql(TALLY, run)
    return database.address("large"), run


def left(database: Any, run: int) -> None:
    """Note that workers before have left what could not be sent, as they do."""
    from invoicing_async.worker import _statements

    database.psql(
        "INSERT INTO invoicing_queue.walks (run, lo, hi, at, left_as)"
        " SELECT run, seq - (seq - 1) % 200, seq - (seq - 1) % 200 + 199, clock_timestamp(),"
        f" md5({_statements._MARK.replace('%', '%%')})"  # noqa: SLF001 - as the planner marks it
        f" FROM invoicing.items WHERE run = {run} AND state = 'not_sent'"
    )


def ledger(where: str, kind: RunKind | None = None) -> Any:
    address = run_address(where)
    assert isinstance(address, ServerAddress)
    return PostgresLedger.open(address, kind=kind)


@asynccontextmanager
async def queue_of(where: str, run: int) -> Any:
    """The queue of a run as a worker's planner has it."""
    import os

    from invoicing_async._durable.postgres.conninfo import connection_parameters
    from invoicing_async.worker._engine import EngineSettings, opened_app
    from invoicing_async.worker._queue import JobQueue

    address = run_address(where)
    assert isinstance(address, ServerAddress)
    async with opened_app(EngineSettings(parameters=connection_parameters(address, os.environ))) as app:
        yield JobQueue(app, run, RunKind.INVOICES, most=200, slots=8)


async def timed(what: Callable[[], Awaitable[object]], times: int) -> tuple[float, float]:
    """Seconds of the first time, and the median of the others."""
    found = []
    for _ in range(times + 1):
        begun = time.perf_counter()
        await what()
        found.append(time.perf_counter() - begun)
    return found[0], median(found[1:])


async def asked(where: str, run: int, times: int) -> dict[str, tuple[float, float]]:
    """How long it takes to plan, to show the run, and to look for what is sent for too long."""
    async with ledger(where) as opened, queue_of(where, run) as queue:
        due = await queue.outlook(export=False)
        assert due.due, "nothing is due"
        return {
            "planner": await timed(lambda: queue.outlook(export=False), times),
            "`runs show`": await timed(opened.standing, times),
            "sweep": await timed(opened.sweep, times),
        }


async def swept(where: str) -> tuple[int, float]:
    """Seconds of a sweep that puts in doubt what was being sent."""
    async with ledger(where) as opened:
        await opened.select(
            "UPDATE invoicing.items SET sent_at = now() - interval '1 h' WHERE run = %(run)s"
            " AND state = 'sending' RETURNING 1"
        )
        begun = time.perf_counter()
        return await opened.sweep(), time.perf_counter() - begun


async def intake(where: str, count: int) -> tuple[float, float]:
    """Seconds that ids take to be taken in by the library, and the same ones again."""
    found = []
    async with ledger(where, RunKind.DOCUMENTS) as opened:
        for _ in range(2):
            begun = time.perf_counter()
            await opened.add_ids(f"ORDER-{number}" for number in range(count))
            found.append(time.perf_counter() - begun)
    return found[0], found[1]


async def page(where: str, count: int) -> None:
    """Memory after a tenth of the items that are read one by one, and after all of them."""
    async with ledger(where) as opened:
        wait_for_word()
        number, early = 0, 0.0
        async with aclosing(opened.items()) as items:
            async for _ in items:
                number += 1
                if number == count // 10:
                    early = resident()
                if number == count:
                    break
        say(items=number, early=early, late=resident())


async def work(where: str, url: str, seconds: float, places: int) -> None:
    """Memory of a worker a third of the time after it began, and at the end."""
    from invoices import POLLER, session

    from invoicing_async.worker import Worker

    async with InvoiceRun.open(where) as run, session(url, run, places) as opened:
        wait_for_word()
        begun, number, early = time.monotonic(), 0, 0.0
        async with Worker(run, AsyncInvoices(opened), poller=POLLER) as worker, aclosing(worker.items()) as items:
            async for _ in items:
                number += 1
                passed = time.monotonic() - begun
                if not early and passed > seconds / 3:
                    early = resident()
                if passed > seconds:
                    break
            late = resident()
    say(items=number, early=early, late=late)


def words() -> Iterator[Any]:
    what, where = sys.argv[1:3]
    if what == "page":
        yield page(where, int(sys.argv[3]))
    else:
        yield work(where, sys.argv[3], float(sys.argv[4]), int(sys.argv[5]))


if __name__ == "__main__":
    asyncio.run(next(words()))

"""The ways of keeping a journal of submissions that the benchmark compares, each run in a process of its own.

`python clients.py NAME URL DRAFTS CONCURRENCY FOLDER` submits the drafts and prints one JSON line: seconds and CPU of
the submission alone, the seconds that taking the drafts in took before, and the records found on disk after.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path

from invoicing_async import (
    AsyncInvoices,
    Consumer,
    InvoiceDraft,
    InvoiceLine,
    InvoiceRequest,
    Limits,
    PaymentMethod,
    Session,
    StaticToken,
    VatRate,
)
from invoicing_async.runs import InvoiceRun

TEMPLATE = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"

SCHEMA = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "CREATE TABLE journal (key TEXT PRIMARY KEY, state TEXT NOT NULL, request_id TEXT)",
)
INTENT = "INSERT INTO journal VALUES (?, 'sending', NULL)"
ANSWER = "UPDATE journal SET state = 'submitted', request_id = ? WHERE key = ?"
FOUND = "SELECT count(*) FROM journal WHERE state = 'submitted'"


def draft(name: str) -> InvoiceDraft:
    line = InvoiceLine(
        name="Rattan desk lamp",
        unit="piece",
        price=Decimal("240000.50"),
        quantity=Decimal(2),
        vat_rate=VatRate.TEN,
        tax_amount=Decimal("48000.10"),
    )
    return InvoiceDraft(
        key=name,
        invoice_template_id=TEMPLATE,
        lines=(line,),
        consumer=Consumer(name="Nguyen Van An", tax_code="0101243150", address="1 Trang Tien, Ha Noi"),
        payment_method=PaymentMethod.BANK_TRANSFER,
    )


def drafts(count: int) -> list[InvoiceDraft]:
    return [draft(f"ORDER-{number:06}") for number in range(count)]


class Spent:
    """Wall and CPU time of a block."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self.cpu, self.seconds = -cpu(), -time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self.cpu += cpu()


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


Result = dict[str, float]
Client = Callable[[AsyncInvoices, list[InvoiceDraft], Path], Awaitable[Result]]


async def without(invoices: AsyncInvoices, found: list[InvoiceDraft], _: Path) -> Result:
    """What everything is compared with: no journal at all."""
    spent, records = Spent(), 0
    with spent:
        async with aclosing(invoices.submit_many(found)) as outcomes:
            async for _ in outcomes:
                records += 1
    return {"seconds": spent.seconds, "cpu": spent.cpu, "taking": 0.0, "records": records}


async def with_run(invoices: AsyncInvoices, found: list[InvoiceDraft], folder: Path) -> Result:
    """The library's own run file."""
    spent, taking = Spent(), Spent()
    async with InvoiceRun.open(folder / "run.db") as run:
        with taking:
            await run.add(found)
        with spent:
            async with aclosing(run.submit(invoices)) as items:
                async for _ in items:
                    pass
        records = (await run.ledger.counts())["submitted"]
    return {"seconds": spent.seconds, "cpu": spent.cpu, "taking": taking.seconds, "records": records}


Before = Callable[[str], Awaitable[None]]
After = Callable[[str, InvoiceRequest], Awaitable[None]]


async def pooled(invoices: AsyncInvoices, found: list[InvoiceDraft], before: Before, after: After) -> Result:
    """Submit with as many workers as the session has places, noting each intent and each answer."""
    spent, rest = Spent(), iter(found)
    with spent:
        await asyncio.gather(*(worker(invoices, rest, before, after) for _ in range(invoices.concurrency)))
    return {"seconds": spent.seconds, "cpu": spent.cpu, "taking": 0.0}


async def worker(invoices: AsyncInvoices, rest: Iterator[InvoiceDraft], before: Before, after: After) -> None:
    for one in rest:
        key = one.key

        async def intend(key: str = key) -> None:
            await before(key)

        await after(key, await invoices.submit(one, before=intend))


async def with_sqlite(invoices: AsyncInvoices, found: list[InvoiceDraft], folder: Path) -> Result:
    """sqlite3 on the loop, a commit a row."""
    connection = sqlite3.connect(folder / "journal.db", isolation_level=None)
    for statement in SCHEMA:
        connection.execute(statement)

    async def before(key: str) -> None:
        connection.execute(INTENT, (key,))

    async def after(key: str, request: InvoiceRequest) -> None:
        connection.execute(ANSWER, (request.request_id, key))

    result = await pooled(invoices, found, before, after)
    records: int = connection.execute(FOUND).fetchone()[0]
    connection.close()
    return result | {"records": records}


async def with_aiosqlite(invoices: AsyncInvoices, found: list[InvoiceDraft], folder: Path) -> Result:
    """aiosqlite, a commit a row."""
    import aiosqlite

    async with aiosqlite.connect(folder / "journal.db", isolation_level=None) as connection:
        for statement in SCHEMA:
            await connection.execute(statement)

        async def before(key: str) -> None:
            await connection.execute(INTENT, (key,))

        async def after(key: str, request: InvoiceRequest) -> None:
            await connection.execute(ANSWER, (request.request_id, key))

        result = await pooled(invoices, found, before, after)
        async with connection.execute(FOUND) as cursor:
            [[records]] = await cursor.fetchall()
    return result | {"records": records}


async def with_jsonl(invoices: AsyncInvoices, found: list[InvoiceDraft], folder: Path) -> Result:
    """A JSON line and an fsync for each intent and each answer, on the loop."""
    file = os.open(folder / "journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(entry: dict[str, str]) -> None:
        os.write(file, json.dumps(entry).encode() + b"\n")
        os.fsync(file)

    async def before(key: str) -> None:
        note({"key": key, "state": "sending"})

    async def after(key: str, request: InvoiceRequest) -> None:
        note({"key": key, "state": "submitted", "request_id": request.request_id})

    result = await pooled(invoices, found, before, after)
    os.close(file)
    return result | {"records": (folder / "journal.jsonl").read_text().count("submitted")}


CLIENTS: dict[str, Client] = {
    "none": without,
    "run": with_run,
    "sqlite": with_sqlite,
    "aiosqlite": with_aiosqlite,
    "jsonl": with_jsonl,
}


async def main(name: str, url: str, count: int, concurrency: int, folder: Path) -> None:
    session = Session(url, auth=StaticToken("not-a-secret"), limits=Limits(concurrency=concurrency))
    async with session:
        invoices = AsyncInvoices(session)
        # The connections are there before the clock runs.
        await asyncio.gather(*(invoices.submit(draft(f"WARM-{number}")) for number in range(concurrency)))
        result = await CLIENTS[name](invoices, drafts(count), folder)
    print(json.dumps(result))


if __name__ == "__main__":
    kind, where, many, wide, place = sys.argv[1:6]
    running = main(kind.removesuffix("-uvloop"), where, int(many), int(wide), Path(place))
    if kind.endswith("-uvloop"):
        import uvloop

        uvloop.run(running)
    else:
        asyncio.run(running)

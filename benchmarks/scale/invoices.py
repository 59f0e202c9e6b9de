"""One process that has invoices made: `invoices.py KIND URL WHERE COUNT PLACES`.

KIND is `embedded` (a run file in the folder WHERE), `worker` (a worker of the run at the address WHERE), `queue`
(procrastinate alone, a job an invoice, nothing recorded) or `naive` (psycopg, a commit a row). `load` takes drafts into
a run, `defer` makes the jobs of `queue`, and both are done before the clock runs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import aclosing
from decimal import Decimal
from functools import partial
from pathlib import Path

from processes import Spent, say, wait_for_word

from invoicing_async import (
    AsyncInvoices,
    Consumer,
    InvoiceDraft,
    InvoiceLine,
    Limits,
    PaymentMethod,
    Poller,
    Session,
    StaticToken,
    VatRate,
)
from invoicing_async.runs import InvoiceRun

TEMPLATE = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
POLLER = Poller(first=0.5, ceiling=1.0)


def draft(number: int) -> InvoiceDraft:
    line = InvoiceLine(
        name="Rattan desk lamp",
        unit="piece",
        price=Decimal("240000.50"),
        quantity=Decimal(2),
        vat_rate=VatRate.TEN,
        tax_amount=Decimal("48000.10"),
    )
    return InvoiceDraft(
        key=f"ORDER-{number:06}",
        invoice_template_id=TEMPLATE,
        lines=(line,),
        consumer=Consumer(name="Nguyen Van An", tax_code="0101243150", address="1 Trang Tien, Ha Noi"),
        payment_method=PaymentMethod.BANK_TRANSFER,
    )


def drafts(count: int) -> list[InvoiceDraft]:
    return [draft(number) for number in range(1, count + 1)]


async def load(where: str, count: int) -> None:
    async with InvoiceRun.open(where) as run:
        await run.add(drafts(count))


def limits(places: int) -> Limits:
    return Limits(concurrency=places, adaptive=False)


def session(url: str, run: InvoiceRun, places: int) -> Session:
    return Session(url, auth=StaticToken("not-a-secret"), limits=run.limits(limits(places)))


async def embedded(url: str, folder: str, count: int, places: int) -> Spent:
    spent = Spent()
    async with InvoiceRun.open(Path(folder) / "run.db") as run:
        await run.add(drafts(count))
        async with session(url, run, places) as opened:
            invoices = AsyncInvoices(opened)
            wait_for_word()
            with spent:
                async with aclosing(run.run(invoices, poller=POLLER)) as items:
                    async for item in items:
                        assert item.state == "success", item
    return spent


async def worker(url: str, where: str, _: int, places: int) -> Spent:
    from invoicing_async.worker import Worker

    spent = Spent()
    async with InvoiceRun.open(where) as run, session(url, run, places) as opened:
        invoices = AsyncInvoices(opened)
        wait_for_word()
        with spent:
            async with Worker(run, invoices, poller=POLLER) as working:
                async for item in working.items():
                    # What another worker has in hand is told as it stands, if both have come to its chunk.
                    assert item.state in {"success", "submitted", "sending"}, item
    return spent


MADE = "CREATE TABLE IF NOT EXISTS naive_invoices (key text PRIMARY KEY, state text NOT NULL, request_id text)"
INTENT = "INSERT INTO naive_invoices VALUES (%s, 'sending')"
ACCEPTED = "UPDATE naive_invoices SET state = 'submitted', request_id = %s WHERE key = %s"
ENDED = "UPDATE naive_invoices SET state = 'success' WHERE key = %s"


async def naive(url: str, where: str, count: int, places: int) -> Spent:
    """A commit a row, before and after each call."""
    from psycopg_pool import AsyncConnectionPool

    spent, waiting = Spent(), list[asyncio.Task[None]]()
    opening = Session(url, auth=StaticToken("not-a-secret"), limits=limits(places))
    options = {"min_size": 10, "max_size": 10, "kwargs": {"autocommit": True}, "open": False}
    async with AsyncConnectionPool(where.partition("?run=")[0], **options) as pool, opening as opened:
        invoices = AsyncInvoices(opened)

        async def note(statement: str, *values: object) -> None:
            async with pool.connection() as connection:
                await connection.execute(statement, values)

        async def work(rest: Iterator[InvoiceDraft]) -> None:
            for one in rest:
                key = f"{where} {one.key}"
                request = await invoices.submit(one, before=partial(note, INTENT, key))
                await note(ACCEPTED, request.request_id, key)
                waiting.append(asyncio.create_task(settle(key, request.request_id)))

        async def settle(key: str, request_id: str) -> None:
            await invoices.wait(request_id, poller=POLLER)
            await note(ENDED, key)

        await note(MADE)
        wait_for_word()
        with spent:
            rest = iter(drafts(count))
            await asyncio.gather(*(work(rest) for _ in range(places)))
            await asyncio.gather(*waiting)
    return spent


def engine(where: str):  # noqa: ANN201 - procrastinate is there for this alone
    from procrastinate import App, PsycopgConnector

    server = where.partition("?run=")[0]
    return App(connector=PsycopgConnector(conninfo=server, kwargs={"options": "-c search_path=invoicing_queue,public"}))


async def defer(where: str, count: int) -> None:
    app = engine(where)
    task = app.task(name="make", queue="peer")(lambda: None)
    async with app.open_async():
        await task.batch_defer_async(*({"number": number} for number in range(1, count + 1)))


async def queue(url: str, where: str, _: int, places: int) -> Spent:
    """A job an invoice: sent and awaited in it, and nothing is known of one whose worker died."""
    spent, app = Spent(), engine(where)
    opening = Session(url, auth=StaticToken("not-a-secret"), limits=limits(places))
    async with opening as opened, app.open_async():
        invoices = AsyncInvoices(opened)

        async def make(number: int) -> None:
            request = await invoices.submit(draft(number))
            await invoices.wait(request.request_id, poller=Poller(first=0.001))

        app.task(make, name="make", queue="peer")
        wait_for_word()
        with spent:
            await app.run_worker_async(
                queues=["peer"],
                concurrency=places,
                wait=False,
                delete_jobs="always",
                install_signal_handlers=False,
            )
    return spent


KINDS = {"embedded": embedded, "worker": worker, "naive": naive, "queue": queue}


async def main(kind: str, url: str, where: str, count: int, places: int) -> None:
    spent = await KINDS[kind](url, where, count, places)
    say(seconds=spent.seconds, cpu=spent.cpu)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], *map(int, sys.argv[4:6])))

"""A run on a server while something breaks: a service that remembers what it made, and what must hold at the end.

Everything is real but the service, which is a few lines on a socket of loopback.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from uuid import uuid4

import kill_work
from attrs import define, field, frozen

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.states import Event
from invoicing_async.auth import StaticToken
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.policies import Limits, RetryPolicy, Timeouts
from invoicing_async.polling import Poller
from invoicing_async.runs import InvoiceRun, Item, RunKind
from invoicing_async.session import Session

TIMEOUTS = Timeouts(connect=2.0, read=2.0, attempt=3.0, intent=1.0)
PLACES = 8


# -- the service -----------------------------------------------------------------------------------------------------


@define(eq=False)
class Service:
    """Makes an invoice of whatever arrives, every time, and remembers it; it answers after `seconds`."""

    seconds: float = 0.005
    url: str = ""
    made: list[tuple[str, float]] = field(factory=list)
    """The key of each invoice that was made, and when by the machine's clock."""

    @property
    def twice(self) -> list[str]:
        return [key for key, count in Counter(key for key, _ in self.made).items() if count > 1]

    async def until_made(self, count: int) -> None:
        while len(self.made) < count:  # noqa: ASYNC110 - it counts what comes in
            await asyncio.sleep(0.002)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [
                    int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
                ]
                body = await reader.readexactly(sum(lengths))
                said = json.dumps(self._answer(head.split(b" ", 2)[1].decode(), body)).encode()
                await asyncio.sleep(self.seconds)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ")
                writer.write(f"{len(said)}\r\n\r\n".encode() + said)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has left
        finally:
            writer.close()

    def _answer(self, path: str, body: bytes) -> dict[str, object]:
        if not path.endswith("/ob/invoices"):
            request_id = path.rsplit("/", 1)[1]
            return {"request_id": request_id, "status": "SUCCESS", "data": {"id": request_id}}
        self.made.append((json.loads(body)["invoice_data"]["invoice_lines"][0]["name"], time.time()))
        return {"request_id": str(uuid4()), "status": "NEW"}


@asynccontextmanager
async def remembering(seconds: float = 0.005, *, host: str = "127.0.0.1") -> AsyncIterator[Service]:
    service = Service(seconds)
    server = await asyncio.start_server(service._serve, host, 0)
    service.url = f"http://{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield service
    finally:
        server.close()


# -- a worker --------------------------------------------------------------------------------------------------------


def server_address(text: str) -> ServerAddress:
    address = run_address(text)
    assert isinstance(address, ServerAddress)
    return address


@frozen
class Work:
    """A run that is worked on in this process."""

    run: InvoiceRun
    ledger: PostgresLedger
    invoices: AsyncInvoices

    async def to_the_end(self) -> list[Item]:
        async with aclosing(self.run.run(self.invoices, poller=Poller(first=0.01, ceiling=0.05))) as items:
            return [item async for item in items]


@asynccontextmanager
async def working(
    address: str, service: Service | str, *, drafts: int = 0, timeouts: Timeouts = TIMEOUTS, places: int = PLACES
) -> AsyncIterator[Work]:
    """Open a run, and take drafts in."""
    session = Session(
        service if isinstance(service, str) else service.url,
        auth=StaticToken("not-a-secret"),
        retry=RetryPolicy(first=0.005),
        timeouts=timeouts,
        limits=Limits(concurrency=places, stop_after=None),
    )
    async with (
        session as live,
        PostgresLedger.open(server_address(address), kind=RunKind.INVOICES) as ledger,
    ):
        run = InvoiceRun(ledger)
        await run.add(map(kill_work.draft, range(drafts)))
        yield Work(run, ledger, AsyncInvoices(live))


# -- what must hold --------------------------------------------------------------------------------------------------


async def states(ledger: PostgresLedger) -> dict[str, int]:
    """Return how many items are in each state that has any, after a look that the kept counts are the real ones."""
    kept = {state: count for state, count in (await ledger.counts()).items() if count}
    assert kept == Counter([item.state async for item in ledger.items()])
    return kept


async def all_made_once(work: Work, service: Service, drafts: int) -> None:
    """Nothing is lost, nothing twice, nothing in doubt, and each intent was on record before its invoice was made."""
    assert service.twice == []
    assert {key for key, _ in service.made} == {f"K-{number}" for number in range(drafts)}
    assert await states(work.ledger) == {"success": drafts}
    numbers = {item.key: item.seq async for item in work.ledger.items()}
    entries = await work.ledger.journal(limit=100 * drafts)
    intents = {entry.item: entry.at for entry in reversed(entries) if entry.event is Event.INTENT}
    assert [key for key, at in service.made if intents[numbers[key]] > at] == []


async def eventually(holds: Callable[[], object], *, seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come"
        await asyncio.sleep(0.01)

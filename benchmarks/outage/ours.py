"""The library itself on a service in virtual time: a real `Session` over a transport that asks the model.

Only the disk is left out: a thread that writes has a time of its own, which a loop in virtual time does not wait for.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import UUID

from model import RefusedError, Service

from invoicing_async import AsyncInvoices, InvoiceDraft, InvoiceLine, Limits, OrderDocuments, Poller, Session
from invoicing_async._files.existing import Published
from invoicing_async._files.publish import Destination
from invoicing_async._files.tempfile import Temp
from invoicing_async._files.writer import DiskWriter
from invoicing_async.auth import StaticToken
from invoicing_async.clock import RealClock
from invoicing_async.errors import BatchStoppedError, InvoicingError, TransportError
from invoicing_async.models import InvoiceRequest, Saved, Submitted
from invoicing_async.session._session import internals_of
from invoicing_async.transport import Exchange, Request

BASE = "http://service.test/api"
TEMPLATE = "01234567-89ab-cdef-0123-456789abcdef"
EVERY = 2.0  # seconds between two polls of one operation

PDF = b"%PDF-1.7\n" + b"%" * 400 + b"\nstartxref\n9\n%%EOF\n"
JSON = {"Content-Type": "application/json"}


class Reply:
    """A whole answer in memory."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def header(self, name: str) -> str | None:
        wanted = name.lower()
        return next((value for key, value in self.headers.items() if key.lower() == wanted), None)

    def arrived(self) -> bytes | None:
        return self.body

    async def read(self, _: int) -> bytes:
        return self.body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.body


def envelope(code: str) -> bytes:
    """Return the error envelope of README A.1."""
    text = "Service temporarily unavailable"
    context = {"orderId": "", "operation": "invoice_generation", "errorCode": "ECONNREFUSED"}
    error = {"code": code, "message": text, "details": {"hint": text, "context": context}}
    return json.dumps({"success": False, "error": error, "requestId": TEMPLATE}).encode()


DOWN, LIMITED = Reply(503, JSON, envelope("SYS_DEP_503")), envelope("RATE_001")
DOCUMENT = Reply(200, {"Content-Type": "application/pdf", "Content-Length": str(len(PDF))}, PDF)


class Modelled:
    """The public `Transport` over a `Service`. Operations end at `ends` by the loop's clock, the first id first."""

    def __init__(self, service: Service, ends: Callable[[int], float] = float) -> None:
        self._service = service
        self._ends = ends
        self._made = 0

    def send(self, request: Request, exchange: Exchange) -> Sending:
        return Sending(self, request, exchange)

    async def answer(self, request: Request, exchange: Exchange) -> Reply:
        lane = lane_of(request)
        try:
            answer = await self._service.ask(lane, exchange.leave)
        except RefusedError as error:
            raise TransportError("connection refused", sent="no") from error
        if answer.retry_after is not None:
            return Reply(answer.status, {**JSON, "Retry-After": f"{answer.retry_after:.3f}"}, LIMITED)
        if answer.status != 200:
            return DOWN
        return DOCUMENT if lane == "documents" else self._told(lane, request)

    def _told(self, lane: str, request: Request) -> Reply:
        if lane == "submissions":
            self._made += 1
            said = {"request_id": str(UUID(int=self._made)), "status": "NEW"}
            return Reply(200, JSON, json.dumps(said).encode())
        number = UUID(request.path.rpartition("/")[2]).int
        over = asyncio.get_running_loop().time() >= self._ends(number)
        return Reply(200, JSON, b'{"status":"SUCCESS"}' if over else b'{"status":"NEW"}')

    async def close(self) -> None:
        """Nothing is held open."""


class Sending:
    """One exchange. No generator: a batch makes a hundred thousand."""

    def __init__(self, transport: Modelled, request: Request, exchange: Exchange) -> None:
        self._answer = transport.answer(request, exchange)

    async def __aenter__(self) -> Reply:
        return await self._answer

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""


def lane_of(request: Request) -> str:
    if request.path.endswith("/documents/invoice"):
        return "documents"
    return "polls" if "/by-request-id/" in request.path else "submissions"


class NoDisk:
    """Takes documents in the place of the session's writer, and keeps none."""

    async def store(self, destination: Destination, body: bytes | Temp) -> Published:
        await asyncio.sleep(0)
        return Published(destination.target, len(body) if isinstance(body, bytes) else 0, "")

    async def run(self, function: Callable[[], Any], **_: Any) -> Any:
        return function()

    async def close(self) -> None:
        """Nothing is held open."""


class LoopClock(RealClock):
    """The session's door to the time of the loop; chance from a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.monotonic = asyncio.get_running_loop().time  # type: ignore[misc] # one of this loop's
        self.random = random.Random(seed).random  # type: ignore[misc]

    def now(self) -> float:  # type: ignore[override]
        return 1.7e9 + self.monotonic()


def session(transport: Modelled, concurrency: int, *, seed: int = 1, **settings: Any) -> Session:
    """A session whose documents are not written."""
    limits = Limits(concurrency=concurrency, **settings.pop("limits", {}))
    clock = LoopClock(seed)
    made = Session(BASE, auth=StaticToken("t"), transport=transport, clock=clock, limits=limits, **settings)
    inside = internals_of(made)
    held = inside.resource
    inside.resource = lambda kind: held(NoDisk if kind is DiskWriter else kind)
    return made


def draft(number: int) -> InvoiceDraft:
    line = InvoiceLine(name="rice", unit="kg", price="12.50", quantity="2")
    return InvoiceDraft(key=f"INV-{number}", invoice_template_id=TEMPLATE, lines=[line])


async def documents(live: Session, count: int, told: Counter[str]) -> None:
    ids = [f"order-{number}" for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        batch = OrderDocuments(live).download_many(ids, Path(folder) / "new")
        await counted(batch, lambda outcome: isinstance(outcome, Saved), told)


async def submissions(live: Session, count: int, told: Counter[str]) -> None:
    batch = AsyncInvoices(live).submit_many([draft(number) for number in range(count)])
    await counted(batch, lambda outcome: isinstance(outcome, Submitted), told)


async def polls(live: Session, count: int, told: Counter[str]) -> None:
    poller = Poller(first=EVERY, factor=1.0, ceiling=EVERY, timeout=None)
    batch = AsyncInvoices(live).wait_many([str(UUID(int=number)) for number in range(count)], poller=poller)
    await counted(batch, lambda outcome: isinstance(outcome, InvoiceRequest), told)


async def counted(outcomes: AsyncGenerator[Any], is_done: Callable[[Any], bool], told: Counter[str]) -> None:
    """Count the outcomes of a batch by what they are called, and what ended it early as "stopped"."""
    try:
        async with aclosing(outcomes):
            async for outcome in outcomes:
                begun = not isinstance(getattr(outcome, "error", None), BatchStoppedError)
                told["done" if is_done(outcome) else type(outcome).__name__ if begun else "NotStarted"] += 1
    except InvoicingError:
        told["stopped"] += 1


WORK: dict[str, Callable[[Session, int, Counter[str]], Awaitable[None]]] = {
    "documents": documents,
    "submissions": submissions,
    "polls": polls,
}

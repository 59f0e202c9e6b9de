"""Durable runs and the services behind them, in memory: documents of the sandbox, e-invoices that end as planned."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from fakes import FakeClock, FakeResponse

from invoicing_async._core.clock import Clock
from invoicing_async._core.http import Exchange, Request, Response, Transport
from invoicing_async._einvoices.shape import WireNames
from invoicing_async.auth import HmacAuth, StaticToken
from invoicing_async.documents import DownloadOutcome, OrderDocuments
from invoicing_async.errors import (
    TransportError,
)
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import (
    InvoiceDraft,
    InvoiceLine,
)
from invoicing_async.policies import Limits, OutagePolicy, RetryPolicy
from invoicing_async.runs import (
    DocumentRun,
    InvoiceRun,
    Item,
)
from invoicing_async.sandbox import (
    Faults,
    Sandbox,
    demo_orders,
)
from invoicing_async.session import Session

T = TypeVar("T")
BASE = "http://127.0.0.1/api"
ORDERS = demo_orders(12)
DAY = date(2025, 9, 17)


async def listed(source: AsyncGenerator[T]) -> list[T]:
    async with aclosing(source):
        return [value async for value in source]


# -- documents -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def documents(
    service: Transport | Sandbox,
    *,
    secret: str | None = None,
    base: str = BASE,
    clock: Clock | None = None,
    retry: RetryPolicy | None = None,
    concurrency: int = 4,
    outage: OutagePolicy | None = None,
) -> AsyncIterator[OrderDocuments]:
    partner = Sandbox().credentials.partner() | ({"secret_key": secret} if secret else {})
    session = Session(
        base,
        auth=HmacAuth(**partner),
        transport=None if base != BASE else service,
        clock=clock or FakeClock(),
        retry=retry,
        limits=Limits(concurrency=concurrency),
        outage=outage,
    )
    async with session:
        yield OrderDocuments(session)


@asynccontextmanager
async def document_run(
    folder: Path, service: Transport | Sandbox, *, layout: str = "{order_id}", **options: Any
) -> AsyncIterator[tuple[DocumentRun, OrderDocuments]]:
    async with (
        documents(service, **options) as found,
        DocumentRun.open(folder / "run.db", folder=folder / "pdf", layout=layout, day=DAY, clock=FakeClock()) as run,
    ):
        yield run, found


def sandbox(**faults: Any) -> Sandbox:
    return Sandbox(clock=FakeClock(), faults=Faults(**faults))


def kinds(outcomes: Iterable[DownloadOutcome]) -> Counter[str]:
    return Counter(type(outcome).__name__ for outcome in outcomes)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


async def states(run: DocumentRun | InvoiceRun) -> dict[str, str]:
    return {item.key: item.state for item in await run.ledger.rows()}


async def counted(run: DocumentRun | InvoiceRun) -> dict[str, int]:
    """The states that have items, after a look that the kept counts are the real ones."""
    counts = {state: count for state, count in (await run.ledger.counts()).items() if count}
    assert counts == Counter((await states(run)).values())
    return counts


class Dying:
    """A transport whose service refuses the credential after so many calls."""

    def __init__(self, service: Sandbox, calls: int) -> None:
        self.service = service
        self.left = calls

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        exchange.leave()
        self.left -= 1
        if self.left < 0:
            yield FakeResponse(status=401)
            return
        async with self.service.send(request, exchange) as response:
            yield response

    async def close(self) -> None:
        """Nothing is held open."""


async def until_error(source: AsyncGenerator[T]) -> tuple[list[T], BaseException]:
    given: list[T] = []
    try:
        async with aclosing(source):
            async for value in source:
                given.append(value)  # noqa: PERF401 - what was given before the error counts
    except Exception as error:  # noqa: BLE001 - it is what the test looks at
        return given, error
    raise AssertionError("nothing was raised")


# -- invoices ------------------------------------------------------------------------------------------------------

TEMPLATE = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
KEYS = tuple(f"A-{number}" for number in range(1, 7))


def draft(key: str, *, price: str = "12.50", **fields: Any) -> InvoiceDraft:
    """A draft whose name of its line tells its key to the service."""
    line = InvoiceLine(name=str(key), unit="piece", price=price, quantity=2)
    return InvoiceDraft(key=key, invoice_template_id=TEMPLATE, lines=(line,), **fields)


CREATING = {"new", "new failed", "success", "failed", "lost", "gateway lost"}
"""Steps after which the invoice exists, or has failed for good, under a request id."""


class Service:
    """Service B in memory. `plans` says how each submission of a key ends; then each is accepted. It remembers."""

    def __init__(self, plans: Mapping[str, Iterable[str]] | None = None, **options: Any) -> None:
        self.plans = {key: list(plan) for key, plan in (plans or {}).items()}
        self.created: dict[str, list[str]] = {}
        self.ends: dict[str, str] = {}
        self.submissions: Counter[str] = Counter()
        self.polls: Counter[str] = Counter()
        self.received: Callable[[str], Awaitable[None]] | None = None
        self.poll_status = 200
        self.never_ends = False

    async def close(self) -> None:
        """Nothing is held open."""

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        if request.path.endswith("/ob/invoices"):
            yield await self._submitted(request, exchange)
        else:
            exchange.leave()
            yield self._polled(request.path.rsplit("/", 1)[1])

    async def _submitted(self, request: Request, exchange: Exchange) -> FakeResponse:
        key = json.loads(request.body)["invoice_data"]["invoice_lines"][0]["name"]
        step = self.step(key)
        if step == "unsent":
            raise TransportError("the connection was refused", sent="no")
        try:
            exchange.leave()
        except TransportError:  # its intent grew old while the clock jumped: nothing has come here
            self.submissions[key] -= 1
            self.plans.setdefault(key, []).insert(0, step)
            raise
        if self.received is not None:
            await self.received(key)
        request_id = self.take(key, step)
        return self._answer(step, request_id)

    def step(self, key: str) -> str:
        self.submissions[key] += 1
        plan = self.plans.get(key, [])
        if plan[:1] == ["wrong"]:  # whatever is wrong with the draft is wrong with it every time
            return "wrong"
        return plan.pop(0) if plan else "new"

    def take(self, key: str, step: str) -> str:
        """Do what the step does to the service's books and give the request id."""
        request_id = str(UUID(bytes=sha256(f"{key} {len(self.created.get(key, []))}".encode()).digest()[:16]))
        if step in CREATING:
            self.created.setdefault(key, []).append(request_id)
            self.ends[request_id] = "FAILED" if "failed" in step else "SUCCESS"
        return request_id

    def _answer(self, step: str, request_id: str) -> FakeResponse:
        match step:
            case "lost" | "dropped":
                raise TransportError("the connection was reset")
            case "busy":
                envelope = {"success": False, "error": {"code": "SYS_DEP_503", "message": "down"}}
                return answer(envelope, status=503)
            case "limited":
                return answer({}, status=429)
            case "refused" | "wrong":
                return answer({"message": "no such template"}, status=400)
            case "unauthorised":
                return answer({}, status=401)
            case "gateway" | "gateway lost":
                return answer({}, status=502)
            case "success" | "failed":
                return answer({"request_id": request_id, "status": self.ends[request_id]})
            case _:
                return answer({"request_id": request_id, "status": "NEW"})

    def _polled(self, request_id: str) -> FakeResponse:
        self.polls[request_id] += 1
        if self.poll_status != 200:
            return answer({}, status=self.poll_status)
        if self.never_ends or self.polls[request_id] < 2:
            return answer({"request_id": request_id, "status": "NEW"})
        end = self.ends[request_id]
        data = {"data": {"id": request_id, "code": "X", "amount": 12.50}} if end == "SUCCESS" else {}
        return answer({"request_id": request_id, "status": end, **data})

    async def look_up(self, found: InvoiceDraft, item: Item) -> str | bool | None:
        """Tell whether an invoice was made, as a person would find out at the service's own screen."""
        assert found.key == item.key
        return self.created[item.key][0] if item.key in self.created else False


def answer(content: Mapping[str, Any], status: int = 200) -> FakeResponse:
    body = json.dumps(content).encode()
    return FakeResponse(status=status, headers={"Content-Type": "application/json"}, pieces=(body,))


@asynccontextmanager
async def invoices(
    service: Transport | Sandbox,
    *,
    clock: Clock | None = None,
    attempts: int = 3,
    concurrency: int = 4,
    names: WireNames | None = None,
    base: str = BASE,
    stop_after: int | None = 5,
    adaptive: bool = True,
    **options: Any,
) -> AsyncIterator[AsyncInvoices]:
    session = Session(
        base,
        auth=StaticToken(Sandbox().credentials.token),
        transport=service if base == BASE else None,
        clock=clock or FakeClock(),
        retry=RetryPolicy(attempts=attempts, first=1),
        limits=Limits(concurrency=concurrency, stop_after=stop_after, adaptive=adaptive),
        **options,
    )
    async with session:
        yield AsyncInvoices(session, names=names)


@asynccontextmanager
async def invoice_run(
    folder: Path, service: Transport | Sandbox, keys: Iterable[str] = KEYS, **options: Any
) -> AsyncIterator[tuple[InvoiceRun, AsyncInvoices]]:
    async with (
        invoices(service, **options) as found,
        InvoiceRun.open(folder / "run.db", clock=FakeClock()) as run,
    ):
        await run.add(map(draft, keys))
        yield run, found


def later(run: InvoiceRun) -> None:
    """Let an hour go by for the run: nothing that was given up can arrive any more."""
    now = run.ledger.now
    run.ledger.now = lambda: now() + 3600.0  # type: ignore[method-assign]


async def item_of(run: InvoiceRun, key: str) -> Item:
    item = await run.ledger.get(key)
    assert item is not None
    return item

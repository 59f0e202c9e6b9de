"""Service B in a few lines, as a transport: what it was sent, what it made, and what it says of it when asked."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

from attrs import define, field
from fakes import FakeClock, FakeResponse

from invoicing_async._core.http import Exchange, Request, Response
from invoicing_async.auth import StaticToken
from invoicing_async.errors import TransportError
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import Consumer, InvoiceDraft, InvoiceLine
from invoicing_async.policies import Limits, RetryPolicy
from invoicing_async.session import Session

T = TypeVar("T")
BASE = "http://127.0.0.1/api"
TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def draft(key: str, **more: Any) -> InvoiceDraft:
    """A draft whose buyer bears its key, of 20.50."""
    more.setdefault("consumer", Consumer(code=key, name=f"Buyer {key}", tax_code="0101243150"))
    more.setdefault("lines", [InvoiceLine(name="Tea", unit="box", price=Decimal("10.25"), quantity=Decimal(2))])
    return InvoiceDraft(key=key, invoice_template_id=TEMPLATE, **more)


def drafts(count: int) -> list[InvoiceDraft]:
    return [draft(f"K{number}") for number in range(count)]


def number_of(key: str) -> str:
    """The request id of the draft with this key."""
    return f"00000000-0000-4000-8000-{key.encode().hex():0>12}"


@define
class Service:
    """Makes every invoice at once. By a buyer's code: `lost` get no answer, `rejected` a refusal with this code."""

    lost: set[str] = field(factory=set)
    rejected: dict[str, str] = field(factory=dict)
    status: dict[str, str] = field(factory=dict)
    authority: dict[str, str] = field(factory=dict)
    forgotten: set[str] = field(factory=set)
    refuse: int | None = None
    made: dict[str, dict[str, Any]] = field(factory=dict)
    sent: list[str] = field(factory=list)
    asked: list[str] = field(factory=list)

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        exchange.sent = True
        yield self._create(request) if request.path.endswith("/invoices") else self._tell(request)

    async def close(self) -> None:
        """Nothing is open."""

    def _create(self, request: Request) -> FakeResponse:
        content = json.loads(request.body)["invoice_data"]
        key = content["consumer"]["code"]
        self.sent.append(key)
        if key in self.rejected:
            return answer(422, {"success": False, "error": {"code": self.rejected[key], "message": "refused"}})
        self.made[number_of(key)] = content
        if key in self.lost:
            raise TransportError("no answer came", sent="unknown")
        return answer(200, {"request_id": number_of(key), "status": "NEW"})

    def _tell(self, request: Request) -> FakeResponse:
        number = request.path.rsplit("/", 1)[1]
        self.asked.append(number)
        if self.refuse is not None:
            return answer(self.refuse, {"message": "not accepted"})
        content = self.made.get(number)
        key = content["consumer"]["code"] if content else ""
        if content is None or key in self.forgotten:
            return answer(404, {"message": "no such request"})
        status = self.status.get(key, "SUCCESS")
        data = {
            "id": number,
            "authority_status": self.authority.get(key, "SUBMITTED"),
            "consumer": content["consumer"],
            "invoice_lines": content["invoice_lines"],
        }
        return answer(200, {"request_id": number, "status": status} | ({"data": data} if status == "SUCCESS" else {}))


def answer(status: int, body: dict[str, Any]) -> FakeResponse:
    return FakeResponse(status, {"Content-Type": "application/json"}, (json.dumps(body).encode(),))


@asynccontextmanager
async def opened(service: Service) -> AsyncIterator[AsyncInvoices]:
    """The e-invoices of a service."""
    session = Session(
        BASE,
        auth=StaticToken("token"),
        transport=service,
        clock=FakeClock(),
        retry=RetryPolicy(attempts=2, first=1),
        limits=Limits(concurrency=4),
    )
    async with session:
        yield AsyncInvoices(session)


async def listed(source: AsyncGenerator[T]) -> list[T]:
    async with aclosing(source):
        return [value async for value in source]

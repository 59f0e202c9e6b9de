"""Waits for many requests while the service is down: in virtual time."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing
from typing import Any

import vtime
from fakes import FakeResponse
from outages import Unsteady, governed

from invoicing_async._core.http import Exchange, Request
from invoicing_async.errors import ServiceDownError
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import InvoiceRequest, Unsettled
from invoicing_async.policies import Limits, OutagePolicy
from invoicing_async.polling import Poller

MANY = 300


class Statuses(Unsteady):
    """Says NEW until `done`, then SUCCESS."""

    until = 100.0

    async def answer(self, request: Request, exchange: Exchange) -> Any:
        found = await super().answer(request, exchange)
        if found.status != 200:
            return found
        status = "NEW" if asyncio.get_running_loop().time() < self.until else "SUCCESS"
        said = f'{{"request_id": "{request.path.rsplit("/", 1)[-1]}", "status": "{status}"}}'
        return FakeResponse(headers={"Content-Type": "application/json"}, pieces=(said.encode(),))


def waited(service: Statuses, poller: Poller, **settings: Any) -> list[InvoiceRequest | Unsettled]:
    ids = [str(uuid.UUID(int=number + (4 << 76) + (8 << 60))) for number in range(MANY)]

    async def work() -> list[InvoiceRequest | Unsettled]:
        async with governed(service, limits=Limits(concurrency=64), **settings) as session:
            results = AsyncInvoices(session).wait_many(ids, poller=poller)
            async with aclosing(results):
                return [result async for result in results]

    return vtime.run(work())


def test_an_outage_of_ten_minutes_ends_no_wait() -> None:
    """Though each has two minutes: their time stands still; at most 64 polls and the probes go into it."""
    service = Statuses(down=(60.0, 660.0))
    service.until = 700.0
    results = waited(service, Poller(timeout=120.0))
    assert {type(result) for result in results} == {InvoiceRequest}
    assert len(results) == MANY
    assert service.in_outage <= 64 + 600 / 3.4 + 3


def test_refused_connections_end_no_wait_either() -> None:
    service = Statuses(down=(20.0, 140.0), connects=False)
    service.until = 150.0
    results = waited(service, Poller(timeout=120.0))
    assert {type(result) for result in results} == {InvoiceRequest}
    assert service.in_outage <= 64 + 120 / 3.4 + 3


def test_beyond_the_patience_of_the_session_every_wait_ends() -> None:
    """With what the next poll would meet too."""
    service = Statuses(down=(20.0, 1e9))
    results = waited(service, Poller(timeout=None), outage=OutagePolicy(patience=60.0))
    errors = [result.error for result in results if isinstance(result, Unsettled)]
    assert len(errors) == MANY
    assert {type(error) for error in errors} == {ServiceDownError}

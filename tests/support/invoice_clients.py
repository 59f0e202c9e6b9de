"""Clients of the e-invoices of the sandbox and of scripted services."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from attrs import evolve
from fakes import FakeClock, FakeResponse, FakeTransport
from leaks import in_use, others

from invoicing_async import (
    AsyncInvoices,
    InvoiceDraft,
    InvoiceLine,
    Poller,
    RetryPolicy,
    Session,
    StaticToken,
)
from invoicing_async._transport.server import serve
from invoicing_async.invoices._client import work_of
from invoicing_async.sandbox import (
    Answer,
    Faults,
    Sandbox,
    SandboxSettings,
)

T = TypeVar("T")
TOKEN = SandboxSettings().credentials.token
STRANGER = "00000000-0000-4000-8000-00000000000f"
STEADY = Poller(first=1, factor=1, jitter=0, timeout=300)


def draft(number: int = 1, **changed: Any) -> InvoiceDraft:
    line = InvoiceLine(name="Cà phê", unit="kg", price="12.50", quantity=f"{number}.000")
    made = InvoiceDraft(key=f"INV-{number}", invoice_template_id="01234567-89ab-cdef-0123-456789abcdef", lines=[line])
    return evolve(made, **changed)


def said(status: str, **more: Any) -> Answer:
    return Answer(headers={"Content-Type": "application/json"}, body=json.dumps({"status": status, **more}).encode())


@asynccontextmanager
async def sandboxed(
    *, clock: FakeClock | None = None, sandbox: Sandbox | None = None, **named: Any
) -> AsyncIterator[tuple[AsyncInvoices, Sandbox]]:
    """Give the e-invoices of a sandbox without a socket, on a clock that sleeping moves; nothing may be left after."""
    clock = clock or FakeClock()
    settings = named.pop("settings", None) or SandboxSettings()
    sandbox = sandbox or Sandbox(settings, faults=named.pop("faults", Faults(polls_until_done=(2, 2))), clock=clock)
    invoicing = {name: named.pop(name) for name in ("names", "endpoints", "max_bytes") if name in named}
    named.setdefault("auth", StaticToken(TOKEN))
    named.setdefault("retry", RetryPolicy(attempts=3, first=1.0))
    async with Session("http://sandbox.test", transport=sandbox, clock=clock, **named) as session:
        invoices = AsyncInvoices(session, **invoicing)
        yield invoices, sandbox
        await asyncio.sleep(0)
        assert len(work_of(invoices).scheduler) == 0
    assert sandbox.in_flight == 0
    assert others() == set()


def scripted(*answers: FakeResponse) -> FakeTransport:
    return FakeTransport(answers=list(answers))


@asynccontextmanager
async def faked(transport: FakeTransport, **named: Any) -> AsyncIterator[AsyncInvoices]:
    named.setdefault("clock", FakeClock())
    async with Session("http://fake.test", auth=StaticToken("t"), transport=transport, **named) as session:
        yield AsyncInvoices(session)
    await asyncio.sleep(0)
    assert transport.open == 0
    assert others() == set()


async def gathered(given: AsyncIterator[T], into: list[T]) -> None:
    """Keep what comes before the error that ends it."""
    async for one in given:
        into.append(one)  # noqa: PERF401 - what came before the error counts


@asynccontextmanager
async def on_a_port(**named: Any) -> AsyncIterator[tuple[AsyncInvoices, Sandbox]]:
    """Give the e-invoices of a sandbox on a real socket; afterwards no connection may be in use."""
    sandbox = Sandbox(named.pop("settings", None), faults=named.pop("faults", Faults(seconds_until_done=(900, 900))))
    async with serve(sandbox) as url, Session(url, auth=StaticToken(TOKEN), **named) as session:
        yield AsyncInvoices(session), sandbox
        assert in_use(session) == 0

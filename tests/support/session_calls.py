"""Calls of a session and services that answer them as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from attrs import evolve
from fakes import START, FakeClock, FakeResponse, FakeTransport

from invoicing_async._core.envelope import error_from
from invoicing_async._core.http import Repeat, Request, Response, path
from invoicing_async._transport.server import serve
from invoicing_async.auth import Auth, HmacAuth, OAuthClientCredentials, StaticToken
from invoicing_async.errors import (
    ServiceUnavailableError,
)
from invoicing_async.policies import RetryPolicy
from invoicing_async.sandbox import (
    Sandbox,
)
from invoicing_async.session import Session
from invoicing_async.session._session import internals_of

BASE = "https://service.test/api/v1"
ORDER = "d0e11047-acaf-468f-a325-3d2f5964f5ff"
ENVELOPE = b'{"success": false, "error": {"code": "SYS_DEP_503", "message": "down"}, "requestId": "r-1"}'
DOWN = FakeResponse(status=503, pieces=(ENVELOPE,))
FINE = FakeResponse(pieces=(b"fine",))
CALL = Request(method="POST", path="/x", operation="test")
SUBMISSION = evolve(CALL, repeat=Repeat.IF_NOT_SENT)
ONCE = RetryPolicy(attempts=1)


def document(order_id: str = ORDER) -> Request:
    target = path("partner", "stores", "orders", order_id, "documents", "invoice")
    return Request(method="POST", path=target, operation="document")


def status(request_id: str = "r-1") -> Request:
    return Request(method="POST", path=path("v2", "ob", "invoices", "by-request-id", request_id), operation="status")


async def body(response: Response) -> bytes:
    return await response.read(1_000_000)


async def checked(response: Response) -> bytes:
    """Read as a feature does: an envelope under 200 is its error."""
    content = await body(response)
    error = error_from(response.status, response.header, content, now=START)
    if error is not None:
        raise error
    return content


@asynccontextmanager
async def scripted(*answers: Any, clock: FakeClock | None = None, **settings: Any) -> AsyncIterator[Session]:
    """A session whose transport gives these answers in turn, the last one for ever."""
    transport = FakeTransport(answers=list(answers))
    settings = {"auth": StaticToken("t"), "transport": transport, "clock": clock or FakeClock(), **settings}
    async with Session(BASE, **settings) as session:
        yield session


def sent(session: Session) -> list[Request]:
    transport = internals_of(session).transport
    assert isinstance(transport, FakeTransport)
    return transport.sent


@asynccontextmanager
async def served(sandbox: Sandbox, *, auth: Auth | None = None, **settings: Any) -> AsyncIterator[Session]:
    """A session over a real socket to the sandbox; both have one clock."""
    auth = auth or HmacAuth(**sandbox.credentials.partner())
    async with (
        serve(sandbox, base_path="/api/v1") as url,
        Session(url, auth=auth, clock=sandbox.clock, **settings) as session,
    ):
        yield session


def oauth(sandbox: Sandbox) -> OAuthClientCredentials:
    return OAuthClientCredentials(**sandbox.credentials.client())


async def steps(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


declared = ServiceUnavailableError(status=503, code="SYS_DEP_503")

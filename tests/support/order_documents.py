"""Order documents, whole and broken, and clients of services that answer with them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fakes import FakeClock

from invoicing_async.auth import HmacAuth
from invoicing_async.documents import DownloadOutcome, OrderDocuments
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    IncompleteDocumentError,
    InterruptedDocumentError,
    OrderStatusError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
    TransportError,
)
from invoicing_async.policies import RetryPolicy
from invoicing_async.sandbox import (
    Answer,
    Faults,
    JsonUnder200,
    NotEligible,
    NotPdf,
    Operation,
    RateLimited,
    Reset,
    Sandbox,
    Scripted,
    Truncated,
    Unavailable,
)
from invoicing_async.session import Session

BASE = "http://127.0.0.1/api/v1"
ORDER = "d0e11047-acaf-468f-a325-3d2f5964f5ff"
PDF = {"Content-Type": "application/pdf"}


def pdf(size: int = 60) -> bytes:
    tail = b"\nstartxref\n9\n%%EOF\n"
    return b"%PDF-1.7\n".ljust(size - len(tail), b"%") + tail


LARGE = pdf(2**21 + 12_345)


def whole(body: bytes, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(headers={**PDF, "Content-Length": str(len(body)), **named}, body=body)


def refusal(status: int) -> Answer:
    return Answer(status=status, body=b"no")


@asynccontextmanager
async def client(sandbox: Sandbox, *, max_bytes: int = 2**24, **named: Any) -> AsyncIterator[OrderDocuments]:
    """Order documents of the sandbox in this process, or served at `url`."""
    async with opened(sandbox, **named) as session:
        yield OrderDocuments(session, max_bytes=max_bytes)


@asynccontextmanager
async def opened(
    sandbox: Sandbox, *, url: str = "", attempts: int = 3, first: float = 0.5, **named: Any
) -> AsyncIterator[Session]:
    auth = HmacAuth(**sandbox.credentials.partner())
    retry = RetryPolicy(attempts=attempts, first=first)
    transport = None if url else sandbox
    async with Session(
        url or BASE, auth=auth, retry=retry, clock=sandbox.clock, transport=transport, **named
    ) as session:
        yield session


def made(*answers: Scripted, clock: FakeClock | None = None, faults: Faults | None = None) -> Sandbox:
    """A sandbox whose first answers for documents are these."""
    sandbox = Sandbox(faults=faults, clock=clock or FakeClock())
    sandbox.script(Operation.DOCUMENT, answers)
    return sandbox


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def own_tasks() -> set[asyncio.Task[Any]]:
    """The tasks there are beside this one and the served sandbox's."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    servers = ("RequestHandler", "_accept_connection")
    return {task for task in others if not any(name in str(task.get_coro()) for name in servers)}


async def gathered(outcomes: AsyncGenerator[DownloadOutcome]) -> tuple[list[DownloadOutcome], Exception | None]:
    """Give all outcomes and the error that ended them."""
    found: list[DownloadOutcome] = []
    try:
        async for outcome in outcomes:
            found.append(outcome)  # noqa: PERF401 - what came before an error is kept
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return found, error
    return found, None


def kinds(outcomes: Iterable[DownloadOutcome]) -> Counter[str]:
    return Counter(type(outcome).__name__ for outcome in outcomes)


BROKEN: list[tuple[Scripted, type[Exception]]] = [
    (Truncated(missing=1), IncompleteDocumentError),
    (Truncated(missing=400), IncompleteDocumentError),
    (NotPdf(), IncompleteDocumentError),
    (NotPdf(body=b""), IncompleteDocumentError),
    (Reset(), TransportError),
    (Reset(after=0), InterruptedDocumentError),
    (Reset(after=500), InterruptedDocumentError),
    (Answer(headers=PDF, body=LARGE[:-9]), IncompleteDocumentError),
    (Answer(headers={**PDF, "Content-Length": str(len(LARGE))}, body=LARGE[:-1]), IncompleteDocumentError),
    (JsonUnder200(), ServiceUnavailableError),
    (JsonUnder200(content_type="application/pdf"), ServiceUnavailableError),
    (Unavailable(), ServiceUnavailableError),
    (Unavailable(status=400), ServiceUnavailableError),
    (RateLimited(retry_after="3"), RateLimitError),
    (refusal(503), ServiceUnavailableError),
]

FINAL: list[tuple[Scripted, type[Exception]]] = [
    (NotEligible(), OrderStatusError),
    (NotEligible(status=200), OrderStatusError),
    (refusal(401), AuthenticationError),
    (refusal(403), PermissionDeniedError),
    (refusal(404), ApiError),
    (refusal(302), ProtocolError),
    (Answer(headers={"Content-Type": "text/html"}, body=b"<html>"), ProtocolError),
]


async def settled(sandbox: Sandbox) -> None:
    """Wait until the served sandbox has noticed that its clients left."""
    for _ in range(5000):
        if not sandbox.in_flight:
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the sandbox still answers somebody")

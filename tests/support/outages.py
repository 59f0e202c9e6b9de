"""A service that goes down, behind a session in virtual time, and a batch of calls to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from math import inf
from typing import Any

from attrs import define, field
from fakes import FakeResponse
from session_calls import BASE, CALL, DOWN, FINE, body
from vtime import VirtualClock

from invoicing_async._core.causes import of_document
from invoicing_async._core.http import Exchange, Request
from invoicing_async._core.ramp import Cause, Verdict
from invoicing_async.auth import StaticToken
from invoicing_async.errors import InvoicingError, TransportError
from invoicing_async.session import Session, Sleep
from invoicing_async.session._feature import Feature
from invoicing_async.session._session import internals_of

LATENCY = 0.05


@define
class Unsteady:
    """A transport to a service that takes `LATENCY` for each call, but is `down` between two times.

    Down it refuses connections (`connects` false) or answers SYS_DEP_503. `bad` bodies always meet SYS_DEP_503. Beyond
    `capacity` calls at once it queues as many and refuses the others.
    """

    down: tuple[float, float] = (inf, inf)
    connects: bool = True
    retry_after: str | None = None
    bad: frozenset[bytes] = frozenset()
    capacity: int = 1_000_000
    in_outage: int = 0
    sent: int = 0
    under_way: int = 0
    at: list[float] = field(factory=list)
    by_path: Counter[str] = field(factory=Counter)
    done: Counter[str] = field(factory=Counter)
    """How often each path was answered well."""
    _working: asyncio.Semaphore | None = None

    def is_down(self) -> bool:
        return self.down[0] <= asyncio.get_running_loop().time() < self.down[1]

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[FakeResponse]:
        self.sent += 1
        self.at.append(asyncio.get_running_loop().time())
        self.by_path[request.path] += 1
        self.under_way += 1
        try:
            yield await self.answer(request, exchange)
        finally:
            self.under_way -= 1

    async def answer(self, request: Request, exchange: Exchange) -> FakeResponse:
        if self.is_down():
            self.in_outage += 1
            await asyncio.sleep(0.002)
            if not self.connects:
                raise TransportError("connection refused", sent="no")
            exchange.leave()
            return self.refusal()
        exchange.leave()
        if request.body in self.bad:
            await asyncio.sleep(0.002)
            return DOWN
        if self.under_way > 2 * self.capacity:
            await asyncio.sleep(0.002)
            return DOWN
        self._working = self._working or asyncio.Semaphore(self.capacity)
        async with self._working:
            await asyncio.sleep(LATENCY)
        if self.is_down():
            self.in_outage += 1
            return self.refusal()
        self.done[request.path] += 1
        return FINE

    def refusal(self) -> FakeResponse:
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        return FakeResponse(status=503, headers=headers, pieces=DOWN.pieces)

    async def close(self) -> None:
        """Nothing is held."""


@asynccontextmanager
async def governed(service: Unsteady, **settings: Any) -> AsyncIterator[Session]:
    """A session in virtual time."""
    async with Session(BASE, auth=StaticToken("t"), clock=VirtualClock(), transport=service, **settings) as session:
        yield session


class Calls(Feature):
    """A client whose items are bodies."""

    def __init__(self, session: Session) -> None:
        super().__init__(internals_of(session))

    async def tried(self, item: bytes, sleep: Sleep) -> tuple[bytes, Exception | None]:
        request = Request(method="POST", path=f"/{item.decode()}", body=item, operation=CALL.operation)
        try:
            await self.session.call(request, body, sleep=sleep)
        except InvoicingError as error:
            if self.session.ends_batch(error):
                raise
            return item, error
        return item, None

    async def run(self, many: int) -> tuple[list[tuple[bytes, BaseException | None]], BaseException | None]:
        """Return each item's outcome, and what ended the batch."""
        items = [str(number).encode() for number in range(many)]
        outcomes: list[tuple[bytes, BaseException | None]] = []
        each = self.each(items, self.tried, on_not_started=lambda item, error: (item, error), judge=judged)
        try:
            async with aclosing(each):
                async for outcome in each:
                    outcomes += [outcome]
        except InvoicingError as error:
            return outcomes, error
        return outcomes, None


def judged(outcome: tuple[bytes, BaseException | None]) -> Cause | Verdict:
    error = outcome[1]
    return of_document(error) if isinstance(error, Exception) else Verdict.WELL

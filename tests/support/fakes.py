"""Real small implementations of the package's protocols, for tests: a clock turned by hand, a scripted transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from attrs import Factory, define, field

from invoicing_async._core.clock import RealClock
from invoicing_async._core.http import Exchange, Request, Response
from invoicing_async.errors import ProtocolError
from invoicing_async.testing import START
from invoicing_async.testing import FakeClock as QuietClock

__all__ = ["START", "Answer", "FakeClock", "FakeResponse", "FakeTransport", "LaterClock"]


class LaterClock(RealClock):
    """The wall clock an hour on: what was given up cannot arrive any more."""

    def now(self) -> float:
        return super().now() + 3600.0


class FakeClock(QuietClock):
    """With `auto` every sleep turns it at once, whatever else is under way: as fast as can be."""

    async def sleep(self, seconds: float) -> None:
        if not self.auto:
            await super().sleep(seconds)
            return
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)


@define
class FakeResponse:
    """An answer from memory; `pieces` are its body as it arrives, an exception among them is raised."""

    status: int = 200
    headers: Mapping[str, str] = Factory(dict)
    pieces: tuple[bytes | Exception, ...] = ()

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)

    def arrived(self) -> bytes | None:
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await asyncio.sleep(0)
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def read(self, limit: int) -> bytes:
        body = b"".join([chunk async for chunk in self.chunks()])
        if len(body) > limit:
            raise ProtocolError(f"the answer is longer than {limit:,} bytes", head=body)
        return body


Answer = FakeResponse | Exception | Callable[[Request], Awaitable[FakeResponse]]


@define
class FakeTransport:
    """Answers each request with the next of `answers`; the last is repeated. Keeps what was sent."""

    answers: list[Answer] = field(factory=list)
    sent: list[Request] = field(factory=list)
    open: int = 0
    most_open: int = 0
    closed: bool = False

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.sent.append(request)
        if isinstance(answer, Exception):
            if getattr(answer, "sent", "unknown") != "no":
                exchange.leave()
            raise answer
        exchange.leave()
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            yield answer if isinstance(answer, FakeResponse) else await answer(request)
        finally:
            self.open -= 1

    async def close(self) -> None:
        self.closed = True

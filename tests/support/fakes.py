"""Real small implementations of the package's protocols, for tests: a clock turned by hand, a scripted transport."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count

from attrs import Factory, define, field

from invoicing_async._core.clock import RealClock
from invoicing_async._core.http import Exchange, Request, Response
from invoicing_async.errors import ProtocolError

START = 1_758_100_350.0
"""Epoch seconds at which a `FakeClock` begins."""


class LaterClock(RealClock):
    """The wall clock an hour on: what was given up cannot arrive any more."""

    def now(self) -> float:
        return super().now() + 3600.0


class FakeClock:
    """A clock that a test turns: `advance` moves it, and with `auto` a sleep moves it at once.

    `chances` are the numbers `random` gives in turn; the last one is repeated.
    """

    def __init__(self, *, auto: bool = True, chances: tuple[float, ...] = (0.5,)) -> None:
        self.elapsed = 0.0
        self.auto = auto
        self.slept: list[float] = []
        self._chances = list(chances)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def now(self) -> float:
        return START + self.elapsed

    def monotonic(self) -> float:
        return self.elapsed

    def random(self) -> float:
        return self._chances.pop(0) if len(self._chances) > 1 else self._chances[0]

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        bound = asyncio.timeout(None)
        if seconds is not None:
            self._at(self.elapsed + seconds, lambda: _expire(bound))
        return bound

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.auto:
            self.advance(seconds)
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        self._at(self.elapsed + seconds, lambda: None if woken.done() else woken.set_result(None))
        await woken

    @property
    def sleeping(self) -> int:
        return len(self._timers)

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._order), action))

    def advance(self, seconds: float) -> None:
        """Move the clock and fire what falls due, in order."""
        until = self.elapsed + max(0.0, seconds)
        while self._timers and self._timers[0][0] <= until:
            when, _, action = heapq.heappop(self._timers)
            self.elapsed = max(self.elapsed, when)
            action()
        self.elapsed = until


def _expire(bound: asyncio.Timeout) -> None:
    try:
        bound.reschedule(asyncio.get_running_loop().time() - 1)
    except RuntimeError:
        return  # it ended before: a timer that nobody waits for any more


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

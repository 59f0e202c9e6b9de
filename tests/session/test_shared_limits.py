"""Limits that several sessions of one process keep together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import vtime
from fakes import FakeResponse
from session_calls import BASE, CALL, body
from vtime import VirtualClock

from invoicing_async import HmacAuth, Limits, RetryPolicy, Session, SharedLimits, StaticToken
from invoicing_async.auth import Auth
from invoicing_async.errors import SessionError
from invoicing_async.transport import Exchange, Request, Response


class Slow:
    """A service whose answers take a second; it notes when each call began and how many were under way at most."""

    def __init__(self) -> None:
        self.begun: list[tuple[float, str]] = []
        self.under_way = self.most = 0

    def to(self, name: str) -> SlowTransport:
        return SlowTransport(self, name)


class SlowTransport:
    def __init__(self, service: Slow, name: str) -> None:
        self.service, self.name = service, name

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        service = self.service
        service.begun.append((asyncio.get_running_loop().time(), self.name))
        service.under_way += 1
        service.most = max(service.most, service.under_way)
        try:
            await asyncio.sleep(1)
            yield FakeResponse()
        finally:
            service.under_way -= 1

    async def close(self) -> None:
        """Nothing is held."""


def session(service: Slow, name: str, limits: SharedLimits, auth: Auth | None = None) -> Session:
    transport = service.to(name)
    retry = RetryPolicy(deadline=None)
    auth = auth or StaticToken(name)
    return Session(BASE, auth=auth, limits=limits, transport=transport, clock=VirtualClock(), retry=retry)


def run(work: Callable[[Slow, Callable[[str], Session]], Awaitable[None]], limits: Limits) -> Slow:
    service, shared = Slow(), SharedLimits(limits)

    async def all_of_it() -> None:
        async with AsyncExitStack() as open_ones:
            sessions = {name: await open_ones.enter_async_context(session(service, name, shared)) for name in "ab"}
            await work(service, sessions.__getitem__)

    vtime.run(all_of_it())
    return service


async def both(service: Slow, of: Callable[[str], Session]) -> None:
    """`a` asks for five times as much as `b`, and asks first."""
    calls = [of(name).call(CALL, body) for name, many in {"a": 200, "b": 40}.items() for _ in range(many)]
    await asyncio.gather(*calls)


def test_the_rate_is_the_sum_and_each_has_an_equal_share() -> None:
    begun = run(both, Limits(concurrency=500, per_second=20, adaptive=False)).begun
    times = [at for at, _ in begun]
    assert all(later - earlier >= 0.999 for earlier, later in zip(times, times[20:], strict=False))
    assert times[-1] == pytest.approx(239 / 20, abs=0.1)
    until_b_ends = [name for _, name in begun][: [name for _, name in begun].index("b") + 80]
    assert abs(until_b_ends.count("a") - until_b_ends.count("b")) <= 8


def test_the_places_are_the_sum_and_each_has_an_equal_share() -> None:
    service = run(both, Limits(concurrency=8, adaptive=False))
    assert service.most == 8
    begun = [name for _, name in service.begun][:80]
    assert abs(begun.count("a") - begun.count("b")) <= 4


def test_sessions_with_limits_of_their_own_share_nothing() -> None:
    """The counterweight: equal limits are not shared ones."""
    service = Slow()

    async def work() -> None:
        limits = Limits(concurrency=4, adaptive=False)
        ones = [
            Session(BASE, auth=StaticToken("t"), limits=limits, transport=service.to(name), clock=VirtualClock())
            for name in "ab"
        ]
        async with ones[0], ones[1]:
            await asyncio.gather(*(one.call(CALL, body) for one in ones for _ in range(8)))

    vtime.run(work())
    assert service.most == 8


def test_two_sessions_of_one_store_are_one_of_those_that_take_turns() -> None:
    service, shared = Slow(), SharedLimits(Limits(concurrency=2, adaptive=False))

    def store(name: str) -> HmacAuth:
        return HmacAuth(partner_client_id="p", secret_key="k", store_client_id=name[0], store_token="t")

    async def work() -> None:
        async with AsyncExitStack() as open_ones:
            names = ["a1", "a2", "b"]
            ones = [await open_ones.enter_async_context(session(service, name, shared, store(name))) for name in names]
            await asyncio.gather(*(one.call(CALL, body) for _ in range(20) for one in ones))

    vtime.run(work())
    begun = [name[0] for _, name in service.begun][2:38]
    assert abs(begun.count("a") - begun.count("b")) <= 2


def test_another_event_loop_cannot_share_them_until_it_is_the_only_one() -> None:
    service, shared = Slow(), SharedLimits(Limits())

    async def alone() -> None:
        async with session(service, "b", shared) as one:
            await one.call(CALL, body)

    async def beside() -> None:
        async with session(service, "a", shared):
            with pytest.raises(SessionError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, alone())

    asyncio.run(beside())
    vtime.run(alone())
    assert len(service.begun) == 1


def test_a_session_that_could_not_be_opened_does_not_have_them() -> None:
    """Otherwise no other event loop could ever share them."""
    shared = SharedLimits(Limits())

    def fails() -> SlowTransport:
        raise OSError("no descriptors left")

    async def opened(transport: SlowTransport | Callable[[], SlowTransport]) -> None:
        async with Session(BASE, auth=StaticToken("t"), limits=shared, transport=transport):
            pass

    with pytest.raises(OSError, match="no descriptors left"):
        asyncio.run(opened(fails))
    asyncio.run(opened(Slow().to("a")))


def test_it_shows_its_limits() -> None:
    shared = SharedLimits(Limits(concurrency=3))
    assert repr(shared) == f"SharedLimits({Limits(concurrency=3)!r})"
    assert Session(BASE, auth=StaticToken("t"), limits=shared).limits == Limits(concurrency=3)

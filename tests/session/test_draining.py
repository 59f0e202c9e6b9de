"""A session that is closed with a drain takes nothing new, and lets what is under way end by itself for so long."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from fakes import FakeClock, FakeResponse
from peers import Connection, Peer, listening
from session_calls import CALL, DOWN, FINE, SUBMISSION, body, scripted

from invoicing_async import HmacAuth, OrderDocuments, Session, SessionError
from invoicing_async.auth import OAuthClientCredentials
from invoicing_async.models import NotStarted, Saved
from invoicing_async.policies import Limits
from invoicing_async.sandbox import Sandbox, SandboxSettings, demo_orders
from invoicing_async.session._session import internals_of

pytestmark = pytest.mark.asyncio
TOKEN = FakeResponse(
    headers={"Content-Type": "application/json"}, pieces=(b'{"access_token": "t", "expires_in": 0.000001}',)
)


class Gate:
    """An answer that waits until it is let through."""

    def __init__(self, then: Any = FINE) -> None:
        self.reached, self.open, self.then = asyncio.Event(), asyncio.Event(), then

    async def __call__(self, request: Any) -> Any:
        self.reached.set()
        await self.open.wait()
        return self.then


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_call_under_way_ends_well_and_a_new_one_is_refused() -> None:
    """What was in flight has its answer; nothing was cut off."""
    gate = Gate()
    async with scripted(gate) as session:
        call = asyncio.create_task(session.call(CALL, body))
        await gate.reached.wait()
        closing = asyncio.create_task(session.close(drain=10))
        await turns()
        with pytest.raises(SessionError, match="takes no more calls"):
            await session.call(CALL, body)
        gate.open.set()
        assert await call == b"fine"
        assert await closing == ()
        with pytest.raises(SessionError, match="is closed"):
            await session.call(CALL, body)


async def test_a_call_that_is_retried_meanwhile_ends_well() -> None:
    """The wait and the next attempt belong to what is under way."""
    gate = Gate(DOWN)
    async with scripted(gate, FINE, clock=FakeClock()) as session:
        call = asyncio.create_task(session.call(CALL, body))
        await gate.reached.wait()
        closing = asyncio.create_task(session.close(drain=100))
        await turns()
        gate.open.set()
        assert await call == b"fine"
        assert await closing == ()


async def test_a_call_under_way_may_still_get_a_token() -> None:
    """Its next attempt needs a new one, which is asked for though the session takes no calls."""
    gate = Gate(FakeResponse(status=401))
    auth = OAuthClientCredentials(client_id="c", client_secret="s", tenant_connection_code="t")
    async with scripted(TOKEN, gate, TOKEN, FINE, auth=auth) as session:
        call = asyncio.create_task(session.call(CALL, body))
        await gate.reached.wait()
        closing = asyncio.create_task(session.close(drain=10))
        await turns()
        gate.open.set()
        assert await call == b"fine"
        assert await closing == ()


async def test_what_takes_longer_is_cut_off_and_named() -> None:
    """The operations that did not end are said, and their calls fail with the session's end."""
    gate, clock = Gate(), FakeClock()
    async with scripted(gate, clock=clock) as session:
        calls = [asyncio.create_task(session.call(request, body)) for request in (CALL, SUBMISSION)]
        await gate.reached.wait()
        closing = asyncio.create_task(session.close(drain=1))
        await turns()
        clock.advance(1.5)
        assert sorted(await closing) == ["test", "test"]
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, SessionError) for error in errors)


async def test_a_wait_between_polls_ends_at_once() -> None:
    """Nothing is under way in it, and what would follow is a new call."""
    async with scripted(FINE, clock=FakeClock(auto=False)) as session:
        waiting = asyncio.create_task(internals_of(session).sleep(3600))
        await turns()
        assert await session.close(drain=3600) == ()
        with pytest.raises(SessionError):
            await waiting


async def test_closing_once_more_cuts_the_drain_short() -> None:
    """An operator who asks twice does not wait."""
    gate = Gate()
    async with scripted(gate) as session:
        call = asyncio.create_task(session.call(CALL, body))
        await gate.reached.wait()
        closing = asyncio.create_task(session.close(drain=3600))
        await turns()
        assert await session.close() == ("test",)
        assert await closing == ()
        with pytest.raises(SessionError):
            await call


async def test_a_document_that_is_read_meanwhile_is_read_to_its_end() -> None:
    """An open body counts as under way."""
    going = asyncio.Event()

    async def play(connection: Connection, peer: Peer) -> None:
        await connection.request()
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        await going.wait()
        await connection.say(b"half")
        await connection.hang()

    auth = HmacAuth(partner_client_id="p", secret_key="k")
    async with listening(play) as peer, Session(peer.url, auth=auth) as session:
        async with session.open(evolve(CALL, path="/v1/x"), chunks) as content:
            closing = asyncio.create_task(session.close(drain=10))
            await turns()
            assert not closing.done()
            going.set()
            assert b"".join([piece async for piece in content]) == b"halfhalf"
        assert await closing == ()


async def chunks(response: Any) -> Any:
    return response.chunks()


async def test_a_batch_saves_what_is_in_flight_and_says_what_was_not_started(tmp_path: Path) -> None:
    """Every id has its row: saved, or not started, which a later run takes up."""
    orders = demo_orders(30)
    sandbox = Sandbox(settings=SandboxSettings(latency=0.02))
    auth = HmacAuth(**sandbox.credentials.partner())
    rows = []
    async with Session("https://s.test", auth=auth, transport=sandbox, limits=Limits(concurrency=4)) as session:

        async def batch() -> None:
            async for row in OrderDocuments(session).download_many(orders, tmp_path):
                rows.append(row)  # noqa: PERF401 - how many there are is looked at meanwhile

        running = asyncio.create_task(batch())
        while len(rows) < 3:  # noqa: ASYNC110 - a batch tells nobody how far it is
            await asyncio.sleep(0.001)
        assert await session.close(drain=10) == ()
        with pytest.raises(SessionError):
            await running
    assert {type(row) for row in rows} == {Saved, NotStarted}
    assert len(rows) == 30
    assert len(list(tmp_path.glob("*.pdf"))) == sum(isinstance(row, Saved) for row in rows)

"""An idle connection that went bad costs no attempt and no backoff; a submission that left on one is sent no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from peers import OK, Connection, Peer, Play, listening, run_eagerly

from invoicing_async import Limits, RetryPolicy, Session, StaticToken, Timeouts
from invoicing_async._core.http import Repeat, Request, Response
from invoicing_async.errors import TransportError
from invoicing_async.events import AttemptFailed, Event, RetryScheduled

pytestmark = pytest.mark.usefixtures("both_paths")

CALL = Request(method="POST", path="/x")
SUBMISSION = Request(method="POST", path="/x", body=b"{}", repeat=Repeat.IF_NOT_SENT)
ONCE = RetryPolicy(attempts=1, first=60, deadline=50)
"""One attempt, and a backoff that no test would outlast."""

Run = Callable[[Coroutine[Any, Any, None]], None]
End = Callable[[Connection], Coroutine[Any, Any, None]]


@pytest.fixture(params=[asyncio.run, uvloop.run, run_eagerly], ids=["asyncio", "uvloop", "eager"])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.param
    return found


async def closes(connection: Connection) -> None: ...


async def resets(connection: Connection) -> None:
    connection.reset()


async def begins_and_closes(connection: Connection) -> None:
    await connection.say(b"HTTP/1.1 2")


async def says_nonsense(connection: Connection) -> None:
    await connection.say(b"nonsense\r\n\r\n")


def good_for(requests: int, end: End) -> Play:
    """Answer so many requests on each connection, and end the next one's in this way."""

    async def play(connection: Connection, peer: Peer) -> None:
        for _ in range(requests):
            peer.requests.append(await connection.request())
            await asyncio.sleep(0.01)  # those that are asked at once have a connection each
            await connection.say(OK)
        peer.requests.append(await connection.request())
        await end(connection)

    return play


async def read(response: Response) -> bytes:
    return await response.read(10)


@asynccontextmanager
async def idle(
    play: Play, count: int, heard: Callable[[Event], None] | None = None, retry: RetryPolicy = ONCE
) -> AsyncIterator[tuple[Session, Peer]]:
    """A session with so many idle connections, and the peer at their other end."""
    async with (
        listening(play) as peer,
        Session(
            peer.url,
            auth=StaticToken("t"),
            retry=retry,
            timeouts=Timeouts(),
            limits=Limits(adaptive=False),
            on_event=heard,
        ) as session,
    ):
        await asyncio.gather(*(session.call(CALL, read) for _ in range(count)))
        assert peer.connections == len(peer.requests) == count
        yield session, peer


@pytest.mark.parametrize("end", [closes, resets])
def test_one_that_is_closed_before_a_byte_of_answer_is_followed_at_once_by_a_fresh_one(run: Run, end: End) -> None:
    """However many of them are idle, and though the policy allows one attempt. The history tells of it."""
    told: list[Event] = []

    async def work() -> None:
        async with idle(good_for(1, end), 16, told.append) as (session, peer):
            told.clear()
            assert await session.call(CALL, read) == b"ok"
            assert (peer.connections, len(peer.requests)) == (17, 18)

    run(work())
    assert [event.attempt for event in told if isinstance(event, AttemptFailed)] == [1]
    assert [event.delay for event in told if isinstance(event, RetryScheduled)] == [0.0]


@pytest.mark.parametrize("end", [closes, resets])
def test_a_submission_that_left_on_one_is_never_sent_again(run: Run, end: End) -> None:
    async def work() -> None:
        retry = RetryPolicy(attempts=5, first=0)
        async with idle(good_for(1, end), 3, retry=retry) as (session, peer):
            with pytest.raises(TransportError) as caught:
                await session.call(SUBMISSION, read)
            assert (caught.value.sent, len(caught.value.attempts)) == ("unknown", 1)
            assert (peer.connections, len(peer.requests)) == (3, 4)

    run(work())


@pytest.mark.parametrize("end", [begins_and_closes, says_nonsense])
def test_one_on_which_an_answer_began_counts(run: Run, end: End) -> None:
    async def work() -> None:
        async with idle(good_for(1, end), 2) as (session, peer):
            with pytest.raises(Exception, match=r"closed the connection|not an HTTP answer"):
                await session.call(CALL, read)
            assert (peer.connections, len(peer.requests)) == (2, 3)

    run(work())


@pytest.mark.parametrize("end", [closes, resets])
def test_a_fresh_one_that_is_closed_counts(run: Run, end: End) -> None:
    async def work() -> None:
        async with idle(good_for(0, end), 0) as (session, peer):
            with pytest.raises(TransportError) as caught:
                await session.call(CALL, read)
            assert len(caught.value.attempts) == 1
            assert (peer.connections, len(peer.requests)) == (1, 1)

    run(work())


def test_a_service_that_closes_every_used_connection_is_still_served(run: Run) -> None:
    """Each of them answers one request and is closed at the next, as one with a short keep-alive may."""

    async def work() -> None:
        async with idle(good_for(1, closes), 1) as (session, peer):
            for _ in range(20):
                assert await session.call(CALL, read) == b"ok"
            assert (peer.connections, len(peer.requests)) == (21, 41)

    run(work())


def test_many_that_were_spoilt_while_idle_are_passed_over(run: Run) -> None:
    """Bytes that nobody asked for came on each; the request meets none of them."""

    async def play(connection: Connection, peer: Peer) -> None:
        while True:
            peer.requests.append(await connection.request())
            await asyncio.sleep(0.01)
            await connection.say(OK)
            if len(peer.requests) <= 16:
                await connection.say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")

    async def work() -> None:
        told: list[Event] = []
        async with idle(play, 16, told.append) as (session, peer):
            await asyncio.sleep(0.02)
            for request in (CALL, SUBMISSION):
                told.clear()
                assert await session.call(request, read) == b"ok"
                assert not any(isinstance(event, AttemptFailed) for event in told)
            assert len(peer.requests) == 18

    run(work())

"""What lies in a socket: an answer that came in time is one, what was left there is none; and nothing outlives it."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
import uvloop
from attrs import evolve
from peers import OK, Connection, Peer, answering, listening

from invoicing_async._core.clock import RealClock
from invoicing_async._core.http import Exchange, Repeat, Request, Response
from invoicing_async._transport import sockets
from invoicing_async._transport.client import AiohttpTransport
from invoicing_async.auth import StaticToken
from invoicing_async.errors import ApiError, TransportError
from invoicing_async.policies import RetryPolicy, Timeouts
from invoicing_async.session import Session

CALL = Request(method="POST", path="/x", body=b"{}", repeat=Repeat.IF_NOT_SENT, operation="test")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
ONCE = RetryPolicy(attempts=1)


async def read(response: Response) -> bytes:
    return await response.read(10 * 2**20)


@asynccontextmanager
async def calling(url: str, **timeouts: float) -> AsyncIterator[Session]:
    async with Session(url, auth=StaticToken("t"), retry=ONCE, timeouts=Timeouts(**timeouts)) as session:
        yield session


@contextmanager
def elsewhere(*answers: tuple[float, bytes]) -> Iterator[str]:
    """Serve from a thread without a loop: each connection gets these, each so many seconds after the last."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(30)
            with suppress(OSError):
                connection.recv(65_536)
                for seconds, said in answers:
                    time.sleep(seconds)
                    connection.sendall(said)
                while connection.recv(65_536):
                    connection.sendall(HEAD + b"later")

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def blocked(seconds: float) -> None:
    """Keep the loop busy from a moment on, as somebody's synchronous code does."""
    asyncio.get_running_loop().call_later(0.03, time.sleep, seconds)


LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def run(loop: Any, coroutine: Any) -> Any:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(coroutine)


@LOOPS
@pytest.mark.parametrize("bounds", [{"read": 0.2}, {"attempt": 0.2}], ids=["silence", "attempt"])
@pytest.mark.parametrize("body", [b"fine!", b"x" * 40_000])
def test_an_answer_that_came_while_the_loop_was_blocked_is_an_answer(loop: Any, bounds: Any, body: bytes) -> None:
    async def asked(url: str) -> bytes:
        async with calling(url, **bounds) as session:
            blocked(0.6)
            return await session.call(CALL, read)

    said = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with elsewhere((0.1, said)) as url:
        assert run(loop, asked(url)) == body


@LOOPS
def test_silence_is_silence_all_the_same(loop: Any) -> None:
    async def asked(url: str) -> None:
        async with calling(url, read=0.1) as session:
            blocked(0.3)
            with pytest.raises(TransportError, match="silent"):
                await session.call(CALL, read)

    with elsewhere((30, b"")) as url:
        run(loop, asked(url))


@pytest.mark.asyncio
async def test_a_bound_that_ran_out_gives_what_is_ready_its_turn() -> None:
    clock, ready = RealClock(), asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, ready.set_result, 7)
    async with clock.timeout(0.02) as bound:
        time.sleep(0.05)  # noqa: ASYNC251 - that is what is tested
        assert await ready == 7
    assert not bound.expired()


@LOOPS
@pytest.mark.parametrize("left", [HEAD + b"stale", b"junk"], ids=["another answer", "junk"])
def test_what_was_left_in_the_socket_is_not_the_next_answer(loop: Any, left: bytes) -> None:
    """It came while the loop looked elsewhere; the next request has a connection of its own, at once."""

    async def asked(url: str) -> bytes:
        async with calling(url) as session:
            assert await session.call(CALL, read) == b"first"
            time.sleep(0.2)  # noqa: ASYNC251 - that is what is tested
            return await session.call(CALL, read)

    with elsewhere((0, HEAD + b"first"), (0.05, left)) as url:
        assert run(loop, asked(url)) == b"first"


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
async def test_a_submission_does_not_go_on_a_connection_whose_peer_has_left() -> None:
    """However many idle connections the service closed, it takes one attempt."""
    async with listening(answering(OK)) as peer, calling(peer.url) as session:
        for _ in range(2):
            assert await asyncio.gather(*(session.call(CALL, read) for _ in range(7))) == [b"ok"] * 7
            await asyncio.sleep(0.02)
        assert await session.call(CALL, read) == b"ok"


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [400, 403, 404, 422])
async def test_a_refusal_whose_body_drips_is_what_its_status_says(status: int) -> None:
    async def play(connection: Connection, peer: Peer) -> None:
        await connection.request()
        await connection.say(b"HTTP/1.1 %d No\r\nContent-Length: 99\r\n\r\n" % status)
        while True:
            await connection.say(b" ")
            await asyncio.sleep(0.02)

    for bounds in ({"read": 0.2}, {"read": 5, "attempt": 0.2}):
        async with listening(play) as peer, calling(peer.url, **bounds) as session:
            with pytest.raises(ApiError) as caught:
                await session.call(CALL, read)
            assert caught.value.status == status


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_socket_discards_at_its_end_what_was_not_delivered(loop: str, scheme: str) -> None:
    found: list[tuple[tuple[int, int], int]] = []

    async def asked() -> None:
        authority = trustme.CA()
        server, client = trusted(authority)
        async with listening(answering(OK), ssl=server if scheme == "https" else None) as peer:
            adapter = AiohttpTransport(ssl=client, timeouts=Timeouts(attempt=7))
            async with adapter.send(evolve(CALL, base_url=peer.url), Exchange()) as answer:
                connection: Any = answer
                transport = connection._content._protocol.transport
                found.append(options(transport.get_extra_info("socket").fileno()))
                await answer.read(9)
            await adapter.close()

    run(asyncio.new_event_loop if loop == "asyncio" else uvloop.new_event_loop, asked())
    assert found == [((1, 0), 7000)]


def options(descriptor: int) -> tuple[tuple[int, int], int]:
    with socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as copy:
        linger = struct.unpack("ii", copy.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
        return (linger[0], linger[1]), copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def trusted(authority: trustme.CA) -> tuple[Any, Any]:
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


def test_a_system_without_the_user_timeout_has_the_other_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "USER_TIMEOUT", None)
    with sockets.make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ()), seconds=7) as made:
        assert options(made.fileno()) == ((1, 0), 0)


def test_a_socket_that_cannot_be_configured_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "AT_ONCE", b"")
    with pytest.raises(OSError, match="argument"):
        sockets.make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ()), seconds=7)


def test_it_looks_without_poll_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll")
    here, there = socket.socketpair()
    transport: Any = SimpleNamespace(get_extra_info={"socket": here}.get)
    with here, there:
        assert sockets.is_quiet(transport)
        there.send(b"x")
        assert not sockets.is_quiet(transport)


def test_a_transport_that_is_gone_is_not_quiet() -> None:
    assert not sockets.is_quiet(None)


@pytest.mark.parametrize("size", [1, 9_000, 60_000])
@pytest.mark.usefixtures("both_paths")
@pytest.mark.asyncio
async def test_a_long_header_is_taken_and_the_limit_is_a_setting(size: int) -> None:
    said = b"HTTP/1.1 200 OK\r\nX-Policy: " + b"x" * size + b"\r\nContent-Length: 2\r\n\r\nok"
    async with listening(answering(said)) as peer:
        assert await got(peer.url) == b"ok"
    with pytest.raises(ValueError, match="max_header"):
        AiohttpTransport(max_header=0)


async def got(url: str) -> bytes:
    adapter = AiohttpTransport()
    try:
        async with adapter.send(evolve(CALL, base_url=url), Exchange()) as answer:
            return await answer.read(99)
    finally:
        await adapter.close()

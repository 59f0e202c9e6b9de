"""The network adapter: what leaves, how its failures read, and the server behind the same words."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.http import HttpProcessingError
from attrs import evolve
from fakes import FakeResponse, FakeTransport
from leaks import shown
from mocked import Mocked
from peers import OK, Connection, Peer, answering, free_port, listening, silent

from invoicing_async._core.http import Exchange, Request, Response, path
from invoicing_async._transport.client import AiohttpTransport
from invoicing_async._transport.server import _abort, serve
from invoicing_async.errors import ProtocolError, TransportError
from invoicing_async.policies import Timeouts

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("both_paths")]

SECRET = "hush-hush"
QUICK = Timeouts(connect=0.1, read=0.1, attempt=5)
BASE = "https://service.test/api"


def post(url: str, target: str = "/x", **changed: Any) -> Request:
    headers = {"Authorization": f"Bearer {SECRET}"}
    return evolve(Request(method="POST", path=target, base_url=url, headers=headers), **changed)


@asynccontextmanager
async def transport(**settings: Any) -> AsyncIterator[AiohttpTransport]:
    made = AiohttpTransport(**settings)
    try:
        yield made
    finally:
        await made.close()


async def asked(request: Request, exchange: Exchange | None = None, **settings: Any) -> tuple[int, bytes]:
    async with transport(**settings) as adapter, adapter.send(request, exchange or Exchange()) as answer:
        return answer.status, await answer.read(1_000_000)


async def failure(request: Request, **settings: Any) -> tuple[TransportError, Exchange]:
    exchange = Exchange()
    with pytest.raises(TransportError) as caught:
        await asked(request, exchange, **settings)
    return caught.value, exchange


class TestWhatLeaves:
    async def test_an_empty_post_claims_no_content(self) -> None:
        async with listening(answering(OK)) as peer:
            await asked(post(peer.url))
        head = peer.requests[0].decode().split("\r\n")
        assert head[0] == "POST /x HTTP/1.1"
        assert sorted(head[1:-2]) == [
            "Accept-Encoding: identity",
            "Accept: */*",
            f"Authorization: Bearer {SECRET}",
            "Content-Length: 0",
            f"Host: {peer.url.removeprefix('http://')}",
            "User-Agent: invoicing-async",
        ]

    async def test_a_body_leaves_as_its_bytes_under_the_given_type(self) -> None:
        body = '{"price": 1.10, "tên": "Cà phê"}'.encode()
        async with listening(answering(OK)) as peer:
            await asked(post(peer.url, headers={"Content-Type": "application/json"}, body=body))
        assert peer.requests[0].endswith(b"\r\n\r\n" + body)
        assert peer.requests[0].lower().count(b"content-type:") == 1

    @pytest.mark.parametrize("order_id", ["INV/2025/0001", "a b", "50%", "%2F", "ä?#", "a+b", "..%2f", "~'()*!"])
    async def test_an_encoded_path_is_sent_unchanged(self, order_id: str) -> None:
        target = path("orders", order_id)
        async with listening(answering(OK)) as peer:
            await asked(post(peer.url + "/api/v1", target, query="a=%2F&b=x+y"))
            await asked(post(peer.url + "/api/v1", target))
            await asked(post(peer.url, target))
        assert [request.partition(b" HTTP/1.1\r\n")[0].decode() for request in peer.requests] == [
            f"POST /api/v1{target}?a=%2F&b=x+y",
            f"POST /api/v1{target}",
            f"POST {target}",
        ]

    async def test_no_cookie_is_kept(self) -> None:
        first = b"HTTP/1.1 200 OK\r\nSet-Cookie: id=1\r\nContent-Length: 0\r\n\r\n"
        async with listening(answering(first, OK)) as peer, transport() as adapter:
            for _ in range(2):
                async with adapter.send(post(peer.url.replace("127.0.0.1", "localhost")), Exchange()) as answer:
                    await answer.read(10)
        assert b"ookie" not in peer.requests[1]
        assert peer.connections == 1

    async def test_a_redirect_is_an_answer(self) -> None:
        """Credential headers of our own kind would follow it to another host."""
        away = b"HTTP/1.1 307 Away\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
        async with listening(answering(away, OK)) as peer:
            assert await asked(post(peer.url)) == (307, b"")
        assert len(peer.requests) == 1

    async def test_a_user_agent_can_be_set(self) -> None:
        async with listening(answering(OK)) as peer:
            await asked(post(peer.url), user_agent="till/7")
        assert b"User-Agent: till/7\r\n" in peer.requests[0]

    async def test_what_aiohttp_is_handed(self) -> None:
        """The same facts without a socket, by aioresponses."""
        request = post(BASE, "/a%2Fb", query="c=%20d", body=b"{}")
        async with transport() as adapter:
            with Mocked() as mocked:
                mocked.post(request.url, body=b"fine", headers={"X-Id": "7"})
                async with adapter.send(request, Exchange()) as answer:
                    assert (answer.status, answer.header("x-id")) == (200, "7")
                    assert answer.headers["X-Id"] == "7"
                    assert answer.header("absent") is None
                    assert await answer.read(4) == b"fine"
        (sent,) = mocked.sent
        assert (sent.method, sent.body, sent.follows_redirects) == ("POST", b"{}", False)
        assert sent.headers == {
            "accept-encoding": "identity",
            "authorization": f"Bearer {SECRET}",
            "user-agent": "invoicing-async",
        }

    async def test_credentials_in_a_url_are_aiohttps_to_read(self) -> None:
        async with listening(answering(OK)) as peer:
            await asked(post(peer.url.replace("//", "//me:mine@"), headers={}))
        assert b"Authorization: Basic bWU6bWluZQ==\r\n" in peer.requests[0]

    @pytest.mark.parametrize("both_paths", ["direct"], indirect=True)
    async def test_a_body_that_was_answered_before_it_was_taken_ends_its_connection(self) -> None:
        """The rest of it would be read as the next request."""
        taken = b"HTTP/1.1 413 Too long\r\nContent-Length: 0\r\n\r\n"

        async def play(connection: Connection, peer: Peer) -> None:
            await connection.reader.readuntil(b"\r\n\r\n")
            await connection.say(taken)
            await connection.hang()

        async with listening(play) as peer, transport() as adapter:
            for _ in range(2):
                async with adapter.send(post(peer.url, body=bytes(2**25)), Exchange()) as answer:
                    assert answer.status == 413
        assert peer.connections == 2

    async def test_the_interim_answer_is_not_the_answer(self) -> None:
        async with listening(answering(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)) as peer:
            assert await asked(post(peer.url)) == (200, b"ok")

    async def test_an_http_proxy_is_asked_for_the_whole_url(self) -> None:
        async with listening(answering(OK)) as peer:
            await asked(post("http://service.test"), proxy=peer.url)
        assert peer.requests[0].startswith(b"POST http://service.test/x HTTP/1.1\r\n")


class TestBody:
    async def test_a_body_that_nobody_asked_to_compress_arrives_as_it_was_before(self) -> None:
        body = gzip.compress(b"%PDF-1.7")
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        async with listening(answering(head + body)) as peer:
            assert await asked(post(peer.url)) == (200, b"%PDF-1.7")

    async def test_a_body_in_several_pieces_is_joined(self) -> None:
        async def play(connection: Connection, peer: Peer) -> None:
            await connection.request()
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            await asyncio.sleep(0.02)
            await connection.say(b"cd")

        async with listening(play) as peer:
            assert await asked(post(peer.url)) == (200, b"abcd")

    async def test_a_body_longer_than_the_limit_is_refused(self) -> None:
        async with (
            listening(answering(OK)) as peer,
            transport() as adapter,
            adapter.send(post(peer.url), Exchange()) as answer,
        ):
            with pytest.raises(ProtocolError, match="longer than 1 bytes") as caught:
                await answer.read(1)
        assert (caught.value.head, caught.value.status) == (b"ok", 200)

    async def test_a_connection_whose_body_was_read_is_used_again(self) -> None:
        async with listening(answering(OK, OK, OK)) as peer, transport() as adapter:
            for _ in range(3):
                async with adapter.send(post(peer.url), Exchange()) as answer:
                    await answer.read(10)
        assert peer.connections == 1

    async def test_a_connection_whose_body_was_left_is_closed(self) -> None:
        async def play(connection: Connection, peer: Peer) -> None:
            await connection.request()
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nab")
            await connection.hang()

        async with listening(play) as peer, transport() as adapter:
            async with adapter.send(post(peer.url), Exchange()) as answer:
                assert await anext(answer.chunks()) == b"ab"
            await asyncio.wait_for(peer.gone(), 2)


class TestNothingSent:
    async def test_refused(self) -> None:
        error, exchange = await failure(post(f"http://127.0.0.1:{free_port()}"))
        assert error.sent == "no"
        assert not exchange.sent
        assert str(error).startswith("the connection was refused (ClientConnectorError")

    async def test_a_name_that_does_not_resolve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def look_up(*args: Any, **kwargs: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        error, _ = await failure(post("http://nowhere.test"))
        assert error.sent == "no"
        assert str(error).startswith("the host name does not resolve")

    async def test_a_handshake_that_is_never_answered_ends_with_the_connect_timeout(self) -> None:
        async with listening(silent) as peer:
            error, _ = await failure(post(peer.url.replace("http", "https")), timeouts=QUICK)
        assert error.sent == "no"
        assert str(error).startswith("no connection within the connect timeout")

    async def test_a_peer_that_speaks_no_tls(self) -> None:
        async def play(connection: Connection, peer: Peer) -> None:
            await connection.reader.read(1)
            await connection.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with listening(play) as peer:
            error, _ = await failure(post(peer.url.replace("http", "https")))
        assert error.sent == "no"
        assert str(error).startswith("the TLS handshake failed")

    async def test_a_peer_that_leaves_during_the_handshake(self) -> None:
        async def play(connection: Connection, peer: Peer) -> None:
            await connection.reader.read(1)

        async with listening(play) as peer:
            error, _ = await failure(post(peer.url.replace("http", "https")))
        assert error.sent == "no"

    async def test_a_certificate_nobody_vouches_for(self, certified: Certified) -> None:
        async with listening(answering(OK), ssl=certified.server) as peer:
            error, _ = await failure(post(peer.url))
        assert error.sent == "no"
        assert peer.requests == []
        assert str(error).startswith("the certificate of the service is not trusted")

    async def test_an_idle_connection_on_which_unasked_bytes_came(self) -> None:
        """They would be taken for the answer: another order's document. The next request has a new connection."""

        async def play(connection: Connection, peer: Peer) -> None:
            peer.requests.append(await connection.request())
            await connection.say(OK)
            await asyncio.sleep(0.02)
            await connection.say(OK)
            peer.requests.append(await connection.request())

        async with listening(play) as peer, transport() as adapter:
            async with adapter.send(post(peer.url), Exchange()) as answer:
                await answer.read(10)
            await asyncio.sleep(0.05)
            async with adapter.send(post(peer.url), Exchange()) as answer:
                assert await answer.read(10) == b"ok"
        assert (peer.connections, len(peer.requests)) == (2, 2)

    @pytest.mark.parametrize("answer", [b"HTTP/1.1 403 No\r\n\r\n", b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n"])
    async def test_a_proxy_that_refuses_the_tunnel(self, answer: bytes) -> None:
        async with listening(answering(answer)) as peer:
            proxy = peer.url.replace("http://", f"http://me:{SECRET}@")
            error, _ = await failure(post("https://service.test"), proxy=proxy)
        assert error.sent == "no"
        assert str(error).startswith("the proxy refused the connection with 40")
        assert SECRET not in shown(error)
        assert SECRET.encode() not in peer.requests[0]

    @pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n"], ids=["none", "another protocol"])
    async def test_a_proxy_that_makes_no_tunnel_has_sent_nothing(self, answer: bytes) -> None:
        async def play(connection: Connection, peer: Peer) -> None:
            peer.requests.append(await connection.request())
            await connection.say(answer)

        async with listening(play) as peer:
            proxy = peer.url.replace("http://", f"http://me:{SECRET}@")
            error, _ = await failure(post("https://service.test"), proxy=proxy)
        assert error.sent == "no"
        assert str(error).startswith("the proxy cannot be used: ")
        assert SECRET not in shown(error)

    async def test_a_url_that_cannot_be_called_is_a_bad_argument(self) -> None:
        with pytest.raises(ValueError, match="not a URL that can be called"):
            await asked(post("http://"))

    async def test_a_link_of_another_scheme_is_not_an_http_answer(self) -> None:
        with pytest.raises(ProtocolError, match="not an HTTP answer"):
            await asked(post("ftp://service.test"))


class TestInDoubt:
    async def test_a_connection_refused_after_something_was_sent(self) -> None:
        """aiohttp may send a GET a second time on a new connection."""
        with pytest.raises(TransportError) as caught:
            await asked(post(f"http://127.0.0.1:{free_port()}", method="GET"), Exchange(sent=True))
        assert caught.value.sent == "unknown"

    @pytest.mark.parametrize("cut", [Connection.reset, lambda connection: None], ids=["reset", "closed"])
    async def test_a_connection_cut_after_the_head(self, cut: Callable[[Connection], None]) -> None:
        async def play(connection: Connection, peer: Peer) -> None:
            await connection.request()
            cut(connection)

        async with listening(play) as peer:
            error, exchange = await failure(post(peer.url, body=b"{}"))
        assert error.sent == "unknown"
        assert exchange.sent
        assert SECRET not in shown(error)

    async def test_a_reset_before_anything_was_read(self) -> None:
        """The connection stood, so bytes may have left: nothing is proved."""

        async def play(connection: Connection, peer: Peer) -> None:
            connection.reset()

        async with listening(play) as peer:
            error, exchange = await failure(post(peer.url, body=b"x" * 100_000))
        assert (error.sent, exchange.sent) == ("unknown", True)

    async def test_a_used_connection_that_the_service_closed_meanwhile(self) -> None:
        async def play(connection: Connection, peer: Peer) -> None:
            peer.requests.append(await connection.request())
            await connection.say(OK)
            peer.requests.append(await connection.request())

        async with listening(play) as peer, transport() as adapter:
            async with adapter.send(post(peer.url), Exchange()) as answer:
                await answer.read(10)
            with pytest.raises(TransportError) as caught:
                async with adapter.send(post(peer.url), Exchange()):
                    pass
        assert caught.value.sent == "unknown"
        assert peer.connections == 1
        assert len(peer.requests) == 2

    async def test_a_peer_that_reads_everything_and_never_answers(self) -> None:
        async with listening(silent) as peer:
            error, _ = await failure(post(peer.url), timeouts=QUICK)
            await asyncio.wait_for(peer.gone(), 2)
        assert error.sent == "unknown"
        assert str(error).startswith("the service was silent for longer than the read timeout")

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        ],
        ids=["length", "chunked"],
    )
    async def test_a_body_that_breaks_off(self, answer: bytes) -> None:
        async with listening(answering(answer)) as peer:
            error, _ = await failure(post(peer.url))
        assert error.sent == "unknown"
        assert str(error).startswith("the body broke off before its end")

    async def test_a_body_whose_framing_breaks(self) -> None:
        """Bare aiohttp 3.14 would wait for its next piece for ever."""

        async def play(connection: Connection, peer: Peer) -> None:
            await connection.request()
            await connection.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n")
            await asyncio.sleep(0.02)
            await connection.say(b"ZZ\r\n")

        async with listening(play) as peer:
            error, _ = await failure(post(peer.url))
        assert error.sent == "unknown"

    async def test_a_body_that_is_reset(self) -> None:
        async def play(connection: Connection, peer: Peer) -> None:
            await connection.request()
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
            await asyncio.sleep(0.02)
            connection.reset()

        async with listening(play) as peer:
            error, _ = await failure(post(peer.url))
        assert error.sent == "unknown"

    async def test_a_body_that_falls_silent(self) -> None:
        async def play(connection: Connection, peer: Peer) -> None:
            await connection.request()
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
            await connection.hang()

        async with listening(play) as peer:
            error, _ = await failure(post(peer.url), timeouts=QUICK)
        assert error.sent == "unknown"

    async def test_an_error_of_an_unforeseen_kind_is_still_ours(self) -> None:
        async with transport() as adapter:
            with Mocked() as mocked:
                mocked.post(f"{BASE}/x", exception=aiohttp.ClientConnectionError())
                with pytest.raises(TransportError, match=r"^the exchange failed \(ClientConnectionError\)$") as caught:
                    async with adapter.send(post(BASE), Exchange()):
                        pass
        assert caught.value.sent == "unknown"


@pytest.mark.parametrize(
    "answer",
    [
        b"NONSENSE\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"\x15\x03\x01",
    ],
)
async def test_what_is_not_http_is_a_protocol_error_without_the_credential(answer: bytes) -> None:
    """aiohttp's own error shows the request's headers in its repr."""
    async with listening(answering(answer + b"\r\n\r\n")) as peer:
        with pytest.raises(ProtocolError, match=r"^not an HTTP answer: ") as caught:
            await asked(post(peer.url))
    assert isinstance(caught.value.__cause__, (aiohttp.ClientResponseError, HttpProcessingError))
    assert SECRET not in shown(caught.value)


class Certified:
    """Two contexts that trust each other, by an authority made for the test."""

    def __init__(self) -> None:
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


@pytest.fixture(scope="session")
def certified() -> Certified:
    return Certified()


def fixed(*pieces: bytes | Exception, status: int = 200, **headers: str) -> FakeTransport:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return FakeTransport(answers=[FakeResponse(status=status, headers=named, pieces=pieces)])


class TestServe:
    async def test_a_request_arrives_as_it_was_sent(self) -> None:
        handler = fixed(b"a", b"b", status=201, X_Id="7", Content_Length="2")
        async with (
            serve(handler, base_path="/api/v1") as url,
            transport() as adapter,
            adapter.send(post(url, "/a%2Fb", query="c=%20d", body=b"body"), Exchange()) as answer,
        ):
            assert (answer.status, answer.header("x-id")) == (201, "7")
            assert await answer.read(10) == b"ab"
        (seen,) = handler.sent
        assert (seen.method, seen.path, seen.query, seen.body) == ("POST", "/a%2Fb", "c=%20d", b"body")
        assert seen.base_url == url
        assert seen.headers["authorization"] == f"Bearer {SECRET}"

    async def test_outside_the_base_path_there_is_nothing(self) -> None:
        handler = fixed()
        async with serve(handler, base_path="/api/v1") as url:
            outside = url.removesuffix("/v1")
            assert await asked(post(outside)) == (404, b"outside the base path")
        assert handler.sent == []

    async def test_a_port_can_be_chosen(self) -> None:
        port = free_port()
        async with serve(fixed(b"ok"), port=port) as url:
            assert url == f"http://127.0.0.1:{port}"
            assert await asked(post(url)) == (200, b"ok")

    async def test_tls_with_a_context_of_ones_own(self, certified: Certified) -> None:
        async with serve(fixed(b"ok"), ssl=certified.server) as url:
            assert url.startswith("https://")
            assert await asked(post(url), ssl=certified.client) == (200, b"ok")

    @pytest.mark.parametrize("fault", [TransportError("cut"), ConnectionResetError()])
    async def test_a_fault_before_the_head_cuts_the_connection(self, fault: Exception) -> None:
        async with serve(FakeTransport(answers=[fault])) as url:
            error, _ = await failure(post(url))
        assert error.sent == "unknown"

    @pytest.mark.parametrize("fault", [TransportError("cut"), ConnectionResetError()])
    async def test_a_fault_within_the_body_cuts_the_connection(self, fault: Exception) -> None:
        async with serve(fixed(b"ab", fault, Content_Length="4")) as url:
            await failure(post(url))

    async def test_a_transport_that_is_none_of_asyncios_is_cut_too(self) -> None:
        """Under uvloop a cut connection would otherwise hang; one that is gone needs no cut."""

        class Incoming:
            transport: Any = None
            aborted = 0

            def abort(self) -> None:
                self.aborted += 1

        incoming: Any = Incoming()
        _abort(incoming)
        incoming.transport = incoming
        _abort(incoming)
        assert incoming.aborted == 1

    async def test_a_body_shorter_than_its_length_ends_with_a_closed_connection(self) -> None:
        async with serve(fixed(b"ab", Content_Length="4")) as url:
            error, _ = await failure(post(url))
        assert str(error).startswith("the body broke off")

    async def test_a_client_that_leaves_ends_the_handler(self) -> None:
        ended = asyncio.Event()

        class Hanging:
            @asynccontextmanager
            async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
                try:
                    yield HangingResponse()
                finally:
                    ended.set()

            async def close(self) -> None: ...

        class HangingResponse(FakeResponse):
            async def chunks(self) -> AsyncIterator[bytes]:
                yield b"x"
                await asyncio.get_running_loop().create_future()

        async with serve(Hanging()) as url, transport() as adapter:
            async with adapter.send(post(url), Exchange()) as answer:
                assert await anext(answer.chunks())
            await asyncio.wait_for(ended.wait(), 2)

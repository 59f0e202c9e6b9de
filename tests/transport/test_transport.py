"""The public module of the network: proxies, headers, trace configs, connectors and sessions of the user's own."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import trustme
from attrs import evolve, frozen
from fakes import FakeResponse, FakeTransport
from leaks import kept_in_frames, shown
from peers import OK, Connection, Peer, answering, free_port, listening, silent

from invoicing_async import (
    HmacAuth,
    InvoicingError,
    ProtocolError,
    RetryPolicy,
    Session,
    StaticToken,
    Timeouts,
    TransportError,
)
from invoicing_async import transport as public
from invoicing_async._transport import client
from invoicing_async._transport.pooled import PooledPost
from invoicing_async._transport.proxies import Environment, Proxy, is_excepted, proxy_fault
from invoicing_async.transport import AiohttpTransport, Exchange, Repeat, Request, Response

pytestmark = pytest.mark.asyncio

PASSWORD = "pässw0rd-of-the-proxy"
QUOTED = "p%C3%A4ssw0rd-of-the-proxy"
BASIC = b64encode(f"clerk:{PASSWORD}".encode()).decode()
SIGNATURE = "sha256=not-to-be-seen"
QUICK = Timeouts(connect=0.2, read=0.05, attempt=5)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be behind a proxy."""
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)


def post(url: str, **changed: Any) -> Request:
    request = Request(method="POST", path="/x", base_url=url, headers={"x-signature": SIGNATURE})
    return evolve(request, **changed)


def submission(url: str, **changed: Any) -> Request:
    return post(url, repeat=Repeat.IF_NOT_SENT, body=b"{}", **changed)


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[AiohttpTransport]:
    made = AiohttpTransport(**settings)
    try:
        yield made
    finally:
        await made.close()


async def asked(request: Request, exchange: Exchange | None = None, **settings: Any) -> tuple[int, bytes]:
    async with opened(**settings) as transport, transport.send(request, exchange or Exchange()) as answer:
        return answer.status, await answer.read(1_000_000)


def head(request: bytes) -> dict[str, str]:
    lines = request.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def through(peer: Peer) -> str:
    """A peer's URL as that of a proxy with a password."""
    return peer.url.replace("://", f"://clerk:{QUOTED}@")


async def test_the_public_module_offers_what_a_transport_needs() -> None:
    assert set(public.__all__) == {
        "AiohttpTransport", "Exchange", "Repeat", "Request", "Response", "Transport",
        "has_credential", "path", "proxy_fault", "proxy_for", "serve",
    }  # fmt: skip
    assert all(getattr(public, name).__doc__ for name in public.__all__)


@pytest.mark.parametrize(
    ("proxy", "environment", "through"),
    [
        (None, {}, None),
        (None, {"HTTPS_PROXY": "http://clerk:secret@one:3128"}, "http://one:3128"),
        ("http://clerk:secret@two:3128", {"HTTPS_PROXY": "http://one:3128"}, "http://two:3128"),
    ],
)
async def test_the_proxy_of_a_url_is_told_without_its_credential(
    monkeypatch: pytest.MonkeyPatch, proxy: str | None, environment: dict[str, str], through: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert public.proxy_for("https://host/api", proxy) == through


async def test_serve_is_still_where_it_was() -> None:
    assert client.serve is public.serve
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = client.absent


@frozen
class Tls:
    """A service with a certificate of an authority made for the test."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    authority: bytes


@pytest.fixture(scope="session")
def tls() -> Tls:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client, authority.cert_pem.bytes())


async def tunnel(connection: Connection, peer: Peer) -> None:
    """Open the tunnel that a CONNECT asks for and carry it both ways."""
    peer.requests.append(await connection.request())
    host, _, port = peer.requests[-1].split(b" ")[1].decode().rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await connection.say(b"HTTP/1.1 200 Go\r\n\r\n")

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                target.write(data)
        target.close()

    await asyncio.gather(carry(connection.reader, writer), carry(reader, connection.writer))
    writer.close()


class TestProxy:
    @pytest.mark.parametrize("repeat", Repeat)
    async def test_it_gets_the_credential_and_the_service_does_not(self, repeat: Repeat, tls: Tls) -> None:
        """Over https the proxy sees the host and its own credential, the service its signature."""
        async with listening(answering(OK), ssl=tls.server) as service, listening(tunnel) as proxy:
            request = post(service.url, repeat=repeat, body=b"{}")
            assert await asked(request, proxy=through(proxy), ssl=tls.client) == (200, b"ok")
        assert head(proxy.requests[0])["proxy-authorization"] == f"Basic {BASIC}"
        assert SIGNATURE.encode() not in proxy.requests[0]
        assert "proxy-authorization" not in head(service.requests[0])
        assert head(service.requests[0])["x-signature"] == SIGNATURE

    async def test_over_http_it_is_asked_for_the_whole_url(self) -> None:
        async with listening(answering(OK)) as proxy:
            assert await asked(post("http://service.test/api"), proxy=through(proxy)) == (200, b"ok")
        assert proxy.requests[0].startswith(b"POST http://service.test/api/x HTTP/1.1\r\n")
        assert head(proxy.requests[0])["proxy-authorization"] == f"Basic {BASIC}"

    async def test_headers_of_the_transport_are_not_the_proxys(self, tls: Tls) -> None:
        async with listening(answering(OK), ssl=tls.server) as service, listening(tunnel) as proxy:
            await asked(post(service.url), proxy=proxy.url, ssl=tls.client, headers={"X-Key": "for the service"})
        assert "x-key" not in head(proxy.requests[0])
        assert head(service.requests[0])["x-key"] == "for the service"

    @pytest.mark.parametrize(
        "text",
        [
            f"socks5://clerk:{PASSWORD}@proxy:1080",
            f"http://clerk:{PASSWORD}@proxy:port",
            f"http://clerk:{PASSWORD}@",
            f"http://clerk:{PASSWORD}@pro xy",
            f"http://clerk:{PASSWORD}@proxy\n",
            f"http://clerk:{PASSWORD}@[::1",
        ],
    )
    async def test_what_is_no_proxy_is_refused_without_its_password(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"^proxy ") as caught:
            AiohttpTransport(proxy=text)
        assert PASSWORD not in shown(caught.value) + kept_in_frames(caught.value)

    @pytest.mark.parametrize(
        ("text", "url", "authorization"),
        [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("https://proxy", "https://proxy", None),
            ("proxy.example:3128", "http://proxy.example:3128", None),
            ("HTTP://Proxy:3128/", "http://proxy:3128", None),
            ("http://[::1]:3128", "http://[::1]:3128", None),
            (f"http://clerk:{QUOTED}@proxy:1", "http://proxy:1", f"Basic {BASIC}"),
            ("http://token@proxy", "http://proxy", "Basic " + b64encode(b"token:").decode()),
            ("http://a%40b:c%3Ad@proxy", "http://proxy", "Basic " + b64encode(b"a@b:c:d").decode()),
        ],
    )
    async def test_what_a_proxys_url_says(self, text: str, url: str, authorization: str | None) -> None:
        proxy = Proxy.of(text)
        assert proxy_fault(text) is None
        assert (proxy.url, proxy.authorization) == (url, authorization)
        assert authorization is None or authorization not in repr(proxy)


async def cut(connection: Connection, peer: Peer) -> None:
    await connection.request()
    connection.reset()


FAILING = {
    "cut": cut,
    "garbage": answering(b"NONSENSE\r\n\r\n"),
    "a bad head": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
    "refused": answering(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n"),
    "closed": answering(),
    "silence": silent,
}


def assert_hidden(error: BaseException) -> None:
    seen = shown(error) + kept_in_frames(error)
    for secret in (PASSWORD, QUOTED, BASIC, SIGNATURE):
        assert secret not in seen


class TestSecrets:
    @pytest.mark.parametrize("way", ["direct", "client", "proxy", "session"])
    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("kind", FAILING)
    async def test_no_failure_shows_them(self, kind: str, scheme: str, way: str) -> None:
        """Neither in its text, nor in a local of any frame of its traceback, nor in what it came from."""
        async with listening(FAILING[kind]) as peer, aiohttp.ClientSession() as client:
            settings: dict[str, Any] = {"session": client} if way == "session" else {}
            if way == "proxy":
                settings = {"proxy": through(peer)}
            url = "http://service.test" if way == "proxy" else peer.url
            request = post(url.replace("http:", f"{scheme}:"))
            if way in {"client", "session"}:
                request = evolve(request, repeat=Repeat.IF_NOT_SENT, body=b"{}")
            try:
                async with asyncio.timeout(0.3):
                    status, _ = await asked(request, timeouts=QUICK, **settings)
            except (InvoicingError, TimeoutError) as error:
                assert_hidden(error)
            else:
                assert (kind, status) == ("refused", 407)

    @pytest.mark.parametrize("repeat", Repeat)
    async def test_a_cancelled_call_shows_none(self, repeat: Repeat) -> None:
        async with listening(silent) as peer, opened(proxy=through(peer)) as transport:

            async def call() -> None:
                async with transport.send(post("http://service.test", repeat=repeat), Exchange()):
                    pass

            task = asyncio.create_task(call())
            while not peer.open:  # noqa: ASYNC110 - only their number tells
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
        assert_hidden(caught.value)

    async def test_a_proxy_that_is_not_there_shows_none(self) -> None:
        proxy = f"http://clerk:{QUOTED}@127.0.0.1:{free_port()}"
        for url in ("http://service.test", "https://service.test"):
            with pytest.raises(TransportError) as caught:
                await asked(submission(url), proxy=proxy)
            assert caught.value.sent == "no"
            assert_hidden(caught.value)

    async def test_what_the_caller_was_handling_keeps_its_traceback(self) -> None:
        """Only the exchange's own errors lose the frames of aiohttp."""

        async def ask(url: str) -> TransportError:
            with pytest.raises(TransportError) as caught:
                await asked(submission(url))
            return caught.value

        async def fail_and_ask() -> None:
            async with aiohttp.ClientSession() as client, listening(answering()) as peer:
                try:
                    await client.get(f"http://127.0.0.1:{free_port()}")
                finally:
                    await ask(peer.url)

        with pytest.raises(aiohttp.ClientConnectorError) as before:
            await fail_and_ask()
        assert any(str(entry.path).endswith("aiohttp/connector.py") for entry in before.traceback)


@pytest.mark.parametrize(
    ("names", "url", "proxy"),
    [
        ({"HTTP_PROXY": "http://a:1"}, "http://service.test", "http://a:1"),
        ({"http_proxy": "http://a:1"}, "http://service.test", "http://a:1"),
        ({"HTTP_PROXY": "http://a:1"}, "https://service.test", None),
        ({"HTTPS_PROXY": "http://a:1"}, "https://service.test", "http://a:1"),
        ({"HTTPS_PROXY": "a:1"}, "https://service.test", "http://a:1"),
        ({"ALL_PROXY": "http://a:1"}, "https://service.test", "http://a:1"),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "https://service.test", "http://b:2"),
        ({"HTTPS_PROXY": ""}, "https://service.test", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "service.test"}, "https://service.test", None),
        ({"HTTPS_PROXY": "http://a:1", "no_proxy": "other.test, .test"}, "https://service.test", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, "https://service.test", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "vice.test"}, "https://service.test", "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": ""}, "https://service.test", "http://a:1"),
        ({"FTP_PROXY": "ftp://a:1"}, "https://service.test", None),
    ],
)
async def test_which_proxy_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, names: Mapping[str, str], url: str, proxy: str | None
) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    found = Environment.read().proxy_for(url)
    assert (found and found.url) == proxy


@pytest.mark.parametrize(
    "proxy",
    [
        "http://h:0",
        "http://a..b:1",
        "http://127.1:80",
        "http://h\\x:1",
        "http://h%20x:1",
        "http://1.2.3.4.5",
        5,
        b"http://h:1",
    ],
)
async def test_a_proxy_that_cannot_be_one_is_refused_where_it_is_given(proxy: object) -> None:
    with pytest.raises(ValueError, match=r"^proxy must "):
        AiohttpTransport(proxy=proxy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "port", "name", "excepted"),
    [
        ("service.test", 443, "service.test", True),
        ("service.test", 443, "SERVICE.TEST", True),
        ("a.service.test", 443, "service.test", True),
        ("a.service.test", 443, ".service.test", True),
        ("a.service.test", 443, "*.service.test", True),
        ("service.test", 443, "service.test:443", True),
        ("service.test", 443, "service.test:8443", False),
        ("service.test", 443, "a.service.test", False),
        ("myservice.test", 443, "service.test", False),
        ("127.0.0.1", 80, "127.0.0.1", True),
        ("127.0.0.1", 80, "127.0.0.1:80", True),
        ("127.0.0.1", 80, "127.0.0.0/8", True),
        ("10.1.2.3", 80, "10.0.0.0/16", False),
        ("10.1.2.3", 80, ".3", False),
        ("::1", 80, "::1", True),
        ("::1", 80, "0:0:0:0:0:0:0:1", True),
        ("::1", 80, "[::1]:80", True),
        ("::1", 80, "[::1]:81", False),
        ("fd00::1", 80, "fd00::/8", True),
        ("service.test", 443, "10.0.0.0/8", False),
        ("service.test", 443, ".", False),
        ("service.test", 443, "*", True),
        ("service.test.", 443, "service.test", True),
        ("service.test", 443, "service.test.", True),
        ("service.test", 443, "*.", False),
    ],
)
async def test_which_hosts_are_excepted(host: str, port: int, name: str, excepted: bool) -> None:  # noqa: FBT001
    assert is_excepted(host, port, [name]) is excepted


class TestTrustEnv:
    async def test_the_environments_proxy_is_asked_only_where_that_is_wanted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with listening(answering(OK)) as proxy, listening(answering(OK)) as service:
            monkeypatch.setenv("HTTP_PROXY", through(proxy))
            assert await asked(post(service.url)) == (200, b"ok")
            assert (len(proxy.requests), len(service.requests)) == (0, 1)
            assert await asked(post("http://service.test"), trust_env=True) == (200, b"ok")
        assert head(proxy.requests[0])["proxy-authorization"] == f"Basic {BASIC}"

    async def test_a_host_that_it_excepts_is_called_by_the_short_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with listening(answering(OK)) as service, opened(trust_env=True) as transport:
            sending = transport.send(post(service.url), Exchange())
            assert isinstance(sending, PooledPost)
            async with sending as answer:
                assert await answer.read(10) == b"ok"

    async def test_what_was_given_goes_before_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "socks5://nothing")
        async with listening(answering(OK)) as proxy:
            assert await asked(post("http://service.test"), proxy=proxy.url, trust_env=True) == (200, b"ok")

    async def test_a_proxy_of_another_kind_is_refused_by_its_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALL_PROXY", f"socks5://clerk:{PASSWORD}@proxy:1")
        with pytest.raises(ValueError, match=r"^ALL_PROXY must be an HTTP proxy") as caught:
            AiohttpTransport(trust_env=True)
        assert_hidden(caught.value)

    @pytest.mark.parametrize("trust_env", [True, False])
    async def test_an_authority_of_the_environment(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        tls: Tls,
        trust_env: bool,  # noqa: FBT001
    ) -> None:
        """OpenSSL itself reads the variable when aiohttp is imported; a transport when it is made."""
        file = tmp_path / "ca.pem"
        file.write_bytes(tls.authority)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        async with listening(answering(OK), ssl=tls.server) as service:
            if trust_env:
                assert await asked(post(service.url), trust_env=True) == (200, b"ok")
            else:
                with pytest.raises(TransportError, match="not trusted"):
                    await asked(post(service.url))

    async def test_no_netrc_is_read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """aiohttp's own `trust_env` would refuse to send a token beside what stands there."""
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login clerk password from-netrc\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        async with listening(answering(OK)) as service:
            await asked(submission(service.url, headers={"Authorization": "Bearer t"}), trust_env=True)
        assert head(service.requests[0])["authorization"] == "Bearer t"


@pytest.mark.parametrize("repeat", Repeat)
async def test_headers_go_with_every_request_that_has_none_of_the_name(repeat: Repeat) -> None:
    given = {"X-Tenant": "7", "user-agent": "till", "X-SIGNATURE": "never", "Accept": "application/pdf"}
    async with listening(answering(OK)) as peer:
        await asked(post(peer.url, repeat=repeat), headers=given)
    found = head(peer.requests[0])
    assert [found[name] for name in ("x-tenant", "user-agent", "x-signature", "accept")] == [
        "7", "till", SIGNATURE, "application/pdf",
    ]  # fmt: skip
    assert all(peer.requests[0].lower().count(name.lower().encode() + b":") == 1 for name in (*given, "Host"))


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nb", b"bytes", None, 1])
async def test_a_header_that_cannot_be_sent_is_refused_without_its_value(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^headers: the value of 'X-Key' must be text on one line$"):
        AiohttpTransport(headers={"X-Key": value})


async def test_trace_configs_see_every_attempt() -> None:
    heard: list[str] = []
    config = aiohttp.TraceConfig()

    async def begun(session: Any, context: Any, params: aiohttp.TraceRequestStartParams) -> None:
        params.headers["traceparent"] = f"attempt {len(heard) + 1}"
        heard.append(params.method)

    config.on_request_start.append(begun)
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    async with (
        listening(answering(busy, OK)) as peer,
        Session(
            peer.url,
            auth=StaticToken("t"),
            retry=RetryPolicy(attempts=2, first=0),
            transport=lambda: AiohttpTransport(trace_configs=[config]),
        ) as session,
    ):

        async def read(response: Response) -> bytes:
            return await response.read(10)

        assert await session.call(Request(method="POST", path="/x"), read) == b"ok"
    assert [head(request)["traceparent"] for request in peer.requests] == ["attempt 1", "attempt 2"]
    assert heard == ["POST", "POST"]


async def test_a_trace_config_that_fails_passes_its_own_error_on() -> None:
    """With the frames that are its own."""
    config = aiohttp.TraceConfig()

    async def fails(session: Any, context: Any, params: Any) -> None:
        raise LookupError("of the hook")

    config.on_request_start.append(fails)
    with pytest.raises(LookupError) as caught:
        await asked(submission("http://127.0.0.1:1"), trace_configs=[config])
    assert caught.traceback[-1].name == "fails"


@pytest_asyncio.fixture(params=["connector", "session"])
async def given(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Any]]:
    """What a transport is given of the user's own, closed by its user."""
    async with aiohttp.ClientSession() as client:
        yield {"session": client} if request.param == "session" else {"connector": client.connector}
        assert not client.closed
        assert client.connector is not None
        assert not client.connector.closed


class TestGiven:
    async def test_it_carries_the_call_and_stays_open(self, given: dict[str, Any]) -> None:
        async with listening(answering(OK, OK)) as peer:
            assert await asked(post(peer.url), **given) == (200, b"ok")
            assert await asked(submission(peer.url), **given) == (200, b"ok")
        assert peer.connections == 1
        assert head(peer.requests[1])["accept-encoding"] == "identity"
        assert peer.requests[1].endswith(b"\r\n\r\n{}")

    async def test_a_submission_that_never_had_a_connection_was_not_sent(self, given: dict[str, Any]) -> None:
        exchange = Exchange()
        with pytest.raises(TransportError) as caught:
            await asked(submission(f"http://127.0.0.1:{free_port()}"), exchange, **given)
        assert (caught.value.sent, exchange.sent) == ("no", False)

    async def test_nothing_leaves_when_it_is_too_late(self, given: dict[str, Any]) -> None:
        """The intent is judged on a connection that is there, right before the first byte."""

        def late() -> None:
            raise TransportError("too late", sent="no")

        async with listening(answering(OK)) as peer:
            with pytest.raises(TransportError, match="too late"):
                await asked(submission(peer.url), Exchange(on_send=late), **given)
            assert peer.connections == 1
            assert await asked(submission(peer.url), **given) == (200, b"ok")
        assert len(peer.requests) == peer.connections == 1

    @pytest.mark.parametrize("stray", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray", b""])
    async def test_an_idle_connection_is_looked_at(self, given: dict[str, Any], stray: bytes) -> None:
        """Bytes that nobody asked for, and the peer's end, may lie in a socket that the loop has not come to."""
        written = asyncio.Event()

        async def play(connection: Connection, peer: Peer) -> None:
            peer.requests.append(await connection.request())
            await connection.say(OK)
            raw = connection.writer.get_extra_info("socket")
            await written.wait()
            raw.send(stray) if stray else raw.shutdown(socket.SHUT_WR)
            await connection.hang()

        async with listening(play) as peer, opened(**given) as transport:
            async with transport.send(post(peer.url), Exchange()) as answer:
                await answer.read(10)
            written.set()
            await asyncio.sleep(0)
            with suppress(TransportError):
                async with transport.send(submission(peer.url), Exchange()) as answer:
                    assert await answer.read(10) == b"ok"
        assert all(request.endswith(b"{}") for request in peer.requests[1:])

    async def test_what_was_given_up_is_forgotten_by_its_socket(self, given: dict[str, Any]) -> None:
        """As on the transport's own connections: closing forgets, and what nobody acknowledges is given up."""
        async with listening(silent) as peer, opened(timeouts=QUICK, **given) as transport:
            client = given.get("session")
            connector: aiohttp.BaseConnector = client.connector if client is not None else given["connector"]
            lingers = list[bytes]()

            def leaves() -> None:
                (protocol,) = connector._acquired
                assert protocol.transport is not None
                raw = protocol.transport.get_extra_info("socket")
                lingers.append(raw.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))

            with pytest.raises(TransportError, match="silent"):
                async with transport.send(submission(peer.url), Exchange(on_send=leaves)):
                    pass
        assert lingers == [b"\x01\x00\x00\x00\x00\x00\x00\x00"]


async def token_first(client: aiohttp.ClientSession, url: str, seen: list[bytes]) -> None:
    async with client.post(f"{url}/token", data=b"who I am") as answer:
        seen.append(await answer.read())


class TestWhatElseIsAskedMeanwhile:
    """A hook or a middleware may call something else with the same client: that is none of this transport's."""

    async def test_by_a_middleware(self) -> None:
        seen: list[bytes] = []

        async def middleware(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
            if request.url.path != "/token":
                await token_first(client, peer.url, seen)
            answer: aiohttp.ClientResponse = await handler(request)
            return answer

        async with listening(answering(OK, OK)) as peer, aiohttp.ClientSession(middlewares=[middleware]) as client:
            exchange = Exchange()
            assert await asked(submission(peer.url), exchange, session=client) == (200, b"ok")
        assert [request.partition(b"\r\n\r\n")[2] for request in peer.requests] == [b"who I am", b"{}"]
        assert seen == [b"ok"]

    async def test_by_a_trace_config_whose_failure_leaves_nothing_sent(self) -> None:
        seen: list[bytes] = []
        config = aiohttp.TraceConfig()

        async def begun(client: aiohttp.ClientSession, context: Any, params: Any) -> None:
            if params.url.path != "/token":
                await token_first(client, peer.url, seen)
                raise LookupError("no token")

        config.on_request_start.append(begun)
        exchange = Exchange()
        async with listening(answering(OK)) as peer:
            with pytest.raises(LookupError):
                await asked(submission(peer.url), exchange, trace_configs=[config])
        assert peer.requests[0].endswith(b"\r\n\r\nwho I am")
        assert not exchange.sent

    async def test_a_middleware_that_tries_again_sends_the_same_once_more(self) -> None:
        async def again(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
            answer: aiohttp.ClientResponse = await handler(request)
            if answer.status == 401:
                answer.release()
                answer = await handler(request)
            return answer

        who = b"HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n"
        async with listening(answering(who, OK)) as peer, aiohttp.ClientSession(middlewares=[again]) as client:
            assert await asked(submission(peer.url), session=client) == (200, b"ok")
        assert peer.requests[0] == peer.requests[1]


async def test_a_call_leaves_nothing_to_the_garbage_collector() -> None:
    async with listening(answering(*[OK] * 20)) as peer, opened() as transport:

        async def call() -> None:
            async with transport.send(submission(peer.url), Exchange()) as answer:
                await answer.read(10)

        await call()
        gc.collect()
        gc.disable()
        try:
            for _ in range(15):
                await call()
            assert gc.collect() < 15
        finally:
            gc.enable()


class TestSessionOfTheUsersOwn:
    async def test_its_own_settings_hold(self) -> None:
        """Its headers and cookies go along; what it does by itself with answers is left out."""
        moved = b"HTTP/1.1 307 Away\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n"
        async with (
            listening(answering(moved)) as peer,
            aiohttp.ClientSession(
                headers={"User-Agent": "till", "X-Till": "7"},
                cookies={"id": "1"},
                cookie_jar=aiohttp.CookieJar(unsafe=True),
                raise_for_status=True,
            ) as client,
        ):
            assert await asked(submission(peer.url), session=client) == (307, b"")
        found = head(peer.requests[0])
        assert (found["user-agent"], found["x-till"], found["x-signature"]) == ("till", "7", SIGNATURE)
        assert "id=1" in found["cookie"]
        assert "content-type" not in found

    async def test_its_middlewares_are_asked(self) -> None:
        async def signs(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
            request.headers["X-Agent"] = "was here"
            answer: aiohttp.ClientResponse = await handler(request)
            return answer

        async with listening(answering(OK)) as peer, aiohttp.ClientSession(middlewares=[signs]) as client:
            await asked(submission(peer.url), session=client)
        assert head(peer.requests[0])["x-agent"] == "was here"

    async def test_its_other_requests_are_as_they_were(self) -> None:
        async with listening(answering(OK, OK)) as peer, aiohttp.ClientSession() as client:
            await asked(submission(peer.url), session=client)
            async with client.post(peer.url, data=b"theirs") as answer:
                assert await answer.read() == b"ok"
        assert peer.requests[1].endswith(b"\r\n\r\ntheirs")

    async def test_one_that_is_closed_says_so(self) -> None:
        async with aiohttp.ClientSession() as client:
            transport = AiohttpTransport(session=client)
        with pytest.raises(TransportError, match="session is closed") as caught:
            async with transport.send(post("http://127.0.0.1:1"), Exchange()):
                pass
        assert caught.value.sent == "no"

    async def test_it_brings_its_own_connector_and_trace_configs(self) -> None:
        async with aiohttp.ClientSession() as client:
            for more in ({"connector": client.connector}, {"trace_configs": [aiohttp.TraceConfig()]}):
                with pytest.raises(ValueError, match=r"^session: give its own"):
                    AiohttpTransport(session=client, **more)


async def nothing(response: Response) -> None:
    await response.read(10)


def session(url: str, timeouts: Timeouts, transport: Any) -> Session:
    auth = HmacAuth(partner_client_id="p", secret_key="k", store_client_id="c", store_token="t")
    return Session(url, auth=auth, retry=RetryPolicy(attempts=1), timeouts=timeouts, transport=transport)


class TestTimeouts:
    @pytest.mark.parametrize("repeat", Repeat)
    async def test_a_given_transport_has_the_sessions(self, repeat: Repeat) -> None:
        async with listening(silent) as peer, opened() as transport, session(peer.url, QUICK, transport) as calling:
            with pytest.raises(TransportError, match="silent for longer than the read timeout"):
                await calling.call(Request(method="POST", path="/x", repeat=repeat), nothing)

    async def test_unless_it_has_its_own(self) -> None:
        slow = Timeouts(read=60, attempt=120)
        async with (
            listening(silent) as peer,
            opened(timeouts=QUICK) as transport,
            session(peer.url, slow, transport) as calling,
        ):
            with pytest.raises(TransportError, match="silent for longer than the read timeout"):
                await calling.call(Request(method="POST", path="/x"), nothing)

    async def test_each_session_has_its_own_and_their_sockets_the_shortest(self) -> None:
        async with listening(silent) as peer, opened() as transport:
            assert transport._connector is not None
            for read, attempt, unacknowledged in ((0.05, 300, 300), (0.02, 20, 20), (0.03, 40, 20)):
                async with session(peer.url, Timeouts(read=read, attempt=attempt), transport) as calling:
                    with pytest.raises(TransportError, match="read timeout"):
                        await calling.call(Request(method="POST", path="/x"), nothing)
                assert transport._time_limits.read_timeout.seconds == read
                assert transport._connector.unacknowledged == unacknowledged

    async def test_any_transport_gets_them(self) -> None:
        told: list[Timeouts | None] = []

        class Listening(FakeTransport):
            def send(self, request: Request, exchange: Exchange) -> Any:
                told.append(exchange.timeouts)
                return super().send(request, exchange)

        async with session("http://service.test", QUICK, Listening(answers=[FakeResponse()])) as calling:
            await calling.call(Request(method="POST", path="/x"), nothing)
        assert told == [QUICK]


class TestWhoCloses:
    async def test_a_transport_that_a_function_made_is_closed_with_the_session(self) -> None:
        made: list[AiohttpTransport] = []

        def make() -> AiohttpTransport:
            made.append(AiohttpTransport())
            return made[-1]

        async with session("http://127.0.0.1:1", QUICK, make):
            (transport,) = made
            assert not transport._client.closed
        assert transport._client.closed

    async def test_a_transport_that_was_given_stays_open(self) -> None:
        async with opened() as transport:
            async with session("http://127.0.0.1:1", QUICK, transport):
                pass
            assert not transport._client.closed

    async def test_the_class_itself_is_such_a_function(self) -> None:
        async with listening(answering(OK)) as peer, session(peer.url, QUICK, AiohttpTransport) as calling:
            await calling.call(Request(method="POST", path="/x"), nothing)


async def test_a_body_that_breaks_off_is_not_an_answer_on_a_connection_of_the_users_own(given: dict[str, Any]) -> None:
    broken = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbro"
    async with listening(answering(broken)) as peer:
        with pytest.raises((TransportError, ProtocolError)):
            await asked(submission(peer.url), **given)

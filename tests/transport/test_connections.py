"""On the way to a connection each failure is named for what it was, each address has its turn, and all is bounded."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
import trustme
import uvloop
from aiohttp.client_reqrep import ConnectionKey
from attrs import evolve
from fakes import FakeClock
from leaks import shown
from peers import OK, Connection, Peer, Play, answering, free_port, listening, run_eagerly, silent

from invoicing_async._core.http import Exchange, Request
from invoicing_async._transport import addresses
from invoicing_async._transport.client import AiohttpTransport
from invoicing_async._transport.errors import furthest, translate
from invoicing_async.errors import TransportError
from invoicing_async.policies import Timeouts

PATIENT = Timeouts(connect=5, read=5, attempt=10)
HASTY = Timeouts(connect=0.1, read=5, attempt=10)
POST = Request(method="POST", path="/x")

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run, run_eagerly], ids=["asyncio", "uvloop", "eager"])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.param
    return found


class Names(aiohttp.abc.AbstractResolver):
    """A resolver that gives what a test says."""

    found: tuple[str, ...] | BaseException | None = ("127.0.0.1",)

    def __init__(self, **_: object) -> None: ...

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        if self.found is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(self.found, BaseException):
            raise self.found
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
            for address in self.found or ()
        ]

    async def close(self) -> None: ...


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(aiohttp.connector, "DefaultResolver", Names)

    def give(*addresses: str, fault: BaseException | None = None, hang: bool = False) -> None:
        monkeypatch.setattr(Names, "found", None if hang else fault or addresses)

    return give


class Certified:
    """Server contexts of an authority of the test's own, and a client's context that trusts it."""

    def __init__(self) -> None:
        self.authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.client = ssl.create_default_context()
        self.authority.configure_trust(self.client)

    def server(self, name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(name).configure_cert(context)
        return context


@pytest.fixture(scope="session")
def certified() -> Certified:
    return Certified()


@asynccontextmanager
async def transport(**settings: Any) -> AsyncIterator[AiohttpTransport]:
    made = AiohttpTransport(**{"timeouts": PATIENT, **settings})
    try:
        yield made
    finally:
        await made.close()


async def failure(url: str, **settings: Any) -> TransportError:
    exchange = Exchange()
    async with transport(**settings) as adapter:
        with pytest.raises(TransportError) as caught:
            async with adapter.send(evolve(POST, base_url=url), exchange):
                pass
    assert (exchange.sent, caught.value.sent) == (False, "no")
    assert str(caught.value).isprintable()
    return caught.value


async def answered(url: str, **settings: Any) -> bytes:
    async with transport(**settings) as adapter, adapter.send(evolve(POST, base_url=url), Exchange()) as answer:
        return await answer.read(10)


async def leaves_the_handshake(connection: Connection, peer: Peer) -> None:
    await connection.reader.read(1)


async def resets_the_handshake(connection: Connection, peer: Peer) -> None:
    await connection.reader.read(1)
    connection.reset()


async def speaks_plain(connection: Connection, peer: Peer) -> None:
    await connection.reader.read(1)
    await connection.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@asynccontextmanager
async def full() -> AsyncIterator[str]:
    """A port whose queue is full: the kernel drops whoever knocks."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as taken:
        port = taken.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
        for each in waiting:
            each.close()


@pytest.mark.usefixtures("both_paths")
class TestEachFailureIsNamed:
    """With real sockets, on both loops and both paths."""

    @pytest.mark.parametrize(
        ("play", "named"),
        [
            (leaves_the_handshake, "the connection was reset while it was made"),
            (resets_the_handshake, "the connection was reset while it was made"),
            (speaks_plain, "the TLS handshake failed"),
        ],
    )
    def test_a_handshake(self, run: Run, play: Play, named: str) -> None:
        async def work() -> None:
            async with listening(play) as peer:
                assert str(await failure(peer.url.replace("http", "https"))).startswith(f"{named} (")

        run(work())

    def test_a_certificate(self, run: Run, certified: Certified) -> None:
        """Nobody vouches for it, or it is of another host."""

        async def work() -> None:
            for name, trusted in (("127.0.0.1", None), ("other.test", certified.client)):
                async with listening(answering(OK), ssl=certified.server(name)) as peer:
                    error = await failure(peer.url, ssl=trusted)
                    assert str(error).startswith("the certificate of the service is not trusted (")
                    assert peer.requests == []

        run(work())

    def test_refused(self, run: Run) -> None:
        async def work() -> None:
            error = await failure(f"http://127.0.0.1:{free_port()}")
            assert str(error).startswith("the connection was refused (ClientConnectorError: ")

        run(work())

    @pytest.mark.parametrize(
        ("fault", "named"),
        [
            (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "the host name does not resolve ("),
            (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "the host name does not resolve now: no name "),
            (OSError(None, "DNS lookup failed"), "the host name does not resolve ("),
            (UnicodeError("label empty or too long"), "the host name does not resolve ("),
        ],
    )
    def test_a_name(self, run: Run, names: Callable[..., None], fault: BaseException, named: str) -> None:
        async def work() -> None:
            names(fault=fault)
            assert str(await failure("http://nowhere.test")).startswith(named)

        run(work())

    def test_nobody_takes_the_call(self, run: Run) -> None:
        async def work() -> None:
            async with full() as url:
                assert str(await failure(url, timeouts=HASTY)).startswith("no connection within the connect timeout")

        run(work())

    def test_a_proxy_that_is_not_there(self, run: Run) -> None:
        async def work() -> None:
            for scheme in ("http", "https"):
                error = await failure(f"{scheme}://service.test", proxy=f"http://me:hush@127.0.0.1:{free_port()}")
                assert str(error).startswith("the proxy cannot be used: the connection was refused (")
                assert "hush" not in str(error)

        run(work())


original_share = addresses._share

KEY = ConnectionKey("service.test", 443, True, True, None, None, None)

NUMBERS = {
    errno.ECONNREFUSED: "the connection was refused",
    errno.ECONNRESET: "the connection was reset while it was made",
    errno.ECONNABORTED: "the connection was reset while it was made",
    errno.EPIPE: "the connection was reset while it was made",
    errno.ETIMEDOUT: "nobody answers at the address",
    errno.ENETUNREACH: "the service is unreachable from this machine",
    errno.EHOSTUNREACH: "the service is unreachable from this machine",
    errno.ENETDOWN: "the service is unreachable from this machine",
    errno.EHOSTDOWN: "the service is unreachable from this machine",
    errno.EADDRNOTAVAIL: "the service is unreachable from this machine",
    errno.EACCES: "this machine's own rules forbid the connection",
    errno.EPERM: "this machine's own rules forbid the connection",
    errno.EMFILE: "this process may open no more sockets",
    errno.ENFILE: "this process may open no more sockets",
}


def test_every_number_of_the_system_has_a_name() -> None:
    """What is not known is not called refused."""
    for number, name in errno.errorcode.items():
        error = aiohttp.ClientConnectorError(KEY, OSError(number, "as the system says"))
        with pytest.raises(TransportError) as caught:
            translate(error, Exchange())
        assert str(caught.value).startswith(NUMBERS.get(number, "the connection could not be made")), name
        assert "as the system says" in str(caught.value), name


def test_the_failure_that_came_furthest_says_why_there_is_no_connection() -> None:
    def failed(number: int) -> Exception:
        return aiohttp.ClientConnectorError(KEY, OSError(number, "x"))

    distrusted = aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError(1, "self-signed"))
    nearer: list[Exception] = [
        failed(errno.ENETUNREACH),
        aiohttp.ConnectionTimeoutError(),
        failed(errno.ECONNREFUSED),
        distrusted,
    ]
    for count in range(1, len(nearer) + 1):
        assert furthest(nearer[:count]) is nearer[count - 1]
        assert furthest(nearer[:count][::-1]) is nearer[count - 1]


class Host:
    """One name with peers at several addresses of this machine, all at one port."""

    def __init__(self, stack: AsyncExitStack, names: Callable[..., None]) -> None:
        self.port = free_port()
        self.url = f"https://several.test:{self.port}"
        self._stack = stack
        self._names = names

    async def at(self, *plays: Play | None, ssl: ssl.SSLContext | None = None, first: str = "127.0.0.1") -> list[Peer]:
        """Play each at an address of its own, in the resolver's order; nobody listens at that of None."""
        addresses = (first, *(f"127.0.0.{number}" for number in range(2, len(plays) + 1)))
        self._names(*addresses)
        return [
            await self._stack.enter_async_context(listening(play, host=address, port=self.port, ssl=found))
            for address, play in zip(addresses, plays, strict=True)
            if play is not None
            for found in [None if play in {silent, leaves_the_handshake} else ssl]
        ]


@asynccontextmanager
async def several(names: Callable[..., None]) -> AsyncIterator[Host]:
    async with AsyncExitStack() as stack:
        yield Host(stack, names)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


class TestSeveralAddresses:
    """One that takes the call and stalls does not eat the time of the next; what is not needed is closed."""

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(addresses, "HEAD_START", 0.02)
        monkeypatch.setattr(addresses, "_share", lambda seconds, ways: 0.03)

    @pytest.mark.parametrize("stalled", [1, 2, 5])
    def test_the_next_one_answers(
        self, run: Run, names: Callable[..., None], certified: Certified, stalled: int
    ) -> None:
        async def work() -> None:
            async with several(names) as host:
                peers = await host.at(*[silent] * stalled, answering(OK), ssl=certified.server("several.test"))
                assert await answered(host.url, ssl=certified.client) == b"ok"
                assert [peer.connections for peer in peers] == [1] * (stalled + 1)
                await asyncio.wait_for(asyncio.gather(*(peer.gone() for peer in peers[:-1])), 2)

        run(work())

    @pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
    def test_a_stalling_ipv6_leaves_ipv4_its_turn(
        self, run: Run, names: Callable[..., None], certified: Certified
    ) -> None:
        async def work() -> None:
            async with several(names) as host:
                peers = await host.at(silent, answering(OK), ssl=certified.server("several.test"), first="::1")
                assert await answered(host.url, ssl=certified.client) == b"ok"
                assert [peer.connections for peer in peers] == [1, 1]

        run(work())

    def test_one_that_fails_is_followed_at_once(
        self, run: Run, names: Callable[..., None], certified: Certified, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(addresses, "HEAD_START", 60)

        async def work() -> None:
            async with several(names) as host:
                trusted = certified.server("several.test")
                await host.at(None, None, leaves_the_handshake, answering(OK), ssl=trusted)
                assert await answered(host.url, ssl=certified.client) == b"ok"

        run(work())

    def test_one_that_answers_within_its_head_start_is_the_only_one_asked(
        self, run: Run, names: Callable[..., None], certified: Certified, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(addresses, "HEAD_START", 60)

        async def work() -> None:
            async with several(names) as host:
                first, second = await host.at(answering(OK), answering(OK), ssl=certified.server("several.test"))
                assert await answered(host.url, ssl=certified.client) == b"ok"
                assert (first.connections, second.connections) == (1, 0)

        run(work())

    def test_all_of_them_together_have_one_bound(self, run: Run, names: Callable[..., None]) -> None:
        async def work() -> None:
            async with several(names) as host:
                peers = await host.at(*[silent] * 6)
                begun = time.monotonic()
                error = await failure(host.url, timeouts=HASTY)
                assert time.monotonic() - begun < 5 * HASTY.connect
                assert str(error).startswith("no connection within the connect timeout")
                await asyncio.wait_for(asyncio.gather(*(peer.gone() for peer in peers)), 2)

        run(work())

    def test_the_reason_is_that_of_the_one_that_came_furthest(
        self, run: Run, names: Callable[..., None], certified: Certified
    ) -> None:
        async def work() -> None:
            async with several(names) as host:
                await host.at(None, answering(OK), leaves_the_handshake, ssl=certified.server("several.test"))
                assert str(await failure(host.url)).startswith("the certificate of the service is not trusted")

        run(work())

    def test_a_slow_handshake_has_its_share_of_the_time(
        self, run: Run, names: Callable[..., None], certified: Certified, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A second one beside each slow one would load a busy service all the more."""
        monkeypatch.setattr(addresses, "HEAD_START", 0.2)
        monkeypatch.setattr(addresses, "_share", lambda seconds, ways: 60)

        async def work() -> None:
            async with several(names) as host:
                trusted = certified.server("several.test")
                (second,) = await host.at(None, answering(OK), ssl=trusted)
                with socket.create_server(("127.0.0.1", host.port)) as taken:
                    asking = asyncio.create_task(answered(host.url, ssl=certified.client))
                    await asyncio.sleep(0.3)
                    async with listening(answering(OK), ssl=trusted, listener=taken) as first:
                        assert await asking == b"ok"
                        assert (first.connections, second.connections) == (1, 0)

        run(work())

    @pytest.mark.parametrize(("seconds", "ways", "share"), [(10.0, 2, 10 / 3), (1.0, 6, 1 / 7), (None, 2, 0.02)])
    def test_the_last_address_has_a_share_too(self, seconds: float | None, ways: int, share: float) -> None:
        assert original_share(seconds, ways) == share

    def test_families_take_turns_in_the_resolvers_order(self) -> None:
        six, four = socket.AF_INET6, socket.AF_INET
        listed: Any = [(six, "a"), (six, "b"), (six, "c"), (four, "d"), (four, "e")]
        turns: Any = list(addresses.by_turns(listed))
        assert [name for _, name in turns] == ["a", "d", "b", "e", "c"]
        assert list(addresses.by_turns([])) == []


@pytest.mark.usefixtures("both_paths")
class TestTheBound:
    """`Timeouts.connect` bounds the name, the proxy's tunnel and the handshake, by the given clock."""

    def test_a_name_that_is_never_found(self, run: Run, names: Callable[..., None]) -> None:
        async def work() -> None:
            names(hang=True)
            error = await failure("http://slow.test", timeouts=HASTY)
            assert str(error) == "no connection within the connect timeout (ConnectionTimeoutError)"

        run(work())

    def test_a_tunnel_that_is_never_granted(self, run: Run) -> None:
        async def work() -> None:
            async with listening(silent) as peer:
                error = await failure("https://service.test", proxy=peer.url, timeouts=HASTY)
                assert str(error).startswith("no connection within the connect timeout")
                await asyncio.wait_for(peer.gone(), 2)

        run(work())

    @pytest.mark.asyncio
    async def test_the_clock_is_the_sessions(self, names: Callable[..., None]) -> None:
        names(hang=True)
        clock = FakeClock(auto=False)
        asking = asyncio.create_task(failure("http://slow.test", timeouts=PATIENT, clock=clock))
        while not clock.sleeping:  # noqa: ASYNC110 - until the bound is set
            await asyncio.sleep(0)
        clock.advance(PATIENT.connect)
        assert str(await asyncio.wait_for(asking, 1)).startswith("no connection within the connect timeout")

    @pytest.mark.asyncio
    async def test_a_signed_link_is_in_no_error(self, names: Callable[..., None]) -> None:
        """aiohttp's own error names the whole URL."""
        names(hang=True)
        link = evolve(POST, method="GET", query="signature=hush", base_url="http://slow.test")
        async with transport(timeouts=HASTY) as adapter:
            with pytest.raises(TransportError) as caught:
                async with adapter.send(link, Exchange()):
                    pass
        assert "hush" not in shown(caught.value)

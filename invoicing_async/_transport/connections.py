"""Connections: how one is made, how it is looked at before it is used again, and how its answers are parsed.

Each forgets at its end what was not delivered (`_transport.sockets`), so that a submission that was given up does not
arrive later. That ends at the next machine: a proxy or a gateway that stores and forwards cannot be called back.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from ssl import SSLContext
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, HttpResponseParser, RawResponseMessage

from .._core.clock import Clock
from .addresses import ConnectionAttempt, by_turns, first
from .heads import UNFINISHED, repaired
from .sockets import AddressInfo, is_quiet, make

__all__ = ["INFORMATIONAL", "READ_BUFFER", "Connector", "only_fresh", "went_stale"]

READ_BUFFER = 2**18
MAX_REPAIRED = 2**20
"""Bytes of an odd head that are waited for."""
KEEPALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which common servers close theirs."""

BROKEN = "its framing is broken"

INFORMATIONAL = 1
"""The class of answers before the answer."""


class _Parser:
    """aiohttp's parser, asked a second time with a repaired head where it refuses the first (`_transport.heads`).

    It is then given the head and the body apart, as if they had come apart: what an answer means does not hang on how
    the network cut it, and a body that is complete is not lost for what follows it.
    """

    __slots__ = ("_another", "_raw", "_real", "_refusal")

    def __init__(self, real: Any, another: Callable[[], HttpResponseParser]) -> None:
        self._real: HttpResponseParser = real
        self._another = another
        self._raw: bytes | None = b""
        self._refusal: HttpProcessingError | None = None

    def feed_data(self, data: bytes) -> _Parsed:
        if self._raw is None:
            return self._real.feed_data(data)
        self._raw = self._raw + data if self._raw else data
        return self._repaired() if self._refusal is not None else self._tried(data)

    def _tried(self, data: bytes) -> _Parsed:
        try:
            found = self._real.feed_data(data)
        except HttpProcessingError as exc:
            self._refusal = exc
            return self._repaired()
        for message, _ in found[0]:
            if message.code // 100 != INFORMATIONAL:
                self._raw = None
        return found

    def _repaired(self) -> _Parsed:
        raw, refusal = self._raw or b"", self._refusal
        found = repaired(raw)
        if found == UNFINISHED and len(raw) <= MAX_REPAIRED:
            return (), False, b""
        self._raw = None
        if found is None or found == UNFINISHED:
            raise refusal or HttpProcessingError
        self._real = self._another()
        messages, upgraded, rest = self._real.feed_data(found[0])
        if upgraded or not found[1]:
            return messages, upgraded, rest + found[1]
        try:
            more, upgraded, rest = self._real.feed_data(found[1])
        except HttpProcessingError as exc:
            payload = messages[-1][1]
            if not payload.is_eof():
                payload.set_exception(aiohttp.ClientPayloadError(BROKEN), exc)
            return messages, False, b""
        return (*messages, *more), upgraded, rest

    @property
    def untouched(self) -> bool:
        """True as long as nothing of an answer has come."""
        return self._raw == b""

    def feed_eof(self) -> RawResponseMessage | None:
        return None if self._refusal is not None and self._raw is not None else self._real.feed_eof()

    def pause_reading(self) -> None:
        self._real.pause_reading()


_Messages = Sequence[tuple[RawResponseMessage, aiohttp.StreamReader]]
_Parsed = tuple[_Messages, bool, bytes]


class _Protocol(ResponseHandler):
    """Repairs odd heads, and ends the body of a lost connection.

    aiohttp lets whoever reads one with broken framing wait for ever.
    """

    __slots__ = ("_answered", "_params", "_uses")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._uses = 0
        self._answered = True

    @property
    def went_stale(self) -> bool:
        return self._uses > 1 and not self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not isinstance(self._loop, asyncio.BaseEventLoop) and transport.get_extra_info("sslcontext") is None:
            # uvloop leaves writing to the end of the loop's turn; beyond this it writes at once, as asyncio does.
            cast("asyncio.Transport", transport).set_write_buffer_limits(high=0)

    def close(self) -> None:
        """End the connection now: TLS would wait for its peer's end, and the kernel go on sending meanwhile."""
        self.abort()

    def set_response_params(self, **params: Any) -> None:
        self._params = params
        self._uses += 1
        super().set_response_params(**params)
        # Duck-typed: aiohttp calls nothing else of its parser.
        parser: Any = _Parser(self._parser, self._another)
        self._parser = parser

    def _another(self) -> Any:
        """Make a second parser for the same answer."""
        parser = self._parser
        super().set_response_params(**self._params)
        made, self._parser = self._parser, parser
        return made

    def connection_lost(self, exc: BaseException | None) -> None:
        body = self._payload
        parser: object = self._parser
        # Ended by us, it has no transport any more.
        self._answered = self.transport is None or not isinstance(parser, _Parser) or not parser.untouched
        super().connection_lost(exc)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError(BROKEN))


def went_stale(protocol: ResponseHandler | None) -> bool:
    """Tell whether a connection had been idle and its peer ended it before a byte of the answer to what left next."""
    return isinstance(protocol, _Protocol) and protocol.went_stale


class _Buffered(_Protocol, asyncio.BufferedProtocol):
    """Reads into one buffer that all connections share.

    asyncio's loop would make a buffer of 256 KiB for every read and give most of it back: that costs more than signing.
    """

    __slots__ = ("_into",)

    def __init__(self, loop: asyncio.AbstractEventLoop, into: memoryview) -> None:
        super().__init__(loop)
        self._into = into

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._into

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._into[:nbytes]))


_fresh: ContextVar[bool] = ContextVar("invoicing_async_fresh", default=False)


@contextmanager
def only_fresh(*, wanted: bool) -> Iterator[None]:
    """Take no idle connection within the block if `wanted`: the last one had been closed by its peer."""
    token = _fresh.set(wanted)
    try:
        yield
    finally:
        _fresh.reset(token)


class Connector(aiohttp.TCPConnector):
    """A pool whose sockets keep nothing after their end, and whose idle connections are looked at before their use.

    `Timeouts.connect` limits the whole way to a new one: the name, every address, TLS, a proxy's tunnel.
    """

    def __init__(self, ssl: SSLContext | None, unacknowledged: float, clock: Clock) -> None:
        super().__init__(
            limit=0,
            keepalive_timeout=KEEPALIVE,
            ssl=True if ssl is None else ssl,
            socket_factory=self._made,
        )
        self.unacknowledged = unacknowledged
        self._clock = clock
        protocol: Callable[..., ResponseHandler] = _Protocol  # uvloop has a buffer of its own
        if isinstance(self._loop, asyncio.BaseEventLoop):
            protocol = partial(_Buffered, into=memoryview(bytearray(READ_BUFFER)))
        self._factory = partial(protocol, self._loop)

    def _made(self, address: AddressInfo) -> socket.socket:
        return make(address, seconds=self.unacknowledged)

    async def _get(self, key: Any, traces: Any) -> Connection | None:
        if _fresh.get():
            return None
        while (found := await super()._get(key, traces)) is not None:
            protocol = found.protocol
            if protocol is not None and not protocol.should_close and is_quiet(found.transport):
                return found
            # Its peer has left, or what it sent would be taken for the next answer.
            found.close()
        return None

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:
        bound = self._clock.timeout(timeout.sock_connect)
        try:
            async with bound:
                return await super()._create_connection(req, traces, timeout)
        except TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError(f"{req.host}:{req.port}") from exc
        except aiohttp.ClientHttpProxyError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientResponseError) as exc:  # by a proxy asked for a tunnel
            is_cut = isinstance(exc, aiohttp.ServerDisconnectedError)
            said = ConnectionResetError("no answer") if is_cut else OSError(0, "not an HTTP answer")
            raise aiohttp.ClientProxyConnectionError(req.connection_key, said) from exc
        except UnicodeError as exc:  # a name that is none is not even looked up
            raise aiohttp.ClientConnectorDNSError(req.connection_key, OSError(0, str(exc))) from exc
        except RuntimeError as exc:  # what uvloop says of a socket that is gone
            raise aiohttp.ClientConnectorError(req.connection_key, OSError(0, str(exc))) from exc

    async def _wrap_create_connection(
        self, *args: Any, addr_infos: list[Any], timeout: aiohttp.ClientTimeout, **options: Any
    ) -> Any:
        (factory,) = args
        connect = partial(super()._wrap_create_connection, timeout=timeout, **options)
        addresses = list(by_turns(addr_infos))
        if len(addresses) == 1:
            return await connect(factory, addr_infos=addresses)
        addr_infos.clear()  # aiohttp would try the rest of them once more
        attempts = [ConnectionAttempt(partial(connect, addr_infos=[address]), factory) for address in addresses]
        return await first(attempts, timeout.sock_connect)

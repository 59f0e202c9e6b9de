"""The door to the network: one transport over aiohttp, one place where its errors become ours, one server.

A `TransportError` says "no" only when the head of the request was never handed to a connection; every other
failure is "unknown". Nothing here retries or follows a redirect: custom credential headers would follow it to
another host.

A POST, which is all that both services take, is put on a connection of aiohttp's pool directly, by aiohttp's own
writer and parser: its client spends twice as long on cookies, redirects, proxies and tracing, none of which is in
use. Whatever else is asked, and everything while somebody has replaced the client's request (aioresponses, an APM
agent), goes through the client.

Each connection forgets at its end what was not delivered (`_sockets`), so that a submission that was given up does
not arrive later. That ends at the next machine: a proxy or a gateway that stores and forwards cannot be called back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from ssl import SSLContext
from types import TracebackType
from typing import Any, NoReturn, Self, cast

import aiohttp
from aiohttp import hdrs, web
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, HttpResponseParser, RawResponseMessage, StreamWriter
from attrs import frozen
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from ._clock import Bound, Clock, RealClock
from ._codings import CodingError, Decoder, codings
from ._heads import mended
from ._http import Exchange, Request, Response, Transport
from ._sockets import is_quiet, make
from .errors import InvoicingError, ProtocolError, TransportError
from .policies import Timeouts

__all__ = ["AiohttpTransport", "serve"]

READ_BUFFER = 2**18
MAX_HEADER = 2**16
"""Bytes that a line of an answer's head may have by default; some proxies add headers of tens of kilobytes."""
MAX_MENDED = 2**20
"""Bytes of an odd head that are waited for."""
KEEPALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which common servers close theirs."""

INFORMATIONAL, SWITCHING = 1, 101
"""The class of answers before the answer, and the one among them that is one."""
_SPOILT = "bytes that nobody asked for came on an idle connection"

_head: ContextVar[_Head | None] = ContextVar("invoicing_async_head", default=None)


class _SpoiltConnectionError(aiohttp.ClientConnectionError):
    """A pooled connection that cannot carry another exchange; nothing was sent on it."""


class _Request(aiohttp.ClientRequest):
    """Notes that a connection was had and the head is about to leave, which no later failure can take back."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        protocol, head = conn.protocol, _head.get()
        if head is None:
            return await super().send(conn)
        if protocol is None or protocol.should_close:
            # What came while it was idle would be taken for the answer: another order's document.
            raise _SpoiltConnectionError(_SPOILT)
        await head.begins()
        try:
            head.leaves()
        except TransportError:
            conn.release()  # it is as good as before
            raise
        # aiohttp would leave the writing to a task, and so to some later time.
        self._body = None
        answer = await super().send(conn)
        if head.body and protocol.transport is not None:
            protocol.transport.write(head.body)
        return answer


class _Parser:
    """aiohttp's parser, asked a second time with a mended head where it refuses the first (`_heads`)."""

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
        return self._mended() if self._refusal is not None else self._tried(data)

    def _tried(self, data: bytes) -> _Parsed:
        try:
            found = self._real.feed_data(data)
        except HttpProcessingError as exc:
            self._refusal = exc
            return self._mended()
        for message, _ in found[0]:
            if message.code // 100 != INFORMATIONAL:
                self._raw = None
        return found

    def _mended(self) -> _Parsed:
        raw, refusal = self._raw or b"", self._refusal
        whole = mended(raw)
        if whole == b"" and len(raw) <= MAX_MENDED:
            return (), False, b""
        self._raw = None
        if not whole:
            raise refusal or HttpProcessingError
        self._real = self._another()
        return self._real.feed_data(whole)

    def feed_eof(self) -> RawResponseMessage | None:
        return None if self._refusal is not None and self._raw is not None else self._real.feed_eof()

    def pause_reading(self) -> None:
        self._real.pause_reading()


_Parsed = tuple[Sequence[tuple[RawResponseMessage, aiohttp.StreamReader]], bool, bytes]


class _Protocol(ResponseHandler):
    """Mends odd heads, and ends the body of a lost connection.

    aiohttp lets whoever reads one with broken framing wait for ever.
    """

    __slots__ = ("_params",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not isinstance(self._loop, asyncio.BaseEventLoop) and transport.get_extra_info("sslcontext") is None:
            # uvloop leaves writing to the end of the loop's turn; beyond this it writes at once, as asyncio does.
            cast("asyncio.Transport", transport).set_write_buffer_limits(high=0)

    def close(self) -> None:
        """End the connection now: TLS would wait for its peer's goodbye, and the kernel go on sending meanwhile."""
        self.abort()

    def set_response_params(self, **params: Any) -> None:
        self._params = params
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
        super().connection_lost(exc)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("its framing is broken"))


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


class _Connector(aiohttp.TCPConnector):
    """A pool whose sockets keep nothing after their end, and whose idle connections are looked at before their use."""

    def __init__(self, ssl: SSLContext | None, unheard: float) -> None:
        super().__init__(
            limit=0,
            keepalive_timeout=KEEPALIVE,
            ssl=True if ssl is None else ssl,
            socket_factory=partial(make, seconds=unheard),
        )
        self._factory = _protocols(self._loop)

    async def _get(self, key: Any, traces: Any) -> Connection | None:
        while (found := await super()._get(key, traces)) is not None:
            protocol = found.protocol
            if protocol is not None and not protocol.should_close and is_quiet(found.transport):
                return found
            # Its peer has left, or what lies there would be taken for the next answer.
            found.close()
        return None


def _protocols(loop: asyncio.AbstractEventLoop) -> partial[ResponseHandler]:
    protocol: Callable[..., ResponseHandler] = _Protocol  # uvloop has a buffer of its own
    if isinstance(loop, asyncio.BaseEventLoop):
        protocol = partial(_Buffered, into=memoryview(bytearray(READ_BUFFER)))
    return partial(protocol, loop)


class AiohttpTransport:
    """One pool of connections. Make it inside the event loop that uses it.

    `ssl` is the context for https, None for aiohttp's own checks; `proxy` the URL of an HTTP proxy; `max_header` how
    many bytes a line of an answer's head may have.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        ssl: SSLContext | None = None,
        proxy: str | None = None,
        user_agent: str = "invoicing-async",
        clock: Clock | None = None,
        max_header: int = MAX_HEADER,
    ) -> None:
        if max_header < 1:
            raise ValueError(f"max_header must be 1 or more, got {max_header!r}")
        bounds = timeouts or Timeouts()
        self._silence = _Silence(clock or RealClock(), bounds.read)
        self._proxy = proxy
        headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        connector = _Connector(ssl, bounds.attempt)
        # Silence is bounded by the clock: a timer of aiohttp's for each piece of a body costs more than the piece.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=bounds.connect)
        self._client = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=headers,
            read_bufsize=READ_BUFFER,
            max_line_size=max_header,
            max_field_size=max_header,
            request_class=_Request,
            # An empty POST must not claim to carry application/octet-stream.
            skip_auto_headers=("Content-Type",),
            timeout=timeout,
        )
        self._pool = _Pool(connector, timeout, headers, max_header)

    def send(self, request: Request, exchange: Exchange) -> _Directly | _ByClient:
        """Send once; see `Transport.send`."""
        origin = self._pool.origin(request.base_url) if self._may_go_directly(request) else None
        if origin is not None:
            return _Directly(self._pool, origin, request, exchange, self._silence)
        return _ByClient(self._client, request, exchange, self._proxy, self._silence)

    def _may_go_directly(self, request: Request) -> bool:
        pristine = aiohttp.ClientSession._request is _PRISTINE  # noqa: SLF001 - only looked at
        return pristine and request.method == "POST" and self._proxy is None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


_PRISTINE = aiohttp.ClientSession._request  # noqa: SLF001 - only looked at
"""What aioresponses and agents that watch aiohttp put themselves in place of."""


@frozen
class _Origin:
    """What every request to one base URL has in common."""

    request: aiohttp.ClientRequest
    """Never sent: names the host to aiohttp's pool."""
    base_path: str
    headers: CIMultiDict[str]


class _Pool:
    """aiohttp's connections, had without its client."""

    def __init__(
        self, connector: _Connector, timeout: aiohttp.ClientTimeout, headers: Mapping[str, str], max_header: int
    ) -> None:
        self.max_header = max_header
        self._connector = connector
        self._timeout = timeout
        self._headers = headers
        self._loop = asyncio.get_running_loop()
        self._origins: dict[str, _Origin | None] = {}

    def origin(self, base_url: str) -> _Origin | None:
        """Give what is known of a base URL; None for one that needs the client's rules."""
        if base_url not in self._origins:
            self._origins[base_url] = self._found(_base(base_url))
        return self._origins[base_url]

    def _found(self, url: URL) -> _Origin | None:
        if url.scheme not in {"http", "https"} or not url.raw_host or url.raw_user or url.raw_password:
            return None
        request = aiohttp.ClientRequest("POST", url, headers=self._headers, loop=self._loop)
        kept = (hdrs.HOST, hdrs.ACCEPT, *self._headers)
        headers = CIMultiDict((name, request.headers[name]) for name in kept)
        return _Origin(request, url.raw_path.rstrip("/"), headers)

    async def connect(self, origin: _Origin) -> Connection:
        """Take an idle connection or make one."""
        try:
            return await self._connector.connect(origin.request, [], self._timeout)
        except TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {origin.request.url}") from exc


def _ready(connection: Connection, exchange: Exchange, max_header: int) -> ResponseHandler:
    """Prepare a connection for one exchange, whose first byte is next. Raises `_SpoiltConnectionError`.

    Raises `TransportError` if it is too late for that byte; the connection is then given back unused.
    """
    protocol = connection.protocol
    if protocol is None or protocol.should_close:
        raise _SpoiltConnectionError(_SPOILT)
    protocol.set_response_params(
        read_until_eof=True,
        auto_decompress=False,
        read_bufsize=READ_BUFFER,
        max_line_size=max_header,
        max_field_size=max_header,
    )
    try:
        exchange.leave()
    except TransportError:
        connection.release()
        raise
    return protocol


class _Directly:
    """A POST written to a connection and answered by aiohttp's parser, without its client."""

    __slots__ = ("_connection", "_content", "_exchange", "_origin", "_pool", "_request", "_silence")

    def __init__(self, pool: _Pool, origin: _Origin, request: Request, exchange: Exchange, silence: _Silence) -> None:
        self._pool = pool
        self._origin = origin
        self._request = request
        self._exchange = exchange
        self._silence = silence
        self._connection: Connection | None = None
        self._content: aiohttp.StreamReader | None = None

    async def __aenter__(self) -> Response:
        bound: Bound | None = None
        try:
            connection = await self._pool.connect(self._origin)
            bound = self._silence.bound()
            try:
                async with bound:
                    protocol = _ready(connection, self._exchange, self._pool.max_header)
                    await self._written(StreamWriter(protocol, self._origin.request.loop))
                    message, content = await protocol.read()
                    while message.code // 100 == INFORMATIONAL and message.code != SWITCHING:
                        message, content = await protocol.read()
            except BaseException:
                connection.close()
                raise
        except HttpProcessingError as exc:
            raise ProtocolError(f"not an HTTP answer: {exc.message}", status=exc.code or None) from exc
        except (aiohttp.ClientError, OSError) as exc:
            _translate(_SilenceError() if bound is not None and bound.expired() else exc, self._exchange)
        self._connection = connection
        self._content = content
        content.on_eof(self._ended)
        return _Answer(message.code, message.headers, content, self._exchange, self._silence)

    async def _written(self, writer: StreamWriter) -> None:
        """Hand all of it over; the connection keeps what the socket does not take yet, as the answer may come first."""
        request, headers = self._request, self._origin.headers.copy()
        headers.update(request.headers)
        headers[hdrs.CONTENT_LENGTH] = str(len(request.body))
        await writer.write_headers(f"{request.method} {self._origin.base_path}{request.target} HTTP/1.1", headers)
        if request.body:
            await writer.write(request.body, drain=False)
        writer.set_eof()

    def _ended(self) -> None:
        """The answer's body is there to its last byte: the connection can carry another exchange."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        transport = connection.transport
        if self._request.body and transport is not None and transport.get_write_buffer_size():
            # Answered before all of the request was taken: the rest would be read as the next one.
            connection.close()
        else:
            connection.release()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        content = self._content
        if self._connection is None or content is None:
            return
        self._connection.close()
        self._connection = None
        if content.exception() is None:
            content.set_exception(aiohttp.ClientConnectionError("Connection closed"))


class _ByClient:
    """Any request, with everything that aiohttp's client does."""

    __slots__ = ("_answer", "_client", "_exchange", "_proxy", "_request", "_silence")

    def __init__(
        self,
        client: aiohttp.ClientSession,
        request: Request,
        exchange: Exchange,
        proxy: str | None,
        silence: _Silence,
    ) -> None:
        self._silence = silence
        self._client = client
        self._request = request
        self._exchange = exchange
        self._proxy = proxy
        self._answer: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> Response:
        request = self._request
        head = _Head(self._exchange, self._silence.bound(), request.body)
        _head.set(head)
        try:
            async with head:
                raw = self._answer = await self._client.request(
                    request.method,
                    _url(request),
                    headers=request.headers,
                    data=request.body or None,
                    allow_redirects=False,
                    proxy=self._proxy,
                )
        except (aiohttp.ClientError, OSError) as exc:
            _translate(_SilenceError() if head.bound.expired() else exc, self._exchange)
        return _Answer(raw.status, raw.headers, raw.content, self._exchange, self._silence)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._answer is not None:
            # A body that was not read to its end closes the connection instead of returning it to the pool.
            self._answer.release()


def _url(request: Request) -> URL:
    # Parsing costs more than the signature, and the base is always the same.
    if request.query:
        return URL(request.url, encoded=True)
    base = _base(request.base_url)
    return base.with_path(base.raw_path.rstrip("/") + request.path, encoded=True)


@lru_cache(maxsize=64)
def _base(base_url: str) -> URL:
    return URL(base_url, encoded=True)


class _Answer:
    """An answer of aiohttp's as the `Response` protocol."""

    __slots__ = ("_codings", "_content", "_exchange", "_silence", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: CIMultiDictProxy[str],
        content: aiohttp.StreamReader,
        exchange: Exchange,
        silence: _Silence,
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = headers
        self._codings = codings(headers.get(hdrs.CONTENT_ENCODING))
        if self._codings:
            self.headers = _uncoded(headers)
        self._content = content
        self._exchange = exchange
        self._silence = silence

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    async def read(self, limit: int) -> bytes:
        body = self.arrived()
        if body is not None and len(body) <= limit:
            return body
        return await self._read_on(body or b"", limit)

    async def _read_on(self, begun: bytes, limit: int) -> bytes:
        parts = [begun] if begun else []
        size = len(begun)
        chunks = self.chunks()
        while size <= limit:
            try:
                parts.append(await anext(chunks))
            except StopAsyncIteration:
                return b"".join(parts)
            size += len(parts[-1])
        raise ProtocolError(f"the answer is longer than {limit:,} bytes", head=parts[0], status=self.status)

    def arrived(self) -> bytes | None:
        content = self._content
        # The last piece came as it was meant, none was taken, and nothing went wrong.
        if not content.is_eof() or content.exception() is not None or self._codings:
            return None
        return content.read_nowait()

    def chunks(self) -> AsyncIterator[bytes]:
        chunks = _Chunks(self._content, self._exchange, self._silence)
        return _Decoded(chunks, Decoder(self._codings)) if self._codings else chunks


def _uncoded(headers: CIMultiDictProxy[str]) -> CIMultiDictProxy[str]:
    """Leave out what is true of the compressed body only."""
    kept = headers.copy()
    kept.popall(hdrs.CONTENT_ENCODING)
    kept.popall(hdrs.CONTENT_LENGTH, None)
    return CIMultiDictProxy(kept)


class _Decoded:
    """The pieces of a compressed body, as they were before."""

    __slots__ = ("_chunks", "_decoder", "_ended", "_pieces")

    def __init__(self, chunks: _Chunks, decoder: Decoder) -> None:
        self._chunks = chunks
        self._decoder = decoder
        self._pieces: Iterator[bytes] = iter(())
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            while not (piece := next(self._pieces, b"")):
                if self._ended:
                    raise StopAsyncIteration
                await self._further()
        except CodingError as exc:
            raise TransportError(str(exc)) from exc
        return piece

    async def _further(self) -> None:
        try:
            self._pieces = self._decoder.feed(await anext(self._chunks))
        except StopAsyncIteration:
            self._ended = True
            self._pieces = self._decoder.end()


class _Chunks:
    """The pieces of a body. No generator: leaving it early has nothing to finalise."""

    __slots__ = ("_content", "_exchange", "_silence")

    def __init__(self, content: aiohttp.StreamReader, exchange: Exchange, silence: _Silence) -> None:
        self._silence = silence
        self._content = content
        self._exchange = exchange

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = self._content.read_nowait() or await self._awaited()
        except (aiohttp.ClientError, OSError) as exc:
            _translate(exc, self._exchange)
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _awaited(self) -> bytes:
        """Wait for more, but not longer than silence may last; nothing at the end."""
        if self._content.at_eof():
            return b""
        bound = self._silence.bound()
        try:
            async with bound:
                return await self._content.readany()
        except TimeoutError as exc:
            if bound.expired():
                raise _SilenceError from exc
            raise


_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, _SpoiltConnectionError)
"""What can only come before the first byte."""


class _SilenceError(aiohttp.ClientError):
    """Nothing came for longer than `Timeouts.read`."""


@frozen
class _Silence:
    """How long nothing may come: before the answer's head, and between two pieces of its body."""

    clock: Clock
    seconds: float

    def bound(self) -> Bound:
        return self.clock.timeout(self.seconds)


class _Head:
    """The wait for an answer's head: unbounded while connecting, which has a timeout of its own, then bounded."""

    __slots__ = ("_begun", "_exchange", "body", "bound")

    def __init__(self, exchange: Exchange, bound: Bound, body: bytes) -> None:
        self._exchange = exchange
        self._begun = False
        self.bound = bound
        self.body = body

    async def begins(self) -> None:
        """Hear that a connection was had: from here on silence counts."""
        if not self._begun:
            self._begun = True
            await self.bound.__aenter__()

    def leaves(self) -> None:
        """Hear that the request's head is about to leave. Raises `TransportError` if it is too late."""
        self._exchange.leave()

    async def __aenter__(self) -> None:
        return

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self.bound.__aexit__(kind, exc, trace) if self._begun else None


def _translate(exc: Exception, exchange: Exchange) -> NoReturn:
    """Raise this library's error for one of aiohttp's: the one place where that is decided."""
    if isinstance(exc, aiohttp.InvalidURL):
        raise ValueError(f"not a URL that can be called: {exc}") from exc
    if isinstance(exc, aiohttp.ClientResponseError):
        raise _malformed(exc) from _redacted(exc)
    if isinstance(exc, aiohttp.NonHttpUrlClientError):
        raise ProtocolError(f"not an HTTP answer: {exc}") from exc
    # Both must say so: the hook is one private method of aiohttp away from never being called.
    never = not exchange.sent and isinstance(exc, _UNSENT)
    raise TransportError(_described(exc), sent="no" if never else "unknown") from exc


def _malformed(exc: aiohttp.ClientResponseError) -> InvoicingError:
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return TransportError(f"the proxy refused the connection with {exc.status}", sent="no")
    return ProtocolError(f"not an HTTP answer: {exc.message}", status=exc.status or None)


def _redacted(exc: aiohttp.ClientResponseError) -> aiohttp.ClientResponseError:
    """Take the credentials out of an error that shows its request: its headers, and a proxy's password in its URL."""
    info = exc.request_info
    url, real_url = info.url.with_user(None), info.real_url.with_user(None)
    exc.request_info = aiohttp.RequestInfo(url, info.method, CIMultiDictProxy(CIMultiDict()), real_url)
    exc.args = (exc.request_info, ())
    return exc


_DESCRIPTIONS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, "the certificate of the service is not trusted"),
    (aiohttp.ClientConnectorSSLError, "the TLS handshake failed"),
    (aiohttp.ClientConnectorDNSError, "the host name does not resolve"),
    (aiohttp.ConnectionTimeoutError, "no connection within the connect timeout"),
    (aiohttp.ClientConnectorError, "the connection was refused"),
    (_SilenceError, "the service was silent for longer than the read timeout"),
    (aiohttp.ServerDisconnectedError, "the service closed the connection without an answer"),
    (aiohttp.ClientPayloadError, "the body broke off before its end"),
    (ConnectionResetError, "the connection was reset"),
)


def _described(exc: Exception) -> str:
    known = next((text for kind, text in _DESCRIPTIONS if isinstance(exc, kind)), "the exchange failed")
    return f"{known} ({type(exc).__name__}: {exc})" if str(exc) else f"{known} ({type(exc).__name__})"


@asynccontextmanager
async def serve(
    handler: Transport, *, base_path: str = "", host: str = "127.0.0.1", port: int = 0, ssl: SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve a transport on a real port and give its base URL; port 0 takes a free one.

    A `TransportError` that `handler` raises, before or inside the body, cuts the connection as a broken service
    would. A body shorter than its Content-Length ends with a closed connection.
    """
    server = web.Server(_Gateway(handler, base_path), handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=ssl, reuse_address=True)
        await site.start()
        bound = runner.addresses[0][1]
        scheme = "https" if ssl else "http"
        yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound}{base_path}"
    finally:
        await runner.cleanup()


class _Gateway:
    """Turns a served request into a `Request` and the handler's answer into bytes."""

    def __init__(self, handler: Transport, base_path: str) -> None:
        self._handler = handler
        self._base_path = base_path

    async def __call__(self, incoming: web.BaseRequest) -> web.StreamResponse:
        target, _, query = incoming.raw_path.partition("?")
        if not target.startswith(self._base_path + "/"):
            return web.Response(status=404, text="outside the base path")
        request = Request(
            method=incoming.method,
            path=target.removeprefix(self._base_path),
            query=query,
            headers=incoming.headers,
            body=await incoming.read(),
            base_url=f"{incoming.scheme}://{incoming.host}{self._base_path}",
        )
        answer = web.StreamResponse()
        try:
            async with self._handler.send(request, Exchange()) as response:
                await _copy(response, incoming, answer)
        except TransportError:
            _abort(incoming)
        except ConnectionError:
            # The client left; there is nobody to answer.
            _abort(incoming)
        return answer


async def _copy(response: Response, incoming: web.BaseRequest, answer: web.StreamResponse) -> None:
    answer.set_status(response.status)
    answer.headers.update(response.headers)
    await answer.prepare(incoming)
    written = 0
    async for chunk in response.chunks():
        await answer.write(chunk)
        written += len(chunk)
    if written < (answer.content_length or 0) and incoming.transport is not None:
        incoming.transport.close()
    await answer.write_eof()


def _abort(incoming: web.BaseRequest) -> None:
    # Not by the type of the transport: uvloop's is none of asyncio's.
    if incoming.transport is not None:
        incoming.transport.abort()

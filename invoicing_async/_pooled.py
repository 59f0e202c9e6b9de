"""A POST put on a connection of aiohttp's pool directly, by aiohttp's own writer and parser.

aiohttp's client spends twice as long on cookies, redirects, proxies and tracing, none of which is in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, StreamWriter
from attrs import frozen
from multidict import CIMultiDict
from yarl import URL

from ._clock import Bound
from ._connections import INFORMATIONAL, READ_BUFFER, Connector, only_fresh, went_stale
from ._foreign import SPOILT, SilenceError, SpoiltConnectionError, translate
from ._http import Exchange, Request, Response
from ._response import Answer, Silence
from .errors import TransportError

__all__ = ["Direct", "Pool"]

SWITCHING = 101
"""The one among the informational answers that is the answer."""


@frozen
class _Origin:
    """What every request to one base URL has in common."""

    request: aiohttp.ClientRequest
    """Never sent: names the host to aiohttp's pool."""
    base_path: str
    headers: CIMultiDict[str]


class Pool:
    """aiohttp's connections, had without its client."""

    def __init__(
        self, connector: Connector, timeout: aiohttp.ClientTimeout, headers: Mapping[str, str], max_header: int
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
            self._origins[base_url] = self._found(URL(base_url, encoded=True))
        return self._origins[base_url]

    def _found(self, url: URL) -> _Origin | None:
        if url.scheme not in {"http", "https"} or not url.raw_host or url.raw_user or url.raw_password:
            return None
        request = aiohttp.ClientRequest("POST", url, headers=self._headers, loop=self._loop)
        kept = (hdrs.HOST, hdrs.ACCEPT, *self._headers)
        headers = CIMultiDict((name, request.headers[name]) for name in kept)
        return _Origin(request, url.raw_path.rstrip("/"), headers)

    async def connect(self, origin: _Origin, *, fresh: bool) -> Connection:
        """Take an idle connection, if it need not be a fresh one, or make one."""
        try:
            if fresh:
                with only_fresh(wanted=True):
                    return await self._connector.connect(origin.request, [], self._timeout)
            return await self._connector.connect(origin.request, [], self._timeout)
        except TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {origin.request.url}") from exc


def _ready(connection: Connection, exchange: Exchange, max_header: int) -> ResponseHandler:
    """Prepare a connection for one exchange, whose first byte is next. Raises `SpoiltConnectionError`.

    Raises `TransportError` if it is too late for that byte; the connection is then given back unused.
    """
    protocol = connection.protocol
    if protocol is None or protocol.should_close:
        raise SpoiltConnectionError(SPOILT)
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


class Direct:
    """A POST written to a connection and answered by aiohttp's parser, without its client."""

    __slots__ = ("_connection", "_content", "_exchange", "_origin", "_pool", "_request", "_silence")

    def __init__(self, pool: Pool, origin: _Origin, request: Request, exchange: Exchange, silence: Silence) -> None:
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
            connection = await self._pool.connect(self._origin, fresh=self._exchange.fresh)
            bound = self._silence.bound()
            try:
                async with bound:
                    protocol = _ready(connection, self._exchange, self._pool.max_header)
                    await self._written(StreamWriter(protocol, self._origin.request.loop))
                    message, content = await protocol.read()
                    while message.code // 100 == INFORMATIONAL and message.code != SWITCHING:
                        message, content = await protocol.read()
            except BaseException:
                self._exchange.stale = went_stale(connection.protocol)
                connection.close()
                raise
        except (HttpProcessingError, aiohttp.ClientError, OSError) as exc:
            translate(SilenceError() if bound is not None and bound.expired() else exc, self._exchange)
        self._connection = connection
        self._content = content
        content.on_eof(self._ended)
        return Answer(message.code, message.headers, content, self._exchange, self._silence)

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

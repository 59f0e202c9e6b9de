"""A POST put on a connection of aiohttp's pool directly, without its client, and when that is allowed.

The client spends most of what a call costs on cookies, redirects, proxies and tracing. Where none of it is asked for,
a request that may always be repeated is written by aiohttp's own writer and read by its own parser. A submission never
is, nor anything where somebody listens to the client or has replaced a part of it (trace configs, middlewares,
aioresponses, an agent), goes through a proxy, or brought a session or a connector, nor under a minor version of
aiohttp that the project's own check does not run with: all that goes through the client.

Inner names of aiohttp that this module rests on, which a test compares with its code:

- `aiohttp.client_proto`: `ResponseHandler`
- `aiohttp.connector`: `Connection`
- `aiohttp.http`: `HttpProcessingError`, `StreamWriter`
- `aiohttp.ClientSession`: `_middlewares`, `_request`
- `aiohttp.ClientRequest`: `headers`, `loop`, `url`
- `aiohttp.TCPConnector`: `connect`
- `Connection`: `close`, `protocol`, `release`, `transport`
- `ResponseHandler`: `read`, `set_response_params`, `should_close`
- `StreamWriter`: `set_eof`, `write`, `write_headers`
- `RawResponseMessage`: `code`, `headers`
- `StreamReader`: `exception`, `on_eof`, `set_exception`
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from types import FunctionType, TracebackType
from typing import Any

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, StreamWriter
from attrs import frozen
from multidict import CIMultiDict
from yarl import URL

from .._core.clock import ClockTimeout
from .._core.http import Exchange, Repeat, Request, Response
from .._core.secrecy import trim
from ..errors import TransportError
from .connections import INFORMATIONAL, READ_BUFFER, Connector, only_fresh, went_stale
from .errors import DIRTY, DirtyConnectionError, ReadTimeoutError, translate
from .response import Answer, ExchangeTimeouts

__all__ = ["TESTED", "Pool", "PooledPost", "is_tested"]

TESTED = frozenset({"3.14"})
"""The minor versions of aiohttp that the project's own check runs with."""

SWITCHING = 101
"""The one among the informational answers that is the answer."""


def is_tested(version: str) -> bool:
    """Tell whether a version of aiohttp, as `3.14.5`, is of a minor version whose inner names are known."""
    return ".".join(version.split(".")[:2]) in TESTED


def _request() -> tuple[Any, ...]:
    """Return the functions by which aiohttp's client sends, as they are now."""
    return aiohttp.ClientSession._request, aiohttp.ClientSession.request  # noqa: SLF001 - only looked at


_HOME = sys.modules["aiohttp.client"].__file__

_PRISTINE: tuple[Any, ...] | None = tuple(
    function if type(function) is FunctionType and function.__code__.co_filename == _HOME else None
    for function in _request()
)
"""What aioresponses and agents that watch aiohttp replace; None for what was replaced before this was imported."""


@frozen
class _Origin:
    """What every request to one base URL has in common."""

    request: aiohttp.ClientRequest
    """Never sent: names the host to aiohttp's pool."""
    base_path: str
    headers: CIMultiDict[str]


class Pool:
    """aiohttp's connections, had without its client, where nothing of the client is asked for."""

    def __init__(
        self, client: aiohttp.ClientSession, connector: Connector, headers: Mapping[str, str], max_header: int
    ) -> None:
        self.max_header = max_header
        self._client = client
        self._connector = connector
        self._headers = headers
        self._loop = asyncio.get_running_loop()
        self._origins: dict[str, _Origin | None] = {}

    def origin(self, request: Request) -> _Origin | None:
        """Return what is known of a request's base URL; None for a request that needs the client."""
        if request.repeat is not Repeat.ALWAYS or request.method != "POST":
            return None
        client = self._client
        # Somebody listens to the client or has replaced it, perhaps after it was made.
        if _request() != _PRISTINE or client.trace_configs or client._middlewares:  # noqa: SLF001 - only looked at
            return None
        base_url = request.base_url
        if base_url not in self._origins:
            self._origins[base_url] = self._found(URL(base_url, encoded=True))
        return self._origins[base_url]

    def _found(self, url: URL) -> _Origin | None:
        if url.scheme not in {"http", "https"} or not url.raw_host or url.raw_user or url.raw_password:
            return None
        request = aiohttp.ClientRequest("POST", url, headers=self._headers, loop=self._loop)
        kept = {str(name).lower(): name for name in (hdrs.HOST, hdrs.ACCEPT, *self._headers)}
        headers = CIMultiDict((name, request.headers[name]) for name in kept.values())
        return _Origin(request, url.raw_path.rstrip("/"), headers)

    async def connect(self, origin: _Origin, timeout: aiohttp.ClientTimeout, *, fresh: bool) -> Connection:
        """Take an idle connection, if it need not be a fresh one, or make one."""
        try:
            if fresh:
                with only_fresh(wanted=True):
                    return await self._connector.connect(origin.request, [], timeout)
            return await self._connector.connect(origin.request, [], timeout)
        except TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {origin.request.url}") from exc


def _ready(connection: Connection, exchange: Exchange, max_header: int) -> ResponseHandler:
    """Prepare a connection for one exchange, whose first byte is next. Raises `DirtyConnectionError`.

    Raises `TransportError` if it is too late for that byte; the connection is then given back unused.
    """
    protocol = connection.protocol
    if protocol is None or protocol.should_close:
        raise DirtyConnectionError(DIRTY)
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


class PooledPost:
    """A POST written to a connection and answered by aiohttp's parser, without its client."""

    __slots__ = ("_connection", "_content", "_exchange", "_origin", "_pool", "_request", "_time_limits")

    def __init__(
        self, pool: Pool, origin: _Origin, request: Request, exchange: Exchange, time_limits: ExchangeTimeouts
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._request = request
        self._exchange = exchange
        self._time_limits = time_limits
        self._connection: Connection | None = None
        self._content: aiohttp.StreamReader | None = None

    async def __aenter__(self) -> Response:
        bound: ClockTimeout | None = None
        handled = sys.exception()
        read_timeout = self._time_limits.read_timeout
        try:
            connection = await self._pool.connect(
                self._origin, self._time_limits.connecting, fresh=self._exchange.fresh
            )
            bound = read_timeout.bound()
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
            trim(exc, handled, through=True)
            translate(ReadTimeoutError() if bound is not None and bound.expired() else exc, self._exchange)
        except BaseException as exc:
            trim(exc, handled, through=True)
            raise
        self._connection = connection
        self._content = content
        content.on_eof(self._ended)
        return Answer(message.code, message.headers, content, self._exchange, read_timeout)

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

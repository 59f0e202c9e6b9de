"""One transport over aiohttp's client.

Nothing here retries or follows a redirect: custom credential headers would follow it to another host.

Requests go through aiohttp's client, with whatever listens to it. What may always be repeated and asks for nothing of
the client is put on a pooled connection directly (`_transport.pooled`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache, partial
from math import inf
from ssl import SSLContext, create_default_context
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from attrs import field, frozen
from multidict import CIMultiDict
from yarl import URL

from .._core.clock import Clock, ClockTimeout, RealClock
from .._core.http import Exchange, Repeat, Request, Response
from .._core.secrecy import trim
from ..errors import TransportError
from ..policies import Timeouts
from .connections import READ_BUFFER, Connector, only_fresh, went_stale
from .errors import DIRTY, DirtyConnectionError, ReadTimeoutError, translate
from .pooled import Pool, PooledPost, is_tested
from .proxies import Environment, Proxy, proxy_fault
from .response import Answer, ExchangeTimeouts
from .sockets import forget, is_quiet

__all__ = ["AiohttpTransport"]

MAX_HEADER = 2**16
"""Bytes that a line of an answer's head may have by default; some proxies add headers of tens of kilobytes."""

CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where OpenSSL is told of other authorities."""


class AiohttpTransport:
    """One pool of connections. Make it inside the event loop that uses it.

    `timeouts` bound each exchange; without, those of the session that calls do. `proxy` is the URL of an HTTP proxy for
    every host, as `http://user:password@host:port`; its password is in no repr, error or traceback. `ssl` is the
    context for https, None for aiohttp's own checks. `headers` go with every request, also to another host that an
    export's link names, unless it has its own of the same name. `trace_configs` are aiohttp's: they see all.
    `trust_env` reads the environment when the transport is made: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and
    `NO_PROXY` in either case, and `SSL_CERT_FILE` and `SSL_CERT_DIR`; what was given as `proxy` or `ssl` goes before
    it. No .netrc is read.

    `connector` is a pool of your own: it makes the connections as it was told, and you close it. `session` is a whole
    `aiohttp.ClientSession` of your own, with its cookies, headers, middlewares and trace configs: you close it.
    Nothing given is ever closed here. What is sent on such connections is looked at and bounded as on the
    transport's own. `max_header` is how many bytes a line of an answer's head may have.

    Raises `ValueError` for a proxy that is none, and for a session together with what it would have brought.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        ssl: SSLContext | None = None,
        proxy: str | None = None,
        headers: Mapping[str, str] | None = None,
        trust_env: bool = False,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        connector: aiohttp.BaseConnector | None = None,
        session: aiohttp.ClientSession | None = None,
        user_agent: str = "invoicing-async",
        clock: Clock | None = None,
        max_header: int = MAX_HEADER,
    ) -> None:
        fault = _fault(proxy, headers, max_header, trust_env=trust_env)
        if session is not None and (connector is not None or trace_configs):
            fault = "session: give its own connector and trace_configs to it"
        if fault:
            proxy = headers = None  # no traceback's locals hold a secret
            raise ValueError(fault)
        self._environment = Environment.read() if trust_env and proxy is None else None
        self._proxy = None if proxy is None else Proxy.of(proxy)
        self._proxies: dict[str, Proxy | None] = {}
        self._clock = clock or RealClock()
        self._timeouts = self._session_timeouts = timeouts
        self._time_limits = ExchangeTimeouts.of(timeouts or Timeouts(), self._clock)
        if not ssl and trust_env and any(os.environ.get(name) for name in CA_VARIABLES):
            ssl = create_default_context()
        self._given = session
        is_ours = session is None and connector is None
        self._connector = Connector(ssl, self._time_limits.unacknowledged, self._clock) if is_ours else None
        own, more = {"User-Agent": user_agent, "Accept-Encoding": "identity"}, CIMultiDict(headers or {})
        options: dict[str, Any] = {} if is_ours or ssl is None else {"ssl": ssl}
        if session is None:
            self._client = _client(self._connector or connector, own, trace_configs, max_header)
        else:
            self._client = session
            if "User-Agent" in session.headers:
                del own["User-Agent"]
            more = _merged(own, more)
            options |= {**_settings(max_header), "raise_for_status": False}
        self._client_options = _ClientOptions(
            client=self._client, headers=more, options=options, is_foreign=not is_ours
        )
        self._pool: Pool | None = None
        if self._connector is not None and is_tested(aiohttp.__version__):
            self._pool = Pool(self._client, self._connector, _merged(own, more), max_header)

    def send(self, request: Request, exchange: Exchange) -> AbstractAsyncContextManager[Response]:
        """Send once; see `Transport.send`."""
        timeouts = exchange.timeouts
        if self._timeouts is None and timeouts is not None and timeouts is not self._session_timeouts:
            # The calling session's; connections that it shares with another session give up by the shorter.
            if self._connector is not None:
                others = inf if self._session_timeouts is None else self._connector.unacknowledged
                self._connector.unacknowledged = min(others, timeouts.attempt)
            self._session_timeouts = timeouts
            self._time_limits = ExchangeTimeouts.of(timeouts, self._clock)
        proxy = self._proxy
        if self._environment is not None:
            if request.base_url not in self._proxies:
                self._proxies[request.base_url] = self._environment.proxy_for(request.base_url)
            proxy = self._proxies[request.base_url]
        if self._pool is not None and proxy is None and (origin := self._pool.origin(request)) is not None:
            return PooledPost(self._pool, origin, request, exchange, self._time_limits)
        return ClientRequest(self._client_options, request, exchange, self._time_limits, proxy)

    async def close(self) -> None:
        """Close every connection of this transport's own; a session or a connector that was given stays open."""
        if self._given is None:
            await self._client.close()


def _fault(proxy: str | None, headers: Mapping[str, Any] | None, max_header: int, *, trust_env: bool) -> str | None:
    """Say what cannot be used, without showing what may be a secret; None if nothing is wrong."""
    if max_header < 1:
        return f"max_header must be 1 or more, got {max_header!r}"
    if proxy is not None and (fault := proxy_fault(proxy)) is not None:
        return f"proxy {fault}"
    for name, value in (headers or {}).items():
        if not isinstance(value, str) or "\r" in value or "\n" in value:
            return f"headers: the value of {name!r} must be text on one line"
    try:
        _ = trust_env and proxy is None and Environment.read()
    except ValueError as error:
        return str(error)
    return None


def _merged(headers: Mapping[str, str], others: Mapping[str, str]) -> CIMultiDict[str]:
    """Return headers of which `others` take the place of those of the same name, in any case."""
    merged = CIMultiDict(headers)
    merged.update(others)
    return merged


def _settings(max_header: int) -> dict[str, Any]:
    """Return what our own client is told once, and somebody else's with every request."""
    return {
        "auto_decompress": False,
        "read_bufsize": READ_BUFFER,
        "max_line_size": max_header,
        "max_field_size": max_header,
        # An empty POST must not claim to carry application/octet-stream.
        "skip_auto_headers": ("Content-Type",),
    }


def _client(
    connector: aiohttp.BaseConnector | None,
    headers: Mapping[str, str],
    trace_configs: Sequence[aiohttp.TraceConfig],
    max_header: int,
) -> aiohttp.ClientSession:
    """Make a client of the transport's own."""
    return aiohttp.ClientSession(
        connector=connector,
        connector_owner=isinstance(connector, Connector),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        trace_configs=list(trace_configs),
        **_settings(max_header),
    )


@frozen
class _ClientOptions:
    """How requests are sent through a client: its arguments and the headers of each."""

    client: aiohttp.ClientSession
    headers: CIMultiDict[str] = field(repr=False)
    options: Mapping[str, Any]
    is_foreign: bool
    """Its connections are not of this module's making."""

    def arguments(self, request: Request, proxy: Proxy | None) -> dict[str, Any]:
        """Return the headers of a request, and what the client is told of it."""
        headers: Mapping[str, str] = _merged(self.headers, request.headers) if self.headers else request.headers
        if proxy is None:
            return {"headers": headers, **self.options}
        asks: dict[str, str] = {} if proxy.authorization is None else {hdrs.PROXY_AUTHORIZATION: proxy.authorization}
        if request.base_url[:6].lower() == "https:":  # the tunnel is asked for apart from what goes through it
            return {"headers": headers, "proxy": proxy.url, "proxy_headers": asks, **self.options}
        return {"headers": _merged(headers, asks), "proxy": proxy.url, **self.options}


class ClientRequest:
    """Any request, with everything that aiohttp's client does."""

    __slots__ = ("_answer", "_client_options", "_exchange", "_proxy", "_request", "_time_limits")

    def __init__(
        self,
        options: _ClientOptions,
        request: Request,
        exchange: Exchange,
        time_limits: ExchangeTimeouts,
        proxy: Proxy | None,
    ) -> None:
        self._client_options = options
        self._request = request
        self._exchange = exchange
        self._time_limits = time_limits
        self._proxy = proxy
        self._answer: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> Response:
        request, client = self._request, self._client_options.client
        if client.closed:
            raise TransportError("the aiohttp session is closed", sent="no")
        handled = sys.exception()
        header_timeout = HeaderTimeout(
            self._exchange, self._time_limits, request, is_foreign=self._client_options.is_foreign
        )
        try:
            async with header_timeout:
                with only_fresh(wanted=self._exchange.fresh):
                    raw = self._answer = await client.request(
                        request.method,
                        _url(request),
                        data=request.body or None,
                        allow_redirects=False,
                        timeout=self._time_limits.connecting,
                        middlewares=(*getattr(client, "_middlewares", ()), header_timeout.middleware()),
                        **self._client_options.arguments(request, self._proxy),
                    )
        except (aiohttp.ClientError, OSError) as exc:
            trim(exc, handled, through=True)
            # Our own pool hands out no idle connection that is dirty.
            is_dirty = self._client_options.is_foreign and isinstance(exc, DirtyConnectionError)
            self._exchange.stale = is_dirty or went_stale(header_timeout.protocol)
            translate(ReadTimeoutError() if header_timeout.bound.expired() else exc, self._exchange)
        except BaseException as exc:
            trim(exc, handled, through=True)
            raise
        return Answer(raw.status, raw.headers, raw.content, self._exchange, self._time_limits.read_timeout)

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
    base = _parsed(request.base_url)
    return base.with_path(base.raw_path.rstrip("/") + request.path, encoded=True)


_parsed = lru_cache(maxsize=64)(partial(URL, encoded=True))


class HeaderTimeout:
    """The wait for an answer's head: unbounded while connecting, which has a timeout of its own, then bounded.

    Its middleware, the last of aiohttp's client's, makes the client's request one that is sent as ours: only on a
    connection that can carry it, head and body at once, and after saying that its first byte leaves, which no later
    failure can take back. What else is asked meanwhile, by a hook or another middleware, is no request of ours.
    """

    __slots__ = ("_begun", "_body", "_exchange", "_is_foreign", "_is_submission", "_time_limits", "bound", "protocol")

    def __init__(
        self, exchange: Exchange, time_limits: ExchangeTimeouts, request: Request, *, is_foreign: bool
    ) -> None:
        self._exchange = exchange
        self._begun = False
        self._time_limits = time_limits
        self._is_foreign = is_foreign
        self._is_submission = request.repeat is not Repeat.ALWAYS
        self._body = request.body
        self.bound: ClockTimeout = time_limits.read_timeout.bound()
        self.protocol: ResponseHandler | None = None

    def middleware(self) -> aiohttp.ClientMiddlewareType:
        """Return what makes a request one that is sent as ours: a function, since aioresponses copies others."""

        async def ours(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            sending: Any = partial(self._sent, request)
            vars(request)["send"] = sending
            return await handler(request)

        return ours

    async def _sent(self, request: aiohttp.ClientRequest, connection: Connection) -> aiohttp.ClientResponse:
        del vars(request)["send"]  # a request that holds itself would be left to the collector
        protocol = connection.protocol
        if protocol is None or protocol.should_close or not self._may_use(protocol.transport):
            # What came while it was idle would be taken for the answer: another order's document.
            raise DirtyConnectionError(DIRTY)
        if not self._begun:
            self._begun = True
            await self.bound.__aenter__()
        self.protocol = protocol
        try:
            self._exchange.leave()
        except TransportError:
            connection.release()  # it is as good as before
            raise
        # aiohttp would leave the writing to a task, and so to some later time.
        request._body = None  # noqa: SLF001 - the one way to keep it from that
        answer = await type(request).send(request, connection)
        transport = protocol.transport
        if self._body and transport is not None:
            try:
                self._exchange.complete()
            except TransportError:
                transport.abort()
                raise
            transport.write(self._body)
        return answer

    def _may_use(self, transport: asyncio.BaseTransport | None) -> bool:
        """Tell whether a connection can carry the exchange; one of somebody else's is checked first.

        A new connection with TLS has bytes to read before any answer, so those are not looked at.
        """
        if not self._is_foreign:
            return True
        if self._is_submission:
            forget(transport, seconds=self._time_limits.unacknowledged)
        return transport is not None and (transport.get_extra_info("sslcontext") is not None or is_quiet(transport))

    async def __aenter__(self) -> None:
        return

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self.bound.__aexit__(kind, exc, trace) if self._begun else None


def __getattr__(name: str) -> Any:
    if name == "serve":  # where it was before there was `transport`
        from .server import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

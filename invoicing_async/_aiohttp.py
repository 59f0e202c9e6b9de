"""The door to the network: one transport over aiohttp.

Nothing here retries or follows a redirect: custom credential headers would follow it to another host.

A POST, which is all that both services take, is put on a connection of aiohttp's pool directly (`_pooled`). Whatever
else is asked, and everything while somebody has replaced the client's request (aioresponses, an APM agent), goes
through aiohttp's client.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import lru_cache
from ssl import SSLContext
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from ._clock import Bound, Clock, RealClock
from ._connections import READ_BUFFER, Connector, only_fresh, went_stale
from ._foreign import SPOILT, SilenceError, SpoiltConnectionError, translate
from ._http import Exchange, Request, Response
from ._pooled import Direct, Pool
from ._response import Answer, Silence
from .errors import TransportError
from .policies import Timeouts

__all__ = ["AiohttpTransport"]

MAX_HEADER = 2**16
"""Bytes that a line of an answer's head may have by default; some proxies add headers of tens of kilobytes."""

_head: ContextVar[_Head | None] = ContextVar("invoicing_async_head", default=None)


class _Request(aiohttp.ClientRequest):
    """Notes that a connection was had and the head is about to leave, which no later failure can take back."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        protocol, head = conn.protocol, _head.get()
        if head is None:
            return await super().send(conn)
        if protocol is None or protocol.should_close:
            # What came while it was idle would be taken for the answer: another order's document.
            raise SpoiltConnectionError(SPOILT)
        await head.begins()
        head.protocol = protocol
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
        clock = clock or RealClock()
        self._silence = Silence(clock, bounds.read)
        self._proxy = proxy
        headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        connector = Connector(ssl, bounds, clock)
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
        self._pool = Pool(connector, timeout, headers, max_header)

    def send(self, request: Request, exchange: Exchange) -> Direct | _ByClient:
        """Send once; see `Transport.send`."""
        origin = self._pool.origin(request.base_url) if self._may_go_directly(request) else None
        if origin is not None:
            return Direct(self._pool, origin, request, exchange, self._silence)
        return _ByClient(self._client, request, exchange, self._proxy, self._silence)

    def _may_go_directly(self, request: Request) -> bool:
        pristine = aiohttp.ClientSession._request is _PRISTINE  # noqa: SLF001 - only looked at
        return pristine and request.method == "POST" and self._proxy is None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


_PRISTINE = aiohttp.ClientSession._request  # noqa: SLF001 - only looked at
"""What aioresponses and agents that watch aiohttp put themselves in place of."""


class _ByClient:
    """Any request, with everything that aiohttp's client does."""

    __slots__ = ("_answer", "_client", "_exchange", "_proxy", "_request", "_silence")

    def __init__(
        self,
        client: aiohttp.ClientSession,
        request: Request,
        exchange: Exchange,
        proxy: str | None,
        silence: Silence,
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
                with only_fresh(wanted=self._exchange.fresh):
                    raw = self._answer = await self._client.request(
                        request.method,
                        _url(request),
                        headers=request.headers,
                        data=request.body or None,
                        allow_redirects=False,
                        proxy=self._proxy,
                    )
        except (aiohttp.ClientError, OSError) as exc:
            self._exchange.stale = went_stale(head.protocol)
            translate(SilenceError() if head.bound.expired() else exc, self._exchange)
        return Answer(raw.status, raw.headers, raw.content, self._exchange, self._silence)

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


class _Head:
    """The wait for an answer's head: unbounded while connecting, which has a timeout of its own, then bounded."""

    __slots__ = ("_begun", "_exchange", "body", "bound", "protocol")

    def __init__(self, exchange: Exchange, bound: Bound, body: bytes) -> None:
        self._exchange = exchange
        self._begun = False
        self.bound = bound
        self.body = body
        self.protocol: ResponseHandler | None = None

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

"""The one place where aiohttp's exceptions become this library's.

A `TransportError` says "no" only when the head of the request was never handed to a connection; every other failure is
"unknown".
"""

from __future__ import annotations

from itertools import zip_longest
from types import TracebackType
from typing import NoReturn

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

from ._http import Exchange
from .errors import InvoicingError, ProtocolError, TransportError

__all__ = ["SPOILT", "SilenceError", "SpoiltConnectionError", "bare", "translate"]

SPOILT = "bytes that nobody asked for came on an idle connection"


class SpoiltConnectionError(aiohttp.ClientConnectionError):
    """A pooled connection that cannot carry another exchange; nothing was sent on it."""


class SilenceError(aiohttp.ClientError):
    """Nothing came for longer than `Timeouts.read`."""


_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, SpoiltConnectionError)
"""What can only come before the first byte."""


def bare(exc: BaseException, handled: BaseException | None) -> None:
    """Take aiohttp's frames out of an error's traceback and of what it came from: their locals hold credentials.

    `handled` is what was being handled when the exchange began: that is not of it.
    """
    beneath: list[BaseException | None] = [exc]
    seen = {id(handled)}
    while beneath:
        found = beneath.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            found.__traceback__ = _without_aiohttp(found.__traceback__)
            beneath += [found.__cause__, found.__context__]


def _without_aiohttp(trace: TracebackType | None) -> TracebackType | None:
    kept: list[TracebackType] = []
    while trace is not None:
        if not str(trace.tb_frame.f_globals.get("__name__")).startswith("aiohttp."):
            kept.append(trace)
        trace = trace.tb_next
    for entry, following in zip_longest(kept, kept[1:]):
        entry.tb_next = following
    return kept[0] if kept else None


def translate(exc: Exception, exchange: Exchange) -> NoReturn:
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
    (SilenceError, "the service was silent for longer than the read timeout"),
    (aiohttp.ServerDisconnectedError, "the service closed the connection without an answer"),
    (aiohttp.ClientPayloadError, "the body broke off before its end"),
    (ConnectionResetError, "the connection was reset"),
)


def _described(exc: Exception) -> str:
    known = next((text for kind, text in _DESCRIPTIONS if isinstance(exc, kind)), "the exchange failed")
    return f"{known} ({type(exc).__name__}: {exc})" if str(exc) else f"{known} ({type(exc).__name__})"

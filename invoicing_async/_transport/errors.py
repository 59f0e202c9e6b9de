"""The one place where aiohttp's exceptions become this library's.

A `TransportError` says "no" only when the head of the request was never handed to a connection; every other failure is
"unknown". What aiohttp and its parser say may hold a whole body or a signed link: of their words only what they made up
themselves is passed on, and of their exceptions, which a traceback shows, as much is left.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Collection, Iterator
from typing import NoReturn

import aiohttp
from aiohttp.http import HttpProcessingError
from attrs import frozen
from multidict import CIMultiDict, CIMultiDictProxy

from .._core.http import Exchange
from .._values.text import one_line
from ..errors import ProtocolError, TransportError

__all__ = ["DIRTY", "DirtyConnectionError", "ReadTimeoutError", "furthest", "translate"]

DIRTY = "bytes that nobody asked for came on an idle connection"

REASON_LIMIT = 100
"""Characters of a parser's own words."""

_QUOTED = re.compile(r"\s*:?\s*(?:b?['\"]|[\n\\]).*", re.DOTALL)
"""Where a parser's words go over into what it read."""


class DirtyConnectionError(aiohttp.ClientConnectionError):
    """A pooled connection that cannot carry another exchange; nothing was sent on it."""


class ReadTimeoutError(aiohttp.ClientError):
    """Nothing came for longer than `Timeouts.read`."""


_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, DirtyConnectionError)
"""What can only come before the first byte."""


def translate(exc: Exception, exchange: Exchange) -> NoReturn:
    """Raise this library's error for one of aiohttp's: the one place where that is decided."""
    if isinstance(exc, aiohttp.NonHttpUrlClientError):
        raise ProtocolError("not an HTTP answer: the URL is none of http or https") from None
    if isinstance(exc, aiohttp.InvalidURL):
        raise ValueError(f"not a URL that can be called ({type(exc).__name__})") from None
    _redact(exc)
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        raise TransportError(f"the proxy refused the connection with {exc.status}", sent="no") from exc
    if isinstance(exc, (aiohttp.ClientResponseError, HttpProcessingError)):
        # Its status is the parser's own, and says nothing of the answer.
        raise ProtocolError(f"not an HTTP answer: {exc.message or type(exc).__name__}") from exc
    # Of what it says only the system's own words come from no body.
    is_system = isinstance(exc, OSError) and not isinstance(exc, aiohttp.ConnectionTimeoutError)
    said = one_line(str(exc)) if is_system else ""
    via = "the proxy cannot be used: " if isinstance(exc, aiohttp.ClientProxyConnectionError) else ""
    text = f"{via}{_FAILURES[_rank(exc)].text} ({type(exc).__name__}{f': {said}' if said else ''})"
    # Both must say so: the hook is one private method of aiohttp away from never being called.
    never = not exchange.sent and isinstance(exc, _UNSENT)
    raise TransportError(text, sent="no" if never else "unknown") from exc


def _redact(exc: BaseException) -> None:
    """Leave nothing of a body, a header or a link in an exception and those behind it."""
    for each in filter(lambda each: isinstance(each, _REVEALING), _chain(exc)):
        vars(each).update(dict.fromkeys(_READ & vars(each).keys()))
        if "message" in vars(each):
            vars(each)["message"] = _parser_words(vars(each)["message"])
        if isinstance(each, aiohttp.ClientResponseError):
            # Its request holds credentials: headers, and a proxy's password in the URL.
            info = each.request_info
            url, real_url = info.url.with_user(None), info.real_url.with_user(None)
            each.request_info = aiohttp.RequestInfo(url, info.method, CIMultiDictProxy(CIMultiDict()), real_url)
            each.args = (each.request_info, ())
        elif isinstance(each, (aiohttp.ConnectionTimeoutError, HttpProcessingError)):
            each.args = ()  # the whole URL, or what was read
        else:
            each.args = tuple(map(_parser_words, each.args))


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen, open_ = set[int](), [exc]
    while open_:
        each = open_.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            open_ += [behind for behind in (each.__cause__, each.__context__) if behind is not None]


_REVEALING = (
    HttpProcessingError,
    aiohttp.ClientPayloadError,
    aiohttp.ClientResponseError,
    aiohttp.ServerDisconnectedError,
    aiohttp.ConnectionTimeoutError,
)
"""Exceptions of aiohttp's that repeat what they read or where it came from."""

_READ = frozenset({"headers", "line", "hdr"})
"""Where exceptions of aiohttp's keep what they read."""


def _parser_words(value: object) -> object:
    if isinstance(value, str):
        return one_line(_QUOTED.sub("", value), REASON_LIMIT)
    return value if isinstance(value, int) else None


@frozen
class _Failure:
    """Failures of one type of aiohttp's, those with one of `codes` if it names any, and what they are called."""

    type: type[Exception]
    text: str
    codes: frozenset[int] = frozenset()

    def matches(self, exc: Exception) -> bool:
        return isinstance(exc, self.type) and (not self.codes or _code(exc) in self.codes)


_CLASSES: tuple[tuple[type[OSError], int], ...] = (
    (ConnectionResetError, errno.ECONNRESET),
    (ConnectionAbortedError, errno.ECONNABORTED),
    (ConnectionRefusedError, errno.ECONNREFUSED),
    (BrokenPipeError, errno.EPIPE),
    (TimeoutError, errno.ETIMEDOUT),
    (PermissionError, errno.EACCES),
)
"""What is meant by an error that brings no number."""


def _code(exc: Exception) -> int | None:
    found = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    code = found.errno if isinstance(found, OSError) else None
    return code or next((number for kind, number in _CLASSES if isinstance(found, kind)), None)


_CONNECT = aiohttp.ClientConnectorError

_FAILURES = (
    _Failure(aiohttp.ClientConnectorCertificateError, "the certificate of the service is not trusted"),
    _Failure(aiohttp.ClientConnectorSSLError, "the TLS handshake failed"),
    _Failure(
        aiohttp.ClientConnectorDNSError,
        "the host name does not resolve now: no name server answers",
        frozenset({socket.EAI_AGAIN}),
    ),
    _Failure(aiohttp.ClientConnectorDNSError, "the host name does not resolve"),
    _Failure(
        _CONNECT,
        "the connection was reset while it was made",
        frozenset({errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE}),
    ),
    _Failure(_CONNECT, "the connection was refused", frozenset({errno.ECONNREFUSED})),
    _Failure(_CONNECT, "nobody answers at the address", frozenset({errno.ETIMEDOUT})),
    _Failure(aiohttp.ConnectionTimeoutError, "no connection within the connect timeout"),
    _Failure(
        _CONNECT,
        "the service is unreachable from this machine",
        frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}),
    ),
    _Failure(_CONNECT, "this machine's own rules forbid the connection", frozenset({errno.EACCES, errno.EPERM})),
    _Failure(_CONNECT, "this process may open no more sockets", frozenset({errno.EMFILE, errno.ENFILE})),
    _Failure(_CONNECT, "the connection could not be made"),
    _Failure(DirtyConnectionError, DIRTY),
    _Failure(ReadTimeoutError, "the service was silent for longer than the read timeout"),
    _Failure(aiohttp.ServerDisconnectedError, "the service closed the connection without an answer"),
    _Failure(aiohttp.ClientPayloadError, "the body broke off before its end"),
    _Failure(
        OSError,
        "the connection was reset",
        frozenset({errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE}),
    ),
    _Failure(OSError, "nobody acknowledged what was sent", frozenset({errno.ETIMEDOUT})),
    _Failure(Exception, "the exchange failed"),
)
"""What every failure is called, the first that matches; those of connecting stand in the order of how far they came."""


def furthest(failures: Collection[Exception]) -> Exception:
    """Return the failure that came furthest on the way to a connection: it says most about why there is none."""
    return min(failures, key=_rank)


def _rank(exc: Exception) -> int:
    return next(number for number, kind in enumerate(_FAILURES) if kind.matches(exc))

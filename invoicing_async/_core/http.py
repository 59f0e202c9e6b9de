"""Requests, responses and transports as this library uses them; quoting of paths."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Protocol
from urllib.parse import quote

from attrs import define, field, frozen

from ..policies import Timeouts

__all__ = ["Exchange", "Repeat", "Request", "Response", "Transport", "path"]


def _names(headers: Mapping[str, str]) -> str:
    return f"<{', '.join(headers)}>"


def _size(body: bytes) -> str:
    return f"<{len(body)} bytes>"


class Repeat(Enum):
    """Whether a request may be sent a second time after a failure."""

    ALWAYS = "always"
    """Repeating does no harm: an invoice PDF, a status poll, a token."""
    IF_NOT_SENT = "if not sent"
    """Only if it provably was not sent, or a declared answer refused it: a submission."""


@frozen(kw_only=True)
class Request:
    """One HTTP request as a value.

    `path` is already quoted (see `path()`) and stands below `base_url`; `query` is already encoded and has no
    question mark. `headers` hold no credential: those are added for each attempt; the repr shows no header's
    value and no body all the same. `operation` is a short fixed name for logs and spans. `base_url` is empty
    until the session fills in its own; a request that brings one goes to another host and never carries
    credentials. `answers` are statuses beside the 2xx that its reader takes as an answer, not as an error. `subject`
    is what it is about, for events: an order id, a draft's key; it is not sent.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(factory=dict, repr=_names)
    body: bytes = field(default=b"", repr=_size)
    base_url: str = ""
    repeat: Repeat = Repeat.ALWAYS
    operation: str = ""
    authorised: bool = True
    answers: frozenset[int] = frozenset()
    subject: str = ""

    @property
    def target(self) -> str:
        """The encoded path below the base URL with its query: what a server sees after the base path."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def url(self) -> str:
        """The whole encoded URL, sent exactly as it stands."""
        return self.base_url + self.target


class Response(Protocol):
    """An answer whose head has arrived; its body is read at most once, inside the attempt."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def header(self, name: str) -> str | None:
        """The first value of a header, by its name in any case; None if absent."""

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises `ProtocolError` beyond `limit` bytes, `TransportError` if it breaks off."""

    def arrived(self) -> bytes | None:
        """The whole body if its end has arrived and none of it was read; else None, and nothing is taken."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, in pieces of any size. Raises `TransportError` if it breaks off."""


@define
class Exchange:
    """What a session tells a transport about one attempt, and what the transport tells the session while it runs.

    The session sets `deadline`, the moment at which the first byte must have been sent, in monotonic seconds of its
    clock (None for no such limit); `on_send`, which is called right before that byte and may refuse it by raising, and
    `on_complete`, which may refuse the last one so; `timeouts`, for a transport that was given none of its own; and
    `fresh`, which asks for a connection that was not idle before. The transport calls `leave` right before the first
    byte, which sets `sent`, and `complete` right before the last if it writes a request in pieces; and it sets `stale`
    when an idle connection could not carry the request, or was closed by its peer before a byte of the answer.
    """

    sent: bool = False
    deadline: float | None = None
    on_send: Callable[[], None] | None = None
    on_complete: Callable[[], None] | None = None
    timeouts: Timeouts | None = None
    fresh: bool = False
    stale: bool = False

    def leave(self) -> None:
        """Record that the first byte is sent now: between connecting and writing, with no await before that byte.

        Raises `TransportError` with `sent` "no" if it is too late; the connection is as good as before. Saying it again
        for one attempt does nothing.
        """
        if not self.sent:
            if self.on_send is not None:
                self.on_send()
            self.sent = True

    def complete(self) -> None:
        """Say that the bytes are written now that make the request a whole one, with no await before them.

        Raises `TransportError` with `sent` "unknown" if it is given up everywhere, as after a machine slept: the
        connection is to be aborted then, and the service has a head without its body, which is no request.
        """
        if self.on_complete is not None:
            self.on_complete()


class Transport(Protocol):
    """Carries one request to one answer. Raises only `TransportError` for failures of its own."""

    def send(self, request: Request, exchange: Exchange) -> AbstractAsyncContextManager[Response]:
        """Send once, without retry or redirect; leaving the context releases the connection.

        Calls `exchange.leave()` right before the first byte leaves: never before a connection is there, and with no
        await between it and that byte.
        """

    async def close(self) -> None:
        """Release every connection."""


_PLAIN = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*")


def path(*segments: str) -> str:
    """Join segments into an absolute path, quoting each exactly once.

    The result is both signed and sent, so the two cannot differ. Raises `ValueError` for a segment that is
    empty, `.` or `..`: a server or a proxy would resolve it to another endpoint; and for half a surrogate pair.
    """
    # What needs no quoting is nearly every id there is, and a batch asks a million times.
    return "/" + "/".join([segment if _PLAIN.fullmatch(segment) else _quoted(segment) for segment in segments])


def _quoted(segment: str) -> str:
    if segment in {"", ".", ".."}:
        raise ValueError(f"a path segment must not be {segment!r}")
    try:
        return quote(segment, safe="")
    except UnicodeEncodeError as exc:
        raise ValueError(f"a path segment must be text that UTF-8 can hold, got {exc.object[exc.start]!r}") from None

"""The sandbox's answers as values: a whole one, and every way in which an answer can go wrong.

In-process a broken answer raises `TransportError` or ends early, as a transport over a network would; served on
a port the same error cuts the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Protocol, TypeAlias

from attrs import Factory, evolve, field, frozen

from .._core.clock import Clock
from .._core.http import Response
from .._values.validators import count, not_negative
from ..errors import ProtocolError, TransportError

__all__ = [
    "CHUNK",
    "Answer",
    "CutError",
    "DropBeforeAnswer",
    "Endless",
    "Genuine",
    "Hang",
    "JsonUnder200",
    "NotEligible",
    "NotPdf",
    "RateLimited",
    "Reply",
    "Reset",
    "Scripted",
    "Slow",
    "Stage",
    "Truncated",
    "Unavailable",
    "broken_off",
    "cut",
    "endless",
    "silence",
]

CHUNK = 65_536
PDF = "application/pdf"
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>Please sign in.</form></body></html>"

Stream: TypeAlias = Callable[[bytes], AsyncIterator[bytes]]
"""Turns a body into the pieces in which it arrives; may wait, break off, or never end."""


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


@frozen(kw_only=True)
class Reply:
    """One answer with its head decided; a `Response`."""

    status: int = 200
    headers: Mapping[str, str] = Factory(dict)
    body: bytes = field(default=b"", repr=False)
    stream: Stream = field(default=_whole, repr=False)

    def header(self, name: str) -> str | None:
        """Return the first value of a header, by its name in any case; None if absent."""
        wanted = name.lower()
        return next((value for key, value in self.headers.items() if key.lower() == wanted), None)

    def arrived(self) -> bytes | None:
        """Return None: the body arrives piece by piece, so that every fault may break it off."""
        return None

    def chunks(self) -> AsyncIterator[bytes]:
        """Return the body as it arrives. Raises `TransportError` where a fault breaks it off."""
        return self.stream(self.body)

    async def read(self, limit: int) -> bytes:
        """Return the whole body. Raises `ProtocolError` beyond `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                raise ProtocolError(f"the answer is longer than {limit:,} bytes", head=parts[0], status=self.status)
        return b"".join(parts)


def reply(body: bytes, *, status: int = 200, content_type: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a whole answer with its type and length in the head."""
    head = {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
    return Reply(status=status, headers=head, body=body)


class Stage(Protocol):
    """What a scripted answer may use: the services behind it, for this one request."""

    @property
    def clock(self) -> Clock:
        """The clock that the services go by."""

    def genuine(self) -> Reply:
        """Process the request as the service would, with all its effects, and return its answer."""

    def unavailable(self, status: int | None = None) -> Reply:
        """Return the SYS_DEP_503 answer."""

    def not_eligible(self, status: int | None = None) -> Reply:
        """Return the ORDER_021 answer."""

    def rate_limited(self, retry_after: str | None) -> Reply:
        """Return the 429 answer."""


class Scripted(Protocol):
    """One answer of a script."""

    async def play(self, stage: Stage) -> Response:
        """Return the answer, or raise `TransportError`."""


@frozen
class Genuine:
    """The service's own answer: a place holder in a script."""

    async def play(self, stage: Stage) -> Reply:
        """Answer as without a script."""
        return stage.genuine()


@frozen(kw_only=True)
class Answer:
    """Exactly this answer, whatever was asked; a Content-Length is sent only if `headers` hold one."""

    status: int = 200
    headers: Mapping[str, str] = Factory(dict)
    body: bytes = b""

    async def play(self, stage: Stage) -> Reply:
        """Answer without processing the request."""
        return Reply(status=self.status, headers=self.headers, body=self.body)


@frozen(kw_only=True)
class Unavailable:
    """SYS_DEP_503 (README A.1); `status` None is the one of `Faults`."""

    status: int | None = None

    async def play(self, stage: Stage) -> Reply:
        """Refuse without processing the request."""
        return stage.unavailable(self.status)


@frozen(kw_only=True)
class NotEligible:
    """ORDER_021 with its allowed substatuses (README A.1); `status` None is the one of `Faults`."""

    status: int | None = None

    async def play(self, stage: Stage) -> Reply:
        """Refuse without processing the request."""
        return stage.not_eligible(self.status)


@frozen(kw_only=True)
class RateLimited:
    """429. `retry_after` is the header's text, seconds or an HTTP-date; None sends none."""

    retry_after: str | None = "1"

    async def play(self, stage: Stage) -> Reply:
        """Refuse without processing the request."""
        return stage.rate_limited(self.retry_after)


@frozen(kw_only=True)
class JsonUnder200:
    """The SYS_DEP_503 envelope under HTTP 200, called `content_type`."""

    content_type: str = "application/json"

    async def play(self, stage: Stage) -> Reply:
        """Refuse without processing the request."""
        refusal = stage.unavailable(200)
        return evolve(refusal, headers={**refusal.headers, "Content-Type": self.content_type})


@frozen(kw_only=True)
class NotPdf:
    """A login page under HTTP 200 that calls itself a PDF."""

    body: bytes = field(default=HTML, repr=False)

    async def play(self, stage: Stage) -> Reply:
        """Answer without processing the request."""
        return reply(self.body, content_type=PDF)


@frozen(kw_only=True)
class Truncated:
    """The genuine answer whose last `missing` bytes never come, though its Content-Length counts them."""

    missing: int = field(default=1, validator=count)

    async def play(self, stage: Stage) -> Reply:
        """Process the request and lose the end of its answer."""
        whole = stage.genuine()
        return evolve(whole, body=whole.body[: -self.missing])


class CutError(TransportError):
    """The connection is cut at once, by a TCP reset where there is a port; any other `TransportError` closes it."""


@frozen(kw_only=True)
class Reset:
    """The connection is cut.

    `after` None cuts it before the request is processed; a number cuts the genuine answer after so many bytes
    of its body.
    """

    after: int | None = None

    async def play(self, stage: Stage) -> Reply:
        """Raise at once, or answer with a body that raises."""
        if self.after is None:
            raise CutError("the sandbox cut the connection")
        return broken_off(stage.genuine(), self.after, partial(cut, "the sandbox cut the connection within the body"))


@frozen
class DropBeforeAnswer:
    """The request is processed, an invoice is created, and the answer is lost."""

    async def play(self, stage: Stage) -> Reply:
        """Process the request, then raise."""
        stage.genuine()
        raise TransportError("the sandbox lost the answer")


@frozen(kw_only=True)
class Endless:
    """A PDF's head, then bytes for ever, without a Content-Length."""

    chunk: int = field(default=CHUNK, validator=count)

    async def play(self, stage: Stage) -> Reply:
        """Answer without processing the request."""
        return Reply(headers={"Content-Type": PDF}, body=b"%PDF-1.7\n", stream=partial(endless, size=self.chunk))


@frozen
class Slow:
    """The genuine answer in pieces of `size` bytes, with `seconds` on the sandbox's clock before each."""

    seconds: float = field(validator=not_negative)
    size: int = field(default=1024, validator=count, kw_only=True)

    async def play(self, stage: Stage) -> Reply:
        """Process the request and let its answer drip."""

        async def dripping(body: bytes) -> AsyncIterator[bytes]:
            for start in range(0, len(body), self.size):
                await stage.clock.sleep(self.seconds)
                yield body[start : start + self.size]

        return evolve(stage.genuine(), stream=dripping)


@frozen(kw_only=True)
class Hang:
    """Silence until the caller gives up.

    `after` None never answers and does not process the request; a number falls silent after so many bytes of
    the genuine answer's body.
    """

    after: int | None = None

    async def play(self, stage: Stage) -> Reply:
        """Wait for ever, or answer with a body that does."""
        if self.after is None:
            await silence()
        return broken_off(stage.genuine(), self.after or 0, silence)


def broken_off(whole: Reply, size: int, end: Callable[[], Awaitable[None]]) -> Reply:
    """Return an answer that sends `size` bytes of its body, or all of a shorter one, and goes on with `end`."""

    async def first_bytes(body: bytes) -> AsyncIterator[bytes]:
        left = size
        async for chunk in whole.stream(body):
            if left > 0:
                yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                break
        await end()

    return evolve(whole, stream=first_bytes)


async def cut(message: str) -> None:
    """Raise `CutError`."""
    raise CutError(message)


async def silence() -> None:
    """Wait until the caller gives up."""
    await asyncio.get_running_loop().create_future()


async def endless(body: bytes, *, size: int) -> AsyncGenerator[bytes]:
    """Yield a body and then comments of a PDF for ever, of `size` bytes each."""
    yield body
    while True:
        await asyncio.sleep(0)
        yield b"%" * size

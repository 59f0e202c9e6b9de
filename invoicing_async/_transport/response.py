"""An answer of aiohttp's as this library's `Response`: its pieces, decoded, and how long it may be silent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Self

import aiohttp
from aiohttp import hdrs
from attrs import frozen
from multidict import CIMultiDictProxy

from .._core.clock import Clock, ClockTimeout
from .._core.codings import CodingError, Decoder, codings
from .._core.http import Exchange
from ..errors import ProtocolError, TransportError
from ..policies import Timeouts
from .errors import ReadTimeoutError, translate

__all__ = ["Answer", "ExchangeTimeouts", "ReadTimeout"]


@frozen
class ReadTimeout:
    """How long nothing may come: before the answer's head, and between two pieces of its body."""

    clock: Clock
    seconds: float

    def bound(self) -> ClockTimeout:
        return self.clock.timeout(self.seconds)


@frozen
class ExchangeTimeouts:
    """What bounds an exchange."""

    read_timeout: ReadTimeout
    connecting: aiohttp.ClientTimeout
    unacknowledged: float
    """Seconds after which what nobody acknowledges is given up."""

    @classmethod
    def of(cls, timeouts: Timeouts, clock: Clock) -> ExchangeTimeouts:
        """Return the bounds that `timeouts` say."""
        # Silence is bounded by the clock: a timer of aiohttp's for each piece of a body costs more than the piece.
        connecting = aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_connect=timeouts.connect)
        return cls(ReadTimeout(clock, timeouts.read), connecting, timeouts.attempt)


class Answer:
    """An answer of aiohttp's as the `Response` protocol."""

    __slots__ = ("_codings", "_content", "_exchange", "_read_timeout", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: CIMultiDictProxy[str],
        content: aiohttp.StreamReader,
        exchange: Exchange,
        read_timeout: ReadTimeout,
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = headers
        self._codings = codings(headers.get(hdrs.CONTENT_ENCODING))
        if self._codings:
            # Without what is true of the compressed body only.
            kept = headers.copy()
            kept.popall(hdrs.CONTENT_ENCODING)
            kept.popall(hdrs.CONTENT_LENGTH, None)
            self.headers = CIMultiDictProxy(kept)
        self._content = content
        self._exchange = exchange
        self._read_timeout = read_timeout

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    async def read(self, limit: int) -> bytes:
        body = self.arrived()
        if body is not None and len(body) <= limit:
            return body
        parts = [body] if body else []
        size = len(body or b"")
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
        chunks = _Chunks(self._content, self._exchange, self._read_timeout)
        return _Decoded(chunks, Decoder(self._codings)) if self._codings else chunks


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

    __slots__ = ("_content", "_exchange", "_read_timeout")

    def __init__(self, content: aiohttp.StreamReader, exchange: Exchange, read_timeout: ReadTimeout) -> None:
        self._read_timeout = read_timeout
        self._content = content
        self._exchange = exchange

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = self._content.read_nowait() or await self._awaited()
        except (aiohttp.ClientError, OSError) as exc:
            translate(exc, self._exchange)
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _awaited(self) -> bytes:
        """Wait for more, but not longer than the read timeout allows; nothing at the end."""
        if self._content.at_eof():
            return b""
        bound = self._read_timeout.bound()
        try:
            async with bound:
                return await self._content.readany()
        except TimeoutError as exc:
            if bound.expired():
                raise ReadTimeoutError from exc
            raise

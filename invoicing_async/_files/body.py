"""An answer's body: a small one in memory, a large one on disk, checked at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

from attrs import frozen

from .._core.clock import Clock
from .._core.codings import CodingError, DecodedSizeError, decoder, is_coded
from .._core.envelope import error_from
from .._core.error_bodies import error_body
from .._core.hold import Hold
from .._core.http import Response
from ..errors import (
    HEAD_LIMIT,
    IncompleteDocumentError,
    InterruptedDocumentError,
    InvoicingError,
    OversizedDocumentError,
    ProtocolError,
    TransportError,
)
from ..policies import Timeouts
from .existing import Published, Validator
from .kinds import DocumentType
from .pdf import HEAD_WINDOW
from .places import Place
from .publish import Destination
from .verify import framing, is_declared, raise_unless_document

__all__ = ["Body", "DocumentReader"]

SMALL = 2**20
"""Bodies up to this many bytes are kept in memory and handed to the disk's thread once."""


GZIP = b"\x1f\x8b"
"""How a gzip stream begins."""


HEAD_SIZE = HEAD_WINDOW
"""Bytes of a large body that are there before it is passed on: enough to judge its head."""


@frozen
class DocumentReader:
    """Reads one answer's body into memory or onto the disk, and checks that it is whole."""

    kind: DocumentType
    clock: Clock
    timeouts: Timeouts
    max_bytes: int

    async def receive(self, response: Response, place: Place, destination: Destination) -> bytes | Published:
        """Return a small body, checked and not yet written, or a large one that is published at its destination.

        Raises `ApiError` for an error envelope, `ProtocolError` for another kind of answer,
        `IncompleteDocumentError` for a body that is not whole, `OSError` for trouble with the place.
        """
        if not is_declared(response, self.kind):
            await raise_unless_document(response, self.kind, now=self.clock.now())
        body = Body(self, response)
        small = body.arrived() or await body.small()
        return await body.spooled(place, destination) if small is None else small

    async def open(self, response: Response) -> bytes | Body:
        """Return a small body, checked, or a large one of which enough has come to know that it is a document's.

        Raises as `receive`; what shows only at the end of a large body is raised there.
        """
        if not is_declared(response, self.kind):
            await raise_unless_document(response, self.kind, now=self.clock.now())
        body = Body(self, response)
        small = await body.opened()
        return body if small is None else small


class Body:
    """One body while it arrives."""

    __slots__ = (
        "_begun", "_chunks", "_coding", "_first", "_framed", "_length", "_paused", "_pieces", "_reader", "_response",
        "_sent", "_size",
    )  # fmt: skip

    def __init__(self, reader: DocumentReader, response: Response) -> None:
        self._reader = reader
        self._response = response
        self._chunks: AsyncIterator[bytes] | None = None
        coding = response.header("Content-Encoding")
        self._coding = coding if coding and is_coded(coding) else None
        self._sent, self._framed = framing(response)
        self._length = None if self._coding else self._sent
        self._begun = self._paused = reader.clock.monotonic()
        self._pieces: list[bytes] = []
        self._first = b""
        self._size = 0

    def arrived(self) -> bytes | None:
        """Return the whole body if all of it has come and is a whole document; else None, and `small` decides."""
        limit = self._reader.max_bytes
        if self._length is not None and self._length > limit:
            raise self._too_long()
        if self._coding:
            return None
        body = self._response.arrived()
        if body is None:
            return None
        if body.startswith(GZIP):
            self._decode_unsaid(body)
            return None
        self._pieces.append(body)
        self._first = body[:HEAD_LIMIT]
        self._size = len(body)
        if self._size > limit:
            raise self._too_long()
        fault = self._reader.kind.fault_of(body, content_length=self._length, framed=self._framed)
        return body if fault is None else None

    async def small(self, most: int = SMALL) -> bytes | None:
        """Return the whole body if it is small; None once it is known to be larger than `most`."""
        kind, pieces = self._reader.kind, self._pieces
        while self._size <= most:
            chunk = await self._next()
            if chunk is None:
                body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                fault = kind.fault_of(body, content_length=self._length, framed=self._framed)
                if fault is None:
                    return body
                # A first piece of a few bytes could not be judged by itself.
                if (head_fault := kind.head_fault(body)) is not None:
                    raise await self._not_a_document(head_fault, body)
                raise self._incomplete(fault)
            if not pieces and self._coding is None and chunk.startswith(GZIP):
                self._decode_unsaid(chunk)
                continue
            if not pieces and (head_fault := kind.head_fault(chunk)) is not None:
                raise await self._not_a_document(head_fault, chunk)
            pieces.append(chunk)
        return None

    async def opened(self) -> bytes | None:
        """Return the whole body if it is small; None once so much of a large one is there that its head is judged."""
        is_large = self._length is not None and self._length > SMALL
        small = self.arrived() or await self.small(HEAD_SIZE if is_large else SMALL)
        if small is None:
            head = b"".join(self._pieces)
            if (fault := self._reader.kind.head_fault(head)) is not None:
                raise await self._not_a_document(fault, head)
            self._paused = self._reader.clock.monotonic()
        return small

    @property
    def length(self) -> int | None:
        """How long the document is by what was declared, None if nothing was."""
        return self._length

    def chunks(self, hold: Hold) -> AsyncIterator[bytes]:
        """Return the pieces of an opened body, read on as they are asked for; at its end, or at once, what is wrong."""
        return _BodyReader(self, hold, self._reader.kind.validator())

    def held(self) -> bytes | None:
        """Return the next piece of what was read already."""
        return self._pieces.pop(0) if self._pieces else None

    async def read_on(self) -> bytes | None:
        """Read another piece, None at the end. The time since the last one was the reader's, and does not count."""
        clock = self._reader.clock
        self._begun += clock.monotonic() - self._paused
        try:
            return await self._next()
        finally:
            self._paused = clock.monotonic()

    def _rest(self) -> AsyncIterator[bytes]:
        if self._chunks is None:
            sent = aiter(self._response.chunks())
            self._chunks = self._decoded(sent, self._coding) if self._coding else sent
        return self._chunks

    def _decoded(self, sent: AsyncIterator[bytes], coding: str, begun: bytes = b"") -> AsyncIterator[bytes]:
        return decoded(sent, coding, begun=begun, length=self._sent, limit=self._reader.max_bytes)

    def _decode_unsaid(self, begun: bytes) -> None:
        """Decode the gzip that an object was stored in without saying so; no document begins as gzip does."""
        sent = self._rest()
        self._coding, self._length, self._size = "gzip", None, 0
        self._chunks = self._decoded(sent, self._coding, begun)

    async def _next(self) -> bytes | None:
        reader = self._reader
        try:
            chunk = await anext(self._chunks or self._rest())
        except StopAsyncIteration:
            # The length of the coded body proves the end of the decoded one.
            self._framed = self._framed or (self._coding is not None and self._sent is not None)
            return None
        except TransportError as exc:
            raise self.broken_off(exc) from exc
        except DecodedSizeError as exc:
            raise self._oversized(str(exc)) from None
        except CodingError as exc:
            raise self._incomplete(str(exc)) from None
        if not self._size:
            self._first = chunk[:HEAD_LIMIT]
        self._size += len(chunk)
        if self._size > reader.max_bytes:
            raise self._too_long()
        elapsed = reader.clock.monotonic() - self._begun
        if elapsed > reader.timeouts.read and self._size < reader.timeouts.floor * elapsed:
            raise self._incomplete(f"{self._size:,} bytes in {elapsed:.1f} s is slower than Timeouts.floor")
        return chunk

    async def _not_a_document(self, fault: str, head: bytes) -> InvoicingError:
        """Return the error envelope that came instead, or else what is wrong with the head."""
        body = await error_body(self._rest(), head) if head.lstrip()[:1] == b"{" else head
        declared = error_from(self._response.status, self._response.header, body, now=self._reader.clock.now())
        return declared or IncompleteDocumentError(fault, head=body, status=self._response.status)

    async def spooled(self, place: Place, destination: Destination) -> Published:
        """Write what has come and what is still to come to a temporary file, check it and publish it."""
        validator = self._reader.kind.validator()
        spool = await place.spool()
        try:
            while self._pieces:
                for piece in self._pieces:
                    validator.feed(piece)
                await spool.write(self._pieces)
                self._pieces, size = [], 0
                while size < SMALL and (chunk := await self._next()) is not None:
                    self._pieces.append(chunk)
                    size += len(chunk)
            self.validate(validator)
            return await place.publish(destination, spool)
        except BaseException:
            await spool.discard()
            raise

    def validate(self, validator: Validator) -> None:
        """Raise `IncompleteDocumentError` for what a validator that was fed all of the body finds wrong with it."""
        fault = validator.fault(content_length=self._length, framed=self._framed)
        if fault is not None:
            raise self._incomplete(fault)

    def broken_off(self, exc: TransportError) -> IncompleteDocumentError:
        """Return the error of a body that ends before its end."""
        text = f"the body broke off after {self._size:,} bytes: {exc}"
        return InterruptedDocumentError(text, head=self._first, status=self._response.status)

    def _too_long(self) -> OversizedDocumentError:
        return self._oversized(f"longer than the limit of {self._reader.max_bytes:,} bytes")

    def _oversized(self, text: str) -> OversizedDocumentError:
        return OversizedDocumentError(text, head=self._first, status=self._response.status)

    def _incomplete(self, text: str) -> IncompleteDocumentError:
        return IncompleteDocumentError(text, head=self._first, status=self._response.status)


async def decoded(
    sent: AsyncIterator[bytes], coding: str, *, begun: bytes, length: int | None, limit: int
) -> AsyncIterator[bytes]:
    """Yield a body without its coding. Raises `CodingError` unless it comes to its end, and to its declared length."""
    size = len(begun)
    decode = decoder(coding, limit=limit)
    for piece in decode.feed(begun):
        yield piece
    async for chunk in sent:
        size += len(chunk)
        for piece in decode.feed(chunk):
            yield piece
    for piece in decode.end():
        yield piece
    if length is not None and size != length:
        raise CodingError(f"{size:,} bytes came where Content-Length says {length:,}")


class _BodyReader:
    """The pieces of a large body, checked as they pass. No generator: leaving it early has nothing to finalise."""

    __slots__ = ("_body", "_ended", "_error", "_hold", "_validator")

    def __init__(self, body: Body, hold: Hold, validator: Validator) -> None:
        self._body = body
        self._hold = hold
        self._validator = validator
        self._ended = False
        self._error: InvoicingError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = self._body.held() or await self._further()
        if piece is None:
            raise StopAsyncIteration
        self._validator.feed(piece)
        return piece

    async def _further(self) -> bytes | None:
        """Wait for the next piece; None at the end of a body that is whole. An error is raised again if asked again."""
        if self._error is not None:
            raise self._error
        if self._ended:
            return None
        try:
            async with self._hold.reading():
                piece = await self._body.read_on()
            if piece is None:
                self._body.validate(self._validator)
                self._ended = True
                await self._hold.release()
        except TransportError as exc:
            self._error = exc if isinstance(exc, ProtocolError) else self._body.broken_off(exc)
        except InvoicingError as exc:
            self._error = exc
        else:
            return piece
        await self._hold.release()
        raise self._error

"""From an answer to a whole document: the proof that a body is complete, small ones in memory, large ones on disk.

A body becomes a file only after its content type, its head, its tail and its length are as documented (API.md
A.1). What breaks that proof is an `IncompleteDocumentError`, which the session repeats as a whole call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from attrs import frozen

from ._clock import Clock
from ._disk import DiskWriter, OnExisting, Spool
from ._encodings import DecodedSizeError, EncodingError, decoder, is_coded
from ._existing import MakesProof, Proof, Published
from ._http import Response
from ._pdf import Checker, fault_of, head_fault
from ._refusals import error_body
from ._text import one_line
from ._wire import error_from
from ._xml import XmlProof
from .errors import (
    HEAD_LIMIT,
    IncompleteDocumentError,
    InterruptedDocumentError,
    InvoicingError,
    OversizedDocumentError,
    ProtocolError,
    TransportError,
)
from .policies import Timeouts

__all__ = ["Kind", "Pdf", "Place", "Receiver", "Xml", "declared_length", "is_framed", "refuse_unless"]

SMALL = 2**20
"""Bodies up to this many bytes are kept in memory and take one hop to the disk."""

PARTIAL = 206
GZIP = b"\x1f\x8b"
"""How a gzip stream begins."""

TYPE_LIMIT = 100
"""Characters of another content type that an error shows."""

HEAD_SIZE = 5
"""Bytes after which a head can be judged: `%PDF-`."""


class Kind(Protocol):
    """What a document must be."""

    @property
    def content_types(self) -> frozenset[str]: ...

    def head_fault(self, head: bytes) -> str | None:
        """Say what is wrong with a body that begins so; None while nothing is."""

    def fault_of(self, body: bytes, *, content_length: int | None, framed: bool = False) -> str | None:
        """Say what is wrong with a whole body, None if nothing."""

    def proof(self) -> Proof: ...


@frozen
class Pdf:
    """A PDF, proved by its head and its tail."""

    content_types: frozenset[str] = frozenset({"application/pdf"})

    def head_fault(self, head: bytes) -> str | None:
        return head_fault(head)

    def fault_of(self, body: bytes, *, content_length: int | None, framed: bool = False) -> str | None:
        return fault_of(body, content_length=content_length, framed=framed)

    def proof(self) -> Proof:
        return Checker()


@frozen
class Xml:
    """An XML invoice, proved by a parser that reaches its end and by what is known not to be one."""

    content_types: frozenset[str] = frozenset({"application/xml", "text/xml"})

    def head_fault(self, head: bytes) -> str | None:
        return None

    def fault_of(self, body: bytes, *, content_length: int | None, framed: bool = False) -> str | None:
        proof = self.proof()
        proof.feed(body)
        return proof.fault(content_length=content_length)

    def proof(self) -> Proof:
        return XmlProof()


@frozen(kw_only=True)
class Place:
    """Where a document goes: temporary files in `folder`, the final name `target` inside it.

    `proof` makes what a file under that name must pass to be kept; None if the name may be another document's.
    """

    folder: Path
    target: Path
    on_existing: OnExisting = OnExisting.NEW_NAME
    proof: MakesProof | None = Checker
    durable: bool = False


def declared_length(response: Response) -> int | None:
    """Give the Content-Length of an answer; None if it has none that is a number, or one that is not of the body.

    A framing overrides it, and of a compressed body it is the length of what is sent.
    """
    return None if is_coded(response.header("Content-Encoding")) else _sent_length(response)


def _sent_length(response: Response) -> int | None:
    if is_framed(response):
        return None
    value = response.header("Content-Length")
    return int(value) if value is not None and value.isascii() and value.isdigit() else None


def is_framed(response: Response) -> bool:
    """Tell whether the transfer marks the body's end itself, so that one that ended is complete (RFC 9112, 7.1)."""
    return (response.header("Transfer-Encoding") or "").strip().lower().endswith("chunked")


def _content_type(response: Response) -> str:
    return (response.header("Content-Type") or "").partition(";")[0].strip().lower()


def is_declared(response: Response, kind: Kind) -> bool:
    """Tell whether a 2xx answer says that it is a whole document of this kind."""
    return response.status != PARTIAL and _content_type(response) in kind.content_types


async def refuse_unless(response: Response, kind: Kind, *, now: float) -> None:
    """Raise what a 2xx answer says instead of a document: its error envelope, or `ProtocolError`."""
    if is_declared(response, kind):
        return
    if response.status == PARTIAL:
        raise IncompleteDocumentError("206: a part of a document, which nobody asked for", status=PARTIAL)
    content_type = _content_type(response)
    body = await error_body(response.chunks())
    error = error_from(response.status, response.header, body, now=now)
    if error is not None:
        raise error
    documented = " or ".join(sorted(filter(None, kind.content_types)))
    shown = one_line(content_type, TYPE_LIMIT) or "none"
    text = f"the answer has content type {shown!r} where {documented} is documented"
    raise ProtocolError(text, head=body, status=response.status)


@frozen
class Receiver:
    """Reads one answer's body into memory or onto the disk, and proves it whole."""

    kind: Kind
    clock: Clock
    timeouts: Timeouts
    max_bytes: int

    async def receive(self, response: Response, disk: DiskWriter, place: Place) -> bytes | Published:
        """Give a small body, proved and not yet written, or a large one already published at `place`.

        Raises `ApiError` for an error envelope, `ProtocolError` for another kind of answer,
        `IncompleteDocumentError` for a body that is not whole, `OSError` for trouble with the disk.
        """
        if not is_declared(response, self.kind):
            await refuse_unless(response, self.kind, now=self.clock.now())
        body = _Body(self, response)
        small = body.arrived() or await body.small()
        return await body.spooled(disk, place) if small is None else small

    async def begin(self, response: Response) -> tuple[list[bytes], AsyncIterator[bytes]]:
        """Read until the head is known to be a document's; give what came and the rest, which the caller proves."""
        return await _Body(self, response).begun()


class _Body:
    """One body while it arrives."""

    __slots__ = (
        "_begun", "_chunks", "_coding", "_first", "_framed", "_length", "_pieces", "_receiver", "_response", "_size",
    )  # fmt: skip

    def __init__(self, receiver: Receiver, response: Response) -> None:
        self._receiver = receiver
        self._response = response
        self._chunks: AsyncIterator[bytes] | None = None
        coding = response.header("Content-Encoding")
        self._coding = coding if is_coded(coding) else None
        self._length = None if self._coding else _sent_length(response)
        self._framed = is_framed(response)
        self._begun = receiver.clock.monotonic()
        self._pieces: list[bytes] = []
        self._first = b""
        self._size = 0

    def arrived(self) -> bytes | None:
        """Give the whole body if it is there already and proves whole; else None, and `small` has the last word."""
        self._refuse_size(self._length or 0)
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
        self._refuse_size(self._size)
        fault = self._receiver.kind.fault_of(body, content_length=self._length, framed=self._framed)
        return body if fault is None else None

    async def small(self) -> bytes | None:
        """Give the whole body if it is small; None once it is known to be large."""
        self._refuse_size(self._length or 0)
        while self._size <= SMALL:
            chunk = await self._next()
            if chunk is None:
                return await self._whole()
            if not self._pieces and self._coding is None and chunk.startswith(GZIP):
                self._decode_unsaid(chunk)
                continue
            if not self._pieces and self._receiver.kind.head_fault(chunk) is not None:
                await self._check_head(chunk)
            self._pieces.append(chunk)
        return None

    async def begun(self) -> tuple[list[bytes], AsyncIterator[bytes]]:
        self._refuse_size(self._length or 0)
        while self._size < HEAD_SIZE and (chunk := await self._next()) is not None:
            self._pieces.append(chunk)
        await self._check_head(b"".join(self._pieces))
        if self._size < HEAD_SIZE:
            raise self._incomplete(f"the body ends after {self._size} bytes")
        return self._pieces, self._rest()

    def _rest(self) -> AsyncIterator[bytes]:
        if self._chunks is None:
            sent = aiter(self._response.chunks())
            self._chunks = self._decoded(sent, self._coding, _sent_length(self._response)) if self._coding else sent
        return self._chunks

    def _decode_unsaid(self, begun: bytes) -> None:
        """Take off the gzip that an object was stored in without saying so; no document begins as gzip does."""
        sent, length = self._rest(), self._length
        self._coding, self._length, self._size = "gzip", None, 0
        self._chunks = self._decoded(sent, self._coding, length, begun)

    async def _decoded(
        self, sent: AsyncIterator[bytes], coding: str, length: int | None, begun: bytes = b""
    ) -> AsyncIterator[bytes]:
        """Give a body without its coding, which must come to its end, and to the length that was declared of it."""
        size = len(begun)
        try:
            decode = decoder(coding, limit=self._receiver.max_bytes)
            for piece in decode.pieces(begun):
                yield piece
            async for chunk in sent:
                size += len(chunk)
                for piece in decode.pieces(chunk):
                    yield piece
            rest = decode.finish()
        except DecodedSizeError as exc:
            raise OversizedDocumentError(str(exc), head=self._first, status=self._response.status) from None
        except EncodingError as exc:
            raise self._incomplete(str(exc)) from None
        if length is not None and size != length:
            raise self._incomplete(f"{size:,} bytes came where Content-Length says {length:,}")
        # The length of what was sent proves the end of what it stands for.
        self._framed = self._framed or length is not None
        if rest:
            yield rest

    async def _next(self) -> bytes | None:
        try:
            chunk = await anext(self._rest())
        except StopAsyncIteration:
            return None
        except TransportError as exc:
            raise self._broken_off(exc) from exc
        if not self._size:
            self._first = chunk[:HEAD_LIMIT]
        self._size += len(chunk)
        self._refuse_size(self._size)
        self._refuse_drip()
        return chunk

    def _refuse_size(self, size: int) -> None:
        limit = self._receiver.max_bytes
        if size > limit:
            text = f"longer than the limit of {limit:,} bytes"
            raise OversizedDocumentError(text, head=self._first, status=self._response.status)

    def _refuse_drip(self) -> None:
        receiver = self._receiver
        elapsed = receiver.clock.monotonic() - self._begun
        if elapsed > receiver.timeouts.read and self._size < receiver.timeouts.floor * elapsed:
            raise self._incomplete(f"{self._size:,} bytes in {elapsed:.1f} s is slower than Timeouts.floor")

    async def _check_head(self, head: bytes) -> None:
        fault = self._receiver.kind.head_fault(head)
        if fault is not None:
            raise await self._not_a_document(fault, head)

    async def _not_a_document(self, fault: str, head: bytes) -> InvoicingError:
        """Give the error envelope that came instead, or else what is wrong with the head."""
        body = await error_body(self._rest(), head) if head.lstrip()[:1] == b"{" else head
        declared = error_from(self._response.status, self._response.header, body, now=self._receiver.clock.now())
        return declared or IncompleteDocumentError(fault, head=body, status=self._response.status)

    async def _whole(self) -> bytes:
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        # A first piece of a few bytes could not be judged by itself.
        await self._check_head(body)
        fault = self._receiver.kind.fault_of(body, content_length=self._length, framed=self._framed)
        if fault is not None:
            raise self._incomplete(fault)
        return body

    async def spooled(self, disk: DiskWriter, place: Place) -> Published:
        """Write what came and what comes to a temporary file, prove it and publish it."""
        spool = await disk.spool(place.folder)
        try:
            await self._written(spool)
            return await spool.publish(
                place.target, on_existing=place.on_existing, proof=place.proof, durable=place.durable
            )
        except BaseException:
            await spool.discard()
            raise

    async def _written(self, spool: Spool) -> None:
        proof = self._receiver.kind.proof()
        while self._pieces:
            for piece in self._pieces:
                proof.feed(piece)
            await spool.write(self._pieces)
            self._pieces = await self._more()
        fault = proof.fault(content_length=self._length, framed=self._framed)
        if fault is not None:
            raise self._incomplete(fault)

    async def _more(self) -> list[bytes]:
        """Read the next hop's worth; nothing at the end."""
        pieces: list[bytes] = []
        size = 0
        while size < SMALL and (chunk := await self._next()) is not None:
            pieces.append(chunk)
            size += len(chunk)
        return pieces

    def _broken_off(self, exc: TransportError) -> IncompleteDocumentError:
        text = f"the body broke off after {self._size:,} bytes: {exc}"
        return InterruptedDocumentError(text, head=self._first, status=self._response.status)

    def _incomplete(self, text: str) -> IncompleteDocumentError:
        return IncompleteDocumentError(text, head=self._first, status=self._response.status)

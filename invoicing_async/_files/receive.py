"""From an answer to a whole document: the proof that a body is complete, small ones in memory, large ones on disk.

A body becomes a file only after its content type, its head, its tail and its length are as documented (API.md
A.1). What breaks that proof is an `IncompleteDocumentError`, which the session repeats as a whole call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol, Self

from attrs import frozen

from .._core.clock import Clock
from .._core.codings import CodingError, DecodedSizeError, decoder, is_coded
from .._core.envelope import error_from
from .._core.error_bodies import error_body
from .._core.hold import Hold
from .._core.http import Response
from .._values.text import one_line
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
from .existing import MakesProof, Proof, Published
from .pdf import HEAD_WINDOW, Checker, fault_of, head_fault
from .publish import OnExisting
from .writer import DiskWriter, Spool
from .xml import XmlProof

__all__ = ["GENERIC", "PDF_TYPES", "Body", "Kind", "Pdf", "Place", "Receiver", "Xml", "refuse_unless", "sent_length"]

SMALL = 2**20
"""Bodies up to this many bytes are kept in memory and take one hop to the disk."""

PARTIAL = 206
NOT_WHOLE = frozenset({204, 205, PARTIAL})
"""What is a success and no document: no content, or a part."""
GZIP = b"\x1f\x8b"
"""How a gzip stream begins."""

TYPE_LIMIT = 100
"""Characters of another content type that an error shows."""

HEAD_SIZE = HEAD_WINDOW
"""Bytes of a large body that are there before it is passed on: enough to judge its head."""


GENERIC = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-download", "application/force-download",
     "application/download", "application/gzip", "application/x-gzip"}
)  # fmt: skip
"""What is said of bytes that nobody knows anything about, or that a browser is to save: the bytes decide."""

PDF_TYPES = frozenset({"application/pdf", "application/x-pdf"})


class Kind(Protocol):
    """What a document must be."""

    @property
    def documented(self) -> str:
        """What the content type of one is, in the words of an error."""

    @property
    def content_types(self) -> frozenset[str]:
        """The content types whose bytes are judged; what has another is not looked at. Lower case, "" for none."""

    def head_fault(self, head: bytes) -> str | None:
        """Say what is wrong with a body that begins so; None while nothing is."""

    def fault_of(self, body: bytes, *, content_length: int | None, framed: bool = False) -> str | None:
        """Say what is wrong with a whole body, None if nothing."""

    def proof(self) -> Proof: ...


@frozen
class Pdf:
    """A PDF, proved by its head and its tail. `setting` is what a user may say to have other content types judged."""

    content_types: frozenset[str] = PDF_TYPES
    setting: str = ""

    @property
    def documented(self) -> str:
        return "application/pdf is documented" + (f"; {self.setting}" if self.setting else "")

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

    @property
    def documented(self) -> str:
        return "application/xml or text/xml is documented"

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


def sent_length(response: Response) -> int | None:
    """Return the Content-Length of an answer; None if it has none that is a number. A framing overrides it."""
    if _is_framed(response):
        return None
    value = response.header("Content-Length")
    return int(value) if value is not None and value.isascii() and value.isdigit() else None


def _is_framed(response: Response) -> bool:
    """Tell whether the transfer marks the body's end itself, so that one that ended is complete (RFC 9112, 7.1)."""
    return (response.header("Transfer-Encoding") or "").strip().lower().endswith("chunked")


def _content_type(response: Response) -> str:
    return (response.header("Content-Type") or "").partition(";")[0].strip().lower()


def is_declared(response: Response, kind: Kind) -> bool:
    """Tell whether a 2xx answer says that it is a whole document of this kind, or may be one for all that it says."""
    if response.status in NOT_WHOLE:
        return False
    named, known = _content_type(response), kind.content_types
    if "," not in named:
        return named in known
    # A header that was sent twice comes as one.
    several = list(filter(None, map(str.strip, named.split(","))))
    return bool(several) and known.issuperset(several)


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
    if response.status in NOT_WHOLE:
        raise ProtocolError(f"{response.status}: an answer that has no content", status=response.status)
    shown = one_line(content_type, TYPE_LIMIT) or "none"
    text = f"the answer has content type {shown!r} where {kind.documented}"
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
        body = Body(self, response)
        small = body.arrived() or await body.small()
        return await body.spooled(disk, place) if small is None else small

    async def open(self, response: Response) -> bytes | Body:
        """Return a small body, proved, or a large one of which enough is there to know that it is a document's.

        Raises as `receive`; what shows only at the end of a large body is raised there.
        """
        if not is_declared(response, self.kind):
            await refuse_unless(response, self.kind, now=self.clock.now())
        body = Body(self, response)
        small = await body.opened()
        return body if small is None else small


class Body:
    """One body while it arrives."""

    __slots__ = (
        "_begun", "_chunks", "_coding", "_first", "_framed", "_length", "_paused", "_pieces", "_receiver", "_response",
        "_size",
    )  # fmt: skip

    def __init__(self, receiver: Receiver, response: Response) -> None:
        self._receiver = receiver
        self._response = response
        self._chunks: AsyncIterator[bytes] | None = None
        coding = response.header("Content-Encoding")
        self._coding = coding if is_coded(coding) else None
        self._length = None if self._coding else sent_length(response)
        self._framed = _is_framed(response)
        self._begun = self._paused = receiver.clock.monotonic()
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

    async def small(self, most: int = SMALL) -> bytes | None:
        """Return the whole body if it is small; None once it is known to be larger than `most`."""
        self._refuse_size(self._length or 0)
        while self._size <= most:
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

    async def opened(self) -> bytes | None:
        """Return the whole body if it is small; None once so much of a large one is there that its head is judged."""
        is_large = self._length is not None and self._length > SMALL
        small = self.arrived() or await self.small(HEAD_SIZE if is_large else SMALL)
        if small is None:
            await self._check_head(b"".join(self._pieces))
            self._paused = self._receiver.clock.monotonic()
        return small

    @property
    def length(self) -> int | None:
        """How long the document is by what was declared, None if nothing was."""
        return self._length

    def chunks(self, hold: Hold) -> AsyncIterator[bytes]:
        """Return the pieces of an opened body, read on as they are asked for; at its end, or at once, what is wrong."""
        return _ReadOn(self, hold, self._receiver.kind.proof())

    def held(self) -> bytes | None:
        """Return the next piece of what was read already."""
        return self._pieces.pop(0) if self._pieces else None

    async def read_on(self) -> bytes | None:
        """Read another piece, None at the end. The time since the last one was the reader's, and does not count."""
        clock = self._receiver.clock
        self._begun += clock.monotonic() - self._paused
        try:
            return await self._next()
        finally:
            self._paused = clock.monotonic()

    def _rest(self) -> AsyncIterator[bytes]:
        if self._chunks is None:
            sent = aiter(self._response.chunks())
            self._chunks = self._decoded(sent, self._coding, sent_length(self._response)) if self._coding else sent
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
            for piece in decode.feed(begun):
                yield piece
            async for chunk in sent:
                size += len(chunk)
                for piece in decode.feed(chunk):
                    yield piece
            for piece in decode.end():
                yield piece
        except DecodedSizeError as exc:
            raise OversizedDocumentError(str(exc), head=self._first, status=self._response.status) from None
        except CodingError as exc:
            raise self._incomplete(str(exc)) from None
        if length is not None and size != length:
            raise self._incomplete(f"{size:,} bytes came where Content-Length says {length:,}")
        # The length of what was sent proves the end of what it stands for.
        self._framed = self._framed or length is not None

    async def _next(self) -> bytes | None:
        try:
            chunk = await anext(self._rest())
        except StopAsyncIteration:
            return None
        except TransportError as exc:
            raise self.broken_off(exc) from exc
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
        self.prove(proof)

    def prove(self, proof: Proof) -> None:
        """Raise `IncompleteDocumentError` for what a proof that heard all of the body finds wrong with it."""
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

    def broken_off(self, exc: TransportError) -> IncompleteDocumentError:
        """Return the error of a body that ends before its end."""
        text = f"the body broke off after {self._size:,} bytes: {exc}"
        return InterruptedDocumentError(text, head=self._first, status=self._response.status)

    def _incomplete(self, text: str) -> IncompleteDocumentError:
        return IncompleteDocumentError(text, head=self._first, status=self._response.status)


class _ReadOn:
    """The pieces of a large body, proved as they pass. No generator: leaving it early has nothing to finalise."""

    __slots__ = ("_body", "_ended", "_error", "_hold", "_proof")

    def __init__(self, body: Body, hold: Hold, proof: Proof) -> None:
        self._body = body
        self._hold = hold
        self._proof = proof
        self._ended = False
        self._error: InvoicingError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = self._body.held() or await self._further()
        if piece is None:
            raise StopAsyncIteration
        self._proof.feed(piece)
        return piece

    async def _further(self) -> bytes | None:
        """Wait for the next piece; None at the end of a body that is whole. An error is raised again if asked again."""
        if self._error is not None:
            raise self._error
        if self._ended:
            return None
        try:
            return await self._waited()
        except TransportError as exc:
            self._error = exc if isinstance(exc, ProtocolError) else self._body.broken_off(exc)
        except InvoicingError as exc:
            self._error = exc
        await self._hold.release()
        raise self._error

    async def _waited(self) -> bytes | None:
        async with self._hold.reading():
            piece = await self._body.read_on()
        if piece is None:
            self._body.prove(self._proof)
            self._ended = True
            await self._hold.release()
        return piece

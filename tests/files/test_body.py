"""A body becomes a document only when it is proved whole; everything else is a documented error and no file."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from attrs import evolve
from fakes import FakeClock, FakeResponse

from invoicing_async._core.hold import Hold
from invoicing_async._core.semaphore import FifoSemaphore
from invoicing_async._files.body import HEAD_SIZE, SMALL, Body, DocumentReader
from invoicing_async._files.existing import Published
from invoicing_async._files.kinds import GENERIC, PDF_TYPES, DocumentType, Pdf, Xml
from invoicing_async._files.places import FolderPlace
from invoicing_async._files.publish import Destination
from invoicing_async._files.verify import framing, is_declared, raise_unless_document
from invoicing_async._files.writer import DiskWriter, Spool
from invoicing_async.errors import (
    ApiError,
    IncompleteDocumentError,
    InterruptedDocumentError,
    OrderStatusError,
    OversizedDocumentError,
    ProtocolError,
    ServiceUnavailableError,
    TransportError,
)
from invoicing_async.policies import Timeouts

pytestmark = pytest.mark.asyncio

TAIL = b"\nstartxref\n9\n%%EOF\n"
WHOLE = b"%PDF-1.7\ntext" + TAIL
PIECE = b"%" * 2**17
ENVELOPE: dict[str, Any] = {
    "success": False,
    "error": {"code": "SYS_DEP_503", "message": "down", "details": {"context": {"orderId": "a"}}},
    "requestId": "r-1",
}


def large(pieces: int = 12) -> tuple[bytes, ...]:
    return (b"%PDF-1.7\n", *[PIECE] * pieces, TAIL)


def answer(*pieces: bytes | Exception, kind: str = "application/pdf", length: int | None = None) -> FakeResponse:
    headers = {"Content-Type": kind} | ({} if length is None else {"Content-Length": str(length)})
    return FakeResponse(headers=headers, pieces=pieces)


def envelope(**changed: Any) -> bytes:
    return json.dumps(ENVELOPE | changed).encode()


PDF_HEADERS = [
    "application/pdf",
    "Application/PDF",
    " application/pdf ",
    "application/pdf; charset=binary",
    "application/pdf;charset=UTF-8",
    'application/pdf; name="a,b.pdf"',
    "application/pdf, application/pdf",
    "application/pdf,",
    "application/x-pdf",
]
GENERIC_TYPES = [
    *PDF_HEADERS,
    "",
    "application/octet-stream",
    "Application/Octet-Stream",
    "binary/octet-stream",
    "application/octet-stream; charset=utf-8",
    "application/octet-stream, application/pdf",
    "application/force-download",
    "application/x-download",
    "application/download",
]
OTHER_TYPES = [
    "text/html",
    "text/html; charset=utf-8",
    "TEXT/HTML",
    "application/json",
    "application/problem+json",
    "application/xml",
    "text/plain",
    "image/png",
    "multipart/form-data; boundary=application/pdf",
    "application/pdfx",
    "application/pdf, text/html",
    "text/html, application/pdf",
    "x" * 300,
]
NO_PDFS = [
    b"",
    b"<html><body>Sign in</body></html>",
    b"<!DOCTYPE html><html>" + b"x" * 5000 + WHOLE,
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    b"\n\n<br />\n<b>Warning</b>: Cannot modify header" + WHOLE,
    b"Not found",
    b"[]",
    b'{"status": "DONE"}',
    b"PK\x03\x04" + bytes(500),
    b"\x89PNG\r\n\x1a\n" + bytes(500),
    bytes(2000),
    b"%!PS-Adobe-3.0\n%%EOF\n",
    WHOLE[:-8],
    WHOLE[1:],
]


@pytest_asyncio.fixture
async def disk() -> AsyncIterator[DiskWriter]:
    writer = DiskWriter()
    yield writer
    await writer.close()


class Receiving:
    """A receiver with its folder."""

    def __init__(self, disk: DiskWriter, folder: Path, **named: Any) -> None:
        self.disk, self.folder = disk, folder
        self.receiver = evolve(DocumentReader(Pdf(), FakeClock(), Timeouts(), 2**23), **named)

    async def __call__(self, response: FakeResponse, **place: Any) -> bytes | Published:
        where = Destination(folder=self.folder, target=self.folder / "a.pdf", **place)
        return await self.receiver.receive(response, FolderPlace(self.folder, self.disk), where)

    async def refused(self, response: FakeResponse, error: type[Exception], match: str) -> Any:
        """Receive what must be refused, and see that nothing stays."""
        with pytest.raises(error, match=match) as caught:
            await self(response)
        assert type(caught.value) is error
        assert list(self.folder.iterdir()) == []
        return caught.value


@pytest.fixture
def receive(disk: DiskWriter, tmp_path: Path) -> Receiving:
    return Receiving(disk, tmp_path)


class TestSmallBodies:
    @pytest.mark.parametrize("length", [None, len(WHOLE)])
    @pytest.mark.parametrize("size", [1, 3, 7, 1000])
    async def test_a_whole_one_is_given_without_touching_the_disk(
        self, receive: Receiving, size: int, length: int | None
    ) -> None:
        pieces = [WHOLE[at : at + size] for at in range(0, len(WHOLE), size)]
        assert await receive(answer(*pieces, length=length)) == WHOLE
        assert list(receive.folder.iterdir()) == []

    async def test_one_piece_is_not_copied(self, receive: Receiving) -> None:
        assert await receive(answer(WHOLE)) is WHOLE

    async def test_exactly_the_limit_is_still_small(self, receive: Receiving) -> None:
        body = b"%PDF-1.7\n".ljust(SMALL - len(TAIL), b"%") + TAIL
        assert await receive(answer(body, length=SMALL)) == body

    @pytest.mark.parametrize(
        ("pieces", "length", "match"),
        [
            ((), None, "empty"),
            ((b"",), 0, "empty"),
            ((WHOLE[:-7],), None, "ends without %%EOF"),
            ((WHOLE[:-1],), len(WHOLE), "Content-Length says"),
            ((WHOLE, b"more"), len(WHOLE), "Content-Length says"),
            ((b"<html>Sign in</html>",), None, "instead of %PDF-"),
            ((b"<ht", b"ml>Sign in</html>"), None, "instead of %PDF-"),
            ((b"\x1f\x8b\x08\x00 gzip",), None, "its coding has no end"),
            ((b"%PDF-1.7\ntext\n%%EOF\n",), None, "no startxref"),
        ],
    )
    async def test_what_is_not_one_whole_pdf_is_incomplete(
        self, receive: Receiving, pieces: tuple[bytes, ...], length: int | None, match: str
    ) -> None:
        error = await receive.refused(answer(*pieces, length=length), IncompleteDocumentError, match)
        assert error.status == 200
        assert error.head == b"".join(pieces)[:200] or error.head == pieces[0]

    async def test_a_body_that_breaks_off_says_after_how_much(self, receive: Receiving) -> None:
        broken = answer(WHOLE[:9], TransportError("reset"), length=99)
        error = await receive.refused(broken, InterruptedDocumentError, "broke off after 9 bytes: reset")
        assert error.head == WHOLE[:9]
        assert isinstance(error, TransportError)

    async def test_a_body_that_breaks_off_at_once_has_no_head(self, receive: Receiving) -> None:
        error = await receive.refused(answer(TransportError("reset")), InterruptedDocumentError, "after 0 bytes")
        assert error.head == b""


class TestErrorsInPlaceOfADocument:
    @pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "text/plain", ""])
    async def test_an_envelope_under_200_is_that_error(self, receive: Receiving, kind: str) -> None:
        error = await receive.refused(answer(envelope(), kind=kind), ServiceUnavailableError, "down")
        assert (error.code, error.status, error.request_id) == ("SYS_DEP_503", 200, "r-1")

    @pytest.mark.parametrize("size", [1, 4, 5, 1000])
    async def test_an_envelope_that_calls_itself_a_pdf_is_too(self, receive: Receiving, size: int) -> None:
        body = envelope()
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        await receive.refused(answer(*pieces), ServiceUnavailableError, "down")

    async def test_an_envelope_after_white_space_is_too(self, receive: Receiving) -> None:
        await receive.refused(answer(b" \r\n" + envelope()), ServiceUnavailableError, "down")

    async def test_the_code_decides_which_error_it_is(self, receive: Receiving) -> None:
        context = {"allowedSubstatuses": ["delivered"]}
        body = envelope(error={"code": "ORDER_021", "message": "no", "details": {"context": context}})
        error = await receive.refused(answer(body), OrderStatusError, "no")
        assert error.allowed_substatuses == ("delivered",)

    async def test_an_unknown_code_is_an_api_error(self, receive: Receiving) -> None:
        await receive.refused(answer(envelope(error={"code": "X"}), kind="application/json"), ApiError, "X")

    @pytest.mark.parametrize("body", [b'{"success": true}', b"{", b'{"success": false', b"{}", b'{"success": "no"}'])
    async def test_json_that_is_no_error_envelope_is_no_pdf(self, receive: Receiving, body: bytes) -> None:
        error = await receive.refused(answer(body), IncompleteDocumentError, "instead of %PDF-")
        assert error.head == body

    async def test_json_that_breaks_off_is_judged_by_what_came(self, receive: Receiving) -> None:
        broken = TransportError("reset")
        await receive.refused(answer(envelope(), broken), ServiceUnavailableError, "down")
        await receive.refused(answer(envelope(), broken, kind="application/json"), ServiceUnavailableError, "down")
        await receive.refused(answer(envelope()[:20], broken), IncompleteDocumentError, "instead of")

    @pytest.mark.parametrize("kind", OTHER_TYPES)
    async def test_another_content_type_is_not_as_documented_whatever_it_holds(
        self, receive: Receiving, kind: str
    ) -> None:
        error = await receive.refused(answer(WHOLE, kind=kind), ProtocolError, "where application/pdf is documented")
        assert error.head == WHOLE[:200]
        assert kind.partition(";")[0].strip().lower()[:80] in str(error)

    @pytest.mark.parametrize("kind", GENERIC_TYPES)
    async def test_a_type_that_says_nothing_leaves_it_to_the_bytes(self, receive: Receiving, kind: str) -> None:
        receive.receiver = evolve(receive.receiver, kind=Pdf(PDF_TYPES | GENERIC))
        assert await receive(answer(WHOLE, kind=kind, length=len(WHOLE))) == WHOLE

    @pytest.mark.parametrize("kind", ["application/octet-stream", "", "application/pdf", "application/x-download"])
    @pytest.mark.parametrize("body", NO_PDFS)
    async def test_what_is_no_pdf_is_refused_under_any_type(self, receive: Receiving, kind: str, body: bytes) -> None:
        receive.receiver = evolve(receive.receiver, kind=Pdf(PDF_TYPES | GENERIC))
        await receive.refused(answer(body, kind=kind, length=len(body)), IncompleteDocumentError, ".")

    @pytest.mark.parametrize("kind", ["application/octet-stream", ""])
    async def test_an_envelope_is_its_error_under_a_type_that_says_nothing(self, receive: Receiving, kind: str) -> None:
        receive.receiver = evolve(receive.receiver, kind=Pdf(PDF_TYPES | GENERIC))
        await receive.refused(answer(envelope(), kind=kind), ServiceUnavailableError, "down")

    async def test_an_endless_answer_of_another_type_is_read_only_so_far(self, receive: Receiving) -> None:
        response = answer(*[b"x" * 2**15] * 1000, kind="text/html")
        error = await receive.refused(response, ProtocolError, "text/html")
        assert error.head == b"x" * 200

    @pytest.mark.parametrize("kind", PDF_HEADERS)
    async def test_the_content_type_is_read_without_case_and_parameters(self, kind: str) -> None:
        assert is_declared(answer(kind=kind), Pdf())
        await raise_unless_document(answer(kind=kind), Pdf(), now=0.0)

    async def test_a_part_is_not_a_whole_whatever_it_looks_like(self, receive: Receiving) -> None:
        error = await receive.refused(evolve(answer(WHOLE), status=206), IncompleteDocumentError, "206: a part")
        assert error.status == 206

    async def test_no_content_type_is_not_a_pdfs(self, receive: Receiving) -> None:
        """But where a setting has it judged by its bytes."""
        await receive.refused(FakeResponse(pieces=(WHOLE,)), ProtocolError, "'none' where application/pdf")
        receive.receiver = evolve(receive.receiver, kind=Pdf(frozenset({""})))
        assert await receive(FakeResponse(pieces=(WHOLE,))) == WHOLE


class TestLargeBodies:
    async def test_a_whole_one_is_published_with_its_digest(self, receive: Receiving) -> None:
        body = b"".join(large())
        published = await receive(answer(*large(), length=len(body)))
        assert isinstance(published, Published)
        assert published.path.read_bytes() == body
        assert (published.size, published.sha256) == (len(body), sha256(body).hexdigest())
        assert list(receive.folder.iterdir()) == [receive.folder / "a.pdf"]

    async def test_a_durable_one_too(self, receive: Receiving) -> None:
        published = await receive(answer(*large()), durable=True)
        assert isinstance(published, Published)

    async def test_only_about_two_megabytes_are_held_at_once(
        self, receive: Receiving, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held: list[int] = []
        real = Spool.write

        async def write(self: Spool, pieces: list[bytes]) -> None:
            held.append(sum(map(len, pieces)))
            await real(self, pieces)

        monkeypatch.setattr(Spool, "write", write)
        await receive(answer(*large(50)))
        assert sum(held) == sum(map(len, large(50)))
        assert max(held) <= SMALL + len(PIECE)
        assert len(held) <= 8

    @pytest.mark.parametrize(
        ("pieces", "match"),
        [
            (large()[:-1], "ends without %%EOF"),
            ((b"<htm", *large()[1:]), "instead of %PDF-"),
            ((*large(), b"\n1 0 obj"), "update begun after %%EOF"),
        ],
    )
    async def test_a_broken_one_leaves_nothing(self, receive: Receiving, pieces: tuple[bytes, ...], match: str) -> None:
        await receive.refused(answer(*pieces), IncompleteDocumentError, match)

    async def test_a_length_that_is_not_kept_leaves_nothing(self, receive: Receiving) -> None:
        await receive.refused(answer(*large(), length=2**21), IncompleteDocumentError, "Content-Length says 2,097,152")

    async def test_one_that_breaks_off_shows_the_head_of_the_whole(self, receive: Receiving) -> None:
        broken = answer(*large(40)[:-1], TransportError("reset"))
        error = await receive.refused(broken, InterruptedDocumentError, "broke off after 5,242,889 bytes")
        assert error.head == b"%PDF-1.7\n"

    async def test_trouble_with_the_disk_stays_an_oserror(
        self, receive: Receiving, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def write(self: Spool, pieces: list[bytes]) -> None:
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(Spool, "write", write)
        with pytest.raises(OSError, match="full"):
            await receive(answer(*large()))
        assert list(receive.folder.iterdir()) == []

    async def test_cancelling_at_any_step_leaves_nothing_or_the_whole(self, receive: Receiving) -> None:
        for step in range(100_000):
            task = asyncio.create_task(receive(answer(*large(9))))
            for _ in range(step):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                break
            assert list(receive.folder.iterdir()) == []
        assert list(receive.folder.iterdir()) == [receive.folder / "a.pdf"]


class TestLimits:
    async def test_a_declared_length_beyond_the_limit_is_refused_unread(self, disk: DiskWriter, tmp_path: Path) -> None:
        receive = Receiving(disk, tmp_path, max_bytes=1000)
        unread = answer(TransportError("was read"), length=1001)
        await receive.refused(unread, OversizedDocumentError, "longer than the limit of 1,000 bytes")

    async def test_exactly_the_limit_is_taken(self, disk: DiskWriter, tmp_path: Path) -> None:
        receive = Receiving(disk, tmp_path, max_bytes=len(WHOLE))
        assert await receive(answer(WHOLE, length=len(WHOLE))) == WHOLE

    @pytest.mark.parametrize("limit", [1000, 3 * SMALL])
    async def test_an_endless_body_ends_at_the_limit(self, disk: DiskWriter, tmp_path: Path, limit: int) -> None:
        receive = Receiving(disk, tmp_path, max_bytes=limit)
        error = await receive.refused(answer(*large(1000)), OversizedDocumentError, "longer than the limit")
        assert error.head.startswith(b"%PDF-")

    async def test_a_drip_below_the_floor_is_ended_after_the_read_timeout(
        self, disk: DiskWriter, tmp_path: Path
    ) -> None:
        clock = FakeClock()
        receive = Receiving(disk, tmp_path, clock=clock, timeouts=Timeouts(read=10, floor=100))
        dripping = Dripping(clock, [WHOLE[at : at + 1] for at in range(len(WHOLE))])
        await receive.refused(dripping, IncompleteDocumentError, "10 bytes in 10.*slower than Timeouts.floor")

    async def test_a_body_just_fast_enough_is_taken_however_long_it_lasts(
        self, disk: DiskWriter, tmp_path: Path
    ) -> None:
        clock = FakeClock()
        receive = Receiving(disk, tmp_path, clock=clock, timeouts=Timeouts(read=5, floor=100))
        body = b"%PDF-1.7\n".ljust(4000, b"%") + TAIL
        assert await receive(Dripping(clock, [body[at : at + 110] for at in range(0, len(body), 110)])) == body
        assert clock.elapsed > 30

    async def test_a_floor_of_nothing_lets_everything_pass(self, disk: DiskWriter, tmp_path: Path) -> None:
        clock = FakeClock()
        receive = Receiving(disk, tmp_path, clock=clock, timeouts=Timeouts(read=1, floor=0))
        assert await receive(Dripping(clock, [WHOLE[:9], WHOLE[9:]])) == WHOLE


class Dripping(FakeResponse):
    """A body with a second before each piece."""

    def __init__(self, clock: FakeClock, pieces: list[bytes]) -> None:
        super().__init__(headers={"Content-Type": "application/pdf"}, pieces=tuple(pieces))
        self._clock = clock

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            assert isinstance(piece, bytes)
            await self._clock.sleep(1.03)
            yield piece


def held(clock: FakeClock | None = None, *, left: float = 120.0) -> Hold:
    """The hold of an open answer whose connection is nobody's."""

    async def close() -> None:
        return

    return Hold(FifoSemaphore(1), clock or FakeClock(), left, left, close)


class TestOpen:
    """What `open` passes through."""

    @pytest.mark.parametrize("size", [1, 7, 1000])
    async def test_a_small_body_is_given_whole(self, receive: Receiving, size: int) -> None:
        pieces = [WHOLE[at : at + size] for at in range(0, len(WHOLE), size)]
        assert await receive.receiver.open(answer(*pieces)) == WHOLE

    async def test_exactly_the_limit_is_still_small(self, receive: Receiving) -> None:
        body = b"%PDF-1.7\n".ljust(SMALL - len(TAIL), b"%") + TAIL
        assert await receive.receiver.open(answer(body, length=SMALL)) == body

    @pytest.mark.parametrize("body", [b"", b"%PD", b"<html>", b"{}", WHOLE[:-8]])
    async def test_what_is_no_whole_pdf_never_begins(self, receive: Receiving, body: bytes) -> None:
        with pytest.raises(IncompleteDocumentError):
            await receive.receiver.open(answer(body[:2], body[2:]))

    @pytest.mark.parametrize("kind", ["application/pdf", "application/json"])
    async def test_an_envelope_is_raised(self, receive: Receiving, kind: str) -> None:
        with pytest.raises(ServiceUnavailableError):
            await receive.receiver.open(answer(envelope(), kind=kind))

    async def test_a_declared_length_beyond_the_limit_never_begins(self, disk: DiskWriter, tmp_path: Path) -> None:
        receiver = evolve(Receiving(disk, tmp_path).receiver, max_bytes=5)
        with pytest.raises(IncompleteDocumentError, match="limit of 5"):
            await receiver.open(answer(WHOLE, length=len(WHOLE)))

    async def test_a_large_body_that_says_so_is_read_until_its_head_is_known(self, receive: Receiving) -> None:
        body = b"".join(large())
        pieces = [body[at : at + 100] for at in range(0, 3000, 100)]
        opened = await receive.receiver.open(answer(*pieces, body[3000:], length=len(body)))
        assert isinstance(opened, Body)
        assert opened.length == len(body)
        assert HEAD_SIZE < opened._size <= HEAD_SIZE + 100
        assert b"".join([chunk async for chunk in opened.chunks(held())]) == body

    async def test_one_that_does_not_is_read_until_it_is_known_to_be_large(self, receive: Receiving) -> None:
        opened = await receive.receiver.open(answer(*large()))
        assert isinstance(opened, Body)
        assert opened.length is None
        assert SMALL < opened._size <= SMALL + len(PIECE)
        assert [chunk async for chunk in opened.chunks(held())] == list(large())

    @pytest.mark.parametrize("length", [None, 2**22])
    @pytest.mark.parametrize("start", [b"<html>", b"\0" * 1024, b" " * 500 + b"<html>"])
    async def test_a_large_one_that_begins_as_none_never_begins(
        self, receive: Receiving, start: bytes, length: int | None
    ) -> None:
        with pytest.raises(IncompleteDocumentError, match="%PDF-"):
            await receive.receiver.open(answer(start, *large()[1:], length=length))

    @pytest.mark.parametrize(
        ("pieces", "length", "error", "match"),
        [
            (large()[:-1], None, IncompleteDocumentError, "ends without %%EOF"),
            (large(), 2**22, IncompleteDocumentError, "Content-Length says 4,194,304"),
            ((*large()[:-1], TransportError("reset")), None, InterruptedDocumentError, "after 1,572,873 bytes: reset"),
            (large(1000), None, OversizedDocumentError, "limit of 8,388,608"),
        ],
    )
    async def test_what_is_wrong_with_a_large_one_is_raised_at_its_end_and_whenever_it_is_asked_again(
        self, receive: Receiving, pieces: tuple[bytes], length: int | None, error: type[Exception], match: str
    ) -> None:
        opened = await receive.receiver.open(answer(*pieces, length=length))
        assert isinstance(opened, Body)
        chunks = opened.chunks(held())
        for _ in range(2):
            with pytest.raises(error, match=match) as caught:
                _ = [chunk async for chunk in chunks]
            assert type(caught.value) is error

    async def test_a_whole_one_that_is_asked_for_more_has_no_more(self, receive: Receiving) -> None:
        opened = await receive.receiver.open(answer(*large()))
        assert isinstance(opened, Body)
        chunks = opened.chunks(held())
        assert len([chunk async for chunk in chunks]) == len(large())
        assert [chunk async for chunk in chunks] == []

    async def test_the_readers_time_is_not_the_services(self, disk: DiskWriter, tmp_path: Path) -> None:
        """However slow who reads is, the floor and the attempt count what the service takes."""
        clock = FakeClock()
        receive = Receiving(disk, tmp_path, clock=clock, timeouts=Timeouts(read=2, floor=1024))
        opened = await receive.receiver.open(Dripping(clock, list(large(40))))
        assert isinstance(opened, Body)
        async for _ in opened.chunks(held(clock, left=60)):
            clock.advance(1000)

    async def test_a_drip_of_a_large_one_is_ended_by_the_floor(self, disk: DiskWriter, tmp_path: Path) -> None:
        clock = FakeClock()
        receive = Receiving(disk, tmp_path, clock=clock, timeouts=Timeouts(read=10, floor=100_000))
        opened = await receive.receiver.open(Dripping(clock, [*large(), *[b"x"] * 1000]))
        assert isinstance(opened, Body)
        with pytest.raises(IncompleteDocumentError, match=r"slower than Timeouts\.floor"):
            _ = [clock.elapsed async for _ in opened.chunks(held(clock))]
        assert opened._size < 1_573_000


class TestXml:
    """The other kind: an export of an e-invoice."""

    @pytest.fixture
    def receive(self, disk: DiskWriter, tmp_path: Path) -> Receiving:
        kind: DocumentType = Xml()
        return Receiving(disk, tmp_path, kind=kind)

    @pytest.mark.parametrize("kind", ["application/xml", "text/xml; charset=utf-8"])
    async def test_a_document_whose_root_is_closed_is_whole(self, receive: Receiving, kind: str) -> None:
        assert await receive(answer(b"<a><b/>", b"</a>", kind=kind, length=11)) == b"<a><b/></a>"

    @pytest.mark.parametrize("body", [b"", b"<a><b/>", b"<a></b>", b"%PDF-1.7", b"<a/><b/>", b"<a>\xff</a>"])
    async def test_anything_else_is_incomplete(self, receive: Receiving, body: bytes) -> None:
        await receive.refused(answer(body, kind="text/xml"), IncompleteDocumentError, "not a whole XML document")

    async def test_the_length_is_compared(self, receive: Receiving) -> None:
        wrong = answer(b"<a/>", kind="text/xml", length=5)
        await receive.refused(wrong, IncompleteDocumentError, "4 bytes came where Content-Length says 5")

    async def test_a_large_one_is_published(self, receive: Receiving) -> None:
        published = await receive(answer(b"<a>", *[b"x" * 2**18] * 6, b"</a>", kind="text/xml"))
        assert isinstance(published, Published)

    async def test_a_large_broken_one_is_not_parsed_beyond_its_fault(self, receive: Receiving) -> None:
        pieces = (b"<a></b>", *[b"x" * 2**18] * 6)
        await receive.refused(answer(*pieces, kind="text/xml"), IncompleteDocumentError, "mismatched tag")


@pytest.mark.parametrize(
    ("value", "length"), [(None, None), ("12", 12), ("", None), ("-1", None), ("1e3", None), ("²", None)]
)
async def test_a_declared_length_is_a_number_or_nothing(value: str | None, length: int | None) -> None:
    headers = {} if value is None else {"Content-Length": value}
    assert framing(FakeResponse(headers=headers))[0] == length

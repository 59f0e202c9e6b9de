"""From a finished invoice to its file: redirects, links that are no good, compressed objects, what is no invoice."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from fakes import FakeClock, FakeResponse, FakeTransport

from invoicing_async import AsyncInvoices, OrderDocuments, Poller, RetryPolicy, Session, StaticToken
from invoicing_async._core.http import Request
from invoicing_async._einvoices.links import MOVED, RENEWED
from invoicing_async.errors import (
    AuthenticationError,
    ExportError,
    IncompleteDocumentError,
    InvoicingError,
    OversizedDocumentError,
    PollTimeoutError,
    ProtocolError,
)

pytestmark = pytest.mark.asyncio

NUMBER = "00000000-0000-4000-8000-00000000000f"
PDF = b"%PDF-1.7\n" + b"x" * 900 + b"\nstartxref\n9\n%%EOF\n"
XML = b"<?xml version='1.0'?><HDon><DLHDon/></HDon>"
STEADY = Poller(first=1, factor=1, jitter=0, timeout=20)
SECRET = "X-Signature=deadbeef"
LINK = f"https://files.test/a.pdf?{SECRET}"


def document(body: bytes = PDF, kind: str = "application/pdf", **headers: str) -> FakeResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return FakeResponse(headers={"Content-Type": kind, "Content-Length": str(len(body)), **named}, pieces=(body,))


def refused(status: int) -> FakeResponse:
    body = f"<Error><Code>AccessDenied</Code><Message>{SECRET}</Message></Error>".encode()
    return FakeResponse(status=status, headers={"Content-Type": "application/xml"}, pieces=(body,))


def elsewhere(location: str | None, status: int = 302) -> FakeResponse:
    return FakeResponse(status=status, headers={} if location is None else {"Location": location})


def done(link: object, status: str = "DONE") -> FakeResponse:
    return FakeResponse(pieces=(json.dumps({"status": status, "download_url": link}).encode(),))


@define
class Place:
    """A service and the hosts its links lead to: `asked` answers the export, `held` what is at a URL."""

    asked: Callable[[int], FakeResponse] = lambda _: done(LINK)
    held: dict[str, list[FakeResponse]] = field(factory=dict)
    asks: int = 0
    fetched: list[Request] = field(factory=list)

    async def answer(self, request: Request) -> FakeResponse:
        if request.operation == "export_invoice":
            self.asks += 1
            return self.asked(self.asks)
        assert not request.authorised
        assert not {name.lower() for name in request.headers} & {"authorization", "cookie"}
        self.fetched.append(request)
        answers = self.held[request.url]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@asynccontextmanager
async def at(place: Place, **options: Any) -> AsyncIterator[AsyncInvoices]:
    retry = RetryPolicy(attempts=3, first=0)
    transport = FakeTransport(answers=[place.answer])
    async with Session(
        "https://api.test/api", auth=StaticToken("t"), transport=transport, clock=FakeClock(), retry=retry
    ) as session:
        yield AsyncInvoices(session, **options)
    assert transport.open == 0


async def saved(place: Place, folder: Path, **options: Any) -> bytes:
    """Export and give the file's content, the only one in its folder."""
    max_bytes = options.pop("max_bytes", 2**23)
    async with at(place, max_bytes=max_bytes) as invoices:
        document = await invoices.export(NUMBER, folder, poller=STEADY, **options)
    [only] = folder.iterdir()
    assert document.path == only
    return only.read_bytes()


async def failed(place: Place, folder: Path, error: type[InvoicingError], **options: Any) -> InvoicingError:
    """Export in vain, leaving nothing, and never show a link's query."""
    max_bytes = options.pop("max_bytes", 2**23)
    async with at(place, max_bytes=max_bytes) as invoices:
        with pytest.raises(error) as caught:
            await invoices.export(NUMBER, folder, poller=STEADY, **options)
    assert not folder.exists() or list(folder.iterdir()) == []
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.attempts}"
    return caught.value


class TestRedirects:
    @pytest.mark.parametrize("status", sorted(MOVED))
    @pytest.mark.parametrize("location", ["https://bucket.test/b?x=%2F", "/b c", "b", "//bucket.test/b"])
    async def test_a_link_is_followed_to_where_it_leads(self, status: int, location: str, tmp_path: Path) -> None:
        """Whichever status says so, absolute or relative; no credential goes along."""
        there = {
            "https://bucket.test/b?x=%2F": "https://bucket.test/b?x=%2F",
            "/b c": "https://files.test/b%20c",
            "b": "https://files.test/b",
            "//bucket.test/b": "https://bucket.test/b",
        }[location]
        place = Place(held={LINK: [elsewhere(location, status)], there: [document()]})
        assert await saved(place, tmp_path) == PDF
        assert [request.url for request in place.fetched] == [LINK, there]
        assert [request.method for request in place.fetched] == ["GET", "GET"]

    async def test_five_hops_are_followed_and_no_more(self, tmp_path: Path) -> None:
        hops = {f"https://files.test/{n}": [elsewhere(f"/{n + 1}")] for n in range(1, 6)}
        place = Place(held={LINK: [elsewhere("/1")], **hops, "https://files.test/5": [document()]})
        assert await saved(place, tmp_path / "a") == PDF
        place = Place(held={LINK: [elsewhere("/1")], **hops})
        error = await failed(place, tmp_path / "b", ExportError)
        assert "files.test, redirects more than 5 times" in str(error)
        assert (place.asks, len(place.fetched)) == (1, 6)

    @pytest.mark.parametrize(
        ("location", "said"),
        [
            ("http://files.test/b", "redirects from https to http"),
            (LINK, "redirects in a circle"),
            (None, "without saying where"),
            ("https://u:p@files.test/b", "holds a user name"),
        ],
    )
    async def test_one_that_leads_nowhere_good_is_not_followed(
        self, location: str | None, said: str, tmp_path: Path
    ) -> None:
        place = Place(held={LINK: [elsewhere(location)]})
        assert said in str(await failed(place, tmp_path, ExportError))
        assert len(place.fetched) == 1

    async def test_the_service_itself_is_followed_nowhere(self, tmp_path: Path) -> None:
        """Its calls carry the credential."""
        place = Place(asked=lambda _: elsewhere("https://evil.test/"))
        assert "302" in str(await failed(place, tmp_path, ProtocolError))
        assert place.fetched == []


class TestLinksThatAreNoGood:
    @pytest.mark.parametrize("status", sorted(RENEWED))
    async def test_another_is_asked_for(self, status: int, tmp_path: Path) -> None:
        """Expired, or not there yet: the export is asked for again, and nothing is said of the credential."""
        other = "https://files.test/new.pdf"
        place = Place(lambda ask: done(LINK if ask < 3 else other), {LINK: [refused(status)], other: [document()]})
        assert await saved(place, tmp_path) == PDF
        assert (place.asks, len(place.fetched)) == (3, 3)

    @pytest.mark.parametrize("status", sorted(RENEWED))
    async def test_one_that_stays_so_is_that_invoices_trouble(self, status: int, tmp_path: Path) -> None:
        """After ten seconds of new ones that were no better; the error names the host and the status."""
        place = Place(held={LINK: [refused(status)]})
        error = await failed(place, tmp_path, ExportError)
        assert not isinstance(error, AuthenticationError)
        assert f"files.test, where the pdf is to be had, answered {status}" in str(error)
        assert place.asks == 11

    @pytest.mark.parametrize("status", [400, 418, 500, 503, 429, 501])
    async def test_what_else_its_host_answers_is_too(self, status: int, tmp_path: Path) -> None:
        """After the attempts that any call has."""
        place = Place(held={LINK: [refused(status)]})
        error = await failed(place, tmp_path, ExportError)
        assert "files.test" in str(error)
        assert str(status) in str(error)
        assert place.asks == 1

    @pytest.mark.parametrize("link", [None, "", "ftp://h/a", "https://u:p@h/a", "https://ho st/a", 5])
    async def test_one_that_is_none_for_a_moment_is_waited_for(self, link: object, tmp_path: Path) -> None:
        place = Place(lambda ask: done(link if ask < 3 else LINK), {LINK: [document()]})
        assert await saved(place, tmp_path) == PDF
        assert place.asks == 3

    @pytest.mark.parametrize(
        ("poller", "asks"),
        [
            (evolve(STEADY, timeout=2), 3),
            ([1.0, 1.0], 3),
            (Poller(first=0.5, factor=1, jitter=0, timeout=300), 21),
            (Poller(first=30, factor=1, jitter=0, timeout=300), 6),
            (Poller(first=0.25, factor=1, jitter=0, timeout=1), 5),
        ],
    )
    async def test_it_is_believed_after_five_renewals_and_ten_seconds(
        self, poller: Any, asks: int, tmp_path: Path
    ) -> None:
        """Or when the poller's time or waits are spent, whichever comes first."""
        place = Place(held={LINK: [refused(403)]})
        async with at(place) as invoices:
            with pytest.raises(ExportError, match=f"answered 403; asked for {asks} times in"):
                await invoices.export(NUMBER, tmp_path, poller=poller)

    async def test_only_those_in_a_row_count(self, tmp_path: Path) -> None:
        """A link that is missing for a moment between them is no host's word."""

        def asked(ask: int) -> FakeResponse:
            return done(None) if ask % 4 == 0 else done(LINK)

        place = Place(asked, {LINK: [refused(404) for _ in range(11)] + [document()]})
        assert await saved(place, tmp_path) == PDF

    async def test_none_at_all_ends_with_the_time(self, tmp_path: Path) -> None:
        error = await failed(Place(lambda _: done(None)), tmp_path, PollTimeoutError)
        assert "DONE without a link after 20 s" in str(error)
        error = await failed(Place(lambda _: done(f"ftp://h/?{SECRET}")), tmp_path, ExportError)
        assert "is no http or https URL" in str(error)

    @pytest.mark.parametrize("status", ["QUEUED", "", "done"])
    async def test_a_status_that_nobody_knows_is_waited_for(self, status: str, tmp_path: Path) -> None:
        def asked(ask: int) -> FakeResponse:
            return done(LINK, status or "BUILDING") if ask < 3 else done(LINK)

        assert await saved(Place(asked, {LINK: [document()]}), tmp_path) == PDF

    @pytest.mark.parametrize(
        ("link", "url"),
        [
            ("https://files.test/hoa don.pdf", "https://files.test/hoa%20don.pdf"),
            ("https://files.test/hóa-đơn.pdf?tên=1", "https://files.test/h%C3%B3a-%C4%91%C6%A1n.pdf?t%C3%AAn=1"),
            ("https://files.test/a%20b.pdf", "https://files.test/a%20b.pdf"),
            ("/files/a.pdf", "https://api.test/files/a.pdf"),
        ],
    )
    async def test_an_odd_one_is_quoted_once(self, link: str, url: str, tmp_path: Path) -> None:
        place = Place(lambda _: done(link), {url: [document()]})
        assert await saved(place, tmp_path) == PDF
        assert place.asks == 1


def raw(body: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(body) + coder.flush()


CODINGS: Iterable[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw),
    ("gzip, aws-chunked", gzip.compress),
    ("", gzip.compress),
]


class TestCompressedObjects:
    @pytest.mark.parametrize(("coding", "encode"), CODINGS)
    @pytest.mark.parametrize(("form", "body"), [("pdf", PDF), ("xml", XML), ("xml", b"<a>" + b"x" * 2**21 + b"</a>")])
    async def test_they_are_decoded(
        self, coding: str, encode: Callable[[bytes], bytes], form: str, body: bytes, tmp_path: Path
    ) -> None:
        """Asked for or not, said or not; small ones and those that go to the disk in pieces."""
        headers = {"Content_Encoding": coding} if coding else {}
        place = Place(held={LINK: [document(encode(body), "application/octet-stream", **headers)]})
        assert await saved(place, tmp_path, format=form) == body

    @pytest.mark.parametrize(("coding", "encode"), CODINGS)
    async def test_a_cut_is_incomplete(self, coding: str, encode: Callable[[bytes], bytes], tmp_path: Path) -> None:
        """The coding's own end proves it whole, with or without a length."""
        headers = {"Content_Encoding": coding} if coding else {}
        sent = encode(PDF)
        for cut in (3, len(sent) // 2, len(sent) - 1):
            place = Place(held={LINK: [document(sent[:cut], **headers)]})
            await failed(place, tmp_path, IncompleteDocumentError)
            assert len(place.fetched) == 3

    async def test_the_length_is_that_of_what_was_sent(self, tmp_path: Path) -> None:
        answer = document(gzip.compress(PDF), Content_Encoding="gzip", Content_Length="9999")
        error = await failed(Place(held={LINK: [answer]}), tmp_path, IncompleteDocumentError)
        assert "Content-Length says 9,999" in str(error)

    @pytest.mark.parametrize("coding", ["gzip", ""])
    async def test_a_bomb_is_stopped_at_the_limit(self, coding: str, tmp_path: Path) -> None:
        """`max_bytes` bounds what comes out; it is not asked for again."""
        headers = {"Content_Encoding": coding} if coding else {}
        bomb = gzip.compress(b"%PDF-1.7\n" + bytes(2**24))
        place = Place(held={LINK: [document(bomb, **headers)]})
        error = await failed(place, tmp_path, OversizedDocumentError, max_bytes=2**21)
        assert "limit of 2,097,152 bytes" in str(error)
        assert len(place.fetched) == 1

    async def test_a_coding_that_is_not_known_is_named(self, tmp_path: Path) -> None:
        place = Place(held={LINK: [document(b"\x28\xb5\x2f\xfd", Content_Encoding="zstd")]})
        assert "'zstd'" in str(await failed(place, tmp_path, IncompleteDocumentError))


class TestWhatIsNoInvoice:
    @pytest.mark.parametrize("kind", ["application/xml", "text/xml", "application/octet-stream", ""])
    @pytest.mark.parametrize(
        "body",
        [
            b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head/><body/></html>',
            b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        ],
    )
    async def test_xml_that_only_is_well_formed_is_refused(self, body: bytes, kind: str, tmp_path: Path) -> None:
        """Whatever the content type says."""
        place = Place(held={LINK: [document(body, kind)]})
        assert "instead of an invoice" in str(await failed(place, tmp_path, IncompleteDocumentError, format="xml"))

    @pytest.mark.parametrize("kind", ["application/pdf", "application/octet-stream", "binary/octet-stream", ""])
    async def test_a_host_may_say_nothing_of_the_kind(self, kind: str, tmp_path: Path) -> None:
        """The proof decides."""
        assert await saved(Place(held={LINK: [document(kind=kind)]}), tmp_path) == PDF

    @pytest.mark.parametrize("kind", ["text/html", "application/json"])
    async def test_a_page_is_none_whatever_it_holds(self, kind: str, tmp_path: Path) -> None:
        await failed(Place(held={LINK: [document(kind=kind)]}), tmp_path, ProtocolError)


async def test_a_page_that_was_saved_once_is_not_taken_for_the_invoice(tmp_path: Path) -> None:
    """A file under the invoice's name counts only if it would be saved today; it stays where it is."""
    page = tmp_path / f"{NUMBER}.xml"
    page.write_bytes(b"<html/>")
    async with at(Place(held={LINK: [document(XML, "text/xml")]})) as invoices:
        document_ = await invoices.export(NUMBER, tmp_path, format="xml", poller=STEADY)
    assert document_.path.read_bytes() == XML


@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_what_is_passed_through_is_decoded_too(step: int) -> None:
    """Its size is its own, not that of what was sent."""
    sent = gzip.compress(PDF)
    pieces = tuple(sent[at : at + step] for at in range(0, len(sent), step))
    headers = {"Content-Type": "application/pdf", "Content-Encoding": "gzip", "Content-Length": str(len(sent))}
    transport = FakeTransport(answers=[FakeResponse(headers=headers, pieces=pieces)])
    async with (
        Session("https://api.test", auth=StaticToken("t"), transport=transport, clock=FakeClock()) as session,
        OrderDocuments(session).open("order-1") as document_,
    ):
        assert document_.size == len(PDF)
        assert b"".join([chunk async for chunk in document_.chunks]) == PDF

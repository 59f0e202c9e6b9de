"""Every way in which the wire can lie ends in its documented outcome: no stray file, descriptor or task.

A raw peer sends exactly the bytes of a row, or closes, resets or falls silent where the row says so.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from wire_faults import (
    CLOSE,
    CREDENTIALS,
    FAULTS,
    JSON,
    LARGE,
    PATIENT,
    PAUSE,
    RESET,
    STALL,
    STATUSES,
    WHOLE,
    Act,
    Peer,
    Row,
    Script,
    Watch,
    answer,
    chunked,
    client,
    each,
    ended_in_its_error,
    envelope,
    files,
    head,
    pdf,
)

from invoicing_async.documents import OrderDocuments
from invoicing_async.errors import (
    AuthenticationError,
    InterruptedDocumentError,
    InvoicingError,
    ProtocolError,
    RateLimitError,
    TransportError,
)
from invoicing_async.policies import Timeouts

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("both_paths")]


async def test_the_table_is_long_enough() -> None:
    assert len(FAULTS) >= 60
    assert len({row.name for row in FAULTS + STATUSES}) == len(FAULTS) + len(STATUSES)


@each([*FAULTS, *STATUSES])
async def test_a_fault_ends_in_its_documented_error_and_leaves_nothing(row: Row, tmp_path: Path) -> None:
    await ended_in_its_error(row, tmp_path)


@each([*FAULTS, *STATUSES])
async def test_a_fault_is_repeated_once_as_a_whole_if_that_can_help(row: Row, tmp_path: Path) -> None:
    """The second answer is a whole PDF: the second POST saves it, with a signature of its own."""
    async with (
        Watch(),
        Peer(row.script, (answer(WHOLE),)) as peer,
        client(peer.url, attempts=2, timeouts=row.timeouts) as documents,
    ):
        checked = row.error is AuthenticationError
        if not row.again and not checked:
            with pytest.raises(row.error):
                await documents.download("a", tmp_path)
            assert peer.connections == 1
            assert files(tmp_path) == []
            return
        saved = await documents.download("a", tmp_path)
        assert saved.attempts == (1 if checked else 2)  # the check of a credential belongs to the attempt
        assert all(name in sent.lower() for name in CREDENTIALS for sent in peer.heads)
        assert files(tmp_path) == [saved.path]
        assert saved.path.read_bytes() == WHOLE


@pytest.mark.parametrize(
    ("body", "script"),
    [
        pytest.param(WHOLE, (answer(WHOLE),), id="as-documented"),
        pytest.param(WHOLE, (*[answer(WHOLE)[at : at + 1] for at in range(len(answer(WHOLE)))],), id="byte-by-byte"),
        pytest.param(WHOLE, (answer(WHOLE), CLOSE), id="closed-right-after"),
        pytest.param(WHOLE, (answer(WHOLE, Connection="close"), CLOSE), id="Connection-close"),
        pytest.param(
            WHOLE, (b"HTTP/1.0 200 OK\r\nContent-Type: application/pdf\r\n\r\n" + WHOLE, CLOSE), id="HTTP-1.0"
        ),
        pytest.param(WHOLE, (chunked(WHOLE[:7], WHOLE[7:]),), id="chunked"),
        pytest.param(WHOLE, (chunked(WHOLE, end=b"0\r\nX-Sum: 1\r\n\r\n"),), id="chunked-with-a-trailer"),
        pytest.param(WHOLE, (chunked(WHOLE, length=len(WHOLE)),), id="chunked-and-a-length"),
        pytest.param(WHOLE, (answer(gzip.compress(WHOLE), Content_Encoding="gzip"),), id="gzip-that-nobody-asked-for"),
        pytest.param(LARGE, (answer(LARGE),), id="large"),
        pytest.param(
            LARGE, (chunked(*[LARGE[at : at + 999] for at in range(0, len(LARGE), 999)]),), id="large-chunked"
        ),
        pytest.param(WHOLE, (b"HTTP/1.1 100 Continue\r\n\r\n", answer(WHOLE)), id="100-first"),
        pytest.param(WHOLE, (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", answer(WHOLE)), id="103-first"),
        pytest.param(
            WHOLE, (answer(WHOLE, kind="Application/PDF; charset=binary"),), id="content-type-in-another-case"
        ),
        pytest.param(WHOLE, (answer(WHOLE, kind="application/octet-stream"),), id="a-type-that-says-nothing"),
        pytest.param(WHOLE, (answer(WHOLE, kind=None),), id="no-type"),
        pytest.param(WHOLE, (answer(WHOLE, Content_Encoding="identity"),), id="identity"),
        pytest.param(
            WHOLE, (answer(WHOLE, Content_Disposition='attachment; filename="\xe9\xff'),), id="a-broken-disposition"
        ),
        pytest.param(WHOLE, (answer(WHOLE), PAUSE, b"more than was declared", CLOSE), id="followed-by-junk"),
        *(
            pytest.param(body, (made(body) + junk,), id=f"{made.__name__}-{len(body)}-with-{junk!r}-in-its-last-packet")
            for body in (WHOLE, LARGE)
            for made in (answer, chunked)
            for junk in (b"0", b"\r\n", b"\n", b"\x00", b"more than was declared", b"0" * 80_175)
        ),
    ],
)
async def test_an_odd_answer_that_is_whole_is_taken(body: bytes, script: Script, tmp_path: Path) -> None:
    async with Watch(), Peer(script) as peer, client(peer.url) as documents:
        saved = await documents.download("a", tmp_path)
        assert files(tmp_path) == [saved.path]
        assert saved.path.read_bytes() == body


async def test_refused_is_known_not_to_be_sent(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with Watch(), client(url, attempts=2) as documents:
            with pytest.raises(TransportError, match="refused") as caught:
                await documents.download("a", tmp_path)
    assert caught.value.sent == "no"
    assert len(caught.value.attempts) == 2
    assert files(tmp_path) == []


async def test_credentials_do_not_follow_a_redirect_to_another_host(tmp_path: Path) -> None:
    async with Watch(), Peer((answer(WHOLE),)) as other:
        moved = answer(b"", "302 Found", kind=None, Location=f"{other.url}/partner")
        async with Peer((moved,)) as peer, client(peer.url, attempts=3) as documents:
            with pytest.raises(ProtocolError) as caught:
                await documents.download("a", tmp_path)
        assert (caught.value.status, len(peer.heads), other.connections) == (302, 1, 0)
    assert files(tmp_path) == []


async def test_a_retry_after_is_in_the_error(tmp_path: Path) -> None:
    row = answer(envelope("RATE_1"), "429 Too Many Requests", kind=JSON, Retry_After="7")
    async with Watch(), Peer((row,)) as peer, client(peer.url) as documents:
        with pytest.raises(RateLimitError) as caught:
            await documents.download("a", tmp_path)
    assert caught.value.retry_after == 7.0


class TestTheConnectionAfterwards:
    """Nothing of one answer may ever be taken for a part of the next."""

    async def twice(self, folder: Path, first: Script, second: Script, *, attempts: int = 1) -> tuple[int, bytes]:
        async with Watch(), Peer(first, second) as peer, client(peer.url, attempts=attempts) as documents:
            with suppress(InvoicingError):
                await documents.download("a", folder)
            await asyncio.sleep(0.02)
            saved = await documents.download("b", folder)
            assert saved.order_id == "b"
            return peer.connections, saved.path.read_bytes()

    async def test_a_whole_answer_leaves_it_in_use(self, tmp_path: Path) -> None:
        assert await self.twice(tmp_path, (answer(pdf(b"a")),), (answer(pdf(b"b")),)) == (1, pdf(b"b"))

    @pytest.mark.parametrize(
        "first",
        [
            pytest.param((answer(pdf(b"a"), Connection="close"), CLOSE), id="it-says-close"),
            pytest.param((answer(pdf(b"a")), CLOSE), id="it-closes-without-a-word"),
            pytest.param((answer(pdf(b"a")) + answer(pdf(b"x")),), id="a-second-answer-in-the-same-packet"),
            pytest.param((answer(pdf(b"a")), PAUSE, answer(pdf(b"x"))), id="a-second-answer-later"),
            pytest.param((answer(pdf(b"a")) + b"junk",), id="junk-behind-it"),
            pytest.param((answer(b"<html>" * 50_000),), id="a-body-that-was-not-read"),
            pytest.param((answer(b"x" * 200_000, "500 Oops", kind="text/html"),), id="an-error-page-that-was-not-read"),
            pytest.param((head("204 No Content", kind=None) + pdf(b"x"),), id="a-body-under-204"),
            pytest.param((chunked(pdf(b"a")) + b"junk",), id="junk-behind-the-last-chunk"),
        ],
    )
    async def test_otherwise_the_next_call_gets_its_own_answer(self, tmp_path: Path, first: Script) -> None:
        connections, body = await self.twice(tmp_path, first, (answer(pdf(b"b")),), attempts=2)
        assert body == pdf(b"b")
        assert connections == 2

    async def test_one_that_closed_while_idle_is_not_seen_by_the_caller(self, tmp_path: Path) -> None:
        """A request that met a closing connection is repeated like any lost one."""
        first, second = (answer(pdf(b"a")),), (CLOSE,)
        async with (
            Watch(),
            Peer(first, second, (answer(pdf(b"b")),)) as peer,
            client(peer.url, attempts=2) as documents,
        ):
            await documents.download("a", tmp_path)
            saved = await documents.download("b", tmp_path)
            assert saved.attempts == 2


class TestPassingThrough:
    """The same faults met by `open`: before the block they are raised, in it the chunks raise."""

    @each([row for row in FAULTS if "drips" not in row.name])
    async def test_what_is_no_document_ends_in_the_same_error(self, row: Row) -> None:
        async with Watch(), Peer(row.script) as peer, client(peer.url, timeouts=row.timeouts) as documents:
            with pytest.raises(row.error, match=row.match) as caught:
                await self.passed(documents)
        assert type(caught.value) is row.error

    @pytest.mark.parametrize("length", [None, 2**22])
    @pytest.mark.parametrize("act", [CLOSE, RESET, STALL])
    async def test_a_large_body_that_breaks_off_raises_from_its_chunks(self, act: Act, length: int | None) -> None:
        short = Timeouts(connect=5.0, read=0.3, attempt=20.0) if act is STALL else PATIENT
        framed = head(Content_Length=length) if length else head(Transfer_Encoding="chunked")
        body = LARGE.ljust(2**21, b"%")
        sent = framed + (body if length else b"%x\r\n%s\r\n" % (len(body), body))
        async with (
            Watch(),
            Peer((sent, PAUSE, act)) as peer,
            client(peer.url, timeouts=short, max_bytes=2**23) as documents,
        ):
            async with documents.open("a") as document:
                assert document.size == length
                with pytest.raises(InterruptedDocumentError, match="broke off after"):
                    _ = [chunk async for chunk in document.chunks]
            assert peer.connections == 1

    async def passed(self, documents: OrderDocuments) -> bytes:
        async with documents.open("a") as document:
            return b"".join([chunk async for chunk in document.chunks])

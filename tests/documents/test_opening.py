"""One web response passed through: as the service sent it, or an error before its first byte."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fakes import FakeClock, FakeResponse, FakeTransport
from order_documents import (
    BASE,
    BROKEN,
    FINAL,
    LARGE,
    ORDER,
    PDF,
    client,
    gathered,
    kinds,
    made,
    own_tasks,
    pdf,
    settled,
    whole,
)
from peers import Connection, Peer, listening

from invoicing_async._files.pdf import fault_of
from invoicing_async._transport.server import serve
from invoicing_async.auth import StaticToken
from invoicing_async.documents import OrderDocuments
from invoicing_async.documents._client import work_of
from invoicing_async.errors import (
    IncompleteDocumentError,
    InterruptedDocumentError,
    OrderStatusError,
    OversizedDocumentError,
    ProtocolError,
    TransportError,
)
from invoicing_async.policies import Limits, Timeouts
from invoicing_async.sandbox import (
    Answer,
    Endless,
    Genuine,
    JsonUnder200,
    NotEligible,
    NotPdf,
    RateLimited,
    Reset,
    Sandbox,
    Scripted,
    Slow,
    Truncated,
    Unavailable,
    demo_orders,
)
from invoicing_async.session import Session

pytestmark = pytest.mark.asyncio


class TestOpen:
    async def test_a_document_passes_through_without_the_disk(self) -> None:
        sandbox = Sandbox()
        async with serve(sandbox) as url, client(sandbox, url=url) as documents, documents.open(ORDER) as document:
            assert document.filename == f"invoice-{ORDER}.pdf"
            body = b"".join([chunk async for chunk in document.chunks])
            assert document.size == len(body)
            assert fault_of(body) is None
            assert "DiskWriter" not in str(work_of(documents).session._resources)

    @pytest.mark.parametrize(
        ("disposition", "filename"),
        [
            (None, "a.pdf"),
            ("inline", "a.pdf"),
            ('attachment; filename="../../x"', None),
            ('attachment; filename="R 1"', "R 1.pdf"),
        ],
    )
    async def test_its_name_is_safe_for_a_header(self, disposition: str | None, filename: str | None) -> None:
        headers = {} if disposition is None else {"Content_Disposition": disposition}
        async with client(made(whole(pdf(), **headers))) as documents, documents.open("a") as document:
            assert filename is None or document.filename == filename
            assert not set(document.filename) & set('/\\"\r\n')

    @pytest.mark.parametrize(("answer", "error"), [*BROKEN, *FINAL])
    async def test_before_the_block_every_failure_is_retried_and_raised(
        self, answer: Scripted, error: type[Exception]
    ) -> None:
        """What shows only at the end of a large body raises there."""
        async with client(made(*[answer] * 3)) as documents:
            with pytest.raises(error):
                async with documents.open(ORDER) as document:
                    _ = [chunk async for chunk in document.chunks]

    @pytest.mark.parametrize(
        "answer",
        [Unavailable(), NotPdf(), Reset(), JsonUnder200(), RateLimited(), Truncated(missing=3), Reset(after=300)],
    )
    async def test_a_small_document_that_breaks_is_not_seen_if_the_next_attempt_succeeds(
        self, answer: Scripted
    ) -> None:
        async with client(made(answer, answer)) as documents, documents.open(ORDER) as document:
            body = b"".join([chunk async for chunk in document.chunks])
        assert fault_of(body) is None
        assert document.size == len(body)

    @pytest.mark.parametrize("declared", [True, False])
    async def test_a_large_body_that_ends_early_raises_from_its_chunks_and_is_not_repeated(
        self, *, declared: bool
    ) -> None:
        headers = {**PDF, "Content-Length": str(len(LARGE))} if declared else PDF
        sandbox = made(Answer(headers=headers, body=LARGE[:-9]))
        async with client(sandbox) as documents, documents.open(ORDER) as document:
            assert document.size == (len(LARGE) if declared else None)
            with pytest.raises(IncompleteDocumentError) as caught:
                _ = [chunk async for chunk in document.chunks]
        assert isinstance(caught.value, ProtocolError)
        assert caught.value.head.startswith(b"%PDF-")
        assert sandbox.calls("document") == 1

    async def test_a_large_document_passes_through_in_constant_memory(self) -> None:
        filler = b"%" * 2**18

        class Long(FakeResponse):
            async def chunks(self) -> AsyncIterator[bytes]:
                yield b"%PDF-1.7\n"
                for _ in range(128):
                    yield bytes(filler[:-1]) + b"%"
                yield b"\nstartxref\n9\n%%EOF\n"

        async with Session(BASE, auth=StaticToken("t"), transport=FakeTransport([Long(headers=PDF)])) as session:
            tracemalloc.start()
            async with OrderDocuments(session).open(ORDER) as document:
                size = sum([len(chunk) async for chunk in document.chunks])
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert size > 2**25
        assert peak < 5 * 2**20

    async def test_a_small_document_holds_nothing_of_the_session_in_its_block(self, tmp_path: Path) -> None:
        """However long its reader takes: neither a place nor a connection nor a task."""
        sandbox = Sandbox()
        async with serve(sandbox) as url, client(sandbox, url=url, limits=Limits(concurrency=1)) as documents:
            connector = work_of(documents).session.transport._client.connector  # type: ignore[attr-defined]
            async with documents.open("a") as document:
                await settled(sandbox)
                assert (len(connector._acquired), own_tasks()) == (0, set())
                await documents.download("b", tmp_path)
                assert fault_of(b"".join([chunk async for chunk in document.chunks])) is None
            assert sandbox.peak == 1

    async def test_readers_that_stall_leave_their_places_to_others(self, tmp_path: Path) -> None:
        """Thirty-two web clients that took the head of a large document and ask for no more."""
        sandbox = Sandbox()
        async with serve(sandbox) as url, client(sandbox, url=url) as documents, AsyncExitStack() as stack:
            for number in range(32):
                sandbox.script(f"large-{number}", [Endless(chunk=2**16)])
                stalled = await stack.enter_async_context(documents.open(f"large-{number}"))
                await anext(stalled.chunks)
            assert (await documents.download("b", tmp_path)).attempts == 1
            outcomes, error = await gathered(documents.download_many(demo_orders(40), tmp_path))
            assert (kinds(outcomes), error) == ({"Saved": 40}, None)
            assert sandbox.in_flight == 32
            await stack.aclose()
            await settled(sandbox)
            assert own_tasks() == set()

    async def test_a_reader_that_stalls_loses_its_connection_after_the_time_of_an_attempt(self) -> None:
        clock = FakeClock()
        sandbox = made(Endless(chunk=2**16), clock=clock)
        timeouts = Timeouts(attempt=50)
        async with serve(sandbox) as url, client(sandbox, url=url, timeouts=timeouts) as documents:
            async with documents.open("a") as document:
                await anext(document.chunks)
                clock.advance(49)
                await anext(document.chunks)
                assert sandbox.in_flight == 1
                clock.advance(51)
                await settled(sandbox)
                with pytest.raises(InterruptedDocumentError, match="nobody asked for more of it for 50 s"):
                    _ = [chunk async for chunk in document.chunks]
            assert own_tasks() == set()

    async def test_a_drip_is_ended_by_the_floor_as_a_downloads_is(self) -> None:
        """Before the block begins, and so it is tried again."""
        sandbox = made(*[Slow(1.0, size=10)] * 2)
        timeouts = Timeouts(read=20, attempt=1000, floor=100)
        async with client(sandbox, attempts=2, timeouts=timeouts) as documents:
            with pytest.raises(IncompleteDocumentError, match=r"slower than Timeouts\.floor"):
                async with documents.open(ORDER):
                    raise AssertionError
        assert sandbox.calls("document") == 2
        assert 42 <= sandbox.clock.monotonic() <= 43

    async def test_a_drip_is_ended_by_the_attempts_timeout_too(self) -> None:
        sandbox = made(Slow(1.0, size=10))
        async with client(sandbox, attempts=1, timeouts=Timeouts(attempt=15)) as documents:
            with pytest.raises(TransportError, match="attempt timeout of 15 s"):
                async with documents.open(ORDER):
                    raise AssertionError

    @pytest.mark.parametrize(
        ("timeouts", "match", "least"),
        [
            (Timeouts(read=20, attempt=1000, floor=90_000), r"slower than Timeouts\.floor", 20),
            (Timeouts(read=20, attempt=30, floor=0), r"Timeouts\.attempt \(30 s\)", 28),
            (Timeouts(read=1, attempt=30, floor=0), "silent for longer than the read timeout", 1),
        ],
    )
    async def test_a_large_one_that_comes_to_drip_is_ended_by_each_of_the_bounds(
        self, timeouts: Timeouts, match: str, least: float
    ) -> None:
        """The time between two chunks is the reader's, and counts for none of them."""
        clock = FakeClock(auto=False)

        async def drip(connection: Connection, peer: Peer) -> None:
            await connection.request()
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nContent-Length: 9999999\r\n\r\n"
            await connection.say(head + LARGE[: 2**20])
            while True:
                await asyncio.sleep(0.001)
                clock.advance(1)
                await connection.say(b"%")

        async with listening(drip) as peer, client(made(clock=clock), url=peer.url, timeouts=timeouts) as documents:
            async with documents.open(ORDER) as document:
                await anext(document.chunks)
                clock.advance(25)
                with pytest.raises(IncompleteDocumentError, match=match):
                    _ = [chunk async for chunk in document.chunks]
                await peer.gone()
            assert clock.elapsed >= 25 + least
            assert own_tasks() == set()

    @pytest.mark.parametrize("limit", [2**19, 2**22])
    async def test_an_endless_body_ends_at_the_limit(self, limit: int) -> None:
        sandbox = made(Endless())
        async with client(sandbox, max_bytes=limit) as documents:
            with pytest.raises(OversizedDocumentError, match=f"longer than the limit of {limit:,}"):
                async with documents.open(ORDER) as document:
                    _ = [chunk async for chunk in document.chunks]
        assert sandbox.calls("document") == 1

    async def test_leaving_early_stops_the_reading(self) -> None:
        sandbox = made(Endless())
        async with serve(sandbox) as url, client(sandbox, url=url) as documents:
            async with documents.open(ORDER) as document:
                await anext(document.chunks)
                assert sandbox.in_flight == 1
            await settled(sandbox)
            assert own_tasks() == set()

    async def test_it_is_given_back_after_an_error_inside_and_before_the_block(self, tmp_path: Path) -> None:
        sandbox = made(Genuine(), NotEligible())
        async with client(sandbox, limits=Limits(concurrency=1)) as documents:
            with pytest.raises(LookupError):
                async with documents.open("a"):
                    raise LookupError
            with pytest.raises(OrderStatusError):
                async with documents.open("a"):
                    raise AssertionError
            await documents.download("b", tmp_path)

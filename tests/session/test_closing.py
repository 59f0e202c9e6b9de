"""A session that closes ends what is under way with its own error; whoever leaves a batch leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from fakes import FakeClock, FakeResponse, FakeTransport
from leaks import in_use, others
from peers import OK, Connection, Peer, answering, listening

from invoicing_async import AsyncInvoices, InvoiceDraft, InvoiceLine, OrderDocuments
from invoicing_async._core.http import Repeat, Request, Response
from invoicing_async._core.tasks import Lifetime, Scope, started
from invoicing_async._files import tempfile as disk_module
from invoicing_async._files.publish import Destination
from invoicing_async._files.writer import DiskWriter
from invoicing_async.auth import OAuthClientCredentials, StaticToken
from invoicing_async.errors import InvoicingError, ProtocolError, SessionError, SubmissionInDoubtError, TransportError
from invoicing_async.invoices._client import work_of
from invoicing_async.models import InDoubt, NotSent, NotStarted
from invoicing_async.policies import Limits
from invoicing_async.polling import Poller
from invoicing_async.runs import InvoiceRun
from invoicing_async.session import Session
from invoicing_async.session._session import internals_of

pytestmark = pytest.mark.asyncio

CALL = Request(method="POST", path="/x", operation="test")
SUBMISSION = evolve(CALL, repeat=Repeat.IF_NOT_SENT)
NUMBER = "11111111-2222-4333-8444-000000000000"
BUSY = FakeResponse(
    status=503,
    pieces=(b'{"success": false, "error": {"code": "SYS_DEP_503", "message": "down"}, "requestId": "r-1"}',),
)
NEW = FakeResponse(
    headers={"Content-Type": "application/json"}, pieces=(b'{"request_id": "%s", "status": "NEW"}' % NUMBER.encode(),)
)


def pdf(size: int) -> bytes:
    tail = b"\nstartxref\n9\n%%EOF\n"
    return b"%PDF-1.7\n".ljust(size - len(tail), b"%") + tail


def draft(key: str = "K-1") -> InvoiceDraft:
    line = InvoiceLine(name="Tea", unit="box", price=Decimal("10.50"), quantity=Decimal(2))
    return InvoiceDraft(key=key, invoice_template_id=NUMBER, lines=[line])


async def body(response: Response) -> bytes:
    return await response.read(1000)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


async def hang(request: Request) -> FakeResponse:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nothing ever comes")


async def opened(*answers: Any, **settings: Any) -> Session:
    settings = {"auth": StaticToken("t"), "transport": FakeTransport(answers=list(answers)), **settings}
    return await Session("http://service.test", **settings).__aenter__()


class TestClosing:
    @pytest.mark.parametrize("concurrency", [1, 2, 9])
    async def test_ends_calls_wherever_they_are(self, concurrency: int) -> None:
        """In flight, or in line for a place."""
        session = await opened(hang, limits=Limits(concurrency=concurrency))
        tasks = [asyncio.create_task(session.call(CALL, body)) for _ in range(4)]
        await until(lambda: internals_of(session).admission.places.free == max(0, concurrency - 4))
        await session.close()
        assert all(task.done() for task in tasks)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(error) for error in errors} == {SessionError}
        assert internals_of(session).admission.places.free == concurrency

    @pytest.mark.parametrize("request_", [CALL, SUBMISSION], ids=["may be repeated", "submission"])
    async def test_ends_one_that_backs_off(self, request_: Request) -> None:
        """What was declared not to have been made still was not."""
        clock = FakeClock(auto=False)
        session = await opened(BUSY, clock=clock)
        task = asyncio.create_task(session.call(request_, body))
        await until(lambda: len(clock.slept) == 1)
        await session.close()
        with pytest.raises(SessionError) as caught:
            await task
        assert caught.value.sent == "no"
        assert [attempt.code for attempt in caught.value.attempts] == ["SYS_DEP_503"]

    @pytest.mark.parametrize(
        ("error", "raised"),
        [(TransportError("cut", sent="unknown"), SessionError), (ProtocolError("nonsense"), ProtocolError)],
    )
    async def test_a_call_whose_reader_closes_its_session_is_not_repeated(
        self, error: InvoicingError, raised: type[InvoicingError]
    ) -> None:
        """Its own error is raised if it would not have been repeated anyway."""
        transport = FakeTransport(answers=[FakeResponse()])
        session = await opened(transport=transport)

        async def read(_: Response) -> None:
            await session.close()
            raise error

        with pytest.raises(raised) as caught:
            await session.call(CALL, read)
        assert len(transport.sent) == 1
        assert [attempt.error for attempt in caught.value.attempts] == [f"{type(error).__name__}: {error}"]
        assert internals_of(session).admission.places.free == session.limits.concurrency

    async def test_says_of_a_request_that_had_left_that_it_may_have_arrived(self) -> None:
        session = await opened(hang)
        task = asyncio.create_task(session.call(SUBMISSION, body))
        await until(lambda: internals_of(session).admission.places.free == session.limits.concurrency - 1)
        await session.close()
        with pytest.raises(SessionError, match="closed meanwhile") as caught:
            await task
        assert caught.value.sent == "unknown"
        assert [attempt.error for attempt in caught.value.attempts] == [
            "SessionError: the session was closed meanwhile"
        ]

    async def test_ends_the_wait_for_a_token(self) -> None:
        auth = OAuthClientCredentials(client_id="c", client_secret="s", tenant_connection_code="t")
        session = await opened(hang, auth=auth)
        tasks = [asyncio.create_task(session.call(SUBMISSION, body)) for _ in range(3)]
        await until(lambda: internals_of(session).admission.places.free < session.limits.concurrency)
        await session.close()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(error) for error in errors} == {SessionError}
        assert {error.sent for error in errors if isinstance(error, InvoicingError)} == {"no"}
        assert others() == set()

    async def test_cuts_a_body_that_is_being_passed_on(self) -> None:
        async def play(connection: Connection, peer: Peer) -> None:
            await connection.request()
            await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            await connection.hang()

        async def read(session: Session) -> None:
            async with session.open(CALL, _chunks) as chunks:
                async for _ in chunks:
                    pass

        async with listening(play) as peer:
            session = await Session(peer.url, auth=StaticToken("t")).__aenter__()
            task = asyncio.create_task(read(session))
            await until(lambda: peer.open == 1 and in_use(session) == 1)
            await session.close()
            with pytest.raises(SessionError):
                await task
            await asyncio.wait_for(peer.gone(), 2)

    async def test_leaves_a_cancellation_by_somebody_else_one(self) -> None:
        session = await opened(hang)
        task = asyncio.create_task(session.call(CALL, body))
        await until(lambda: internals_of(session).admission.places.free == session.limits.concurrency - 1)
        task.cancel()
        await session.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_goes_on_to_the_connections_when_it_is_cancelled_itself(self) -> None:
        stuck = asyncio.Event()

        async def stubborn(response: Response) -> None:
            try:
                await stuck.wait()
            except asyncio.CancelledError:
                await stuck.wait()

        async with listening(answering(OK)) as peer:
            session = await Session(peer.url, auth=StaticToken("t")).__aenter__()
            task = asyncio.create_task(session.call(CALL, stubborn))
            await until(
                lambda: (
                    internals_of(session).admission.places.free < session.limits.concurrency and peer.connections == 1
                )
            )
            await asyncio.sleep(0.01)
            closing = asyncio.create_task(session.close())
            await asyncio.sleep(0.01)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            await asyncio.wait_for(peer.gone(), 2)
            stuck.set()
            await task

    async def test_from_inside_a_call_ends_all_others(self) -> None:
        """The one that closes finishes: it would wait for itself otherwise."""
        session = await opened(hang, NEW)

        async def closing(response: Response) -> str:
            await session.close()
            return "read"

        second = asyncio.create_task(_after(session.call(CALL, closing)))
        await asyncio.sleep(0)
        third = asyncio.create_task(session.call(CALL, body))
        assert await second == "read"
        with pytest.raises(SessionError):
            await third

    @pytest.mark.parametrize("many", [False, True])
    async def test_ends_waits_between_their_polls(self, *, many: bool) -> None:
        session = await opened(NEW, clock=FakeClock(auto=False))
        invoices = AsyncInvoices(session)

        async def waited() -> object:
            if not many:
                return await invoices.wait(NUMBER, poller=Poller(first=100.0))
            [end] = [end async for end in invoices.wait_many([NUMBER], poller=Poller(first=100.0))]
            return getattr(end, "error", None)

        task = asyncio.create_task(waited())
        await until(lambda: work_of(invoices).scheduler._timer.task is not None)
        await asyncio.sleep(0)
        await session.close()
        [found] = await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 2)
        assert isinstance(found, SessionError)
        await asyncio.sleep(0)
        assert others() == set()

    async def test_ends_a_session_s_own_sleep(self) -> None:
        session = await opened(NEW, clock=FakeClock(auto=False))
        task = asyncio.create_task(internals_of(session).sleep(1000))
        await asyncio.sleep(0)
        await session.close()
        with pytest.raises(SessionError):
            await task
        with pytest.raises(SessionError):
            await internals_of(session).sleep(1)


async def _chunks(response: Response) -> AsyncIterator[bytes]:
    return response.chunks()


async def _after(work: Awaitable[Any]) -> Any:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return await work


class TestSubmissions:
    """What is in flight when the session closes is in doubt, never lost and never called unsent."""

    async def test_one_alone_is_in_doubt(self) -> None:
        session = await opened(hang)
        task = asyncio.create_task(AsyncInvoices(session).submit(draft()))
        await until(lambda: internals_of(session).admission.places.free < session.limits.concurrency)
        await session.close()
        with pytest.raises(SubmissionInDoubtError) as caught:
            await task
        assert isinstance(caught.value.__cause__, SessionError)

    async def test_of_a_batch_each_has_its_fate(self) -> None:
        """Those that had left are in doubt, those in line were not sent; then the batch's error is raised."""
        session = await opened(hang, limits=Limits(concurrency=2, stop_after=None))
        outcomes: list[object] = []

        async def consume() -> None:
            drafts = [draft(f"K-{number}") for number in range(5)]
            async for outcome in AsyncInvoices(session).submit_many(drafts, concurrency=4):
                outcomes.append(outcome)  # noqa: PERF401 - what was given before the error counts

        task = asyncio.create_task(consume())
        await until(lambda: len(internals_of(session).transport.sent) == 2)  # type: ignore[attr-defined]
        await session.close()
        with pytest.raises(SessionError):
            await task
        kinds = [type(outcome) for outcome in outcomes]
        assert (kinds.count(InDoubt), kinds.count(NotSent)) == (2, 3)

    async def test_a_run_records_them(self, tmp_path: Path) -> None:
        session = await opened(hang, limits=Limits(concurrency=2, stop_after=None))
        async with InvoiceRun.open(tmp_path / "run.db") as run:
            await run.add([draft(f"K-{number}") for number in range(5)])

            async def submit() -> None:
                async for _ in run.submit(AsyncInvoices(session), concurrency=4):
                    pass

            task = asyncio.create_task(submit())
            await until(lambda: len(internals_of(session).transport.sent) == 2)  # type: ignore[attr-defined]
            await session.close()
            with pytest.raises(SessionError):
                await task
            counts = await run.ledger.counts()
        assert counts["in_doubt"] == 2
        assert counts.get("not_sent", 0) + counts.get("planned", 0) == 3


@pytest.fixture(params=["unnamed", "named"])
def temporary_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with both kinds of temporary files."""
    if request.param == "named":
        monkeypatch.setattr(disk_module, "_UNNAMED_WORK", False)


def descriptors(folder: Path) -> int:
    """How many files in this folder are open in this process."""
    return sum(str(_target(entry)).startswith(str(folder)) for entry in Path("/proc/self/fd").iterdir())


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:
        return ""


async def half_large(connection: Connection, peer: Peer) -> None:
    """One small document; of every other one the first megabyte and some, then silence."""
    while True:
        small = b"/small/" in await connection.request()
        whole = pdf(2000 if small else 1_500_000)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nContent-Length: %d\r\n\r\n" % len(whole)
        await connection.say(head + whole[:1_200_000])
        if not small:
            await connection.hang()
            return


class LeftError(Exception):
    """A consumer does not like what it is given."""


async def leave(way: str, documents: OrderDocuments, folder: Path, spooling: Callable[[], bool]) -> None:
    """Begin a batch, and leave it in one of the ways when documents are being spooled."""
    outcomes = documents.download_many(["small", *(f"large{number}" for number in range(6))], folder)
    async with AsyncExitStack() as stack:
        if way == "aclosing":
            await stack.enter_async_context(aclosing(outcomes))
        async for _ in outcomes:
            await until(spooling)
            if way in {"break", "aclosing"}:
                break
            if way == "raise":
                raise LeftError


@pytest.mark.usefixtures("temporary_files")
class TestLeaving:
    @pytest.mark.parametrize("stays", [True, False], ids=["the session stays", "the session closes"])
    @pytest.mark.parametrize("way", ["aclosing", "break", "raise", "cancel"])
    async def test_leaks_nothing(self, way: str, tmp_path: Path, *, stays: bool) -> None:
        """No descriptor, temporary file, task, connection or place; also when the session closes right after it."""

        def spooling() -> bool:
            return descriptors(tmp_path) >= 3

        async with listening(half_large) as peer:
            async with Session(
                peer.url, auth=StaticToken("t"), limits=Limits(concurrency=8, stop_after=None)
            ) as session:
                documents = OrderDocuments(session)
                task = asyncio.create_task(leave(way, documents, tmp_path, spooling))
                if way == "cancel":
                    await until(spooling)
                    task.cancel()
                await asyncio.wait([task])
                ended = None if task.cancelled() else task.exception()
                assert type(ended) is (LeftError if way == "raise" else type(None))
                del task, ended
                gc.collect()
                if stays:
                    await until(
                        lambda: (
                            internals_of(session).admission.places.free == 8
                            and in_use(session) == 0
                            and not descriptors(tmp_path)
                        )
                    )
            await asyncio.wait_for(peer.gone(), 2)
            await until(lambda: descriptors(tmp_path) == 0)
            assert {path.name for path in tmp_path.iterdir()} <= {"small.pdf"}
            assert internals_of(session).admission.places.free == 8
        await asyncio.sleep(0)
        assert others() == set()

    async def test_a_session_that_closes_ends_its_batches(self, tmp_path: Path) -> None:
        outcomes: list[object] = []

        async def consume(documents: OrderDocuments) -> None:
            async for outcome in documents.download_many([f"large{number}" for number in range(6)], tmp_path):
                outcomes.append(outcome)  # noqa: PERF401 - what was given before the error counts

        async with listening(half_large) as peer:
            session = await Session(peer.url, auth=StaticToken("t"), limits=Limits(stop_after=None)).__aenter__()
            task = asyncio.create_task(consume(OrderDocuments(session)))
            await until(lambda: descriptors(tmp_path) >= 3)
            await session.close()
            assert descriptors(tmp_path) == 0
            with pytest.raises(SessionError):
                await task
            await asyncio.wait_for(peer.gone(), 2)
        assert {type(outcome) for outcome in outcomes} == {NotStarted}
        assert len(outcomes) == 6
        assert list(tmp_path.iterdir()) == []

    async def test_a_writer_that_is_closed_refuses_and_takes_back(self, tmp_path: Path) -> None:
        writer = DiskWriter()
        spool = await writer.spool(tmp_path)
        await spool.write([b"begun"])
        cancelled = asyncio.create_task(writer.store(Destination(target=tmp_path / "a.pdf"), pdf(100)))
        await asyncio.sleep(0)
        closing = asyncio.create_task(writer.close())
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([closing, cancelled])
        with pytest.raises(SessionError, match="closed"):
            await spool.write([b"more"])
        await spool.discard()
        assert descriptors(tmp_path) == 0
        # Either it was done before anybody knew, or it was taken back.
        assert {path.name for path in tmp_path.iterdir()} <= ({"a.pdf"} if not cancelled.cancelled() else set())


class TestLifetime:
    async def test_it_ends_what_is_inside_and_nothing_else(self) -> None:
        lifetime, outside = Lifetime(), asyncio.create_task(asyncio.sleep(1000))

        async def inside() -> None:
            with Scope(lifetime):
                await asyncio.sleep(0)
            with Scope(lifetime), Scope(lifetime):
                await asyncio.sleep(1000)

        tasks = [asyncio.create_task(inside()) for _ in range(3)]
        for _ in range(3):
            await asyncio.sleep(0)
        await lifetime.end()
        for task in tasks:
            assert isinstance(task.exception(), SessionError)
            assert task.cancelling() == 0
        assert not outside.done()
        outside.cancel()

    async def test_a_block_that_ends_all_the_same_keeps_what_it_made(self) -> None:
        lifetime = Lifetime()

        async def swallowing() -> str:
            with Scope(lifetime):
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    return "made"
            return "not cut"

        task = asyncio.create_task(swallowing())
        await asyncio.sleep(0)
        await lifetime.end()
        assert await task == "made"
        assert task.cancelling() == 0

    async def test_a_task_begins_in_the_next_turn_with_any_task_factory(self) -> None:
        begun: list[int] = []

        async def work() -> None:
            begun.append(1)

        eager = getattr(asyncio, "eager_task_factory", None)
        asyncio.get_running_loop().set_task_factory(eager)
        task = started(work())
        assert begun == []
        await task
        assert begun == [1]

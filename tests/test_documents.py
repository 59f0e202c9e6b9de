"""Order documents: saved whole or not at all, every id accounted for, one web response passed through."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import re
import subprocess
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from datetime import date
from hashlib import sha256
from itertools import accumulate, count, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import pytest
from fakes import FakeClock, FakeResponse, FakeTransport
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import Connection, Peer, listening

from invoicing_async._files.existing import Published
from invoicing_async._files.layout import Layout
from invoicing_async._files.names import is_temp, temp_name
from invoicing_async._files.pdf import fault_of
from invoicing_async._files.publish import OnExisting
from invoicing_async._files.tempfile import probe
from invoicing_async._files.writer import DiskWriter
from invoicing_async._transport.server import serve
from invoicing_async.auth import HmacAuth, StaticToken
from invoicing_async.documents import DownloadOutcome, OrderDocuments
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    IncompleteDocumentError,
    InterruptedDocumentError,
    OrderStatusError,
    OversizedDocumentError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
    SessionError,
    TransportError,
)
from invoicing_async.events import DocumentSaved
from invoicing_async.models import Deferred, Duplicate, NotStarted, Saved, Skipped
from invoicing_async.policies import Limits, RetryPolicy, Timeouts
from invoicing_async.sandbox import (
    Answer,
    Endless,
    Faults,
    Genuine,
    JsonUnder200,
    NotEligible,
    NotPdf,
    Operation,
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

BASE = "http://127.0.0.1/api/v1"
ORDER = "d0e11047-acaf-468f-a325-3d2f5964f5ff"
NOT_IDS = ["", ".", "..", True, 7.0, None, b"a"]
PDF = {"Content-Type": "application/pdf"}


def pdf(size: int = 60) -> bytes:
    tail = b"\nstartxref\n9\n%%EOF\n"
    return b"%PDF-1.7\n".ljust(size - len(tail), b"%") + tail


LARGE = pdf(2**21 + 12_345)


def whole(body: bytes, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(headers={**PDF, "Content-Length": str(len(body)), **named}, body=body)


def refusal(status: int) -> Answer:
    return Answer(status=status, body=b"no")


@asynccontextmanager
async def client(
    sandbox: Sandbox, *, url: str = "", attempts: int = 3, max_bytes: int = 2**24, first: float = 0.5, **named: Any
) -> AsyncIterator[OrderDocuments]:
    """Order documents of the sandbox in this process, or served at `url`."""
    auth = HmacAuth(**sandbox.credentials.partner())
    retry = RetryPolicy(attempts=attempts, first=first)
    transport = None if url else sandbox
    async with Session(
        url or BASE, auth=auth, retry=retry, clock=sandbox.clock, transport=transport, **named
    ) as session:
        yield OrderDocuments(session, max_bytes=max_bytes)


def made(*answers: Scripted, clock: FakeClock | None = None, faults: Faults | None = None) -> Sandbox:
    """A sandbox whose first answers for documents are these."""
    sandbox = Sandbox(faults=faults, clock=clock or FakeClock())
    sandbox.script(Operation.DOCUMENT, answers)
    return sandbox


async def source(ids: Iterable[Any]) -> AsyncIterator[Any]:
    for order_id in ids:
        await asyncio.sleep(0)
        yield order_id


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def own_tasks() -> set[asyncio.Task[Any]]:
    """The tasks there are beside this one and the served sandbox's."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    servers = ("RequestHandler", "_accept_connection")
    return {task for task in others if not any(name in str(task.get_coro()) for name in servers)}


async def gathered(outcomes: AsyncGenerator[DownloadOutcome]) -> tuple[list[DownloadOutcome], Exception | None]:
    """Give all outcomes and the error that ended them."""
    found: list[DownloadOutcome] = []
    try:
        async for outcome in outcomes:
            found.append(outcome)  # noqa: PERF401 - what came before an error is kept
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return found, error
    return found, None


def kinds(outcomes: Iterable[DownloadOutcome]) -> Counter[str]:
    return Counter(type(outcome).__name__ for outcome in outcomes)


class TestDownload:
    async def test_a_document_is_saved_whole_under_its_orders_name(self, tmp_path: Path) -> None:
        sandbox = made()
        async with client(sandbox) as documents:
            saved = await documents.download(ORDER, tmp_path / "new")
        body = (tmp_path / "new" / f"{ORDER}.pdf").read_bytes()
        assert fault_of(body) is None
        assert (saved.order_id, saved.path, saved.size) == (ORDER, tmp_path / "new" / f"{ORDER}.pdf", len(body))
        assert (saved.sha256, saved.attempts) == (sha256(body).hexdigest(), 1)
        assert names(tmp_path) == [f"new/{ORDER}.pdf"]

    @pytest.mark.parametrize("order_id", [UUID(ORDER), ORDER])
    async def test_a_uuid_is_its_text(self, tmp_path: Path, order_id: Any) -> None:
        async with client(made()) as documents:
            saved = await documents.download(order_id, tmp_path)
            async with documents.open(order_id) as document:
                assert document.filename == f"invoice-{ORDER}.pdf"
        assert (saved.order_id, names(tmp_path)) == (ORDER, [f"{ORDER}.pdf"])

    async def test_an_int_is_its_digits(self, tmp_path: Path) -> None:
        sandbox = made()
        async with client(sandbox) as documents:
            assert (await documents.download(10045, tmp_path)).order_id == "10045"
            outcomes, _ = await gathered(documents.download_many([10045, 7, UUID(ORDER), "7"], tmp_path))
        assert kinds(outcomes) == {"Saved": 2, "Skipped": 1, "Duplicate": 1}
        assert sorted(outcome.order_id for outcome in outcomes) == ["10045", "7", "7", ORDER]
        assert names(tmp_path) == sorted(["10045.pdf", "7.pdf", f"{ORDER}.pdf"])

    async def test_it_keeps_the_services_request_id(self, tmp_path: Path) -> None:
        async with client(made(whole(pdf(), X_Request_Id="r-9"))) as documents:
            assert (await documents.download(ORDER, tmp_path)).request_id == "r-9"

    async def test_the_request_is_as_the_services_page_shows_it(self, tmp_path: Path) -> None:
        transport = FakeTransport([FakeResponse(headers=PDF, pieces=(pdf(),))])
        async with Session(BASE, auth=StaticToken("t"), transport=transport) as session:
            await OrderDocuments(session).download("INV/2025/01", tmp_path)
        request = transport.sent[0]
        assert (request.method, request.body) == ("POST", b"")
        assert request.url == f"{BASE}/partner/stores/orders/INV%2F2025%2F01/documents/invoice"
        assert request.headers["Content-Type"] == "application/json"

    async def test_a_whole_document_that_is_there_is_not_asked_for(self, tmp_path: Path) -> None:
        sandbox = made()
        async with client(sandbox) as documents:
            first = await documents.download(ORDER, tmp_path)
            second = await documents.download(ORDER, tmp_path)
        assert (second.path, second.sha256, second.attempts) == (first.path, first.sha256, 0)
        assert sandbox.calls("document") == 1

    @pytest.mark.parametrize("there", [b"", b"<html>Sign in</html>", pdf()[:-7]])
    async def test_a_broken_one_that_is_there_is_set_aside_once(self, tmp_path: Path, there: bytes) -> None:
        (tmp_path / f"{ORDER}.pdf").write_bytes(there)
        async with client(made()) as documents:
            saved = await documents.download(ORDER, tmp_path)
            again = await documents.download(ORDER, tmp_path)
        assert saved.path.name == f"{ORDER}.pdf"
        assert saved.set_aside is not None
        assert re.fullmatch(rf"{ORDER} \(broken [0-9a-z]{{8}}\)\.pdf", saved.set_aside.name)
        assert saved.set_aside.read_bytes() == there
        assert (again.attempts, again.set_aside) == (0, None)
        assert len(names(tmp_path)) == 2

    @pytest.mark.parametrize(
        ("on_existing", "left"),
        [(OnExisting.NEW_NAME, ["a (2).pdf", "a.pdf"]), ("new name", ["a (2).pdf", "a.pdf"]), ("replace", ["a.pdf"])],
    )
    async def test_a_new_name_or_a_replacement_is_had_by_asking(
        self, tmp_path: Path, on_existing: OnExisting | str, left: list[str]
    ) -> None:
        (tmp_path / "a.pdf").write_bytes(pdf())
        async with client(made()) as documents:
            saved = await documents.download("a", tmp_path, on_existing=on_existing)
        assert names(tmp_path) == left
        assert saved.path.name == left[0]
        assert saved.size == saved.path.stat().st_size != len(pdf())

    @pytest.mark.parametrize("body", [pdf(), LARGE])
    async def test_durable_saves_the_same(self, tmp_path: Path, body: bytes) -> None:
        async with client(made(whole(body))) as documents:
            saved = await documents.download(ORDER, tmp_path, durable=True)
        assert saved.path.read_bytes() == body

    async def test_a_layout_names_folders_by_day_and_shard(self, tmp_path: Path) -> None:
        shard = sha256(ORDER.encode()).hexdigest()[:2]
        async with client(made()) as documents:
            first = await documents.download(ORDER, tmp_path, layout="{date:%Y/%m}/{shard}/{order_id}")
            second = await documents.download(
                ORDER, tmp_path, layout=Layout("{date}/{order_id}"), day=date(2024, 2, 29)
            )
        assert first.path == tmp_path / "2025" / "09" / shard / f"{ORDER}.pdf"
        assert second.path == tmp_path / "2024-02-29" / f"{ORDER}.pdf"
        assert len(names(tmp_path)) == 2

    async def test_the_served_name_is_taken_on_request(self, tmp_path: Path) -> None:
        async with client(made()) as documents:
            saved = await documents.download(ORDER, tmp_path, served_name=True)
            again = await documents.download(ORDER, tmp_path, served_name=True, layout="{date}/{order_id}")
        assert saved.path == tmp_path / f"invoice-{ORDER}.pdf"
        assert again.path == tmp_path / "2025-09-17" / f"invoice-{ORDER}.pdf"

    @pytest.mark.parametrize(
        "disposition",
        [
            'attachment; filename="../../etc/x.pdf"',
            'attachment; filename="/etc/x"',
            "attachment; filename*=UTF-8''..%2Fx",
        ],
    )
    @pytest.mark.parametrize("size", [60, 2**21])
    async def test_a_served_name_never_leaves_the_folder(self, tmp_path: Path, disposition: str, size: int) -> None:
        async with client(made(whole(pdf(size), Content_Disposition=disposition))) as documents:
            saved = await documents.download(ORDER, tmp_path / "in", served_name=True)
        assert saved.path.parent == tmp_path / "in"
        assert names(tmp_path) == [f"in/{saved.path.name}"]

    async def test_without_a_served_name_the_orders_is_taken(self, tmp_path: Path) -> None:
        async with client(made(whole(pdf()))) as documents:
            assert (await documents.download(ORDER, tmp_path, served_name=True)).path.name == f"{ORDER}.pdf"

    async def test_an_observer_hears_of_each_saved_document(self, tmp_path: Path) -> None:
        events: list[object] = []
        async with client(made(), on_event=events.append) as documents:
            saved = await documents.download(ORDER, tmp_path)
            await documents.download(ORDER, tmp_path)
        told = [event for event in events if isinstance(event, DocumentSaved)]
        assert told == [DocumentSaved(order_id=ORDER, path=saved.path, size=saved.size)]

    async def test_a_large_document_goes_through_in_constant_memory(self, tmp_path: Path) -> None:
        """32 MiB of body, a few of them held at once."""
        filler = b"%" * 2**18

        class Long(FakeResponse):
            async def chunks(self) -> AsyncIterator[bytes]:
                yield b"%PDF-1.7\n"
                for _ in range(128):
                    yield filler
                yield b"\nstartxref\n9\n%%EOF\n"

        transport = FakeTransport([Long(headers=PDF)])
        async with Session(BASE, auth=StaticToken("t"), transport=transport) as session:
            tracemalloc.start()
            saved = await OrderDocuments(session).download(ORDER, tmp_path)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert saved.size == saved.path.stat().st_size > 2**25
        assert peak < 5 * 2**20


class TestContentTypes:
    """Which types are judged by their bytes is one setting, which the error names."""

    @pytest.mark.parametrize(
        ("named", "kind", "taken"),
        [
            ({}, "application/octet-stream", True),
            ({}, "text/plain", False),
            ({"content_types": ()}, "application/octet-stream", False),
            ({"content_types": ()}, "application/x-pdf", True),
            ({"content_types": ["Text/Plain "]}, "text/plain; charset=utf-8", True),
            ({"content_types": ["text/plain"]}, "application/octet-stream", False),
        ],
    )
    async def test_the_setting_decides(self, tmp_path: Path, named: dict[str, Any], kind: str, *, taken: bool) -> None:
        answer = Answer(headers={"Content-Type": kind}, body=pdf())
        sandbox = made(answer, answer)
        async with client(sandbox) as documents:
            found = OrderDocuments(documents._session, **named)
            if taken:
                async with found.open("a") as document:
                    assert document.headers["Content-Type"] == "application/pdf"
                assert (await found.download("a", tmp_path)).size == len(pdf())
                return
            with pytest.raises(ProtocolError, match=rf"'{kind}' where .*OrderDocuments\(content_types=\.\.\.\)"):
                await found.download("a", tmp_path)
        assert sandbox.calls("document") == 1

    async def test_one_text_is_not_several_types(self) -> None:
        async with client(made()) as documents:
            with pytest.raises(ValueError, match="content_types must be several types"):
                OrderDocuments(documents._session, content_types="text/plain")


class TestWhatIsRefused:
    @pytest.mark.parametrize("order_id", NOT_IDS)
    async def test_what_is_no_id_is_refused_before_anything_is_sent(self, tmp_path: Path, order_id: Any) -> None:
        sandbox = made()
        async with client(sandbox) as documents:
            with pytest.raises(ValueError, match="must"):
                await documents.download(order_id, tmp_path)
            with pytest.raises(ValueError, match="must"):
                await documents.download(order_id, tmp_path, on_existing="replace")
            with pytest.raises(ValueError, match="must"):
                async with documents.open(order_id):
                    raise AssertionError
        assert (sandbox.calls("document"), names(tmp_path)) == (0, [])

    @pytest.mark.parametrize("made_", [list, iter, source])
    async def test_a_text_that_can_be_no_id_is_its_own_outcome(self, tmp_path: Path, made_: Any) -> None:
        sandbox = made()
        async with client(sandbox) as documents:
            outcomes, error = await gathered(documents.download_many(made_(["a", "", ".", "b", ".."]), tmp_path))
        assert (kinds(outcomes), error) == ({"Saved": 2, "Failed": 3}, None)
        assert sandbox.calls("document") == 2

    @pytest.mark.parametrize("bad", [None, True, 7.0, b"a"])
    async def test_a_collection_with_what_is_no_id_is_one_error_before_anything_is_asked_for(
        self, tmp_path: Path, bad: Any
    ) -> None:
        sandbox = made()
        async with client(sandbox) as documents:
            outcomes, error = await gathered(documents.download_many(["a", bad, bad], tmp_path / "in"))
        assert outcomes == []
        assert isinstance(error, ValueError)
        assert str(error).startswith("order_ids[1] must be text, a UUID or an int")
        assert (sandbox.calls("document"), names(tmp_path)) == (0, [])

    @pytest.mark.parametrize("made_", [iter, source])
    @pytest.mark.parametrize("concurrency", [1, 3, 64])
    async def test_a_stream_ends_at_what_is_no_id_and_what_came_before_is_done(
        self, tmp_path: Path, made_: Any, concurrency: int
    ) -> None:
        ids = demo_orders(20)
        read = iter([*ids, None, "never read"])
        async with client(made()) as documents:
            batch = documents.download_many(made_(read), tmp_path, concurrency=concurrency)
            outcomes, error = await gathered(batch)
        assert kinds(outcomes) == {"Saved": 20}
        assert isinstance(error, ValueError)
        assert str(error).startswith("order_ids[20] must be text")
        assert list(read) == ["never read"]

    @pytest.mark.parametrize(
        "named",
        [{"on_existing": "overwrite"}, {"layout": "{date}"}, {"layout": "../{order_id}"}, {"layout": "/{order_id}"}],
    )
    async def test_a_bad_argument_is_a_value_error(self, tmp_path: Path, named: dict[str, Any]) -> None:
        async with client(made()) as documents:
            with pytest.raises(ValueError, match=r"overwrite|pattern"):
                await documents.download(ORDER, tmp_path, **named)
            _, error = await gathered(documents.download_many([ORDER], tmp_path, **named))
            assert isinstance(error, ValueError)

    async def test_a_batch_wants_several_ids_and_at_least_one_place(self, tmp_path: Path) -> None:
        async with client(made()) as documents:
            _, error = await gathered(documents.download_many("abc", tmp_path))
            assert "several ids" in str(error)
            for concurrency in (0, -1):
                _, error = await gathered(documents.download_many(["a"], tmp_path, concurrency=concurrency))
                assert isinstance(error, ValueError)
                assert "concurrency" in str(error)
        with pytest.raises(ValueError, match="max_bytes"):
            OrderDocuments(documents._session, max_bytes=0)

    async def test_a_closed_session_says_so(self, tmp_path: Path) -> None:
        async with client(made()) as documents:
            pass
        with pytest.raises(SessionError, match="closed"):
            await documents.download(ORDER, tmp_path)
        _, error = await gathered(documents.download_many([ORDER], tmp_path))
        assert isinstance(error, SessionError)


BROKEN: list[tuple[Scripted, type[Exception]]] = [
    (Truncated(missing=1), IncompleteDocumentError),
    (Truncated(missing=400), IncompleteDocumentError),
    (NotPdf(), IncompleteDocumentError),
    (NotPdf(body=b""), IncompleteDocumentError),
    (Reset(), TransportError),
    (Reset(after=0), InterruptedDocumentError),
    (Reset(after=500), InterruptedDocumentError),
    (Answer(headers=PDF, body=LARGE[:-9]), IncompleteDocumentError),
    (Answer(headers={**PDF, "Content-Length": str(len(LARGE))}, body=LARGE[:-1]), IncompleteDocumentError),
    (JsonUnder200(), ServiceUnavailableError),
    (JsonUnder200(content_type="application/pdf"), ServiceUnavailableError),
    (Unavailable(), ServiceUnavailableError),
    (Unavailable(status=400), ServiceUnavailableError),
    (RateLimited(retry_after="3"), RateLimitError),
    (refusal(503), ServiceUnavailableError),
]

FINAL: list[tuple[Scripted, type[Exception]]] = [
    (NotEligible(), OrderStatusError),
    (NotEligible(status=200), OrderStatusError),
    (refusal(401), AuthenticationError),
    (refusal(403), PermissionDeniedError),
    (refusal(404), ApiError),
    (refusal(302), ProtocolError),
    (Answer(headers={"Content-Type": "text/html"}, body=b"<html>"), ProtocolError),
]


class TestFaults:
    @pytest.mark.parametrize(("answer", "error"), BROKEN)
    async def test_a_broken_answer_is_repeated_as_a_whole_call(
        self, tmp_path: Path, answer: Scripted, error: type[Exception]
    ) -> None:
        sandbox = made(answer, answer)
        async with client(sandbox) as documents:
            saved = await documents.download(ORDER, tmp_path)
        assert (saved.attempts, sandbox.calls("document")) == (3, 3)
        assert len({entry.signature for entry in sandbox.log}) == 3
        assert all(entry.verified for entry in sandbox.log)
        assert names(tmp_path) == [f"{ORDER}.pdf"]
        assert fault_of(saved.path.read_bytes()) is None

    @pytest.mark.parametrize(("answer", "error"), BROKEN)
    async def test_one_that_stays_broken_is_its_error_and_leaves_nothing(
        self, tmp_path: Path, answer: Scripted, error: type[Exception]
    ) -> None:
        sandbox = made(*[answer] * 3)
        async with client(sandbox) as documents:
            with pytest.raises(error) as caught:
                await documents.download(ORDER, tmp_path)
            assert names(tmp_path) == []
        assert type(caught.value) is error
        assert isinstance(caught.value, (ApiError, ProtocolError, TransportError))
        assert len(caught.value.attempts) == 3

    @pytest.mark.parametrize(("answer", "error"), FINAL)
    async def test_a_final_answer_is_raised_at_once(
        self, tmp_path: Path, answer: Scripted, error: type[Exception]
    ) -> None:
        sandbox = made(answer, answer)
        async with client(sandbox) as documents:
            with pytest.raises(error):
                await documents.download(ORDER, tmp_path)
            assert names(tmp_path) == []
        # A 401 may be a stray one: it is asked once more, under a signature made anew.
        assert sandbox.calls("document") == (2 if error is AuthenticationError else 1)

    @pytest.mark.parametrize("chunk", [100, 2**18])
    async def test_an_endless_body_ends_at_the_limit(self, tmp_path: Path, chunk: int) -> None:
        """And is not asked for again: it would be as long."""
        sandbox = made(Endless(chunk=chunk))
        async with client(sandbox, max_bytes=chunk * 20) as documents:
            with pytest.raises(OversizedDocumentError, match="longer than the limit"):
                await documents.download(ORDER, tmp_path)
            assert names(tmp_path) == []
        assert sandbox.calls("document") == 1

    async def test_a_drip_is_ended_by_the_floor_long_before_it_is_done(self, tmp_path: Path) -> None:
        sandbox = made(Slow(1.0, size=10))
        timeouts = Timeouts(read=20, attempt=1000, floor=100)
        async with client(sandbox, attempts=1, timeouts=timeouts) as documents:
            with pytest.raises(IncompleteDocumentError, match=r"slower than Timeouts\.floor"):
                await documents.download(ORDER, tmp_path)
        assert sandbox.clock.monotonic() == 21

    async def test_a_drip_is_ended_by_the_attempts_timeout_too(self, tmp_path: Path) -> None:
        sandbox = made(Slow(1.0, size=10))
        async with client(sandbox, attempts=1, timeouts=Timeouts(attempt=15)) as documents:
            with pytest.raises(TransportError, match="attempt timeout of 15 s"):
                await documents.download(ORDER, tmp_path)
            assert names(tmp_path) == []


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Take the right to write in the folder away, from root by acting as nobody for a moment."""
    folder.chmod(0o500)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)


class BrokenDisk:
    """A disk writer whose every job, or every one from the n-th on, ends in one error; so does a probe then."""

    def __init__(self, number: int, *, after: int = 0) -> None:
        self._error = OSError(number, os.strerror(number))
        self._left = after
        self._real = DiskWriter()

    async def run(self, function: Any, **named: Any) -> Any:
        if getattr(function, "func", None) is probe and self._left <= 0:
            raise self._error
        return await self._real.run(function, **named)

    async def store(self, *args: Any, **named: Any) -> Published:
        if self._left <= 0:
            raise self._error
        self._left -= 1
        return await self._real.store(*args, **named)

    async def close(self) -> None:
        await self._real.close()


class TestTheDisk:
    async def test_a_folder_that_is_a_file_is_an_oserror(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        async with client(made()) as documents:
            for on_existing in OnExisting:
                with pytest.raises(NotADirectoryError):
                    await documents.download(ORDER, tmp_path / "file", on_existing=on_existing)
            outcomes, error = await gathered(documents.download_many([ORDER], tmp_path / "file"))
        assert (outcomes, type(error)) == ([], FileExistsError)

    async def test_an_unwritable_folder_is_an_oserror_and_ends_a_batch(self, tmp_path: Path) -> None:
        async with client(made()) as documents:
            # The sandbox imports what draws its pages at the first one, which a user without rights could not.
            await documents.download(ORDER, tmp_path.with_name("drawn"))
            with unwritable(tmp_path):
                with pytest.raises(PermissionError):
                    await documents.download(ORDER, tmp_path, on_existing="new name")
                _, error = await gathered(documents.download_many(demo_orders(5), tmp_path))
            assert isinstance(error, PermissionError)
            assert names(tmp_path) == []

    @pytest.mark.parametrize(
        "number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENOTSUP]
    )
    async def test_what_the_next_document_would_meet_too_ends_the_batch(self, tmp_path: Path, number: int) -> None:
        ids = demo_orders(40)
        sandbox = made()
        async with client(sandbox) as documents:
            documents._session._resources[DiskWriter] = BrokenDisk(number, after=7)
            outcomes, error = await gathered(documents.download_many(ids, tmp_path, concurrency=4))
        assert isinstance(error, OSError)
        assert error.errno == number
        assert sorted(outcome.order_id for outcome in outcomes) == sorted(ids)
        assert kinds(outcomes)["Saved"] + kinds(outcomes)["NotStarted"] == 40
        assert 3 <= kinds(outcomes)["Saved"] <= 7
        assert {outcome.error for outcome in outcomes if isinstance(outcome, NotStarted)} == {error}
        assert len(names(tmp_path)) == kinds(outcomes)["Saved"]
        assert sandbox.calls("document") <= 7 + 2 * 4

    async def test_what_only_one_document_meets_is_its_own_outcome(self, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").mkdir()
        async with client(made()) as documents:
            outcomes, error = await gathered(documents.download_many(["a", "b"], tmp_path, on_existing="replace"))
        assert error is None
        assert kinds(outcomes) == {"Saved": 1, "Failed": 1}

    async def test_a_folder_that_vanishes_is_made_again(self, tmp_path: Path) -> None:
        async with client(made()) as documents:
            await documents.download("a", tmp_path / "in")
            (tmp_path / "in" / "a.pdf").unlink()
            (tmp_path / "in").rmdir()
            await documents.download("b", tmp_path / "in")
        assert names(tmp_path) == ["in/b.pdf"]

    @pytest.mark.slow
    async def test_a_disk_that_fills_up_ends_the_batch_and_the_rest_comes_after_space_is_made(
        self, small_disk: Path
    ) -> None:
        ids = demo_orders(60)
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * 900_000)
        async with client(made()) as documents:
            outcomes, error = await gathered(documents.download_many(ids, small_disk / "in", concurrency=8))
            assert isinstance(error, OSError)
            assert error.errno == errno.ENOSPC
            assert sorted(outcome.order_id for outcome in outcomes) == sorted(ids)
            saved = [outcome for outcome in outcomes if isinstance(outcome, Saved)]
            assert 0 < len(saved) < 60
            assert names(small_disk / "in") == sorted(f"{outcome.order_id}.pdf" for outcome in saved)
            assert all(fault_of(outcome.document.path.read_bytes()) is None for outcome in saved)
            filler.unlink()
            outcomes, error = await gathered(documents.download_many(ids, small_disk / "in", concurrency=8))
            assert error is None
        assert kinds(outcomes) == {"Skipped": len(saved), "Saved": 60 - len(saved)}


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 1 MB; where none may be mounted, a folder whose files may have no more together."""
    size = 1_000_000
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        yield tmp_path
        subprocess.run(["umount", str(tmp_path)], check=True)
        return
    real = os.write

    def write(fd: int, data: Any) -> int:
        if sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) + len(data) > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    yield tmp_path


async def cancelled_at_every_step(work: Any, check: Any) -> asyncio.Task[Any]:
    """Run `work` and cancel it after 0, 1, 2 … steps of the loop until it ends by itself.

    Far out the steps grow by a two-hundredth: there the loop only spins while the disk's thread is at work.
    """
    for step in accumulate(repeat(0), lambda step, _: step + 1 + step // 200):
        task = asyncio.create_task(work())
        for _ in range(step):
            await asyncio.sleep(0)
            if task.done():
                break
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            return task
        check()
    raise AssertionError


@pytest.mark.usefixtures("collected")
class TestCancelling:
    """Over a real socket, at every step of the loop."""

    @pytest.mark.parametrize(
        ("body", "durable"),
        [(pdf(42_000), False), (pdf(42_000), True), (LARGE, False)],
        ids=["small", "durable", "large"],
    )
    async def test_a_download_leaves_nothing_or_the_whole(self, tmp_path: Path, body: bytes, *, durable: bool) -> None:
        sandbox = Sandbox()

        async with serve(sandbox) as url, client(sandbox, url=url) as documents:
            connector = documents._session._transport._client.connector  # type: ignore[union-attr]

            async def work() -> Any:
                sandbox.script("a", [whole(body)])
                return await documents.download("a", tmp_path, durable=durable)

            def check() -> None:
                sandbox._scripts.clear()
                assert names(tmp_path) == []
                assert not connector._acquired
                assert own_tasks() == set()

            task = await cancelled_at_every_step(work, check)
            assert task.result().path.read_bytes() == body
            assert names(tmp_path) == ["a.pdf"]
            await settled(sandbox)
            assert documents._session.admission.places.free == 32

    async def test_a_batch_leaves_whole_documents_only(self, tmp_path: Path) -> None:
        sandbox = Sandbox()
        async with serve(sandbox) as url, client(sandbox, url=url, first=0.0) as documents:
            connector = documents._session._transport._client.connector  # type: ignore[union-attr]

            async def work() -> None:
                sandbox.script("b", [Unavailable(), Truncated()])
                async for _ in documents.download_many("abcd", tmp_path, concurrency=2, on_existing="replace"):
                    pass

            def check() -> None:
                sandbox._scripts.clear()
                assert not any(is_temp(name) for name in names(tmp_path))
                assert all(fault_of(path.read_bytes()) is None for path in tmp_path.iterdir())
                assert not connector._acquired
                assert own_tasks() == set()

            await cancelled_at_every_step(lambda: _listed(work), check)
            await settled(sandbox)

    @pytest.mark.parametrize("closing", [True, False])
    async def test_leaving_a_batch_early_stops_it(self, tmp_path: Path, *, closing: bool) -> None:
        sandbox = Sandbox()
        read = iter(demo_orders(500))
        async with serve(sandbox) as url, client(sandbox, url=url) as documents:
            if closing:
                async with aclosing(documents.download_many(read, tmp_path, concurrency=4)) as outcomes:
                    await anext(outcomes)
            else:
                async for _ in documents.download_many(read, tmp_path, concurrency=4):
                    break
                gc.collect()
            await until_alone()
            await settled(sandbox)
            assert len(list(read)) >= 500 - 10
        assert not any(is_temp(name) for name in names(tmp_path))


async def _listed(work: Any) -> None:
    await work()


async def until_alone() -> None:
    """Wait until no task of the library is left: what the disk's thread has in hand is waited for by its task."""
    for _ in range(5000):
        if not own_tasks():
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"left behind: {own_tasks()}")


async def settled(sandbox: Sandbox) -> None:
    """Wait until the served sandbox has noticed that its clients left."""
    for _ in range(5000):
        if not sandbox.in_flight:
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the sandbox still answers somebody")


class TestOpen:
    async def test_a_document_passes_through_without_the_disk(self) -> None:
        sandbox = Sandbox()
        async with serve(sandbox) as url, client(sandbox, url=url) as documents, documents.open(ORDER) as document:
            assert document.filename == f"invoice-{ORDER}.pdf"
            body = b"".join([chunk async for chunk in document.chunks])
            assert document.size == len(body)
            assert fault_of(body) is None
            assert "DiskWriter" not in str(documents._session._resources)

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
            connector = documents._session._transport._client.connector  # type: ignore[union-attr]
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


class TestDownloadMany:
    async def test_an_async_iterable_is_taken_too(self, tmp_path: Path) -> None:
        async def cursor() -> AsyncIterator[str]:
            for order_id in demo_orders(20):
                await asyncio.sleep(0)
                yield order_id

        async with client(made()) as documents:
            outcomes, error = await gathered(documents.download_many(cursor(), tmp_path))
        assert (kinds(outcomes), error) == ({"Saved": 20}, None)
        assert names(tmp_path) == sorted(f"{order_id}.pdf" for order_id in demo_orders(20))

    async def test_a_second_run_asks_for_nothing_that_is_whole(self, tmp_path: Path) -> None:
        ids = demo_orders(12)
        sandbox = made()
        async with client(sandbox) as documents:
            await gathered(documents.download_many(ids, tmp_path))
            (tmp_path / f"{ids[3]}.pdf").write_bytes(b"%PDF-1.7 broken")
            (tmp_path / f"{ids[4]}.pdf").unlink()
            (tmp_path / temp_name("dead", 1)).write_bytes(b"half")
            outcomes, _ = await gathered(documents.download_many(ids, tmp_path))
        assert kinds(outcomes) == {"Skipped": 10, "Saved": 2}
        assert all(outcome.document.attempts == 0 for outcome in outcomes if isinstance(outcome, Skipped))
        assert sandbox.calls("document") == 14
        assert len(names(tmp_path)) == 13

    async def test_an_id_that_comes_again_is_a_duplicate(self, tmp_path: Path) -> None:
        sandbox = made()
        async with client(sandbox) as documents:
            outcomes, _ = await gathered(documents.download_many(["a", "b", "a", "a"], tmp_path))
        assert kinds(outcomes) == {"Saved": 2, "Duplicate": 2}
        assert {outcome.order_id for outcome in outcomes if isinstance(outcome, Duplicate)} == {"a"}
        assert sandbox.calls("document") == 2

    async def test_an_order_that_is_not_eligible_is_deferred(self, tmp_path: Path) -> None:
        sandbox = made(faults=Faults(not_eligible=["b"]))
        async with client(sandbox) as documents:
            outcomes, _ = await gathered(documents.download_many(["a", "b"], tmp_path))
        (deferred,) = [outcome for outcome in outcomes if isinstance(outcome, Deferred)]
        assert deferred.order_id == "b"
        assert isinstance(deferred.error, OrderStatusError)
        assert "confirmed" in deferred.error.allowed_substatuses

    async def test_one_documents_error_never_ends_the_batch(self, tmp_path: Path) -> None:
        sandbox = made()
        answers: list[Scripted] = [
            NotPdf(),
            refusal(403),
            refusal(404),
            Truncated(),
            Reset(),
            Unavailable(),
            refusal(302),
            RateLimited(),
        ]
        for order_id, answer in zip("abcdefgh", answers, strict=True):
            sandbox.script(order_id, [answer])
        async with client(sandbox, attempts=1) as documents:
            outcomes, error = await gathered(documents.download_many(list("abcdefghij"), tmp_path))
        assert error is None
        assert kinds(outcomes) == {"Failed": 8, "Saved": 2}
        assert names(tmp_path) == ["i.pdf", "j.pdf"]

    async def test_a_refused_credential_ends_it_at_once(self, tmp_path: Path) -> None:
        ids = demo_orders(200)
        sandbox = made(*[Genuine()] * 10, *[refusal(401)] * 300)
        async with client(sandbox) as documents:
            outcomes, error = await gathered(documents.download_many(ids, tmp_path, concurrency=4))
        assert isinstance(error, AuthenticationError)
        assert sorted(outcome.order_id for outcome in outcomes) == sorted(ids)
        assert kinds(outcomes)["Saved"] + kinds(outcomes)["NotStarted"] == 199
        assert kinds(outcomes)["Failed"] == 1
        assert 6 <= kinds(outcomes)["Saved"] <= 10
        left = [outcome.error for outcome in outcomes if isinstance(outcome, NotStarted)]
        assert all(isinstance(cause, AuthenticationError) for cause in left)
        assert left[-1] is error
        assert sandbox.calls("document") <= 18
        assert len(names(tmp_path)) == kinds(outcomes)["Saved"]

    async def test_an_error_of_the_input_is_raised_after_what_is_in_flight(self, tmp_path: Path) -> None:
        def cursor() -> Iterator[str]:
            yield from "abc"
            raise LookupError("the cursor died")

        async with client(made()) as documents:
            outcomes, error = await gathered(documents.download_many(cursor(), tmp_path))
        assert isinstance(error, LookupError)
        assert kinds(outcomes) == {"Saved": 3}

    async def test_a_session_that_is_closed_meanwhile_ends_it(self, tmp_path: Path) -> None:
        async with client(made()) as documents:
            outcomes = documents.download_many(demo_orders(50), tmp_path, concurrency=2)
            first = await anext(outcomes)
        more, error = await gathered(outcomes)
        assert isinstance(error, (SessionError, RuntimeError))
        assert len([first, *more]) == 50

    async def test_backing_off_holds_no_place(self, tmp_path: Path) -> None:
        """With one place for all, nine documents are saved while the first waits half a minute."""
        clock = FakeClock(auto=False)
        sandbox = made(RateLimited(retry_after="30"), clock=clock)
        async with (
            client(sandbox, limits=Limits(concurrency=1)) as documents,
            aclosing(documents.download_many(demo_orders(10), tmp_path)) as outcomes,
        ):
            found = [await anext(outcomes) for _ in range(9)]
            assert kinds(found) == {"Saved": 9}
            assert clock.slept == [30.0]
            clock.advance(30.0)
            last = await anext(outcomes)
        assert isinstance(last, Saved)
        assert (last.order_id, last.document.attempts) == (demo_orders(10)[0], 2)
        assert sandbox.peak == 1

    @pytest.mark.parametrize("concurrency", [1, 5])
    async def test_nothing_is_read_ahead_beyond_the_concurrency(self, tmp_path: Path, concurrency: int) -> None:
        """However slow the consumer is."""
        read = 0

        def ids() -> Iterator[str]:
            nonlocal read
            for number in count():
                read += 1
                yield f"o-{number}"

        sandbox = made()
        async with (
            client(sandbox) as documents,
            aclosing(documents.download_many(ids(), tmp_path, concurrency=concurrency)) as outcomes,
        ):
            for taken in range(1, 12):
                await anext(outcomes)
                for _ in range(20):
                    await asyncio.sleep(0.0005)
                assert read <= taken + concurrency
        assert sandbox.peak <= concurrency

    async def test_a_batch_may_take_less_than_the_session(self, tmp_path: Path) -> None:
        sandbox = made(*[Slow(0.0, size=300)] * 20)
        async with client(sandbox, limits=Limits(concurrency=8)) as documents:
            await gathered(documents.download_many(demo_orders(20), tmp_path, concurrency=3))
        assert sandbox.peak == 3

    @pytest.mark.parametrize(("calls", "documents"), [(1, 1), (32, 32), (33, 37), (64, 72)])
    async def test_a_wide_session_has_more_documents_than_calls_under_way(
        self, tmp_path: Path, calls: int, documents: int
    ) -> None:
        """While some are at the disk, others are awaited; the ids read ahead are no more than these."""
        read: list[str] = []

        def ids() -> Iterator[str]:
            for order_id in demo_orders(200):
                read.append(order_id)
                yield order_id

        async with client(made(), limits=Limits(concurrency=calls)) as found:
            assert found.concurrency == documents
            async with aclosing(found.download_many(ids(), tmp_path)) as outcomes:
                given = 0
                async for _ in outcomes:
                    given += 1
                    assert len(read) <= given + documents

    async def test_a_saver_does_one_id_after_the_other_and_mends_its_own_file(self, tmp_path: Path) -> None:
        """The inside of a batch, for a run that keeps its own books."""
        async with client(made()) as documents:
            saver = await documents.saver(tmp_path)
            first = await saver.outcome("a", documents.sleep)
            assert isinstance(first, Saved)
            first.document.path.write_bytes(b"%PDF-1.7 broken")
            second = await saver.outcome("a", documents.sleep, replace=first.document.path)
            assert second == first
            assert documents.concurrency == 32
        assert names(tmp_path) == ["a.pdf"]
        assert fault_of(first.document.path.read_bytes()) is None

    @given(
        ids=st.lists(st.sampled_from("abcdefgh"), max_size=24),
        faults=st.dictionaries(
            st.sampled_from("abcdefgh"), st.lists(st.sampled_from([*BROKEN, *FINAL[:2], *FINAL[3:]]))
        ),
        concurrency=st.integers(1, 6),
        durable=st.booleans(),
    )
    @settings(max_examples=60, deadline=None)
    async def test_every_id_ends_in_exactly_one_outcome(
        self, ids: list[str], faults: dict[str, list[tuple[Scripted, Any]]], concurrency: int, *, durable: bool
    ) -> None:
        """And a document is there if and only if its outcome says so."""
        sandbox = made()
        for order_id, answers in faults.items():
            sandbox.script(order_id, [answer for answer, _ in answers])
        with TemporaryDirectory() as name:
            folder = Path(name)
            async with client(sandbox) as documents:
                batch = documents.download_many(ids, folder, concurrency=concurrency, durable=durable)
                outcomes, error = await gathered(batch)
            assert error is None
            assert Counter(outcome.order_id for outcome in outcomes) == Counter(ids)
            assert kinds(outcomes)["Duplicate"] == len(ids) - len(set(ids))
            saved = {outcome.order_id: outcome.document for outcome in outcomes if isinstance(outcome, Saved)}
            assert names(folder) == sorted(f"{order_id}.pdf" for order_id in saved)
            for document in saved.values():
                assert sha256(document.path.read_bytes()).hexdigest() == document.sha256
        assert own_tasks() == set()


async def test_an_id_is_quoted_exactly_once_into_the_path() -> None:
    transport = FakeTransport([FakeResponse(status=404)])
    async with Session(BASE, auth=StaticToken("t"), transport=transport) as session:
        with pytest.raises(ApiError):
            async with OrderDocuments(session).open("a b%20/ü"):
                raise AssertionError
    assert transport.sent[0].path == "/partner/stores/orders/a%20b%2520%2F%C3%BC/documents/invoice"

"""Order documents: saved whole or not at all, every id accounted for, one web response passed through."""

from __future__ import annotations

import asyncio
import re
import tracemalloc
from collections.abc import AsyncIterator, Iterable
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fakes import FakeResponse, FakeTransport
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
    names,
    opened,
    pdf,
    whole,
)

from invoicing_async._files.layout import Layout
from invoicing_async._files.pdf import fault_of
from invoicing_async._files.publish import OnExisting
from invoicing_async.auth import StaticToken
from invoicing_async.documents import OrderDocuments
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    IncompleteDocumentError,
    OversizedDocumentError,
    ProtocolError,
    SessionError,
    TransportError,
)
from invoicing_async.events import DocumentSaved
from invoicing_async.policies import Timeouts
from invoicing_async.sandbox import (
    Answer,
    Endless,
    Scripted,
    Slow,
    demo_orders,
)
from invoicing_async.session import Session

pytestmark = pytest.mark.asyncio
NOT_IDS = ["", ".", "..", True, 7.0, None, b"a"]


async def source(ids: Iterable[Any]) -> AsyncIterator[Any]:
    for order_id in ids:
        await asyncio.sleep(0)
        yield order_id


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

    async def test_an_observer_is_called_for_each_saved_document(self, tmp_path: Path) -> None:
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
        async with opened(sandbox) as session:
            found = OrderDocuments(session, **named)
            if taken:
                async with found.open("a") as document:
                    assert document.headers["Content-Type"] == "application/pdf"
                assert (await found.download("a", tmp_path)).size == len(pdf())
                return
            with pytest.raises(ProtocolError, match=rf"'{kind}' where .*OrderDocuments\(content_types=\.\.\.\)"):
                await found.download("a", tmp_path)
        assert sandbox.calls("document") == 1

    async def test_one_text_is_not_several_types(self) -> None:
        async with opened(made()) as session:
            with pytest.raises(ValueError, match="content_types must be several types"):
                OrderDocuments(session, content_types="text/plain")


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
            OrderDocuments(Session(BASE, auth=StaticToken("t")), max_bytes=0)

    async def test_a_closed_session_says_so(self, tmp_path: Path) -> None:
        async with client(made()) as documents:
            pass
        with pytest.raises(SessionError, match="closed"):
            await documents.download(ORDER, tmp_path)
        _, error = await gathered(documents.download_many([ORDER], tmp_path))
        assert isinstance(error, SessionError)


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


async def test_an_id_is_quoted_exactly_once_into_the_path() -> None:
    transport = FakeTransport([FakeResponse(status=404)])
    async with Session(BASE, auth=StaticToken("t"), transport=transport) as session:
        with pytest.raises(ApiError):
            async with OrderDocuments(session).open("a b%20/ü"):
                raise AssertionError
    assert transport.sent[0].path == "/partner/stores/orders/a%20b%2520%2F%C3%BC/documents/invoice"

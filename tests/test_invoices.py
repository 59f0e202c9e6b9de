"""E-invoices against the sandbox: submitting, waiting, batches, exports. Fates stand in test_submission_fates."""

from __future__ import annotations

import asyncio
import json
import logging
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest
from attrs import evolve
from fakes import FakeClock, FakeResponse, FakeTransport
from leaks import in_use, others

from invoicing_async import (
    AsyncInvoices,
    InvoiceDraft,
    InvoiceLine,
    Limits,
    OAuthClientCredentials,
    Poller,
    RequestStatus,
    RetryPolicy,
    Session,
    StaticToken,
)
from invoicing_async._core.http import Request, Response
from invoicing_async._files.publish import OnExisting
from invoicing_async._transport.server import serve
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    DraftError,
    ExportError,
    IncompleteDocumentError,
    PollTimeoutError,
    ProtocolError,
    ServiceUnavailableError,
    SessionError,
    SubmissionInDoubtError,
    TransportError,
)
from invoicing_async.events import Event, OperationPolled, UnknownStatus
from invoicing_async.invoices import SubmitOutcome, WireNames
from invoicing_async.invoices._calls import Endpoints
from invoicing_async.invoices._waiting import Single
from invoicing_async.models import InDoubt, Invalid, InvoiceRequest, NotSent, Rejected, Submitted, Unsettled
from invoicing_async.sandbox import (
    Answer,
    DropBeforeAnswer,
    Faults,
    Hang,
    Operation,
    RateLimited,
    Reset,
    Sandbox,
    SandboxSettings,
    Truncated,
    Unavailable,
)

pytestmark = pytest.mark.asyncio

T = TypeVar("T")
TOKEN = SandboxSettings().credentials.token
STRANGER = "00000000-0000-4000-8000-00000000000f"
STEADY = Poller(first=1, factor=1, jitter=0, timeout=300)


def draft(number: int = 1, **changed: Any) -> InvoiceDraft:
    line = InvoiceLine(name="Cà phê", unit="kg", price="12.50", quantity=f"{number}.000")
    made = InvoiceDraft(key=f"INV-{number}", invoice_template_id="01234567-89ab-cdef-0123-456789abcdef", lines=[line])
    return evolve(made, **changed)


def said(status: str, **more: Any) -> Answer:
    return Answer(headers={"Content-Type": "application/json"}, body=json.dumps({"status": status, **more}).encode())


@asynccontextmanager
async def sandboxed(
    *, clock: FakeClock | None = None, sandbox: Sandbox | None = None, **named: Any
) -> AsyncIterator[tuple[AsyncInvoices, Sandbox]]:
    """Give the e-invoices of a sandbox without a socket, on a clock that sleeping moves; nothing may be left after."""
    clock = clock or FakeClock()
    settings = named.pop("settings", None) or SandboxSettings()
    sandbox = sandbox or Sandbox(settings, faults=named.pop("faults", Faults(polls_until_done=(2, 2))), clock=clock)
    invoicing = {name: named.pop(name) for name in ("names", "endpoints", "max_bytes") if name in named}
    named.setdefault("auth", StaticToken(TOKEN))
    named.setdefault("retry", RetryPolicy(attempts=3, first=1.0))
    async with Session("http://sandbox.test", transport=sandbox, clock=clock, **named) as session:
        invoices = AsyncInvoices(session, **invoicing)
        yield invoices, sandbox
        await asyncio.sleep(0)
        assert len(invoices._scheduler) == 0
    assert sandbox.in_flight == 0
    assert others() == set()


def scripted(*answers: FakeResponse) -> FakeTransport:
    return FakeTransport(answers=list(answers))


@asynccontextmanager
async def faked(transport: FakeTransport, **named: Any) -> AsyncIterator[AsyncInvoices]:
    named.setdefault("clock", FakeClock())
    async with Session("http://fake.test", auth=StaticToken("t"), transport=transport, **named) as session:
        yield AsyncInvoices(session)
    await asyncio.sleep(0)
    assert transport.open == 0
    assert others() == set()


async def gathered(given: AsyncIterator[T], into: list[T]) -> None:
    """Keep what comes before the error that ends it."""
    async for one in given:
        into.append(one)  # noqa: PERF401 - what came before the error counts


class TestSubmit:
    async def test_the_digits_of_a_draft_arrive_exactly_as_they_were_given(self) -> None:
        precise = InvoiceLine(name="x", unit="u", price="0.1000000000000000000001", quantity="3")
        async with sandboxed() as (invoices, sandbox):
            request = await invoices.submit(draft(lines=[precise]))
        created = sandbox.created[request.request_id]
        assert b'"price":0.1000000000000000000001' in created.body
        assert created.content["invoice_data"]["invoice_lines"][0]["price"] == Decimal("0.1000000000000000000001")
        assert b"INV-1" not in created.body
        assert request.status is RequestStatus.NEW

    async def test_every_fault_is_reported_and_nothing_is_sent(self) -> None:
        bad = draft(invoice_template_id="7", lines=[InvoiceLine(name="n" * 501, unit="", price="x", quantity="1")])
        async with sandboxed() as (invoices, sandbox):
            with pytest.raises(DraftError) as caught:
                await invoices.submit(bad)
        paths = {fault.path for fault in caught.value.faults}
        assert {"invoice_template_id", "lines[0].name", "lines[0].price"} <= paths
        assert (caught.value.key, caught.value.sent) == ("INV-1", "no")
        assert sandbox.calls(Operation.SUBMIT) == 0

    async def test_it_may_be_terminal_at_once(self) -> None:
        async with sandboxed(faults=Faults(polls_until_done=(0, 0))) as (invoices, sandbox):
            request = await invoices.create(draft())
        assert request.terminal
        assert sandbox.calls(Operation.STATUS) == 0

    async def test_create_waits_for_the_end(self) -> None:
        async with sandboxed() as (invoices, sandbox):
            request = await invoices.create(draft(), poller=STEADY)
        assert request.status is RequestStatus.SUCCESS
        assert request.data is not None
        assert request.data.id == sandbox.created[request.request_id].invoice_id
        assert sandbox.calls(Operation.STATUS) == 2

    async def test_a_lost_answer_is_in_doubt_and_is_never_sent_again(self) -> None:
        async with sandboxed() as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [DropBeforeAnswer()])
            with pytest.raises(SubmissionInDoubtError) as caught:
                await invoices.submit(draft())
        (created,) = sandbox.created.values()
        assert caught.value.body_sha256 == sha256(created.body).hexdigest()
        assert sandbox.calls(Operation.SUBMIT) == 1

    async def test_sent_at_is_when_the_last_attempt_left(self) -> None:
        clock = FakeClock()
        async with sandboxed(clock=clock) as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [RateLimited(retry_after="90"), DropBeforeAnswer()])
            begun = clock.now()
            with pytest.raises(SubmissionInDoubtError) as caught:
                await invoices.submit(draft())
        assert caught.value.sent_at == begun + 90

    async def test_before_is_awaited_before_each_attempt(self) -> None:
        seen: list[int] = []
        async with sandboxed() as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [Unavailable()])

            async def before() -> None:
                seen.append(sandbox.calls(Operation.SUBMIT))

            await invoices.submit(draft(), before=before)
        assert seen == [0, 1]

    async def test_a_credential_that_cannot_be_had_means_it_was_not_sent(self) -> None:
        credentials = {**SandboxSettings().credentials.client(), "client_secret": "wrong"}
        async with sandboxed(auth=OAuthClientCredentials(**credentials)) as (invoices, sandbox):
            with pytest.raises(AuthenticationError) as caught:
                await invoices.submit(draft())
        assert caught.value.sent == "no"
        assert sandbox.calls(Operation.SUBMIT) == 0

    async def test_names_and_endpoints_are_settings(self) -> None:
        transport = scripted(FakeResponse(pieces=(json.dumps({"request_id": STRANGER, "status": "NEW"}).encode(),)))
        async with Session("http://fake.test", auth=StaticToken("t"), transport=transport) as session:
            invoices = AsyncInvoices(
                session,
                names=WireNames(payment_method="pay"),
                endpoints=Endpoints(create="/v3/new", status_method="GET", status="/v3/{}/state"),
            )
            await invoices.submit(draft(payment_method="CASH"))
            await invoices.status(STRANGER)
        assert [(sent.method, sent.path) for sent in transport.sent] == [
            ("POST", "/v3/new"),
            ("GET", f"/v3/{STRANGER}/state"),
        ]
        assert b'"pay":"CASH"' in transport.sent[0].body

    async def test_a_longer_answer_than_any_invoice_is_refused(self) -> None:
        transport = scripted(FakeResponse(pieces=(b" " * 2**24, b" ")))
        async with faked(transport) as invoices:
            with pytest.raises(ProtocolError, match="longer than"):
                await invoices.status(STRANGER)


class TestStatus:
    @pytest.mark.parametrize("request_id", ["", "7", "../x", None, 7, "g" * 36])
    async def test_an_id_that_is_no_uuid_is_a_bad_argument(self, request_id: Any) -> None:
        async with sandboxed() as (invoices, _):
            for call in (invoices.status, invoices.wait):
                with pytest.raises(ValueError, match="request_id must be a UUID"):
                    await call(request_id)

    async def test_an_unknown_request_is_the_services_own_error(self) -> None:
        async with sandboxed() as (invoices, _):
            with pytest.raises(ApiError) as caught:
                await invoices.status(STRANGER)
        assert caught.value.status == 404

    async def test_an_error_envelope_under_200_is_that_error(self) -> None:
        envelope = {"success": False, "error": {"code": "SYS_DEP_503", "message": "down"}}
        async with faked(scripted(FakeResponse(pieces=(json.dumps(envelope).encode(),)))) as invoices:
            with pytest.raises(ServiceUnavailableError):
                await invoices.status(STRANGER, retry=RetryPolicy(attempts=1))

    async def test_an_envelope_of_success_is_looked_through(self) -> None:
        inner = b'{"success":true,"data":{"request_id":"%s","status":"NEW"}}' % STRANGER.encode()
        async with faked(scripted(FakeResponse(pieces=(inner,)))) as invoices:
            assert (await invoices.status(STRANGER)).status is RequestStatus.NEW

    async def test_a_date_to_wait_for_is_taken_from_now(self) -> None:
        """An envelope under 200 may ask for a wait as one under 503 does."""
        clock = FakeClock()
        envelope = b'{"success":false,"error":{"code":"SYS_DEP_503"}}'
        until = format_datetime(datetime.fromtimestamp(int(clock.now()) + 20, UTC), usegmt=True)
        answers = [
            FakeResponse(headers={"Retry-After": until}, pieces=(envelope,)),
            FakeResponse(pieces=(b'{"status":"NEW"}',)),
        ]
        async with faked(scripted(*answers), clock=clock) as invoices:
            assert (await invoices.status(STRANGER)).status is RequestStatus.NEW
        assert clock.elapsed == 20


class TestWait:
    @pytest.mark.parametrize("share", [0.0, 1.0])
    async def test_success_and_failed_are_both_answers(self, share: float) -> None:
        async with sandboxed(faults=Faults(polls_until_done=(3, 3), failed_share=share)) as (invoices, sandbox):
            request = await invoices.submit(draft())
            ended = await invoices.wait(request.request_id, poller=STEADY)
        assert ended.status is (RequestStatus.FAILED if share else RequestStatus.SUCCESS)
        assert (ended.data is None) is bool(share)
        assert sandbox.calls(Operation.STATUS) == 3

    async def test_a_spent_timeout_carries_what_the_next_wait_needs(self) -> None:
        clock = FakeClock()
        async with sandboxed(clock=clock, faults=Faults(seconds_until_done=(100, 100))) as (invoices, sandbox):
            request = await invoices.submit(draft())
            with pytest.raises(PollTimeoutError) as caught:
                await invoices.wait(request.request_id, poller=Poller(first=1, factor=2, jitter=0, timeout=10))
            error = caught.value
            assert (error.request_id, error.polls) == (request.request_id, 4)
            assert error.last == InvoiceRequest(request_id=request.request_id, status=RequestStatus.NEW)
            assert clock.elapsed == 10
            assert (await invoices.wait(error.request_id)).status is RequestStatus.SUCCESS
        assert len(sandbox.created) == 1

    async def test_an_unknown_status_is_polled_on_and_told_once(self, caplog: pytest.LogCaptureFixture) -> None:
        events: list[Event] = []
        async with sandboxed(on_event=events.append) as (invoices, sandbox):
            ids = [(await invoices.submit(draft(number))).request_id for number in (1, 2)]
            sandbox.script(Operation.STATUS, [said("QUEUED")] * 4)
            with caplog.at_level(logging.WARNING, "invoicing_async"):
                for number in ids:
                    assert (await invoices.wait(number, poller=STEADY)).terminal
        assert [record.getMessage() for record in caplog.records] == [
            "unknown request status 'QUEUED' is treated as not terminal"
        ]
        assert [event for event in events if isinstance(event, UnknownStatus)] == [
            UnknownStatus(request_id=ids[0], status="QUEUED")
        ]
        polled = [event for event in events if isinstance(event, OperationPolled) and event.request_id == ids[0]]
        assert [(event.status, event.polls) for event in polled[-2:]] == [("NEW", 5), ("SUCCESS", 6)]

    async def test_an_unknown_status_is_the_last_one_of_a_spent_wait(self) -> None:
        async with sandboxed() as (invoices, sandbox):
            request = await invoices.submit(draft())
            sandbox.script(Operation.STATUS, [said("QUEUED")])
            with pytest.raises(PollTimeoutError) as caught:
                await invoices.wait(request.request_id, poller=[1])
        assert caught.value.last.status == "QUEUED"

    async def test_retry_after_is_a_floor_for_the_next_poll(self) -> None:
        clock = FakeClock()
        async with sandboxed(clock=clock, faults=Faults(polls_until_done=(1, 1))) as (invoices, sandbox):
            request = await invoices.submit(draft())
            sandbox.script(Operation.STATUS, [RateLimited(retry_after="40")])
            await invoices.wait(request.request_id, poller=STEADY)
            polls = [entry.at for entry in sandbox.log if entry.operation is Operation.STATUS]
        assert polls[1] - polls[0] == 40

    async def test_failures_of_polls_have_their_own_budget(self) -> None:
        async with sandboxed(faults=Faults(polls_until_done=(1, 1))) as (invoices, sandbox):
            request = await invoices.submit(draft())
            sandbox.script(Operation.STATUS, [Reset(), Unavailable(), Reset()])
            assert (await invoices.wait(request.request_id, poller=evolve(STEADY, errors=3))).terminal
            sandbox.script(Operation.STATUS, [Unavailable(), Reset()])
            with pytest.raises(TransportError):
                await invoices.wait(request.request_id, poller=evolve(STEADY, errors=1, error_time=0))
        assert sandbox.calls(Operation.STATUS) == 6

    @pytest.mark.parametrize(("status", "calls"), [(400, 1), (410, 1), (422, 1), (403, 2), (404, 2)])
    async def test_what_polling_again_cannot_mend_is_raised(self, status: int, calls: int) -> None:
        async with sandboxed() as (invoices, sandbox):
            sandbox.script(Operation.STATUS, [Answer(status=status)] * 9)
            with pytest.raises(ApiError) as caught:
                await invoices.wait(STRANGER, poller=evolve(STEADY, not_found_grace=0))
        assert (caught.value.status, sandbox.calls(Operation.STATUS)) == (status, calls)

    async def test_one_poll_that_hangs_ends_with_its_own_timeout(self) -> None:
        clock = FakeClock(auto=False)
        async with sandboxed(clock=clock, faults=Faults(polls_until_done=(1, 1))) as (invoices, sandbox):
            request = await invoices.submit(draft())
            sandbox.script(Operation.STATUS, [Hang()])
            waiting = asyncio.create_task(invoices.wait(request.request_id, poller=evolve(STEADY, poll_timeout=7)))
            while not waiting.done():
                await asyncio.sleep(0)
                clock.advance(0.1)
            assert waiting.result().terminal
            first, second = [entry.at for entry in sandbox.log if entry.operation is Operation.STATUS][-2:]
            # The hanging request is noted when it is given up.
            assert second - first > 7

    @pytest.mark.parametrize("waits", [[1, 2, 4, 8], (1, 2, 4, 8), iter([1, 2, 4, 8])], ids=["list", "tuple", "iter"])
    async def test_own_waits_may_be_any_iterable(self, waits: Any) -> None:
        clock = FakeClock()
        async with sandboxed(clock=clock, faults=Faults(polls_until_done=(3, 3))) as (invoices, _):
            request = await invoices.submit(draft())
            await invoices.wait(request.request_id, poller=waits)
        assert clock.elapsed == 7

    async def test_own_waits_that_end_are_a_spent_timeout(self) -> None:
        async with sandboxed() as (invoices, _):
            request = await invoices.submit(draft())
            with pytest.raises(PollTimeoutError):
                await invoices.wait(request.request_id, poller=(wait for wait in (1.0,)))

    @pytest.mark.parametrize("wait", [-1, float("inf"), float("nan"), "1", None, True])
    async def test_a_wait_out_of_bounds_is_a_bad_argument(self, wait: Any) -> None:
        async with sandboxed() as (invoices, sandbox):
            for waits in ([wait], iter([wait, 1])):
                if wait is None and not isinstance(waits, list):
                    continue  # an iterator's None reads as its end
                with pytest.raises(ValueError, match="wait of the poller must be a finite number of 0 or more"):
                    await invoices.wait(STRANGER, poller=waits)
        assert sandbox.calls(Operation.STATUS) == 0

    async def test_a_text_is_no_schedule(self) -> None:
        async with sandboxed() as (invoices, _):
            with pytest.raises(ValueError, match="wait of the poller"):
                await invoices.wait(STRANGER, poller="12")  # type: ignore[arg-type]

    async def test_an_id_awaited_in_ten_places_is_polled_once_per_due_time(self) -> None:
        clock = FakeClock(auto=False)
        async with sandboxed(clock=clock, faults=Faults(seconds_until_done=(5, 5))) as (invoices, sandbox):
            request = await invoices.submit(draft())
            number = request.request_id
            patient = [asyncio.create_task(invoices.wait(number, poller=STEADY)) for _ in range(9)]
            short = asyncio.create_task(invoices.wait(number, poller=evolve(STEADY, timeout=2.5)))
            for _ in range(60):
                for _ in range(20):
                    await asyncio.sleep(0)
                clock.advance(0.1)
            assert isinstance(short.exception(), PollTimeoutError)
            assert {task.result().status for task in patient} == {RequestStatus.SUCCESS}
        # At 1, 2, 2.5 (the short one's end), 3.5, 4.5 and 5.5 s.
        assert sandbox.calls(Operation.STATUS) == 6

    async def test_an_event_handler_that_raises_does_not_end_the_wait(self) -> None:
        def observe(event: Event) -> None:
            if isinstance(event, OperationPolled):
                raise LookupError("a defect of the observer")

        async with sandboxed(on_event=observe) as (invoices, _):
            request = await invoices.submit(draft())
            assert (await invoices.wait(request.request_id)).terminal

    async def test_a_closed_session_cannot_wait(self) -> None:
        async with sandboxed() as (invoices, _):
            pass
        with pytest.raises(SessionError):
            await invoices.wait(STRANGER)
        with pytest.raises(SessionError):
            await anext(invoices.wait_many([STRANGER]))


@asynccontextmanager
async def on_a_port(**named: Any) -> AsyncIterator[tuple[AsyncInvoices, Sandbox]]:
    """Give the e-invoices of a sandbox on a real socket; afterwards no connection may be in use."""
    sandbox = Sandbox(named.pop("settings", None), faults=named.pop("faults", Faults(seconds_until_done=(900, 900))))
    async with serve(sandbox) as url, Session(url, auth=StaticToken(TOKEN), **named) as session:
        yield AsyncInvoices(session), sandbox
        assert in_use(session) == 0


@pytest.mark.usefixtures("collected")
class TestCancelling:
    async def test_a_wait_at_any_step_leaves_nothing_and_does_not_disturb_the_operation(self) -> None:
        async with on_a_port() as (invoices, sandbox):
            request = await invoices.submit(draft())
            before = others()
            for steps in range(40):
                waiting = asyncio.create_task(invoices.wait(request.request_id, poller=[0.0] * 1000))
                for _ in range(steps):
                    await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert in_use(invoices._session) == 0
                assert len(invoices._scheduler) == 0
                assert {task for task in others() - before if "_scheduler" in repr(task.get_coro())} == set()
            assert sandbox.calls(Operation.STATUS) > 0
            assert (await invoices.status(request.request_id)).status is RequestStatus.NEW
            assert len(sandbox.created) == 1

    async def test_wait_many_at_any_step_leaves_nothing(self) -> None:
        async with on_a_port() as (invoices, _):
            ids = [(await invoices.submit(draft(number))).request_id for number in range(1, 6)]
            for steps in range(0, 60, 2):
                ends = invoices.wait_many(ids, poller=[0.0] * 1000)
                consumer = asyncio.create_task(anext(ends))
                for _ in range(steps):
                    await asyncio.sleep(0)
                consumer.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await consumer
                assert in_use(invoices._session) == 0
                assert len(invoices._scheduler) == 0

    async def test_the_last_waiter_that_leaves_cancels_the_poll_in_flight(self) -> None:
        async with on_a_port() as (invoices, sandbox):
            request = await invoices.submit(draft())
            sandbox.script(Operation.STATUS, [Hang()])
            waiters = [asyncio.create_task(invoices.wait(request.request_id, poller=[0.0])) for _ in range(2)]
            while not sandbox.in_flight:  # noqa: ASYNC110 - only the sandbox knows when a request arrives
                await asyncio.sleep(0.001)
            for waiter, left in zip(waiters, (1, 0), strict=True):
                waiter.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiter
                assert in_use(invoices._session) == left


class TestWaitMany:
    async def ends(self, invoices: AsyncInvoices, ids: Any, **named: Any) -> list[InvoiceRequest | Unsettled]:
        async with aclosing(invoices.wait_many(ids, **named)) as ends:
            return [end async for end in ends]

    async def submitted(self, invoices: AsyncInvoices, count: int) -> list[str]:
        return [(await invoices.submit(draft(number))).request_id for number in range(1, count + 1)]

    async def test_every_request_ends_once_as_they_finish(self) -> None:
        clock = FakeClock()
        async with sandboxed(clock=clock, faults=Faults(seconds_until_done=(0, 60), failed_share=0.3)) as (invoices, s):
            ids = await self.submitted(invoices, 50)
            ready = {number: s._einvoices._progress[number].ready_at for number in ids}
            ends = await self.ends(invoices, [*ids, *ids], poller=STEADY)
        assert Counter(end.request_id for end in ends) == Counter(ids)
        assert {end.status for end in ends} == {RequestStatus.SUCCESS, RequestStatus.FAILED}
        order = [ready[end.request_id] for end in ends]
        assert all(later > sooner - 1.001 for sooner, later in pairwise(order))

    async def test_nothing_to_wait_for_is_the_end(self) -> None:
        async with sandboxed() as (invoices, _):
            assert await self.ends(invoices, []) == []

    async def test_ids_may_be_added_while_it_runs(self) -> None:
        async with sandboxed() as (invoices, _):
            ids = await self.submitted(invoices, 3)
            more = asyncio.Queue[str]()
            more.put_nowait(ids[0])

            async def queue() -> AsyncIterator[str]:
                for _ in ids:
                    yield await more.get()

            ends = []
            async for end in invoices.wait_many(queue(), poller=STEADY):
                ends.append(end.request_id)
                if len(ends) < 3:
                    more.put_nowait(ids[len(ends)])
        assert ends == ids

    async def test_an_id_that_ended_already_is_not_asked_about_again(self) -> None:
        async with sandboxed() as (invoices, sandbox):
            (number,) = await self.submitted(invoices, 1)
            first = asyncio.Event()

            async def twice() -> AsyncIterator[str]:
                yield number
                await first.wait()
                yield number

            ends = []
            async for end in invoices.wait_many(twice(), poller=STEADY):
                ends.append(end)
                first.set()
        assert len(ends) == 1
        assert sandbox.calls(Operation.STATUS) == 2

    async def test_what_ends_without_an_answer_is_unsettled(self) -> None:
        async with sandboxed(faults=Faults(seconds_until_done=(900, 900))) as (invoices, _):
            (number,) = await self.submitted(invoices, 1)
            poller = evolve(STEADY, timeout=3, not_found_grace=0)
            ends = await self.ends(invoices, [number, STRANGER, "7"], poller=poller)
        found = {end.request_id: end for end in ends}
        errors = {number: type(end.error) for number, end in found.items() if isinstance(end, Unsettled)}
        assert errors == {number: PollTimeoutError, STRANGER: ApiError, "7": ValueError}
        assert not any(end.terminal for end in ends)
        assert found[number].status is RequestStatus.NEW

    async def test_first_polls_are_spread(self) -> None:
        clock = FakeClock(chances=tuple(index / 64 for index in range(64)))
        async with sandboxed(clock=clock, faults=Faults(polls_until_done=(1, 1))) as (invoices, sandbox):
            ids = await self.submitted(invoices, 20)
            begun = clock.now()
            await self.ends(invoices, ids, poller=evolve(STEADY, first=10))
            polls = [entry.at - begun for entry in sandbox.log if entry.operation is Operation.STATUS]
        assert len(set(polls)) > 15
        assert 0 <= min(polls) < max(polls) <= 10

    async def test_at_most_so_many_polls_run_at_a_time(self) -> None:
        clock = FakeClock(auto=False)
        settings = SandboxSettings(latency=0.1)
        async with sandboxed(clock=clock, settings=settings, limits=Limits(concurrency=4)) as (invoices, sandbox):
            turning = asyncio.create_task(self.turned(clock))
            ids = await self.submitted(invoices, 30)
            sandbox.peak = 0
            assert len(await self.ends(invoices, ids, poller=STEADY)) == 30
            assert sandbox.peak == 4
            turning.cancel()
            await asyncio.wait([turning])

    async def turned(self, clock: FakeClock) -> None:
        while True:
            for _ in range(10):
                await asyncio.sleep(0)
            clock.advance(0.05)

    async def test_polls_and_other_calls_share_one_rate(self) -> None:
        clock = FakeClock()
        limits = Limits(concurrency=8, per_second=10)
        async with sandboxed(clock=clock, limits=limits, faults=Faults(polls_until_done=(1, 1))) as (invoices, sandbox):
            ids = await self.submitted(invoices, 10)
            ends = asyncio.create_task(self.ends(invoices, ids, poller=evolve(STEADY, first=0.1)))
            await self.submitted(invoices, 10)
            await ends
        assert sandbox.calls(Operation.SUBMIT) + sandbox.calls(Operation.STATUS) == 30
        assert clock.elapsed >= 2.9

    async def test_an_iterator_of_waits_cannot_serve_many(self) -> None:
        async with sandboxed() as (invoices, sandbox):
            with pytest.raises(ValueError, match="an iterator can serve one operation only"):
                await self.ends(invoices, [STRANGER], poller=iter([1.0]))
        assert not sandbox.log

    @pytest.mark.parametrize("kind", ["sync", "async"])
    async def test_an_error_of_the_input_is_raised_after_what_was_begun(self, kind: str) -> None:
        async with sandboxed() as (invoices, _):
            ids = await self.submitted(invoices, 2)

            def broken() -> Iterator[str]:
                yield from ids
                raise LookupError("the input broke")

            async def awaited() -> AsyncIterator[str]:
                for number in broken():
                    yield number

            ends: list[InvoiceRequest | Unsettled] = []
            with pytest.raises(LookupError):
                await gathered(invoices.wait_many(broken() if kind == "sync" else awaited(), poller=STEADY), ends)
        assert sorted(end.request_id for end in ends) == sorted(ids)

    async def test_an_id_may_be_a_uuid_and_what_is_none_at_all_ends_the_input(self) -> None:
        """What is text and no UUID is its own end."""
        async with sandboxed() as (invoices, _):
            first, second = await self.submitted(invoices, 2)
            assert (await invoices.wait(UUID(first), poller=STEADY)).request_id == first
            given: list[Any] = [UUID(first), first, "7", UUID(second), None, STRANGER]
            ends: list[InvoiceRequest | Unsettled] = []
            with pytest.raises(ValueError, match="request_id must be a UUID"):
                await gathered(invoices.wait_many(given, poller=STEADY), ends)
        assert sorted(end.request_id for end in ends) == sorted([first, second, "7"])

    async def test_leaving_early_stops_reading_and_polling(self) -> None:
        closed = asyncio.Event()
        async with sandboxed(faults=Faults(seconds_until_done=(1, 50))) as (invoices, _):
            ids = await self.submitted(invoices, 20)

            async def endless() -> AsyncIterator[str]:
                try:
                    for number in ids:
                        yield number
                    await asyncio.Event().wait()
                finally:
                    closed.set()

            async with aclosing(invoices.wait_many(endless(), poller=STEADY)) as ends:
                async for _ in ends:
                    break
            assert closed.is_set()
            assert len(invoices._scheduler) == 0

    @pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
    async def test_twenty_thousand_operations_end_in_a_few_seconds(self, count: int) -> None:
        asked: Counter[str] = Counter()

        async def answer(request: Request) -> FakeResponse:
            asked[request.path] += 1
            data = b'"data":{"id":"%s"},"status":"SUCCESS"' % STRANGER.encode()
            return FakeResponse(pieces=(b'{"status":"NEW"}' if asked[request.path] == 1 else b"{%s}" % data,))

        clock = FakeClock(chances=tuple(index / 997 for index in range(997)))
        async with faked(FakeTransport(answers=[answer], sent=Forgetful()), clock=clock) as invoices:
            ids = (str(UUID(int=number)) for number in range(count))
            ended = 0
            async for end in invoices.wait_many(ids, poller=Poller(first=60, factor=1, timeout=None)):
                ended += end.terminal
        assert ended == count
        assert Counter(asked.values()) == {2: count}

    async def test_an_operation_that_waits_costs_less_than_600_bytes(self) -> None:
        async with faked(scripted(FakeResponse()), clock=FakeClock(auto=False)) as invoices:
            ready, held = asyncio.Event(), 0

            async def ids() -> AsyncIterator[str]:
                nonlocal held
                for number in range(5_000):
                    yield str(UUID(int=number))
                held, _ = tracemalloc.get_traced_memory()
                ready.set()
                await asyncio.Event().wait()

            tracemalloc.start()
            begun, _ = tracemalloc.get_traced_memory()
            consumer = asyncio.create_task(anext(invoices.wait_many(ids())))
            await ready.wait()
            tracemalloc.stop()
            consumer.cancel()
            await asyncio.wait([consumer])
        assert (held - begun) / 5_000 < 600


class Forgetful(list[Request]):
    """Keeps nothing of what was sent."""

    def append(self, request: Request) -> None:
        pass


class TestSubmitMany:
    async def outcomes(self, invoices: AsyncInvoices, drafts: Any, **named: Any) -> list[SubmitOutcome]:
        async with aclosing(invoices.submit_many(drafts, **named)) as outcomes:
            return [outcome async for outcome in outcomes]

    async def test_every_draft_has_one_outcome(self) -> None:
        drafts = [draft(number) for number in range(1, 9)]
        drafts[2] = draft(3, lines=[])
        async with sandboxed(limits=Limits(concurrency=1), retry=RetryPolicy(attempts=1)) as (invoices, sandbox):
            sandbox.script(
                Operation.SUBMIT,
                [said("NEW", request_id=STRANGER), DropBeforeAnswer(), Answer(status=422), Unavailable()],
            )
            outcomes = await self.outcomes(invoices, drafts)
        kinds = {outcome.draft.key: type(outcome) for outcome in outcomes}
        assert len(outcomes) == len(kinds) == 8
        assert kinds == {
            "INV-1": Submitted,
            "INV-2": InDoubt,
            "INV-3": Invalid,
            "INV-4": Rejected,
            "INV-5": NotSent,
            "INV-6": Submitted,
            "INV-7": Submitted,
            "INV-8": Submitted,
        }
        assert len(sandbox.created) == 4

    async def test_a_refused_credential_ends_it_and_the_rest_was_not_sent(self) -> None:
        async with sandboxed(settings=SandboxSettings(latency=1)) as (invoices, sandbox):
            drafts = [draft(number) for number in range(1, 21)]
            sandbox.script(Operation.SUBMIT, [said("NEW", request_id=STRANGER)] * 3 + [Answer(status=401)] * 99)
            outcomes: list[SubmitOutcome] = []
            with pytest.raises(AuthenticationError):
                await gathered(invoices.submit_many(drafts, concurrency=4), outcomes)
        assert Counter(outcome.draft.key for outcome in outcomes) == Counter(one.key for one in drafts)
        kinds = Counter(type(outcome) for outcome in outcomes)
        assert kinds[Submitted] + kinds[NotSent] == 20
        assert kinds[Submitted] >= 3
        assert kinds[NotSent] >= 12
        sent = sandbox.calls(Operation.SUBMIT)
        assert kinds[Submitted] + 3 <= sent <= kinds[Submitted] + 8

    async def test_leaving_early_sends_no_more(self) -> None:
        async with sandboxed() as (invoices, sandbox):
            async with aclosing(invoices.submit_many((draft(n) for n in range(1, 1000)), concurrency=2)) as outcomes:
                async for _ in outcomes:
                    break
            assert sandbox.calls(Operation.SUBMIT) <= 4

    @pytest.mark.parametrize("concurrency", [0, -1])
    async def test_fewer_than_one_at_once_is_refused_before_anything_is_sent(self, concurrency: int) -> None:
        async with sandboxed() as (invoices, sandbox):
            with pytest.raises(ValueError, match=f"concurrency must be 1 or more, got {concurrency}"):
                await gathered(invoices.submit_many([draft()], concurrency=concurrency), [])
            assert sandbox.calls(Operation.SUBMIT) == 0

    async def test_whatever_else_goes_wrong_leaves_it_in_doubt(self) -> None:
        """A defect may show after the first byte."""

        async def read(heard: object, response: Response) -> InvoiceRequest:
            raise LookupError("a defect")

        async with sandboxed() as (invoices, _):
            vars(invoices._calls)["_read_creation"] = read
            (outcome,) = await self.outcomes(invoices, [draft()])
        assert isinstance(outcome, InDoubt)
        assert isinstance(outcome.error, SubmissionInDoubtError)
        assert outcome.error.key == "INV-1"
        assert isinstance(outcome.error.__cause__, LookupError)

    async def test_a_closed_session_ends_it(self) -> None:
        async with sandboxed() as (invoices, _):
            pass
        with pytest.raises(SessionError):
            await self.outcomes(invoices, [draft()])


class TestExport:
    async def finished(self, invoices: AsyncInvoices) -> str:
        request = await invoices.create(draft(), poller=STEADY)
        assert request.data is not None
        return request.data.id

    @pytest.mark.parametrize("kind", ["pdf", "xml"])
    async def test_it_waits_until_the_document_is_built_and_saves_it_whole(self, kind: str, tmp_path: Path) -> None:
        faults = Faults(polls_until_done=(1, 1), exports_until_done=(3, 3))
        async with sandboxed(faults=faults) as (invoices, sandbox):
            number = await self.finished(invoices)
            saved = await invoices.export(number, tmp_path, format=kind, poller=STEADY)
        content = saved.path.read_bytes()
        assert saved.path == tmp_path / f"{number}.{kind}"
        assert (saved.order_id, saved.size, saved.attempts) == (number, len(content), 1)
        assert saved.sha256 == sha256(content).hexdigest()
        assert content.startswith(b"%PDF-" if kind == "pdf" else b"<?xml")
        assert sandbox.calls(Operation.EXPORT) == 4

    async def test_what_is_there_whole_is_kept(self, tmp_path: Path) -> None:
        async with sandboxed() as (invoices, sandbox):
            number = await self.finished(invoices)
            first = await invoices.export(number, tmp_path, poller=STEADY)
            calls = sandbox.counts.total()
            second = await invoices.export(number, tmp_path)
        assert (second.path, second.sha256, second.attempts) == (first.path, first.sha256, 0)
        assert sandbox.counts.total() == calls

    @pytest.mark.parametrize("existing", ["keep", "new_name", "replace"])
    async def test_what_is_there_and_broken_is_never_taken_for_it(self, existing: str, tmp_path: Path) -> None:
        async with sandboxed() as (invoices, _):
            number = await self.finished(invoices)
            broken = tmp_path / f"{number}.pdf"
            broken.write_bytes(b"%PDF-1.7 half")
            saved = await invoices.export(number, tmp_path, poller=STEADY, on_existing=OnExisting[existing.upper()])
        assert saved.path.read_bytes().rstrip().endswith(b"%%EOF")
        assert (saved.path == broken) is (existing == "replace")
        assert len(list(tmp_path.iterdir())) == (1 if existing == "replace" else 2)

    async def test_the_service_may_fail_to_build_it(self, tmp_path: Path) -> None:
        async with sandboxed() as (invoices, sandbox):
            sandbox.script(Operation.EXPORT, [said("NEW"), said("FAIL")])
            with pytest.raises(ExportError) as caught:
                await invoices.export(STRANGER, tmp_path, poller=STEADY)
        assert caught.value.invoice_id == STRANGER
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("poller", [evolve(STEADY, timeout=5), [1, 1, 1, 1, 1]], ids=["timeout", "waits"])
    async def test_it_may_take_too_long(self, poller: Any, tmp_path: Path) -> None:
        async with sandboxed() as (invoices, sandbox):
            sandbox.script(Operation.EXPORT, [said("BUILDING")] * 9)
            with pytest.raises(PollTimeoutError) as caught:
                await invoices.export(STRANGER, tmp_path, poller=poller)
        assert (caught.value.request_id, caught.value.polls) == (STRANGER, 6)

    async def test_no_credential_goes_to_the_download_host(self, tmp_path: Path) -> None:
        files = Sandbox()
        async with serve(files) as elsewhere:
            settings = SandboxSettings(files_url=elsewhere)
            faults = Faults(polls_until_done=(1, 1), exports_until_done=(0, 0))
            async with on_a_port(settings=settings, faults=faults) as (invoices, sandbox):
                files._world, files._einvoices = sandbox._world, sandbox._einvoices
                files._endpoints = sandbox._endpoints
                number = await self.finished(invoices)
                saved = await invoices.export(number, tmp_path, poller=STEADY)
        assert saved.path.exists()
        assert [(entry.operation, entry.credentials, entry.status) for entry in files.log] == [
            (Operation.FILE, (), 200)
        ]
        assert {entry.credentials for entry in sandbox.log} == {("authorization",)}

    @pytest.mark.parametrize("kind", ["pdf", "xml"])
    async def test_a_document_that_breaks_off_is_fetched_again_and_leaves_nothing(
        self, kind: str, tmp_path: Path
    ) -> None:
        async with sandboxed(retry=RetryPolicy(attempts=2, first=0)) as (invoices, sandbox):
            number = await self.finished(invoices)
            sandbox.script(Operation.FILE, [Truncated(missing=12), Truncated(missing=12), Truncated(missing=12)])
            with pytest.raises(IncompleteDocumentError):
                await invoices.export(number, tmp_path, format=kind, poller=STEADY)
            assert list(tmp_path.iterdir()) == []
            saved = await invoices.export(number, tmp_path, format=kind, poller=STEADY)
        assert saved.path.exists()
        assert sandbox.calls(Operation.FILE) == 4

    async def test_an_xml_cut_at_an_element_without_a_length_is_not_whole(self, tmp_path: Path) -> None:
        cut = Answer(headers={"Content-Type": "application/xml"}, body=b"<?xml version='1.0'?><invoice><id>1</id>")
        async with sandboxed(retry=RetryPolicy(attempts=1)) as (invoices, sandbox):
            number = await self.finished(invoices)
            sandbox.script(Operation.FILE, [cut])
            with pytest.raises(IncompleteDocumentError, match="not a whole XML document"):
                await invoices.export(number, tmp_path, format="xml", poller=STEADY)
        assert list(tmp_path.iterdir()) == []

    async def test_a_large_document_goes_to_the_disk_in_pieces(self, tmp_path: Path) -> None:
        body = b"<a>" + b"x" * (3 * 2**20) + b"</a>"
        large = Answer(headers={"Content-Type": "text/xml", "Content-Length": str(len(body))}, body=body)
        async with sandboxed() as (invoices, sandbox):
            number = await self.finished(invoices)
            sandbox.script(Operation.FILE, [large])
            saved = await invoices.export(number, tmp_path, format="xml", poller=STEADY, durable=True)
        assert saved.size == len(body)
        assert saved.path.read_bytes() == body

    async def test_bad_arguments(self, tmp_path: Path) -> None:
        async with sandboxed() as (invoices, sandbox):
            with pytest.raises(ValueError, match="format must be one of pdf, xml"):
                await invoices.export(STRANGER, tmp_path, format="html")
            with pytest.raises(ValueError, match="invoice_id must be a UUID"):
                await invoices.export("../etc", tmp_path)
            with pytest.raises(ValueError, match="not a valid OnExisting"):
                await invoices.export(STRANGER, tmp_path, on_existing="overwrite")
        assert sandbox.counts.total() == 0

    async def test_a_link_with_characters_of_its_own_is_asked_for_as_it_is(self, tmp_path: Path) -> None:
        link = "http://files.test/a%20b?s=%2F+[1]"
        transport = scripted(
            FakeResponse(pieces=(json.dumps({"status": "DONE", "download_url": link}).encode(),)),
            FakeResponse(headers={"Content-Type": "application/xml"}, pieces=(b"<a/>",)),
        )
        async with faked(transport) as invoices:
            await invoices.export(STRANGER, tmp_path, format="xml")
        assert transport.sent[1].url == link
        assert not transport.sent[1].authorised
        assert "authorization" not in {name.lower() for name in transport.sent[1].headers}


async def test_a_waiter_that_is_leaving_is_told_nothing_more() -> None:
    single = Single(STEADY)
    single.future.cancel()
    single.deliver(STRANGER, ProtocolError("nobody listens"))
    assert single.future.cancelled()


async def test_a_batch_takes_the_sessions_concurrency_and_way_of_waiting() -> None:
    clock = FakeClock()
    async with sandboxed(clock=clock, limits=Limits(concurrency=7)) as (invoices, _):
        assert invoices.concurrency == 7
        await invoices.sleep(3)
    assert clock.slept == [3]

"""What is told of submissions and polls: doubts, numbers of calls, and polls that failed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from invoice_clients import STEADY, draft, sandboxed

from invoicing_async.auth import OAuthClientCredentials
from invoicing_async.errors import InvoicingError, PollTimeoutError, SubmissionInDoubtError
from invoicing_async.events import (
    CallFailed,
    CallStarted,
    OperationPolled,
    RequestSucceeded,
    SubmissionInDoubt,
    WaitEnded,
    WaitStarted,
)
from invoicing_async.invoices._waiting import Told
from invoicing_async.policies import RetryPolicy
from invoicing_async.polling import Poller
from invoicing_async.sandbox import (
    Answer,
    DropBeforeAnswer,
    Faults,
    Hang,
    Operation,
    Reset,
    SandboxCredentials,
    Unavailable,
)
from invoicing_async.session._log import logger


def of(kind: type[Any], heard: list[Any]) -> list[Any]:
    return [event for event in heard if isinstance(event, kind)]


@pytest.mark.asyncio
class TestDoubts:
    @pytest.mark.parametrize(
        ("answer", "status"), [(DropBeforeAnswer(), None), (Answer(status=500), 500), (Answer(body=b"{"), 200)]
    )
    async def test_a_submission_in_doubt_is_told_with_its_key_call_and_status(self, answer: Any, status: Any) -> None:
        heard: list[Any] = []
        async with sandboxed(on_event=heard.append) as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [answer])
            with pytest.raises(SubmissionInDoubtError):
                await invoices.submit(draft(7))
        [failed], [doubt] = of(CallFailed, heard), of(SubmissionInDoubt, heard)
        assert (doubt.key, doubt.operation, doubt.status) == ("INV-7", "create_invoice", status)
        assert doubt.call_id == failed.call_id > 0
        assert doubt.error is failed.error
        assert heard[-1] is doubt

    @pytest.mark.parametrize("answer", [Unavailable(), Answer(status=422), Answer(status=401)])
    async def test_what_made_nothing_is_no_doubt(self, answer: Any) -> None:
        heard: list[Any] = []
        async with sandboxed(on_event=heard.append) as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [answer] * 9)
            with pytest.raises(InvoicingError):
                await invoices.submit(draft())
        assert of(SubmissionInDoubt, heard) == []
        assert len(of(CallFailed, heard)) == 1

    async def test_one_that_is_cancelled_on_its_way_is_in_doubt(self) -> None:
        heard: list[Any] = []
        async with sandboxed(on_event=heard.append) as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [Hang()])
            task = asyncio.create_task(invoices.submit(draft(3)))
            while not sandbox.in_flight:  # noqa: ASYNC110 - the sandbox tells
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        [doubt] = of(SubmissionInDoubt, heard)
        assert (doubt.key, doubt.status) == ("INV-3", None)
        assert isinstance(doubt.error, asyncio.CancelledError)
        assert doubt.call_id == heard[0].call_id

    async def test_one_that_is_cancelled_while_it_backs_off_is_none(self, clock: Any) -> None:
        """What was sent is known to have made nothing."""
        heard: list[Any] = []
        clock.auto = False
        async with sandboxed(on_event=heard.append, clock=clock) as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [Unavailable()])
            task = asyncio.create_task(invoices.submit(draft()))
            while not clock.slept:  # noqa: ASYNC110 - the clock tells
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert of(SubmissionInDoubt, heard) == []

    async def test_a_doubt_is_one_warning_of_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        """With its cause; also where there is no observer."""
        async with sandboxed() as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [DropBeforeAnswer()])
            with caplog.at_level(logging.WARNING, "invoicing_async"), pytest.raises(SubmissionInDoubtError):
                await invoices.submit(draft(7))
        [record] = caplog.records
        assert record.__dict__["event"] == "SubmissionInDoubt"
        assert "'INV-7' may or may not have been created; error: TransportError: " in record.getMessage()

    async def test_a_refused_client_is_one_warning_of_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        """That of the call which the token was for; and what made no invoice is one too."""
        auth = OAuthClientCredentials(**SandboxCredentials().client() | {"client_secret": "wrong"})
        async with sandboxed(auth=auth) as (invoices, _):
            with caplog.at_level(logging.WARNING, "invoicing_async"), pytest.raises(InvoicingError):
                await invoices.submit(draft())
        [record] = caplog.records
        assert (record.__dict__["event"], record.__dict__["operation"]) == ("CallFailed", "create_invoice")


@pytest.mark.asyncio
async def test_a_poll_bears_the_number_of_the_call_that_was_its() -> None:
    """However many operations are polled side by side."""
    heard: list[Any] = []
    async with sandboxed(on_event=heard.append) as (invoices, _):
        ids = [(await invoices.submit(draft(number))).request_id for number in range(1, 9)]
        del heard[:]
        async for _ in invoices.wait_many(ids, poller=STEADY):
            pass
    paths = {event.call_id: event.path for event in of(RequestSucceeded, heard)}
    polled = of(OperationPolled, heard)
    assert len(polled) == 16
    assert all(paths[event.call_id].endswith(event.request_id) for event in polled)
    assert {event.operation for event in polled} == {"invoice_status"}


@pytest.mark.asyncio
async def test_a_failed_poll_is_a_step_and_a_status_that_was_asked_for_is_none() -> None:
    """A wait asks again by itself: an outage of an hour is no warning each second."""
    heard: list[Any] = []
    async with sandboxed(on_event=heard.append) as (invoices, sandbox):
        request = await invoices.submit(draft())
        sandbox.script(Operation.STATUS, [Reset()])
        assert (await invoices.wait(request.request_id, poller=STEADY)).terminal
        assert [event.is_step for event in of(CallFailed, heard)] == [True]
        sandbox.script(Operation.STATUS, [Reset()] * 9)
        with pytest.raises(InvoicingError):
            await invoices.status(request.request_id)
        with pytest.raises(InvoicingError):
            await invoices.status(request.request_id, retry=RetryPolicy(attempts=2))
    assert [event.is_step for event in of(CallFailed, heard)] == [True, False, False]


@pytest.mark.asyncio
class TestBeginnings:
    async def test_a_call_says_what_it_is_about(self) -> None:
        heard: list[Any] = []
        async with sandboxed(on_event=heard.append) as (invoices, _):
            request = await invoices.create(draft(3), poller=STEADY)
        begun = [(event.operation, event.subject, event.is_step) for event in of(CallStarted, heard)]
        polls = [("invoice_status", request.request_id, True)] * 2
        assert begun == [("create_invoice", "INV-3", False), *polls]
        assert {(event.method, event.base_url, event.store) for event in of(CallStarted, heard)} == {
            ("POST", "http://sandbox.test", "")
        }

    async def test_a_wait_begins_before_its_first_poll_and_ends_once_with_what_it_came_to(self) -> None:
        heard: list[Any] = []
        async with sandboxed(on_event=heard.append) as (invoices, _):
            ids = [(await invoices.submit(draft(number))).request_id for number in range(1, 4)]
            del heard[:]
            await invoices.wait(ids[0], poller=STEADY)
            async for _ in invoices.wait_many(ids[1:], poller=STEADY):
                pass
        begun, ended = of(WaitStarted, heard), of(WaitEnded, heard)
        assert heard[0] is begun[0]
        assert [(event.request_id, event.operation) for event in begun] == [(one, "invoice_status") for one in ids]
        assert sorted(event.wait_id for event in ended) == sorted(event.wait_id for event in begun)
        assert len({event.wait_id for event in begun}) == 3
        assert {(event.status, event.error) for event in ended} == {("SUCCESS", None)}
        assert ended[0].elapsed == 2.0

    async def test_a_wait_whose_time_is_spent_says_what_was_known_last(self) -> None:
        heard: list[Any] = []
        async with sandboxed(on_event=heard.append, faults=Faults(polls_until_done=(9, 9))) as (invoices, _):
            request = await invoices.submit(draft())
            with pytest.raises(PollTimeoutError) as caught:
                await invoices.wait(request.request_id, poller=Poller(first=1, factor=1, jitter=0, timeout=2))
        [ended] = of(WaitEnded, heard)
        assert (ended.status, ended.error, ended.elapsed) == ("NEW", caught.value, 2.0)

    async def test_where_nobody_listens_no_wait_is_noted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        noted: list[str] = []
        monkeypatch.setattr(Told, "begin", lambda self, request_id: noted.append(request_id))
        monkeypatch.setattr(logger, "level", logging.WARNING)
        logger.manager._clear_cache()  # type: ignore[attr-defined] # it remembers what is enabled
        async with sandboxed() as (invoices, _):
            request = await invoices.create(draft(), poller=STEADY)
            assert [one async for one in invoices.wait_many([request.request_id], poller=STEADY)]
        logger.manager._clear_cache()  # type: ignore[attr-defined]
        assert noted == []

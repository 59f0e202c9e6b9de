"""What is told of submissions and polls: doubts, numbers of calls, and polls that failed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from invoice_clients import STEADY, draft, sandboxed

from invoicing_async.errors import InvoicingError, SubmissionInDoubtError
from invoicing_async.events import CallFailed, OperationPolled, RequestSucceeded, SubmissionInDoubt
from invoicing_async.sandbox import Answer, DropBeforeAnswer, Hang, Operation, Reset, Unavailable


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

    async def test_a_doubt_is_a_warning_of_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        """Also where there is no observer."""
        async with sandboxed() as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [DropBeforeAnswer()])
            with caplog.at_level(logging.WARNING, "invoicing_async"), pytest.raises(SubmissionInDoubtError):
                await invoices.submit(draft(7))
        assert [record.__dict__["event"] for record in caplog.records] == ["CallFailed", "SubmissionInDoubt"]
        assert "'INV-7' may or may not have been created" in caplog.records[1].getMessage()


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
    assert [event.is_step for event in of(CallFailed, heard)] == [True, False]

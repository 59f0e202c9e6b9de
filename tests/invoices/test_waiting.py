"""Waiting for e-invoices, one or many: until each ends, in time, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import logging
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve
from fakes import FakeClock, FakeResponse, FakeTransport
from invoice_clients import STEADY, STRANGER, draft, faked, gathered, on_a_port, said, sandboxed, scripted
from leaks import in_use, others

from invoicing_async import (
    AsyncInvoices,
    Limits,
    Poller,
    RequestStatus,
)
from invoicing_async._core.http import Request
from invoicing_async.errors import (
    ApiError,
    PollTimeoutError,
    ProtocolError,
    SessionError,
    TransportError,
)
from invoicing_async.events import Event, OperationPolled, UnknownStatus
from invoicing_async.invoices._client import work_of
from invoicing_async.invoices._waiting import Single
from invoicing_async.models import InvoiceRequest, Unsettled
from invoicing_async.sandbox import (
    Answer,
    Faults,
    Hang,
    Operation,
    RateLimited,
    Reset,
    SandboxSettings,
    Unavailable,
)

pytestmark = pytest.mark.asyncio


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
        assert caught.value.last is not None
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
                assert in_use(work_of(invoices).session) == 0
                assert len(work_of(invoices).scheduler) == 0
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
                assert in_use(work_of(invoices).session) == 0
                assert len(work_of(invoices).scheduler) == 0

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
                assert in_use(work_of(invoices).session) == left


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
            assert len(work_of(invoices).scheduler) == 0

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
                for number in range(10_000):
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
        assert (held - begun) / 10_000 < 600  # about 555, of which the buckets of the set of ids are a fixed share


class Forgetful(list[Request]):
    """Keeps nothing of what was sent."""

    def append(self, request: Request) -> None:
        pass


async def test_a_waiter_that_is_leaving_is_told_nothing_more() -> None:
    single = Single(STEADY)
    single.future.cancel()
    single.deliver(STRANGER, ProtocolError("nobody listens"))
    assert single.future.cancelled()

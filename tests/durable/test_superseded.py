"""Runs of which somebody else works on the same items: what comes too late ends nothing, and nothing is sent twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from run_services import KEYS, Service, draft, invoice_run, item_of, later, listed, states, until_error

from invoicing_async._durable.part import LedgerPart
from invoicing_async._durable.records import Change, RunHaltedError, RunPausedError
from invoicing_async._durable.states import Event, State
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.repair import Answer, settle
from invoicing_async.runs import InvoiceRun, Item

pytestmark = pytest.mark.asyncio

OTHER = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
TAKEN = (Event.INTENT,)
SENT_AGAIN = (Event.CRASHED, Event.RESOLVED_NOT_CREATED, Event.INTENT)


class Watched(LedgerPart):
    """A ledger that several work on: before a change of one of these events is made, something else happens."""

    is_shared = True

    def __init__(self, run: InvoiceRun, *events: Event, first: Callable[[Change], Awaitable[None]]) -> None:
        super().__init__(run.ledger, 1, 10**6)
        self.events = events
        self.first = first
        self.transition_many = self.watched

    async def watched(self, changes: Iterable[Change]) -> list[State]:
        [change] = changes
        if change.event in self.events:
            await self.first(change)
        return await self._ledger.transition_many([change])


async def moved(run: InvoiceRun, ref: int | str, *events: Event, request_id: str | None = None) -> None:
    """Let somebody else do this with an item."""
    for event in events:
        await run.ledger.transition(ref, event)
    if request_id is not None:
        await run.ledger.transition(ref, Event.ACCEPTED_NEW, request_id=request_id)


@asynccontextmanager
async def two_at_work(
    folder: Path, service: Service, *events: Event, first: Callable[[InvoiceRun, Change], Awaitable[None]]
) -> AsyncIterator[tuple[InvoiceRun, InvoiceRun, AsyncInvoices]]:
    """Yield a run, the same as somebody else has it, and a client; before these events `first` is done with it."""
    async with invoice_run(folder, service, stop_after=2) as (other, client):
        yield InvoiceRun(Watched(other, *events, first=lambda change: first(other, change))), other, client


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


class TestAnIntentThatComesTooLate:
    async def test_sends_nothing_and_says_nothing_of_the_service(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """More of them than end a batch by the same cause, and the rest is sent."""

        async def first(other: InvoiceRun, change: Change) -> None:
            if change.ref != 6:
                await moved(other, change.ref, *TAKEN)

        service = Service()
        async with two_at_work(tmp_path, service, Event.INTENT, first=first) as (run, other, client):
            items = await listed(run.submit(client))
            assert {item.key: item.state for item in items} == await states(other)
            assert [item.state for item in sorted(items, key=lambda item: item.seq)] == ["sending"] * 5 + ["submitted"]
            assert all(item.attempt == 1 for item in items)
        assert set(service.submissions) == {KEYS[5]}
        assert run.superseded == 5
        assert lines(caplog, logging.WARNING) == [], "nothing is wrong"

    async def test_returns_the_item_to_whoever_asked_for_one(self, tmp_path: Path) -> None:
        async def first(other: InvoiceRun, change: Change) -> None:
            await moved(other, change.ref, *TAKEN, request_id=OTHER)

        service = Service()
        async with two_at_work(tmp_path, service, Event.INTENT, first=first) as (run, _, client):
            item = await run.submit_one(draft(KEYS[0]), client)
            assert (item.state, item.request_id) == ("submitted", OTHER)
        assert service.submissions == {}

    async def test_ends_what_backed_off(self, tmp_path: Path) -> None:
        """Somebody else has sent it while it waited."""

        async def first(other: InvoiceRun, change: Change) -> None:
            if change.attempt == 1:
                await moved(other, change.ref, *TAKEN, request_id=OTHER)

        service = Service({KEYS[0]: ["busy", "new"]})
        async with two_at_work(tmp_path, service, Event.INTENT, first=first) as (run, other, client):
            item = await run.submit_one(draft(KEYS[0]), client)
            assert (item.state, item.attempt, item.request_id) == ("submitted", 2, OTHER)
            assert await item_of(other, KEYS[0]) == item
        assert service.submissions == {KEYS[0]: 1}

    async def test_of_another_is_not_ended_by_one_that_was_cancelled(self, tmp_path: Path) -> None:
        """Whose the attempt is is found out before a word is said of it."""
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def first(other: InvoiceRun, change: Change) -> None:
            await moved(other, change.ref, *TAKEN)
            reached.set()
            await go_on.wait()

        async with two_at_work(tmp_path, Service(), Event.INTENT, first=first) as (run, other, client):
            task = asyncio.create_task(run.submit_one(draft(KEYS[0]), client))
            await reached.wait()
            task.cancel()
            await asyncio.sleep(0)
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await item_of(other, KEYS[0])).state == "sending"

    async def test_of_its_own_is_taken_back_when_it_is_cancelled(self, tmp_path: Path) -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def first(_other: InvoiceRun, change: Change) -> None:
            if change.event is Event.INTENT:
                reached.set()
                await go_on.wait()

        async with two_at_work(tmp_path, Service(), Event.INTENT, first=first) as (run, other, client):
            task = asyncio.create_task(run.submit_one(draft(KEYS[0]), client))
            await reached.wait()
            task.cancel()
            await asyncio.sleep(0)
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await item_of(other, KEYS[0])).state == "not_sent"


class TestAnAnswerThatComesTooLate:
    async def test_settles_the_doubt_of_its_own_attempt(self, tmp_path: Path) -> None:
        async with invoice_run(tmp_path, service := Service({KEYS[1]: ["busy", "new"]}), KEYS[:3]) as (run, client):

            async def swept(key: str) -> None:
                await moved(run, key, Event.CRASHED)

            service.received = swept
            items = await listed(run.submit(client))
            assert {item.key: item.state for item in items} == dict.fromkeys(KEYS[:3], "submitted")
            events = [entry.event for entry in await run.ledger.history(KEYS[1])]
            assert events[:4] == [Event.INTENT, Event.CRASHED, Event.LATE_NOT_SENT, Event.INTENT]
        assert run.superseded == 0

    @pytest.mark.parametrize("has_answer", [True, False])
    async def test_is_noted_beside_another_s_and_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, has_answer: bool
    ) -> None:
        """Whether the other attempt has ended or is under way; the item is yielded as it stands."""
        async with invoice_run(tmp_path, service := Service(), KEYS[:1]) as (run, client):

            async def sent_again(key: str) -> None:
                later(run)
                await moved(run, key, *SENT_AGAIN, request_id=OTHER if has_answer else None)

            service.received = sent_again
            [item] = await listed(run.submit(client))
            [made] = service.created[KEYS[0]]
            assert item == await item_of(run, KEYS[0])
            assert (item.attempt, item.request_id) == (2, OTHER if has_answer else None)
            assert item.other_request_id == made
            assert [found.key for found in await run.ledger.twice()] == [KEYS[0]]
        [line] = lines(caplog, logging.ERROR)
        assert made in line
        assert KEYS[0] in line
        assert (OTHER in line) is has_answer
        assert run.superseded == 1

    async def test_that_proves_nothing_was_made_changes_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Of an item that was sent again meanwhile: its backing off ends too."""
        async with invoice_run(tmp_path, service := Service({KEYS[0]: ["busy"]}), KEYS[:2]) as (run, client):

            async def sent_again(key: str) -> None:
                if key == KEYS[0]:
                    await moved(run, key, *SENT_AGAIN)

            service.received = sent_again
            items = {item.key: item.state for item in await listed(run.submit(client))}
            assert items == {KEYS[0]: "sending", KEYS[1]: "submitted"}
        assert service.submissions == {KEYS[0]: 1, KEYS[1]: 1}
        assert KEYS[0] in lines(caplog, logging.WARNING)[0]


@pytest.mark.parametrize("kind", [RunPausedError, RunHaltedError])
class TestARunThatTakesNoIntents:
    async def test_ends_a_submission_as_a_stop_does_and_says_why_once(
        self, tmp_path: Path, kind: type[RunPausedError]
    ) -> None:
        """What is in flight is recorded first, the rest stays as it was, and no service is judged by it."""
        refusal, in_flight = kind("not now"), asyncio.Event()

        async def first(_: InvoiceRun, change: Change) -> None:
            if change.event is Event.INTENT and change.ref not in {1, 2}:
                in_flight.set()
                raise refusal

        async def answered(key: str) -> None:
            if key == KEYS[1]:
                await in_flight.wait()

        service = Service()
        service.received = answered
        async with two_at_work(tmp_path, service, Event.INTENT, first=first) as (run, other, client):
            items, error = await until_error(run.submit(client, concurrency=4))
            assert error is refusal
            assert {item.key: item.state for item in items if item.seq <= 2} == dict.fromkeys(KEYS[:2], "submitted")
            assert {item.state for item in items if item.seq > 2} <= {"planned"}
            assert await states(other) == {key: "submitted" if key in KEYS[:2] else "planned" for key in KEYS}
        assert set(service.submissions) == {*KEYS[:2]}

    async def test_is_told_to_whoever_asks_for_one(self, tmp_path: Path, kind: type[RunPausedError]) -> None:
        async def first(_: InvoiceRun, _change: Change) -> None:
            raise kind("not now")

        async with two_at_work(tmp_path, Service(), Event.INTENT, first=first) as (run, other, client):
            with pytest.raises(kind):
                await run.submit_one(draft(KEYS[0]), client)
            assert (await item_of(other, KEYS[0])).state == "planned"

    async def test_goes_on_polling_what_was_submitted(self, tmp_path: Path, kind: type[RunPausedError]) -> None:
        async def first(_: InvoiceRun, change: Change) -> None:
            if change.ref != 1:
                raise kind("not now")

        async with two_at_work(tmp_path, Service(), Event.INTENT, first=first) as (run, other, client):
            _, error = await until_error(run.run(client))
            assert isinstance(error, kind)
            assert await states(other) == {key: "success" if key == KEYS[0] else "planned" for key in KEYS}


async def test_what_became_of_one_attempt_is_not_recorded_of_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A person takes back how a doubt was settled, and it is sent again, while its request is polled."""

    async def first(other: InvoiceRun, change: Change) -> None:
        assert change.attempt == 1
        again = (Event.RESOLUTION_UNDONE, Event.RESOLVED_NOT_CREATED, Event.INTENT)
        await moved(other, change.ref, *again, request_id=OTHER)

    async with two_at_work(tmp_path, Service(), Event.POLL_SUCCESS, first=first) as (run, other, client):
        await run.submit_one(draft(KEYS[0]), client)
        [item] = await listed(run.settle(client))
        assert item == await item_of(other, KEYS[0])
        assert (item.state, item.attempt, item.request_id) == ("submitted", 2, OTHER)
    assert run.superseded == 1
    assert KEYS[0] in lines(caplog, logging.WARNING)[0]


async def test_the_end_of_what_two_await_is_recorded_once_and_is_no_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two `run` on one run poll what both find submitted: the second to record it yields the item as it is."""

    async def first(other: InvoiceRun, change: Change) -> None:
        await moved(other, change.ref, Event.POLL_SUCCESS)

    async with two_at_work(tmp_path, Service(), Event.POLL_SUCCESS, first=first) as (run, other, client):
        await run.submit_one(draft(KEYS[0]), client)
        [item] = await listed(run.settle(client))
        assert item == await item_of(other, KEYS[0])
        assert item.state == "success"
    assert run.superseded == 1
    assert lines(caplog, logging.WARNING) == []


async def test_what_was_found_out_of_one_attempt_settles_no_other(tmp_path: Path) -> None:
    service = Service({KEYS[0]: ["dropped"], KEYS[1]: ["dropped"]})
    async with invoice_run(tmp_path, service, KEYS[:2]) as (run, client):
        await listed(run.submit(client))
        later(run)

        async def look_up(found: object, item: Item) -> bool:
            if item.key == KEYS[0]:
                await moved(run, item.key, Event.RESOLVED_NOT_CREATED, Event.INTENT, Event.LOST)
            return False

        items = await listed(run.reconcile(look_up))
        assert [(item.key, item.state, item.attempt) for item in items] == [
            (KEYS[0], "in_doubt", 2),
            (KEYS[1], "not_sent", 1),
        ]
        assert "comes too late" in (items[0].error or "")


async def test_the_outcome_is_no_other_where_nobody_else_is_at_work(tmp_path: Path) -> None:
    """A ledger that several could work on, with one that does."""

    async def first(_: Change) -> None:
        return

    plans = {KEYS[0]: ["busy", "new"], KEYS[1]: ["lost"], KEYS[2]: ["unsent", "new failed"], KEYS[3]: ["wrong"]}
    ends = []
    for number, watched in enumerate((True, False)):
        service = Service(plans)
        folder = tmp_path / str(number)
        folder.mkdir()
        async with invoice_run(folder, service) as (other, client):
            run = InvoiceRun(Watched(other, *Event, first=first)) if watched else other
            await listed(run.run(client))
            ends.append((await states(other), [entry.event for entry in await other.ledger.history(1)]))
            assert run.superseded == 0
    assert ends[0] == ends[1]


async def test_a_person_s_answer_about_one_attempt_settles_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of the answers is carried out."""
    async with invoice_run(tmp_path, Service({key: ["dropped"] for key in KEYS[:2]}), KEYS[:2]) as (run, client):
        await listed(run.submit(client))
        later(run)
        answers = [Answer(key=key, created=False, request_id=None) for key in KEYS[:2]]
        settled = settle(run, answers)
        first = await anext(settled)
        [other] = {*KEYS[:2]} - {first.item.key}
        await moved(run, other, Event.RESOLVED_NOT_CREATED, Event.INTENT, Event.LOST)
        [second] = await listed(settled)
        assert [(one.item.state, one.item.attempt, one.changed) for one in (first, second)] == [
            ("not_sent", 1, True),
            ("in_doubt", 2, False),
        ]
    assert other in lines(caplog, logging.WARNING)[-1]

"""Durable runs: every item in exactly one state, nothing fetched or sent again that need not be, whatever cuts in."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from run_services import (
    BASE,
    KEYS,
    Dying,
    Service,
    counted,
    draft,
    invoice_run,
    invoices,
    item_of,
    later,
    listed,
    states,
    until_error,
)

from invoicing_async._durable.protocol import Ledger
from invoicing_async._durable.records import Change
from invoicing_async._durable.states import Event
from invoicing_async._einvoices.shape import WireNames
from invoicing_async._files.pdf import fault_of
from invoicing_async._files.writer import DiskWriter
from invoicing_async.auth import StaticToken
from invoicing_async.errors import (
    AuthenticationError,
    DraftError,
    SessionError,
)
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import (
    InvoiceDraft,
)
from invoicing_async.policies import Timeouts
from invoicing_async.polling import Poller
from invoicing_async.runs import (
    DamagedRunError,
    DraftConflictError,
    Intake,
    InvoiceRun,
    Item,
    RunFileError,
    SqliteReader,
    State,
    check_files,
)
from invoicing_async.sandbox import (
    DropBeforeAnswer,
    Faults,
    Operation,
    Sandbox,
    SandboxSettings,
)
from invoicing_async.session import Session


@pytest.mark.asyncio
async def test_a_run_submits_and_settles_every_draft(tmp_path: Path) -> None:
    """Each key is created once and given once, at rest; the file says the same, with the service's last word."""
    service = Service({"A-1": ["new failed"], "A-2": ["success"], "A-3": ["failed"], "A-4": ["refused"]})
    async with invoice_run(tmp_path, service) as (run, found):
        items = await listed(run.run(found))
        assert {item.key: item.state for item in items} == {
            "A-1": "failed", "A-2": "success", "A-3": "failed", "A-4": "rejected", "A-5": "success", "A-6": "success",
        }  # fmt: skip
        assert len(items) == 6
        assert await states(run) == {item.key: item.state for item in items}
        assert all(len(ids) == 1 for ids in service.created.values())
        done = await item_of(run, "A-5")
        assert done.request_id == done.invoice_id == service.created["A-5"][0]
        assert json.loads(done.result or "")["data"]["amount"] == "12.5"
        rejected = await item_of(run, "A-4")
        assert (rejected.request_id, rejected.attempt) == (None, 1)
        assert "no such template" in (rejected.error or "")
        assert await listed(run.run(found)) == []


@pytest.mark.asyncio
async def test_what_is_given_is_what_is_recorded(tmp_path: Path) -> None:
    """An item of `submit` has the state, attempt, ids and error that the file has."""
    plans = {
        "A-1": ["busy", "new"], "A-2": ["refused"], "A-3": ["unsent"] * 6, "A-4": ["lost"], "A-5": ["gateway"],
        "A-6": ["success"],
    }  # fmt: skip
    async with invoice_run(tmp_path, Service(plans)) as (run, found):
        for given in await listed(run.submit(found)):
            recorded = await item_of(run, given.key)
            for name in ("state", "attempt", "request_id", "invoice_id", "code", "error", "result", "payload"):
                assert getattr(given, name) == getattr(recorded, name), (given.key, name)
        assert await states(run) == {
            "A-1": "submitted", "A-2": "rejected", "A-3": "not_sent", "A-4": "in_doubt", "A-5": "in_doubt",
            "A-6": "success",
        }  # fmt: skip


@pytest.mark.asyncio
async def test_the_intent_is_on_disk_before_the_first_byte(tmp_path: Path) -> None:
    """When the service receives a submission, another connection to the file sees it as being sent."""
    seen: dict[str, tuple[str, list[Event]]] = {}

    async def look(key: str) -> None:
        async with SqliteReader.read(tmp_path / "run.db") as reader:
            item = await reader.get(key)
            assert item is not None
            seen[key] = item.state, [entry.event for entry in await reader.history(key)]

    service = Service({"A-2": ["busy", "new"]})
    service.received = look
    async with invoice_run(tmp_path, service) as (run, found):
        await listed(run.submit(found))
        assert set(seen) == set(KEYS)
        assert seen["A-1"] == ("sending", [Event.INTENT])
        assert seen["A-2"] == ("sending", [Event.INTENT, Event.REFUSED_FOR_NOW, Event.INTENT])
        assert await counted(run) == {"submitted": 6}


class Renewing(StaticToken):
    """A credential that is renewed when it is refused."""

    def refused(self, headers: Mapping[str, str]) -> bool:
        return True


@pytest.mark.asyncio
async def test_a_refused_credential_is_mended_under_the_same_intent(tmp_path: Path) -> None:
    """A 401 made no invoice, so the second sending of one attempt needs no second intent."""
    service = Service({"A-1": ["unauthorised", "new"]})
    session = Session(BASE, auth=Renewing("x"), transport=service, clock=FakeClock())
    async with session, InvoiceRun.open(tmp_path / "run.db") as run:
        await run.add([draft("A-1")])
        await listed(run.submit(AsyncInvoices(session)))
        events = [entry.event for entry in await run.ledger.history("A-1")]
        assert events == [Event.INTENT, Event.ACCEPTED_NEW]
        assert service.submissions["A-1"] == 2


class Watching(FakeClock):
    """A clock that has something looked at during every sleep."""

    def __init__(self, look: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.look = look

    async def sleep(self, seconds: float) -> None:
        await self.look()
        await super().sleep(seconds)


@pytest.mark.asyncio
@pytest.mark.parametrize("refusal", ["busy", "limited", "unsent"])
async def test_while_it_backs_off_a_draft_is_not_sent(tmp_path: Path, refusal: str) -> None:
    """A crash during the wait after a refusal leaves nothing in doubt."""
    seen: list[str] = []

    async def look() -> None:
        async with SqliteReader.read(tmp_path / "run.db") as reader:
            seen.extend(item.state for item in await reader.rows())

    service = Service({"A-1": [refusal, refusal]})
    async with invoice_run(tmp_path, service, ["A-1"], clock=Watching(look)) as (run, found):
        await listed(run.submit(found))
        assert seen == ["not_sent", "not_sent"]
        assert (await item_of(run, "A-1")).attempt == 3
        assert await counted(run) == {"submitted": 1}


@pytest.mark.asyncio
@pytest.mark.parametrize("loss", ["lost", "dropped", "gateway", "gateway lost"])
async def test_a_lost_answer_is_in_doubt_and_never_sent_again(tmp_path: Path, loss: str) -> None:
    """Neither the same run nor the next, nor giving the drafts again, sends it: only a word from outside."""
    service = Service({"A-1": [loss]})
    async with invoice_run(tmp_path, service) as (run, found):
        await listed(run.run(found))
        assert await counted(run) == {"success": 5, "in_doubt": 1}
        assert await listed(run.run(found)) == []
    async with invoice_run(tmp_path, service) as (run, found):
        assert await listed(run.run(found)) == []
        item = await item_of(run, "A-1")
        assert item.state == "in_doubt"
        assert "may or may not have been created" in (item.error or "")
    assert service.submissions["A-1"] == 1


@pytest.mark.asyncio
async def test_a_draft_that_never_left_is_sent_by_the_next_run(tmp_path: Path) -> None:
    """When the attempts are spent without a byte sent it is not_sent, with the reason."""
    service = Service({"A-1": ["unsent"] * 6, "A-2": ["busy"] * 6})  # three attempts, and three once more at the end
    async with invoice_run(tmp_path, service) as (run, found):
        await listed(run.run(found))
        assert await counted(run) == {"success": 4, "not_sent": 2}
        assert (await item_of(run, "A-2")).code == "SYS_DEP_503"
        assert "refused" in ((await item_of(run, "A-1")).error or "")
        again = await listed(run.run(found))
        assert [item.state for item in again] == ["success"] * 2


@pytest.mark.asyncio
async def test_a_rejected_draft_waits_for_a_word(tmp_path: Path) -> None:
    """It is sent again only after `retry`, which is refused for anything else."""
    service = Service({"A-1": ["refused"]})
    async with invoice_run(tmp_path, service, KEYS[:2]) as (run, found):
        await listed(run.run(found))
        assert await listed(run.run(found)) == []
        assert (await run.retry("A-1")).state == "not_sent"
        with pytest.raises(ValueError, match="the service did not reject it"):
            await run.retry("A-2")
        with pytest.raises(ValueError, match="no item 'absent'"):
            await run.retry("absent")
        await listed(run.run(found))
        assert await counted(run) == {"success": 2}


@pytest.mark.asyncio
async def test_drafts_with_faults_keep_all_out(tmp_path: Path) -> None:
    """Every fault of every draft is named with its place, and nothing is taken in."""
    bad = [draft("A-1"), draft(" ", price="NaN"), draft("A-3", price="1" * 31), draft("A-4")]
    async with InvoiceRun.open(tmp_path / "run.db") as run:
        with pytest.raises(DraftError) as caught:
            await run.add(bad)
        paths = [fault.path for fault in caught.value.faults]
        assert paths == ["[1].key", "[1].lines[0].name", "[1].lines[0].price", "[2].lines[0].price"]
        assert await counted(run) == {}


@pytest.mark.asyncio
async def test_invalid_drafts_may_be_taken_in_and_corrected(tmp_path: Path) -> None:
    """With `skip_invalid` the others are sent; a corrected one takes the invalid one's place."""
    service = Service()
    strange = draft("A-2", extra={"rate": 0.5, "what": object()})
    async with invoice_run(tmp_path, service, []) as (run, found):
        intake = await run.add([draft("A-1"), strange, draft("A-3", price="-")], skip_invalid=True)
        assert intake == Intake(given=3, added=3, known=0, duplicates=0)
        await listed(run.run(found))
        assert await states(run) == {"A-1": "success", "A-2": "invalid", "A-3": "invalid"}
        assert "lines[0].price: " in ((await item_of(run, "A-3")).error or "")
        assert (await run.add([strange], skip_invalid=True)).known == 1
        assert (await run.add([draft("A-3")])).known == 1
        await listed(run.run(found))
        assert await states(run) == {"A-1": "success", "A-2": "invalid", "A-3": "success"}


@pytest.mark.asyncio
@pytest.mark.parametrize("key", ["", " ", "a\nb", "x" * 256])
async def test_an_invalid_draft_needs_a_key_all_the_same(tmp_path: Path, key: Any) -> None:
    """What cannot be accounted for is refused, also where faults are let pass."""
    async with InvoiceRun.open(tmp_path / "run.db") as run:
        with pytest.raises(DraftError, match=r"\[1\]\.key"):
            await run.add([draft("A-1"), draft(key)], skip_invalid=True)
        with pytest.raises(DraftError, match=r"\[0\]: must be an InvoiceDraft"):
            await run.add(["A-1"], skip_invalid=True)  # type: ignore[list-item] # a caller's mistake
        assert await counted(run) == {}


@pytest.mark.asyncio
async def test_a_key_is_submitted_once_whatever_is_given_again(tmp_path: Path) -> None:
    """The same drafts again resume; the same key with other content is an error and changes nothing."""
    service = Service()
    async with invoice_run(tmp_path, service) as (run, found):
        await listed(run.run(found))
        again = await run.add(map(draft, [*KEYS, "A-7", "A-7"]))
        assert again == Intake(given=8, added=1, known=6, duplicates=1)
        with pytest.raises(DraftConflictError) as caught:
            await run.add([draft("A-8"), draft("A-1", price="13")])
        assert caught.value.keys == ("A-1",)
        await listed(run.run(found))
        assert service.submissions == Counter([*KEYS, "A-7"])


@pytest.mark.asyncio
async def test_many_drafts_leave_the_loop_a_breath(tmp_path: Path) -> None:
    """Taking in a thousand drafts lets other tasks run meanwhile."""
    async with InvoiceRun.open(tmp_path / "run.db") as run:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while turns < 1_000:  # no more: a loop that spins may keep the interpreter's lock from every thread
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        intake = await run.add(draft(f"B-{number}") for number in range(1_000))
        task.cancel()
        assert intake.added == 1_000
        assert turns >= 2


@pytest.mark.asyncio
async def test_what_is_in_doubt_is_settled_by_hand(tmp_path: Path) -> None:
    """Created: it is polled under its request id. Not created: it is sent again."""
    service = Service({"A-1": ["lost"], "A-2": ["dropped"]})
    async with invoice_run(tmp_path, service, KEYS[:3]) as (run, found):
        await listed(run.run(found))
        later(run)
        request_id = service.created["A-1"][0]
        with pytest.raises(ValueError, match="request_id must be given"):
            await run.resolve("A-1", created=True)
        with pytest.raises(ValueError, match="request_id must be a UUID"):
            await run.resolve("A-1", created=True, request_id="42")
        with pytest.raises(ValueError, match="it is not in doubt"):
            await run.resolve("A-3", created=False)
        assert (await run.resolve("A-1", created=True, request_id=request_id)).state == "submitted"
        assert (await run.resolve("A-2", created=False)).state == "not_sent"
        await listed(run.run(found))
        assert await counted(run) == {"success": 3}
        assert service.submissions == {"A-1": 1, "A-2": 2, "A-3": 1}


@pytest.mark.asyncio
async def test_a_program_may_settle_what_is_in_doubt(tmp_path: Path) -> None:
    """`reconcile` settles what the program knows and leaves the rest as it is."""
    service = Service({key: ["lost"] for key in KEYS[:2]} | {key: ["dropped"] for key in KEYS[2:5]})
    async with invoice_run(tmp_path, service, stop_after=None) as (run, found):
        await listed(run.run(found))
        later(run)

        async def look_up(found: InvoiceDraft, item: Item) -> str | bool | None:
            assert found == draft(item.key)
            known: dict[str, str | bool | None] = {"A-1": True, "A-2": service.created["A-2"][0], "A-3": None}
            return known.get(item.key, False)

        given = await listed(run.reconcile(look_up))
        assert {item.key: item.state for item in given} == {
            "A-1": "in_doubt", "A-2": "submitted", "A-3": "in_doubt", "A-4": "not_sent", "A-5": "not_sent",
        }  # fmt: skip


@pytest.mark.asyncio
async def test_an_operation_that_does_not_end_stays_submitted(tmp_path: Path) -> None:
    """Its wait's end is given as its error; the next run waits again."""
    service = Service()
    service.never_ends = True
    async with invoice_run(tmp_path, service, KEYS[:2]) as (run, found):
        items = await listed(run.run(found, poller=Poller(timeout=30)))
        assert [item.state for item in items] == ["submitted"] * 2
        assert all(re.search(r"is NEW after [0-9.]+ s and \d+ polls", item.error or "") for item in items)
        service.never_ends = False
        assert [item.state for item in await listed(run.settle(found))] == ["success"] * 2
        assert {key: len(ids) for key, ids in service.created.items()} == {"A-1": 1, "A-2": 1}


@pytest.mark.asyncio
async def test_an_item_that_ended_is_not_awaited_again(tmp_path: Path) -> None:
    """What the file already gave as submitted is not taken a second time from those just submitted."""
    service = Service()
    async with invoice_run(tmp_path, service, KEYS[:2]) as (run, found):
        [first, second] = await listed(run.submit(found))

        async def also() -> AsyncGenerator[Item]:
            yield first
            yield second

        assert len(await listed(run.settle(found, also=also()))) == 2


@pytest.mark.asyncio
async def test_a_dead_credential_ends_a_submission_at_once(tmp_path: Path) -> None:
    """The second refused draft ends it: both are not_sent, and the rest is given as planned."""
    service = Service({"A-2": ["unauthorised"] * 2, "A-3": ["unauthorised"] * 2})
    async with invoice_run(tmp_path, service, concurrency=1) as (run, found):
        items, error = await until_error(run.submit(found))
        assert isinstance(error, AuthenticationError)
        assert {item.key: item.state for item in items} == {
            "A-1": "submitted", "A-2": "not_sent", "A-3": "not_sent",
            "A-4": "planned", "A-5": "planned", "A-6": "planned",
        }  # fmt: skip
        assert "HTTP 401" in ((await item_of(run, "A-2")).error or "")
        await listed(run.run(found))
        assert await counted(run) == {"success": 6}


@pytest.mark.asyncio
async def test_a_dead_credential_ends_a_wait_at_once(tmp_path: Path) -> None:
    """The second poll whose 401 stays one is raised; everything stays submitted."""
    service = Service()
    service.poll_status = 401
    async with invoice_run(tmp_path, service) as (run, found):
        await listed(run.submit(found))
        items, error = await until_error(run.settle(found))
        assert isinstance(error, AuthenticationError)
        assert len(items) < 6
        assert await counted(run) == {"submitted": 6}


@pytest.mark.asyncio
async def test_a_session_that_is_closed_leaves_nothing_in_doubt(tmp_path: Path) -> None:
    """It is raised, and the draft stays as it was."""
    async with invoices(Service()) as found:
        pass
    async with InvoiceRun.open(tmp_path / "run.db") as run:
        await run.add([draft("A-1")])
        _, error = await until_error(run.submit(found))
        assert isinstance(error, SessionError)
        assert await counted(run) == {"planned": 1}


@pytest.mark.asyncio
async def test_a_submission_that_is_cancelled_is_in_doubt_at_once(tmp_path: Path) -> None:
    """The open file knows it without being opened again, and does not send it a second time."""
    service = Service({"A-2": ["busy"]})
    reached = asyncio.Event()

    async def hang(key: str) -> None:
        if key == "A-1":
            reached.set()
            await asyncio.Event().wait()

    service.received = hang
    clock = FakeClock(auto=False)
    async with invoice_run(tmp_path, service, KEYS[:3], clock=clock, stop_after=None) as (run, found):
        task = asyncio.create_task(listed(run.submit(found)))
        await reached.wait()
        while (await states(run)) != {"A-1": "sending", "A-2": "not_sent", "A-3": "submitted"}:  # noqa: ASYNC110 - only the file tells
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await states(run) == {"A-1": "in_doubt", "A-2": "not_sent", "A-3": "submitted"}
        service.received = None
        await listed(run.submit(found))
        assert service.submissions == {"A-1": 1, "A-2": 2, "A-3": 1}


@pytest.mark.asyncio
@pytest.mark.parametrize(("concurrency", "in_line"), [(1, "planned"), (32, "planned"), (33, "not_sent")])
async def test_a_submission_that_is_cancelled_before_its_first_byte_was_not_sent(
    tmp_path: Path, concurrency: int, in_line: str
) -> None:
    """Where there are many places its intent is on disk while it waits in line for one, elsewhere it is not yet."""
    service = Service({})
    reached: list[str] = []

    async def hang(key: str) -> None:
        reached.append(key)
        await asyncio.Event().wait()

    service.received = hang
    keys = [f"A-{number}" for number in range(1, concurrency + 2)]
    async with invoice_run(tmp_path, service, keys, concurrency=concurrency, stop_after=None, adaptive=False) as (
        run,
        found,
    ):
        task = asyncio.create_task(listed(run.submit(found, concurrency=concurrency + 1)))
        sending = concurrency + (in_line == "not_sent")
        while len(reached) < concurrency or (await run.ledger.counts())["sending"] != sending:  # noqa: ASYNC110 - only the file tells
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        [waiting] = set(keys) - set(reached)  # answers of the disk may let a later one go first
        assert ((await states(run))[waiting], (await counted(run))["in_doubt"]) == (in_line, concurrency)


class Meddling:
    """A ledger that does something of its own around the transitions of one event."""

    def __init__(self, ledger: Ledger, event: Event, meddle: Callable[[], Awaitable[None]], *, after: bool) -> None:
        self._ledger = ledger
        self._event = event
        self._meddle = meddle
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def transition_many(self, changes: Iterable[Change]) -> list[State]:
        changes = tuple(changes)
        mine = any(change.event is self._event for change in changes)
        if mine and not self._after:
            await self._meddle()
        done = await self._ledger.transition_many(changes)
        if mine and self._after:
            await self._meddle()
        return done


def meddle(run: InvoiceRun, event: Event, action: Callable[[], Awaitable[None]], *, after: bool = False) -> None:
    run.ledger = Meddling(run.ledger, event, action, after=after)


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def action() -> None:
        raise error

    return action


@pytest.mark.asyncio
async def test_a_submission_cancelled_before_its_first_byte_is_not_sent(tmp_path: Path) -> None:
    """While the intent is being written nothing has left: that is provable, and so not in doubt."""
    service = Service()
    async with invoice_run(tmp_path, service, KEYS[:1]) as (run, found):
        ledger, reached = run.ledger, asyncio.Event()

        async def hang() -> None:
            reached.set()
            await asyncio.Event().wait()

        meddle(run, Event.INTENT, hang, after=True)
        task = asyncio.create_task(listed(run.submit(found)))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        run.ledger = ledger
        assert await counted(run) == {"not_sent": 1}
        assert service.submissions == {}
        await listed(run.run(found))
        assert await counted(run) == {"success": 1}


@pytest.mark.asyncio
async def test_an_intent_that_outlasts_the_attempt_is_taken_back(tmp_path: Path) -> None:
    """A disk slower than the attempt's time limit ends in another attempt, not in a contradiction."""
    service, clock = Service(), FakeClock()
    async with invoice_run(tmp_path, service, KEYS[:1], clock=clock, timeouts=Timeouts(attempt=60)) as (run, found):
        ledger, slow = run.ledger, [True]

        async def outlast() -> None:
            if slow:
                slow.clear()
                clock.advance(61)
                await asyncio.Event().wait()

        meddle(run, Event.INTENT, outlast, after=True)
        [item] = await listed(run.submit(found))
        assert item.state == "submitted"
        run.ledger = ledger
        events = [entry.event for entry in await run.ledger.history("A-1")]
        assert events == [Event.INTENT, Event.REFUSED_FOR_NOW, Event.INTENT, Event.ACCEPTED_NEW]


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RunFileError("the run file is damaged")])
async def test_without_its_intent_nothing_is_sent(tmp_path: Path, error: Exception) -> None:
    """Trouble with the run file before the first byte ends the batch, and nothing is in doubt."""
    service = Service()
    async with invoice_run(tmp_path, service) as (run, found):
        ledger = run.ledger
        meddle(run, Event.INTENT, raising(error))
        _, raised = await until_error(run.submit(found))
        assert raised is error
        assert service.submissions == {}
        run.ledger = ledger
        assert await counted(run) == {"planned": 6}


@pytest.mark.asyncio
async def test_a_request_id_that_cannot_be_recorded_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The error and the log name it, and after reopening the item is in doubt: it is not sent again."""
    service = Service()
    async with invoice_run(tmp_path, service, KEYS[:1]) as (run, found):
        meddle(run, Event.ACCEPTED_NEW, raising(OSError(28, "No space left on device")))
        with caplog.at_level(logging.ERROR, "invoicing_async"):
            _, raised = await until_error(run.submit(found))
        request_id = service.created["A-1"][0]
        assert isinstance(raised, OSError)
        assert request_id in "".join(raised.__notes__)
        assert request_id in caplog.text
    async with invoice_run(tmp_path, service, KEYS[:1]) as (run, found):
        assert run.ledger.recovered == 1
        assert await counted(run) == {"in_doubt": 1}
        assert await listed(run.run(found)) == []


@pytest.mark.asyncio
async def test_an_observer_that_raises_changes_no_outcome(tmp_path: Path) -> None:
    """The invoice was made, and that is what is recorded."""

    def observe(event: object) -> None:
        raise ZeroDivisionError

    async with invoice_run(tmp_path, Service(), KEYS[:1], on_event=observe) as (run, found):
        await listed(run.submit(found))
        assert (await item_of(run, "A-1")).state == "submitted"


@pytest.mark.asyncio
async def test_a_draft_that_other_names_make_invalid_is_found_out(tmp_path: Path) -> None:
    """The names of the wire are settings of a session, so a draft taken in may turn out not to be sendable."""
    names = WireNames(payment_method="po")
    async with invoice_run(tmp_path, Service(), KEYS[1:2], names=names) as (run, found):
        await run.add([draft("A-1", extra={"po": "7"})])
        items = await listed(run.submit(found))
        assert {item.key: item.state for item in items} == {"A-1": "invalid", "A-2": "submitted"}
        assert "extra.po" in ((await item_of(run, "A-1")).error or "")


@pytest.mark.asyncio
async def test_a_damaged_draft_is_never_sent(tmp_path: Path) -> None:
    """One that was changed comes to rest as damaged, and is mended by giving it again; one that is gone is refused."""
    file = tmp_path / "run.db"
    async with InvoiceRun.open(file) as run:
        await run.add(map(draft, KEYS[:3]))
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE drafts SET payload = replace(payload, '12.50', '92.50') WHERE seq = 1")
        connection.execute("UPDATE drafts SET payload = '{\"key\": 7}' WHERE seq = 2")
    connection.close()
    service = Service()
    async with invoices(service) as found, InvoiceRun.open(file) as run:
        items = await listed(run.submit(found))
        assert {item.key: item.state for item in items} == {"A-1": "invalid", "A-2": "invalid", "A-3": "submitted"}
        assert all("is damaged" in (item.error or "") for item in items if item.state == "invalid")
        assert service.submissions == {"A-3": 1}
        await run.add(map(draft, KEYS[:3]))
        await listed(run.submit(found))
        assert service.submissions == {"A-1": 1, "A-2": 1, "A-3": 1}
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM drafts WHERE seq = 2")
    connection.close()
    with pytest.raises(DamagedRunError, match="1 of its drafts are not there"):
        async with InvoiceRun.open(file):
            pass


@pytest.mark.asyncio
async def test_a_stopped_run_leaves_no_doubt(tmp_path: Path) -> None:
    """What is in flight is answered and recorded, a backoff and the waiting end at once, the rest is planned."""
    service, clock = Service({"A-1": ["busy"]}), FakeClock(auto=False)
    service.never_ends = True
    async with invoice_run(tmp_path, service, clock=clock, concurrency=2) as (run, found):
        given: list[Item] = []

        async def consume() -> None:
            async with aclosing(run.run(found)) as items:
                async for item in items:
                    given.append(item)  # noqa: PERF401 - looked at while it grows

        task = asyncio.create_task(consume())
        while "submitted" not in (await states(run)).values():  # noqa: ASYNC110 - only the file tells
            await asyncio.sleep(0.001)
        run.stop()
        await task
        counts = await counted(run)
        assert counts["not_sent"] == 1
        assert set(counts) <= {"not_sent", "submitted", "planned"}
        assert [item.key for item in given if item.state == "not_sent"] == ["A-1"]
    service.never_ends = False
    async with invoice_run(tmp_path, service) as (run, found):
        await listed(run.run(found))
        assert await counted(run) == {"success": 6}
        assert all(len(ids) == 1 for ids in service.created.values())


@pytest.mark.asyncio
async def test_leaving_a_run_early_ends_all_of_it(tmp_path: Path) -> None:
    """No task is left behind by a `break`, and the next run on the open file ends it all."""
    service = Service()
    async with invoice_run(tmp_path, service) as (run, found):
        before = asyncio.all_tasks()
        async with aclosing(run.run(found)) as items:
            async for _ in items:
                break
        assert asyncio.all_tasks() == before
        await listed(run.reconcile(service.look_up))
        await listed(run.run(found))
        assert await counted(run) == {"success": 6}
        assert all(len(ids) == 1 for ids in service.created.values())


@pytest.mark.asyncio
async def test_finished_invoices_are_exported_and_checked(tmp_path: Path) -> None:
    """Each gets a whole PDF once, also one that was SUCCESS at once without naming its invoice."""
    service = Sandbox(SandboxSettings(), clock=FakeClock(), faults=Faults(polls_until_done=(0, 0)))
    async with invoice_run(tmp_path, service, KEYS[:3], base=BASE) as (run, found):
        await listed(run.run(found))
        assert await counted(run) == {"success": 3}
        assert {item.invoice_id for item in await run.ledger.rows()} == {None}
        items = await listed(run.export(found, tmp_path / "pdf"))
        assert all(item.path and fault_of(Path(item.path).read_bytes()) is None for item in items)
        assert {item.invoice_id for item in items} == {made.invoice_id for made in service.created.values()}
        assert await listed(run.export(found, tmp_path / "pdf")) == []
        Path(items[0].path or "").write_bytes(b"%PDF-1.7 broken")
        disk = DiskWriter()
        checked = await listed(check_files(run.ledger, disk))
        await disk.close()
        assert [check.key for check in checked if check.fault] == [items[0].key]


@pytest.mark.asyncio
async def test_an_export_that_fails_is_noted_and_tried_again(tmp_path: Path) -> None:
    """The invoice stays SUCCESS; a dead credential ends the export."""
    service = Sandbox(clock=FakeClock())
    service.script(Operation.EXPORT, [DropBeforeAnswer()] * 3)
    async with invoice_run(tmp_path, service, KEYS[:1]) as (run, found):
        await listed(run.run(found))
        [item] = await listed(run.export(found, tmp_path / "pdf", format="xml"))
        assert (item.state, item.path) == ("success", None)
        assert "lost the answer" in (item.error or "")
        async with invoices(Dying(service, 0)) as dead:
            [item] = await listed(run.export(dead, tmp_path / "pdf"))
            assert "HTTP 401" in (item.error or "")
            items, error = await until_error(run.export(dead, tmp_path / "pdf"))
            assert [item.key for item in items] == ["A-1"]
            assert isinstance(error, AuthenticationError)
        [item] = await listed(run.export(found, tmp_path / "pdf", format="xml"))
        assert Path(item.path or "").suffix == ".xml"
        assert item.error is None


@pytest.mark.asyncio
async def test_an_invoice_that_nobody_names_is_not_exported(tmp_path: Path) -> None:
    """A service that says SUCCESS and never an invoice's id leaves nothing to fetch; that is said."""
    service = Service({"A-1": ["success"]})
    async with invoice_run(tmp_path, service, KEYS[:1]) as (run, found):
        await listed(run.run(found))
        [item] = await listed(run.export(found, tmp_path / "pdf"))
        assert "named no invoice" in (item.error or "")
        assert item.state == "success"


@pytest.mark.asyncio
async def test_concurrency_of_a_submission_must_be_one_or_more(tmp_path: Path) -> None:
    """Nothing is begun with no place to do it in."""
    async with invoice_run(tmp_path, Service()) as (run, found):
        with pytest.raises(ValueError, match="concurrency must be 1 or more, got -1"):
            await listed(run.submit(found, concurrency=-1))

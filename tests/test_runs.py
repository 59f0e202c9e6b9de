"""Durable runs: every item in exactly one state, nothing fetched or sent again that need not be, whatever cuts in."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import date
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import UUID

import pytest
from fakes import FakeClock, FakeResponse
from forked import python
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing_async._core.clock import Clock, RealClock
from invoicing_async._core.http import Exchange, Request, Response, Transport
from invoicing_async._durable.drafts import _restored
from invoicing_async._durable.protocol import Ledger
from invoicing_async._durable.records import Change
from invoicing_async._durable.states import Event
from invoicing_async._durable.streams import merge_sources
from invoicing_async._einvoices.draft_json import load_draft
from invoicing_async._einvoices.encode import dump_draft
from invoicing_async._einvoices.shape import WireNames
from invoicing_async._files.pdf import fault_of
from invoicing_async._files.writer import DiskWriter
from invoicing_async._transport.server import serve
from invoicing_async.auth import HmacAuth, StaticToken
from invoicing_async.documents import DownloadOutcome, OrderDocuments
from invoicing_async.errors import (
    AuthenticationError,
    DraftError,
    PollTimeoutError,
    ServiceUnavailableError,
    SessionError,
    TransportError,
)
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import (
    Consumer,
    Deferred,
    Failed,
    InvoiceDraft,
    InvoiceLine,
    NotStarted,
    PaymentMethod,
    Saved,
    Skipped,
    SubmitToTax,
    VatRate,
)
from invoicing_async.policies import Limits, RetryPolicy, Timeouts
from invoicing_async.polling import Poller
from invoicing_async.runs import (
    Checked,
    DamagedRunError,
    DocumentRun,
    DraftConflictError,
    Intake,
    InvoiceRun,
    Item,
    JournalEntry,
    RunFileError,
    SqliteReader,
    State,
    check_files,
)
from invoicing_async.sandbox import (
    DropBeforeAnswer,
    Faults,
    NotEligible,
    Operation,
    Sandbox,
    SandboxSettings,
    Unavailable,
    demo_orders,
)
from invoicing_async.session import Session

T = TypeVar("T")
BASE = "http://127.0.0.1/api"
ORDERS = demo_orders(12)
DAY = date(2025, 9, 17)


async def listed(source: AsyncGenerator[T]) -> list[T]:
    async with aclosing(source):
        return [value async for value in source]


# -- documents -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def documents(
    service: Transport | Sandbox,
    *,
    secret: str | None = None,
    base: str = BASE,
    clock: Clock | None = None,
    retry: RetryPolicy | None = None,
    concurrency: int = 4,
) -> AsyncIterator[OrderDocuments]:
    partner = Sandbox().credentials.partner() | ({"secret_key": secret} if secret else {})
    session = Session(
        base,
        auth=HmacAuth(**partner),
        transport=None if base != BASE else service,
        clock=clock or FakeClock(),
        retry=retry,
        limits=Limits(concurrency=concurrency),
    )
    async with session:
        yield OrderDocuments(session)


@asynccontextmanager
async def document_run(
    folder: Path, service: Transport | Sandbox, *, layout: str = "{order_id}", **options: Any
) -> AsyncIterator[tuple[DocumentRun, OrderDocuments]]:
    async with (
        documents(service, **options) as found,
        DocumentRun.open(folder / "run.db", folder=folder / "pdf", layout=layout, day=DAY, clock=FakeClock()) as run,
    ):
        yield run, found


def sandbox(**faults: Any) -> Sandbox:
    return Sandbox(clock=FakeClock(), faults=Faults(**faults))


def kinds(outcomes: Iterable[DownloadOutcome]) -> Counter[str]:
    return Counter(type(outcome).__name__ for outcome in outcomes)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


async def states(run: DocumentRun | InvoiceRun) -> dict[str, str]:
    return {item.key: item.state for item in await run.ledger.rows()}


async def counted(run: DocumentRun | InvoiceRun) -> dict[str, int]:
    """The states that have items, after a look that the kept counts are the real ones."""
    counts = {state: count for state, count in (await run.ledger.counts()).items() if count}
    assert counts == Counter((await states(run)).values())
    return counts


@pytest.mark.asyncio
async def test_every_id_is_saved_once_and_accounted_for(tmp_path: Path) -> None:
    """Ids taken in, outcomes given, states recorded and files on disk agree; a duplicate counts once."""
    service = sandbox(not_eligible=frozenset(ORDERS[:2]), unavailable={ORDERS[3]: 1})
    service.script(ORDERS[2], [DropBeforeAnswer()] * 9)
    async with document_run(tmp_path, service) as (run, found):
        intake = await run.add([*ORDERS, ORDERS[5], ORDERS[5]])
        assert intake == Intake(given=14, added=12, known=0, duplicates=2)
        outcomes = await listed(run.download(found))
        assert kinds(outcomes) == {"Saved": 9, "Deferred": 2, "Failed": 1}
        assert Counter(outcome.order_id for outcome in outcomes) == Counter(ORDERS)
        assert await counted(run) == {"saved": 9, "deferred": 2, "failed": 1}
        assert len(files(tmp_path / "pdf")) == 9
        retried = await run.ledger.get(ORDERS[3])
        assert retried is not None
        assert retried.attempt == 2
        assert retried.path == str(tmp_path / "pdf" / f"{ORDERS[3]}.pdf")
        body = Path(retried.path).read_bytes()
        assert (retried.size, retried.sha256) == (len(body), sha256(body).hexdigest())
        assert fault_of(body) is None
        deferred = await run.ledger.get(ORDERS[0])
        assert deferred is not None
        assert deferred.code == "ORDER_021"
        assert "OrderStatusError" in (deferred.error or "")


@pytest.mark.asyncio
async def test_a_second_run_verifies_and_fetches_nothing(tmp_path: Path) -> None:
    """What is recorded and whole is given as skipped, from a new process's view, without a call."""
    service = sandbox()
    async with document_run(tmp_path, service) as (run, found):
        await run.add(ORDERS)
        first = await listed(run.download(found))
    async with document_run(tmp_path, service) as (run, found):
        assert (await run.add(ORDERS)).known == 12
        second = await listed(run.download(found))
        assert kinds(second) == {"Skipped": 12}
        shas = {outcome.order_id: outcome.document.sha256 for outcome in first if isinstance(outcome, Saved)}
        assert {outcome.order_id: outcome.document.sha256 for outcome in second if isinstance(outcome, Skipped)} == shas
        assert await listed(run.download(found, verify=False)) == []
        assert service.calls(Operation.DOCUMENT) == 12


@pytest.mark.asyncio
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed", "a folder"])
async def test_what_is_broken_is_fetched_anew_and_put_in_its_place(tmp_path: Path, damage: str) -> None:
    """A recorded file that is missing, truncated or changed is found by size and hash, also if it looks whole."""
    service = sandbox()
    async with document_run(tmp_path, service) as (run, found):
        await run.add(ORDERS[:3])
        await listed(run.download(found))
        before = files(tmp_path / "pdf")
        victim = tmp_path / "pdf" / f"{ORDERS[1]}.pdf"
        body = victim.read_bytes()
        victim.unlink()
        if damage == "truncated":
            victim.write_bytes(body[:-40])
        elif damage == "changed":
            victim.write_bytes(body.replace(b"%PDF-1", b"%PDF-2", 1))
        elif damage == "a folder":
            victim.mkdir()
        checked = await listed(run.verify(found.disk))
        assert [check.key for check in checked if check.fault] == [ORDERS[1]]
        assert await counted(run) == {"saved": 2, "planned": 1}
        again = await listed(run.download(found))
        if damage == "a folder":  # no file of ours: it is in the way, and stays
            assert kinds(again) == {"Skipped": 2, "Failed": 1}
            return
        assert kinds(again) == {"Skipped": 2, "Saved": 1}
        assert files(tmp_path / "pdf") == before
        assert service.calls(Operation.DOCUMENT) == 4


@pytest.mark.asyncio
async def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    """A stranger's file under our name is not lost: broken, it is renamed; whole, it is kept."""
    broken, whole = (tmp_path / "pdf" / f"{order}.pdf" for order in ORDERS[:2])
    broken.parent.mkdir()
    broken.write_bytes(b"notes of somebody")
    theirs = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\nstartxref\n9\n%%EOF\n"
    whole.write_bytes(theirs)
    async with document_run(tmp_path, sandbox()) as (run, found):
        await run.add(ORDERS[:2])
        assert kinds(await listed(run.download(found))) == {"Saved": 1, "Skipped": 1}
        assert await states(run) == {ORDERS[0]: "saved", ORDERS[1]: "skipped"}
        whole.write_bytes(b"somebody's new notes")
        await listed(run.download(found))
        assert await counted(run) == {"saved": 2}
        assert {b"notes of somebody", b"somebody's new notes"} < set(files(tmp_path / "pdf").values())
        assert await listed(run.download(found))
        assert len(files(tmp_path / "pdf")) == 4


@pytest.mark.asyncio
async def test_what_was_deferred_or_failed_is_tried_again(tmp_path: Path) -> None:
    """The next run asks for it again, and only for it."""
    service = sandbox()
    service.script(ORDERS[0], [NotEligible()])
    service.script(ORDERS[1], [Unavailable()] * 2)
    async with document_run(tmp_path, service, retry=RetryPolicy(attempts=2)) as (run, found):
        await run.add(ORDERS[:4])
        first = await listed(run.download(found))
        assert kinds(first) == {"Saved": 2, "Deferred": 1, "Failed": 1}
        [failed] = [outcome for outcome in first if isinstance(outcome, Failed)]
        assert isinstance(failed.error, ServiceUnavailableError)
        item = await run.ledger.get(ORDERS[1])
        assert item is not None
        assert (item.code, item.attempt) == ("SYS_DEP_503", 2)
        second = await listed(run.download(found))
        assert kinds(second) == {"Skipped": 2, "Saved": 2}
        assert await counted(run) == {"saved": 4}


class Dying:
    """A transport whose service refuses the credential after so many calls."""

    def __init__(self, service: Sandbox, calls: int) -> None:
        self.service = service
        self.left = calls

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        exchange.leave()
        self.left -= 1
        if self.left < 0:
            yield FakeResponse(status=401)
            return
        async with self.service.send(request, exchange) as response:
            yield response

    async def close(self) -> None:
        """Nothing is held open."""


async def until_error(source: AsyncGenerator[T]) -> tuple[list[T], BaseException]:
    given: list[T] = []
    try:
        async with aclosing(source):
            async for value in source:
                given.append(value)  # noqa: PERF401 - what was given before the error counts
    except Exception as error:  # noqa: BLE001 - it is what the test looks at
        return given, error
    raise AssertionError("nothing was raised")


@pytest.mark.asyncio
async def test_a_dead_credential_ends_the_run_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """After a second 401 that stays one all that is left is planned; with a good credential it is saved."""
    service = sandbox()
    async with document_run(tmp_path, Dying(service, 5), concurrency=1) as (run, found):
        await run.add(ORDERS)
        outcomes, error = await until_error(run.download(found))
        assert isinstance(error, AuthenticationError)
        assert kinds(outcomes) == {"Saved": 5, "Failed": 1, "NotStarted": 6}
        assert Counter(outcome.order_id for outcome in outcomes) == Counter(ORDERS)
        assert await counted(run) == {"saved": 5, "failed": 1, "planned": 6}
    async with document_run(tmp_path, service) as (run, found):
        assert kinds(await listed(run.download(found))) == {"Skipped": 5, "Saved": 7}
    assert service.calls(Operation.DOCUMENT) == 12


@pytest.mark.asyncio
async def test_trouble_with_one_place_is_told_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """A file where a sub-folder is wanted is the trouble of those documents that go there."""
    service = sandbox()
    (tmp_path / "pdf").mkdir()
    (tmp_path / "pdf" / "2025").write_bytes(b"in the way")
    async with document_run(tmp_path, service, layout="{date:%Y}/{order_id}") as (run, found):
        await run.add(ORDERS)
        assert kinds(await listed(run.download(found))) == {"Failed": 12}
        assert await counted(run) == {"failed": 12}
        assert files(tmp_path / "pdf") == {"2025": b"in the way"}
        (tmp_path / "pdf" / "2025").unlink()
        assert kinds(await listed(run.download(found))) == {"Saved": 12}


@pytest.mark.asyncio
async def test_a_run_that_is_cancelled_goes_on_where_it_was(tmp_path: Path) -> None:
    """Cancelled in the middle, it has lost nothing, left no temporary file, and fetches only the rest."""
    service = sandbox()
    async with document_run(tmp_path, service, concurrency=2) as (run, found):
        await run.add(ORDERS)
        given: list[DownloadOutcome] = []

        async def consume() -> None:
            async with aclosing(run.download(found)) as outcomes:
                async for outcome in outcomes:
                    given.append(outcome)
                    if len(given) == 5:
                        task.cancel()

        task = asyncio.create_task(consume())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(name in {f"{order}.pdf" for order in ORDERS} for name in files(tmp_path / "pdf"))
        recorded = (await counted(run)).get("saved", 0)
        assert 5 <= recorded <= 9
        fetched = service.calls(Operation.DOCUMENT)
        rest = await listed(run.download(found))
        assert kinds(rest)["Skipped"] >= recorded
        assert await counted(run) | {"skipped": 0} == {"saved": 12 - kinds(rest)["Skipped"] + recorded, "skipped": 0}
        assert service.calls(Operation.DOCUMENT) - fetched == kinds(rest)["Saved"]
        assert len(files(tmp_path / "pdf")) == 12


@pytest.mark.asyncio
async def test_leaving_a_run_early_leaves_the_rest_planned(tmp_path: Path) -> None:
    """A `break` is as good as a cancel: each id is still in exactly one state."""
    async with document_run(tmp_path, sandbox()) as (run, found):
        await run.add(ORDERS)
        async with aclosing(run.download(found)) as outcomes:
            async for _ in outcomes:
                break
        counts = await counted(run)
        assert counts["planned"] >= 4
        assert sum(counts.values()) == 12
        await listed(run.download(found))
        assert sum((await counted(run)).values()) == 12
        assert "planned" not in await counted(run)


@pytest.mark.asyncio
async def test_a_stopped_run_finishes_what_is_in_flight_and_waits_for_nothing(tmp_path: Path) -> None:
    """`stop` ends a backoff at once; that id stays planned and what was in flight is saved."""
    service = sandbox(unavailable={ORDERS[0]: 1})
    clock = FakeClock(auto=False)
    async with document_run(tmp_path, service, clock=clock, concurrency=2) as (run, found):
        await run.add(ORDERS)
        given: list[DownloadOutcome] = []
        async with aclosing(run.download(found)) as outcomes:
            async for outcome in outcomes:
                given.append(outcome)
                if len(given) == 3:
                    assert clock.sleeping > 0
                    run.stop()
                    run.stop()
        assert [outcome.order_id for outcome in given if isinstance(outcome, NotStarted)] == [ORDERS[0]]
        assert 3 < len(given) < 8
        counts = await counted(run)
        assert counts == {"saved": len(given) - 1, "planned": 13 - len(given)}
        assert await listed(run.download(found)) == []


@pytest.mark.asyncio
async def test_a_backoff_after_the_stop_is_not_begun(tmp_path: Path) -> None:
    """An id whose call fails after the stop is not started either."""
    clock = FakeClock()
    async with document_run(tmp_path, sandbox(unavailable={ORDERS[0]: 1}), clock=clock, concurrency=1) as (run, found):
        await run.add(ORDERS)
        saver = await found.saver(run.folder)
        [item] = await run.ledger.pending(limit=1)
        run.stop()
        assert isinstance(await run._fetched(saver, item, clock.sleep), NotStarted)
        assert clock.slept == []


@pytest.mark.asyncio
async def test_a_time_out_of_the_sleep_itself_is_not_taken_for_a_stop(tmp_path: Path) -> None:
    """Only what `stop` cut is called stopped."""

    async def sleep(_: float) -> None:
        raise TimeoutError

    async with document_run(tmp_path, sandbox()) as (run, _):
        with pytest.raises(TimeoutError):
            await run._stop.sleep(sleep)(1)


OPEN_RUN = """
import asyncio, sys
from invoicing_async.runs import {kind}, RunLockedError
async def main():
    async with {kind}.open(sys.argv[1]{folder}):
        pass
try:
    asyncio.run(main())
except RunLockedError as error:
    print(error.pid, error)
    sys.exit(2)
"""


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["DocumentRun", "InvoiceRun"])
async def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path, kind: str) -> None:
    """One process at a time; the second names the holder's process."""
    folder = ", folder=sys.argv[1] + '.d'" if kind == "DocumentRun" else ""
    file = tmp_path / "run.db"
    async with AsyncExitStack() as stack:
        if kind == "DocumentRun":
            await stack.enter_async_context(DocumentRun.open(file, folder=f"{file}.d"))
        else:
            await stack.enter_async_context(InvoiceRun.open(file))
        code = OPEN_RUN.format(kind=kind, folder=folder)
        with python(code, file) as other:
            out, err = await asyncio.to_thread(other.communicate, 30)
        assert other.returncode == 2, err
        assert out.split()[0].decode() == str(os.getpid())
        assert f"{file} is held by process {os.getpid()}" in out.decode()


@pytest.mark.asyncio
async def test_the_settings_are_those_of_the_first_time(tmp_path: Path) -> None:
    """Layout, day and the rest are kept in the file; another folder and another kind of run are refused."""
    file, folder = tmp_path / "run.db", tmp_path / "pdf"
    async with DocumentRun.open(
        file, folder=folder, layout="{date:%Y/%m}/{order_id}", day=DAY, durable=True, served_name=False
    ):
        pass
    async with DocumentRun.open(file) as run:
        assert run.folder == folder
        assert run.layout.pattern == "{date:%Y/%m}/{order_id}"
        assert (run.day, run.durable, run.served_name) == (DAY, True, False)
        async with documents(sandbox()) as found:
            await run.add(ORDERS[:1])
            await listed(run.download(found))
            assert (folder / "2025" / "09" / f"{ORDERS[0]}.pdf").is_file()
    with pytest.raises(ValueError, match=r"folder must be .*pdf, which this run was begun with, got .*other"):
        async with DocumentRun.open(file, folder=tmp_path / "other"):
            pass
    with pytest.raises(RunFileError, match="is a run of documents, not of invoices"):
        async with InvoiceRun.open(file):
            pass
    with pytest.raises(FileNotFoundError):
        async with DocumentRun.open(tmp_path / "absent.db"):
            pass
    assert not (tmp_path / "absent.db").exists()


async def _streamed(ids: Iterable[Any]) -> AsyncIterator[Any]:
    for order_id in ids:
        yield order_id


@pytest.mark.asyncio
@pytest.mark.parametrize("made", [list, iter, _streamed])
async def test_ids_are_taken_as_their_text(tmp_path: Path, made: Any) -> None:
    """A UUID, a number and a text; the one that is none of these is one error, and nothing of its input is taken in."""
    async with document_run(tmp_path, sandbox()) as (run, found):
        for bad in (None, 7.0, True, b"a"):
            with pytest.raises(ValueError, match=r"order_ids\[2\] must be text, a UUID or an int"):
                await run.add(made(["a", 7, bad]))
        assert await run.ledger.rows() == []
        intake = await run.add(made([UUID(ORDERS[0]), 7, "7", ORDERS[0]]))
        assert intake == Intake(given=4, added=2, known=0, duplicates=2)
        outcomes = await listed(run.download(found))
        assert sorted(outcome.order_id for outcome in outcomes) == sorted(["7", ORDERS[0]])
        with pytest.raises(ValueError, match="several ids, not one str"):
            await run.add(ORDERS[0])


@pytest.mark.asyncio
async def test_the_day_is_that_of_the_clock(tmp_path: Path) -> None:
    """Without a day the clock's own is taken, once."""
    clock = FakeClock()
    async with DocumentRun.open(tmp_path / "run.db", folder=tmp_path, clock=clock) as run:
        assert abs((run.day - DAY).days) <= 1
        first = run.day
    clock.advance(5 * 86_400)
    async with DocumentRun.open(tmp_path / "run.db", clock=clock) as run:
        assert run.day == first


@pytest.mark.asyncio
async def test_files_are_checked_while_another_process_holds_the_run(tmp_path: Path) -> None:
    """`check_files` reads with a reader, reports every recorded file and changes nothing."""
    async with document_run(tmp_path, sandbox()) as (run, found):
        await run.add(ORDERS[:3])
        await listed(run.download(found))
        (tmp_path / "pdf" / f"{ORDERS[2]}.pdf").unlink()
        async with SqliteReader.read(tmp_path / "run.db") as reader:
            checked = await listed(check_files(reader, found.disk))
        assert [check.key for check in checked] == list(ORDERS[:3])
        assert checked[0] == Checked(ORDERS[0], tmp_path / "pdf" / f"{ORDERS[0]}.pdf", None)
        assert "cannot be read" in (checked[2].fault or "")
        assert await counted(run) == {"saved": 3}


@pytest.mark.asyncio
async def test_concurrency_must_be_one_or_more(tmp_path: Path) -> None:
    """Nothing is begun with no place to do it in."""
    async with document_run(tmp_path, sandbox()) as (run, found):
        with pytest.raises(ValueError, match="concurrency must be 1 or more, got 0"):
            await listed(run.download(found, concurrency=0))


@pytest.mark.asyncio
async def test_a_run_over_a_real_socket_keeps_account_of_every_id(tmp_path: Path) -> None:
    """Served on a port, with refusals, the same accounts hold; an empty run gives nothing."""
    service = Sandbox(faults=Faults(unavailable_share=0.3, not_eligible_share=0.2))
    async with (
        serve(service, base_path="/api/v1") as url,
        documents(service, base=url, clock=RealClock(), retry=RetryPolicy(first=0.001)) as found,
        DocumentRun.open(tmp_path / "run.db", folder=tmp_path / "pdf") as run,
    ):
        assert await listed(run.download(found)) == []
        orders = demo_orders(60)
        await run.add(orders)
        outcomes = await listed(run.download(found, concurrency=8))
        deferred = sum(isinstance(outcome, Deferred) for outcome in outcomes)
        assert kinds(outcomes) == {"Saved": 60 - deferred, "Deferred": deferred}
        assert await counted(run) == {"saved": 60 - deferred, "deferred": deferred}


# -- invoices ------------------------------------------------------------------------------------------------------

TEMPLATE = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
KEYS = tuple(f"A-{number}" for number in range(1, 7))


def draft(key: str, *, price: str = "12.50", **fields: Any) -> InvoiceDraft:
    """A draft whose name of its line tells its key to the service."""
    line = InvoiceLine(name=str(key), unit="piece", price=price, quantity=2)
    return InvoiceDraft(key=key, invoice_template_id=TEMPLATE, lines=(line,), **fields)


CREATING = {"new", "new failed", "success", "failed", "lost", "gateway lost"}
"""Steps after which the invoice exists, or has failed for good, under a request id."""


class Service:
    """Service B in memory. `plans` says how each submission of a key ends; then each is accepted. It remembers."""

    def __init__(self, plans: Mapping[str, Iterable[str]] | None = None, **options: Any) -> None:
        self.plans = {key: list(plan) for key, plan in (plans or {}).items()}
        self.created: dict[str, list[str]] = {}
        self.ends: dict[str, str] = {}
        self.submissions: Counter[str] = Counter()
        self.polls: Counter[str] = Counter()
        self.received: Callable[[str], Awaitable[None]] | None = None
        self.poll_status = 200
        self.never_ends = False

    async def close(self) -> None:
        """Nothing is held open."""

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        if request.path.endswith("/ob/invoices"):
            yield await self._submitted(request, exchange)
        else:
            exchange.leave()
            yield self._polled(request.path.rsplit("/", 1)[1])

    async def _submitted(self, request: Request, exchange: Exchange) -> FakeResponse:
        key = json.loads(request.body)["invoice_data"]["invoice_lines"][0]["name"]
        step = self.step(key)
        if step == "unsent":
            raise TransportError("the connection was refused", sent="no")
        exchange.leave()
        if self.received is not None:
            await self.received(key)
        request_id = self.take(key, step)
        return self._answer(step, request_id)

    def step(self, key: str) -> str:
        self.submissions[key] += 1
        plan = self.plans.get(key, [])
        if plan[:1] == ["wrong"]:  # whatever is wrong with the draft is wrong with it every time
            return "wrong"
        return plan.pop(0) if plan else "new"

    def take(self, key: str, step: str) -> str:
        """Do what the step does to the service's books and give the request id."""
        request_id = str(UUID(bytes=sha256(f"{key} {len(self.created.get(key, []))}".encode()).digest()[:16]))
        if step in CREATING:
            self.created.setdefault(key, []).append(request_id)
            self.ends[request_id] = "FAILED" if "failed" in step else "SUCCESS"
        return request_id

    def _answer(self, step: str, request_id: str) -> FakeResponse:
        match step:
            case "lost" | "dropped":
                raise TransportError("the connection was reset")
            case "busy":
                envelope = {"success": False, "error": {"code": "SYS_DEP_503", "message": "down"}}
                return answer(envelope, status=503)
            case "limited":
                return answer({}, status=429)
            case "refused" | "wrong":
                return answer({"message": "no such template"}, status=400)
            case "unauthorised":
                return answer({}, status=401)
            case "gateway" | "gateway lost":
                return answer({}, status=502)
            case "success" | "failed":
                return answer({"request_id": request_id, "status": self.ends[request_id]})
            case _:
                return answer({"request_id": request_id, "status": "NEW"})

    def _polled(self, request_id: str) -> FakeResponse:
        self.polls[request_id] += 1
        if self.poll_status != 200:
            return answer({}, status=self.poll_status)
        if self.never_ends or self.polls[request_id] < 2:
            return answer({"request_id": request_id, "status": "NEW"})
        end = self.ends[request_id]
        data = {"data": {"id": request_id, "code": "X", "amount": 12.50}} if end == "SUCCESS" else {}
        return answer({"request_id": request_id, "status": end, **data})

    async def look_up(self, found: InvoiceDraft, item: Item) -> str | bool | None:
        """Tell whether an invoice was made, as a person would find out at the service's own screen."""
        assert found.key == item.key
        return self.created[item.key][0] if item.key in self.created else False


def answer(content: Mapping[str, Any], status: int = 200) -> FakeResponse:
    body = json.dumps(content).encode()
    return FakeResponse(status=status, headers={"Content-Type": "application/json"}, pieces=(body,))


@asynccontextmanager
async def invoices(
    service: Transport | Sandbox,
    *,
    clock: Clock | None = None,
    attempts: int = 3,
    concurrency: int = 4,
    names: WireNames | None = None,
    base: str = BASE,
    stop_after: int | None = 5,
    **options: Any,
) -> AsyncIterator[AsyncInvoices]:
    session = Session(
        base,
        auth=StaticToken(Sandbox().credentials.token),
        transport=service if base == BASE else None,
        clock=clock or FakeClock(),
        retry=RetryPolicy(attempts=attempts, first=1),
        limits=Limits(concurrency=concurrency, stop_after=stop_after),
        **options,
    )
    async with session:
        yield AsyncInvoices(session, names=names)


@asynccontextmanager
async def invoice_run(
    folder: Path, service: Transport | Sandbox, keys: Iterable[str] = KEYS, **options: Any
) -> AsyncIterator[tuple[InvoiceRun, AsyncInvoices]]:
    async with (
        invoices(service, **options) as found,
        InvoiceRun.open(folder / "run.db", clock=FakeClock()) as run,
    ):
        await run.add(map(draft, keys))
        yield run, found


def later(run: InvoiceRun) -> None:
    """Let an hour go by for the run: nothing that was given up can arrive any more."""
    now = run.ledger.now
    run.ledger.now = lambda: now() + 3600.0  # type: ignore[method-assign]


async def item_of(run: InvoiceRun, key: str) -> Item:
    item = await run.ledger.get(key)
    assert item is not None
    return item


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
        "A-1": ["busy", "new"], "A-2": ["refused"], "A-3": ["unsent"] * 3, "A-4": ["lost"], "A-5": ["gateway"],
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
        assert "SubmissionInDoubtError" in (item.error or "")
    assert service.submissions["A-1"] == 1


@pytest.mark.asyncio
async def test_a_draft_that_never_left_is_sent_by_the_next_run(tmp_path: Path) -> None:
    """When the attempts are spent without a byte sent it is not_sent, with the reason."""
    service = Service({"A-1": ["unsent"] * 3, "A-2": ["busy"] * 3})
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
        assert all(PollTimeoutError.__name__ in (item.error or "") for item in items)
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
        assert "AuthenticationError" in ((await item_of(run, "A-2")).error or "")
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
    async with invoice_run(tmp_path, service, keys, concurrency=concurrency, stop_after=None) as (run, found):
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
        assert "TransportError" in (item.error or "")
        async with invoices(Dying(service, 0)) as dead:
            [item] = await listed(run.export(dead, tmp_path / "pdf"))
            assert "AuthenticationError" in (item.error or "")
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


@pytest.mark.asyncio
async def test_a_run_over_a_real_socket_creates_each_key_once(tmp_path: Path) -> None:
    """With lost answers, over a port: what the service made is what is submitted, in doubt, or done."""
    service = Sandbox(faults=Faults(lost_share=0.1, failed_share=0.2))
    keys = [f"S-{number}" for number in range(80)]
    async with (
        serve(service) as url,
        invoice_run(tmp_path, service, keys, base=url, clock=RealClock(), concurrency=16) as (run, found),
    ):
        items = await listed(run.run(found, poller=Poller(first=0.01, ceiling=0.02)))
        assert len(items) == 80
        counts = await counted(run)
        assert set(counts) == {"success", "failed", "in_doubt"}
        assert sum(counts.values()) == 80 == len(service.created)


# -- the pure helpers ----------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
NUMBER = st.decimals(min_value=-(10**9), max_value=10**9, places=4)
LINES = st.builds(
    InvoiceLine,
    name=TEXT,
    unit=TEXT,
    price=NUMBER,
    quantity=NUMBER,
    vat_rate=st.none() | st.sampled_from(VatRate),
    tax_amount=st.none() | NUMBER,
    is_promotion=st.none() | st.booleans(),
)
DRAFTS = st.builds(
    InvoiceDraft,
    key=st.from_regex(r"[A-Z]{2}-[0-9]{1,5}", fullmatch=True),
    invoice_template_id=st.uuids().map(str),
    lines=st.lists(LINES, min_size=1, max_size=3),
    consumer=st.none() | st.builds(Consumer, name=st.none() | TEXT),
    payment_method=st.none() | st.sampled_from(PaymentMethod),
    has_tax_authority_code=st.none() | st.booleans(),
    submit_to_tax=st.none() | st.builds(SubmitToTax, emails=st.lists(st.just("a@b.vn"), max_size=2)),
    extra=st.dictionaries(TEXT, st.none() | TEXT | NUMBER | st.lists(st.booleans(), max_size=2), max_size=2),
)


@given(DRAFTS)
@settings(max_examples=100, deadline=None)
def test_what_is_read_from_the_file_is_what_the_strict_reader_reads(found: InvoiceDraft) -> None:
    """The quick way of `_restored` and the strict one of `load_draft` agree to the last digit and type."""
    payload = dump_draft(found)
    restored = _restored(payload)
    assert restored == load_draft(payload)
    assert dump_draft(restored) == payload
    assert all(type(line.vat_rate) in {VatRate, type(None)} for line in restored.lines)
    assert type(restored.payment_method) in {PaymentMethod, type(None)}


async def numbers(count: int, error: Exception | None = None) -> AsyncGenerator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number
    if error is not None:
        raise error


@pytest.mark.asyncio
async def test_merging_gives_all_and_then_the_first_error() -> None:
    """One source's error does not cut the other short."""
    assert sorted(await listed(merge_sources(numbers(3), numbers(200)))) == sorted([*range(3), *range(200)])
    given, error = await until_error(merge_sources(numbers(2, KeyError("first")), numbers(150)))
    assert len(given) == 152
    assert isinstance(error, KeyError)


# -- the ledger's groups -----------------------------------------------------------------------------------------------

EVENTS = st.tuples(
    st.integers(0, 5),
    st.sampled_from([Event.INTENT, Event.ACCEPTED_NEW, *(event for event in Event if event is not Event.CRASHED)]),
    st.booleans(),
    st.none() | st.sampled_from(["0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d", "x\x00y", "\N{BLACK STAR}"]),
    st.none() | st.sampled_from(["one line", "two\nlines"]),
)


async def told(
    folder: Path, operations: Iterable[Iterable[Change]], *, together: bool
) -> tuple[list[Item], list[tuple[int, Event, dict[str, Any]]], dict[str, int], list[str]]:
    """Let operations happen, all queued at once or one after the other, and give all that is then known."""
    clock = FakeClock()
    async with InvoiceRun.open(folder / f"{together}.db", clock=clock) as run:
        await run.add(map(draft, KEYS[:4]))
        pending = [run.ledger.transition_many(some) for some in operations]
        if together:
            answers = await asyncio.gather(*pending, return_exceptions=True)
        else:
            answers = [(await asyncio.gather(one, return_exceptions=True))[0] for one in pending]
        journal = [(entry.item, entry.event, dict(entry.detail)) for entry in await run.ledger.journal()]
        return await run.ledger.rows(), journal, await run.ledger.counts(), list(map(repr, answers))


def test_changes_that_share_a_commit_do_what_they_do_alone() -> None:
    """Items, journal, counts and answers are the same, whatever is refused among them."""

    @given(st.lists(st.lists(EVENTS, min_size=1, max_size=3), max_size=20))
    @settings(max_examples=40, deadline=None)
    def check(drawn: list[list[tuple[int, Event, bool, str | None, str | None]]]) -> None:
        changes = [
            [
                Change(ref=f"A-{at}" if by_key else at, event=event, request_id=number, code=number, error=error)
                for at, event, by_key, number, error in some
            ]
            for some in drawn
        ]
        with TemporaryDirectory() as name:
            alone = asyncio.run(told(Path(name), changes, together=False))
            assert asyncio.run(told(Path(name), changes, together=True)) == alone

    check()


@pytest.mark.asyncio
async def test_an_intent_that_was_undone_is_not_remembered(tmp_path: Path) -> None:
    """What a refused operation did before it was refused counts for nothing, in its commit and in the next."""
    number = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
    async with InvoiceRun.open(tmp_path / "run.db", clock=FakeClock()) as run:
        await run.add(map(draft, KEYS[:3]))

        async def together(*operations: tuple[Change, ...]) -> list[str]:
            told = await asyncio.gather(*map(run.ledger.transition_many, operations), return_exceptions=True)
            return ["refused" if isinstance(answer, ValueError) else str(answer) for answer in told]

        twice = (Change(ref=1, event=Event.INTENT), Change(ref=1, event=Event.INTENT))
        assert (await together(twice, (Change(ref=2, event=Event.INTENT),)))[0] == "refused"
        answers = [(Change(ref=seq, event=Event.ACCEPTED_NEW, request_id=number),) for seq in (1, 2)]
        assert (await together(*answers))[0] == "refused"
        assert await states(run) == {"A-1": "planned", "A-2": "submitted", "A-3": "planned"}


# -- the journal ---------------------------------------------------------------------------------------------------

PLANS = {
    "A-1": ["busy", "new"],
    "A-2": ["lost"],
    "A-3": ["unsent", "unsent", "unsent", "new failed"],
    "A-4": ["dropped", "success"],
    "A-5": ["wrong"],
    "A-6": ["gateway lost"],
}
STEPS = ("new", "new failed", "success", "failed", "busy", "limited", "unsent", "lost", "dropped", "wrong", "gateway")
ENDS = {"new failed": "failed", "failed": "failed", "wrong": "rejected"}
FINISHED = {"success", "failed", "rejected"}


def expected(plan: Iterable[str]) -> str:
    """Where a key ends when all doubts are settled by what the service knows."""
    last = next((step for step in plan if step in CREATING or step == "wrong"), "new")
    return ENDS.get(last, "success")


async def finish(file: Path, service: Service, *, concurrency: int = 3) -> dict[str, str]:
    """Resume until nothing is left, settling doubts by asking the service, and give the states."""
    async with (
        invoices(service, concurrency=concurrency, stop_after=None) as found,
        InvoiceRun.open(file, clock=FakeClock()) as run,
    ):
        for _ in range(40):
            await listed(run.run(found))
            later(run)
            await listed(run.reconcile(service.look_up))
            if set((await states(run)).values()) <= FINISHED:
                return await states(run)
    raise AssertionError("the run does not end")


async def journal_of(file: Path) -> list[JournalEntry]:
    async with SqliteReader.read(file) as reader:
        return await reader.journal(limit=10_000)


async def rebuilt(file: Path, keys: Iterable[str], journal: Iterable[JournalEntry]) -> None:
    """Make the run file of a process that died after this much of its journal."""
    async with InvoiceRun.open(file, clock=FakeClock()) as run:
        await run.add(map(draft, keys))
        learned = ("request_id", "code", "error")
        changes = [
            Change(ref=entry.item, event=entry.event, **{name: entry.detail.get(name) for name in learned})
            for entry in journal
        ]
        await run.ledger.transition_many(changes)


def remembered(plans: Mapping[str, list[str]], journal: Iterable[JournalEntry], *, arrived: bool) -> Service:
    """The service as that process left it; `arrived` tells whether what was in flight had reached it."""
    service, keys = Service(plans), list(plans)
    open_intents: dict[str, None] = {}
    for entry in journal:
        key = keys[entry.item - 1]
        if entry.event is Event.INTENT:
            open_intents[key] = None
        elif open_intents.pop(key, 0) is None:
            service.take(key, service.step(key))
    for key in open_intents if arrived else ():
        service.take(key, service.step(key))
    return service


async def crashed_after(
    folder: Path, plans: Mapping[str, list[str]], journal: list[JournalEntry], *, arrived: bool
) -> tuple[dict[str, str], Service]:
    file = folder / f"{len(journal)}-{arrived}.db"
    service = remembered(plans, journal, arrived=arrived)
    await rebuilt(file, plans, journal)
    return await finish(file, service), service


def check_ends(plans: Mapping[str, list[str]], ends: Mapping[str, str], service: Service) -> None:
    assert ends == {key: expected(plan) for key, plan in plans.items()}
    for key, end in ends.items():
        assert len(service.created.get(key, ())) == (0 if end == "rejected" else 1), key


async def whole_run(folder: Path, plans: Mapping[str, list[str]], concurrency: int) -> list[JournalEntry]:
    """Run without a crash and give the journal."""
    async with InvoiceRun.open(folder / "whole.db", clock=FakeClock()) as run:
        await run.add(map(draft, plans))
    service = Service(plans)
    check_ends(plans, await finish(folder / "whole.db", service, concurrency=concurrency), service)
    return await journal_of(folder / "whole.db")


@pytest.mark.asyncio
@pytest.mark.parametrize("arrived", [True, False])
async def test_a_crash_after_every_prefix_of_the_journal_ends_in_the_same_place(
    tmp_path: Path, *, arrived: bool
) -> None:
    """Whatever part of its life is on disk, the run ends with the same states and each key created once."""
    journal = await whole_run(tmp_path, PLANS, 3)
    assert len(journal) >= 25
    for length in range(len(journal) + 1):
        ends, service = await crashed_after(tmp_path, PLANS, journal[:length], arrived=arrived)
        check_ends(PLANS, ends, service)


@given(
    steps=st.lists(st.lists(st.sampled_from(STEPS), max_size=4), min_size=1, max_size=5),
    concurrency=st.integers(1, 4),
    share=st.floats(0, 1),
    arrived=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_a_crash_anywhere_in_any_run_ends_in_the_same_place(
    *, steps: list[list[str]], concurrency: int, share: float, arrived: bool
) -> None:
    """The same for runs of any shape, killed at any moment."""

    async def check() -> None:
        with TemporaryDirectory() as name:
            folder, plans = Path(name), {f"A-{number}": plan for number, plan in enumerate(steps)}
            journal = await whole_run(folder, plans, concurrency)
            ends, service = await crashed_after(folder, plans, journal[: round(share * len(journal))], arrived=arrived)
            check_ends(plans, ends, service)

    asyncio.run(check())

"""Durable runs of documents: each file in one state, nothing fetched again that is there, whatever cuts in."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, aclosing
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fakes import FakeClock
from forked import python
from run_services import (
    DAY,
    ORDERS,
    Dying,
    counted,
    document_run,
    documents,
    files,
    kinds,
    listed,
    sandbox,
    states,
    until_error,
)

from invoicing_async import OnExisting
from invoicing_async._files.pdf import fault_of
from invoicing_async.documents import DownloadOutcome
from invoicing_async.documents._client import work_of
from invoicing_async.errors import (
    AuthenticationError,
    ServiceUnavailableError,
)
from invoicing_async.models import (
    Failed,
    NotStarted,
    Saved,
    Skipped,
)
from invoicing_async.policies import RetryPolicy
from invoicing_async.runs import (
    Checked,
    DocumentRun,
    Intake,
    InvoiceRun,
    RunFileError,
    SqliteReader,
    check_files,
)
from invoicing_async.sandbox import (
    DropBeforeAnswer,
    NotEligible,
    Operation,
    Unavailable,
)


@pytest.mark.asyncio
async def test_every_id_is_saved_once_and_accounted_for(tmp_path: Path) -> None:
    """Ids taken in, outcomes given, states recorded and files on disk agree; a duplicate counts once."""
    service = sandbox(not_eligible=frozenset(ORDERS[:2]), unavailable={ORDERS[3]: 1})
    service.script(ORDERS[2], [DropBeforeAnswer()] * 40)
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
        assert "ORDER_021" in (deferred.error or "")


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
        checked = await listed(run.verify(found))
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
    service.script(ORDERS[1], [Unavailable()] * 4)  # two attempts, and two once more at the end
    async with document_run(tmp_path, service, retry=RetryPolicy(attempts=2)) as (run, found):
        await run.add(ORDERS[:4])
        first = await listed(run.download(found))
        assert kinds(first) == {"Saved": 2, "Deferred": 1, "Failed": 1}
        [failed] = [outcome for outcome in first if isinstance(outcome, Failed)]
        assert isinstance(failed.error, ServiceUnavailableError)
        item = await run.ledger.get(ORDERS[1])
        assert item is not None
        assert (item.code, item.attempt) == ("SYS_DEP_503", 4)
        second = await listed(run.download(found))
        assert kinds(second) == {"Skipped": 2, "Saved": 2}
        assert await counted(run) == {"saved": 4}


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
        saver = await work_of(found).saver(
            run.folder, on_existing="keep", durable=False, layout=run.layout, served_name=False, day=run.day
        )
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


@pytest.mark.asyncio
async def test_what_is_done_with_a_taken_name_holds_for_the_whole_run(tmp_path: Path) -> None:
    """It is recorded when the run is begun; another wish later changes nothing, and is told by `differing`."""
    file, folder = tmp_path / "run.db", tmp_path / "pdf"
    folder.mkdir()
    (folder / f"{ORDERS[0]}.pdf").write_bytes(b"somebody else's")
    async with DocumentRun.open(file, folder=folder, on_existing="new name"):
        pass
    async with DocumentRun.open(file, folder=folder, on_existing=OnExisting.REPLACE) as run:
        assert run.on_existing is OnExisting.NEW_NAME
        assert run.differing({"on_existing": OnExisting.REPLACE, "durable": False}) == {"on_existing": "new name"}
        assert run.differing({"layout": "{shard}/{order_id}"}) == {"layout": "{order_id}"}
        assert run.differing({"on_existing": "new name", "layout": None, "served_name": False}) == {}
        async with documents(sandbox()) as found:
            await run.add(ORDERS[:1])
            await listed(run.download(found))
        assert (folder / f"{ORDERS[0]}.pdf").read_bytes() == b"somebody else's"
        assert len(files(folder)) == 2
        # A run that was begun before this was recorded keeps what it finds.
        await run.ledger.update_settings({k: v for k, v in run.ledger.settings.items() if k != "on_existing"})
    async with DocumentRun.open(file) as run:
        assert run.on_existing is OnExisting.KEEP
        assert run.differing({"on_existing": "replace"}) == {"on_existing": "keep"}
    with pytest.raises(ValueError, match="perhaps"):
        async with DocumentRun.open(tmp_path / "other.db", folder=folder, on_existing="perhaps"):
            pass
    assert not (tmp_path / "other.db").exists()


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
            checked = await listed(check_files(reader, work_of(found).disk))
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

"""A worker of a run on a server: it ends as a command on a file does, and does what is asked of it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from postgres_server import Database
from run_services import (
    ORDERS,
    Service,
    documents,
    draft,
    files,
    invoice_run,
    invoices,
    item_of,
    listed,
    sandbox,
    states,
)
from worker_runs import SOON, Held, asked, jobs, server_address, shared_run, taken, until, working

from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.states import Event, RunKind
from invoicing_async.errors import AuthenticationError, BatchStoppedError
from invoicing_async.models import Deferred, Saved
from invoicing_async.policies import Timeouts
from invoicing_async.runs import DocumentRun, ExportTo, InvoiceRun, Item, RunHaltedError, RunSettings
from invoicing_async.sandbox import Sandbox
from invoicing_async.transport import Exchange, Request, Response
from invoicing_async.worker import Worker

pytestmark = pytest.mark.asyncio

KEYS = [f"A-{number}" for number in range(1, 24)]

PLANS: Mapping[str, list[str]] = {
    "A-2": ["busy"],
    "A-3": ["busy"] * 9,
    "A-5": ["refused"],
    "A-7": ["lost"],
    "A-8": ["gateway lost"],
    "A-9": ["unsent"] * 9,
    "A-11": ["success"],
    "A-12": ["failed"],
    "A-13": ["new failed"],
    "A-14": ["limited", "new"],
}


def ends(items: Mapping[str, Item]) -> dict[str, tuple[str, int, str | None]]:
    return {key: (item.state, item.attempt, item.error) for key, item in items.items()}


async def test_a_worker_alone_ends_as_a_command_on_a_file_does(queued: Database, tmp_path: Path) -> None:
    """Each item comes to the same end after the same calls, and it is not tried again for ever."""
    here, there = Service(PLANS), Service(PLANS)
    # The clock jumps while the database takes its time, and an intent that grew old meanwhile would be another attempt.
    session: dict[str, Any] = {"stop_after": None, "timeouts": Timeouts(intent=1000.0)}
    async with invoice_run(tmp_path, here, KEYS, **session) as (file, client):
        expected = {item.key: item for item in await listed(file.run(client))}
        recorded = await states(file)
    async with shared_run(queued, KEYS) as run, working(run, there, **session) as worker:
        found = await taken(worker)
        assert ends(found) == ends(expected)
        assert await states(run) == recorded
    assert there.submissions == here.submissions
    assert there.polls == here.polls
    assert await jobs(queued) == []


async def test_the_next_worker_tries_again_what_was_tried_in_vain(queued: Database) -> None:
    """As the next command on a file does."""
    service = Service({"A-1": ["busy"] * 6})
    async with shared_run(queued, KEYS[:3]) as run, working(run, service) as worker:
        assert (await taken(worker))["A-1"].state == "not_sent"
    async with shared_run(queued) as run, working(run, service) as worker:
        assert {key: item.state for key, item in (await taken(worker)).items()} == {"A-1": "success"}


@pytest.mark.slow
@pytest.mark.parametrize(("plan", "kind"), [("refused", BatchStoppedError), ("unauthorised", AuthenticationError)])
async def test_what_ends_a_command_on_a_file_ends_a_worker(
    queued: Database, tmp_path: Path, plan: str, kind: type[Exception]
) -> None:
    plans = {key: [plan] * 99 for key in KEYS}
    here, there = Service(plans), Service(plans)
    async with invoice_run(tmp_path, here, KEYS) as (file, client):
        with pytest.raises(kind) as expected:
            await listed(file.run(client))
    async with shared_run(queued, KEYS) as run, working(run, there) as worker:
        with pytest.raises(kind) as found:
            await taken(worker)
    assert str(found.value) == str(expected.value)
    assert there.submissions == here.submissions


class Pondering(Service):
    """A service that says of no invoice how it stands before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        if not request.path.endswith("/ob/invoices"):
            await self.go_on.wait()
        async with super().send(request, exchange) as answer:
            yield answer


async def test_invoices_that_are_long_in_coming_hold_up_none_that_is_to_be_sent(queued: Database) -> None:
    """Of two chunks of one key something is sent at a time, and four are: though none is done."""
    service = Pondering()
    async with shared_run(queued, KEYS[:4]) as run, working(run, service, slots=2, chunk=1, concurrency=8) as worker:
        taking = asyncio.create_task(taken(worker))

        async def all_are_sent() -> bool:
            return len(service.submissions) == 4

        try:
            await until(all_are_sent, seconds=8)
            assert worker.status().chunks == 4
        finally:
            service.go_on.set()
        assert {item.state for item in (await taking).values()} == {"success"}


@pytest.mark.slow
async def test_an_empty_run_rests(queued: Database) -> None:
    async with shared_run(queued) as run, working(run, Service()) as worker:
        assert await taken(worker) == {}


@pytest.mark.slow
async def test_finished_invoices_are_exported_if_the_run_is_to(queued: Database, tmp_path: Path) -> None:
    """Each comes out once, with its file; one that cannot be exported is left, and the run rests."""
    service = sandbox(polls_until_done=(0, 1), exports_until_done=(0, 1))
    async with shared_run(queued, KEYS[:7]) as run:
        await run.keep(RunSettings(export=ExportTo(folder=tmp_path / "out")))
        async with working(run, service) as worker:
            found = await taken(worker)
    assert {key: Path(item.path or "").name.partition("~")[0] for key, item in found.items()} == {
        k: k for k in KEYS[:7]
    }
    assert len(files(tmp_path / "out")) == 7


@pytest.mark.slow
async def test_documents_are_downloaded(queued: Database, tmp_path: Path) -> None:
    """What is not to be had yet is left, as `DocumentRun.download` leaves it."""
    service = sandbox(not_eligible=frozenset(ORDERS[:2]), unavailable={ORDERS[3]: 1})
    settings = {"folder": str(tmp_path), "layout": "{order_id}", "day": "2025-09-17", "served_name": False}
    address = server_address(queued)
    async with (
        PostgresLedger.open(address, kind=RunKind.DOCUMENTS, settings=settings | {"durable": False}) as ledger,
        documents(service) as client,
    ):
        run = DocumentRun(ledger)
        await run.add(ORDERS)
        async with Worker(run, client, chunk=5, every=SOON, heartbeat=SOON) as worker:
            found = {outcome.order_id: type(outcome) for outcome in await listed(worker.items())}
    assert found == dict.fromkeys(ORDERS, Saved) | dict.fromkeys(ORDERS[:2], Deferred)
    assert len(files(tmp_path)) == len(ORDERS) - 2


# -- what happens meanwhile -------------------------------------------------------------------------------------------


async def test_a_queue_that_is_emptied_meanwhile_loses_nothing(queued: Database) -> None:
    service = Held("A-3")
    async with shared_run(queued, KEYS) as run, working(run, service, slots=1, concurrency=1) as worker:
        taking = asyncio.create_task(taken(worker))
        await service.arrived.wait()
        assert len(await jobs(queued)) > 1
        await asked(queued, "DELETE FROM invoicing_queue.procrastinate_jobs")
        service.go_on.set()
        assert (await taking).keys() == {*KEYS}
    assert service.submissions == dict.fromkeys(KEYS, 1)


@pytest.mark.slow
async def test_jobs_that_come_twice_send_nothing_twice(queued: Database) -> None:
    service = Held("A-3")
    async with shared_run(queued, KEYS) as run, working(run, service, slots=3) as worker:
        taking = asyncio.create_task(taken(worker))
        await service.arrived.wait()
        for lo in (1, 6, 11, 1):
            await asked(
                queued,
                "INSERT INTO invoicing_queue.procrastinate_jobs (queue_name, task_name, args)"
                " VALUES (%s, 'invoicing:chunk', jsonb_build_object('run', 1, 'lo', %s::int, 'hi', %s::int))",
                "invoicing-run-1", lo, lo + 4,
            )  # fmt: skip
        service.go_on.set()
        assert (await taking).keys() == {*KEYS}
    assert service.submissions == dict.fromkeys(KEYS, 1)


@pytest.mark.parametrize("created", [True, False])
async def test_a_doubt_that_is_settled_meanwhile_is_gone_on_with(queued: Database, *, created: bool) -> None:
    """Its chunk was done by then, or about to be: nobody else would be told."""
    service = Held("A-20", plans={"A-1": ["lost" if not created else "gateway lost"]})
    async with shared_run(queued, KEYS) as run, working(run, service, slots=2) as worker:
        taking = asyncio.create_task(taken_all(worker))
        await service.arrived.wait()
        await until(lambda: in_state(run, "A-1", "in_doubt"))
        if created:
            await run.resolve("A-1", created=True, request_id=service.created["A-1"][0])
        else:
            await run.ledger.transition("A-1", Event.RESOLVED_NOT_CREATED)
        await until(lambda: in_state(run, "A-1", "success"))
        service.go_on.set()
        found = await taking
    assert [item.state for item in found if item.key == "A-1"] == ["in_doubt", "success"]
    assert len(service.created["A-1"]) == (1 if created else 2), "lost, it was made: this person was wrong"


@pytest.mark.slow
async def test_a_doubt_is_gone_on_with_also_beside_what_was_tried_in_vain(queued: Database) -> None:
    """Its chunk is noted as one that was worked through, with an item that was left."""
    service = Service({"A-1": ["gateway lost"], "A-2": ["busy"] * 99})
    async with shared_run(queued, KEYS[:5]) as run, working(run, service, until_done=False) as worker:
        taking = asyncio.create_task(taken_all(worker))

        async def is_noted() -> bool:
            return bool(await asked(queued, "SELECT 1 FROM invoicing_queue.walks WHERE lo = 1"))

        await until(is_noted)
        assert service.submissions["A-2"] == 6
        await asyncio.sleep(2 * SOON)
        assert service.submissions["A-2"] == 6, "it is left as it is"
        await run.resolve("A-1", created=True, request_id=service.created["A-1"][0])
        await until(lambda: in_state(run, "A-1", "success"))
        worker.stop()
        await taking
    assert service.submissions["A-1"] == 1


async def taken_all(worker: Worker[Item]) -> list[Item]:
    return await listed(worker.items())


async def in_state(run: InvoiceRun, key: str, state: str) -> bool:
    return (await item_of(run, key)).state == state


@pytest.mark.slow
async def test_what_is_taken_in_meanwhile_is_done(queued: Database) -> None:
    service = Held("A-1")
    async with shared_run(queued, ["A-1"]) as run, working(run, service) as worker:
        taking = asyncio.create_task(taken(worker))
        await service.arrived.wait()
        await run.add(draft(key) for key in KEYS[1:])
        await worker.plan()
        service.go_on.set()
        assert (await taking).keys() == {*KEYS}


async def test_a_pause_lets_what_is_in_flight_finish_and_nothing_begin(queued: Database) -> None:
    service = Held("A-3")
    async with shared_run(queued, KEYS) as run, working(run, service, slots=2, concurrency=1) as worker:
        taking = asyncio.create_task(taken(worker))
        await service.arrived.wait()
        async with shared_run(queued) as other:
            await other.ledger.pause()  # type: ignore[attr-defined]
            await until_is(lambda: worker.status().doing, "paused")
            service.go_on.set()
            await until(lambda: in_state(run, "A-3", "submitted"))
            sent = {**service.submissions}
            await asyncio.sleep(2 * SOON)
            assert service.submissions == sent
            assert len(sent) < len(KEYS)
            await other.ledger.unpause()  # type: ignore[attr-defined]
        assert (await taking).keys() == {*KEYS}
    assert service.submissions == dict.fromkeys(KEYS, 1)


async def until_is(ask: Callable[[], Any], expected: object) -> None:
    async def same() -> bool:
        return bool(ask() == expected)

    await until(same)


@pytest.mark.slow
async def test_a_halted_run_sends_nothing_and_says_so(queued: Database) -> None:
    service, told = Held("A-3"), list[str]()
    options = {"slots": 1, "concurrency": 1, "on_event": lambda event: told.append(type(event).__name__)}
    async with shared_run(queued, KEYS) as run:
        async with working(run, service, **options) as worker:
            taking = asyncio.create_task(taken(worker))
            await service.arrived.wait()
            await asked(queued, "UPDATE invoicing.runs SET halted = now()")
            await until_is(lambda: worker.status().doing, "halted")
            service.go_on.set()
            with pytest.raises(RunHaltedError):
                await taking
        assert (await item_of(run, "A-3")).state in {"submitted", "success"}, "what was in flight is recorded"
    assert len(service.submissions) == 3
    assert "RunHalted" in told


async def test_two_workers_share_a_run(queued: Database) -> None:
    """While one has no room for more, the other one takes the rest."""
    service = Held("A-1")
    async with (
        shared_run(queued, KEYS) as run,
        shared_run(queued) as other,
        working(run, service, slots=1) as one,
        working(other, service, slots=1) as two,
    ):
        taking = [asyncio.create_task(taken(worker)) for worker in (one, two)]

        async def the_rest_is_sent() -> bool:
            return len(service.submissions) > len(KEYS) - 5

        await service.arrived.wait()
        await until(the_rest_is_sent)
        service.go_on.set()
        first, second = await asyncio.gather(*taking)
    assert first
    assert second
    assert {**first, **second}.keys() == {*KEYS}
    assert not first.keys() & second.keys()
    assert service.submissions == dict.fromkeys(KEYS, 1)


@pytest.mark.slow
async def test_what_another_has_in_hand_is_waited_for(queued: Database) -> None:
    service = Held("A-1")
    async with shared_run(queued, ["A-1"]) as run, shared_run(queued) as other:  # noqa: SIM117 - one ends before the other run is closed
        async with working(run, service) as one:
            taking = asyncio.create_task(taken(one))
            await service.arrived.wait()
            async with working(other, service) as two:
                waiting = asyncio.create_task(taken(two))
                await asyncio.sleep(2 * SOON)
                assert not waiting.done()
                service.go_on.set()
                assert await waiting == {}
            assert (await taking).keys() == {"A-1"}


# -- its end ----------------------------------------------------------------------------------------------------------


async def test_stopped_it_lets_what_is_in_flight_finish(queued: Database) -> None:
    """What is not sent goes back, and the next worker does it."""
    service = Held("A-3")
    async with shared_run(queued, KEYS) as run:
        async with working(run, service, slots=1, concurrency=1) as worker:
            taking = asyncio.create_task(taken(worker))
            await service.arrived.wait()
            worker.stop()
            await asyncio.sleep(0.1)
            assert not taking.done()
            service.go_on.set()
            await taking
        assert (await item_of(run, "A-3")).state == "submitted"
        assert len(service.submissions) == 3
        async with working(run, service) as worker:
            await taken(worker)
    assert service.submissions == dict.fromkeys(KEYS, 1)


async def test_stopped_twice_it_records_a_doubt(queued: Database) -> None:
    service = Held("A-3")
    async with shared_run(queued, KEYS) as run:
        async with working(run, service, slots=1, concurrency=1) as worker:
            taking = asyncio.create_task(taken(worker))
            await service.arrived.wait()
            worker.stop()
            worker.stop()
            await taking
        assert (await item_of(run, "A-3")).state == "in_doubt"
        assert {item.state for item in await run.ledger.rows() if item.key not in service.submissions} == {"planned"}


@pytest.mark.slow
async def test_cancelled_it_records_a_doubt(queued: Database) -> None:
    service = Held("A-3")
    async with shared_run(queued, KEYS) as run:

        async def work() -> None:
            async with working(run, service, slots=1, concurrency=1) as worker:
                await taken(worker)

        task = asyncio.create_task(work())
        await service.arrived.wait()
        task.cancel()
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await item_of(run, "A-3")).state == "in_doubt"


@pytest.mark.slow
async def test_left_early_it_lets_what_is_in_flight_finish(queued: Database) -> None:
    service = Service()
    async with shared_run(queued, KEYS) as run:
        async with working(run, service) as worker:
            async for _ in worker.items():
                break
        assert {item.state for item in await run.ledger.rows()} <= {"planned", "submitted", "success"}


@pytest.mark.slow
async def test_a_worker_that_is_to_stay_stays(queued: Database) -> None:
    service = Service()
    async with shared_run(queued, KEYS[:2]) as run, working(run, service, until_done=False) as worker:
        taking = asyncio.create_task(taken(worker))
        await until(lambda: in_state(run, "A-2", "success"))
        await run.add([draft("A-3")])
        await until(lambda: in_state(run, "A-3", "success"))
        worker.stop()
        assert (await taking).keys() == {"A-1", "A-2", "A-3"}


# -- what it refuses --------------------------------------------------------------------------------------------------


async def test_a_run_in_a_file_has_no_workers(tmp_path: Path) -> None:
    async with invoice_run(tmp_path, Service()) as (run, client):
        with pytest.raises(ValueError, match="a worker is for a run on a server"):
            Worker(run, client)


@pytest.mark.slow
async def test_a_client_of_the_other_service_is_refused(queued: Database) -> None:
    async with shared_run(queued) as run, documents(Sandbox()) as client:
        with pytest.raises(ValueError, match="client must be AsyncInvoices"):
            Worker(run, client)  # type: ignore[call-overload]


@pytest.mark.slow
async def test_outside_its_block_it_does_nothing(queued: Database) -> None:
    async with shared_run(queued) as run, invoices(Service()) as client:
        with pytest.raises(ValueError, match="async with"):
            Worker(run, client).stop()

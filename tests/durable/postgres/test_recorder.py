"""The one connection that a process records by: groups, lost connections and answers, an older database."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from fakes import FakeClock
from ledger_places import WAIVED
from ledgers import DOCUMENTS, INVOICES, documents, draft
from postgres_server import Database
from tcp_proxy import TcpProxy

from invoicing_async._core.clock import RealClock
from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres import recorder
from invoicing_async._durable.postgres.connection import connect
from invoicing_async._durable.postgres.groups import next_group
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.postgres.session import DatabaseClock, Job, Session, TurnLostError
from invoicing_async._durable.postgres.statements import _TURN, CHANGE
from invoicing_async._durable.postgres.sweep import sweep_part
from invoicing_async._durable.postgres.transitions import change_items
from invoicing_async._durable.records import (
    Change,
    RequestIdTakenError,
    RunFileError,
    RunHaltedError,
)
from invoicing_async._durable.states import DocumentState, Event, RunKind, State

pytestmark = pytest.mark.slow


@pytest.fixture
def proxy(postgres: Database) -> Iterator[TcpProxy]:
    """A proxy between the ledgers of a test and its database."""
    with TcpProxy.before(postgres.server.port) as proxy:
        yield proxy


@asynccontextmanager
async def opened(
    database: Database,
    proxy: TcpProxy | None = None,
    *,
    kind: RunKind = INVOICES,
    clock: FakeClock | None = None,
) -> AsyncIterator[PostgresLedger]:
    address = run_address(database.address(port=None if proxy is None else proxy.port))
    assert isinstance(address, ServerAddress)
    async with PostgresLedger.open(address, kind=kind, clock=clock, environ=WAIVED) as ledger:
        yield ledger


@asynccontextmanager
async def invoices(
    database: Database, count: int, proxy: TcpProxy | None = None, clock: FakeClock | None = None
) -> AsyncIterator[PostgresLedger]:
    async with opened(database, proxy, clock=clock) as ledger:
        await ledger.add_drafts(draft(f"k{number}") for number in range(1, count + 1))
        yield ledger


def intents(ledger: PostgresLedger, seqs: range) -> list[asyncio.Task[list[State]]]:
    changes = [Change(ref=seq, event=Event.INTENT, attempt=0) for seq in seqs]
    return [asyncio.create_task(ledger.transition_many([change])) for change in changes]


def groups(database: Database, ledger: PostgresLedger) -> int:
    [(count,)] = database.psql("SELECT groups FROM invoicing.workers WHERE worker = %s", ledger.worker_id)
    return int(count)


def end_sessions(database: Database) -> None:
    """End every connection that the server has of this database, as an operator may."""
    database.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()"
    )


async def until_waits(database: Database, statement: str) -> None:
    """Return when a statement that begins so waits for a lock."""
    seen = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND ltrim(query, E'\\n ') LIKE %s"
    while not database.psql(seen, f"{statement}%"):  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.005)


# -- groups


@pytest.mark.asyncio
async def test_a_transaction_that_stays_open_lets_no_group_read_more_and_more(postgres: Database) -> None:
    """Every version of a row that each group changes stays as long as somebody might see it."""
    async with invoices(postgres, 2) as ledger, await connect(ledger.address) as other:
        await other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await other.execute("SELECT FROM invoicing.workers")
        postgres.psql(f"""
            DO $$ BEGIN FOR turn IN 1..3000 LOOP
                UPDATE invoicing.workers SET groups = groups + 1 WHERE worker = {ledger.worker_id} AND groups = turn;
            END LOOP; END $$
        """)
        ledger._recorder._groups += 3_000
        assert groups(postgres, ledger) == 3_001  # the sweep at the opening
        turn = _TURN
        for name, value in (("$2", ledger.worker_id), ("$3", 3_002), ("$5", 1)):
            turn = turn.replace(name, str(value))
        [(plan,)] = postgres.psql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {turn}")
        assert plan[0]["Plan"]["Plans"][0]["Actual Rows"] == 1
        assert plan[0]["Plan"]["Plans"][0]["Shared Hit Blocks"] < 10  # of more than 50
        ledger._recorder._groups += 1
        await ledger.transition(1, Event.INTENT)
        await ledger.transition(2, Event.INTENT)
        parts = postgres.psql("SELECT state, part, count FROM invoicing.tally WHERE worker = %s", ledger.worker_id)
        assert sorted(parts) == [("planned", 5, -2), ("sending", 5, 2)]
        assert (await ledger.counts())["sending"] == 2


@pytest.mark.asyncio
async def test_what_is_queued_meanwhile_is_one_group(postgres: Database) -> None:
    async with invoices(postgres, 300) as ledger:
        before = groups(postgres, ledger)
        await asyncio.gather(*intents(ledger, range(1, 301)))
        assert groups(postgres, ledger) - before <= 2
        [(entries, workers)] = postgres.psql("SELECT count(*), count(DISTINCT (worker, grp)) FROM invoicing.journal")
        assert (entries, workers) == (300, groups(postgres, ledger) - before)
        [(done,)] = postgres.psql("SELECT done FROM invoicing.workers")
        assert done == 0


@pytest.mark.asyncio
async def test_one_that_fails_fails_alone(postgres: Database) -> None:
    async with invoices(postgres, 5) as ledger:
        await asyncio.gather(*intents(ledger, range(1, 5)))
        numbers = {1: "r-1", 2: "R-1", 3: "r-3", 4: "r-4", 5: "r-5"}
        answers = await asyncio.gather(
            *(ledger.transition(seq, Event.ACCEPTED_NEW, request_id=number) for seq, number in numbers.items()),
            ledger.transition(9, Event.INTENT),
            return_exceptions=True,
        )
        assert [answer for answer in answers if isinstance(answer, State)] == [State.SUBMITTED] * 3
        taken, refused, unknown = (answer for answer in answers if isinstance(answer, Exception))
        assert isinstance(taken, RequestIdTakenError)
        assert (taken.key, str(taken)) == ("k1", "request R-1 is another item's of this run: k1")
        assert str(refused) == "'accepted_new' is refused for an item that is 'planned': it is not being sent"
        assert str(unknown) == "this run has no item 9"


@pytest.mark.asyncio
async def test_an_operation_that_was_queued_is_done_though_its_caller_left(postgres: Database) -> None:
    async with invoices(postgres, 200) as ledger:
        tasks = intents(ledger, range(1, 201))
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    [(sending,)] = postgres.psql("SELECT count(*) FROM invoicing.items WHERE state = 'sending'")
    assert sending == 200


@pytest.mark.asyncio
async def test_a_text_that_the_database_cannot_keep_is_kept_as_it_can(postgres: Database) -> None:
    async with invoices(postgres, 1) as ledger:
        await ledger.transition(1, Event.INTENT)
        await ledger.transition(1, Event.REFUSED_FOR_NOW, code='a"b\\c{,}\x00', error="NULL")
        found = await ledger.get(1)
        assert found is not None
        assert (found.code, found.error) == ('a"b\\c{,}\N{REPLACEMENT CHARACTER}', "NULL")
        await ledger.transition(1, Event.INTENT)
        await ledger.transition(1, Event.REFUSED_FOR_NOW, code="", error="\ud800")
        found = await ledger.get(1)
        assert found is not None
        assert (found.code, found.error) == ("", "?")


@pytest.mark.asyncio
async def test_items_are_locked_in_order_so_that_two_groups_never_wait_for_each_other(postgres: Database) -> None:
    """While the first one is held elsewhere, those behind it are free, in whatever order they were asked for."""
    async with invoices(postgres, 3) as ledger:
        with psycopg.connect(postgres.address(None)) as holder:
            holder.execute("SELECT seq FROM invoicing.items WHERE seq = 1 FOR UPDATE")
            changes = [Change(ref=seq, event=Event.INTENT) for seq in (3, 1, 2)]
            waiting = [asyncio.create_task(ledger.transition_many([change])) for change in changes]
            await until_waits(postgres, "WITH turn")
            free = postgres.psql("SELECT seq FROM invoicing.items ORDER BY seq FOR UPDATE SKIP LOCKED")
            assert [seq for (seq,) in free] == [2, 3]
        assert await asyncio.gather(*waiting) == [[State.SENDING]] * 3


@pytest.mark.asyncio
async def test_what_two_processes_ask_of_the_same_items_at_once_happens_once(postgres: Database) -> None:
    async with invoices(postgres, 60) as one, opened(postgres) as other:
        await asyncio.gather(*intents(one, range(1, 61)))
        for event in (Event.REFUSED_FOR_NOW, Event.INTENT) * 3:
            forth = [one.transition(seq, event) for seq in range(1, 61)]
            back = [other.transition(seq, event) for seq in range(60, 0, -1)]
            answers = await asyncio.gather(*forth, *back, return_exceptions=True)
            assert sum(isinstance(answer, State) for answer in answers) == 60
        assert len(await one.journal(limit=1_000)) == 60 * 7


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_items_are_found_by_their_number_also_in_a_run_that_is_younger_than_analyze(
    postgres: Database, mode: str
) -> None:
    """Else every group reads the whole run."""
    async with opened(postgres) as ledger:
        rows = (
            "INSERT INTO invoicing.items (run, seq, key, state, updated) "
            "SELECT run, n, 'k' || n, 'planned', now() FROM unnest(%s::int[]) AS run, generate_series(1, 2000) AS n"
        )
        postgres.psql(rows, [ledger.run + more for more in range(1, 8)])
        postgres.psql("ANALYZE invoicing.items")
        postgres.psql(rows, [ledger.run])
        async with await connect(ledger.address) as connection:
            await connection.execute(f"SET plan_cache_mode = {mode}".encode())
            changes: list[str | int | None] = [
                ledger.run,
                ledger.worker_id,
                2,
                None,
                0,
                "{1,2,3}",
                "{intent,intent,intent}",
            ]
            session = Session(connection, ledger.run, ledger.worker_id, 2, DatabaseClock(None, RealClock()))
            plan = "\n".join(row[0] for row in await session.rows(b"EXPLAIN " + CHANGE, *changes, *["{}"] * 10))
    assert plan.count("Index Scan using items_pkey on items") == 2
    assert "Index Cond: ((run = asked_1.run) AND (seq = asked_1.seq))" in plan
    assert "Index Cond: ((run = made.run) AND (seq = made.seq))" in plan


# -- connections that are lost


@pytest.mark.asyncio
async def test_a_connection_that_was_lost_is_made_anew(postgres: Database) -> None:
    async with invoices(postgres, 40) as ledger:
        for first in (1, 11, 21, 31):
            end_sessions(postgres)
            answers = await asyncio.gather(*intents(ledger, range(first, first + 10)))
            assert answers == [[State.SENDING]] * 10
        assert len(await ledger.journal()) == 40
        assert (await ledger.counts())["sending"] == 40


@pytest.mark.asyncio
@pytest.mark.parametrize("then", ["reset", "fin"])
async def test_a_group_whose_answer_was_lost_is_recorded_once(postgres: Database, proxy: TcpProxy, then: str) -> None:
    """What was done is looked up, what was refused in it is judged again."""
    async with invoices(postgres, 12, proxy) as ledger:
        await ledger.transition(12, Event.INTENT)
        before = groups(postgres, ledger)
        lost = proxy.lose_answer("unnest", then=then)  # type: ignore[arg-type] # one of the two
        answers = await asyncio.gather(*intents(ledger, range(1, 13)), return_exceptions=True)
        assert lost.is_done
        assert answers[:11] == [[State.SENDING]] * 11
        assert "by now, in attempt 1" in str(answers[11])
        assert len(await ledger.journal()) == 12
        assert (await ledger.counts())["sending"] == 12
        assert groups(postgres, ledger) == before + 2
        assert await ledger.transition(1, Event.ACCEPTED_NEW, request_id="r-1") is State.SUBMITTED


@pytest.mark.asyncio
async def test_a_transaction_whose_commit_was_not_answered_is_done_once(postgres: Database, proxy: TcpProxy) -> None:
    async with invoices(postgres, 2, proxy) as ledger:
        lost = proxy.lose_answer("COMMIT")
        both = [Change(ref="k1", event=Event.INTENT), Change(ref="k2", event=Event.INTENT)]
        assert await ledger.transition_many(both) == [State.SENDING, State.SENDING]
        assert lost.is_done
        assert len(await ledger.journal()) == 2


@pytest.mark.asyncio
async def test_a_transaction_that_was_cut_off_before_its_commit_is_done_again(
    postgres: Database, proxy: TcpProxy
) -> None:
    async with invoices(postgres, 2, proxy) as ledger:
        lost = proxy.lose_answer("unnest")
        both = [Change(ref="k1", event=Event.INTENT), Change(ref="k2", event=Event.INTENT)]
        assert await ledger.transition_many(both) == [State.SENDING, State.SENDING]
        assert lost.is_done
        assert len(await ledger.journal()) == 2


@pytest.mark.asyncio
async def test_outcomes_of_documents_whose_answer_was_lost_are_recorded_once(
    postgres: Database, proxy: TcpProxy
) -> None:
    async with opened(postgres, proxy, kind=DOCUMENTS) as ledger:
        await documents(ledger, 10)
        lost = proxy.lose_answer("unnest")
        outcomes = [ledger.record_document(seq, DocumentState.SAVED, path=f"{seq}.pdf") for seq in range(1, 12)]
        answers = await asyncio.gather(*outcomes, return_exceptions=True)
        assert lost.is_done
        assert answers[:10] == [None] * 10
        assert str(answers[10]) == "this run has no item 11"
        assert (await ledger.counts())["saved"] == 10


@pytest.mark.asyncio
async def test_a_statement_that_was_held_up_is_not_done_beside_its_repetition(
    postgres: Database, proxy: TcpProxy
) -> None:
    """Its connection is lost while it waits for an item that somebody else has locked; the server goes on with it."""
    async with invoices(postgres, 3, proxy) as ledger:
        await ledger.transition(3, Event.INTENT)
        with psycopg.connect(postgres.address(None)) as holder:
            holder.execute("SELECT FROM invoicing.items WHERE seq = 2 FOR UPDATE")
            waiting = intents(ledger, range(1, 3))
            await until_waits(postgres, "WITH turn")
            proxy.cut()
            await until_waits(postgres, "SELECT groups")
        assert await asyncio.gather(*waiting) == [[State.SENDING]] * 2
        assert [item.attempt for item in await ledger.rows()] == [1, 1, 1]
        assert len(await ledger.journal()) == 3


@pytest.mark.asyncio
async def test_a_statement_that_comes_after_its_repetition_does_nothing(postgres: Database) -> None:
    """It lay on the way while another connection was made: its number is used up by then."""
    async with invoices(postgres, 2) as ledger:
        await ledger.transition(1, Event.INTENT)
        async with await connect(ledger.address) as connection:
            late = Session(connection, ledger.run, ledger.worker_id, 1, DatabaseClock(None, RealClock()))
            for seq, event in ((1, Event.LOST), (2, Event.INTENT)):
                with pytest.raises(TurnLostError):
                    await change_items(late, [seq], [Change(ref=seq, event=event)])
            job = Job(sweep_part, asyncio.get_running_loop().create_future())
            with pytest.raises(TurnLostError):
                await next_group(deque([job])).record(late)
        assert [item.state for item in await ledger.rows()] == ["sending", "planned"]
        assert groups(postgres, ledger) == 2  # the sweep at the opening, and the intent


@pytest.mark.asyncio
async def test_while_the_database_is_away_operations_wait(
    postgres: Database, proxy: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Also those that are queued when the run is closed; each reason is told once."""
    async with invoices(postgres, 20, proxy) as ledger:
        proxy.refuse()
        proxy.cut()
        waiting = intents(ledger, range(1, 11))
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in waiting)
        closing = asyncio.create_task(ledger.close())
        await asyncio.sleep(0.05)
        with pytest.raises(RunFileError, match="is closed"):
            await ledger.transition(11, Event.INTENT)
        proxy.accept()
        await closing
        assert await asyncio.gather(*waiting) == [[State.SENDING]] * 10
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(set(told))
    assert all("waits until it is back" in line for line in told[:-1])
    assert told[-1].endswith("recording goes on")


@pytest.mark.asyncio
async def test_closing_ends_what_is_queued_before_a_cancellation_is_raised(postgres: Database) -> None:
    async with invoices(postgres, 50) as ledger:
        tasks = intents(ledger, range(1, 51))
        await asyncio.sleep(0)
        closing = asyncio.create_task(ledger.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert await asyncio.gather(*tasks) == [[State.SENDING]] * 50


@pytest.mark.asyncio
async def test_a_database_that_is_read_only_for_a_while_is_waited_for(postgres: Database) -> None:
    async with invoices(postgres, 3) as ledger:
        postgres.psql(f"ALTER DATABASE {postgres.name} SET default_transaction_read_only = on")
        end_sessions(postgres)
        waiting = intents(ledger, range(1, 4))
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in waiting)
        postgres.server.psql(f"ALTER DATABASE {postgres.name} RESET default_transaction_read_only")
        end_sessions(postgres)
        assert await asyncio.gather(*waiting) == [[State.SENDING]] * 3


# -- a database that came back older


def older(database: Database, ledger: PostgresLedger, by: int) -> None:
    """Let the database have forgotten the last groups of a worker."""
    database.psql("UPDATE invoicing.workers SET groups = groups - %s WHERE worker = %s", by, ledger.worker_id)
    end_sessions(database)


@pytest.mark.asyncio
async def test_a_database_that_came_back_older_halts_the_run(
    postgres: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with invoices(postgres, 4) as ledger, opened(postgres) as other:
        await ledger.transition(1, Event.INTENT)
        await ledger.transition(2, Event.INTENT)
        older(postgres, ledger, 2)
        assert await ledger.transition(1, Event.ACCEPTED_NEW, request_id="r-1") is State.SUBMITTED
        for each in (ledger, other):
            with pytest.raises(RunHaltedError):
                await each.transition(3, Event.INTENT)
        assert (await other.beat()).halted
        assert "halted" in caplog.text
        [(why,)] = postgres.psql("SELECT halted_why FROM invoicing.runs")
        assert "older" in why
        assert await ledger.unhalt(0.0) == 3
        assert await ledger.transition(2, Event.RESOLVED_NOT_CREATED) is State.NOT_SENT
        assert await ledger.transition(2, Event.INTENT) is State.SENDING


@pytest.mark.asyncio
async def test_a_worker_that_has_nothing_to_record_notices_it_too(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "HEARTBEAT_SECONDS", 0.02)
    async with invoices(postgres, 1) as ledger:
        await ledger.transition(1, Event.INTENT)
        older(postgres, ledger, 1)
        async with asyncio.timeout(10):
            while postgres.psql("SELECT halted FROM invoicing.runs") == [(None,)]:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)
        assert await ledger.transition(1, Event.NOT_SENT) is State.NOT_SENT


@pytest.mark.asyncio
async def test_a_database_that_does_not_know_the_worker_is_older(postgres: Database) -> None:
    """Whoever has its number by now is another."""
    async with invoices(postgres, 2) as ledger:
        first = ledger.worker_id
        await ledger.transition(1, Event.INTENT)
        postgres.psql("UPDATE invoicing.workers SET started = started - interval '1 h' WHERE worker = %s", first)
        end_sessions(postgres)
        with pytest.raises(RunHaltedError):
            await ledger.transition(2, Event.INTENT)
        assert ledger.worker_id != first
        assert await ledger.transition(1, Event.NOT_SENT) is State.NOT_SENT


@pytest.mark.asyncio
async def test_a_database_that_came_back_as_it_was_halts_nothing(postgres: Database) -> None:
    async with invoices(postgres, 2) as ledger:
        await ledger.transition(1, Event.INTENT)
        end_sessions(postgres)
        assert await ledger.transition(2, Event.INTENT) is State.SENDING
        assert postgres.psql("SELECT halted FROM invoicing.runs") == [(None,)]


# -- a worker


@pytest.mark.asyncio
async def test_a_worker_says_what_it_does_and_when_it_ends(postgres: Database) -> None:
    async with opened(postgres) as ledger:
        await ledger.beat("submitting", slots=5)
        seen = "SELECT worker, doing, slots, ended IS NULL, heartbeat > started FROM invoicing.workers"
        assert postgres.psql(seen) == [(ledger.worker_id, "submitting", 5, True, True)]
    assert postgres.psql("SELECT ended IS NULL FROM invoicing.workers") == [(False,)]


@pytest.mark.asyncio
async def test_times_are_the_database_s_whatever_the_clock_of_the_machine_says(postgres: Database) -> None:
    async with invoices(postgres, 1) as ledger:
        await ledger.transition(1, Event.INTENT)
        [(now,)] = postgres.psql("SELECT extract(epoch FROM clock_timestamp())::float8")
        assert abs(ledger.now() - now) < 0.5

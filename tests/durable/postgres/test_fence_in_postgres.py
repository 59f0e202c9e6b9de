"""Who may send an item of a run that several work on: judged by the database, as the pure rule and the table say."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from random import Random

import pytest
from examples import examples
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from ledger_places import WAIVED
from ledgers import INVOICES, draft
from postgres_server import Database, PostgresServer

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.fence import fenced
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.records import Change, RunHaltedError, RunPausedError, SupersededError
from invoicing_async._durable.states import NEEDS_REQUEST_ID, TABLE, Event, State, replay

pytestmark = pytest.mark.slow

LATE = 36.0
ATTEMPT = 5


@asynccontextmanager
async def opened(
    database: Database, run: str = "march", clock: FakeClock | None = None
) -> AsyncIterator[PostgresLedger]:
    address = run_address(database.address(run))
    assert isinstance(address, ServerAddress)
    async with PostgresLedger.open(address, kind=INVOICES, clock=clock, environ=WAIVED) as ledger:
        yield ledger


@asynccontextmanager
async def two(
    database: Database, clock: FakeClock, keys: str = "a"
) -> AsyncIterator[tuple[PostgresLedger, PostgresLedger]]:
    """Two processes at work on one run."""
    async with opened(database, clock=clock) as one, opened(database, clock=clock) as other:
        await one.keep_late(LATE)
        await one.add_drafts(map(draft, keys))
        yield one, other


async def told(ledger: PostgresLedger, change: Change) -> State | type[BaseException]:
    [answer] = await asyncio.gather(ledger.transition_many([change]), return_exceptions=True)
    return answer[0] if isinstance(answer, list) else type(answer)


def intent(ref: int | str, attempt: int) -> Change:
    return Change(ref=ref, event=Event.INTENT, attempt=attempt)


def accepted(ref: int | str, attempt: int, request_id: str = "r-1") -> Change:
    return Change(ref=ref, event=Event.ACCEPTED_NEW, attempt=attempt, request_id=request_id)


def expected(change: Change, state: State) -> tuple[Event | None, State | type[BaseException]]:
    """What an event is, and what follows, by the pure rule and the table of states."""
    event = fenced(change.event, change.attempt, state=state, attempt=ATTEMPT)
    if event is None:
        return None, SupersededError
    after = TABLE[state, event]
    return (event, after) if isinstance(after, State) else (None, ValueError)


@pytest.mark.asyncio
async def test_the_database_judges_as_the_fence_and_the_table_do(postgres: Database) -> None:
    """Every event of every attempt in every state: one item each."""
    cases = list(product(Event, State, (None, ATTEMPT, ATTEMPT - 1, ATTEMPT + 1)))
    changes = [
        Change(ref=seq, event=event, attempt=bears, request_id=f"r-{seq}" if event in NEEDS_REQUEST_ID else None)
        for seq, (event, _, bears) in enumerate(cases, start=1)
    ]
    async with opened(postgres) as ledger:
        postgres.psql(
            "INSERT INTO invoicing.items (run, seq, key, state, attempt, payload_sha256, updated) "
            "SELECT %s, seq, 'k' || seq, state, 5, '', now() FROM unnest(%s::text[]) WITH ORDINALITY AS t (state, seq)",
            ledger.run,
            [state.value for _, state, _ in cases],
        )
        answers = await asyncio.gather(*(told(ledger, change) for change in changes))
        wanted = [expected(change, state) for change, (_, state, _) in zip(changes, cases, strict=True)]
        assert answers == [after for _, after in wanted]
        items = [item async for item in ledger.items()]
        for item, (_, state, _), (event, after) in zip(items, cases, wanted, strict=True):
            assert item.state == (after if event else state)
            assert item.attempt == ATTEMPT + (event is Event.INTENT)
            assert (item.other_request_id is not None) == (event is Event.LATE_ACCEPT)
        happened = {entry.item: entry.event for entry in await ledger.journal(limit=10_000)}
        assert happened == {seq: event for seq, (event, _) in enumerate(wanted, start=1) if event}


@pytest.mark.asyncio
async def test_of_two_who_read_one_item_one_sends_it(postgres: Database) -> None:
    async with two(postgres, FakeClock()) as ledgers:
        answers = await asyncio.gather(*(told(ledger, intent("a", 0)) for ledger in ledgers))
        assert sorted(map(str, answers)) == sorted(map(str, [State.SENDING, SupersededError]))
        with pytest.raises(
            SupersededError, match=r"moved on with 'a': .*it is 'sending' by now, in attempt 1"
        ) as caught:
            await ledgers[0].transition_many([intent(1, 0)])
        assert (caught.value.key, caught.value.seq) == ("a", 1)


@pytest.mark.asyncio
async def test_nobody_takes_over_what_another_may_still_be_sending(postgres: Database) -> None:
    """Neither by opening the run nor by the sweep, until nothing of it can arrive any more."""
    clock = FakeClock()
    async with two(postgres, clock, "ab") as (one, other):
        await one.transition_many([intent("a", 0)])
        clock.advance(LATE - 1)
        await one.transition_many([intent("b", 0)])
        async with opened(postgres, clock=clock) as third:
            assert third.recovered == 0
        assert await other.sweep() == 0
        clock.advance(1)
        assert await other.sweep() == 1
        assert await other.sweep() == 0
        assert [item.state for item in await one.rows()] == ["in_doubt", "sending"]
        assert [entry.event for entry in await one.history("a")] == [Event.INTENT, Event.CRASHED]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("event", "after"),
    [
        (Event.ACCEPTED_NEW, State.SUBMITTED),
        (Event.ACCEPTED_SUCCESS, State.SUCCESS),
        (Event.ACCEPTED_FAILED, State.FAILED),
        (Event.REJECTED, State.REJECTED),
        (Event.NOT_SENT, State.NOT_SENT),
        (Event.REFUSED_FOR_NOW, State.NOT_SENT),
        (Event.LOST, State.IN_DOUBT),
    ],
)
async def test_a_late_answer_settles_the_doubt_of_its_attempt(postgres: Database, event: Event, after: State) -> None:
    clock = FakeClock()
    async with two(postgres, clock) as (one, other):
        await one.transition_many([intent("a", 0)])
        clock.advance(LATE)
        assert await other.sweep() == 1
        answer = Change(ref=1, event=event, attempt=1, request_id="r-1" if event in NEEDS_REQUEST_ID else None)
        assert await one.transition_many([answer]) == [after]
        found = await other.get("a")
        assert found is not None
        assert (found.state, found.other_request_id) == (after.value, None)
        assert [entry.event.value for entry in await one.history(1)] == ["intent", "crashed", _late(event)]


def _late(event: Event) -> str:
    return "late_not_sent" if event is Event.REFUSED_FOR_NOW else f"late_{event.value}"


@pytest.mark.asyncio
async def test_an_acceptance_after_the_item_has_moved_on_is_noted_beside_it(postgres: Database) -> None:
    """A person said not created, it was sent again, then the first attempt's answer came: two invoices, perhaps."""
    clock = FakeClock()
    async with two(postgres, clock, "ab") as (one, other):
        await one.transition_many([intent("a", 0)])
        clock.advance(LATE)
        await other.sweep()
        await other.transition_many([Change(ref="a", event=Event.RESOLVED_NOT_CREATED), intent("a", 1)])
        assert await one.transition_many([accepted("a", 1, "r-1")]) == [State.SENDING]
        assert await other.transition_many([accepted(1, 2, "r-2")]) == [State.SUBMITTED]
        [twice] = await one.twice()
        assert (twice.state, twice.attempt, twice.request_id, twice.other_request_id) == ("submitted", 2, "r-2", "r-1")
        assert await told(one, accepted("a", 1, "R-1")) is SupersededError  # it is known by now
        assert await told(one, accepted("a", 1, "r-2")) is SupersededError
        last = (await one.history("a"))[-2]
        assert (last.event, dict(last.detail)) == (Event.LATE_ACCEPT, {"request_id": "r-1"})


@pytest.mark.asyncio
async def test_what_may_have_been_made_twice_is_never_sent_again(postgres: Database) -> None:
    clock = FakeClock()
    async with two(postgres, clock) as (one, other):
        await one.transition_many([intent("a", 0)])
        clock.advance(LATE)
        await other.sweep()
        await other.transition_many([Change(ref="a", event=Event.RESOLVED_NOT_CREATED), intent("a", 1)])
        await one.transition_many([accepted("a", 1)])
        await other.transition_many([Change(ref="a", event=Event.NOT_SENT, attempt=2)])
        for change in (intent("a", 2), Change(ref=1, event=Event.INTENT)):
            with pytest.raises(SupersededError, match="accepted twice, perhaps, and is never sent again"):
                await other.transition_many([change])


@pytest.mark.asyncio
async def test_a_paused_run_takes_every_answer_and_no_intent(postgres: Database) -> None:
    async with two(postgres, FakeClock(), "ab") as (one, other):
        await one.transition_many([intent("a", 0)])
        await other.pause()
        await other.pause()
        assert (await one.beat("working", slots=3)).paused
        with pytest.raises(RunPausedError):
            await one.transition_many([intent("b", 0)])
        assert await told(one, intent("a", 0)) is SupersededError
        assert await one.transition_many([accepted("a", 1)]) == [State.SUBMITTED]
        await one.unpause()
        orders = await other.beat()
        assert (orders.paused, orders.halted) == (False, False)
        assert await other.transition_many([intent("b", 0)]) == [State.SENDING]


@pytest.mark.asyncio
async def test_a_halted_run_sends_nothing_until_what_may_have_left_is_in_doubt(postgres: Database) -> None:
    clock = FakeClock()
    async with two(postgres, clock, "abcdef") as (one, other):
        await one.transition_many([intent("a", 0), accepted("a", 1, "r-a")])
        await one.transition_many([intent("b", 0), Change(ref="b", event=Event.REJECTED)])
        await one.transition_many([intent("c", 0)])
        await one.transition_many([Change(ref="d", event=Event.FOUND_INVALID)])
        clock.advance(5)
        postgres.psql("UPDATE invoicing.runs SET halted = to_timestamp(%s), paused = now()", clock.now())
        clock.advance(5)
        with pytest.raises(RunHaltedError):
            await one.transition_many([intent("e", 0)])
        assert (await one.beat()).halted
        await one.transition_many([Change(ref="f", event=Event.FOUND_INVALID)])  # after that it is known
        assert await other.unhalt(clock.now() - 60) == 4
        states = {item.key: item.state for item in await one.rows()}
        assert states == {
            "a": "submitted",
            "b": "in_doubt",
            "c": "in_doubt",
            "d": "in_doubt",
            "e": "in_doubt",
            "f": "invalid",
        }
        assert {item.sent_at for item in await one.rows(["in_doubt"])} == {clock.now()}
        assert not (await one.beat()).halted
        assert await one.transition_many([accepted("c", 1, "r-c")]) == [State.SUBMITTED]


@pytest.mark.asyncio
async def test_a_halt_after_which_nothing_is_missing_leaves_no_doubt(postgres: Database) -> None:
    clock = FakeClock()
    async with two(postgres, clock, "ab") as (one, other):
        postgres.psql("UPDATE invoicing.runs SET halted = to_timestamp(%s)", clock.now())
        clock.advance(5)
        assert await other.unhalt(clock.now()) == 0
        assert await one.transition_many([intent("a", 0)]) == [State.SENDING]


async def live(ledgers: tuple[PostgresLedger, ...], clock: FakeClock, chance: Random, steps: int) -> None:
    """Let owners do what they believe is theirs to do, by what they last read, however late."""
    believed = [{item.key: item.attempt for item in await ledgers[0].rows()} for _ in ledgers]
    under_way: list[list[tuple[str, int]]] = [[] for _ in ledgers]
    granted = Counter[tuple[str, int]]()
    for step in range(steps):
        who = chance.randrange(len(ledgers))
        ledger, mine = ledgers[who], under_way[who]
        match chance.choice(["intent", "intent", "answer", "answer", "read", "sweep", "resolve"]):
            case "intent":
                key = chance.choice(sorted(believed[who]))
                attempt = believed[who][key]
                if await told(ledger, intent(key, attempt)) is State.SENDING:
                    granted[key, attempt + 1] += 1
                    mine.append((key, attempt + 1))
            case "answer" if mine:
                key, attempt = mine.pop(chance.randrange(len(mine)))
                event = chance.choice([Event.NOT_SENT, Event.LOST, Event.ACCEPTED_NEW, Event.REJECTED])
                number = f"r-{step}" if event in NEEDS_REQUEST_ID else None
                await told(ledger, Change(ref=key, event=event, attempt=attempt, request_id=number))
            case "read":
                believed[who] = {item.key: item.attempt for item in await ledger.rows()}
            case "sweep":
                clock.advance(chance.choice([1, LATE]))
                await ledger.sweep()
            case "resolve":
                await told(ledger, Change(ref=chance.choice("abc"), event=Event.RESOLVED_NOT_CREATED))
    assert set(granted.values()) <= {1}


def test_two_owners_never_hold_one_attempt_and_the_journal_tells_what_stands(postgres_server: PostgresServer) -> None:
    """After every prefix of what they do, in whatever order it comes."""
    database = postgres_server.database()

    @examples(10)
    @given(st.integers(0, 2**32), st.integers(1, 40))
    def check(seed: int, steps: int) -> None:
        asyncio.run(run(seed, steps))

    async def run(seed: int, steps: int) -> None:
        clock, name = FakeClock(), secrets.token_hex(8)
        async with opened(database, name, clock) as one, opened(database, name, clock) as other:
            await one.keep_late(LATE)
            await one.add_drafts(map(draft, "abc"))
            await live((one, other), clock, Random(seed), steps)
            items = await one.rows()
            for item in items:
                events = [entry.event for entry in await other.history(item.seq)]
                assert replay(events).value == item.state
                assert events.count(Event.INTENT) == item.attempt
                assert (Event.LATE_ACCEPT in events) == (item.other_request_id is not None)
            counted = Counter(item.state for item in items)
            assert {state: count for state, count in (await one.counts()).items() if count} == counted

    check()
    database.drop()

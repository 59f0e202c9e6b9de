"""How a run stands, as another process or program sees it: its items, counts, holder, exports and the authority."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from attrs import evolve
from fakes import FakeClock
from services import Service, drafts, listed, opened

from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.states import Event
from invoicing_async.auth import StaticToken
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import AuthorityStatus, RequestStatus
from invoicing_async.runs import (
    Authority,
    Holder,
    InvoiceRun,
    Item,
    Overview,
    RecordedAnswer,
    RunKind,
    SqliteReader,
    apparent_state,
    authority_status,
    check_files,
    count_without_file,
    follow,
    holder_of,
    recorded_answer,
    recorded_request,
)
from invoicing_async.sandbox import Faults, Sandbox, SandboxSettings
from invoicing_async.session import Session

ID = "00000000-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("state", "held", "apparent"),
    [("sending", True, "in_flight"), ("sending", False, "in_doubt"), ("success", False, "success")],
)
def test_what_is_being_sent_is_in_doubt_once_its_process_is_gone(state: str, *, held: bool, apparent: str) -> None:
    assert apparent_state(state, held=held) == apparent


@pytest.mark.asyncio
async def test_every_item_is_given_whatever_the_size_of_a_page(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "m.db", kind=RunKind.DOCUMENTS, settings={}) as ledger:
        keys = [f"o{number}" for number in range(2_500)]
        await ledger.add_ids(keys)
        assert [item.key async for item in ledger.items()] == keys
        assert [item async for item in ledger.items(["saved"])] == []


async def finished(file: Path, service: Service) -> None:
    async with opened(service) as invoices, InvoiceRun.open(file, clock=FakeClock()) as run:
        await run.add(drafts(3))
        await listed(run.run(invoices))


@pytest.mark.asyncio
async def test_what_is_being_sent_is_in_flight_while_anybody_works_on_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever of several it is; and all of them are named."""
    file = tmp_path / "run.db"
    holders = [Holder(1, "one", ""), Holder(2, "two", "")]
    async with InvoiceRun.open(file, clock=FakeClock()) as run, SqliteReader.read(file) as ledger:
        await run.add(drafts(2))
        await run.ledger.transition(1, Event.INTENT)

        async def several() -> tuple[Holder, ...]:
            return tuple(holders)

        monkeypatch.setattr(ledger, "holders", several)
        while holders:
            seen = await Overview.of(ledger)
            assert (seen.holder, seen.holders) == (holders[0], tuple(holders))
            assert (seen.counts["in_flight"], seen.counts["in_doubt"]) == (1, 0)
            holders.pop(0)
        left = await Overview.of(ledger)
        assert (left.holder, left.holders, left.counts["in_doubt"]) == (None, (), 1)


@pytest.mark.asyncio
async def test_a_run_is_seen_as_it_stands_while_it_is_held_and_after(tmp_path: Path) -> None:
    file = tmp_path / "run.db"
    await finished(file, Service())
    async with InvoiceRun.open(file), SqliteReader.read(file) as ledger:
        held = await Overview.of(ledger)
        assert (held.counts["success"], held.counts["in_flight"], held.counts["planned"]) == (3, 0, 0)
        assert held.holder == holder_of(file)
        assert held.holder is not None
        assert held.holders == (held.holder,)
        assert held.recorded(["in_doubt", "in_flight"]) == ["sending", "in_doubt"]
    async with SqliteReader.read(file) as ledger:
        left = await Overview.of(ledger)
        assert left.holder is None
        assert left.holders == ()
        assert "in_flight" not in left.counts
        assert left.recorded(["in_doubt"]) == ["sending", "in_doubt"]
        assert await count_without_file(ledger) == 3


@pytest.mark.asyncio
async def test_a_run_is_followed_until_nobody_holds_it(tmp_path: Path) -> None:
    file, clock = tmp_path / "run.db", FakeClock()
    await finished(file, Service())
    seen: list[Overview] = []
    async with SqliteReader.read(file) as ledger:
        following = follow(ledger, every=5, clock=clock)
        async with InvoiceRun.open(file) as run:
            seen.append(await anext(following))
            await run.add(drafts(4))
            seen.append(await anext(following))
        seen += [one async for one in following]
    assert [(one.counts["planned"], one.holder is not None) for one in seen] == [(0, True), (1, True), (1, False)]
    assert clock.slept == [5, 5]


@pytest.mark.asyncio
async def test_those_refused_by_the_authority_are_counted_and_the_first_named(tmp_path: Path) -> None:
    service = Service()
    service.authority.update({"K0": "ACCEPTED", "K1": "REJECTED", "K2": "ERROR"})
    file = tmp_path / "run.db"
    await finished(file, service)
    async with SqliteReader.read(file) as ledger:
        authority = await Authority.of(ledger, first=1)
    assert authority.counts == {"ACCEPTED": 1, "REJECTED": 1, "ERROR": 1}
    assert (authority.refused, [item.key for item in authority.first]) == (2, ["K1"])


ANSWERS = {
    "one": '{"data":{"authority_status":"REJECTED"}}',
    "quoted in a text": r'{"data":{"note":"\"authority_status\":\"REJECTED\"","authority_status":"ACCEPTED"}}',
    "a second elsewhere": '{"authority_status":"ERROR","data":{"id":"1","authority_status":"REJECTED"}}',
    "not a word": '{"data":{"authority_status":"no word"}}',
    "empty": '{"data":{"authority_status":""}}',
    "null": '{"data":{"authority_status":null}}',
    "of nobody": '{"data":{"authority_status":"NEW_ONE"}}',
    "cut off": '{"data":{"authority_status":"REJ',
    "not JSON": '"authority_status":"ERROR" "authority_status":"ERROR"',
    "nothing": None,
}


@pytest.mark.asyncio
async def test_statuses_are_counted_as_they_are_read_one_by_one(tmp_path: Path) -> None:
    """The counts are those of reading every item, whatever its recorded answer says."""
    file = tmp_path / "run.db"
    async with InvoiceRun.open(file) as run:
        await run.add([evolve(draft, key=key) for draft in drafts(1) for key in ANSWERS])
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for key, answer in ANSWERS.items():
            connection.execute(
                "UPDATE items SET state = 'success', request_id = ?, result = ? WHERE key = ?", (key, answer, key)
            )
        connection.execute("UPDATE tally SET count = CASE state WHEN 'success' THEN ? ELSE 0 END", (len(ANSWERS),))
    async with SqliteReader.read(file) as ledger:
        items = [item async for item in ledger.items()]
        authority = await Authority.of(ledger, first=3)
    read = [(status, item.seq) for item in items if (status := authority_status(item)) is not None]
    assert authority.counts == Counter(status for status, _ in read)
    refused = [seq for status, seq in read if AuthorityStatus.refuses(status)]
    assert [item.seq for item in authority.first] == refused[:3]
    assert authority.refused == len(refused) > 0


@asynccontextmanager
async def sandboxed() -> AsyncIterator[AsyncInvoices]:
    """Invoices of a service that has their files."""
    service = Sandbox(SandboxSettings(), clock=FakeClock(), faults=Faults(polls_until_done=(0, 0)))
    auth = StaticToken(service.credentials.token)
    async with Session("https://api.test/api", auth=auth, transport=service, clock=FakeClock()) as session:
        yield AsyncInvoices(session)


@pytest.mark.asyncio
async def test_files_are_checked_without_a_writer_of_the_callers_own(tmp_path: Path) -> None:
    file = tmp_path / "run.db"
    async with sandboxed() as invoices, InvoiceRun.open(file, clock=FakeClock()) as run:
        await run.add(drafts(2))
        await listed(run.run(invoices))
        first, _ = await listed(run.export(invoices, tmp_path / "out"))
    Path(first.path or "").unlink()
    async with SqliteReader.read(file) as ledger:
        found = {checked.key: checked.fault is None async for checked in check_files(ledger)}
    assert found == {first.key: False, ({"K0", "K1"} - {first.key}).pop(): True}


@pytest.mark.parametrize(
    ("state", "result", "answer"),
    [
        ("in_doubt", '{"status":409,"request_ids":["a","b"],"answer":"no"}', RecordedAnswer(409, ("a", "b"), "no")),
        ("sending", '{"status":"x","request_ids":5,"answer":""}', RecordedAnswer()),
        ("in_doubt", "[]", RecordedAnswer()),
        ("in_doubt", "x", RecordedAnswer()),
        ("in_doubt", None, RecordedAnswer()),
        ("success", '{"status":409}', RecordedAnswer()),
    ],
)
def test_an_answer_that_left_a_doubt_is_read_as_recorded(
    state: str, result: str | None, answer: RecordedAnswer
) -> None:
    assert recorded_answer(Item(1, "K", state, result=result)) == answer


@pytest.mark.parametrize(
    ("state", "result", "status"),
    [
        ("success", '{"status":"SUCCESS"}', RequestStatus.SUCCESS),
        ("success", "{", None),
        ("success", None, None),
        ("in_doubt", '{"status":"SUCCESS"}', None),
    ],
)
def test_the_last_word_of_the_service_is_read_as_recorded(
    state: str, result: str | None, status: RequestStatus | None
) -> None:
    request = recorded_request(Item(1, "K", state, request_id=ID, result=result))
    assert (request and request.status) == status

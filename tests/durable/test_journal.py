"""Events of a run's items: recorded once, journaled, and not lost by a kill."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random

import pytest
from forked import python
from ledgers import INVOICES, draft, names
from short_form import SHORT

from invoicing_async._durable import transaction
from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.records import (
    RunFileError,
)
from invoicing_async._durable.states import (
    Event,
    State,
)


@pytest.mark.asyncio
async def test_a_change_knows_of_one_before_it_in_the_same_commit(tmp_path: Path) -> None:
    """Also with something else between them, and with what may be sent read before."""
    number = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
        [item] = await ledger.pending()
        groups: list[str] = []
        await ledger._worker.run(lambda transaction: transaction.connection.set_trace_callback(groups.append))
        told = await asyncio.gather(
            ledger.transition(item.seq, Event.INTENT),
            ledger.counts(),
            ledger.transition(item.seq, Event.ACCEPTED_NEW, request_id=number),
        )
        assert told[0] == State.SENDING
        assert told[1]["sending"] == 1
        assert told[2] == State.SUBMITTED
        assert not any("ROLLBACK" in sql for sql in groups)


@pytest.mark.asyncio
async def test_the_journal_is_append_only(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
        await ledger.transition("a", Event.INTENT)
        for sql in ("DELETE FROM journal", "UPDATE journal SET event = 'lost'"):
            with pytest.raises(RunFileError, match="the journal is append-only"):
                await ledger._worker.run(partial(transaction.Transaction.one, sql=sql))
        assert len(await ledger.journal()) == 1


WRITE = """
import asyncio, sys
from invoicing_async._durable.records import NewDraft
from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.states import Event, RunKind
async def main():
    async with SqliteLedger.open(sys.argv[1], kind=RunKind.INVOICES) as ledger:
        drafts = [NewDraft(key=f"k{n}", payload="{}", payload_sha256="h") for n in range(1, 3001)]
        await ledger.add_drafts(drafts)
        print("ready", flush=True)
        seqs = iter([item.seq for item in await ledger.pending(limit=3000)])
        async def work():
            for seq in seqs:
                await ledger.transition(seq, Event.INTENT)
                print("intent", seq, flush=True)
                await ledger.transition(seq, Event.ACCEPTED_NEW, request_id=f"r-{seq}")
                print("accepted", seq, flush=True)
        await asyncio.gather(*(work() for _ in range(20)))
asyncio.run(main())
"""


async def kill_and_check(path: Path, lines: int) -> None:
    """Kill the writer after so many acknowledgements; every one it printed must be there."""
    with python(WRITE, path) as writer:
        assert all(writer.line() for _ in range(lines))
        writer.kill()
        printed = writer.communicate()[0].decode().splitlines(keepends=True)
    told = [line.split() for line in printed if line.endswith("\n") and line != "ready\n"]
    async with SqliteLedger.open(path) as ledger:
        items = {item.seq: item for item in await ledger.rows(limit=3000)}
        assert len(items) == 3000
        for word, seq in told:
            item = items[int(seq)]
            assert item.state in ({"submitted"} if word == "accepted" else {"submitted", "in_doubt"})
            assert item.request_id == (f"r-{seq}" if item.state == "submitted" else None)
        assert not any(item.state == "sending" for item in items.values())
        counted = Counter(item.state for item in items.values())
        assert {state: count for state, count in (await ledger.counts()).items() if count} == counted
    assert names(path.parent) == ["run.db"]


@pytest.mark.asyncio
@pytest.mark.parametrize("lines", [1, 40, 700])
async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, lines: int) -> None:
    await kill_and_check(tmp_path / "run.db", lines)


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.timeout(600)
async def test_kill_9_at_many_moments_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = Random(4)
    rounds = 5 if SHORT else 60
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        await kill_and_check(folder / "run.db", chance.randint(1, 4000))

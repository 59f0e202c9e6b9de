"""A run needs no more of its ledger than the protocol says: another one, in memory, carries one from end to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from fakes import FakeClock
from services import Service, drafts, listed, number_of, opened

from invoicing_async._durable.figures import RunFigures
from invoicing_async._durable.ledger import SqliteLedger, SqliteReader
from invoicing_async._durable.protocol import ID_BATCH, Ledger, LedgerReader
from invoicing_async._durable.records import (
    Change,
    Holder,
    Intake,
    Item,
    JournalEntry,
    NewDraft,
    Pause,
    SupersededError,
)
from invoicing_async._durable.states import SENDABLE, TO_FETCH, DocumentState, Event, RunKind, State, next_state
from invoicing_async._durable.timeline import Timeline
from invoicing_async.auth import HmacAuth
from invoicing_async.documents import OrderDocuments
from invoicing_async.repair import Answer, settle
from invoicing_async.runs import DocumentRun, InvoiceRun
from invoicing_async.sandbox import Sandbox, demo_orders
from invoicing_async.session import Session

pytestmark = pytest.mark.asyncio

LEARNED = ("request_id", "invoice_id", "result", "path", "size", "sha256")


class MemoryLedger:
    """Items in a list. Nothing outlives the process."""

    name = "in memory"
    is_shared = True
    recovered = 0
    lanes = None

    def __init__(self, kind: RunKind, settings: Mapping[str, Any], clock: FakeClock) -> None:
        self.kind, self.settings, self.created, self.late = kind, dict(settings), clock.now(), 0.0
        self.held: list[Item] = []
        self.entries: list[JournalEntry] = []
        self.paused: list[Pause] = []
        self._clock = clock

    def now(self) -> float:
        return self._clock.now()

    async def holders(self) -> tuple[Holder, ...]:
        return ()

    async def get(self, ref: int | str) -> Item | None:
        return next((item for item in self.held if ref in {item.seq, item.key}), None)

    async def rows(
        self, states: Iterable[str] | None = None, *, after: int = 0, limit: int = 1000, payload: bool = False
    ) -> list[Item]:
        found = [item for item in self.held[after:] if states is None or item.state in {*states}][:limit]
        return found if payload else [evolve(item, payload=None) for item in found]

    async def items(self, states: Iterable[str] | None = None, *, payload: bool = False) -> AsyncGenerator[Item]:
        for item in await self.rows(states, limit=len(self.held), payload=payload):
            yield item

    async def pending(self, *, after: int = 0, limit: int = 1000, verify: bool = False) -> list[Item]:
        states = SENDABLE if self.kind is RunKind.INVOICES else TO_FETCH
        return await self.rows(tuple(states), after=after, limit=limit, payload=True)

    async def counts(self) -> dict[str, int]:
        return Counter(item.state for item in self.held)

    async def count_without_file(self) -> int:
        return sum(item.state == State.SUCCESS and item.path is None for item in self.held)

    async def duplicates(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        return []

    async def history(self, ref: int | str) -> list[JournalEntry]:
        item = await self._known(ref)
        return [entry for entry in self.entries if entry.item == item.seq]

    async def journal(self, *, after: int = 0, limit: int = 1000) -> list[JournalEntry]:
        return self.entries[after : after + limit]

    async def figures(self) -> RunFigures:
        return RunFigures(kind=self.kind, counts=await self.counts(), timeline=await self.timeline())

    async def timeline(self) -> Timeline:
        return Timeline()

    async def pauses(self) -> tuple[Pause, ...]:
        return tuple(self.paused)

    async def twice(self, *, limit: int = 1000) -> list[Item]:
        return [item for item in self.held if item.other_request_id is not None][:limit]

    async def oldest(self) -> Item | None:
        return next(iter(await self.rows((State.SENDING, State.SUBMITTED), limit=1)), None)

    async def close(self) -> None:
        pass

    async def record_pause(self, pause: Pause) -> None:
        self.paused.append(pause)

    async def update_settings(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)

    async def keep_late(self, late: float) -> None:
        self.late = max(self.late, late)

    async def add_ids(self, ids: Iterable[str] | AsyncIterable[str], *, batch: int = ID_BATCH) -> Intake:
        new = [key async for key in ids] if isinstance(ids, AsyncIterable) else [*ids]
        for key in new:
            self.held.append(Item(len(self.held) + 1, key, DocumentState.PLANNED.value))
        return Intake(given=len(new), added=len(new), known=0, duplicates=0)

    async def add_drafts(self, drafts: Iterable[NewDraft]) -> Intake:
        new = [draft for draft in drafts if await self.get(draft.key) is None]
        for draft in new:
            seq, digest = len(self.held) + 1, draft.payload_sha256
            self.held.append(Item(seq, draft.key, State.PLANNED.value, payload=draft.payload, payload_sha256=digest))
        return Intake(given=len(new), added=len(new), known=0, duplicates=0)

    async def record_document(
        self, ref: int | str, state: DocumentState, *, begun: int | None = None, **learned: Any
    ) -> None:
        item = await self._known(ref)
        if begun not in (None, item.attempt):
            raise SupersededError(key=item.key, seq=item.seq)
        self.held[item.seq - 1] = evolve(item, state=state.value, **learned)

    async def transition(self, ref: int | str, event: Event, **learned: Any) -> State:
        [state] = await self.transition_many([Change(ref=ref, event=event, **learned)])
        return state

    async def transition_many(self, changes: Iterable[Change]) -> list[State]:
        return [await self._moved(change) for change in changes]

    async def undo(self, ref: int | str) -> None:
        await self.transition(ref, Event.RESOLUTION_UNDONE)

    async def _moved(self, change: Change) -> State:
        item = await self._known(change.ref)
        state, now = next_state(State(item.state), change.event), self.now()
        kept = {name: value for name in LEARNED if (value := getattr(change, name)) is not None}
        if change.event is Event.INTENT:
            kept |= {"attempt": item.attempt + 1, "sent_at": now}
        self.held[item.seq - 1] = evolve(
            item, state=state.value, code=change.code, error=change.error, updated=now, **kept
        )
        self.entries.append(JournalEntry(len(self.entries) + 1, item.seq, change.event, now, {}))
        return state

    async def _known(self, ref: int | str) -> Item:
        item = await self.get(ref)
        if item is None:
            raise ValueError(f"no item {ref!r}")
        return item


async def test_the_protocols_have_all_that_a_ledger_has() -> None:
    """What only a file has is how it is opened, its path, and that its run may go on elsewhere."""
    own = {name for name in {*dir(SqliteReader), *dir(SqliteLedger)} if not name.startswith("_")}
    said = {name for name in {*dir(LedgerReader), *dir(Ledger)} if not name.startswith("_")}
    assert own - said == {"read", "open", "keep_moved"}
    assert said - own == {"created", "kind", "lanes", "late", "recovered", "now"}  # attributes of an instance


async def test_a_run_of_invoices_needs_no_more_than_the_protocol(tmp_path: Path) -> None:
    """Submitted, settled, exported names, a doubt resolved: all over a ledger that is no file."""
    clock = FakeClock()
    ledger: Ledger = MemoryLedger(RunKind.INVOICES, {}, clock)
    service, run = Service(lost={"K1"}, status={"K2": "FAILED"}), InvoiceRun(ledger)
    assert (await run.add(drafts(3))).added == 3
    async with opened(service) as invoices:
        await listed(run.run(invoices))
        assert [item.state for item in await ledger.rows()] == ["success", "in_doubt", "failed"]
        clock.advance(await run.remaining("K1"))
        answer = Answer(key="K1", created=True, request_id=number_of("K1"))
        assert [one.item.state for one in await listed(settle(run, [answer], clock=clock))] == ["submitted"]
        await listed(run.run(invoices))
        [first, *_] = await listed(run.refresh(invoices))
    assert await ledger.counts() == {"success": 2, "failed": 1}
    assert (first.key, service.sent) == ("K0", ["K0", "K1", "K2"])
    assert [entry.event for entry in await ledger.history("K1")] == [
        Event.INTENT,
        Event.LOST,
        Event.RESOLVED_CREATED,
        Event.POLL_SUCCESS,
        Event.REFRESHED,
    ]


async def test_a_run_of_documents_needs_no_more_than_the_protocol(tmp_path: Path) -> None:
    """Fetched, verified, moved: what is left is computed from any ledger."""
    clock = FakeClock()
    sandbox = Sandbox(clock=clock)
    settings = {
        "folder": str(tmp_path),
        "layout": "{order_id}",
        "day": "2025-09-17",
        "served_name": False,
        "durable": False,
    }
    run = DocumentRun(MemoryLedger(RunKind.DOCUMENTS, settings, clock))
    await run.add(demo_orders(3))
    auth = HmacAuth(**sandbox.credentials.partner())
    async with Session("http://127.0.0.1/api", auth=auth, transport=sandbox, clock=clock) as session:
        documents = OrderDocuments(session)
        await listed(run.download(documents))
        [first, *_] = await run.ledger.rows()
        Path(first.path or "").write_bytes(b"broken")
        assert [one.fault is None for one in await listed(run.verify(documents))] == [False, True, True]
        assert len(await listed(run.download(documents))) == 3
    assert await run.ledger.counts() == {"saved": 3}

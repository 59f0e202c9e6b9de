"""A run that crashes after any entry of its journal ends where it would have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from examples import examples
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from run_services import (
    CREATING,
    Service,
    draft,
    invoices,
    later,
    listed,
    states,
)

from invoicing_async._durable.records import Change
from invoicing_async._durable.states import Event
from invoicing_async.runs import (
    InvoiceRun,
    JournalEntry,
    SqliteReader,
)

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
    """Resume until nothing is left, settling doubts by asking the service, and return the states."""
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
        await run.ledger.transition_many([change_of(entry) for entry in journal])


def change_of(entry: JournalEntry) -> Change:
    learned: dict[str, Any] = {name: entry.detail.get(name) for name in ("request_id", "code", "error")}
    return Change(ref=entry.item, event=entry.event, **learned)


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
    """Run without a crash and return the journal."""
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
@examples(25)
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

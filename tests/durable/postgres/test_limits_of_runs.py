"""The limits of a run: on a server they are those of all who work on it, and a file's are the process's alone."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from outages import Unsteady
from postgres_server import Database
from session_calls import BASE, CALL, body

pytest.importorskip("psycopg")

from invoicing_async import Limits, Session, SharedLimits, StaticToken
from invoicing_async.runs import DocumentRun, InvoiceRun, RunPace, RunSettings
from invoicing_async.session._shared_limits import lanes_of

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def _waived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOICING_LEDGER_WAIVE", "fsync")


async def test_two_who_have_a_run_open_keep_its_rate_together(postgres: Database) -> None:
    """Each takes it for the run's own: 30 calls at 100 a second take 0.29 seconds."""
    services = [Unsteady(), Unsteady()]
    async with AsyncExitStack() as stack:
        sessions = []
        for service in services:
            run = await stack.enter_async_context(InvoiceRun.open(postgres.address()))
            await run.keep(RunSettings(pace=RunPace(per_second=100)))
            limits = run.limits()
            assert limits.limits.per_second == 100
            session = Session(BASE, auth=StaticToken("t"), transport=service, limits=limits)
            sessions.append(await stack.enter_async_context(session))
        begun = time.monotonic()
        await asyncio.gather(*(session.call(CALL, body) for session in sessions for _ in range(15)))
        assert time.monotonic() - begun >= 0.28


async def test_both_kinds_of_runs_have_them_and_other_limits_may_be_asked_for(
    postgres: Database, tmp_path: Path
) -> None:
    async with DocumentRun.open(postgres.address(), folder=tmp_path) as run:
        limits = run.limits(Limits(concurrency=3))
        assert isinstance(limits, SharedLimits)
        assert limits.limits == Limits(concurrency=3)
        assert lanes_of(limits) is run.ledger.lanes
        assert lanes_of(limits) is not None


async def test_those_of_a_run_file_are_shared_with_nobody(tmp_path: Path) -> None:
    """The counterweight: nothing is leased where one process has the run for itself."""
    async with InvoiceRun.open(tmp_path / "run.db") as run:
        assert lanes_of(run.limits()) is None
        assert run.limits().limits == Limits()

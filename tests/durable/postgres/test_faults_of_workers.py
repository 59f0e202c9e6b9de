"""Two workers of one run, each a process, and what may happen to one of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import fault_work
import kill_work
import pytest
from ledger_faults import PLACES, Service, all_made_once, eventually, remembering, states, working
from postgres_server import Database
from tcp_proxy import TcpProxy

from invoicing_async._durable.states import Event

pytestmark = [pytest.mark.process, pytest.mark.asyncio]

DRAFTS = 400
HOUR = 3600.0


@asynccontextmanager
async def worker(address: str, service: Service, *, ahead: float = 0.0) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a worker, and wait for its end, unless it was killed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = (sys.executable, fault_work.__file__, address, service.url, str(ahead))
    process = await asyncio.create_subprocess_exec(*words, env=environment, stderr=asyncio.subprocess.PIPE)
    said = asyncio.create_task(process.communicate())
    try:
        yield process
        await asyncio.wait_for(asyncio.shield(said), 60)
    finally:
        if process.returncode is None:
            process.kill()
        _, errors = await said
    assert process.returncode in {0, -signal.SIGKILL}, errors.decode()
    assert b"Traceback" not in errors, errors.decode()


async def test_two_workers_whose_clocks_are_an_hour_apart_differ_in_nothing(postgres: Database) -> None:
    """Neither sweeps what the other has on its way, nor takes an intent for stale or fresh that is not."""
    async with remembering(0.02) as service, working(postgres.address(), service) as here:
        async with (
            worker(postgres.address(), service, ahead=HOUR),
            worker(postgres.address(), service, ahead=-HOUR),
        ):
            await eventually(lambda: postgres.psql("SELECT count(*) FROM invoicing.workers") == [(3,)])
            await here.run.add(map(kill_work.draft, range(DRAFTS)))
        await all_made_once(here, service, DRAFTS)
        owners = postgres.psql("SELECT owner, count(*) FROM invoicing.items GROUP BY owner")
        assert len(owners) == 2, owners  # each of them has sent some
        entries = await here.ledger.journal(limit=10 * DRAFTS)
        assert "crashed" not in {entry.event for entry in entries}
        assert all(abs(entry.at - time.time()) < 120 for entry in entries)


async def test_only_what_a_killed_worker_had_in_flight_is_in_doubt(postgres: Database) -> None:
    async with remembering(0.02) as service, working(postgres.address(), service, drafts=DRAFTS) as here:
        async with worker(postgres.address(), service) as killed, worker(postgres.address(), service):
            await service.until_made(DRAFTS // 4)
            killed.kill()
        assert service.twice == []
        found = await states(here.ledger)
        assert found["success"] + found.get("in_doubt", 0) == DRAFTS
        assert found.get("in_doubt", 0) <= PLACES * 3 // 2


async def test_a_worker_that_stood_still_beyond_every_lease_sends_nothing_from_before(postgres: Database) -> None:
    """What it had on its way is swept, looked up, and sent again by another, or settled by its own late answer."""

    def intended() -> set[str]:
        """What is recorded as being sent, and has not arrived."""
        sending = postgres.psql("SELECT key FROM invoicing.items WHERE state = 'sending'")
        return {key for (key,) in sending} - {key for key, _ in service.made}

    with TcpProxy.before(postgres.server.port) as proxy:
        async with (
            remembering(0.02) as service,
            working(postgres.address(), service, drafts=100, timeouts=fault_work.TIMEOUTS) as here,
            worker(postgres.address(port=proxy.port), service) as stopped,
        ):
            await service.until_made(PLACES)
            proxy.delay = 0.3  # it hears of a recorded intent when it stands still already
            await eventually(intended)
            stopped.send_signal(signal.SIGSTOP)
            await here.to_the_end()
            await asyncio.sleep(fault_work.LATE)
            await here.ledger.sweep()
            made = {key for key, _ in service.made}
            absent = [item for item in await here.ledger.rows(("in_doubt",)) if item.key not in made]
            assert absent
            for item in absent:
                await here.ledger.transition(item.seq, Event.RESOLVED_NOT_CREATED)
            await here.to_the_end()
            assert {key for key, _ in service.made} >= {item.key for item in absent}
            proxy.delay = 0.0
            stopped.send_signal(signal.SIGCONT)
            await asyncio.wait_for(stopped.wait(), 30)
            await all_made_once(here, service, 100)

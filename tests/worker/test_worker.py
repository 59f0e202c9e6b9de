"""A worker of a run on a server, with a real database and the service in memory."""

from __future__ import annotations

import pytest
from postgres_server import Database
from run_services import Service
from worker_runs import jobs, shared_run, taken, working

KEYS = [f"A-{number}" for number in range(1, 24)]


@pytest.mark.asyncio
async def test_a_worker_alone_does_the_whole_run(queued: Database) -> None:
    service = Service()
    async with shared_run(queued, KEYS) as run, working(run, service) as worker:
        found = await taken(worker)
        assert {item.state for item in found.values()} == {"success"}
        assert found.keys() == {*KEYS}
        assert jobs(queued) == []
    assert service.submissions == dict.fromkeys(KEYS, 1)

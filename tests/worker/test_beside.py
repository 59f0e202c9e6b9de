"""Two commands that send one run without a queue between them: they begin at its two ends, and meet once."""

from __future__ import annotations

import asyncio
import logging

import pytest
from postgres_server import Database
from run_services import Service, invoices
from worker_runs import shared_run

from invoicing_async._durable.postgres.reader import BESIDE
from invoicing_async.runs import InvoiceRun, Item

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

KEYS = [f"A-{number:02d}" for number in range(60)]


async def sent(run: InvoiceRun, service: Service) -> list[Item]:
    async with invoices(service) as client:
        return [item async for item in run.submit(client, concurrency=2)]


async def test_alone_a_command_sends_a_run_in_its_order(queued: Database) -> None:
    async with shared_run(queued, KEYS) as run:
        service = Service()
        await sent(run, service)
    assert [*service.submissions][:2] == KEYS[:2]


async def test_beside_another_a_command_begins_at_the_end(queued: Database) -> None:
    async with shared_run(queued, KEYS) as run, shared_run(queued):
        service = Service()
        assert sorted(item.key for item in await sent(run, service)) == KEYS
    assert [*service.submissions][:2] == KEYS[:-3:-1]


async def test_two_meet_once(queued: Database, caplog: pytest.LogCaptureFixture) -> None:
    """What the second begins in vain is no more than it reads ahead; none is sent by both, and that is no trouble."""
    async with shared_run(queued, KEYS) as one:
        first, second = Service(), Service()
        sending = asyncio.create_task(sent(one, first))
        while not first.submissions:  # noqa: ASYNC110 - that it has begun is seen at the service only
            await asyncio.sleep(0)
        async with shared_run(queued) as two:
            await asyncio.gather(sending, sent(two, second))
        assert first.submissions | second.submissions == dict.fromkeys(KEYS, 1)
        assert not first.submissions.keys() & second.submissions.keys()
        assert two.superseded <= BESIDE
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

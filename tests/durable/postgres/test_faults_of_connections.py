"""A run goes on through whatever happens to its connections: recorded once, sent once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import kill_work
import pytest
from ledger_faults import all_made_once, remembering, working
from postgres_server import Database
from tcp_proxy import Lost, TcpProxy

from invoicing_async._durable.records import LedgerAwayError

pytestmark = pytest.mark.slow
EITHER = pytest.mark.parametrize("reaches", [True, False], ids=["the answer", "the statement"])


@pytest.fixture
def proxy(postgres: Database) -> Iterator[TcpProxy]:
    with TcpProxy.before(postgres.server.port) as proxy:
        yield proxy


@contextmanager
def losing(proxy: TcpProxy, number: int, *, reaches: bool) -> Iterator[Lost]:
    """Lose the statement of this number from now on, before the server has it, or its answer."""
    numbers = count()
    lose = proxy.lose_answer if reaches else proxy.lose_statement
    yield lose(lambda _: next(numbers) == number)
    proxy.lost = None


@EITHER
@pytest.mark.asyncio
async def test_whatever_is_lost_of_a_run_it_is_recorded_and_sent_once(
    postgres: Database, proxy: TcpProxy, *, reaches: bool
) -> None:
    """Each statement in turn, reading or writing, until there is none left that could be lost."""
    for number in count():
        address = postgres.address(f"run-{number}", port=proxy.port)
        async with remembering(0) as service, working(address, service, drafts=1) as work:
            with losing(proxy, number, reaches=reaches) as lost:
                await work.to_the_end()
            await all_made_once(work, service, 1)
            events = [entry.event.value for entry in await work.ledger.history(1)]
            assert [event for event in events if event != "poll_new"] == ["intent", "accepted_new", "poll_success"]
        if not lost.is_done:
            break
    assert number > 3


@EITHER
@pytest.mark.asyncio
async def test_drafts_whose_intake_was_cut_off_are_taken_in_again(
    postgres: Database, proxy: TcpProxy, *, reaches: bool
) -> None:
    """All of them or none, and giving them again is safe, whatever was lost."""
    drafts = [kill_work.draft(key) for key in range(3)]
    for number in count():
        address = postgres.address(f"run-{number}", port=proxy.port)
        async with remembering(0) as service, working(address, service) as work:
            with losing(proxy, number, reaches=reaches) as lost:
                try:
                    first = await work.run.add(drafts)
                except LedgerAwayError:
                    first = None
            again = await work.run.add(drafts)
            assert again.added + again.known == 3
            assert again.added in ({0, 3} if first is None else {0})
            assert [item.key for item in await work.ledger.rows()] == [draft.key for draft in drafts]
        if not lost.is_done:
            break
    assert number > 3


@pytest.mark.asyncio
async def test_a_heartbeat_leaves_what_is_prepared(postgres: Database) -> None:
    """Whether anything was prepared before the first one or not."""
    async with remembering(0) as service, working(postgres.address(), service, drafts=20) as work:
        for _ in range(3):
            await work.ledger._recorder._beat()
            for _ in range(10):
                await work.ledger.beat()
        await work.to_the_end()
        await all_made_once(work, service, 20)

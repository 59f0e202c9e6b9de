"""Workers in processes of their own, some of which are killed, stopped or stand still."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from postgres_server import Database
from served import serving_sandbox
from short_form import IN_FULL
from worker_runs import shared_run, until

from invoicing_async.sandbox import Faults, Sandbox

pytestmark = [pytest.mark.asyncio, pytest.mark.process]

LIFE = Path(__file__).parents[1] / "support" / "worker_life.py"
KEYS = [f"A-{number}" for number in range(1, 101)]


@contextmanager
def life(database: Database, url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(LIFE), database.address(), url, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def url() -> Iterator[tuple[str, Sandbox]]:
    sandbox = Sandbox(faults=Faults(polls_until_done=(1, 2)))
    with serving_sandbox(sandbox) as variables:
        yield variables["INVOICING_INVOICES_BASE_URL"], sandbox


async def took_in(database: Database, keys: list[str] = KEYS) -> None:
    async with shared_run(database, keys):
        pass


async def states(database: Database) -> Counter[str]:
    async with shared_run(database) as run:
        return Counter({state: count for state, count in (await run.ledger.counts()).items() if count})


def made(sandbox: Sandbox) -> int:
    return len(sandbox.created)


async def test_two_processes_share_a_run(queued: Database, url: tuple[str, Sandbox]) -> None:
    await took_in(queued)
    with life(queued, url[0], "slots=2") as one, life(queued, url[0], "slots=2") as two:
        said = [(await asyncio.to_thread(process.communicate))[0].splitlines() for process in (one, two)]
    ended = [line.split()[0] for lines in said for line in lines[1:-1]]
    assert [lines[-1] for lines in said] == ["rests", "rests"]
    assert sorted(ended) == sorted(KEYS)
    assert await states(queued) == {"success": len(KEYS)}
    assert made(url[1]) == len(KEYS)


@IN_FULL
async def test_the_chunks_of_one_that_is_killed_are_gone_on_with(queued: Database, url: tuple[str, Sandbox]) -> None:
    """At most what was in flight is in doubt; the rest is done within 40 s."""
    await took_in(queued)
    with life(queued, url[0], "slots=4") as one:
        assert one.stdout is not None
        for _ in range(10):
            await asyncio.to_thread(one.stdout.readline)
        os.kill(one.pid, signal.SIGKILL)
        await asyncio.to_thread(one.wait)
    with life(queued, url[0], "slots=4", "until_done=0") as two:

        async def is_done() -> bool:
            counts = await states(queued)
            return set(counts) <= {"success", "sending", "in_doubt"}

        await until(is_done, seconds=45)
        two.kill()
    counts = await states(queued)
    assert counts["sending"] + counts["in_doubt"] <= 4
    assert made(url[1]) <= len(KEYS)


async def test_a_process_whose_loop_stands_still_is_ended(queued: Database, url: tuple[str, Sandbox]) -> None:
    await took_in(queued, [])
    with life(queued, url[0], "watchdog=1.0", "blocked=20") as process:
        out, err = await asyncio.to_thread(process.communicate)
    assert process.returncode == 70
    assert out == "ready\n"
    assert "the event loop of this worker has stood still for 1 s" in err


async def test_a_process_that_was_stopped_is_not_ended_when_it_wakes(
    queued: Database, url: tuple[str, Sandbox]
) -> None:
    await took_in(queued, [])
    with life(queued, url[0], "watchdog=1.0", "until_done=0") as process:
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        os.kill(process.pid, signal.SIGSTOP)
        await asyncio.sleep(2.5)
        os.kill(process.pid, signal.SIGCONT)
        await asyncio.sleep(0.7)
        assert process.poll() is None


async def test_without_a_watchdog_a_loop_may_stand_still(queued: Database, url: tuple[str, Sandbox]) -> None:
    await took_in(queued, [])
    with life(queued, url[0], "blocked=2") as process:
        out, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0
    assert out.splitlines() == ["ready", "rests"]

"""Processes that share the rate and the pauses of a run by a real database, in real time.

What is measured is printed: `pytest -m slow -s`.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import os
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest
from outages import Calls, Unsteady
from postgres_server import Database
from session_calls import BASE, CALL, body
from short_form import IN_FULL

psycopg = pytest.importorskip("psycopg")

from lane_work import Counted  # noqa: E402 - psycopg may be missing

from invoicing_async._durable.postgres.lane_statements import PROBE_LEASE  # noqa: E402
from invoicing_async.auth import StaticToken  # noqa: E402
from invoicing_async.events import Event, Paused, Probing, Resumed  # noqa: E402
from invoicing_async.policies import Limits, RetryPolicy  # noqa: E402
from invoicing_async.session import Session  # noqa: E402
from invoicing_async.session._session import internals_of  # noqa: E402
from invoicing_async.session._shared_limits import limits_over  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.process]

WORKER = Path(__file__).parents[2] / "support" / "lane_work.py"
ENVIRON = {"INVOICING_LEDGER_WAIVE": "fsync"}


class Work(NamedTuple):
    process: subprocess.Popen[str]
    said: IO[str]
    told: IO[str]


def begun(database: Database, worker: int, rate: float, seconds: float = 0.0) -> Work:
    command = [sys.executable, str(WORKER), database.address(), "1", str(worker), str(rate), str(seconds)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=os.environ | ENVIRON, **pipes)
    assert process.stdin is not None
    assert process.stdout is not None
    return Work(process, process.stdout, process.stdin)


def worked(database: Database, rate: float, seconds: float) -> tuple[list[list[float]], float]:
    """Return when the calls of each of two began, from when both were told to, and the statements a second."""
    both = [begun(database, number, rate, seconds) for number in (1, 2)]
    assert [each.said.readline() for each in both] == ["ready\n"] * 2
    begin = time.monotonic() + 0.3
    for each in both:
        each.told.write(f"{begin}\n")
        each.told.flush()
    found = [json.loads(each.process.communicate(timeout=60)[0]) for each in both]
    statements = [at for each in found for at in each["statements"] if begin <= at < begin + seconds]
    return [[at - begin for at in each["at"]] for each in found], len(statements) / seconds


def worst_second(times: list[float]) -> int:
    return max(bisect.bisect_left(times, at + 1.0) - number for number, at in enumerate(times))


@pytest.mark.parametrize("rate", [pytest.param(100, marks=IN_FULL), 1000])
def test_two_processes_keep_the_rate_of_their_run_together(postgres: Database, rate: int) -> None:
    """Within a percent, with an equal share each, by ten statements a second.

    Never more than that; less only where the machine lets them stand still, so that what is late is forfeited: one of
    three times it must not.
    """
    seconds, whole = 5.0, False
    for _ in range(3):
        found, statements = worked(postgres, rate, seconds)
        times = sorted(at for each in found for at in each)
        within = [sum(at < seconds for at in each) for each in found]
        said = f"worst second {worst_second(times)}, split {within}, {statements:.1f} statements/s"
        print(f"\n{sum(within) / seconds:.1f}/s, {said}")  # noqa: T201 - the figures of the report
        assert sum(within) <= rate * seconds * 1.01
        assert worst_second(times) <= rate * 1.02
        assert abs(within[0] - within[1]) <= 0.05 * sum(within)
        assert statements <= 12
        whole = sum(within) >= rate * seconds * 0.99
        if whole:
            break
    assert whole


def test_one_meets_an_outage_and_the_other_pauses_and_both_go_on(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process for the events; each has a connection of its own, and knows of the other by the database alone."""
    monkeypatch.setenv("INVOICING_LEDGER_WAIVE", "fsync")
    events: dict[int, list[tuple[float, Event]]] = {1: [], 2: []}

    async def steady(session: Session, until: float) -> None:
        while asyncio.get_running_loop().time() < until:
            await internals_of(session).call(CALL, body, patient=True)
            await asyncio.sleep(0.5)

    async def work() -> float:
        loop = asyncio.get_running_loop()
        down = (loop.time() + 1.0, loop.time() + 6.0)
        services = [Unsteady(down=down), Unsteady(down=down)]
        async with AsyncExitStack() as stack:
            sessions = []
            for number, service in enumerate(services, 1):
                lanes = Counted(postgres.address(), 1, number).lanes
                stack.push_async_callback(lanes.aclose)

                def note(event: Event, number: int = number) -> None:
                    events[number].append((loop.time(), event))

                limits = limits_over(Limits(concurrency=16, adaptive=False), lanes)
                retry = RetryPolicy(attempts=20)
                one = Session(BASE, auth=StaticToken("t"), transport=service, limits=limits, on_event=note, retry=retry)
                sessions.append(await stack.enter_async_context(one))
            busy = asyncio.create_task(Calls(sessions[0]).run(1_500))
            await steady(sessions[1], down[1] + 4.0)
            outcomes, error = await busy
            assert (sum(failed is not None for _, failed in outcomes), error) == (0, None)
        return down[1]

    up = asyncio.run(work())
    paused, probing, resumed = (
        {number: [at for at, event in told if isinstance(event, kind)] for number, told in events.items()}
        for kind in (Paused, Probing, Resumed)
    )
    after = paused[2][0] - paused[1][0]
    back = [max(resumed[number]) - up for number in (1, 2)]
    print(f"\nthe other paused after {after:.2f} s; both were back {back} s after the service")  # noqa: T201 - figures
    assert 0 < after < 1.5
    probes = sorted([*probing[1], *probing[2]])
    assert all(later - earlier > 0.8 for earlier, later in pairwise(probes))
    assert max(back) < 4.0 + 1.5


def test_the_probe_of_a_process_that_is_killed_is_soon_made_by_another(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it lives, its probe is renewed and nobody else makes one."""
    monkeypatch.setenv("INVOICING_LEDGER_WAIVE", "fsync")
    holder = begun(postgres, 1, 0.0)
    assert holder.said.readline() == "True\n"

    async def work() -> float:
        service, lanes = Unsteady(), Counted(postgres.address(), 1, 2).lanes
        limits = limits_over(Limits(), lanes)
        async with Session(BASE, auth=StaticToken("t"), transport=service, limits=limits) as session:
            await asyncio.sleep(0.5)
            waiting = asyncio.create_task(internals_of(session).call(CALL, body, patient=True))
            await asyncio.sleep(PROBE_LEASE + 1.0)
            assert service.sent == 0
            holder.process.kill()
            killed = time.monotonic()
            await waiting
        await lanes.aclose()
        return time.monotonic() - killed

    try:
        seconds = asyncio.run(work())
    finally:
        holder.process.kill()
        holder.process.communicate()
    print(f"\nprobed {seconds:.2f} s after the kill")  # noqa: T201 - the figure of the report
    assert PROBE_LEASE - 1.5 < seconds < PROBE_LEASE + 1.5

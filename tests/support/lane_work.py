"""One of several processes that share the rate and the pauses of a run: it calls a service that notes when.

`python lane_work.py ADDRESS RUN WORKER RATE SECONDS` prints, as JSON, when each call began, by the monotonic clock that
all processes of a machine have in common, and when each statement was sent. With a RATE of 0 it pauses a lane, claims
its probe and keeps that until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field
from fakes import FakeResponse
from session_calls import BASE, CALL, FINE, body

from invoicing_async._core.http import Exchange, Request
from invoicing_async._core.shared_lanes import LaneNews, LaneReport
from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres.connection import Connection, open_connection
from invoicing_async._durable.postgres.lanes import PostgresLanes
from invoicing_async.auth import StaticToken
from invoicing_async.policies import Limits, RetryPolicy
from invoicing_async.session import Session
from invoicing_async.session._shared_limits import limits_over

LATENCY = 0.01


@define
class Noting:
    """A transport to a service that answers after `LATENCY`, and notes when each call came."""

    at: list[float] = field(factory=list)

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[FakeResponse]:
        self.at.append(time.monotonic())
        exchange.leave()
        await asyncio.sleep(LATENCY)
        yield FINE

    async def close(self) -> None:
        """Nothing is held."""


class Counted:
    """Lanes of a run that note when each of their statements is sent."""

    def __init__(self, address: str, run: int, worker: int) -> None:
        place = run_address(address)
        assert isinstance(place, ServerAddress)
        self.place = place
        self.statements: list[float] = []
        self.lanes = PostgresLanes(self._connected, run=run, worker=worker)

    async def _connected(self) -> Connection:
        connection = await open_connection(self.place, to_write=True)
        execute = connection.execute

        async def counted(*args: Any, **options: Any) -> Any:
            self.statements.append(time.monotonic())
            return await execute(*args, **options)

        connection.execute = counted  # type: ignore[method-assign]
        return connection


async def work(address: str, run: int, worker: int, rate: float, seconds: float) -> dict[str, Any]:
    service, counted = Noting(), Counted(address, run, worker)
    limits = limits_over(Limits(per_second=rate, adaptive=False, concurrency=64), counted.lanes)
    retry = RetryPolicy(deadline=None)
    async with Session(BASE, auth=StaticToken("t"), transport=service, limits=limits, retry=retry) as session:
        print("ready", flush=True)  # noqa: T201 - whoever started it waits for this
        begin = float(await asyncio.to_thread(sys.stdin.readline))

        async def caller() -> None:
            while time.monotonic() < begin + seconds:
                await session.call(CALL, body)

        await asyncio.sleep(begin - time.monotonic())
        await asyncio.gather(*(caller() for _ in range(64)))
    await counted.lanes.aclose()
    return {"at": service.at, "statements": counted.statements}


async def hold(address: str, run: int, worker: int) -> None:
    lanes, now = Counted(address, run, worker).lanes, time.monotonic()
    lanes.join(lambda _: None)
    lanes.report(LaneReport(lane=CALL.operation, news=LaneNews.PAUSED, since=now, until=now, distance=1.0))
    print(await lanes.claim(CALL.operation), flush=True)  # noqa: T201 - whoever started it waits for this
    await asyncio.Event().wait()


if __name__ == "__main__":
    where, *numbers = sys.argv[1:]
    if not float(numbers[2]):
        asyncio.run(hold(where, int(numbers[0]), int(numbers[1])))
    found = asyncio.run(work(where, int(numbers[0]), int(numbers[1]), float(numbers[2]), float(numbers[3])))
    print(json.dumps(found), flush=True)  # noqa: T201 - whoever started it reads this

"""A worker of a run on a server, in a process of its own: `python fault_work.py ADDRESS URL AHEAD`.

It begins when something was taken in, goes on until nothing of the run is left that could be done, and sweeps all the
while. Its host's clock is wrong by AHEAD seconds.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from contextlib import suppress
from typing import Any

from ledger_faults import Work, working

from invoicing_async._core.clock import RealClock
from invoicing_async.policies import Timeouts

TIMEOUTS = Timeouts(connect=0.5, read=1.5, attempt=1.5, intent=0.5)
LATE = 3.0
"""Seconds after its intent within which a submission has arrived, with these and the margin."""

OPEN = ("planned", "not_sent", "sending", "submitted")


async def sweep(work: Work) -> None:
    while True:
        await work.ledger.sweep()
        await asyncio.sleep(0.2)


async def live(address: str, url: str) -> None:
    async with working(address, url, timeouts=TIMEOUTS) as work:
        sweeping = asyncio.create_task(sweep(work))
        while not await work.ledger.rows(limit=1):  # noqa: ASYNC110 - another process takes it in
            await asyncio.sleep(0.01)
        while await work.ledger.rows(OPEN, limit=1):
            await work.to_the_end()
            await asyncio.sleep(0.05)
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping


if __name__ == "__main__":
    where, service, ahead = sys.argv[1], sys.argv[2], float(sys.argv[3])
    logging.basicConfig(level=logging.WARNING)
    clock: Any = RealClock
    clock.now = staticmethod(lambda: time.time() + ahead)
    asyncio.run(live(where, service))

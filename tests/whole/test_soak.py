"""A session that lives for weeks: calls by the hundred thousand leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from peers import Connection, Peer, Play, listening
from short_form import SHORT

from invoicing_async import InvoicingError, Limits, RetryPolicy, Session, StaticToken, Timeouts
from invoicing_async.transport import Repeat, Request, Response

CALLS = 8_000 if SHORT else 1_000_000
WARM = CALLS // 4
"""Calls after which what is kept on purpose (a pool, caches, the allocator's arenas) is there."""

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
DOWN = b'{"success": false, "error": {"code": "SYS_DEP_503", "message": "down", "details": {}}, "requestId": "r"}'
SAID = {
    "fine": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "down": b"HTTP/1.1 503 X\r\nContent-Length: %d\r\n\r\n%s" % (len(DOWN), DOWN),
    "not found": b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n",
    "closing": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    "cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
}
LAST = frozenset({"closing", "cut short"})
"""After these the peer closes."""


def mostly_fine() -> Play:
    """Answer nearly always well, and in turn with everything else that a service says."""
    others, turns = [name for name in SAID if name != "fine"], count()

    async def play(connection: Connection, peer: Peer) -> None:
        while True:
            await connection.request()
            turn = next(turns)
            name = "fine" if turn % 25 else others[turn // 25 % len(others)]
            await connection.say(SAID[name])
            if name in LAST:
                return

    return play


class Held(NamedTuple):
    """What this process holds."""

    descriptors: int
    tasks: int
    objects: int
    resident: int


def held() -> Held:
    gc.collect()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    return Held(descriptors, len(asyncio.all_tasks()), len(gc.get_objects()), resident)


async def read(response: Response) -> bytes:
    return await response.read(100)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process holds is read from /proc")
@pytest.mark.asyncio
async def test_a_million_calls_leave_no_memory_no_descriptors_and_no_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that succeed, fail, are retried and are cut off by turns: what is held afterwards is what was before."""
    # The test runner keeps every record of a log; who runs this library for weeks writes it somewhere.
    monkeypatch.setattr(logging.getLogger("invoicing_async"), "propagate", False)
    request = Request(method="POST", path="/v1/things", body=b"{}", operation="soak", repeat=Repeat.ALWAYS)
    ended: Counter[str] = Counter()

    async def some(session: Session, number_of: int) -> None:
        for number in range(number_of):
            if number % 500 == 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(session.call(request, read), 0.0005)
                continue
            try:
                await session.call(request, read)
                ended["well"] += 1
            except InvoicingError as error:
                ended[type(error).__name__] += 1

    async with listening(mostly_fine()) as peer, session_to(peer.url) as session:
        places = 16

        async def many(calls: int) -> None:
            await asyncio.gather(*(some(session, calls // places) for _ in range(places)))

        await many(WARM)
        before = held()
        await many(CALLS - WARM)
        await asyncio.sleep(0.1)  # closed connections go at the loop's next turns
        after = held()
    assert ended["well"] > 0.9 * CALLS
    assert after.tasks <= before.tasks + places
    assert after.descriptors <= before.descriptors + places
    assert after.objects <= before.objects + 2_000
    assert after.resident <= before.resident + 8_000_000


def session_to(url: str) -> Session:
    retry = RetryPolicy(attempts=3, first=0.001, ceiling=0.01)
    timeouts = Timeouts(connect=5, read=5, attempt=10)
    return Session(url, auth=StaticToken("t"), retry=retry, timeouts=timeouts, limits=Limits(stop_after=None))

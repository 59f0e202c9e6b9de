"""A 20-second outage in real time, in the middle of a batch of documents, a submission run and a `wait_many`.

    python benchmarks/outage/realtime.py [--seconds 20] [--check]

All three go at once, over sockets, to the library's sandbox, which is served by a process of its own. For the seconds
of the outage everything is answered SYS_DEP_503.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import ours
from bench import LIMITS, header, probes
from model import BUCKETS, Record
from scenarios import back, rate

from invoicing_async import AsyncInvoices, HmacAuth, Limits, OrderDocuments, Poller, Session, StaticToken
from invoicing_async.models import InvoiceRequest, Saved, Submitted
from invoicing_async.sandbox import Faults, Sandbox, SandboxCredentials, SandboxSettings
from invoicing_async.transport import Exchange, Request, Response, serve

FULL = 10.0  # seconds at the full rate before the outage, and after it until the work ends
LATENCY = 0.05
AT_ONCE = 8  # of each
AWAITED = 150  # requests, each polled every second
CREDENTIALS = SandboxCredentials()


class Interrupted:
    """A sandbox that is down from `begin` to `end` by the machine's monotonic clock."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.begin = self.end = 0.0
        self.record = Record()
        self.down = Counter[str]()
        self._sandbox = sandbox

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        lane, now = ours.lane_of(request), time.monotonic()
        self.record.arrived[lane][int(now * BUCKETS)] += 1
        if self.begin <= now < self.end:
            self.down[lane] += 1
            yield ours.DOWN
            return
        async with self._sandbox.send(request, exchange) as response:
            yield response
        if response.status == 200:
            self.record.done[lane][int(time.monotonic() * BUCKETS)] += 1

    async def close(self) -> None:
        """Nothing is held open."""


def served(pipe: Connection, seconds: float) -> None:
    """Serve both services until the other side says that it is through, then tell what was asked."""
    until_done = (2 * FULL + seconds, 2 * FULL + seconds + 2.0)
    sandbox = Sandbox(
        SandboxSettings(latency=LATENCY, credentials=CREDENTIALS), faults=Faults(seconds_until_done=until_done)
    )
    handler = Interrupted(sandbox)

    async def work() -> None:
        async with serve(handler, base_path="/api/v1") as documents, serve(handler, base_path="/api") as invoices:
            pipe.send((documents, invoices))
            handler.begin, handler.end = await asyncio.to_thread(pipe.recv)
            await asyncio.to_thread(pipe.recv)
        pipe.send((handler.record.done, handler.down))

    asyncio.run(work())


class Span(NamedTuple):
    """When the outage begins and ends, and when no new work is begun any more."""

    begin: float
    end: float
    last: float


class Told:
    """What one batch took in and gave back."""

    def __init__(self) -> None:
        self.read = 0
        self.outcomes = Counter[str]()

    async def input(self, make: Callable[[int], Any], last: float) -> AsyncIterator[Any]:
        while time.monotonic() < last:
            self.read += 1
            yield make(self.read)

    async def hear(self, batch: AsyncGenerator[Any], kind: type[Any]) -> None:
        await ours.counted(batch, lambda outcome: isinstance(outcome, kind), self.outcomes)

    @property
    def failed(self) -> int:
        return self.outcomes.total() - self.outcomes["done"] - self.outcomes["stopped"] - self.outcomes["NotStarted"]

    @property
    def lost(self) -> int:
        return self.read - self.outcomes["done"]


async def worked(documents_at: str, invoices_at: str, begin: Callable[[], Span]) -> tuple[Span, dict[str, Told]]:
    """Do all three from before the outage until after it."""
    limits = Limits(concurrency=AT_ONCE)
    token = StaticToken(CREDENTIALS.token)
    told = {name: Told() for name in ("documents", "submissions", "polls")}
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Session(documents_at, auth=HmacAuth(**CREDENTIALS.partner()), limits=limits) as orders,
            Session(invoices_at, auth=token, limits=limits) as submitting,
            Session(invoices_at, auth=token, limits=limits) as waiting,
        ):
            invoices = AsyncInvoices(waiting)
            awaited = [(await invoices.submit(ours.draft(-number))).request_id for number in range(1, AWAITED + 1)]
            span = begin()
            told["polls"].read = len(awaited)
            ids = told["documents"].input(lambda number: f"order-{number}", span.last)
            drafts = told["submissions"].input(ours.draft, span.last)
            poller = Poller(first=1.0, factor=1.0, ceiling=1.0, timeout=600.0)
            await asyncio.gather(
                told["documents"].hear(OrderDocuments(orders).download_many(ids, folder), Saved),
                told["submissions"].hear(AsyncInvoices(submitting).submit_many(drafts), Submitted),
                told["polls"].hear(invoices.wait_many(awaited, poller=poller), InvoiceRequest),
            )
    return span, told


class Line(NamedTuple):
    work: str
    down: int
    failed: int
    lost: int
    full: float
    back: float | None


def lines(span: Span, told: dict[str, Told], done: dict[str, Counter[int]], down: Counter[str]) -> list[Line]:
    found = []
    for name, heard in told.items():
        full = rate(done[name], span.begin - FULL / 2, span.begin)
        found.append(Line(name, down[name], heard.failed, heard.lost, full, back(done[name], span.end, full)))
    return found


def missed(line: Line, seconds: float) -> list[str]:
    """Every limit of bench.py that a line breaks, in words."""
    limits, most = LIMITS["outage"], AT_ONCE + probes(seconds)
    after = "never" if line.back is None else f"{line.back:.1f} s"
    checks = {
        f"{line.failed} failed": line.failed <= limits["failed"].most,
        f"{line.lost} not done": line.lost <= limits["not done"].most,
        f"{line.down} sent while down, {most:.0f} at most": line.down <= most,
        f"95 % of the rate after {after}": line.back is not None
        and line.back <= limits["seconds to 95 % of the rate"].most,
    }
    return [f"{line.work}: {words}" for words, holds in checks.items() if not holds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the outage lasts")
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is broken")
    options = parser.parse_args()
    pipe, other = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=served, args=(other, options.seconds), daemon=True)
    process.start()
    where = pipe.recv()

    def begin() -> Span:
        down = time.monotonic() + FULL
        pipe.send((down, down + options.seconds))
        return Span(down, down + options.seconds, down + options.seconds + FULL)

    span, told = asyncio.run(worked(*where, begin))
    pipe.send("through")
    found = lines(span, told, *pipe.recv())
    process.join()
    print(header(), f"In real time: {options.seconds:g} s of SYS_DEP_503, {AT_ONCE} calls at once of each.", sep="\n")
    print("\n| work | sent while down | failed | not done | a second before | 95 % of it after, s |")
    print("|---|--:|--:|--:|--:|--:|")
    for line in found:
        after = "never" if line.back is None else f"{line.back:.2f}"
        print(f"| {line.work} | {line.down:,} | {line.failed:,} | {line.lost:,} | {line.full:.0f} | {after} |")
    broken = [one for line in found for one in missed(line, options.seconds)]
    print("", *(f"MISSED: {one}" for one in broken), sep="\n")
    return 1 if options.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())

"""What `wait_many` costs with 100,000 operations outstanding: memory, and CPU per poll beside a bare aiohttp POST.

Every side runs in a process of its own against a raw-protocol service in another. The two sides whose CPU is compared
live at the same time and take turns of a second or less, each stopped while the other is measured, so that a machine
whose speed changes changes both. `--check` exits 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import aiohttp

from invoicing_async import AsyncInvoices, Limits, Poller, Session, StaticToken

OPERATIONS = 100_000
POLLS = 2_500
"""Calls of one turn."""
WARM = 12_000
"""Calls before the first turn: by then everything is registered."""
ROUNDS = 15
CONCURRENCY = 32
MEMORY_BOUND = 60.0
"""MiB above an idle session."""
CPU_BOUND = 1.3
"""Times a bare aiohttp POST that reads the same JSON."""
TOKEN = "benchmark"
PATH = "/v2/ob/invoices/by-request-id/"

T = TypeVar("T")


def request_ids() -> Iterator[str]:
    """Ids that belong to nobody else, as those of a database cursor do."""
    return (f"{number:08x}-0000-4000-8000-{number:012x}" for number in range(OPERATIONS))


# --- the service ------------------------------------------------------------------------------------------------


class Service(asyncio.Protocol):
    """Answers every POST without a body that its request is NEW, and `/count` with how many of those there were."""

    answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._pending = (self._pending + data).split(b"\r\n\r\n")
        for request in requests:
            path = request.partition(b" HTTP/")[0].partition(b" ")[2]
            self._transport.write(self._answer(path))

    def _answer(self, path: bytes) -> bytes:
        if path == b"/count":
            body = b"%d" % Service.answered
        else:
            Service.answered += 1
            body = b'{"request_id":"%s","status":"NEW"}' % path.rpartition(b"/")[2]
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def answered(client: aiohttp.ClientSession, url: str) -> int:
    async with client.post(f"{url}/count") as answer:
        return int(await answer.text())


# --- the sides --------------------------------------------------------------------------------------------------


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident() -> float:
    """MiB of this process in memory now; where the system does not tell, the most it ever had."""
    try:
        with open("/proc/self/statm") as statm:  # noqa: PTH123 - not a file of anybody's
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


async def measured(client: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """Take turns: for each line that is read, print microseconds of this process's CPU a call that was answered."""
    while await answered(client, url) < WARM:  # noqa: ASYNC110 - only the service counts
        await asyncio.sleep(0.05)
    print(json.dumps({"mib": resident()}), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        begun, first = cpu(), await answered(client, url)
        while (last := await answered(client, url)) < first + POLLS:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        print(json.dumps({"us": (cpu() - begun) / (last - first) * 1e6}), flush=True)
    return {}


async def bare(url: str) -> dict[str, float]:
    """What a user would write: a default session, a POST, its JSON."""

    async def worker(client: aiohttp.ClientSession, numbers: Iterator[str]) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"}
        for number in numbers:
            async with client.post(f"{url}{PATH}{number}", headers=headers) as answer:
                assert (await answer.json())["status"] == "NEW"

    async with aiohttp.ClientSession() as client, aiohttp.ClientSession() as other:
        numbers = request_ids()
        workers = [asyncio.create_task(worker(client, numbers)) for _ in range(CONCURRENCY)]
        found = await measured(other, url)
        for task in workers:
            task.cancel()
        await asyncio.wait(workers)
        return found


async def waiting(
    url: str,
    measure: Callable[[aiohttp.ClientSession], Awaitable[T]],
    idle: Callable[[], None],
) -> T:
    """Have everything outstanding and polled without a pause, and measure meanwhile; `idle` is called before."""
    limits = Limits(concurrency=CONCURRENCY)
    async with (
        aiohttp.ClientSession() as other,
        Session(url, auth=StaticToken(TOKEN), limits=limits) as session,
    ):
        invoices = AsyncInvoices(session)
        await asyncio.gather(answered(other, url), *(invoices.status(next(request_ids())) for _ in range(CONCURRENCY)))
        gc.collect()
        idle()
        poller = Poller(first=1.0, factor=1.0, ceiling=1.0, timeout=3600)
        ends = invoices.wait_many(request_ids(), poller=poller)
        consumer = asyncio.ensure_future(anext(ends))
        try:
            return await measure(other)
        finally:
            consumer.cancel()
            await asyncio.wait([consumer])


async def ours(url: str) -> dict[str, float]:
    return await waiting(
        url,
        lambda other: measured(other, url),
        lambda: print(json.dumps({"mib": resident()}), flush=True),
    )


async def traced(url: str) -> dict[str, float]:
    """The same memory as the interpreter counts it, without the pages it has and does not use."""

    async def measure(other: aiohttp.ClientSession) -> dict[str, float]:
        while await answered(other, url) < WARM:  # noqa: ASYNC110 - only the service counts
            await asyncio.sleep(0.05)
        gc.collect()
        return {"mib": tracemalloc.get_traced_memory()[0] / 2**20}

    return await waiting(url, measure, tracemalloc.start)


SIDES: dict[str, Callable[[str], Awaitable[dict[str, float]]]] = {"bare": bare, "ours": ours, "traced": traced}


# --- the report -------------------------------------------------------------------------------------------------


class Side:
    """One side in its own process, with a service of its own in another."""

    def __init__(self, name: str) -> None:
        self._service = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
        assert self._service.stdout is not None
        url = f"http://127.0.0.1:{self._service.stdout.readline().strip()}"
        command = [sys.executable, __file__, "--side", name, "--url", url]
        self._side = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(self, name: str) -> float:
        assert self._side.stdout is not None
        value: float = json.loads(self._side.stdout.readline())[name]
        return value

    def turn(self) -> float:
        """Run alone for one turn and give microseconds a call."""
        assert self._side.stdin is not None
        self._side.send_signal(signal.SIGCONT)
        self._side.stdin.write("go\n")
        self._side.stdin.flush()
        found = self.read("us")
        self.stop()
        return found

    def stop(self) -> None:
        self._side.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        for process in (self._side, self._service):
            process.kill()
            process.communicate()


def machine() -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("aiohttp", "attrs", "yarl"))
    python = f"Python {platform.python_version()}"
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, {python}, {versions}"


def turns(rounds: int) -> tuple[list[tuple[float, float]], float]:
    """Give the CPU a call of both sides, round by round, and the MiB that what is outstanding takes."""
    bare, ours = Side("bare"), Side("ours")
    try:
        bare.read("mib")
        bare.stop()
        memory = -ours.read("mib") + ours.read("mib")
        ours.stop()
        pairs = [(bare.turn(), ours.turn()) for _ in range(rounds)]
    finally:
        bare.end()
        ours.end()
    return pairs, memory


def held() -> float:
    side = Side("traced")
    try:
        return side.read("mib")
    finally:
        side.end()


def report(rounds: int) -> bool:
    print(machine())
    print(f"{OPERATIONS:,} operations outstanding, concurrency {CONCURRENCY}, {rounds} rounds of {POLLS:,} polls\n")
    pairs, memory = turns(rounds)
    for number, (theirs, mine) in enumerate(pairs, 1):
        print(f"round {number:>2}: bare {theirs:.0f} us, wait_many {mine:.0f} us a poll, ratio {mine / theirs:.2f}")
    counted = held()
    ratio = statistics.median(theirs for theirs, _ in pairs), statistics.median(mine for _, mine in pairs)
    times = statistics.median(mine / theirs for theirs, mine in pairs)
    rows: list[tuple[str, str, str, bool]] = [
        ("CPU per poll, bare aiohttp POST and json()", f"{ratio[0]:.0f} us", "", True),
        ("CPU per poll, wait_many", f"{ratio[1]:.0f} us", "", True),
        ("ratio of the two, median of the rounds", f"{times:.2f}", f"at most {CPU_BOUND}", times <= CPU_BOUND),
        (
            "resident memory above an idle session",
            f"{memory:.1f} MiB",
            f"under {MEMORY_BOUND:g} MiB",
            memory < MEMORY_BOUND,
        ),
        (
            "the same as tracemalloc counts it",
            f"{counted:.1f} MiB",
            f"under {MEMORY_BOUND:g} MiB",
            counted < MEMORY_BOUND,
        ),
        ("bytes an operation (tracemalloc)", f"{counted * 2**20 / OPERATIONS:.0f}", "", True),
    ]
    print()
    for text, value, bound, kept in rows:
        print(f"{text:<45}{value:>12}   {bound:<16}{'' if kept else 'MISSED'}")
    return all(kept for *_, kept in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bound is missed")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
    elif options.side:
        print(json.dumps(asyncio.run(_run(options.side, options.url))), flush=True)
    else:
        return 0 if report(options.rounds) or not options.check else 1
    return 0


async def _run(name: str, url: str) -> Any:
    return await SIDES[name](url)


if __name__ == "__main__":
    sys.exit(main())

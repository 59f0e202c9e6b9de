"""Where the time of our client goes: the same batch with one layer more each time.

`python layers.py [--rounds 5] [--documents 3000] [--layers lean client transport]` runs every layer, or those that are
named, in a process of its own, in turn, against the benchmark's service, and prints the CPU of each and the garbage
collector's share of it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median

import aiohttp
import peers
from bench import Case, cpu_name, service, versions
from peers import Job
from yarl import URL

from invoicing_async import HmacAuth, Limits, OrderDocuments, Session
from invoicing_async._core.http import Exchange, Request, Response
from invoicing_async._files.publish import Destination
from invoicing_async._files.writer import DiskWriter
from invoicing_async._transport.client import AiohttpTransport

WARM_UP = 320
AUTH = HmacAuth(
    partner_client_id="bench-partner",
    secret_key="bench-secret",
    store_client_id="bench-store",
    store_token="bench-token",
)
LIMIT = 2**30

Fetch = Callable[[str, str], Awaitable[object]]


def request(order: str) -> Request:
    path = f"/partner/stores/orders/{order}/documents/invoice"
    return Request(method="POST", path=path, headers={"Content-Type": "application/json", "Accept": "application/pdf"})


async def whole(response: Response) -> bytes:
    return await response.read(LIMIT)


@asynccontextmanager
async def bare(job: Job) -> AsyncIterator[Fetch]:
    async with aiohttp.ClientSession() as client:

        async def fetch(order: str, _: str) -> None:
            async with client.post(job.url(order)) as answer:
                await answer.read()

        yield fetch


@asynccontextmanager
async def bare_written(job: Job) -> AsyncIterator[Fetch]:
    async with aiohttp.ClientSession() as client:

        async def fetch(order: str, path: str) -> None:
            async with client.post(job.url(order)) as answer:
                peers.write(path, await answer.read())

        yield fetch


def signed(order: str, job: Job) -> Request:
    asked = request(order)
    headers = {**asked.headers, **AUTH.headers(asked, base_path="/api/v1", now=1.7e9)}
    return Request(method="POST", path=asked.path, headers=headers, base_url=job.base_url)


@asynccontextmanager
async def lean(job: Job) -> AsyncIterator[Fetch]:
    """aiohttp's client with everything unneeded switched off, signed: what the short cut is measured against."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=2**18,
        headers={"Accept-Encoding": "identity"},
        skip_auto_headers=("Content-Type",),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as client:
        base = URL(job.base_url)

        async def fetch(order: str, _: str) -> None:
            asked = signed(order, job)
            url = base.with_path(base.raw_path + asked.path, encoded=True)
            async with client.post(url, headers=asked.headers, allow_redirects=False) as answer:
                await answer.read()

        yield fetch


@asynccontextmanager
async def transport(job: Job, *, fenced_off: bool = False) -> AsyncIterator[Fetch]:
    """Our settings of aiohttp, with the signature's headers."""
    carrier = AiohttpTransport()
    if fenced_off:
        vars(carrier)["_pool"] = None

    async def fetch(order: str, _: str) -> None:
        async with carrier.send(signed(order, job), Exchange()) as answer:
            await answer.read(LIMIT)

    yield fetch
    await carrier.close()


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[Session]:
    async with Session(job.base_url, auth=AUTH, limits=Limits(concurrency=job.concurrency)) as session:
        yield session


@asynccontextmanager
async def session(job: Job) -> AsyncIterator[Fetch]:
    async with opened(job) as entered:
        yield lambda order, _: entered.call(request(order), whole)


@asynccontextmanager
async def stored(job: Job) -> AsyncIterator[Fetch]:
    """The proof left out: session, hash, atomic publish through the writer's thread."""
    async with opened(job) as entered:
        disk = entered.resource(DiskWriter)

        async def fetch(order: str, path: str) -> None:
            target = Path(path)
            await disk.store(Destination(target=target), await entered.call(request(order), whole))

        yield fetch


@asynccontextmanager
async def saver(job: Job) -> AsyncIterator[Fetch]:
    async with opened(job) as entered:
        saving = await OrderDocuments(entered).saver(job.folder)
        yield lambda order, _: saving.outcome(order, entered.clock.sleep)


LAYERS = {
    "bare": bare,
    "bare-written": bare_written,
    "lean": lean,
    "client": partial(transport, fenced_off=True),
    "transport": transport,
    "session": session,
    "stored": stored,
    "saver": saver,
    "many": None,
}
TITLES = {
    "bare": "bare aiohttp, nothing written",
    "bare-written": "bare aiohttp + plain write",
    "lean": "aiohttp's client, all that is unneeded off, signed",
    "client": "our transport by aiohttp's client, signed",
    "transport": "our transport by the short cut, signed",
    "session": "+ `Session.call`: slots, bounds, checks",
    "stored": "+ hash and publish through the thread",
    "saver": "+ proof, names, outcomes",
    "many": "+ `download_many`: duplicates, back-pressure",
}


class Collector:
    """Adds up what the garbage collector takes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begun = 0.0
        gc.callbacks.append(self._called)

    def _called(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._begun = time.perf_counter()
        else:
            self.seconds += time.perf_counter() - self._begun


async def measured(name: str, job: Job) -> float:
    layer = LAYERS[name]
    if layer is None:
        return (await peers.ours(job)).cpu
    async with layer(job) as fetch:
        return (await peers.measure(job, fetch)).cpu


def one(name: str, port: int, documents: int) -> None:
    os.sched_setaffinity(0, {0})
    folder = tempfile.mkdtemp(prefix="layers-", dir="/dev/shm")
    try:
        places = [Path(folder, part) for part in ("batch", "warm")]
        for place in places:
            place.mkdir()
        job = Job(port, str(places[0]), str(places[1]), documents, 32, WARM_UP)
        collector = Collector()
        used = asyncio.run(measured(name, job))
    finally:
        shutil.rmtree(folder)
    print(json.dumps({"cpu": used / documents, "gc": collector.seconds / documents}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=[*LAYERS])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one(asked.one, asked.port, asked.documents)
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in asked.layers}
    with service(Case("ours", 0, 32, "/dev/shm"), pin=True) as (port, _):
        for number in range(asked.rounds):
            turn = number % len(asked.layers)
            for name in asked.layers[turn:] + asked.layers[:turn]:
                command = [
                    sys.executable,
                    __file__,
                    "--one",
                    name,
                    "--port",
                    str(port),
                    "--documents",
                    str(asked.documents),
                ]
                found[name].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    report(found)


def report(found: dict[str, list[dict[str, float]]]) -> None:
    print(f"{cpu_name()}, Python {sys.version.split()[0]}; {versions()}")
    print("\n| layer | CPU us a document: least | median | of it the collector |\n|---|--:|--:|--:|")
    for name, runs in found.items():
        cpu = [run["cpu"] * 1e6 for run in runs]
        collector = median(run["gc"] for run in runs) * 1e6
        print(f"| {TITLES[name]} | {min(cpu):.0f} | {median(cpu):.0f} | {collector:.0f} |")


if __name__ == "__main__":
    main()

"""The clients of the download benchmark, each written as a competent user would, each run in its own process.

`python peers.py NAME --port P --to DIR …` downloads a batch and prints one JSON line: wall and CPU seconds of the
download loop, the peak memory of the process, and what was saved.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
BASE_PATH = "/api/v1"
WARM = 2**31
"""Numbers from here on are warm-up orders, apart from the measured ones."""

RETRIES, FIRST = 5, 0.5

Item = tuple[str, str]
"""An order id and the path its document goes to."""


@dataclass(frozen=True)
class Job:
    """What one peer has to do."""

    port: int
    folder: str
    warm_folder: str
    documents: int
    concurrency: int
    warm_up: int

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}{BASE_PATH}"

    def url(self, order: str) -> str:
        return f"{self.base_url}/partner/stores/orders/{order}/documents/invoice"

    def warm_ids(self) -> Iterator[str]:
        return (order_id(WARM + number) for number in range(self.warm_up))

    def ids(self) -> Iterator[str]:
        return (order_id(number) for number in range(self.documents))

    def warm_items(self) -> Iterator[Item]:
        return ((order, f"{self.warm_folder}/{order}.pdf") for order in self.warm_ids())

    def items(self) -> Iterator[Item]:
        return ((order, f"{self.folder}/{order}.pdf") for order in self.ids())


@dataclass(frozen=True)
class Measured:
    """What the download loop took, in seconds and bytes."""

    wall: float
    cpu: float
    memory: int


def order_id(number: int) -> str:
    """The benchmark's order ids look like the service's own and can be counted."""
    return f"{number:08x}-acaf-468f-a325-3d2f5964f5ff"


def cpu(who: int = resource.RUSAGE_SELF) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def peak(process: int | str = "self") -> int:
    """The peak resident bytes of a process. Not ru_maxrss, which a child may inherit from its parent."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    lines = (line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return next((int(line[1]) * 1024 for line in lines), 0)


class Meter:
    """Measures from its creation on."""

    def __init__(self) -> None:
        self.cpu, self.wall = cpu(), time.perf_counter()

    def read(self) -> Measured:
        return Measured(time.perf_counter() - self.wall, cpu() - self.cpu, peak())


def write(path: str, body: Any) -> None:
    with open(path, "wb") as file:  # noqa: PTH123 - the plain write is what is compared
        file.write(body)


def write_and_sync(path: str, body: bytes) -> None:
    with open(path, "wb") as file:  # noqa: PTH123 - the plain write is what is compared
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


Fetch = Callable[[str, str], Awaitable[None]]


async def work(fetch: Fetch, items: Iterable[Item], concurrency: int) -> None:
    """Run `fetch` for every item in so many workers that share one iterator."""
    todo = iter(items)

    async def worker() -> None:
        for order, path in todo:
            await fetch(order, path)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())


async def measure(job: Job, fetch: Fetch) -> Measured:
    await work(fetch, job.warm_items(), job.concurrency)
    meter = Meter()
    await work(fetch, job.items(), job.concurrency)
    return meter.read()


async def aiohttp_write(job: Job) -> Measured:
    """Bare aiohttp and a plain write in the event loop: what every ratio is against."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=job.concurrency)) as session:

        async def fetch(order: str, path: str) -> None:
            async with session.post(job.url(order)) as response:
                response.raise_for_status()
                body = await response.read()
            write(path, body)

        return await measure(job, fetch)


async def aiohttp_fsync(job: Job) -> Measured:
    """The same with an fsync of each file, which stops the event loop."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=job.concurrency)) as session:

        async def fetch(order: str, path: str) -> None:
            async with session.post(job.url(order)) as response:
                response.raise_for_status()
                body = await response.read()
            write_and_sync(path, body)

        return await measure(job, fetch)


async def aiohttp_fsync_threads(job: Job) -> Measured:
    """The same with write and fsync in the default thread pool, so that fsyncs overlap."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=job.concurrency)) as session:

        async def fetch(order: str, path: str) -> None:
            async with session.post(job.url(order)) as response:
                response.raise_for_status()
                body = await response.read()
            await asyncio.to_thread(write_and_sync, path, body)

        return await measure(job, fetch)


async def aiohttp_retry(job: Job) -> Measured:
    """Bare aiohttp with the retry loop a user would write: a refused call is tried again after a random backoff."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=job.concurrency)) as session:

        async def attempt(order: str) -> bytes | None:
            async with session.post(job.url(order)) as response:
                if response.status == 503:
                    return None
                response.raise_for_status()
                return await response.read()

        async def fetch(order: str, path: str) -> None:
            for number in range(RETRIES):
                body = await attempt(order)
                if body is not None:
                    write(path, body)
                    return
                await asyncio.sleep(random.uniform(0, FIRST * 2**number))
            raise RuntimeError(f"{order} was refused {RETRIES} times")

        return await measure(job, fetch)


async def aiohttp_aiofiles(job: Job) -> Measured:
    """Bare aiohttp and aiofiles."""
    import aiofiles
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=job.concurrency)) as session:

        async def fetch(order: str, path: str) -> None:
            async with session.post(job.url(order)) as response:
                response.raise_for_status()
                body = await response.read()
            async with aiofiles.open(path, "wb") as file:
                await file.write(body)

        return await measure(job, fetch)


async def httpx_aiofiles(job: Job) -> Measured:
    """httpx and aiofiles."""
    import aiofiles
    import httpx

    limits = httpx.Limits(max_connections=job.concurrency, max_keepalive_connections=job.concurrency)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:

        async def fetch(order: str, path: str) -> None:
            response = await client.post(job.url(order))
            response.raise_for_status()
            async with aiofiles.open(path, "wb") as file:
                await file.write(response.content)

        return await measure(job, fetch)


async def pyreqwest_write(job: Job) -> Measured:
    """pyreqwest (Rust's reqwest, its asyncio client) and a plain write."""
    from pyreqwest.client import ClientBuilder

    builder = ClientBuilder().max_connections(job.concurrency).pool_max_idle_per_host(job.concurrency)
    async with builder.error_for_status().build() as client:

        async def fetch(order: str, path: str) -> None:
            response = await client.post(job.url(order)).build().send()
            write(path, await response.bytes())

        return await measure(job, fetch)


def requests_threads(job: Job, *, environment: bool = True) -> Measured:
    """requests with one pooled session in a thread pool; without `environment` no proxy settings are looked up."""
    from concurrent.futures import ThreadPoolExecutor

    import requests
    from requests.adapters import HTTPAdapter

    def fetch(item: Item) -> None:
        order, path = item
        response = session.post(job.url(order), timeout=60)
        response.raise_for_status()
        write(path, response.content)

    with requests.Session() as session, ThreadPoolExecutor(job.concurrency) as pool:
        session.trust_env = environment
        session.mount("http://", HTTPAdapter(pool_maxsize=job.concurrency))
        list(pool.map(fetch, job.warm_items()))
        meter = Meter()
        list(pool.map(fetch, job.items()))
        return meter.read()


def curl_parallel(job: Job) -> Measured:
    """`curl --parallel` with a config file; the whole process is measured, its start included."""
    lines = [
        "parallel",
        f"parallel-max = {job.concurrency}",
        "request = POST",
        "silent",
        "no-progress-meter",
        "show-error",
        "fail",
    ]
    for order, path in job.items():
        lines += [f'url = "{job.url(order)}"', f'output = "{path}"']
    config = Path(job.warm_folder) / "curl.config"
    config.write_text("\n".join(lines))
    before, started = cpu(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(["curl", "--config", str(config)]) as curl:
        memory = watched(curl)
    wall = time.perf_counter() - started
    if curl.returncode:
        raise RuntimeError(f"curl ended with {curl.returncode}")
    return Measured(wall, cpu(resource.RUSAGE_CHILDREN) - before, memory)


def watched(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process and give its peak memory, read while it lives."""
    highest, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not ended.wait(0.01):
            highest = max(highest, peak(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    process.wait()
    ended.set()
    watcher.join()
    return highest


async def ours(job: Job, *, durable: bool = False, used_folder: bool = False) -> Measured:
    """This library with its defaults: signing, proof of completeness, sha256, duplicates, atomic publish.

    With `used_folder` the folder holds documents before, so that every id is looked for there first.
    """
    from invoicing_async import HmacAuth, Limits, OrderDocuments, Session

    auth = HmacAuth(
        partner_client_id="bench-partner",
        secret_key="bench-secret",
        store_client_id="bench-store",
        store_token="bench-token",
    )
    async with Session(job.base_url, auth=auth, limits=Limits(concurrency=job.concurrency)) as session:
        documents = OrderDocuments(session, max_bytes=2**31)

        async def batch(ids: Iterator[str], folder: str) -> None:
            async for outcome in documents.download_many(ids, folder, durable=durable):
                if type(outcome).__name__ != "Saved":
                    raise RuntimeError(f"not saved: {outcome}")

        await batch(job.warm_ids(), job.folder if used_folder else job.warm_folder)
        meter = Meter()
        await batch(job.ids(), job.folder)
        return meter.read()


def on_uvloop(peer: Callable[[Job], Coroutine[Any, Any, Measured]], job: Job) -> Measured:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(peer(job))


PEERS: dict[str, Callable[[Job], Measured]] = {
    "aiohttp": lambda job: asyncio.run(aiohttp_write(job)),
    "aiohttp-uvloop": lambda job: on_uvloop(aiohttp_write, job),
    "aiohttp-retry": lambda job: asyncio.run(aiohttp_retry(job)),
    "aiohttp-fsync": lambda job: asyncio.run(aiohttp_fsync(job)),
    "aiohttp-fsync-threads": lambda job: asyncio.run(aiohttp_fsync_threads(job)),
    "aiohttp-aiofiles": lambda job: asyncio.run(aiohttp_aiofiles(job)),
    "httpx-aiofiles": lambda job: asyncio.run(httpx_aiofiles(job)),
    "requests-threads": requests_threads,
    "requests-threads-no-env": lambda job: requests_threads(job, environment=False),
    "curl-parallel": curl_parallel,
    "pyreqwest": lambda job: asyncio.run(pyreqwest_write(job)),
    "ours": lambda job: asyncio.run(ours(job)),
    "ours-uvloop": lambda job: on_uvloop(ours, job),
    "ours-used-folder": lambda job: asyncio.run(ours(job, used_folder=True)),
    "ours-durable": lambda job: asyncio.run(ours(job, durable=True)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", required=True, help="an empty folder for the documents")
    parser.add_argument("--warm-to", required=True, help="an empty folder for the documents of the warm-up")
    parser.add_argument("--documents", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--warm-up", type=int, default=0)
    parser.add_argument("--cpu", type=int, help="run on this core only")
    asked = parser.parse_args()
    if asked.cpu is not None:
        os.sched_setaffinity(0, {asked.cpu})
    job = Job(asked.port, asked.to, asked.warm_to, asked.documents, asked.concurrency, asked.warm_up)
    measured = PEERS[asked.peer](job)
    print(json.dumps({"wall": measured.wall, "cpu": measured.cpu, "memory": measured.memory}), flush=True)
    if asked.peer == "pyreqwest":
        os._exit(0)  # its runtime's threads now and then abort an interpreter that ends: not what is measured


if __name__ == "__main__":
    main()

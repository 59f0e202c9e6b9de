"""Processes for `test_kill`: the lives that are ended by kill -9, and the services that go on and remember.

`python kill_work.py lives` forks a life for each order on its input, so that a life costs no imports, and ends it
after so many seconds with SIGKILL. `python kill_work.py documents|invoices LOG` is a service that writes what it did.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from invoicing_async.auth import StaticToken
from invoicing_async.documents import OrderDocuments
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import InvoiceDraft, InvoiceLine
from invoicing_async.policies import Limits, RetryPolicy
from invoicing_async.polling import Poller
from invoicing_async.runs import DocumentRun, InvoiceRun
from invoicing_async.session import Session

TEMPLATE = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"


def say(line: str) -> None:
    """Tell whoever started this process."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# -- lives -----------------------------------------------------------------------------------------------------------


def session(url: str, concurrency: int) -> Session:
    return Session(
        url,
        auth=StaticToken("not-a-secret"),
        retry=RetryPolicy(first=0.005),
        limits=Limits(concurrency=concurrency, stop_after=None),
    )


def order(number: int) -> str:
    return str(UUID(int=number))


async def documents_life(
    url: str, file: str, count: int, concurrency: int, place: str = "", mode: str = "keep"
) -> None:
    """Take the ids in, verify what is there and fetch the rest, into this place or a folder beside the file."""
    folder = place or Path(file).with_suffix("")
    async with (
        session(url, concurrency) as live,
        DocumentRun.open(file, folder=folder, layout="{shard}/{order_id}", on_existing=mode) as run,
    ):
        await run.add(map(order, range(count)))
        async with aclosing(run.download(OrderDocuments(live))) as outcomes:
            async for _ in outcomes:
                pass


def draft(number: int) -> InvoiceDraft:
    line = InvoiceLine(name=f"K-{number}", unit="piece", price=Decimal("9.90"), quantity=Decimal(1))
    return InvoiceDraft(key=f"K-{number}", invoice_template_id=TEMPLATE, lines=(line,))


async def invoices_life(url: str, file: str, count: int, concurrency: int) -> None:
    """Take the drafts in, submit what is left and wait for every one."""
    async with session(url, concurrency) as live, InvoiceRun.open(file) as run:
        await run.add(map(draft, range(count)))
        poller = Poller(first=0.01, ceiling=0.05)
        async with aclosing(run.run(AsyncInvoices(live), poller=poller)) as items:
            async for _ in items:
                pass


LIVES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "documents": documents_life,
    "invoices": invoices_life,
}


def live(order: dict[str, Any]) -> int:
    """Fork a life and end it when its time is up; give its wait status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(LIVES[order["life"]](*order["arguments"]))
            status = 0
        finally:
            os._exit(status)
    until = None if order["seconds"] is None else time.monotonic() + order["seconds"]
    while until is None or time.monotonic() < until:
        ended, status = os.waitpid(child, 0 if until is None else os.WNOHANG)
        if ended:
            return status
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def serve_lives() -> None:
    for line in sys.stdin:
        say(json.dumps(live(json.loads(line))))


# -- services --------------------------------------------------------------------------------------------------------


class Log:
    """Lines that are in the file before the service does anything more."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, *words: str) -> None:
        os.write(self._file, (" ".join(words) + "\n").encode())


class Service(asyncio.Protocol):
    """One connection of a service; requests come one after the other."""

    def __init__(self, log: Log, random: Random) -> None:
        self.log = log
        self.random = random
        self.received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = bytes(self.received).partition(b"\r\n\r\n")
        lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if separator and len(body) >= sum(lengths):
            self.received.clear()
            self.requested(head.split(b" ", 2)[1].decode(), body)

    def requested(self, path: str, body: bytes) -> None:
        """Answer one request."""

    def answer(self, body: bytes, kind: str, status: str = "200 OK") -> None:
        """Send the answer in two pieces with a moment between and before, in which a kill may fall."""
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        half = len(body) // 2
        self.later(lambda: self.transport.write(head + body[:half]), 0.004)
        self.later(lambda: self.transport.write(body[half:]), 0.004, after=0.004)

    def later(self, action: Callable[[], None], most: float, *, after: float = 0.0) -> None:
        asyncio.get_running_loop().call_later(after + self.random.random() * most, action)


def pdf(key: str) -> bytes:
    """A document of some kilobytes that is the order's own."""
    return b"%PDF-1.7\n" + f"% {key}\n".encode() * 80 + b"startxref\n9\n%%EOF\n"


class Documents(Service):
    """Answers every order with its document, and notes the order when it is asked for."""

    def requested(self, path: str, body: bytes) -> None:
        key = path.split("/")[-3]
        self.log.write("fetched", key)
        self.answer(pdf(key), "application/pdf")


class Invoices(Service):
    """Makes an invoice of every submission, and notes it before it answers; now and then it fails on the way."""

    def requested(self, path: str, body: bytes) -> None:
        if path.endswith("/ob/invoices"):
            self.submitted(json.loads(body)["invoice_data"]["invoice_lines"][0]["name"])
        else:
            self.polled(path.rsplit("/", 1)[1])

    def submitted(self, key: str) -> None:
        chance = self.random.random()
        if chance < 0.03:
            self.log.write("refused", key)
            self.say({"success": False, "error": {"code": "SYS_DEP_503", "message": "down"}}, "503 Unavailable")
            return
        if chance < 0.05:
            self.log.write("cut", key)
            self.transport.abort()
            return
        request_id = str(UUID(int=self.random.getrandbits(128)))
        self.log.write("created", key, request_id)
        if chance < 0.07:
            self.log.write("cut", key)
            self.transport.abort()
            return
        self.say({"request_id": request_id, "status": "NEW"})

    def polled(self, request_id: str) -> None:
        done = {"status": "SUCCESS", "data": {"id": request_id}}
        self.say({"request_id": request_id} | (done if self.random.random() < 0.5 else {"status": "NEW"}))

    def say(self, content: dict[str, Any], status: str = "200 OK") -> None:
        self.answer(json.dumps(content).encode(), "application/json", status)


SERVICES: dict[str, type[Service]] = {"documents": Documents, "invoices": Invoices}


async def serve(kind: str, path: str) -> None:
    log, random = Log(path), Random(kind)
    server = await asyncio.get_running_loop().create_server(lambda: SERVICES[kind](log, random), "127.0.0.1", 0)
    say(str(server.sockets[0].getsockname()[1]))
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "lives":
        serve_lives()
    else:
        asyncio.run(serve(*sys.argv[1:]))

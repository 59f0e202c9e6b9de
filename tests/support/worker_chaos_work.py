"""Processes for the tests of workers that are killed, stopped and cut off, and the service that remembers what it made.

`python worker_chaos_work.py service LOG HOST SECONDS` makes an invoice of every submission, notes it before it answers,
and answers after up to so many seconds. `python worker_chaos_work.py lives FOLDER` takes orders on its input, one JSON
object a line, and answers each with one line: `{"start": [address, url, options]}` forks a worker, so that it costs no
imports, and says its process id; `{"wait": pid}` says how it ended.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import kill_work

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres import opening
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.states import RunKind
from invoicing_async.auth import StaticToken
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.policies import Limits, RetryPolicy, Timeouts
from invoicing_async.polling import Poller
from invoicing_async.runs import InvoiceRun
from invoicing_async.session import Session
from invoicing_async.worker import Worker

PLACES = 8
TIMEOUTS = Timeouts(connect=0.5, read=1.0, attempt=1.0, intent=0.5)
LATE = 2.5
"""Seconds after its intent within which a submission has arrived, with these and the margin."""

OPTIONS = {"slots": 2, "chunk": 10, "heartbeat": 0.5, "every": 0.5}
"""Of each worker, where a test says nothing else."""


def server_address(text: str) -> ServerAddress:
    address = run_address(text)
    assert isinstance(address, ServerAddress)
    return address


# -- a worker --------------------------------------------------------------------------------------------------------


async def live(address: str, url: str, options: dict[str, Any]) -> None:
    """Work on a run until it rests; with `version` as a worker of that."""
    if told := options.pop("version", None):
        vars(opening)["version"] = lambda _: told
    limits = Limits(concurrency=PLACES, stop_after=None)
    retry = RetryPolicy(first=0.005)
    session = Session(url, auth=StaticToken("not-a-secret"), retry=retry, timeouts=TIMEOUTS, limits=limits)
    async with session as service, PostgresLedger.open(server_address(address), kind=RunKind.INVOICES) as ledger:
        poller = Poller(first=0.01, ceiling=0.05)
        async with Worker(InvoiceRun(ledger), AsyncInvoices(service), poller=poller, **OPTIONS | options) as worker:
            async for _ in worker.items():
                pass


def die_with_parent() -> None:
    """Let no process outlive a test that is killed: a worker would wait for its database for good."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def start(folder: str, arguments: list[Any]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        die_with_parent()
        asyncio.run(live(*arguments))
        status = 0
    except BaseException:
        Path(folder, str(os.getpid())).write_text(traceback.format_exc())
        raise
    finally:
        os._exit(status)


def wait(folder: str, pid: int) -> list[Any]:
    _, status = os.waitpid(pid, 0)
    why = Path(folder, str(pid))
    return [os.waitstatus_to_exitcode(status), why.read_text() if why.exists() else ""]


def serve_lives(folder: str) -> None:
    for line in sys.stdin:
        order = json.loads(line)
        answer = start(folder, order["start"]) if "start" in order else wait(folder, order["wait"])
        kill_work.say(json.dumps(answer))


# -- the service -----------------------------------------------------------------------------------------------------


class Remembering:
    """Answers one connection after the other request by request; what it made is in the file before it answers."""

    def __init__(self, log: kill_work.Log, seconds: float) -> None:
        self.log = log
        self.seconds = seconds
        self.random = Random("remembering")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host: str = writer.get_extra_info("peername")[0]
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
                body = await reader.readexactly(sum(lengths))
                said = json.dumps(self.answer(head.split(b" ", 2)[1].decode(), body, host)).encode()
                await asyncio.sleep(self.seconds * self.random.random())
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ")
                writer.write(f"{len(said)}\r\n\r\n".encode() + said)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the worker has left
        finally:
            writer.close()

    def answer(self, path: str, body: bytes, host: str) -> dict[str, object]:
        if not path.endswith("/ob/invoices"):
            request_id = path.rsplit("/", 1)[1]
            return {"request_id": request_id, "status": "SUCCESS", "data": {"id": request_id}}
        key, request_id = json.loads(body)["invoice_data"]["invoice_lines"][0]["name"], str(uuid4())
        self.log.write("created", key, request_id, f"{time.time():.3f}", host)
        return {"request_id": request_id, "status": "NEW"}


async def serve(path: str, host: str, seconds: str) -> None:
    server = await asyncio.start_server(Remembering(kill_work.Log(path), float(seconds)).serve, host, 0)
    kill_work.say(str(server.sockets[0].getsockname()[1]))
    await server.serve_forever()


if __name__ == "__main__":
    die_with_parent()
    if sys.argv[1] == "lives":
        serve_lives(sys.argv[2])
    else:
        asyncio.run(serve(*sys.argv[2:]))

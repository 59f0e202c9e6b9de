"""Processes for `test_chaos`: lives of an invoice run that the test starts, stops and kills as it likes.

Started as a program it takes orders on its input, one JSON object a line, and answers each with one line:
`{"start": [url, file, count, concurrency]}` forks a life and says its process id, `{"wait": pid}` says its exit status
and, on the same line, why it ended if an error of the library's own ended it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from contextlib import aclosing
from pathlib import Path
from typing import Any

import kill_work

from invoicing_async.auth import StaticToken
from invoicing_async.errors import InvoicingError
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.policies import Limits, RetryPolicy, Timeouts
from invoicing_async.polling import Poller
from invoicing_async.runs import InvoiceRun
from invoicing_async.session import Session

EXPLAINED = 2
"""The exit status of a life that an error of the library's own, or of the file system, ended."""


async def life(url: str, file: str, count: int, concurrency: int) -> None:
    """Take the drafts in, submit what is left and wait for every one."""
    session = Session(
        url,
        auth=StaticToken("not-a-secret"),
        retry=RetryPolicy(first=0.005),
        timeouts=Timeouts(connect=1.0, read=1.0, attempt=2.0),
        limits=Limits(concurrency=concurrency, stop_after=None),
    )
    async with session as live, InvoiceRun.open(file) as run:
        await run.add(map(kill_work.draft, range(count)))
        poller = Poller(first=0.01, ceiling=0.05)
        async with aclosing(run.run(AsyncInvoices(live), poller=poller)) as items:
            async for _ in items:
                pass


def said(pid: int) -> Path:
    return Path(f"{sys.argv[1]}.{pid}")


def lived(arguments: list[Any]) -> int:
    """Live in this process; give its exit status."""
    try:
        asyncio.run(life(*arguments))
    except (InvoicingError, OSError) as error:
        said(os.getpid()).write_text(f"{type(error).__name__}: {error}")
        return EXPLAINED
    except BaseException:
        said(os.getpid()).write_text(traceback.format_exc())
        raise
    return 0


def start(arguments: list[Any]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        status = lived(arguments)
    finally:
        os._exit(status)


def wait(pid: int) -> list[Any]:
    _, status = os.waitpid(pid, 0)
    why = said(pid).read_text() if said(pid).exists() else ""
    return [os.waitstatus_to_exitcode(status), why]


if __name__ == "__main__":
    for line in sys.stdin:
        order = json.loads(line)
        kill_work.say(json.dumps(start(order["start"]) if "start" in order else wait(order["wait"])))

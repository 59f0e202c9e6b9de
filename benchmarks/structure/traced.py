"""Calls of one order id, one draft and one status on their way through the package, noted by `sys.setprofile`."""

from __future__ import annotations

import asyncio
import dis
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import CodeType, FrameType
from typing import Any, NamedTuple

import invoicing_async
from invoicing_async import (
    AsyncInvoices,
    HmacAuth,
    InvoiceDraft,
    InvoiceLine,
    Limits,
    OrderDocuments,
    Poller,
    Session,
    StaticToken,
)
from invoicing_async.runs import InvoiceRun
from invoicing_async.sandbox import Faults, Sandbox, demo_orders

PACKAGE = str(Path(invoicing_async.__file__).parent)
BASE_URL = "http://sandbox.invalid/api"
TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
BATCH = 50
WARM = 10  # pieces left out at the start: connections, folders, statements that are prepared once
EXPRESSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "<module>")
SERVICE = ("sandbox", "_sandbox", "_page")  # the other side, which answers in the same process


class Call(NamedTuple):
    """A function of the package that was entered."""

    module: str
    function: str
    thread: int


class Piece(NamedTuple):
    """What one item took."""

    calls: float
    functions: float
    changes: float
    elsewhere: float
    """Calls in other threads than the loop's."""


class Recorder:
    """A transport that notes every call in the package, and begins a new note with each request."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.notes: list[list[Call]] = [[]]

    @asynccontextmanager
    async def send(self, request: Any, exchange: Any) -> AsyncIterator[Any]:
        self.notes.append([])
        answering = self.sandbox.send(request, exchange)
        # What the other side does in between, the library's own functions included, is no call of the item's.
        sys.setprofile(None)
        try:
            response = await answering.__aenter__()
        finally:
            sys.setprofile(self._note)
        try:
            yield response
        finally:
            await answering.__aexit__(None, None, None)

    async def close(self) -> None:
        await self.sandbox.close()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        # A coroutine that goes on is a "call" to the interpreter as well, but not at the beginning of its code.
        if event == "call" and (module := _module(frame.f_code)) and frame.f_lasti <= _beginning(frame.f_code):
            name = f"{frame.f_code.co_qualname}:{frame.f_code.co_firstlineno}"
            self.notes[-1].append(Call(module, name, threading.get_ident()))


@cache
def _module(code: CodeType) -> str:
    """The module of a function that counts; empty for other packages, the service's side, and comprehensions."""
    if code.co_name in EXPRESSIONS or not code.co_filename.startswith(PACKAGE + "/"):
        return ""
    name = code.co_filename[len(PACKAGE) + 1 : -len(".py")].replace("/", ".")
    return "" if name.startswith(SERVICE) else name


@cache
def _beginning(code: CodeType) -> int:
    return next((step.offset for step in dis.get_instructions(code) if step.opname == "RESUME"), 0)


async def order_ids(recorder: Recorder, folder: Path) -> None:
    auth = HmacAuth(**recorder.sandbox.credentials.partner())
    async with Session(BASE_URL, auth=auth, transport=recorder) as session:
        await _through(OrderDocuments(session).download_many(demo_orders(BATCH), folder, concurrency=1))


async def drafts(recorder: Recorder, folder: Path) -> None:
    async with _run(recorder, folder) as (run, invoices):
        await _through(run.submit(invoices, concurrency=1))


async def polls(recorder: Recorder, folder: Path) -> None:
    async with _run(recorder, folder) as (_, invoices):
        requests = [(await invoices.submit(_draft(number))).request_id for number in range(BATCH)]
        recorder.notes[:] = [[]]
        await _through(invoices.wait_many(requests, poller=_often()))


async def statuses(recorder: Recorder, folder: Path) -> None:
    async with _run(recorder, folder) as (run, invoices):
        await _through(run.submit(invoices, concurrency=1))
        recorder.notes[:] = [[]]
        await _through(run.settle(invoices, poller=_often()))


@asynccontextmanager
async def _run(recorder: Recorder, folder: Path) -> AsyncIterator[tuple[InvoiceRun, AsyncInvoices]]:
    auth = StaticToken(recorder.sandbox.credentials.token)
    async with AsyncExitStack() as stack:
        # One call at a time, so that what lies between two requests belongs to one item.
        session = Session(BASE_URL, auth=auth, transport=recorder, limits=Limits(concurrency=1))
        await stack.enter_async_context(session)
        run = await stack.enter_async_context(InvoiceRun.open(folder / "run"))
        await run.add(map(_draft, range(BATCH)))
        yield run, AsyncInvoices(session)


def _draft(number: int) -> InvoiceDraft:
    line = InvoiceLine(name="Tea", unit="cup", price="15000", quantity=2)
    return InvoiceDraft(key=f"order-{number}", invoice_template_id=TEMPLATE, lines=[line])


def _often() -> Poller:
    return Poller(first=0.001, ceiling=0.01)


async def _through(outcomes: AsyncGenerator[Any]) -> None:
    async with aclosing(outcomes):
        async for _ in outcomes:
            pass


class Journey(NamedTuple):
    """What is traced, and how many polls the service takes until an invoice is done."""

    work: Callable[[Recorder, Path], Coroutine[Any, Any, None]]
    polls: int
    together: bool = False
    """Items are recorded in groups, so that only their mean says what one took."""


JOURNEYS = {
    "an order id to a file": Journey(order_ids, 1),
    "a draft to its request id, durable": Journey(drafts, 1),
    "a poll, not done yet": Journey(polls, 4),
    "a status polled and recorded, durable": Journey(statuses, 1, together=True),
}


def traced(journey: Journey) -> tuple[Piece, Counter[str]]:
    """The median item of a batch, and its calls by module."""
    recorder = Recorder(Sandbox(faults=Faults(polls_until_done=(journey.polls, journey.polls))))
    with tempfile.TemporaryDirectory() as folder, recorder.at_work():
        asyncio.run(journey.work(recorder, Path(folder)))
    if journey.together:
        calls = [call for note in recorder.notes for call in note]
        whole = _piece(calls)
        mean = Piece(whole.calls / BATCH, whole.functions, whole.changes / BATCH, whole.elsewhere / BATCH)
        return mean, _by_module(calls, BATCH)
    notes = sorted(recorder.notes[WARM:-1], key=len)
    pieces = zip(*map(_piece, notes), strict=True)
    return Piece(*map(median, pieces)), _by_module(notes[len(notes) // 2], 1)


def _piece(calls: list[Call]) -> Piece:
    threads = [[call for call in calls if call.thread == thread] for thread in {call.thread for call in calls}]
    own = [call for call in calls if call.thread == threading.get_ident()]
    return Piece(
        calls=len(calls),
        functions=len({call[:2] for call in calls}),
        changes=sum(one.module != other.module for thread in threads for one, other in pairwise(thread)),
        elsewhere=len(calls) - len(own),
    )


def _by_module(calls: list[Call], items: int) -> Counter[str]:
    return Counter({name: round(count / items) for name, count in Counter(call.module for call in calls).items()})

"""What the library makes of each fault, in-process and on a port: no document lost, doubled or half-written.

The short form of the long tests takes every third fault on the port.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from sandbox_requests import ask, signed
from services import draft
from short_form import SHORT

from invoicing_async import (
    AsyncInvoices,
    HmacAuth,
    InDoubt,
    InvoiceRequest,
    Limits,
    OrderDocuments,
    OutagePolicy,
    Poller,
    Rejected,
    RetryPolicy,
    Saved,
    Session,
    StaticToken,
    Submitted,
    Timeouts,
)
from invoicing_async._core.clock import Clock, RealClock
from invoicing_async.errors import PollTimeoutError
from invoicing_async.sandbox import Fault, Faults, Operation, Sandbox, demo_orders

STEP = 3 if SHORT else 1
ORDERS = demo_orders(12)
BASE_PATH = "/api/v1"
WAYS = pytest.mark.parametrize("way", ["in-process", pytest.param("port", marks=pytest.mark.slow)])

DOWNLOADS = (
    "truncate:0,first=1",
    "truncate:1000,first=2",
    "unended:first=1",
    "reset:before-work,first=2",
    "reset:before-head,first=1",
    "reset:after-head,first=1",
    "reset:in-body,at=500,first=1",
    "lost:operation=document,first=1",
    "gateway504:operation=document,first=1",
    "429:0,first=1",
    "random503:0.3,seed=7",
    "rate:200,burst=4",
    "drip:0.001,size=500",
    "capacity:4,queue=4,seconds=0.01",
    "outage:length=0.3",
    "outage:length=0.2,recovery=0.2,seed=4",
    "outage:length=0.3,answer=refused",
    "skew:250",
    "skew:900",
    "skew:-900",
)
"""Faults that end: every document is there in the end."""

SUBMISSIONS = (
    "lost:share=0.5,seed=1",
    "gateway504:share=0.5,seed=2",
    "reset:before-work,operation=submit,share=0.5",
    "reset:before-head,operation=submit,share=0.5",
    "reset:after-head,operation=submit,share=0.5",
    "reset:in-body,at=9,operation=submit,share=0.5",
    "truncate:9,operation=submit,share=0.5",
    "unended:operation=submit,share=0.5",
    "random503:0.3,seed=7",
    "429:0,first=1",
    "rate:200,burst=4",
    "capacity:2,queue=2,seconds=0.01",
    "outage:length=0.2",
    "outage:length=0.2,answer=refused",
    "drip:0.001,size=9",
)


@asynccontextmanager
async def opened(way: str, text: str, *, auth: Any = None, **faults: Any) -> AsyncIterator[tuple[Session, Sandbox]]:
    """A session with a sandbox in which a fault is in force; in-process its clock moves by sleeping."""
    clock: Clock = FakeClock() if way == "in-process" else RealClock()
    sandbox = Sandbox(faults=Faults(**faults), clock=clock)
    named: Any = {
        "auth": auth or HmacAuth(**sandbox.credentials.partner()),
        "retry": RetryPolicy(attempts=12, first=0.05, ceiling=0.3),
        "limits": Limits(concurrency=6, stop_after=None),
        "outage": OutagePolicy(probe=0.05, ceiling=0.2),
        "timeouts": Timeouts(read=0.3),
        "clock": clock,
    }
    sandbox.inject(Fault.parse(text))
    if way == "in-process":
        async with Session("http://sandbox.test/api/v1", transport=sandbox, **named) as session:
            yield session, sandbox
    else:
        async with sandbox.serve(base_path=BASE_PATH) as url, Session(url, **named) as session:
            yield session, sandbox


def did(sandbox: Sandbox) -> int:
    """How often the faults in force did something."""
    return sum(counts.total() for counts in sandbox.injected.values())


async def genuine(order: str) -> bytes:
    sandbox = Sandbox()
    return (await ask(sandbox, signed(sandbox, order))).body


class TestDocuments:
    @WAYS
    @pytest.mark.asyncio
    @pytest.mark.parametrize("text", DOWNLOADS[::STEP])
    async def test_every_document_is_there_once_and_whole(self, way: str, text: str, tmp_path: Path) -> None:
        """Each file has the bytes of its own order, and nothing else is in the folder."""
        async with opened(way, text) as (session, sandbox):
            outcomes = [outcome async for outcome in OrderDocuments(session).download_many(ORDERS, tmp_path)]
            assert did(sandbox) > 0
        assert [type(outcome) for outcome in outcomes] == [Saved] * len(ORDERS)
        assert len([*tmp_path.rglob("*")]) == len(ORDERS)
        for outcome in outcomes:
            assert isinstance(outcome, Saved)
            assert outcome.document.path.read_bytes() == await genuine(outcome.order_id)

    @WAYS
    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        "text", ["truncate:1000", "reset:in-body,at=500", "unended", "random503:1", "outage:answer=refused"]
    )
    async def test_what_never_ends_leaves_no_file(self, way: str, text: str, tmp_path: Path) -> None:
        """Each order has one outcome, and none of them is `Saved`."""
        async with opened(way, text) as (session, _):
            outcomes = [outcome async for outcome in OrderDocuments(session).download_many(ORDERS[:4], tmp_path)]
        assert sorted(outcome.order_id for outcome in outcomes) == sorted(ORDERS[:4])
        assert not any(isinstance(outcome, Saved) for outcome in outcomes)
        assert [*tmp_path.rglob("*")] == []

    @pytest.mark.asyncio
    @pytest.mark.parametrize("text", ["hang:first=1", "hang:at=500,first=1", "unended:hang,first=1"])
    async def test_silence_on_a_port_is_tried_again(self, text: str, tmp_path: Path) -> None:
        """After `Timeouts.read`."""
        async with opened("port", text) as (session, sandbox):
            outcomes = [outcome async for outcome in OrderDocuments(session).download_many(ORDERS[:4], tmp_path)]
            assert did(sandbox) == 4
        assert [type(outcome) for outcome in outcomes] == [Saved] * 4
        assert len([*tmp_path.rglob("*")]) == 4

    @pytest.mark.asyncio
    async def test_a_body_without_an_end_is_not_read_for_ever(self, tmp_path: Path) -> None:
        """What goes beyond the limit of a document is no document."""
        async with opened("port", "unended:more") as (session, _):
            documents = OrderDocuments(session, max_bytes=200_000)
            (outcome,) = [outcome async for outcome in documents.download_many(ORDERS[:1], tmp_path)]
        assert not isinstance(outcome, Saved)
        assert [*tmp_path.rglob("*")] == []

    @pytest.mark.asyncio
    async def test_retry_after_is_waited_for(self, tmp_path: Path) -> None:
        """In virtual time, to the second, by number and by date."""
        for text in ("429:120,first=1", "429:120,first=1,date=true"):
            async with opened("in-process", text) as (session, sandbox):
                await OrderDocuments(session).download(ORDERS[0], tmp_path / text[-4:])
                assert sandbox.clock.monotonic() >= 120


class TestSubmissions:
    @WAYS
    @pytest.mark.asyncio
    @pytest.mark.parametrize("text", SUBMISSIONS[::STEP])
    async def test_no_invoice_is_made_twice_or_made_and_denied(self, way: str, text: str) -> None:
        """What was made is submitted or in doubt; what is submitted was made, under its own request id."""
        async with opened(way, text, auth=StaticToken(token())) as (session, sandbox):
            drafts = [draft(f"K{number}") for number in range(16)]
            outcomes = [outcome async for outcome in AsyncInvoices(session).submit_many(drafts)]
            made = {one.request_id: one.content["invoice_data"]["consumer"]["code"] for one in sandbox.created.values()}
            assert did(sandbox) > 0
        assert sorted(outcome.draft.key for outcome in outcomes) == sorted(one.key for one in drafts)
        assert max(Counter(made.values()).values()) == 1
        kinds = {outcome.draft.key: type(outcome) for outcome in outcomes}
        assert {kinds[key] for key in made.values()} <= {Submitted, InDoubt}
        assert Rejected not in kinds.values()
        for outcome in outcomes:
            if isinstance(outcome, Submitted):
                assert made[outcome.request.request_id] == outcome.draft.key

    @WAYS
    @pytest.mark.asyncio
    @pytest.mark.parametrize("text", ["random503:0.3,seed=7", "429:0,first=1", "outage:length=0.2,answer=refused"])
    async def test_what_surely_was_not_made_is_sent_until_it_is(self, way: str, text: str) -> None:
        """A refusal, or a connection that never was, leaves nothing in doubt."""
        async with opened(way, text, auth=StaticToken(token())) as (session, sandbox):
            drafts = [draft(f"K{number}") for number in range(12)]
            outcomes = [outcome async for outcome in AsyncInvoices(session).submit_many(drafts)]
            assert len(sandbox.created) == 12
        assert {type(outcome) for outcome in outcomes} == {Submitted}

    @WAYS
    @pytest.mark.asyncio
    @pytest.mark.parametrize("text", ["lost", "gateway504", "reset:before-head,operation=submit"])
    async def test_an_answer_that_was_lost_leaves_a_doubt_and_one_request(self, way: str, text: str) -> None:
        """It is not sent again."""
        async with opened(way, text, auth=StaticToken(token())) as (session, sandbox):
            (outcome,) = [outcome async for outcome in AsyncInvoices(session).submit_many([draft("K")])]
            assert sandbox.calls(Operation.SUBMIT) == len(sandbox.created) == 1
        assert isinstance(outcome, InDoubt)


class TestWaiting:
    @WAYS
    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        "text", ["outage:length=0.3", "outage:length=0.3,answer=refused", "random503:0.3,seed=7", "reset:first=1"]
    )
    async def test_every_wait_ends_in_its_answer(self, way: str, text: str) -> None:
        """No request is lost on the way, and none is answered twice."""
        faults = {"polls_until_done": (1, 3)}
        async with opened(way, "skew:0", auth=StaticToken(token()), **faults) as (session, sandbox):
            invoices = AsyncInvoices(session)
            ids = [(await invoices.submit(draft(f"K{number}"))).request_id for number in range(8)]
            sandbox.inject(Fault.parse(text))
            poller = Poller(first=0.05, factor=1.2, ceiling=0.2, errors=50)
            ended = [one async for one in invoices.wait_many(ids, poller=poller)]
        assert all(isinstance(one, InvoiceRequest) for one in ended)
        assert sorted(one.request_id for one in ended if isinstance(one, InvoiceRequest)) == sorted(ids)

    @pytest.mark.asyncio
    async def test_what_is_never_done_ends_with_the_budget_of_the_wait(self) -> None:
        """The error carries the request's id, so that the wait can go on."""
        async with opened("in-process", "neverdone", auth=StaticToken(token())) as (session, sandbox):
            invoices = AsyncInvoices(session)
            request = await invoices.submit(draft("K"))
            with pytest.raises(PollTimeoutError) as caught:
                await invoices.wait(request.request_id, poller=Poller(timeout=300))
            assert caught.value.request_id == request.request_id
            sandbox.inject()
            done = await invoices.wait(request.request_id, poller=Poller(timeout=300))
            assert done.request_id == request.request_id


def token() -> str:
    return Sandbox().credentials.token


@pytest.mark.asyncio
async def test_the_same_faults_hit_the_same_calls_in_both_ways(tmp_path: Path) -> None:
    """What is drawn from a seed does not depend on the way or the order."""
    hit = []
    for way in ("in-process", "port"):
        async with opened(way, "random503:0.4,seed=11") as (session, sandbox):
            async for _ in OrderDocuments(session).download_many(ORDERS, tmp_path / way):
                await asyncio.sleep(0)
            hit.append(Counter(entry.path for entry in sandbox.log if entry.status == 503))
    assert hit[0] == hit[1]
    assert hit[0].total() > 4

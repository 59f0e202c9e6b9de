"""Whatever a batch meets it ends, with one outcome for each item, though what failed is tried once more at its end."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest
import vtime
from fakes import FakeResponse, FakeTransport
from session_calls import DOWN

from invoicing_async import AsyncInvoices, HmacAuth, Limits, OutagePolicy, RetryPolicy, Session
from invoicing_async.clock import RealClock
from invoicing_async.errors import ServiceDownError
from invoicing_async.models import InvoiceDraft, InvoiceLine, NotSent, Rejected, Submitted

TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
TAKEN = FakeResponse(
    headers={"Content-Type": "application/json"}, pieces=(b'{"request_id": "%s", "status": "NEW"}' % TEMPLATE.encode(),)
)
NOT_TAKEN = FakeResponse(status=422)


class Clock(RealClock):
    """The time of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.monotonic = asyncio.get_running_loop().time  # type: ignore[method-assign] # one of this loop

    def now(self) -> float:
        return 1.7e9 + self.monotonic()


def draft(key: str) -> InvoiceDraft:
    line = InvoiceLine(name=key, unit="box", price="10.50", quantity=2)
    return InvoiceDraft(key=key, invoice_template_id=TEMPLATE, lines=[line])


@pytest.mark.parametrize("seed", range(60))
def test_a_batch_of_any_size_and_luck_ends(seed: int) -> None:
    """Items that are answered, refused by chance and refused for good, at any concurrency, careful or not."""
    chance = random.Random(seed)
    count, concurrency = chance.randint(1, 14), chance.randint(1, 8)
    share, adaptive = chance.choice([0.1, 0.4, 0.8]), chance.random() < 0.5
    keys = [f"K-{number:02}" for number in range(count)]
    unlucky = {key for key in keys if chance.random() < 0.2}

    async def answer(request: Any) -> FakeResponse:
        await asyncio.sleep(chance.random() * 0.1)
        if any(key.encode() in request.body for key in unlucky) or chance.random() < share:
            return DOWN
        return NOT_TAKEN if chance.random() < 0.1 else TAKEN

    async def work() -> list[Any]:
        session = Session(
            "http://service.test",
            auth=HmacAuth(partner_client_id="p", secret_key="k"),
            transport=FakeTransport(answers=[answer]),
            retry=RetryPolicy(attempts=chance.randint(1, 3), first=0.1, ceiling=1.0),
            limits=Limits(concurrency=concurrency, adaptive=adaptive, stop_after=None),
            outage=OutagePolicy(after=chance.choice([3, 20]), probe=0.1, ceiling=0.5, patience=20.0),
            clock=Clock(),
        )
        async with session, asyncio.timeout(300):
            outcomes: list[Any] = []
            # Enough drafts that are refused for good are an outage, as far as anybody can tell.
            with suppress(ServiceDownError):
                async for outcome in AsyncInvoices(session).submit_many(map(draft, keys)):
                    outcomes.append(outcome)  # noqa: PERF401 - what came before the error counts
            return outcomes

    outcomes = vtime.run(work())
    assert sorted(outcome.draft.key for outcome in outcomes) == sorted(keys)
    assert {type(outcome) for outcome in outcomes} <= {Submitted, Rejected, NotSent}
    assert {outcome.draft.key for outcome in outcomes if isinstance(outcome, NotSent)} >= unlucky

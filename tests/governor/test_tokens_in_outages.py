"""A batch whose token cannot be had because the service is down."""

from __future__ import annotations

import pytest
from attrs import evolve

from invoicing_async import AsyncInvoices, ServiceUnavailableError, Submitted
from invoicing_async.drafts import example_draft
from invoicing_async.testing import FakeClock, RecordingSandbox

DRAFTS = [evolve(example_draft(), key=f"A-{number}") for number in range(24)]


@pytest.mark.parametrize("length", [5, 30, 300])
@pytest.mark.asyncio
async def test_no_draft_is_given_up_for_an_outage_that_it_meets_at_the_token(length: int) -> None:
    """The token is every draft's: its attempts are nobody's, and each draft is sent once when it can be had."""
    sandbox = RecordingSandbox(clock=FakeClock(), inject=[f"outage:length={length}"])
    async with sandbox.invoices_session() as session:
        outcomes = [outcome async for outcome in AsyncInvoices(session).submit_many(DRAFTS)]
    assert [type(outcome) for outcome in outcomes] == [Submitted] * len(DRAFTS)
    assert len(sandbox.requests_to("submit")) == len(DRAFTS)
    assert len(sandbox.requests_to("token")) <= 22 + length / 3


@pytest.mark.asyncio
async def test_a_single_call_gives_up_as_it_always_did() -> None:
    """It has its attempts, and nobody's patience."""
    sandbox = RecordingSandbox(clock=FakeClock(), inject=["outage:length=300"])
    async with sandbox.invoices_session() as session:
        with pytest.raises(ServiceUnavailableError) as raised:
            await AsyncInvoices(session).submit(DRAFTS[0])
    assert len(raised.value.attempts) <= 5
    assert len(sandbox.requests_to("token")) == 5

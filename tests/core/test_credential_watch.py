"""One stray 401 costs one more attempt; a batch ends when the credential is refused for good, and soon."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from uuid import UUID

import pytest
import vtime
from fakes import FakeResponse
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async import (
    AsyncInvoices,
    AuthenticationError,
    InvoiceDraft,
    InvoiceLine,
    OAuthClientCredentials,
    Poller,
    Session,
    StaticToken,
)
from invoicing_async._core.credential_watch import ENOUGH, CredentialWatch
from invoicing_async._core.http import Exchange, Request

TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def draft(number: int) -> InvoiceDraft:
    line = InvoiceLine(name=f"n{number}", unit="u", price=Decimal(1), quantity=Decimal(1))
    return InvoiceDraft(key=f"K-{number}", invoice_template_id=TEMPLATE, lines=[line])


def oauth() -> OAuthClientCredentials:
    return OAuthClientCredentials(client_id="c", client_secret="s", tenant_connection_code="t")


@given(st.lists(st.sampled_from(["accepted", "failed", "denied", "given"]), max_size=30))
def test_it_is_refused_after_two_failures_without_a_success_between(heard: list[str]) -> None:
    watch, failed, denied = CredentialWatch(), 0, False
    for name in heard:
        getattr(watch, name)()
        failed = {"accepted": 0, "failed": failed + 1}.get(name, failed)
        denied = {"denied": True, "given": False}.get(name, denied)
        assert watch.refused is (denied or failed >= ENOUGH)


class Peer:
    """A service that gives tokens and takes submissions; `judge` says which calls of the API are refused."""

    def __init__(
        self, judge: Callable[[Request, int], bool], token: Callable[[int], FakeResponse] | None = None
    ) -> None:
        self.judge, self.token = judge, token
        self.tokens = self.calls = 0
        self.newest = ""

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[FakeResponse]:
        exchange.sent = True
        await asyncio.sleep(0.005)
        yield self.answer(request)

    def answer(self, request: Request) -> FakeResponse:
        if request.operation == "token":
            self.tokens += 1
            self.newest = f"tok{self.tokens}"
            given = b'{"access_token":"%s","expires_in":3600}' % self.newest.encode()
            return FakeResponse(pieces=(given,)) if self.token is None else self.token(self.tokens)
        self.calls += 1
        if self.judge(request, self.calls):
            return FakeResponse(status=401)
        return FakeResponse(pieces=(b'{"request_id":"%s","status":"NEW"}' % str(UUID(int=self.calls)).encode(),))

    async def close(self) -> None:
        """Nothing is held open."""


async def submitted(peer: Peer, count: int, auth: object, seed: int = 1) -> Counter[str]:
    found: Counter[str] = Counter()
    session = Session("http://x/api", auth=auth, transport=peer, clock=vtime.VirtualClock(seed))  # type: ignore[arg-type]
    async with session:
        try:
            async for outcome in AsyncInvoices(session).submit_many(map(draft, range(count)), concurrency=6):
                found[type(outcome).__name__] += 1
        except AuthenticationError:
            found["raised"] += 1
    return found


@pytest.mark.parametrize("auth", [StaticToken("t"), oauth()], ids=["static", "oauth"])
def test_a_stray_401_costs_one_more_attempt(auth: object) -> None:
    peer = Peer(lambda request, call: call % 100 == 50)
    assert vtime.run(submitted(peer, 500, auth)) == {"Submitted": 500}
    assert peer.calls == 505


def test_an_item_whose_check_fails_too_is_left_for_later_and_the_batch_goes_on() -> None:
    peer = Peer(lambda request, call: b'"n7"' in request.body)
    assert vtime.run(submitted(peer, 100, StaticToken("t"))) == {"Submitted": 99, "NotSent": 1}
    assert peer.calls == 101


def test_a_dead_credential_ends_the_batch_after_two_checks_of_those_in_flight() -> None:
    peer = Peer(lambda request, call: True)
    assert vtime.run(submitted(peer, 1000, StaticToken("t"))) == {"NotSent": 1000, "raised": 1}
    assert peer.calls <= 2 * 6


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_who_gives_no_token_is_asked_once(status: int) -> None:
    refusal = FakeResponse(status=status, pieces=(b'{"error":"invalid_client"}',))
    peer = Peer(lambda request, call: False, lambda number: refusal)
    assert vtime.run(submitted(peer, 2000, oauth())) == {"NotSent": 2000, "raised": 1}
    assert (peer.tokens, peer.calls) == (1, 0)


@pytest.mark.parametrize("seed", range(20))
def test_two_processes_with_one_tenant_both_finish(seed: int) -> None:
    """Only the newest token is valid, and each process asks for one whenever its own was refused."""
    peer = Peer(lambda request, call: request.headers["Authorization"] != f"Bearer {peer.newest}")

    async def both() -> list[Counter[str]]:
        return await asyncio.gather(*(submitted(peer, 200, oauth(), 2 * seed + n) for n in range(2)))

    assert vtime.run(both()) == [{"Submitted": 200}] * 2


def test_a_wait_ends_for_all_when_the_credential_is_refused() -> None:
    peer = Peer(lambda request, call: True)

    async def work() -> list[object]:
        session = Session("http://x/api", auth=StaticToken("t"), transport=peer, clock=vtime.VirtualClock())
        async with session:
            ids = [str(UUID(int=number)) for number in range(500)]
            return [end async for end in AsyncInvoices(session).wait_many(ids, poller=Poller())]

    found = vtime.run(work())
    assert len(found) == 500
    assert {type(end.error) for end in found} == {AuthenticationError}  # type: ignore[attr-defined]
    assert peer.calls < 70


@pytest.mark.parametrize("given_first", [2, 7])
def test_a_refused_credential_is_raised_beside_a_feed_that_is_idle(given_first: int) -> None:
    """Within a second, with an outcome for each draft that was given; the feed is closed."""
    closed = False

    async def feed() -> AsyncIterator[InvoiceDraft]:
        nonlocal closed
        try:
            for number in range(given_first):
                yield draft(number)
            await asyncio.sleep(3600)
        finally:
            closed = True

    async def main() -> tuple[Counter[str], float]:
        found: Counter[str] = Counter()
        session = Session(
            "http://x/api", auth=StaticToken("t"), transport=Peer(lambda *_: True), clock=vtime.VirtualClock()
        )
        async with session:
            try:
                async for outcome in AsyncInvoices(session).submit_many(feed()):
                    found[type(outcome).__name__] += 1
            except AuthenticationError:
                found["raised"] += 1
            return found, asyncio.get_running_loop().time()

    found, seconds = vtime.run(main())
    assert (found, closed) == ({"NotSent": given_first, "raised": 1}, True)
    assert seconds < 1

"""The one verb: what is retried and when, what bounds it, and that cancelling it leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import pytest
import vtime
from attrs import evolve
from fakes import START, FakeClock, FakeResponse, FakeTransport
from leaks import in_use, others, shown
from mocked import Mocked
from peers import OK, Connection, Peer, answering, listening, silent

from invoicing_async._core import signing
from invoicing_async._core.batch import bounded
from invoicing_async._core.envelope import error_from
from invoicing_async._core.http import Exchange, Repeat, Request, Response, path
from invoicing_async._transport.server import serve
from invoicing_async.auth import Auth, HmacAuth, OAuthClientCredentials, StaticToken
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    DeadlineError,
    IncompleteDocumentError,
    InterruptedDocumentError,
    OrderStatusError,
    OversizedDocumentError,
    PermissionDeniedError,
    PollTimeoutError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
    SessionError,
    TransportError,
)
from invoicing_async.events import AttemptFailed, Event, RequestStarted, RequestSucceeded, RetryScheduled
from invoicing_async.policies import Limits, RetryPolicy, Timeouts
from invoicing_async.sandbox import (
    Answer,
    JsonUnder200,
    NotEligible,
    NotPdf,
    Operation,
    Reset,
    Sandbox,
    SandboxSettings,
    Truncated,
    Unavailable,
)
from invoicing_async.session import CHECKS, Session, may_repeat

BASE = "https://service.test/api/v1"
ORDER = "d0e11047-acaf-468f-a325-3d2f5964f5ff"
ENVELOPE = b'{"success": false, "error": {"code": "SYS_DEP_503", "message": "down"}, "requestId": "r-1"}'
DOWN = FakeResponse(status=503, pieces=(ENVELOPE,))
FINE = FakeResponse(pieces=(b"fine",))
CALL = Request(method="POST", path="/x", operation="test")
SUBMISSION = evolve(CALL, repeat=Repeat.IF_NOT_SENT)
ONCE = RetryPolicy(attempts=1)


def document(order_id: str = ORDER) -> Request:
    target = path("partner", "stores", "orders", order_id, "documents", "invoice")
    return Request(method="POST", path=target, operation="document")


def status(request_id: str = "r-1") -> Request:
    return Request(method="POST", path=path("v2", "ob", "invoices", "by-request-id", request_id), operation="status")


async def body(response: Response) -> bytes:
    return await response.read(1_000_000)


async def checked(response: Response) -> bytes:
    """Read as a feature does: an envelope under 200 is its error."""
    content = await body(response)
    error = error_from(response.status, response.header, content, now=START)
    if error is not None:
        raise error
    return content


@asynccontextmanager
async def scripted(*answers: Any, clock: FakeClock | None = None, **settings: Any) -> AsyncIterator[Session]:
    """A session whose transport gives these answers in turn, the last one for ever."""
    transport = FakeTransport(answers=list(answers))
    settings = {"auth": StaticToken("t"), "transport": transport, "clock": clock or FakeClock(), **settings}
    async with Session(BASE, **settings) as session:
        yield session


def sent(session: Session) -> list[Request]:
    assert isinstance(session._transport, FakeTransport)
    return session._transport.sent


@asynccontextmanager
async def served(sandbox: Sandbox, *, auth: Auth | None = None, **settings: Any) -> AsyncIterator[Session]:
    """A session over a real socket to the sandbox; both have one clock."""
    auth = auth or HmacAuth(**sandbox.credentials.partner())
    async with (
        serve(sandbox, base_path="/api/v1") as url,
        Session(url, auth=auth, clock=sandbox.clock, **settings) as session,
    ):
        yield session


def oauth(sandbox: Sandbox) -> OAuthClientCredentials:
    return OAuthClientCredentials(**sandbox.credentials.client())


async def steps(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def hanging() -> Callable[[Request], Awaitable[FakeResponse]]:
    async def answer(request: Request) -> FakeResponse:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nothing ever comes")

    return answer


declared = ServiceUnavailableError(status=503, code="SYS_DEP_503")


@pytest.mark.parametrize(
    ("error", "always", "if_not_sent"),
    [
        (declared, True, True),
        (ServiceUnavailableError(status=200, code="SYS_DEP_503"), True, True),
        (ServiceUnavailableError(status=502), True, False),
        (ServiceUnavailableError(status=503), True, False),
        (ServiceUnavailableError(status=504), True, False),
        (RateLimitError(status=429), True, True),
        (RateLimitError(status=429, code="RATE_001"), True, True),
        (TransportError(sent="no"), True, True),
        (TransportError(sent="unknown"), True, False),
        (IncompleteDocumentError(), True, False),
        (InterruptedDocumentError(), True, False),
        (OversizedDocumentError(), False, False),
        (ProtocolError(), False, False),
        (ApiError(status=500), True, False),
        (ServiceUnavailableError(status=503, code="UPSTREAM_RESET"), True, False),
        (ApiError(status=408), True, False),
        (ApiError(status=501), False, False),
        (ApiError(status=400, code="VALIDATION_001"), False, False),
        (AuthenticationError(status=401), False, False),
        (PermissionDeniedError(status=403), False, False),
        (OrderStatusError(status=422, code="ORDER_021"), False, False),
        (SessionError(), False, False),
        (PollTimeoutError(), False, False),
        (TimeoutError(), False, False),
        (ConnectionResetError(), False, False),
        (asyncio.CancelledError(), False, False),
        (KeyboardInterrupt(), False, False),
    ],
)
def test_the_retry_rule(error: BaseException, always: bool, if_not_sent: bool) -> None:  # noqa: FBT001 - a table
    assert may_repeat(error, Repeat.ALWAYS) is always
    assert may_repeat(error, Repeat.IF_NOT_SENT) is if_not_sent


@pytest.mark.asyncio
class TestAttempts:
    async def test_every_attempt_signs_anew(self, clock: FakeClock) -> None:
        """The sandbox's own log shows three valid signatures with three timestamps."""
        sandbox = Sandbox(clock=clock)
        sandbox.script(ORDER, [Unavailable(), Unavailable()])
        async with served(sandbox) as session:
            assert (await session.call(document(), body)).startswith(b"%PDF-")
        assert [entry.status for entry in sandbox.log] == [503, 503, 200]
        assert all(entry.verified for entry in sandbox.log)
        assert len({entry.timestamp for entry in sandbox.log}) == 3
        assert len({entry.signature for entry in sandbox.log}) == 3

    @pytest.mark.parametrize("answer", [Unavailable(), JsonUnder200(), Unavailable(status=422), Reset()])
    async def test_a_temporary_refusal_is_known_by_its_code(self, clock: FakeClock, answer: Any) -> None:
        """SYS_DEP_503 counts whatever its HTTP status is, 200 included."""
        sandbox = Sandbox(clock=clock)
        sandbox.script(ORDER, [answer, answer])
        async with served(sandbox) as session:
            assert (await session.call(document(), checked)).startswith(b"%PDF-")
        assert sandbox.calls(Operation.DOCUMENT) == 3

    @pytest.mark.parametrize("order_id", ["INV/2025/0001", "50% off", "ä?#&", "..%2F.."])
    async def test_the_path_is_sent_as_it_is_signed(self, clock: FakeClock, order_id: str) -> None:
        sandbox = Sandbox(clock=clock)
        async with served(sandbox) as session:
            assert (await session.call(document(order_id), body)).startswith(b"%PDF-")
        assert sandbox.log[0].verified

    @pytest.mark.parametrize("rules", [{"prefix": ""}, {"full_path": True}, {"include_query": True}])
    async def test_the_open_points_of_signing_are_settings(self, clock: FakeClock, rules: Any) -> None:
        chosen = signing.SigningRules(**rules)
        sandbox = Sandbox(SandboxSettings(rules=chosen), clock=clock)
        auth = HmacAuth(**sandbox.credentials.partner(), rules=chosen)
        async with served(sandbox, auth=auth) as session:
            await session.call(evolve(document(), query="a=%2F"), body)
            await session.call(document("INV/1"), body)
        assert [entry.verified for entry in sandbox.log] == [True, True]

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (Answer(status=403), PermissionDeniedError),
            (NotEligible(), OrderStatusError),
            (Answer(status=404, body=b"<html>"), ApiError),
            (Answer(status=501), ApiError),
        ],
    )
    async def test_a_final_answer_is_raised_at_once(self, clock: FakeClock, answer: Any, kind: type[ApiError]) -> None:
        sandbox = Sandbox(clock=clock)
        sandbox.script(ORDER, [answer])
        async with served(sandbox) as session:
            with pytest.raises(kind) as caught:
                await session.call(document(), body)
        assert sandbox.calls(Operation.DOCUMENT) == 1
        assert type(caught.value) is kind
        assert len(caught.value.attempts) == 1
        assert clock.slept == []

    @pytest.mark.parametrize("code", [502, 503, 504])
    async def test_a_bare_gateway_error_declares_nothing(self, code: int) -> None:
        """A gateway may have passed the request on: a PDF is asked for again, a submission is not sent again."""
        async with scripted(FakeResponse(status=code), FINE) as session:
            assert await session.call(CALL, body) == b"fine"
        async with scripted(FakeResponse(status=code), FINE) as session:
            with pytest.raises(ServiceUnavailableError):
                await session.call(SUBMISSION, body)
            assert len(sent(session)) == 1

    @pytest.mark.parametrize("refusal", [DOWN, FakeResponse(status=429), TransportError(sent="no")])
    async def test_a_submission_is_sent_again_after_a_declared_refusal_or_if_unsent(self, refusal: Any) -> None:
        async with scripted(refusal, FINE) as session:
            assert await session.call(SUBMISSION, body) == b"fine"

    async def test_a_submission_whose_answer_was_lost_is_not_sent_again(self) -> None:
        async with scripted(TransportError(sent="unknown"), FINE) as session:
            with pytest.raises(TransportError) as caught:
                await session.call(SUBMISSION, body)
            assert len(sent(session)) == 1
        assert caught.value.sent == "unknown"

    @pytest.mark.parametrize("code", [302, 307, 304])
    async def test_a_redirect_is_not_as_documented(self, code: int) -> None:
        answer = FakeResponse(status=code, headers={"Location": "https://elsewhere.test"}, pieces=(b"moved",))
        async with scripted(answer) as session:
            with pytest.raises(ProtocolError) as caught:
                await session.call(CALL, body)
            assert len(sent(session)) == 1
        assert (caught.value.status, caught.value.head) == (code, b"moved")

    async def test_an_error_whose_body_breaks_off_or_never_ends_is_still_that_error(self) -> None:
        broken = FakeResponse(status=403, pieces=(b'{"suc', TransportError("cut")))
        endless = FakeResponse(status=403, pieces=(b"x" * 40_000,) * 1000)
        async with scripted(broken, endless) as session:
            for _ in range(2):
                with pytest.raises(PermissionDeniedError):
                    await session.call(CALL, body)
            assert len(sent(session)) == 2

    async def test_a_broken_body_is_read_anew(self) -> None:
        half = FakeResponse(pieces=(b"fi", TransportError("cut")))
        async with scripted(half, FINE) as session:
            assert await session.call(CALL, body) == b"fine"

    @pytest.mark.parametrize("defect", [TimeoutError("the reader's own"), ZeroDivisionError()])
    @pytest.mark.parametrize("policy", [RetryPolicy(), RetryPolicy(deadline=None)])
    async def test_what_else_the_reader_raises_passes_through(self, defect: Exception, policy: RetryPolicy) -> None:
        async def read(response: Response) -> None:
            raise defect

        async with scripted(FINE, retry=policy) as session:
            with pytest.raises(type(defect)) as caught:
                await session.call(CALL, read)
            assert len(sent(session)) == 1
        assert caught.value is defect

    async def test_a_policy_for_one_call(self) -> None:
        async with scripted(DOWN) as session:
            with pytest.raises(ServiceUnavailableError):
                await session.call(CALL, body, retry=ONCE)
            assert len(sent(session)) == 1

    async def test_what_is_done_before_an_attempt_is_done_before_each_of_its_first_bytes(self) -> None:
        """An intent is on disk before a submission leaves."""
        async with scripted(DOWN, FINE, limits=Limits(concurrency=1)) as session:
            seen: list[tuple[int, int]] = []

            async def before() -> None:
                seen.append((len(sent(session)), session.admission.places.free))

            await session.call(SUBMISSION, body, before=before)
        assert seen == [(0, 0), (1, 0)]

    async def test_an_attempt_whose_preparation_fails_is_not_made(self) -> None:
        async def before() -> None:
            raise OSError("disk full")

        async with scripted(FINE, limits=Limits(concurrency=1)) as session:
            for _ in range(2):
                with pytest.raises(OSError, match="disk full"):
                    await session.call(SUBMISSION, body, before=before)
            assert sent(session) == []

    async def test_up_to_the_default_concurrency_it_is_done_with_the_place_in_hand(self) -> None:
        """So that a crash leaves no more in doubt than there were places."""
        told: list[str] = []

        async def before() -> None:
            told.append("before")

        async with scripted(FINE, limits=Limits(concurrency=32)) as session:
            assert all(session.admission.try_enter() for _ in range(32))
            call = asyncio.create_task(session.call(SUBMISSION, body, before=before))
            await steps(10)
            assert told == []
            session.admission.leave()
            await call
            assert told == ["before"]

    async def test_while_all_of_many_places_are_taken_it_is_done_next_in_line_for_one(self) -> None:
        """Few do so at a time, and none of them holds a place with it."""
        clock = FakeClock(auto=False)
        async with scripted(FINE, clock=clock, limits=Limits(concurrency=40)) as session:
            held = [session.admission.try_enter() for _ in range(40)]
            told: list[str] = []

            async def before() -> None:
                told.append("before")
                await clock.sleep(1)

            calls = [
                asyncio.create_task(session.call(SUBMISSION, body, before=before, leaves=lambda: told.append("leaves")))
                for _ in range(13)
            ]
            await steps(5)
            assert (all(held), told) == (True, ["before"] * 10)
            clock.advance(1)
            await steps(5)
            assert told == ["before"] * 10
            session.admission.leave()
            await steps(5)
            assert told[:11] == ["before"] * 10 + ["leaves"]
            for _ in range(39):
                session.admission.leave()
            while not all(call.done() for call in calls):
                clock.advance(1)
                await steps(5)
            assert (sorted(told), session.admission.places.free, session.admission.preparing.free) == (
                ["before"] * 13 + ["leaves"] * 13,
                40,
                10,
            )

    async def test_a_call_that_is_cancelled_in_line_leaves_its_place_in_it(self) -> None:
        async with scripted(FINE, limits=Limits(concurrency=33)) as session:
            left: list[str] = []

            async def before() -> None:
                left.append("before")

            assert all(session.admission.try_enter() for _ in range(33))
            call = asyncio.create_task(
                session.call(SUBMISSION, body, before=before, leaves=lambda: left.append("leaves"))
            )
            await steps(5)
            call.cancel()
            await asyncio.wait([call])
            session.admission.leave()
            assert (left, sent(session)) == (["before"], [])
            assert (session.admission.places.free, session.admission.preparing.free) == (1, 8)

    async def test_a_request_for_another_host_carries_no_credential(self) -> None:
        async with scripted(FINE) as session:
            link = evolve(CALL, base_url="https://files.test", authorised=False)
            await session.call(link, body)
            (request,) = sent(session)
        assert request.url == "https://files.test/x"
        assert not request.headers


class TestHeaders:
    """What aiohttp is handed, by aioresponses."""

    @pytest.mark.asyncio
    async def test_service_a_gets_the_documented_headers(self, clock: FakeClock) -> None:
        sandbox = Sandbox()
        auth = HmacAuth(**sandbox.credentials.partner())
        async with Session(BASE, auth=auth, clock=clock) as session:
            with Mocked() as mocked:
                mocked.post(BASE + document("INV/1").path, body=b"%PDF-")
                await session.call(document("INV/1"), body)
        (request,) = mocked.sent
        assert "INV%2F1" in request.url
        assert set(request.headers) == {
            "x-signature",
            "x-partner-client-id",
            "x-store-client-id",
            "x-store-token",
            "x-timestamp",
            "accept-encoding",
            "user-agent",
        }
        assert request.headers["x-timestamp"] == str(int(START * 1000))
        assert request.headers["accept-encoding"] == "identity"
        assert not request.follows_redirects
        assert request.body == b""

    @pytest.mark.asyncio
    async def test_the_bytes_that_are_signed_are_those_that_are_sent(self, clock: FakeClock) -> None:
        content = '{"tên":  "Cà phê", "price": 1.10}'.encode()
        sandbox = Sandbox()
        known = sandbox.credentials
        async with Session(BASE, auth=HmacAuth(**known.partner()), clock=clock) as session:
            with Mocked() as mocked:
                mocked.post(f"{BASE}/x")
                await session.call(evolve(CALL, headers={"Content-Type": "application/json"}, body=content), body)
        (request,) = mocked.sent
        assert request.body == content
        assert request.headers["content-type"] == "application/json"
        assert signing.verify(
            known.secret_key,
            method="POST",
            path="/x",
            headers=request.headers.get,
            body=request.body,
            rules=signing.SigningRules(),
        )

    @pytest.mark.asyncio
    async def test_an_attempt_after_a_refusal_has_headers_of_its_own(self, clock: FakeClock) -> None:
        async with Session(BASE, auth=HmacAuth(**Sandbox().credentials.partner()), clock=clock) as session:
            with Mocked() as mocked:
                mocked.post(f"{BASE}/x", status=503, body=ENVELOPE)
                mocked.post(f"{BASE}/x", body=b"fine")
                assert await session.call(CALL, body) == b"fine"
        first, second = (request.headers for request in mocked.sent)
        assert int(second["x-timestamp"]) - int(first["x-timestamp"]) == 250
        assert first["x-signature"] != second["x-signature"]


@pytest.mark.asyncio
class TestBackoff:
    async def test_full_jitter_under_a_doubling_ceiling(self) -> None:
        clock = FakeClock(chances=(0.1, 0.9, 0.5, 1.0))
        async with scripted(DOWN, clock=clock, retry=RetryPolicy(attempts=5, first=1, ceiling=3)) as session:
            with pytest.raises(ServiceUnavailableError):
                await session.call(CALL, body)
        assert clock.slept == pytest.approx([0.1, 1.8, 1.5, 3.0])

    @pytest.mark.parametrize("text", ["60", formatdate(START + 60, usegmt=True)])
    async def test_retry_after_exceeds_the_ceiling(self, clock: FakeClock, text: str) -> None:
        busy = FakeResponse(status=429, headers={"Retry-After": text})
        async with scripted(busy, FINE, clock=clock, retry=RetryPolicy(ceiling=2)) as session:
            assert await session.call(CALL, body) == b"fine"
        assert clock.slept == [60.0]

    async def test_retry_after_is_a_floor(self) -> None:
        clock = FakeClock(chances=(0.9,))
        busy = FakeResponse(status=429, headers={"Retry-After": "1"})
        async with scripted(busy, FINE, clock=clock, retry=RetryPolicy(first=10)) as session:
            await session.call(CALL, body)
        assert clock.slept == [9.0]

    @pytest.mark.parametrize("text", ["300", "86400", formatdate(START + 400, usegmt=True)])
    async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(self, clock: FakeClock, text: str) -> None:
        busy = FakeResponse(status=429, headers={"Retry-After": text})
        async with scripted(busy, clock=clock, retry=RetryPolicy(deadline=300)) as session:
            with pytest.raises(RateLimitError) as caught:
                await session.call(CALL, body)
            assert len(sent(session)) == 1
        assert clock.slept == []
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 299
        assert len(caught.value.attempts) == 1

    async def test_a_sleep_of_the_callers_own(self, clock: FakeClock) -> None:
        waited: list[float] = []

        async def sleep(seconds: float) -> None:
            waited.append(seconds)

        async with scripted(DOWN, FINE, clock=clock) as session:
            await session.call(CALL, body, sleep=sleep)
        assert waited == [0.25]
        assert clock.slept == []

    async def test_attempts_are_counted_with_the_first(self, clock: FakeClock) -> None:
        async with scripted(DOWN, clock=clock, retry=RetryPolicy(attempts=3)) as session:
            with pytest.raises(ServiceUnavailableError):
                await session.call(CALL, body)
            assert len(sent(session)) == 3


@pytest.mark.asyncio
class TestHistory:
    async def test_it_holds_every_attempt_with_what_followed(self, clock: FakeClock) -> None:
        async def late(request: Request) -> FakeResponse:
            clock.advance(2)
            return DOWN

        cut = TransportError("cut", sent="unknown")
        async with scripted(late, cut, DOWN, clock=clock, retry=RetryPolicy(attempts=3, first=1)) as session:
            with pytest.raises(ServiceUnavailableError) as caught:
                await session.call(CALL, body)
        first, second, third = caught.value.attempts
        assert (first.number, first.at, first.elapsed, first.waited) == (1, START, 2.0, 0.5)
        assert (first.status, first.code, first.request_id) == (503, "SYS_DEP_503", "r-1")
        assert first.error == "ServiceUnavailableError: down (SYS_DEP_503, HTTP 503, request r-1)"
        assert (second.number, second.at, second.elapsed, second.waited) == (2, START + 2.5, 0.0, 1.0)
        assert (second.status, second.code, second.error) == (None, None, "TransportError: cut")
        assert (third.number, third.waited) == (3, 0.0)

    async def test_events_come_in_order(self, clock: FakeClock) -> None:
        heard: list[Event] = []
        async with scripted(DOWN, FINE, clock=clock, on_event=heard.append) as session:
            await session.call(CALL, body)
        about = {"operation": "test", "path": "/x"}
        failed = heard[1]
        assert isinstance(failed, AttemptFailed)
        assert isinstance(failed.error, ServiceUnavailableError)
        assert heard == [
            RequestStarted(**about, attempt=1),
            AttemptFailed(**about, attempt=1, error=failed.error),
            RetryScheduled(**about, attempt=1, delay=0.25),
            RequestStarted(**about, attempt=2),
            RequestSucceeded(**about, attempts=2, elapsed=0.25),
        ]

    async def test_a_renewed_credential_counts_as_an_attempt_in_every_event(self, clock: FakeClock) -> None:
        heard: list[Event] = []
        sandbox = Sandbox(clock=clock)
        sandbox.script(status().path, [Answer(status=401), Unavailable(), Answer(body=b"fine")])
        async with served(sandbox, auth=oauth(sandbox), on_event=heard.append) as session:
            await session.call(status(), body)
        ours = [event for event in heard if getattr(event, "operation", "") == "status"]
        assert [(type(event).__name__, getattr(event, "attempt", 0)) for event in ours] == [
            ("RequestStarted", 1),
            ("AttemptFailed", 1),
            ("RequestStarted", 2),
            ("AttemptFailed", 2),
            ("RetryScheduled", 2),
            ("RequestStarted", 3),
            ("RequestSucceeded", 0),
        ]

    @pytest.mark.parametrize("kind", [ZeroDivisionError, asyncio.CancelledError])
    async def test_what_an_observer_raises_is_logged_once_of_each_kind_and_changes_nothing(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
    ) -> None:
        def refuse(event: Event) -> None:
            raise kind

        async with scripted(DOWN, FINE, clock=clock, on_event=refuse, limits=Limits(concurrency=1)) as session:
            for _ in range(2):
                assert await session.call(SUBMISSION, body) == b"fine"
            session.on_event = None
            session.tell(RequestStarted(operation="", path="", attempt=1))
        told = {"RequestStarted", "AttemptFailed", "RetryScheduled", "RequestSucceeded"}
        assert len(caplog.records) == len(told)
        assert all(any(name in record.getMessage() for record in caplog.records) for name in told)


class TestDeadline:
    @pytest.mark.asyncio
    async def test_a_deadline_of_one_second_ends_within_one_and_a_fifth(self) -> None:
        """In real time, against a peer that takes everything and answers nothing."""
        policy = RetryPolicy(deadline=1)
        async with listening(silent) as peer, Session(peer.url, auth=StaticToken("t"), retry=policy) as session:
            begun = time.monotonic()
            with pytest.raises(DeadlineError, match="the deadline of 1 s") as caught:
                await session.call(CALL, body)
            assert 0.9 < time.monotonic() - begun < 1.2
            await asyncio.wait_for(peer.gone(), 2)
            assert in_use(session) == 0
        assert caught.value.sent == "unknown"
        assert len(caught.value.attempts) == 1

    @pytest.mark.asyncio
    async def test_it_bounds_attempts_and_sleeps_together(self) -> None:
        clock = FakeClock(auto=False, chances=(0.5,))
        async with scripted(DOWN, hanging(), clock=clock, retry=RetryPolicy(deadline=10)) as session:
            task = asyncio.create_task(session.call(CALL, body))
            await steps()
            clock.advance(0.25)
            await steps()
            clock.advance(9.7)
            await steps()
            assert not task.done()
            clock.advance(0.05)
            with pytest.raises(DeadlineError) as caught:
                await task
        assert isinstance(caught.value.__cause__, ServiceUnavailableError)
        first, second = caught.value.attempts
        assert (first.waited, second.number) == (0.25, 2)
        assert second.elapsed == pytest.approx(9.75)
        assert second.at == START + 0.25
        assert caught.value.sent == "unknown"

    @pytest.mark.asyncio
    async def test_it_bounds_the_call_and_not_the_queue_before_it(self) -> None:
        clock = FakeClock(auto=False)
        limits, policy = Limits(concurrency=1), RetryPolicy(deadline=10)
        async with scripted(hanging(), clock=clock, limits=limits, retry=policy) as session:
            tasks = [asyncio.create_task(session.call(CALL, body)) for _ in range(2)]
            await steps()
            clock.advance(10)
            await steps()
            assert [task.done() for task in tasks] == [True, False]
            clock.advance(9)
            await steps()
            assert not tasks[1].done()
            clock.advance(1)
            first, second = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(first, DeadlineError)
        assert isinstance(second, DeadlineError)
        assert (first.sent, second.sent) == ("unknown", "unknown")

    @pytest.mark.parametrize("places", [(4, 4), (4, 40), (40, 4)])
    def test_it_counts_from_the_admission_of_a_batchs_item(self, places: tuple[int, int]) -> None:
        """Two hundred are refused once and then taken, a second each time: no wait for a place counts."""
        calls: Counter[bytes] = Counter()

        async def answer(request: Request) -> FakeResponse:
            await asyncio.sleep(1)
            calls[request.body] += 1
            return DOWN if calls[request.body] == 1 else FINE

        async def work(number: int, sleep: Any) -> bytes:
            return await session.call(evolve(SUBMISSION, body=b"%d" % number), body, sleep=sleep)

        async def main() -> list[bytes]:
            async with session:
                outcomes = bounded(
                    range(200), work, concurrency=places[1], sleep=asyncio.sleep, abandoned=lambda _, error: b"lost"
                )
                return [outcome async for outcome in outcomes]

        session = Session(
            BASE,
            auth=StaticToken("t"),
            transport=FakeTransport(answers=[answer]),
            clock=vtime.VirtualClock(),
            limits=Limits(concurrency=places[0]),
            retry=RetryPolicy(attempts=3, first=0.4, deadline=2.6),
        )
        assert Counter(vtime.run(main())) == {b"fine": 200}
        assert set(calls.values()) == {2}

    @pytest.mark.asyncio
    async def test_one_that_falls_into_a_callers_own_sleep(self) -> None:
        """Nothing of the next attempt had left, and the refusal before it was declared."""
        clock = FakeClock(auto=False)

        async def for_ever(seconds: float) -> None:
            await asyncio.get_running_loop().create_future()

        async with scripted(DOWN, clock=clock) as session:
            task = asyncio.create_task(session.call(SUBMISSION, body, sleep=for_ever))
            await steps()
            clock.advance(300)
            with pytest.raises(DeadlineError) as caught:
                await task
        assert caught.value.sent == "no"
        assert caught.value.attempts[1].elapsed == 0.0

    @pytest.mark.asyncio
    async def test_none_is_no_bound(self) -> None:
        clock = FakeClock(auto=False)
        async with scripted(DOWN, FINE, clock=clock, retry=RetryPolicy(deadline=None)) as session:
            task = asyncio.create_task(session.call(CALL, body))
            await steps()
            clock.advance(1e6)
            assert await task == b"fine"

    @pytest.mark.parametrize(("request_", "expected"), [(CALL, "fine"), (SUBMISSION, "unknown")])
    @pytest.mark.asyncio
    async def test_the_attempt_timeout_ends_one_attempt(self, request_: Request, expected: str) -> None:
        clock = FakeClock(auto=False, chances=(0,))
        async with scripted(hanging(), FINE, clock=clock, timeouts=Timeouts(attempt=7)) as session:
            task = asyncio.create_task(session.call(request_, body))
            await steps()
            clock.advance(7)
            await steps()
            clock.advance(0)
            if expected == "fine":
                assert await task == b"fine"
                return
            with pytest.raises(TransportError, match="within the attempt timeout of 7 s") as caught:
                await task
        assert caught.value.sent == expected

    @pytest.mark.asyncio
    async def test_an_attempt_timeout_before_anything_was_sent_says_so(self) -> None:
        clock = FakeClock(auto=False)

        class Unreachable(FakeTransport):
            @asynccontextmanager
            async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
                await asyncio.get_running_loop().create_future()
                yield FINE

        async with scripted(clock=clock, transport=Unreachable(), retry=ONCE) as session:
            task = asyncio.create_task(session.call(CALL, body))
            await steps()
            clock.advance(120)
            with pytest.raises(TransportError) as caught:
                await task
        assert caught.value.sent == "no"


@pytest.mark.asyncio
class TestLimits:
    async def test_the_concurrency_limit_covers_the_body(self) -> None:
        slow = FakeResponse(pieces=(b"x",) * 20)
        async with scripted(slow, limits=Limits(concurrency=3)) as session:
            await asyncio.gather(*(session.call(CALL, body) for _ in range(20)))
            transport = session._transport
        assert isinstance(transport, FakeTransport)
        assert (transport.most_open, transport.open) == (3, 0)

    async def test_an_open_answer_holds_its_place_to_the_end_of_its_block(self) -> None:
        async with scripted(FINE, limits=Limits(concurrency=1)) as session:
            async with session.open(CALL, body) as content:
                assert content == b"fine"
                waiting = asyncio.create_task(session.call(CALL, body))
                await steps()
                assert len(sent(session)) == 1
            assert await waiting == b"fine"

    async def test_a_held_answer_has_a_place_while_it_is_read_on(self) -> None:
        one = Limits(concurrency=1)
        async with scripted(FINE, limits=one) as session, session.hold(CALL, body) as (content, hold):
            assert content == await session.call(CALL, body) == b"fine"
            async with hold.reading():
                waiting = asyncio.create_task(session.call(CALL, body))
                await steps()
                assert len(sent(session)) == 2
            assert await waiting == b"fine"

    async def test_an_open_answer_is_given_back_when_its_block_fails(self) -> None:
        async with scripted(FINE, limits=Limits(concurrency=1)) as session:
            for _ in range(3):
                with pytest.raises(ZeroDivisionError):
                    async with session.open(CALL, body):
                        raise ZeroDivisionError
            transport = session._transport
        assert isinstance(transport, FakeTransport)
        assert transport.open == 0

    async def test_an_answer_that_cannot_be_opened_is_retried_and_raised_before_the_block(self) -> None:
        async with scripted(DOWN, FakeResponse(status=403), limits=Limits(concurrency=1)) as session:
            with pytest.raises(PermissionDeniedError) as caught:
                async with session.open(CALL, body):
                    raise AssertionError("the block must not begin")
            assert len(sent(session)) == 2
        assert len(caught.value.attempts) == 2

    async def test_a_backoff_sleep_holds_neither_place_nor_connection(self) -> None:
        clock = FakeClock(auto=False)
        async with scripted(DOWN, FINE, clock=clock, limits=Limits(concurrency=1)) as session:
            refused = asyncio.create_task(session.call(CALL, body))
            await steps()
            transport = session._transport
            assert isinstance(transport, FakeTransport)
            assert transport.open == 0
            assert await session.call(CALL, body) == b"fine"
            assert not refused.done()
            clock.advance(1)
            assert await refused == b"fine"

    async def test_attempts_begin_evenly_spaced(self, clock: FakeClock) -> None:
        async with scripted(
            DOWN, FINE, clock=clock, limits=Limits(per_second=2), retry=RetryPolicy(first=0)
        ) as session:
            for _ in range(3):
                await session.call(CALL, body)
        assert clock.slept == [0.0, 0.5, 0.5, 0.5]

    async def test_what_queued_for_a_place_does_not_begin_in_a_burst(self) -> None:
        clock, begun = FakeClock(auto=False), list[float]()
        release = asyncio.Event()

        async def answer(request: Request) -> FakeResponse:
            begun.append(clock.monotonic())
            await release.wait()
            return FINE

        limits = Limits(concurrency=2, per_second=1)
        async with scripted(answer, clock=clock, limits=limits) as session:
            tasks = [asyncio.create_task(session.call(CALL, body)) for _ in range(5)]
            for _ in range(10):
                await steps(5)
                clock.advance(1)
            release.set()
            for _ in range(5):
                await steps(20)
                clock.advance(1)
            await asyncio.gather(*tasks)
        assert begun == [0.0, 1.0, 10.0, 11.0, 12.0]

    async def test_a_place_is_given_back_by_who_is_cancelled_while_it_is_paced(self) -> None:
        clock = FakeClock(auto=False)
        async with scripted(FINE, clock=clock, limits=Limits(concurrency=1, per_second=1)) as session:
            await session.call(CALL, body)
            paced = asyncio.create_task(session.call(CALL, body))
            await steps()
            paced.cancel()
            with pytest.raises(asyncio.CancelledError):
                await paced
            clock.advance(5)
            assert await session.call(CALL, body) == b"fine"


@pytest.mark.asyncio
class TestRenewal:
    async def test_fifty_concurrent_calls_ask_for_one_token(self) -> None:
        sandbox = Sandbox()
        sandbox.script(Operation.STATUS, [Answer(body=b"fine")] * 50)
        async with served(sandbox, auth=oauth(sandbox)) as session:
            answers = await asyncio.gather(*(session.call(status(), body) for _ in range(50)))
        assert set(answers) == {b"fine"}
        assert sandbox.calls(Operation.TOKEN) == 1

    async def test_a_revoked_token_is_renewed_once_for_everybody(self) -> None:
        sandbox = Sandbox()
        async with served(sandbox, auth=oauth(sandbox)) as session:
            with pytest.raises(ApiError):
                await session.call(status(), body)
            sandbox.revoke_tokens()
            answers = await asyncio.gather(*(session.call(status(), body) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(answer, ApiError) and answer.status == 404 for answer in answers)
        assert sandbox.calls(Operation.TOKEN) == 2

    async def test_a_401_is_raised_when_several_new_tokens_were_refused(self) -> None:
        sandbox = Sandbox()
        sandbox.script(Operation.STATUS, [Answer(status=401)] * 9)
        async with served(sandbox, auth=oauth(sandbox)) as session:
            with pytest.raises(AuthenticationError) as caught:
                await session.call(status(), body)
        assert sandbox.calls(Operation.STATUS) == 1 + CHECKS
        assert sandbox.calls(Operation.TOKEN) == 1 + CHECKS
        assert [attempt.status for attempt in caught.value.attempts] == [401] * (1 + CHECKS)

    @pytest.mark.parametrize("key", ["partner", "token"])
    async def test_a_credential_without_renewal_is_tried_once_more(self, key: str) -> None:
        sandbox = Sandbox()
        known = sandbox.credentials
        auth: Auth = StaticToken("other") if key == "token" else HmacAuth(**{**known.partner(), "secret_key": "other"})
        async with served(sandbox, auth=auth) as session:
            with pytest.raises(AuthenticationError):
                await session.call(status() if key == "token" else document(), body)
        assert sandbox.counts.total() == 2

    async def test_a_token_is_renewed_before_it_ends(self, clock: FakeClock) -> None:
        sandbox = Sandbox(SandboxSettings(token_lifetime=100), clock=clock)
        sandbox.script(Operation.STATUS, [Answer(body=b"fine")] * 3)
        async with served(sandbox, auth=oauth(sandbox)) as session:
            for elapsed in (0, 69, 2):
                clock.advance(elapsed)
                await session.call(status(), body)
        assert sandbox.calls(Operation.TOKEN) == 2
        assert (Operation.STATUS, 401) not in sandbox.counts

    @pytest.mark.parametrize(
        ("answer", "kind", "calls"),
        [
            (Answer(status=400, body=b'{"error": "invalid_grant"}'), ApiError, 1),
            (Answer(status=401), AuthenticationError, 1),
            (Answer(body=b"<html>"), ProtocolError, 1),
            (Answer(status=503), ServiceUnavailableError, 3),
            (Reset(), TransportError, 3),
        ],
    )
    async def test_a_credential_that_cannot_be_had_ends_the_call_unsent(
        self, clock: FakeClock, answer: Any, kind: type[ApiError], calls: int
    ) -> None:
        """The token call has its own retry; the call that waits for it does not repeat that."""
        sandbox = Sandbox(clock=clock)
        sandbox.script(Operation.TOKEN, [answer] * 20)
        async with served(sandbox, auth=oauth(sandbox), retry=RetryPolicy(attempts=3)) as session:
            with pytest.raises(kind) as caught:
                await session.call(evolve(status(), repeat=Repeat.IF_NOT_SENT), body)
        assert sandbox.calls(Operation.TOKEN) == calls
        assert sandbox.calls(Operation.STATUS) == 0
        assert caught.value.sent == "no"
        assert len(caught.value.attempts) == 1
        token_call = caught.value.__cause__
        assert isinstance(token_call, kind)
        assert len(token_call.attempts) == calls

    async def test_an_unauthorised_request_renews_nothing(self) -> None:
        sandbox = Sandbox()
        async with served(sandbox, auth=oauth(sandbox)) as session:
            with pytest.raises(AuthenticationError):
                await session.call(evolve(status(), authorised=False), body)
        assert sandbox.counts.total() == 1


@pytest.mark.asyncio
class TestCancellation:
    async def test_at_any_step_it_ends_the_call_and_leaves_nothing(self) -> None:
        """A call with a token, a refusal and a retry over a real socket, cancelled after k steps of the loop."""
        finished, k = False, 0
        while not finished:
            finished = await self.cancelled_after(k)
            k += 1
        assert k > 20
        gc.collect()

    async def cancelled_after(self, k: int) -> bool:
        sandbox = Sandbox()
        sandbox.script(status().path, [Unavailable(), Answer(headers={"Content-Length": "4"}, body=b"fine")])
        async with serve(sandbox) as url:
            before = others()
            session = Session(url, auth=oauth(sandbox), retry=RetryPolicy(first=0), limits=Limits(concurrency=2))
            async with session:
                task = asyncio.create_task(session.call(status(), body))
                await steps(k)
                finished = task.done()
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() is not finished
                seen = sandbox.counts.total()
                assert in_use(session) == 0
                assert session.admission.places.free == 2
                await self.settled(sandbox)
                assert sandbox.counts.total() - seen <= 1, "at most what was already on its way arrives"
            while others() != before:  # noqa: ASYNC110 - the server's own tasks end as its connections do
                await asyncio.sleep(0)
        return finished

    async def settled(self, sandbox: Sandbox) -> None:
        await steps(20)
        while sandbox.in_flight:  # noqa: ASYNC110 - the server notices a client that left when it does
            await asyncio.sleep(0)

    async def test_an_open_answer_at_any_step(self) -> None:
        for k in itertools.count():
            slow = FakeResponse(pieces=(b"x",) * 5)
            async with scripted(DOWN, slow, limits=Limits(concurrency=1, per_second=1000)) as session:
                task = asyncio.create_task(self.opened(session))
                await steps(k)
                finished = task.done()
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() is not finished
                transport = session._transport
                assert isinstance(transport, FakeTransport)
                assert (transport.open, session.admission.places.free) == (0, 1)
                assert others() == set()
            if finished:
                break

    async def opened(self, session: Session) -> None:
        async with session.open(CALL, body):
            await steps(3)

    async def test_during_a_backoff_sleep(self) -> None:
        clock = FakeClock(auto=False)
        async with scripted(DOWN, clock=clock) as session:
            task = asyncio.create_task(session.call(CALL, body))
            await steps()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(sent(session)) == 1

    async def test_one_that_comes_with_the_deadline_stays_a_cancellation(self) -> None:
        clock = FakeClock(auto=False)
        async with scripted(hanging(), clock=clock, retry=RetryPolicy(deadline=1)) as session:
            task = asyncio.create_task(session.call(CALL, body))
            await steps()
            clock.advance(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


class Holder:
    """A feature's resource that notes its end."""

    def __init__(self) -> None:
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


class Stubborn(Holder):
    async def close(self) -> None:
        raise OSError("it will not close")


async def _resource(session: Session) -> Holder:
    return session.resource(Holder)


class TestLifecycle:
    @pytest.mark.asyncio
    async def test_a_session_that_is_not_open_says_what_to_do(self) -> None:
        session = Session(BASE, auth=StaticToken("t"), transport=FakeTransport(answers=[FINE]))
        with pytest.raises(SessionError, match="not open yet: enter it with `async with`"):
            await session.call(CALL, body)
        with pytest.raises(SessionError, match="not open yet"):
            async with session.open(CALL, body):
                pass
        async with session:
            await session.call(CALL, body)
        with pytest.raises(SessionError, match="the session is closed"):
            await session.call(CALL, body)
        with pytest.raises(SessionError, match="closed before; make a new one"):
            await session.__aenter__()

    @pytest.mark.asyncio
    async def test_it_is_entered_once(self) -> None:
        async with scripted(FINE) as session:
            with pytest.raises(SessionError, match="open before"):
                await session.__aenter__()

    def test_one_of_another_loop_is_refused(self) -> None:
        async def enter() -> Session:
            return await Session(BASE, auth=StaticToken("t"), transport=FakeTransport(answers=[FINE])).__aenter__()

        session = asyncio.run(enter())
        with pytest.raises(SessionError, match="another event loop"):
            asyncio.run(session.call(CALL, body))

    def test_one_of_another_loop_is_not_closed_there_and_its_own_loop_still_can(self) -> None:
        async def enter() -> Session:
            return await Session(BASE, auth=StaticToken("t"), transport=FakeTransport(answers=[FINE])).__aenter__()

        async def leave(session: Session) -> None:
            async with asyncio.timeout(2):
                await session.__aexit__(None, None, None)

        with asyncio.Runner() as runner:
            session = runner.run(enter())
            session_disk = runner.run(_resource(session))
            for ending in (Session.close, leave):
                with pytest.raises(SessionError, match="another event loop"):
                    asyncio.run(ending(session))
            assert runner.run(session.call(CALL, body)) == b"fine"
            runner.run(session.close())
            assert session_disk.closed == 1
            runner.run(session.close())

    @pytest.mark.asyncio
    async def test_closing_twice_or_unopened_does_nothing(self) -> None:
        async with scripted(FINE) as session:
            holder = session.resource(Holder)
            assert session.resource(Holder) is holder
            await session.close()
        await session.close()
        assert holder.closed == 1
        never = Session(BASE, auth=StaticToken("t"))
        await never.close()
        with pytest.raises(SessionError, match="closed before"):
            await never.__aenter__()

    @pytest.mark.asyncio
    async def test_a_given_transport_is_left_to_its_owner(self) -> None:
        transport = FakeTransport(answers=[FINE])
        async with scripted(transport=transport):
            pass
        assert not transport.closed

    @pytest.mark.asyncio
    async def test_a_resource_that_fails_to_close_does_not_keep_the_connections_open(self) -> None:
        async with listening(answering(OK)) as peer:
            session = await Session(peer.url, auth=StaticToken("t")).__aenter__()
            await session.call(CALL, body)
            session.resource(Stubborn)
            with pytest.raises(OSError, match="it will not close"):
                await session.close()
            await asyncio.wait_for(peer.gone(), 2)

    @pytest.mark.asyncio
    async def test_a_resource_needs_an_open_session(self) -> None:
        with pytest.raises(SessionError):
            Session(BASE, auth=StaticToken("t")).resource(Holder)

    @pytest.mark.asyncio
    async def test_closing_ends_what_is_under_way_with_an_error_of_ours(self) -> None:
        async with listening(silent) as peer:
            session = await Session(peer.url, auth=StaticToken("t")).__aenter__()
            task = asyncio.create_task(session.call(CALL, body))
            while not peer.open:  # noqa: ASYNC110 - until the connection stands
                await asyncio.sleep(0)
            await session.close()
            with pytest.raises(SessionError):
                await asyncio.wait_for(task, 2)

    @pytest.mark.parametrize(
        "wrong",
        [
            "",
            "service.test/api",
            "//service.test",
            "ftp://service.test",
            "https://",
            "https://service.test/api?x=1",
            "https://service.test/#top",
        ],
    )
    def test_a_base_url_must_be_one_to_build_on(self, wrong: str) -> None:
        with pytest.raises(ValueError, match="base_url must"):
            Session(wrong, auth=StaticToken("t"))

    @pytest.mark.parametrize("pair", ["me:hush@", "hush@", ":hush@"])
    def test_a_base_url_holds_no_credential_and_the_error_does_not_show_it(self, pair: str) -> None:
        with pytest.raises(ValueError, match="pass an Auth") as caught:
            Session(f"https://{pair}service.test", auth=StaticToken("t"))
        assert "hush" not in shown(caught.value)

    def test_the_base_url_has_no_slash_at_its_end(self) -> None:
        session = Session(f"{BASE}/", auth=StaticToken("t"))
        assert (session.base_url, session.base_path) == (BASE, "/api/v1")


class TestSecrets:
    def test_a_session_shows_none(self) -> None:
        sandbox = Sandbox()
        for auth in (HmacAuth(**sandbox.credentials.partner()), oauth(sandbox), StaticToken("hush")):
            text = repr(Session(BASE, auth=auth))
            assert text == f"Session('{BASE}', auth={type(auth).__name__}, new)"

    @pytest.mark.parametrize("scheme", ["partner", "client"])
    @pytest.mark.parametrize(
        "answer",
        [Answer(status=401), Answer(status=302), Reset(), Unavailable(), Truncated(), NotPdf(), Reset(after=9)],
    )
    @pytest.mark.asyncio
    async def test_no_failure_shows_one(self, clock: FakeClock, scheme: str, answer: Any) -> None:
        """Neither the error, its causes and history, nor an event or a traceback."""
        heard: list[Event] = []
        sandbox = Sandbox(clock=clock)
        known = sandbox.credentials
        sandbox.script(ORDER, [answer] * 3)
        auth: Auth = oauth(sandbox) if scheme == "client" else HmacAuth(**known.partner())
        request = document() if scheme == "partner" else status(ORDER)
        async with served(sandbox, auth=auth, on_event=heard.append, retry=RetryPolicy(attempts=2)) as session:
            try:
                await session.call(request, checked)
                text = ""
            except (ApiError, ProtocolError, TransportError) as error:
                text = shown(error)
            bearer = auth.headers(request, base_path="", now=START).get("Authorization", "Bearer none such")
        text += repr(heard)
        for secret in (known.secret_key, known.store_token, known.client_secret, bearer.removeprefix("Bearer ")):
            assert secret not in text

    @pytest.mark.asyncio
    async def test_an_answer_that_is_not_http_shows_none(self) -> None:
        async def babble(connection: Connection, peer: Peer) -> None:
            await connection.request()
            await connection.say(b"NONSENSE\r\n\r\n")

        known = Sandbox().credentials
        async with listening(babble) as peer, Session(peer.url, auth=HmacAuth(**known.partner())) as session:
            with pytest.raises(ProtocolError) as caught:
                await session.call(document(), body)
        for secret in (known.secret_key, known.store_token):
            assert secret not in shown(caught.value)

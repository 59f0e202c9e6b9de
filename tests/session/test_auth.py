"""Credentials: what they send, when they are renewed, and that nothing shows them."""

from __future__ import annotations

import asyncio
import gc
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

import pytest
from attrs import define, field
from fakes import START, FakeClock, FakeResponse

from invoicing_async._core.http import Request, Response
from invoicing_async._einvoices.decode import Token
from invoicing_async.auth import Auth, HmacAuth, OAuthClientCredentials, StaticToken
from invoicing_async.errors import ProtocolError, TransportError

SECRET = "hush-hush"
PARTNER: dict[str, Any] = {"partner_client_id": "p", "secret_key": SECRET, "store_client_id": "s", "store_token": "t"}
CLIENT: dict[str, Any] = {"client_id": "c", "client_secret": SECRET, "tenant_connection_code": "TENANT"}
REQUEST = Request(method="POST", path="/x")

Read = Callable[[Response], Awaitable[Token]]


@define
class TokenService:
    """Stands where a session's `call` is: answers with token-1, token-2, … or fails as told."""

    expires_in: Any = 100
    gate: asyncio.Event | None = None
    failure: BaseException | None = None
    requests: list[Request] = field(factory=list)
    cancelled: int = 0

    async def call(self, request: Request, read: Read) -> Token:
        self.requests.append(request)
        number = len(self.requests)
        try:
            await asyncio.sleep(0) if self.gate is None else await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        lifetime = f', "expires_in": {self.expires_in}' if self.expires_in is not None else ""
        return await read(FakeResponse(pieces=(f'{{"access_token": "token-{number}"{lifetime}}}'.encode(),)))


def sent(auth: Auth) -> Mapping[str, str]:
    return auth.headers(REQUEST, base_path="", now=START)


async def started(auth: OAuthClientCredentials, service: TokenService, clock: FakeClock, number: int) -> list[Any]:
    tasks = [asyncio.create_task(auth.prepare(service.call, clock)) for _ in range(number)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def renewals() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize(
    "auth",
    [HmacAuth(**{**PARTNER, "store_token": SECRET}), StaticToken(SECRET), OAuthClientCredentials(**CLIENT)],
)
def test_no_secret_has_a_repr(auth: Auth) -> None:
    assert SECRET not in f"{auth!r} {auth}"


@pytest.mark.asyncio
async def test_a_held_token_has_no_repr(clock: FakeClock) -> None:
    auth, service = OAuthClientCredentials(**CLIENT), TokenService()
    await auth.prepare(service.call, clock)
    assert "token-1" not in f"{auth!r} {auth._held!r}"
    assert "token-1" not in repr(Token(access_token="token-1"))
    assert SECRET not in repr(service.requests)


@pytest.mark.parametrize("name", ["partner_client_id", "store_client_id", "store_token"])
@pytest.mark.parametrize("wrong", ["", "a b", "a\nb", "é", "\x7f", 7])
def test_what_does_not_fit_a_header_is_refused_without_being_shown(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=rf"HmacAuth\.{name} must be text of printable ASCII") as caught:
        HmacAuth(**{**PARTNER, name: wrong})
    assert "é" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["", None, b"bytes"])
def test_an_empty_secret_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"HmacAuth\.secret_key must be text that is not empty"):
        HmacAuth(**{**PARTNER, "secret_key": wrong})
    for name in CLIENT:
        with pytest.raises(ValueError, match=rf"OAuthClientCredentials\.{name} must be text"):
            OAuthClientCredentials(**{**CLIENT, name: wrong})


@pytest.mark.parametrize("wrong", ["", "two words", "line\r\nX: y"])
def test_a_static_token_must_fit_its_header(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"StaticToken\.token must be text of printable ASCII"):
        StaticToken(wrong)


@pytest.mark.asyncio
async def test_hmac_needs_no_preparation_and_has_no_renewal(clock: FakeClock) -> None:
    auth, service = HmacAuth(**PARTNER), TokenService()
    await auth.prepare(service.call, clock)
    assert service.requests == []
    assert not auth.refused(sent(auth))


def test_a_partner_without_a_store_sends_no_store_headers() -> None:
    headers = sent(HmacAuth(partner_client_id="p", secret_key=SECRET))
    assert list(headers) == ["x-partner-client-id", "x-timestamp", "x-signature"]


def test_the_timestamp_is_epoch_milliseconds() -> None:
    assert sent(HmacAuth(**PARTNER))["x-timestamp"] == "1758100350000"


@pytest.mark.asyncio
async def test_a_static_token_is_sent_as_bearer_and_has_no_renewal(clock: FakeClock) -> None:
    auth, service = StaticToken("abc"), TokenService()
    await auth.prepare(service.call, clock)
    assert service.requests == []
    assert sent(auth) == {"Authorization": "Bearer abc"}
    assert not auth.refused(sent(auth))


@pytest.mark.asyncio
async def test_the_token_request_is_as_documented(clock: FakeClock) -> None:
    """Form-encoded, basic credentials, and itself without the session's authorisation (README B.4)."""
    auth = OAuthClientCredentials(
        client_id="a:b", client_secret="p ä", tenant_connection_code="T/1", scope="x y", path="/token"
    )
    service = TokenService()
    await auth.prepare(service.call, clock)
    request = service.requests[0]
    form = {"grant_type": ["client_credentials"], "tenant_connection_code": ["T/1"], "scope": ["x y"]}
    assert (request.method, request.path, request.authorised) == ("POST", "/token", False)
    assert parse_qs(request.body.decode()) == form
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert b64decode(request.headers["Authorization"].removeprefix("Basic ")) == b"a%3Ab:p+%C3%A4"


@pytest.mark.asyncio
async def test_without_a_scope_none_is_asked_for(clock: FakeClock) -> None:
    service = TokenService()
    await OAuthClientCredentials(**CLIENT).prepare(service.call, clock)
    assert b"scope" not in service.requests[0].body


def test_before_any_token_nothing_is_sent() -> None:
    assert sent(OAuthClientCredentials(**CLIENT)) == {}


@pytest.mark.asyncio
async def test_one_token_serves_many_calls(clock: FakeClock) -> None:
    auth, service = OAuthClientCredentials(**CLIENT), TokenService()
    for _ in range(5):
        await auth.prepare(service.call, clock)
    assert len(service.requests) == 1
    assert sent(auth) == {"Authorization": "Bearer token-1"}


@pytest.mark.asyncio
async def test_fifty_waiters_ask_for_one_token(clock: FakeClock) -> None:
    auth, service = OAuthClientCredentials(**CLIENT), TokenService()
    await asyncio.gather(*(auth.prepare(service.call, clock) for _ in range(50)))
    assert len(service.requests) == 1
    assert renewals() == set()


@pytest.mark.parametrize(
    ("expires_in", "fresh_for"),
    [(100, 70.0), (40, 20.0), (None, 270.0), ('"100"', 70.0)],
    ids=["30 s early", "at most half its life early", "the set lifetime when none is told", "digits in text"],
)
@pytest.mark.asyncio
async def test_a_token_is_renewed_early(clock: FakeClock, expires_in: Any, fresh_for: float) -> None:
    auth, service = OAuthClientCredentials(**CLIENT), TokenService(expires_in=expires_in)
    await auth.prepare(service.call, clock)
    clock.advance(fresh_for - 0.5)
    await auth.prepare(service.call, clock)
    assert len(service.requests) == 1
    clock.advance(1)
    await auth.prepare(service.call, clock)
    assert len(service.requests) == 2
    assert sent(auth) == {"Authorization": "Bearer token-2"}


@pytest.mark.asyncio
async def test_a_token_without_any_life_still_serves_those_who_waited(clock: FakeClock) -> None:
    auth, service = OAuthClientCredentials(**CLIENT), TokenService(expires_in=0)
    await asyncio.gather(*(auth.prepare(service.call, clock) for _ in range(5)))
    assert len(service.requests) == 1


@pytest.mark.asyncio
async def test_a_refused_token_is_dropped_unless_a_newer_one_is_held(clock: FakeClock) -> None:
    auth, service = OAuthClientCredentials(**CLIENT), TokenService()
    await auth.prepare(service.call, clock)
    old = sent(auth)
    assert auth.refused(old)
    await auth.prepare(service.call, clock)
    assert auth.refused(old)
    await auth.prepare(service.call, clock)
    assert len(service.requests) == 2
    assert sent(auth) == {"Authorization": "Bearer token-2"}


@pytest.mark.asyncio
async def test_every_waiter_of_a_failed_renewal_gets_an_error_of_its_own(clock: FakeClock) -> None:
    """A call writes its history into the error, so one error must not be shared."""
    failure = TransportError("down", sent="unknown")
    auth, service = OAuthClientCredentials(**CLIENT), TokenService(failure=failure)
    caught = await asyncio.gather(*(auth.prepare(service.call, clock) for _ in range(3)), return_exceptions=True)
    assert len(service.requests) == 1
    assert len({id(error) for error in caught}) == 3
    assert all(isinstance(error, TransportError) and error.__cause__ is failure for error in caught)


@pytest.mark.asyncio
async def test_after_a_failed_renewal_the_next_caller_asks_again(clock: FakeClock) -> None:
    auth, service = OAuthClientCredentials(**CLIENT), TokenService(failure=TransportError("down"))
    with pytest.raises(TransportError):
        await auth.prepare(service.call, clock)
    service.failure = None
    await auth.prepare(service.call, clock)
    assert sent(auth) == {"Authorization": "Bearer token-2"}


@pytest.mark.asyncio
async def test_a_defect_in_the_renewal_reaches_the_waiter_as_it_is(clock: FakeClock) -> None:
    auth, service = OAuthClientCredentials(**CLIENT), TokenService(failure=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await auth.prepare(service.call, clock)


@pytest.mark.asyncio
async def test_a_renewal_that_others_cancel_cancels_its_waiters(clock: FakeClock) -> None:
    auth, service = OAuthClientCredentials(**CLIENT), TokenService(gate=asyncio.Event())
    tasks = await started(auth, service, clock, 2)
    for task in renewals() - set(tasks):
        task.cancel()
    assert all(
        isinstance(outcome, asyncio.CancelledError) for outcome in await asyncio.gather(*tasks, return_exceptions=True)
    )


@pytest.mark.asyncio
async def test_a_token_answer_that_is_none_is_an_error_without_its_body(clock: FakeClock) -> None:
    async def call(request: Request, read: Read) -> Token:
        return await read(FakeResponse(pieces=(b'{"acess_token": "hush-hush"}',)))

    with pytest.raises(ProtocolError) as caught:
        await OAuthClientCredentials(**CLIENT).prepare(call, clock)
    assert caught.value.head == b""


@pytest.mark.asyncio
async def test_a_cancelled_waiter_does_not_end_the_renewal_for_the_others(clock: FakeClock) -> None:
    auth, service = OAuthClientCredentials(**CLIENT), TokenService(gate=asyncio.Event())
    first, second, third = await started(auth, service, clock, 3)
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert second.cancelled()
    assert service.gate is not None
    service.gate.set()
    await third
    assert service.cancelled == 0
    assert sent(auth) == {"Authorization": "Bearer token-1"}


@pytest.mark.asyncio
async def test_the_last_waiter_cancelled_cancels_the_renewal(clock: FakeClock) -> None:
    auth, service = OAuthClientCredentials(**CLIENT), TokenService(gate=asyncio.Event())
    tasks = await started(auth, service, clock, 3)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert service.cancelled == 1
    assert renewals() == set()
    service.gate = None
    await auth.prepare(service.call, clock)
    assert sent(auth) == {"Authorization": "Bearer token-2"}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.asyncio
async def test_a_renewal_that_fails_as_its_last_waiter_leaves_warns_nobody(
    clock: FakeClock,
    before: bool,  # noqa: FBT001 - of the two orders of events
) -> None:
    """Its error has no reader, and Python must not print_error of that."""
    gate, complaints = asyncio.Event(), list[Any]()

    async def call(request: Request, read: Read) -> Token:
        with suppress(asyncio.CancelledError):
            await gate.wait()
        raise TransportError("down")

    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    auth = OAuthClientCredentials(**CLIENT)
    task = asyncio.create_task(auth.prepare(call, clock))
    for _ in range(3):
        await asyncio.sleep(0)
    if before:
        gate.set()
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert renewals() == set()
    del task  # its traceback holds the renewal
    gc.collect()
    assert complaints == []

"""Why a call is tried again: the whole space of failures, and what a session says of real ones."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest
from fakes import FakeClock, FakeResponse
from session_calls import CALL, DOWN, FINE, body, scripted

from invoicing_async import errors
from invoicing_async.errors import InvoicingError, TransportError
from invoicing_async.events import Event, Reason, RetryScheduled
from invoicing_async.session._reason import Check, reason_of


class ConnectionTimeoutError(Exception):
    """As a transport names its own."""


def kinds(root: type[InvoicingError] = InvoicingError) -> list[type[InvoicingError]]:
    """Every public error of the package."""
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, root)]


def made(kind: type[InvoicingError], cause: BaseException | None = None) -> InvoicingError:
    needed: dict[str, Any] = {"status": 500} if issubclass(kind, errors.ApiError) else {}
    if kind is errors.ServiceDownError:
        needed = {"since": 0.0, "next_probe": 1.0}
    error = kind(**needed)
    error.__cause__ = cause
    return error


CAUSES = (None, TimeoutError(), ConnectionTimeoutError(), ConnectionResetError(), errors.ApiError(status=503))


def expected(kind: type[InvoicingError], cause: BaseException | None) -> Reason:
    match kind.__name__:
        case "RateLimitError":
            return "throttled"
        case "ServiceUnavailableError" | "ServiceDownError":
            return "service_unavailable"
        case "AuthenticationError":
            return "credential"
        case "ApiError" | "PermissionDeniedError" | "OrderStatusError":
            return "status"
        case "IncompleteDocumentError" | "OversizedDocumentError" | "InterruptedDocumentError":
            return "incomplete"
        case "ProtocolError":
            return "unexpected"
        case _:
            return "timeout" if isinstance(cause, (TimeoutError, ConnectionTimeoutError)) else "connection"


@pytest.mark.parametrize("kind", kinds())
def test_every_failure_has_one_reason_and_what_is_checked_or_stale_goes_first(kind: type[InvoicingError]) -> None:
    """Every class of error, with each kind of cause, with and without a check of the credential or a stale attempt."""
    for cause, check, at_once in product(CAUSES, (None, *get_args(Check)), (False, True)):
        reason = reason_of(made(kind, cause), check=check, at_once=at_once)
        assert reason == (check or ("stale" if at_once else expected(kind, cause)))
        assert reason in get_args(Reason)


def test_no_reason_is_one_that_no_failure_has() -> None:
    found = {
        reason_of(made(kind, cause), check=check, at_once=at_once)
        for kind, cause, check, at_once in product(kinds(), CAUSES, (None, *get_args(Check)), (False, True))
    }
    assert found == {*get_args(Reason)}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "reason", "status"),
    [
        (DOWN, "service_unavailable", 503),
        (FakeResponse(status=500), "status", 500),
        (FakeResponse(status=429), "throttled", 429),
        (FakeResponse(status=401), "credential", 401),
        (TransportError("refused", sent="no"), "connection", None),
    ],
)
async def test_a_retry_says_its_reason_and_status(answer: Any, reason: str, status: int | None) -> None:
    heard: list[Event] = []
    async with scripted(answer, FINE, clock=FakeClock(), on_event=heard.append) as session:
        assert await session.call(CALL, body) == b"fine"
    [retry] = [event for event in heard if isinstance(event, RetryScheduled)]
    assert (retry.reason, retry.status) == (reason, status)

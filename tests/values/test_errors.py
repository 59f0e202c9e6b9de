"""Errors say whose fault it is, survive pickling and copying whole, and bound what they keep."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from invoicing_async import errors
from invoicing_async._core.batch import stopped_by
from invoicing_async._values.text import MESSAGE_LIMIT
from invoicing_async.errors import (
    CODES,
    STATUSES,
    ApiError,
    Attempt,
    AuthenticationError,
    BatchStoppedError,
    DeadlineError,
    DraftError,
    ExportError,
    Fault,
    IncompleteDocumentError,
    InterruptedDocumentError,
    InvoicingError,
    OrderStatusError,
    OversizedDocumentError,
    PermissionDeniedError,
    PollTimeoutError,
    ProtocolError,
    RateLimitError,
    ResolutionTooEarlyError,
    ServiceDownError,
    ServiceUnavailableError,
    SessionError,
    SubmissionInDoubtError,
    TransportError,
)
from invoicing_async.models import InvoiceRequest

API: dict[str, Any] = {
    "status": 503,
    "code": "SYS_DEP_503",
    "request_id": "r-1",
    "hint": "wait",
    "context": {"orderId": "o-1", "allowedSubstatuses": ["confirmed"]},
    "retry_after": 2.5,
}
API_KINDS = (
    ApiError,
    AuthenticationError,
    OrderStatusError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
)
EVERY: tuple[InvoicingError, ...] = (
    InvoicingError("said"),
    SessionError("said"),
    TransportError("said", sent="no"),
    DeadlineError("said", sent="unknown"),
    *(kind("said", **API) for kind in API_KINDS),
    ProtocolError("said", head=b"<html>", status=200),
    IncompleteDocumentError("said", head=b"%PDF", status=200),
    OversizedDocumentError("said", head=b"%PDF", status=200),
    InterruptedDocumentError("said", head=b"%PDF", status=200),
    PollTimeoutError("said", request_id="r-1", last=InvoiceRequest(request_id="r-1", status="NEW"), polls=3),
    SubmissionInDoubtError("said", key="k", body_sha256="00", sent_at=1.5),
    ExportError("said", invoice_id="i-1"),
    ResolutionTooEarlyError("said", remaining=2.5),
    ServiceDownError("said", since=1.7e9, next_probe=2.5),
    BatchStoppedError("said", count=5),
    DraftError((Fault("lines[0].price", "is required"),), key="k"),
)
ATTEMPT = Attempt(number=1, at=1.0, elapsed=2.0, error="ApiError: said", status=503, code="C", request_id="r", waited=3)


def of(error: InvoicingError) -> str:
    return type(error).__name__


def test_every_public_error_is_in_the_table_above() -> None:
    public = {kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type)}
    assert {type(error) for error in EVERY} == {kind for kind in public if issubclass(kind, InvoicingError)}


@pytest.mark.parametrize("error", EVERY, ids=of)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_pickling_and_copying_keep_every_attribute(
    error: InvoicingError, again: Callable[[InvoicingError], InvoicingError]
) -> None:
    error = copy.copy(error)
    error.attempts = (ATTEMPT,)
    error.add_note("noted")
    twin = again(error)
    assert type(twin) is type(error)
    assert (twin.args, twin.__dict__) == (error.args, error.__dict__)
    assert (str(twin), twin.message, twin.hint, twin.sent) == (str(error), error.message, error.hint, error.sent)


@pytest.mark.parametrize("error", EVERY, ids=of)
def test_every_class_says_what_to_do_and_keeps_its_message(error: InvoicingError) -> None:
    assert error.hint
    assert error.message in str(error)
    assert error.attempts == ()
    assert error.__class__.__doc__


@pytest.mark.parametrize("kind", [SessionError, DraftError])
def test_the_callers_own_faults_were_provably_not_sent(kind: type[InvoicingError]) -> None:
    assert kind().sent == "no"


def test_an_outcome_nobody_proved_is_unknown() -> None:
    assert InvoicingError().sent == "unknown"
    assert TransportError().sent == "unknown"


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(SessionError, RuntimeError)
    assert issubclass(DraftError, ValueError)
    assert issubclass(InterruptedDocumentError, TransportError)


def test_an_error_without_a_message_has_an_empty_one() -> None:
    bare = InvoicingError.__new__(InvoicingError)
    assert bare.message == ""
    assert InvoicingError().message == ""


def test_the_text_of_an_answer_holds_code_status_and_request() -> None:
    assert str(ApiError("no", **API)) == "no (SYS_DEP_503, HTTP 503, request r-1)"
    assert str(AuthenticationError(status=401)) == "AuthenticationError (HTTP 401)"


def test_the_services_hint_goes_before_the_classs_own() -> None:
    assert ApiError(status=400, hint="do that").hint == "do that"
    assert ApiError(status=400).hint == ApiError.hint


def test_only_an_answer_with_a_code_is_declared() -> None:
    assert ServiceUnavailableError(status=503, code="SYS_DEP_503").declared
    assert not ServiceUnavailableError(status=503).declared


def test_the_context_is_a_read_only_copy() -> None:
    given = {"a": 1}
    error = ApiError(status=400, context=given)
    given["a"] = 2
    assert error.context == {"a": 1}
    with pytest.raises(TypeError):
        error.context["a"] = 3  # type: ignore[index]  # the point of the test


@pytest.mark.parametrize(
    ("context", "listed"),
    [
        ({"allowedSubstatuses": ["confirmed", "delivered"]}, ("confirmed", "delivered")),
        ({"allowedSubstatuses": ("confirmed", 7)}, ("confirmed", "7")),
        ({"allowedSubstatuses": "confirmed"}, ()),
        ({}, ()),
    ],
)
def test_allowed_substatuses_are_those_the_service_lists(context: dict[str, Any], listed: tuple[str, ...]) -> None:
    assert OrderStatusError(status=422, code="ORDER_021", context=context).allowed_substatuses == listed


def test_the_documented_codes_and_statuses_have_their_classes() -> None:
    assert dict(CODES) == {"SYS_DEP_503": ServiceUnavailableError, "ORDER_021": OrderStatusError}
    assert STATUSES[401] is AuthenticationError
    assert STATUSES[403] is PermissionDeniedError
    assert STATUSES[429] is RateLimitError
    assert {STATUSES[status] for status in (502, 503, 504)} == {ServiceUnavailableError}


@pytest.mark.parametrize("kind", [ProtocolError, IncompleteDocumentError, InterruptedDocumentError])
def test_only_the_head_of_an_unexpected_body_is_kept(kind: type[ProtocolError]) -> None:
    assert kind("said", head=b"x" * 10_000).head == b"x" * 200


def test_a_draft_error_lists_the_first_ten_faults_and_keeps_all() -> None:
    faults = tuple(Fault(f"lines[{number}].price", "is required") for number in range(12))
    error = DraftError(faults, key="k")
    assert str(error).startswith("lines[0].price: is required; lines[1].price")
    assert str(error).endswith("lines[9].price: is required; and 2 more")
    assert error.faults == faults
    assert "more" not in str(DraftError(faults[:10]))


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb\x00", "\x1b[31ma", "x" * 80_175, "a" + "\n" * 80_175, "\ud83d"])
@pytest.mark.parametrize(
    "make",
    [
        InvoicingError,
        TransportError,
        ProtocolError,
        lambda text: ApiError(text, status=500),
        lambda text: DraftError((Fault("lines[0].name", text),)),
        lambda text: stopped_by(ValueError(text), 5),
    ],
)
def test_an_errors_text_is_one_bounded_line_whatever_went_into_it(
    make: Callable[[str], InvoicingError], text: str
) -> None:
    error = make(text)
    for said in (error.message, str(error), Attempt(number=1, at=0, elapsed=0, error=f"{error}{text}").error):
        assert said.isprintable()
        assert len(said) <= MESSAGE_LIMIT + 100
    assert len(repr(error)) <= MESSAGE_LIMIT + 100


def test_a_text_that_is_one_line_already_is_kept_as_it_is() -> None:
    """Blanks may be those of a name."""
    assert InvoicingError("invoice 'a  b' ").message == "invoice 'a  b' "


@pytest.mark.parametrize(
    ("status", "ahead", "said"),
    [
        (401, -600.4, "m (HTTP 401); this machine's clock is 10 min behind the service's"),
        (401, 3_600.0, "m (HTTP 401); this machine's clock is 60 min ahead of the service's"),
        (403, 45.2, "m (HTTP 403); this machine's clock is 45 s ahead of the service's"),
        (400, -31.0, "m (HTTP 400); this machine's clock is 31 s behind the service's"),
        (401, 29.0, "m (HTTP 401)"),
        (401, -3.0, "m (HTTP 401)"),
        (401, None, "m (HTTP 401)"),
        (503, -600.0, "m (HTTP 503)"),
        (409, -600.0, "m (HTTP 409)"),
    ],
)
def test_a_refusal_of_what_was_signed_says_how_far_the_clocks_are_apart(
    status: int, ahead: float | None, said: str
) -> None:
    assert str(ApiError("m", status=status, clock_ahead=ahead)) == said

"""Error answers: each is the error of its code or its status, and says when to come again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wire_drafts import JSON, QUICK, body

from invoicing_async._core.envelope import error_from, retry_after
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    OrderStatusError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
)

NOW = 1_758_112_944.0


def headers(values: Mapping[str, str] | None = None) -> Callable[[str], str | None]:
    lowered = {name.lower(): value for name, value in (values or {}).items()}
    return lambda name: lowered.get(name.lower())


ORDER_021 = b"""{
"success": false,
"error": {
"code": "ORDER_021",
"message": "Order status does not allow this operation",
"details": {
"timestamp": "2025-09-17T11:37:17.275Z",
"hint": "Order is not eligible for invoice generation. Order substatus must be confirmed, waiting_pickup, waiting_drop_off, in_transit, delivered, or order_completed.",
"context": {
"orderId": "bce41d32-94f6-4250-8d69-caa3e3d10b79",
"allowedSubstatuses": [
"confirmed",
"waiting_pickup",
"waiting_drop_off",
"in_transit",
"delivered",
"order_completed"
]
}
}
},
"requestId": "ae06ba6f-e8b1-4cb5-b6c9-5f02cf6f4712"
}"""  # noqa: E501 - as the service's document prints it
SYS_DEP_503 = b"""{
"success": false,
"error": {
"code": "SYS_DEP_503",
"message": "Service temporarily unavailable",
"details": {
"timestamp": "2025-09-17T12:22:54.052Z",
"hint": "Service temporarily unavailable",
"context": {
"orderId": "d0e11047-acaf-468f-a325-3d2f5964f5ff",
"operation": "invoice_generation",
"errorCode": "ECONNREFUSED",
"category": "connection_refused",
"details": "External dependency refused the connection. The external service may be starting up, experiencing issues, or is temporarily unavailable."
}
}
},
"requestId": "a5646038-751d-4555-8a76-d96b7a97a0d1"
}"""  # noqa: E501 - as the service's document prints it


def said(status: int, text: bytes, values: Mapping[str, str] | None = None) -> ApiError:
    error = error_from(status, headers(values), text, now=NOW)
    assert error is not None
    return error


@pytest.mark.parametrize("status", [200, 409, 422, 500, 503, 401])
def test_order_021_is_that_error_whatever_the_status(status: int) -> None:
    error = said(status, ORDER_021)
    assert type(error) is OrderStatusError
    assert (error.code, error.status, error.retry_after, error.declared) == ("ORDER_021", status, None, True)
    assert error.message == "Order status does not allow this operation"
    assert error.hint.startswith("Order is not eligible for invoice generation.")
    assert error.request_id == "ae06ba6f-e8b1-4cb5-b6c9-5f02cf6f4712"
    assert error.context["orderId"] == "bce41d32-94f6-4250-8d69-caa3e3d10b79"
    assert error.allowed_substatuses[0] == "confirmed"
    assert len(error.allowed_substatuses) == 6


@pytest.mark.parametrize("status", [200, 302, 400, 500, 503])
def test_sys_dep_503_is_that_error_whatever_the_status(status: int) -> None:
    error = said(status, SYS_DEP_503, {"Retry-After": "7"})
    assert type(error) is ServiceUnavailableError
    assert (error.code, error.status, error.retry_after) == ("SYS_DEP_503", status, 7.0)
    assert error.request_id == "a5646038-751d-4555-8a76-d96b7a97a0d1"
    assert error.context["errorCode"] == "ECONNREFUSED"
    assert error.hint == "Service temporarily unavailable"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ApiError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, ApiError),
        (429, RateLimitError),
        (500, ApiError),
        (502, ServiceUnavailableError),
        (503, ServiceUnavailableError),
        (504, ServiceUnavailableError),
    ],
)
@pytest.mark.parametrize(
    "text", [b"", b"<html>", b"{}", b"[]", b'{"success": true}', b'{"success": 0}', b'{"error": {}}', b"\xff"]
)
def test_an_error_status_without_an_envelope_is_told_by_the_status(
    status: int, kind: type[ApiError], text: bytes
) -> None:
    error = said(status, text)
    assert type(error) is kind
    assert (error.status, error.code, error.declared) == (status, None, False)
    assert error.message == f"the service answered {status} without an error envelope"


def test_a_reason_in_a_foreign_error_body_is_passed_on() -> None:
    assert said(400, body({"message": "no such template"})).message == "no such template"
    assert said(400, body({"message": " ", "error": "bad"})).message == "bad"
    assert said(400, body({"error": "invalid_client", "error_description": "why"})).message == "why"


def test_an_unknown_code_is_told_by_the_status() -> None:
    envelope = body({"success": False, "error": {"code": "ORDER_999", "message": "x"}})
    assert type(said(200, envelope)) is ApiError
    assert type(said(429, envelope)) is RateLimitError
    assert said(429, envelope).code == "ORDER_999"


@pytest.mark.parametrize(
    "envelope",
    [
        {"success": False},
        {"success": False, "error": None},
        {"success": False, "error": [1]},
        {"success": False, "error": {"code": [5], "message": {}, "details": {}}, "requestId": {}},
        {"success": False, "error": {"code": " ", "details": {"hint": [], "context": [1]}}, "requestId": None},
    ],
)
def test_missing_and_mistyped_parts_of_an_envelope_are_left_out(envelope: object) -> None:
    error = said(200, body(envelope))
    assert (type(error), error.message, error.code, error.request_id) == (ApiError, "", None, None)
    assert error.context == {}
    assert error.hint == ApiError.hint


def test_the_message_of_an_envelope_may_stand_outside_its_error() -> None:
    assert said(200, body({"success": False, "message": "outside"})).message == "outside"
    assert said(200, body({"success": False, "error": "plain"})).message == "plain"


def test_a_foreign_message_becomes_one_bounded_printable_line() -> None:
    error = said(200, body({"success": False, "error": {"message": "\x1b[31mbad\r\nline\ud800" + "x" * 9999}}))
    assert error.message.startswith("bad line\ufffdx")
    assert error.message.isprintable()
    assert len(error.message) <= 300


@pytest.mark.parametrize("status", [200, 204, 301, 302, 304, 399])
@pytest.mark.parametrize(
    "text", [b"", b"%PDF-1.7\xff", b'{"success": true}', b'{"success": null}', b'[{"success": false}]']
)
def test_an_answer_that_declares_no_error_is_none(status: int, text: bytes) -> None:
    assert error_from(status, headers(), text, now=NOW) is None


@QUICK
@given(
    status=st.integers(100, 599),
    text=st.binary(max_size=80)
    | JSON.map(lambda value: body({"success": False, "error": value, "requestId": value}))
    | st.tuples(JSON, JSON).map(
        lambda pair: body({"success": False, "error": {"code": pair[0], "message": pair[1], "details": pair[0]}})
    ),
    wait=st.none() | st.text(max_size=30) | st.from_regex(r"\A[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ [\d:]+ [-+\d]+\Z"),
    date=st.none() | st.text(max_size=30),
)
@example(status=200, text=b"[" * 99_999, wait=None, date=None)
@example(status=500, text=b'{"success": false, "error": {"code": 1e99999999999999999999}}', wait="1", date="x")
@example(status=500, text=b'{"success": false, "x": ' + b"9" * 5000 + b"}", wait="9" * 999, date=None)
def test_error_from_never_raises(status: int, text: bytes, wait: str | None, date: str | None) -> None:
    values = {name: value for name, value in (("Retry-After", wait), ("Date", date)) if value is not None}
    error = error_from(status, headers(values), text, now=NOW)
    if status >= 400:
        assert error is not None
    if error is not None:
        assert str(error)
        assert error.retry_after is None or 0 <= error.retry_after < float("inf")


AT = "Sun, 06 Nov 1994 08:49:37 GMT"
AT_EPOCH = 784_111_777.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("+5", 5.0),
        (AT, 60.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 60.0),
        ("Sun Nov  6 08:49:37 1994", 60.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 60.0),
        ("Sun, 06 Nov 1994 09:49:37 +0100", 60.0),
        ("Sun, 06 Nov 1990 08:49:37 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("9" * 400, None),
        ("\u0665", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 +9999", None),
        ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after(headers({"Retry-After": value}), now=AT_EPOCH - 60) == seconds


def test_a_date_counts_from_the_answers_own_clock_if_it_has_one() -> None:
    date = formatdate(AT_EPOCH - 10, usegmt=True)
    assert retry_after(headers({"Retry-After": AT, "Date": date}), now=NOW) == 10.0
    assert retry_after(headers({"Retry-After": AT, "Date": "junk"}), now=AT_EPOCH - 3) == 3.0


def test_no_retry_after_is_none() -> None:
    assert retry_after(headers(), now=NOW) is None


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", 99.5),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 99.5),
        ("Wed Oct 21 07:28:00 2015", 99.5),
        ("Wed, 21 Oct 2015 09:28:00 +0200", 99.5),
        ("soon", None),
        ("", None),
        (None, None),
        ("Wed, 21 Oct 99999999 07:28:00 GMT", None),
    ],
)
def test_an_error_answer_says_how_far_this_machines_clock_is_ahead(date: str | None, ahead: float | None) -> None:
    """A Date is cut to whole seconds, so the middle of its second is meant."""
    now = 1_445_412_480.0 + 100
    error = error_from(401, lambda name: date if name == "Date" else None, b"", now=now)
    assert error is not None
    assert error.clock_ahead == ahead

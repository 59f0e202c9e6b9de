"""Answers of the service: each is read for what it says, or is a protocol error, whatever bytes it has."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_drafts import ID, JSON, QUICK, body

from invoicing_async._einvoices.decode import Export, Token, decode_export, decode_request, decode_token
from invoicing_async.errors import (
    ProtocolError,
)
from invoicing_async.models import (
    AuthorityStatus,
    RequestStatus,
)

OTHER = "d0e11047-acaf-468f-a325-3d2f5964f5ff"


@pytest.mark.parametrize("status", list(RequestStatus))
def test_the_answer_of_a_submission_is_its_id_and_status(status: RequestStatus) -> None:
    request = decode_request(body({"request_id": ID, "status": status.value, "n": 1.50}))
    assert (request.request_id, request.status, request.data) == (ID, status, None)
    assert isinstance(request.status, RequestStatus)
    assert request.terminal is (status != "NEW")
    assert request.raw["n"] == Decimal("1.5")
    assert isinstance(request.raw["n"], Decimal)


def test_an_unknown_status_stays_text_and_is_not_terminal() -> None:
    request = decode_request(body({"request_id": ID, "status": "QUEUED"}))
    assert type(request.status) is str
    assert not request.terminal


@pytest.mark.parametrize("asked", [None, ID])
def test_an_answer_may_be_wrapped_in_a_success_envelope(asked: str | None) -> None:
    answer = {"success": True, "message": "ok", "data": {"request_id": ID, "status": "NEW"}}
    request = decode_request(body(answer), request_id=asked)
    assert (request.request_id, request.status) == (ID, RequestStatus.NEW)
    assert request.raw["message"] == "ok"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"status": "NEW"},
        {"request_id": ID, "status": ""},
        {"request_id": ID, "status": 200},
        {"request_id": None, "status": "NEW"},
        {"request_id": "5", "status": "NEW"},
        {"request_id": 5, "status": "NEW"},
        {"success": False, "request_id": ID, "status": "NEW"},
        {"success": True, "data": [ID, "NEW"]},
        {"success": True, "data": {"status": "NEW"}},
        {"success": "false", "data": {"request_id": ID, "status": "NEW"}},
        {"data": {"request_id": "5", "status": "NEW"}},
    ],
)
def test_a_submission_without_a_sound_id_and_status_is_no_answer(answer: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_request(body(answer), status=202)
    assert caught.value.head == body(answer)
    assert caught.value.status == 202


@pytest.mark.parametrize(
    "text", [b"", b"null", b"[]", b'"x"', b"<html>", b"\xff\xfe", b"{", b"Infinity", b"[" * 99_999]
)
def test_what_is_no_object_is_no_answer(text: bytes) -> None:
    for decode in (decode_request, decode_export):
        with pytest.raises(ProtocolError, match="not a JSON object") as caught:
            decode(text)
        assert caught.value.head == text[:200]
    with pytest.raises(ProtocolError):
        decode_request(text, request_id=ID)


DATA = {
    "id": OTHER,
    "authority_status": "ACCEPTED",
    "code": "LOOKUP",
    "created_date": "2025-09-17",
    "date_of_issue": "17/09/2025",
    "serial_number": "1C25TAA",
    "invoice_amount": {"total": 1.10},
}


@pytest.mark.parametrize("outer", [{}, {"status": "SUCCESS"}, {"status": None, "success": True}, {"request_id": ID}])
def test_a_status_answer_with_data_is_success(outer: dict[str, Any]) -> None:
    request = decode_request(body({**outer, "data": DATA}), request_id=ID)
    assert request.request_id == ID
    assert request.status is RequestStatus.SUCCESS
    data = request.data
    assert data is not None
    assert (data.id, data.code, data.serial_number) == (OTHER, "LOOKUP", "1C25TAA")
    assert (data.created_date, data.date_of_issue) == ("2025-09-17", "17/09/2025")
    assert data.authority_status is AuthorityStatus.ACCEPTED
    assert data.raw["invoice_amount"]["total"] == Decimal("1.10")


@pytest.mark.parametrize("answer", [{}, {"data": None}, {"status": "NEW"}, {"request_id": ID.upper(), "message": "x"}])
def test_a_status_answer_without_data_is_new(answer: object) -> None:
    request = decode_request(body(answer), request_id=ID)
    assert (request.request_id, request.status, request.data) == (ID, RequestStatus.NEW, None)


def test_an_unknown_authority_status_stays_text_and_a_mistyped_field_counts_as_absent() -> None:
    odd = {"id": OTHER, "authority_status": "QUEUED", "code": 5, "created_date": 1758112944}
    data = decode_request(body({"data": odd}), request_id=ID).data
    assert data is not None
    assert (type(data.authority_status), data.authority_status) == (str, "QUEUED")
    assert (data.code, data.created_date, data.raw["code"]) == (None, None, 5)
    assert decode_request(body({"data": {"id": OTHER}}), request_id=ID).data is not None


@pytest.mark.parametrize("data", [{}, {"id": None}, {"id": 5}, {"id": "x"}, [], "x", 0, False])
def test_a_success_whose_invoice_has_no_id_is_no_status_answer(data: object) -> None:
    for answer in ({"data": data}, {"status": "SUCCESS", "data": data}):
        with pytest.raises(ProtocolError, match="data must be an object whose id is a UUID"):
            decode_request(body(answer), request_id=ID)


@pytest.mark.parametrize("data", [{}, {"reason": "x"}, "x"])
def test_odd_data_does_not_hide_a_submission_or_a_failure(data: object) -> None:
    """A request id that came back must not be lost over a field that nobody asked for."""
    created = decode_request(body({"request_id": ID, "status": "SUCCESS", "data": data}))
    failed = decode_request(body({"status": "FAILED", "data": data}), request_id=ID)
    assert (created.request_id, created.data, failed.status, failed.data) == (ID, None, RequestStatus.FAILED, None)
    assert failed.raw["data"] == data


@pytest.mark.parametrize("answer", [{"request_id": OTHER}, {"request_id": 5}, {"request_id": ""}, {"status": 5}])
def test_a_status_answer_with_odd_outer_fields_is_refused(answer: object) -> None:
    with pytest.raises(ProtocolError):
        decode_request(body(answer), request_id=ID)


@QUICK
@given(text=st.binary(max_size=60) | JSON.map(body), asked=st.sampled_from([None, ID]))
def test_whatever_an_answer_holds_it_decodes_or_is_a_protocol_error(text: bytes, asked: str | None) -> None:
    decoders: list[Callable[[], object]] = [
        lambda: decode_request(text, request_id=asked),
        lambda: decode_export(text),
        lambda: decode_token(text),
    ]
    for decode in decoders:
        with suppress(ProtocolError):
            decode()


@pytest.mark.parametrize(
    ("answer", "export"),
    [
        ({"status": "NEW", "download_url": None}, Export(download_url=None, status="NEW")),
        ({"status": "BUILDING"}, Export(download_url=None, status="BUILDING")),
        ({"status": "FAIL", "download_url": 5}, Export(download_url=None, status="FAIL")),
        ({"status": "PAUSED", "download_url": "soon"}, Export(download_url="soon", status="PAUSED")),
        (
            {"status": "DONE", "download_url": "https://cdn.example.vn:8443/a%20b.pdf?x=1"},
            Export(download_url="https://cdn.example.vn:8443/a%20b.pdf?x=1", status="DONE"),
        ),
        (
            {"status": "DONE", "download_url": "http://127.0.0.1/a"},
            Export(download_url="http://127.0.0.1/a", status="DONE"),
        ),
    ],
)
def test_an_export_has_a_status_and_when_done_a_link(answer: object, export: Export) -> None:
    assert decode_export(body(answer)) == export


@pytest.mark.parametrize("url", [None, 5, "", " \n", ["https://h/a"]])
def test_a_done_export_may_lack_its_link_for_a_moment(url: object) -> None:
    """What a link must be is told where it is followed."""
    assert decode_export(body({"status": "DONE", "download_url": url})) == Export(download_url=None, status="DONE")


@pytest.mark.parametrize("status", [None, 5, "", ["DONE"]])
def test_an_export_needs_a_status(status: object) -> None:
    with pytest.raises(ProtocolError, match="status must be text"):
        decode_export(body({"status": status, "download_url": "https://h/a"}))


@pytest.mark.parametrize(
    ("given_lifetime", "lifetime"),
    [(3600, 3600.0), (0.5, 0.5), (0, 0.0), ("3600", 3600.0), (-1, None), ("-1", None), ("soon", None), (None, None),
     (True, None), ([1], None), ("9" * 400, None), ("", None)],
)  # fmt: skip
def test_a_token_has_a_lifetime_if_one_can_be_read(given_lifetime: object, lifetime: float | None) -> None:
    token = decode_token(body({"access_token": "s3cret", "token_type": "x", "expires_in": given_lifetime}))
    assert token == Token(access_token="s3cret", expires_in=lifetime)
    assert "s3cret" not in repr(token)


@pytest.mark.parametrize(
    "text",
    [
        b'{"access_token": "s3cret with spaces"}',
        b'{"access_token": "s3cret\\n"}',
        b'{"access_token": "s3cret\\u0111"}',
        b'{"access_token": ["s3cret"]}',
        b'{"access_token": null, "refresh": "s3cret"}',
        b'{"token": "s3cret"}',
        b'{"access_token": ""}',
        b'["s3cret"]',
        b"s3cret",
        b"{}",
    ],
)
def test_a_token_answer_without_a_token_shows_nothing_of_itself(text: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_token(text)
    error = caught.value
    assert (error.head, error.__cause__, error.__context__) == (b"", None, None)
    assert "s3cret" not in f"{error!r} {error.__dict__}"

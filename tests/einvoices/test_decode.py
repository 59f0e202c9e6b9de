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

from invoicing_async._core.envelope import WORD_LENGTH
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
        assert caught.value.status == (200 if decode is decode_request else None)
    with pytest.raises(ProtocolError):
        decode_request(text, request_id=ID)


def refused(answer: bytes | object, *, asked: str | None = None, status: int = 200) -> ProtocolError:
    """The error that an answer becomes."""
    text = answer if isinstance(answer, bytes) else body(answer)
    with pytest.raises(ProtocolError) as caught:
        decode_request(text, request_id=asked, status=status)
    return caught.value


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([], "the answer is not a JSON object"),
        (b"{", "the answer is not a JSON object"),
        ([{"request_id": ID}, {"request_id": OTHER}], "the answer is not a JSON object"),
        (
            f'{{"request_id":"{ID}","status":"NEW","status":"FAILED"}}'.encode(),
            "the answer is not a JSON object (it says 'status' twice, and not the same)",
        ),
        ({"success": False, "request_id": ID, "status": "NEW"}, "the answer is an error envelope"),
        ({"success": "0", "request_id": ID, "status": "NEW"}, "the answer is an error envelope"),
        ({"success": 0, "request_id": ID, "status": "NEW"}, "the answer is an error envelope"),
        ({"request_id": ID, "error": {"code": "E1"}}, "the answer gives no status and speaks of an error"),
        ({"status": "NEW"}, "the answer's request_id must be a UUID (8-4-4-4-12 hex digits)"),
        ({"request_id": ID, "status": ["NEW"]}, "the answer's status must be text that is not empty"),
        ({"request_id": ID, "status": 200}, "the answer's status must be text that is not empty"),
    ],
)
def test_an_answer_that_is_none_is_refused_in_so_many_words(answer: bytes | object, message: str) -> None:
    """With its HTTP status, whatever it was."""
    error = refused(answer, status=202)
    assert error.message.partition(": ")[0] == message
    assert error.status == 202


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"request_id": OTHER}, "the answer is that of another request_id"),
        ({"request_id": 5}, "the answer's request_id must be a UUID (8-4-4-4-12 hex digits)"),
        ({"data": {}}, "the answer's data must be an object whose id is a UUID (8-4-4-4-12 hex digits)"),
    ],
)
def test_a_status_answer_that_is_none_is_refused_in_so_many_words(answer: object, message: str) -> None:
    assert refused(answer, asked=ID).message == message


def test_the_ids_of_an_answer_that_cannot_be_used_are_kept() -> None:
    """From where they stand in it, and not from what else has their form."""
    assert refused([{"request_id": ID}, {"request_id": OTHER}]).request_ids == (ID, OTHER)
    assert refused({"status": "NEW", "requestId": ID}).request_ids == (ID,)
    # As it was read: a field that is escaped in the text.
    escaped = f'[1, {{"request\\u005fid": "R-7", "x": "{ID}"}}]'.encode()
    assert refused(escaped).request_ids == ("R-7", ID)
    assert refused(escaped[4:-1]).request_ids == ("R-7", ID)


def test_an_answer_alone_in_a_list_is_quoted_as_any_other() -> None:
    words = [{"message": "queue is full"}]
    assert refused(words).message.endswith("hex digits): queue is full")
    with pytest.raises(ProtocolError, match=r"not empty: queue is full\Z"):
        decode_export(body(words))


@pytest.mark.parametrize("asked", [None, ID])
def test_an_answer_may_stand_alone_in_a_list(asked: str | None) -> None:
    request = decode_request(body([{"request_id": ID, "status": "SUCCESS", "data": DATA}]), request_id=asked)
    assert (request.request_id, request.status) == (ID, RequestStatus.SUCCESS)


@pytest.mark.parametrize("said", [" success ", "Success", "SUCCESS"])
def test_a_status_is_read_in_any_case(said: str) -> None:
    assert decode_request(body({"request_id": ID, "status": said})).status is RequestStatus.SUCCESS


def test_a_long_unknown_status_is_cut_to_a_word() -> None:
    """One that nobody knows is shown, so it is bounded."""
    assert len(decode_request(body({"request_id": ID, "status": "Q" * 5000})).status) <= WORD_LENGTH


@pytest.mark.parametrize(
    ("outer", "inner", "status"),
    [
        ({}, {"request_id": ID, "status": "FAILED"}, RequestStatus.FAILED),
        ({"status": "NEW"}, {"request_id": ID, "status": "FAILED", "id": OTHER}, RequestStatus.NEW),
        ({"request_id": ID}, {"request_id": ID, "status": "FAILED", "id": OTHER}, RequestStatus.SUCCESS),
        ({}, {"request_id": ID, "id": OTHER}, RequestStatus.SUCCESS),
    ],
)
def test_a_status_answer_is_that_within_only_if_the_status_is_there_too(
    outer: dict[str, Any], inner: dict[str, Any], status: RequestStatus
) -> None:
    """Otherwise `data` is the invoice, which may name its request as well."""
    request = decode_request(body({**outer, "data": inner}), request_id=ID)
    assert request.status is status
    assert (request.data is None) is (status is RequestStatus.FAILED)


def test_a_submission_that_names_its_request_is_not_looked_for_within() -> None:
    """The outer request id counts, and so does the outer status."""
    answer = {"request_id": ID, "status": "NEW", "data": {"request_id": OTHER, "status": "FAILED"}}
    request = decode_request(body(answer))
    assert (request.request_id, request.status) == (ID, RequestStatus.NEW)


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ({"request_id": ID, "status": "NEW", "error": "none so far"}, None),
        ({"request_id": ID, "status": "NEW", "errors": ["a warning"]}, None),
        ({"error": {"code": "E1"}}, ID),
    ],
)
def test_an_answer_that_gives_a_status_or_was_asked_for_may_speak_of_an_error(
    answer: object, asked: str | None
) -> None:
    """Only a submission without a status is put in doubt by that."""
    assert decode_request(body(answer), request_id=asked).status is RequestStatus.NEW


@pytest.mark.parametrize("asked", [None, ID])
@pytest.mark.parametrize(
    "answer",
    [
        {"request_id": ID, "status": "failed", "message": "no buyer", "code": "E7"},
        {"success": True, "message": "no buyer", "data": {"request_id": ID, "status": "FAILED", "code": "E7"}},
        {"success": True, "message": "no buyer", "code": "E7", "data": {"request_id": ID, "status": "FAILED"}},
    ],
)
def test_a_failure_says_why_from_either_place(answer: dict[str, Any], asked: str | None) -> None:
    failed = decode_request(body(answer), request_id=asked)
    assert (failed.status, failed.reason, failed.code) == (RequestStatus.FAILED, "no buyer", "E7")


@pytest.mark.parametrize("status", ["NEW", "SUCCESS", "QUEUED"])
def test_what_has_not_failed_has_neither_reason_nor_code(status: str) -> None:
    request = decode_request(body({"request_id": ID, "status": status, "message": "ok", "code": "OK"}))
    assert (request.reason, request.code) == (None, None)


def test_a_failure_without_a_word_has_no_reason() -> None:
    request = decode_request(body({"request_id": ID, "status": "FAILED"}))
    assert (request.reason, request.code) == (None, None)


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
    assert data.raw["invoice_amount"] == {"total": Decimal("1.10")}


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


@pytest.mark.parametrize("answer", [{"status": "SUCCESS"}, {"status": "SUCCESS", "data": None}])
def test_a_success_without_any_data_is_a_success(answer: object) -> None:
    """The invoice is there; only what is known of it is missing."""
    request = decode_request(body(answer), request_id=ID)
    assert (request.request_id, request.status, request.data) == (ID, RequestStatus.SUCCESS, None)


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
    with pytest.raises(ProtocolError, match=r"\Athe export's status must be text that is not empty\Z"):
        decode_export(body({"status": status, "download_url": "https://h/a"}))


def test_an_export_without_a_status_keeps_the_ids_that_it_names() -> None:
    """As they were read, be their field escaped in the text."""
    with pytest.raises(ProtocolError) as caught:
        decode_export(f'{{"request\\u005fid": "R-7", "x": "{ID}"}}'.encode())
    assert (caught.value.request_ids, caught.value.status) == (("R-7", ID), None)


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
    assert error.message == "the token answer must be a JSON object with an access_token that fits a header"
    assert (error.head, error.__cause__, error.__context__) == (b"", None, None)
    assert "s3cret" not in f"{error!r} {error.__dict__}"

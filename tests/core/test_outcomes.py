"""What every answer to a submission means, over every status, code and shape of body, against a second writing."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import Connection, Peer, listening
from places import README

from invoicing_async import AsyncInvoices, InvoiceDraft, InvoiceLine, RetryPolicy, Session, StaticToken
from invoicing_async._core.envelope import error_from
from invoicing_async._core.http import Repeat
from invoicing_async._core.outcomes import OUTCOMES, Fate, Shape, fate, may_repeat, outcome, table
from invoicing_async._einvoices.decode import decode_request
from invoicing_async.errors import (
    ApiError,
    IncompleteDocumentError,
    InterruptedDocumentError,
    InvoicingError,
    OversizedDocumentError,
    ProtocolError,
    SessionError,
    SubmissionInDoubtError,
    TransportError,
)

ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
CLASSES = [pytest.param(range(first, first + 100), id=f"{first // 100}xx") for first in range(200, 600, 100)]
"""The statuses, a hundred to a test: a test of its own for each took longer to keep account of than to run."""
CODES = (None, "SYS_DEP_503", "ORDER_021", "SYS_TIMEOUT_504", "BAD_GATEWAY", "sys_dep_503")
REFUSED = {400, 403, 404, 405, 410, 411, 413, 414, 415, 422, 431}
DRAFT = InvoiceDraft(
    key="INV-1",
    invoice_template_id="01234567-89ab-cdef-0123-456789abcdef",
    lines=[InvoiceLine(name="Trà", unit="kg", price="12.50", quantity="2")],
)


def expected(status: int, code: str | None, shape: Shape) -> Fate | None:
    """The issue's rule, written down a second time."""
    if shape is Shape.SUCCESS and 200 <= status < 300:
        return None
    if code == "SYS_DEP_503" or status in {401, 429}:
        return Fate.REFUSED_FOR_NOW
    if status in {403, 404, 405, 410} and shape is Shape.BARE:
        return Fate.REFUSED_FOR_NOW
    return Fate.REJECTED if status in REFUSED and shape in {Shape.OTHER, Shape.BARE} else Fate.IN_DOUBT


@pytest.mark.parametrize("statuses", CLASSES)
def test_every_status_code_and_shape_means_what_the_rule_says(statuses: range) -> None:
    """The table agrees with the rule everywhere, and sends again only after SYS_DEP_503 and 429."""
    for status, code, shape in product(statuses, CODES, Shape):
        row = outcome(status, code, shape)
        assert row.fate is expected(status, code, shape), (status, code, shape)
        again = row.fate is not None and (code == "SYS_DEP_503" or status == 429)
        assert row.again is again, (status, code, shape)


def test_every_row_is_reached_and_says_why_and_what_to_do() -> None:
    """No row stands in the shadow of another, and each has its words."""
    met = {id(outcome(status, code, shape)) for status in range(100, 700) for code in CODES for shape in Shape}
    assert met == {id(row) for row in OUTCOMES}
    assert all(row.answer and row.reason and row.human for row in OUTCOMES)


def test_the_readme_shows_the_table() -> None:
    """The README's table is the one that decides."""
    assert "## What every answer means\n" in README.read_text()
    assert table() in README.read_text()


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


def enveloped(code: str | None, **more: Any) -> bytes:
    error = {"message": "timed out"} | ({} if code is None else {"code": code})
    return dumped({"success": False, "error": error, "requestId": ID, **more})


def none(_: str) -> str | None:
    return None


SILENT: dict[str, bytes] = {
    "empty": b"",
    "page": b"<html><title>502 Bad Gateway</title></html>",
    "words": b"upstream request timeout",
    "message": dumped({"message": "tax_code is invalid"}),
    "list": dumped({"statusCode": 400, "message": ["tax_code is wrong"], "error": "Bad Request"}),
    "code without an envelope": dumped({"error": {"code": "SYS_DEP_503", "message": "down"}}),
    "flat code in an envelope": dumped({"success": False, "code": "SYS_DEP_503"}),
    "another code": enveloped("SYS_TIMEOUT_504"),
    "no code": enveloped(None),
    "broken": b'{"success": fal',
    "bytes": b"\xff\xfe\x00\xd8",
    "half an emoji": b'{"message": "bad \\ud83d"}',
}
BARE = {"empty", "page", "words", "broken", "bytes"}
KNOWN: dict[str, bytes] = {
    "request_id": dumped({"error": "no", "request_id": ID}),
    "request_id and words": dumped({"message": "already submitted", "request_id": ID}),
    "wrapped": dumped({"success": False, "data": {"request_id": ID.replace("-", "")}}),
    "broken off": b'{"request_id": "%s", "mess' % ID.encode(),
    "broken off in its words": b'{"message": "Invoice already exists", "at',
    "exists": dumped({"message": "Invoice already exists"}),
    "code": enveloped("DUPLICATE_INVOICE"),
    "Vietnamese": dumped({"message": "Hóa đơn đã tồn tại"}),
}


def verdict(status: int, body: bytes) -> tuple[Fate | None, bool]:
    """What becomes of a submission that was answered so: its fate, and whether it is sent again."""
    error: InvoicingError | None = error_from(status, none, body, now=0)
    if error is None and 200 <= status < 300:
        try:
            decode_request(body, status=status)
        except ProtocolError as refused:
            error = refused
        else:
            return None, False
    error = error or ProtocolError("a redirect", status=status)
    return fate(error), may_repeat(error, Repeat.IF_NOT_SENT)


@pytest.mark.parametrize("statuses", CLASSES)
def test_every_body_under_every_status_means_what_the_rule_says(statuses: range) -> None:
    """Only the status refuses; a body that knows the invoice makes it a doubt, and one code alone a repetition."""
    for status, (name, body) in product(statuses, SILENT.items()):
        meaning = expected(status, None, Shape.BARE if name in BARE else Shape.OTHER)
        assert verdict(status, body) == (meaning, status == 429), (status, name)
    for status, (name, body) in product(statuses, KNOWN.items()):
        if status not in {401, 429}:
            assert verdict(status, body) == (Fate.IN_DOUBT, False), (status, name)
    for status in statuses:
        assert verdict(status, enveloped("SYS_DEP_503")) == (Fate.REFUSED_FOR_NOW, True), status


@given(status=st.integers(200, 599), body=st.binary(max_size=80) | st.text(max_size=40).map(dumped))
def test_no_bytes_at_all_make_a_repetition_or_a_refusal_of_another_status(status: int, body: bytes) -> None:
    """Whatever came: it never raises, and refuses only by status."""
    meaning, again = verdict(status, body)
    assert not again or status == 429
    assert meaning is not Fate.REJECTED or status in REFUSED


SUCCESSES: dict[str, bytes] = {
    "documented": dumped({"request_id": ID, "status": "NEW"}),
    "upper case": dumped({"request_id": ID.upper(), "status": "NEW"}),
    "32 hex digits": dumped({"request_id": ID.replace("-", ""), "status": "NEW"}),
    "blanks": dumped({"request_id": f" {ID}\n", "status": " NEW "}),
    "lower-case status": dumped({"request_id": ID, "status": "new"}),
    "no status": dumped({"request_id": ID}),
    "null status": dumped({"request_id": ID, "status": None}),
    "wrapped": dumped({"success": True, "data": {"request_id": ID, "status": "NEW"}}),
    "wrapped, no success": dumped({"code": 200, "data": {"request_id": ID, "status": "NEW"}}),
    "wrapped with a status of its own": dumped({"status": 200, "data": {"request_id": ID, "status": "NEW"}}),
    "alone in a list": dumped([{"request_id": ID, "status": "NEW"}]),
    "byte order mark": b"\xef\xbb\xbf" + dumped({"request_id": ID, "status": "NEW"}),
    "UTF-16": json.dumps({"request_id": ID, "status": "NEW"}).encode("utf-16"),
    "white space": b"\r\n\t " + dumped({"request_id": ID, "status": "NEW"}) + b"\n\0",
    "Latin-1": b'{"request_id":"%s","status":"NEW","message":"\xe9"}' % ID.encode(),
    "NaN": b'{"request_id":"%s","status":"NEW","amount":NaN}' % ID.encode(),
    "half an emoji": b'{"request_id":"%s","status":"NEW","message":"\\ud83d"}' % ID.encode(),
    "said twice alike": b'{"request_id":"%s","status":"NEW","status":"NEW"}' % ID.encode(),
}


@pytest.mark.parametrize("status", [200, 201, 202, 203, 207])
@pytest.mark.parametrize("body", SUCCESSES.values(), ids=SUCCESSES)
def test_a_success_in_any_spelling_is_a_success(body: bytes, status: int) -> None:
    """The counterweight: what names a request id and contradicts nothing is not put in doubt."""
    assert verdict(status, body) == (None, False)
    request = decode_request(body, status=status)
    assert (request.request_id, request.status) == (ID, "NEW")


UNUSABLE: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "no UUID": (dumped({"request_id": "REQ-2026-000123", "status": "NEW"}), ("REQ-2026-000123",)),
    "a number": (dumped({"request_id": 123, "status": "NEW"}), ("123",)),
    "another name": (dumped({"requestId": ID, "status": "NEW"}), (ID,)),
    "a number for a status": (dumped({"request_id": ID, "status": 0}), (ID,)),
    "two in a list": (dumped([{"request_id": ID}, {"request_id": "B-2"}]), (ID, "B-2")),
    "contradiction": (b'{"request_id":"%s","status":"NEW","status":"FAILED"}' % ID.encode(), (ID,)),
    "not a success": (dumped({"success": False, "request_id": ID, "requestId": "11111111-" + ID[9:]}), (ID,)),
    "broken off": (b'{"request_id":"%s","sta' % ID.encode(), (ID,)),
    "a page": (f'<a href="/requests/{ID}">'.encode(), (ID,)),
    "a template": (dumped({"invoice_template_id": ID}), ()),
    "nothing": (b"", ()),
}


def submitting(url: str) -> Session:
    return Session(url, auth=StaticToken("t"), retry=RetryPolicy(attempts=3, first=0.0))


def replying(status: int, body: bytes, extra: int = 0) -> Callable[[Connection, Peer], Any]:
    """Answer each submission so; with `extra` the announced length is that much longer than what comes."""

    async def play(connection: Connection, peer: Peer) -> None:
        peer.requests.append(await connection.request())
        await connection.say(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body) + extra, body))

    return play


@pytest.mark.asyncio
@pytest.mark.parametrize(("body", "ids"), UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("status", [200, 409, 503])
async def test_a_doubt_keeps_what_the_answer_said(status: int, body: bytes, ids: tuple[str, ...]) -> None:
    """Over a socket: one submission, and the status, the ids and the head of the answer are there to settle it by."""
    async with listening(replying(status, body)) as peer, submitting(peer.url) as session:
        with pytest.raises(SubmissionInDoubtError) as caught:
            await AsyncInvoices(session).submit(DRAFT)
    doubt = caught.value
    assert (doubt.status, doubt.request_ids, doubt.answer) == (status, ids, body[:200])
    assert len(peer.requests) == 1
    assert all(number in doubt.message for number in ids)


@pytest.mark.asyncio
async def test_an_answer_that_breaks_off_keeps_what_came() -> None:
    """The id in the first half of a success is not lost with the second."""
    body = dumped({"request_id": ID, "status": "NEW"})
    async with listening(replying(200, body, extra=50)) as peer, submitting(peer.url) as session:
        with pytest.raises(SubmissionInDoubtError) as caught:
            await AsyncInvoices(session).submit(DRAFT)
    assert (caught.value.status, caught.value.request_ids, caught.value.answer) == (200, (ID,), body)
    assert isinstance(caught.value.__cause__, TransportError)


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [504, 502, 503, 500, 200])
@pytest.mark.parametrize("code", ["SYS_TIMEOUT_504", "UPSTREAM_RESET", None])
async def test_a_gateways_envelope_is_sent_once_and_in_doubt(status: int, code: str | None) -> None:
    """Any code but SYS_DEP_503 leaves it open whether the service committed."""
    async with listening(replying(status, enveloped(code))) as peer, submitting(peer.url) as session:
        with pytest.raises(SubmissionInDoubtError) as caught:
            await AsyncInvoices(session).submit(DRAFT)
    assert (len(peer.requests), caught.value.code, caught.value.request_ids) == (1, code, ())


@pytest.mark.parametrize("statuses", CLASSES)
def test_what_may_always_be_repeated_is_after_what_another_time_may_mend(statuses: range) -> None:
    """Gateways' and services' bad moments are tried again; a refusal, and ORDER_021 under any status, is final."""
    well = {408, 421, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529, 530} & set(statuses)

    def repeated(code: str | None = None) -> set[int]:
        return {status for status in statuses if may_repeat(ApiError(status=status, code=code), Repeat.ALWAYS)}

    assert repeated() == well
    assert repeated("ANY") == well
    assert repeated("SYS_DEP_503") == set(statuses)
    assert repeated("ORDER_021") == {429} & set(statuses)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (TransportError("refused", sent="no"), Fate.NOT_SENT),
        (SessionError("closed"), Fate.NOT_SENT),
        (TransportError("silence", sent="unknown"), Fate.IN_DOUBT),
        (ProtocolError("nonsense"), Fate.IN_DOUBT),
    ],
    ids=str,
)
def test_only_what_provably_never_left_was_not_sent(error: InvoicingError, meaning: Fate) -> None:
    """A failure before the first byte made no invoice; silence after it may have."""
    assert fate(error) is meaning


@pytest.mark.parametrize(
    ("error", "harmless", "harmful"),
    [
        (TransportError("refused", sent="no"), True, True),
        (TransportError("silence", sent="unknown"), True, False),
        (IncompleteDocumentError("half a document"), True, False),
        (InterruptedDocumentError("cut in the middle"), True, False),
        (OversizedDocumentError("beyond max_bytes"), False, False),
        (ProtocolError("nonsense"), False, False),
        (SubmissionInDoubtError("may exist"), False, False),
        (ValueError("of a caller's own"), False, False),
    ],
    ids=str,
)
def test_what_failed_without_an_answer_is_repeated_where_that_does_no_harm(
    error: BaseException, *, harmless: bool, harmful: bool
) -> None:
    """A submission goes again only if its first byte never left; a document beyond `max_bytes` never."""
    assert may_repeat(error, Repeat.ALWAYS) is harmless
    assert may_repeat(error, Repeat.IF_NOT_SENT) is harmful

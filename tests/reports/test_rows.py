"""Outcomes and items as rows: every outcome has its word, and its row type a column for all it says."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from invoicing_async import reports as rows
from invoicing_async.documents import DownloadOutcome
from invoicing_async.drafts import example_draft, load_drafts
from invoicing_async.errors import DraftError, Fault, OrderStatusError, SubmissionInDoubtError, TransportError
from invoicing_async.models import (
    Deferred,
    Duplicate,
    Failed,
    InDoubt,
    Invalid,
    InvoiceData,
    InvoiceRequest,
    NotSent,
    NotStarted,
    Rejected,
    RequestStatus,
    Saved,
    SavedDocument,
    Skipped,
    Submitted,
    Unsettled,
)
from invoicing_async.runs import Item

ID = "00000000-0000-4000-8000-000000000001"
WORDS = "MST 0101 không tồn tại"
DOCUMENT = SavedDocument(order_id="o", path=Path("f/o.pdf"), size=9, sha256="ab", attempts=2, request_id="r")
REFUSED = OrderStatusError("later", status=422, code="ORDER_021", request_id="r-1")
DRAFT = example_draft()
DONE = InvoiceRequest(request_id="q", status=RequestStatus.SUCCESS, data=InvoiceData(id="i", code="c"))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Saved("o", DOCUMENT), {"outcome": "saved", "path": "f/o.pdf", "size": 9, "attempts": 2}),
        (Skipped("o", DOCUMENT), {"outcome": "skipped", "sha256": "ab"}),
        (Deferred("o", REFUSED), {"outcome": "deferred", "code": "ORDER_021", "request_id": "r-1"}),
        (Failed("o", OSError("disk")), {"outcome": "failed", "error": "disk"}),
        (Duplicate("o"), {"outcome": "duplicate"}),
        (NotStarted("o", KeyboardInterrupt()), {"outcome": "not_started", "error": "interrupted"}),
    ],
)
def test_a_download_is_one_flat_row(outcome: Any, expected: dict[str, Any]) -> None:
    """Every outcome has its word, and its kind has a column for all it says."""
    row = rows.download_row(outcome)
    assert row["order_id"] == "o"
    assert expected.items() <= row.items()
    assert row.keys() <= set(rows.DOWNLOADS.columns)
    assert row["outcome"] in rows.DOWNLOADS.outcomes


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Submitted(DRAFT, DONE), {"outcome": "success", "invoice_id": "i", "lookup_code": "c", "request_id": "q"}),
        (Submitted(DRAFT, InvoiceRequest(request_id="q", status="NEW")), {"outcome": "submitted", "status": "NEW"}),
        (Rejected(DRAFT, REFUSED), {"outcome": "rejected", "code": "ORDER_021"}),
        (NotSent(DRAFT, TransportError("x", sent="no")), {"outcome": "not_sent"}),
        (Invalid(DRAFT, DraftError((Fault("lines", "x"),))), {"outcome": "invalid"}),
        (InDoubt(DRAFT, SubmissionInDoubtError("x", body_sha256="ff")), {"outcome": "in_doubt", "body_sha256": "ff"}),
    ],
)
def test_a_submission_is_one_flat_row(outcome: Any, expected: dict[str, Any]) -> None:
    """The states are those of the documentation; a refusal's own call id is not the invoice's request id."""
    row = rows.submission_row(outcome, line=4)
    assert (row["key"], row["line"]) == (DRAFT.key, 4)
    assert expected.items() <= row.items()
    assert row.keys() <= set(rows.SUBMISSIONS.columns)
    assert row["outcome"] in rows.SUBMISSIONS.outcomes


def test_a_wait_that_ended_first_stays_submitted() -> None:
    """The operation goes on at the service, and the row says why the wait did not."""
    row = rows.request_row(Unsettled("q", TransportError("gone")))
    assert (row["outcome"], row["error"], row["status"]) == ("submitted", "gone", "NEW")
    assert rows.request_row(InvoiceRequest(request_id="q", status=RequestStatus.FAILED))["outcome"] == "failed"


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (Item(1, "K", "failed", request_id=ID, error="bad", code="C"), ("bad", "C")),
        (Item(1, "K", "failed", request_id=ID, result='{"status":"FAILED"}'), (None, None)),
        (Item(1, "K", "failed", request_id=ID), (None, None)),
        (Item(1, "K", "rejected", error="ApiError: no", code="C"), ("ApiError: no", "C")),
        (Item(1, "K", "success", request_id=ID, error="no file", result='{"status":"SUCCESS"}'), ("no file", None)),
    ],
)
def test_an_item_says_what_was_recorded_of_it(item: Item, why: tuple[str | None, str | None]) -> None:
    row = rows.item_row(item)
    assert (row["error"], row["code"]) == why
    row = rows.invoice_row(item)
    assert (row["error"], row["code"]) == why


def test_a_failed_request_is_a_row_with_its_reason() -> None:
    """Only what FAILED has one."""
    request = InvoiceRequest(request_id=ID, status=RequestStatus.FAILED, reason=WORDS, code="C")
    row = rows.request_row(request)
    assert (row["outcome"], row["error"], row["code"]) == ("failed", WORDS, "C")
    assert "error" not in rows.request_row(InvoiceRequest(request_id=ID, status=RequestStatus.NEW))


def test_an_answer_that_left_a_doubt_is_shown_with_it() -> None:
    """Its status, the ids that it named and its head; what is no such record is left out."""
    result = json.dumps({"status": 409, "code": "DUP", "request_ids": [ID], "answer": "there before"})
    item = Item(1, "K", "in_doubt", code="DUP", error="said", result=result, payload_sha256="0")
    row = rows.item_row(item)
    assert (row["http_status"], row["request_ids"], row["answer"]) == (409, ID, "there before")
    assert rows.invoice_row(item)["http_status"] == 409
    for broken in ("x", "[]", "null", "{}", '{"request_ids": 5}'):
        row = rows.item_row(Item(1, "K", "in_doubt", result=broken, payload_sha256="0"))
        assert (row["http_status"], row["request_ids"], row["answer"]) == (None, None, None)


def test_a_doubt_without_a_run_is_a_row_with_its_answer() -> None:
    error = SubmissionInDoubtError("it may exist", key="K", body_sha256="00", sent_at=1.5)
    row = rows.submission_row(InDoubt(example_draft(), error))
    assert (row["http_status"], row["request_ids"], row["answer"]) == (None, None, None)
    error.__dict__.update(status=502, code="GW", request_ids=(ID,), answer=b"<html>\xff")
    row = rows.submission_row(InDoubt(example_draft(), error))
    assert (row["http_status"], row["code"], row["request_ids"]) == (502, "GW", ID)
    assert row["answer"] == "<html>\N{REPLACEMENT CHARACTER}"


def test_an_answer_that_reads_no_more_is_left_out() -> None:
    """A row never fails for what a service once answered; what the library wrote is in the file whole."""
    item = Item(seq=1, key="a", state="success", request_id=str(uuid4()), result="{", payload_sha256="0")
    assert rows.item_row(item)["lookup_code"] is None


def test_what_of_a_file_is_not_sent_is_rows_too() -> None:
    """A draft with faults has each at its place; a key that came again is a duplicate of its line."""
    found = load_drafts([b'{"key": "K", "price\\u001b": 1}\n'], "jsonl")
    [bad] = found.bad
    row = rows.bad_draft_row(bad)
    assert (row["key"], row["line"], row["outcome"]) == ("K", 1, "invalid")
    assert {"line", "column", "path", "message"} == set(row["faults"][0])
    assert "\x1b" not in row["error"]
    assert rows.repeated_draft_row("K", 2) == {"key": "K", "line": 2, "outcome": "duplicate"}


@pytest.mark.parametrize("seconds", [0.0, 1.5, 1_700_000_000.1234])
def test_a_moment_is_written_in_utc(seconds: float) -> None:
    """To the millisecond, wherever it is read; there need be none."""
    assert datetime.fromisoformat(rows.utc_time(seconds) or "").timestamp() == pytest.approx(seconds, abs=0.001)
    assert (rows.utc_time(0), rows.utc_time(None)) == ("1970-01-01T00:00:00.000+00:00", None)


def test_whole_rows_of_a_kind_have_the_same_members() -> None:
    """Whatever became of each; what a row has stays, and what it has beyond its columns is not hidden."""
    outcomes: tuple[DownloadOutcome, ...] = (
        Saved("o", DOCUMENT),
        Duplicate("o"),
        Deferred("o", REFUSED),
        NotStarted("o", REFUSED),
    )
    found = [rows.download_row(outcome) for outcome in outcomes]
    whole = [rows.DOWNLOADS.whole(row) for row in found]
    assert {tuple(row) for row in whole} == {rows.DOWNLOADS.columns}
    assert all(row.items() <= filled.items() for row, filled in zip(found, whole, strict=True))
    assert set(rows.SUBMISSIONS.whole({"surplus": 1})) == {*rows.SUBMISSIONS.columns, "faults", "surplus"}

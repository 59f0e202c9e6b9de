"""One outcome as one flat row: the values that JSON lines, reports and tables share."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime

from .._core.error_words import words_of
from ..auth import Signature
from ..documents import DownloadOutcome
from ..drafts import BadDraft
from ..errors import ApiError, InvoicingError, SubmissionInDoubtError
from ..invoices import SubmitOutcome
from ..models import (
    AuthorityStatus,
    Deferred,
    Duplicate,
    Failed,
    InDoubt,
    Invalid,
    InvoiceRequest,
    NotSent,
    NotStarted,
    Rejected,
    RequestStatus,
    Saved,
    Skipped,
    Submitted,
    Unsettled,
)
from ..repair import Entry
from ..runs import Checked, DocumentState, Item, State, apparent_state, recorded_answer, recorded_request
from ._row_types import FILE, SAID, Row

__all__ = [
    "bad_draft_row",
    "check_row",
    "document_row",
    "download_row",
    "invoice_row",
    "item_row",
    "reason",
    "refresh_row",
    "refused_by_authority",
    "repeated_draft_row",
    "request_row",
    "sheet_row",
    "signature_row",
    "submission_row",
    "utc_time",
]


def _parts(of: object, *names: str) -> Row:
    return {name: getattr(of, name) for name in names}


def download_row(outcome: DownloadOutcome) -> Row:
    """Return what became of one order id; `size` is in bytes, `request_id` the service's own id of a refused call."""
    match outcome:
        case Saved(order_id, document) | Skipped(order_id, document):
            return {
                "order_id": order_id,
                "outcome": "saved" if isinstance(outcome, Saved) else "skipped",
                "path": document.address,
                **_parts(document, "size", "sha256", "request_id", "attempts"),
            }
        case Duplicate(order_id):
            return {"order_id": order_id, "outcome": "duplicate"}
        case Deferred(order_id, error) | Failed(order_id, error):
            row = {"order_id": order_id, "outcome": "deferred" if isinstance(outcome, Deferred) else "failed"}
            # The service's own id of the refused call is for its support.
            return {**row, **_error(error), **({"request_id": error.request_id} if isinstance(error, ApiError) else {})}
        case NotStarted(order_id, error):
            return {"order_id": order_id, "outcome": "not_started", **_error(error)}


def submission_row(outcome: SubmitOutcome, *, line: int | None = None) -> Row:
    """Return what became of one draft; a request that was terminal at once stands as what it ended in.

    `line` is where the draft stands in its file. `sent_at` is ISO 8601 in UTC.
    """
    row: Row = {"key": outcome.draft.key, "line": line}
    match outcome:
        case Submitted(_, request):
            return row | request_row(request)
        case Duplicate():
            return row | {"outcome": "duplicate"}
        case InDoubt(_, error):
            looked_up_by: Row = {
                "body_sha256": error.body_sha256,
                "sent_at": utc_time(error.sent_at),
                "http_status": error.status,
                "request_ids": " ".join(error.request_ids) or None,
                "answer": error.answer.decode("utf-8", "replace") or None,
            }
            return row | {"outcome": "in_doubt", **_error(error)} | looked_up_by
        case Rejected(_, error) | NotSent(_, error) | Invalid(_, error):
            named = {Rejected: "rejected", NotSent: "not_sent", Invalid: "invalid"}
            return row | {"outcome": named[type(outcome)], **_error(error)}


def bad_draft_row(draft: BadDraft) -> Row:
    """Return a draft of a file that cannot be sent; each of its `faults` has line, column, path and message."""
    faults = [_parts(fault, "line", "column", "path", "message") for fault in draft.faults]
    return {"key": draft.key, "line": draft.line, "outcome": "invalid", "error": draft.error, "faults": faults}


def repeated_draft_row(key: str, line: int) -> Row:
    """Return a key that came again in a file with the same content, on this line."""
    return {"key": key, "line": line, "outcome": "duplicate"}


def request_row(request: InvoiceRequest | Unsettled) -> Row:
    """Return what became of one request; one whose wait ended first is `submitted`, with the reason as its error."""
    ends: dict[object, str] = {RequestStatus.SUCCESS: "success", RequestStatus.FAILED: "failed"}
    row: Row = {
        "request_id": request.request_id,
        "outcome": ends.get(request.status, "submitted"),
        "status": str(request.status),
    }
    if isinstance(request, Unsettled):
        return row | _error(request.error)
    if request.status == RequestStatus.FAILED:
        row |= {"error": request.reason, "code": request.code}
    if request.data is not None:
        data = request.data
        row |= {
            "invoice_id": data.id,
            "authority_status": None if data.authority_status is None else str(data.authority_status),
            "lookup_code": data.code,
            "serial_number": data.serial_number,
        }
    return row


def reason(row: Row, *, ids: bool = True) -> str:
    """Return why an item did not end well: the service's words, its code and status, and the ids to ask it about.

    Each stands there once. Without `ids` what a list has beside it is left out: the ids of the item, and how it stands
    with the tax authority. Text of the service is as it came: it may hold what moves a terminal's cursor.
    """
    error = str(row.get("error") or "")
    if ids and not error:
        refused = refused_by_authority(row)
        error = f"the tax authority: {row['authority_status']}" if refused else str(row.get("status") or "")
    named = {"code": "", "http_status": "HTTP ", "request_ids": "it named "}
    if ids:
        named |= {"request_id": "request ", "invoice_id": "invoice "}
    more = [f"{word}{row[name]}" for name, word in named.items() if row.get(name) and str(row[name]) not in error]
    return f"{error} ({', '.join(more)})" if more and error else error or ", ".join(more)


def refused_by_authority(row: Row) -> bool:
    """Tell whether a row is of an invoice that was made and that the tax authority refuses."""
    return AuthorityStatus.refuses(row.get("authority_status"))


def _error(error: BaseException) -> Row:
    row: Row = {"error": words_of(error)}
    if isinstance(error, InvoicingError):
        row |= {"hint": error.hint, "attempts": len(error.attempts)}
    if isinstance(error, (ApiError, SubmissionInDoubtError)):
        row["code"] = getattr(error, "code", None)
    return row


def item_row(item: Item, *, held: bool = False) -> Row:
    """Return an item of a run as it stands; `held` says that a process is at work on it."""
    return {
        "key": item.key,
        "state": apparent_state(item.state, held=held),
        **_parts(item, "request_id", "invoice_id", *FILE),
        **_why(item),
        "attempt": item.attempt,
        "sent_at": utc_time(item.sent_at),
        "updated": utc_time(item.updated),
        **_answer(item),
    }


def _why(item: Item) -> Row:
    """Return what is wrong with an item: what was recorded of it, else what the service's last word says."""
    row = _last_word(item) if item.error is None and item.state == State.FAILED else {}
    return {"code": item.code or row.get("code"), "error": item.error or row.get("error")}


def _answer(item: Item) -> Row:
    """Return what the service said of an invoice, and what it is looked up by; nothing for a document."""
    if item.payload_sha256 is None:
        return {}
    row = _last_word(item)
    return {
        **{name: row.get(name) for name in ("authority_status", "lookup_code", "serial_number", *SAID)},
        "payload_sha256": item.payload_sha256,
    }


def _last_word(item: Item) -> Row:
    """Return what the service last said of an e-invoice; of one in doubt, what its submission was answered."""
    if item.state in {State.IN_DOUBT, State.SENDING}:
        said = recorded_answer(item)
        return {"http_status": said.status, "request_ids": " ".join(said.request_ids) or None, "answer": said.text}
    request = recorded_request(item)
    return {} if request is None else request_row(request)


def document_row(item: Item) -> Row:
    """Return a document of a run as an outcome."""
    return {
        "order_id": item.key,
        "outcome": "not_started" if item.state == DocumentState.PLANNED else item.state,
        **_parts(item, *FILE, "request_id", "error", "code"),
        "attempts": item.attempt,
    }


def invoice_row(item: Item, *, line: int | None = None) -> Row:
    """Return an e-invoice of a run as an outcome; `line` is where its draft stands in the input."""
    return {
        "key": item.key,
        "line": line,
        **_last_word(item),
        "outcome": apparent_state(item.state, held=False),
        **_parts(item, "request_id", "invoice_id"),
        **_why(item),
        "attempts": item.attempt,
        "sent_at": utc_time(item.sent_at),
        **_parts(item, *FILE),
    }


def refresh_row(item: Item) -> Row:
    """Return an e-invoice that was asked for again; `item` as the run gave it, with an error if it could not be."""
    return {
        "key": item.key,
        "outcome": "refreshed" if item.error is None else "unknown",
        **{name: value for name, value in _last_word(item).items() if name != "outcome"},
        **_parts(item, "request_id", "invoice_id", "error", "code"),
    }


def sheet_row(entry: Entry) -> Row:
    """Return an e-invoice of a run as it is looked up: its buyer and amount, when it was sent, what was said of it."""
    amount = entry.contents.amount
    return {
        **_parts(entry, "item", "key"),
        "state": apparent_state(entry.state, held=False),
        **_parts(entry.contents, "buyer", "tax_code"),
        "amount": None if amount is None else f"{amount:f}",
        **_parts(entry, "sent_at", "http_status", "code", "said", "request_id"),
        "named_ids": " ".join(entry.named_ids) or None,
    }


def signature_row(signature: Signature) -> Row:
    """Return every stage of a signature, as it may be shown: of the store token there is only its length."""
    shown = signature.masked()
    stages = _parts(shown, "method", "path", "timestamp_ms", "body_sha256", "base_string")
    return {**stages, "hmac_sha256": shown.digest, "headers": dict(shown.headers)}


def check_row(checked: Checked) -> Row:
    """Return what a look at a recorded file came to."""
    gone = f"cannot be read: {os.strerror(errno.ENOENT)}"
    fault = checked.fault
    outcome = "whole" if fault is None else "missing" if fault == gone else "broken"
    return {"key": checked.key, "outcome": outcome, "path": checked.address, "error": fault}


def utc_time(seconds: float | None) -> str | None:
    """Return a moment, in epoch seconds, as ISO 8601 in UTC to the millisecond, as rows have it; None for None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")

"""One outcome as one flat row: the words that users, JSON lines and reports share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import frozen

from ..documents import DownloadOutcome
from ..errors import ApiError, InvoicingError, SubmissionInDoubtError
from ..invoices import SubmitOutcome
from ..models import (
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

__all__ = ["DOWNLOADS", "SUBMISSIONS", "WAITS", "Kind", "Row", "download_row", "request_row", "submission_row"]

Row: TypeAlias = dict[str, Any]


@frozen(kw_only=True)
class Kind:
    """One sort of batch: its columns, and its outcomes in the order and the words of the summary.

    `name` is the column that names an item; the outcomes in `good` leave nothing to be done.
    """

    title: str
    name: str
    columns: tuple[str, ...]
    outcomes: Mapping[str, str]
    good: frozenset[str]


_ERROR = ("error", "code", "hint", "attempts")

DOWNLOADS = Kind(
    title="Order documents",
    name="order_id",
    columns=("order_id", "outcome", "path", "size", "sha256", "request_id", *_ERROR),
    outcomes={
        "saved": "whole PDFs, proved and published",
        "skipped": "there before, whole; not asked for again",
        "deferred": "the order is not eligible yet (ORDER_021)",
        "failed": "no document; the error says why",
        "duplicate": "stood in the input before",
        "not_started": "the batch ended first",
    },
    good=frozenset({"saved", "skipped", "duplicate"}),
)

_INVOICE = ("request_id", "status", "invoice_id", "authority_status", "lookup_code", "serial_number", *_ERROR)
_STATES = {
    "submitted": "taken by the service, not final yet",
    "success": "the invoice was made",
    "failed": "the service could not make the invoice",
}

SUBMISSIONS = Kind(
    title="E-invoices",
    name="key",
    columns=("key", "line", "outcome", *_INVOICE, "body_sha256", "sent_at"),
    outcomes={
        **_STATES,
        "rejected": "refused; no invoice was made",
        "invalid": "breaks the documented limits; not sent",
        "not_sent": "never left or was refused for now; safe to send again",
        "in_doubt": "may have been made: settle it before sending it again",
    },
    good=frozenset({"submitted", "success"}),
)

WAITS = Kind(
    title="E-invoice requests",
    name="request_id",
    columns=("request_id", "outcome", *_INVOICE[1:]),
    outcomes={**_STATES, "duplicate": "stood in the input before"},
    good=frozenset({"success", "duplicate"}),
)


def download_row(outcome: DownloadOutcome) -> Row:
    """Give a download's outcome."""
    match outcome:
        case Saved(order_id, document) | Skipped(order_id, document):
            return {
                "order_id": order_id,
                "outcome": "saved" if isinstance(outcome, Saved) else "skipped",
                "path": str(document.path),
                "size": document.size,
                "sha256": document.sha256,
                "request_id": document.request_id,
                "attempts": document.attempts,
            }
        case Duplicate(order_id):
            return {"order_id": order_id, "outcome": "duplicate"}
        case Deferred(order_id, error):
            return {"order_id": order_id, "outcome": "deferred", **_error(error), **_call_id(error)}
        case Failed(order_id, error):
            return {"order_id": order_id, "outcome": "failed", **_error(error), **_call_id(error)}
        case NotStarted(order_id, error):
            return {"order_id": order_id, "outcome": "not_started", **_error(error)}


def submission_row(outcome: SubmitOutcome, *, line: int | None = None) -> Row:
    """Give a submission's outcome; a request that was terminal at once stands as what it ended in."""
    row: Row = {"key": outcome.draft.key, "line": line}
    match outcome:
        case Submitted(_, request):
            return row | request_row(request)
        case Rejected(_, error):
            return row | {"outcome": "rejected", **_error(error)}
        case InDoubt(_, error):
            return row | {"outcome": "in_doubt", **_error(error), **_evidence(error)}
        case NotSent(_, error):
            return row | {"outcome": "not_sent", **_error(error)}
        case Invalid(_, error):
            return row | {"outcome": "invalid", **_error(error)}


def request_row(request: InvoiceRequest | Unsettled) -> Row:
    """Give a request's state; one whose wait ended first is `submitted`, with the reason as its error."""
    ends: dict[object, str] = {RequestStatus.SUCCESS: "success", RequestStatus.FAILED: "failed"}
    row: Row = {
        "request_id": request.request_id,
        "outcome": ends.get(request.status, "submitted"),
        "status": str(request.status),
    }
    if isinstance(request, Unsettled):
        return row | _error(request.error)
    if request.data is not None:
        data = request.data
        row |= {
            "invoice_id": data.id,
            "authority_status": None if data.authority_status is None else str(data.authority_status),
            "lookup_code": data.code,
            "serial_number": data.serial_number,
        }
    return row


def _error(error: BaseException) -> Row:
    row: Row = {"error": str(error) or type(error).__name__}
    if isinstance(error, InvoicingError):
        row |= {"hint": error.hint, "attempts": len(error.attempts)}
    if isinstance(error, ApiError):
        row["code"] = error.code
    return row


def _call_id(error: BaseException) -> Row:
    """The service's own id of the refused call, for its support."""
    return {"request_id": error.request_id} if isinstance(error, ApiError) else {}


def _evidence(error: BaseException) -> Row:
    """What a submission in doubt is looked up by."""
    if not isinstance(error, SubmissionInDoubtError):
        return {}
    return {"body_sha256": error.body_sha256, "sent_at": error.sent_at}

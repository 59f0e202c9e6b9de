"""What the rows of each sort of batch are like: their columns, and what each outcome means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import frozen

from ._columns import COLUMNS, Schema

__all__ = [
    "CHECKS",
    "DOCUMENT_ITEMS",
    "DOWNLOADS",
    "FILE",
    "INVOICE_ITEMS",
    "REFRESHES",
    "SAID",
    "SHEETS",
    "SUBMISSIONS",
    "WAITS",
    "Row",
    "RowType",
]

Row: TypeAlias = dict[str, Any]
"""One outcome: text, numbers, None, and for a draft with faults a list of them; all of it can be JSON."""


@frozen(kw_only=True)
class RowType:
    """The rows of one sort of batch: its `title`, the `columns` of a row in their order, and the outcomes.

    `name` is the column that names an item. `outcomes` has what each outcome means, in the order in which they are
    counted; those in `good` leave nothing to be done. A row need not have all columns; `whole` adds what it lacks.
    `outcome` is the column that has it, `details` what only JSON lines have, not reports.
    """

    title: str
    name: str
    columns: tuple[str, ...]
    outcomes: Mapping[str, str]
    good: frozenset[str]
    outcome: str = "outcome"
    details: tuple[str, ...] = ()

    def whole(self, row: Row) -> Row:
        """Return a row with every column and detail, None for what it lacks: so JSON lines of one kind look alike."""
        return {**dict.fromkeys((*self.columns, *self.details)), **row}

    def schema(self) -> Schema:
        """Return the JSON Schema (draft 2020-12) of its whole rows."""
        names = (*self.columns, *self.details)
        properties = {name: COLUMNS[name].schema() for name in names}
        meanings = [{"const": outcome, "description": meaning} for outcome, meaning in self.outcomes.items()]
        properties[self.outcome]["oneOf"] = meanings
        properties[self.name]["type"] = "string"
        return {
            "title": self.title,
            "type": "object",
            "properties": properties,
            "required": [*names],
            "additionalProperties": False,
        }


FILE = ("path", "size", "sha256")
_ERROR = ("error", "code", "hint", "attempts")
SAID = ("http_status", "request_ids", "answer")
"""What a submission in doubt was answered: the status, the request ids that the answer names, and its head."""

DOWNLOADS = RowType(
    title="Order documents",
    name="order_id",
    columns=("order_id", "outcome", *FILE, "request_id", *_ERROR),
    outcomes={
        "saved": "whole PDFs, proved and published",
        "skipped": "there before, whole; not asked for again",
        "deferred": "the order is not eligible yet (ORDER_021)",
        "failed": "no document; the error says why",
        "recorded": "saved by this run before; not looked at (--no-verify)",
        "duplicate": "stood in the input before",
        "not_started": "the batch ended first",
    },
    good=frozenset({"saved", "skipped", "recorded", "duplicate"}),
)
"""The rows of `download_row` and `document_row`."""

_INVOICE = ("request_id", "status", "invoice_id", "authority_status", "lookup_code", "serial_number", *_ERROR)
_STATES = {
    "submitted": "taken by the service, not final yet",
    "success": "the invoice was made",
    "failed": "the service could not make the invoice",
}

_UNSETTLED = {
    "rejected": "refused; no invoice was made",
    "invalid": "breaks the documented limits; not sent",
    "not_sent": "never left or was refused for now; safe to send again",
    "in_doubt": "may have been made: settle it before it is sent again",
}
_PLANNED = {"planned": "taken in; nothing of it was sent"}

SUBMISSIONS = RowType(
    title="E-invoices",
    name="key",
    columns=("key", "line", "outcome", *_INVOICE, *SAID, "body_sha256", "sent_at", *FILE),
    outcomes={**_STATES, **_UNSETTLED, **_PLANNED, "duplicate": "stood in the file before, with the same content"},
    good=frozenset({"submitted", "success", "duplicate"}),
    details=("faults",),
)
"""The rows of `submission_row` and `invoice_row`."""

_ITEM = ("key", "state", "request_id", "invoice_id", *FILE, "code", "error", "attempt", "sent_at", "updated")

DOCUMENT_ITEMS = RowType(
    title="Order documents",
    name="key",
    columns=_ITEM,
    outcomes={
        "planned": "not asked for yet, or to be fetched anew",
        "saved": "whole PDFs, proved and published",
        "skipped": "there before it was asked for, whole",
        "deferred": "the order is not eligible yet (ORDER_021)",
        "failed": "no document; the error says why",
    },
    good=frozenset({"saved", "skipped"}),
    outcome="state",
)
"""The rows of `item_row` for a document run; `state` is the outcome."""

INVOICE_ITEMS = RowType(
    title="E-invoices",
    name="key",
    columns=(*_ITEM, "authority_status", "lookup_code", "serial_number", *SAID, "payload_sha256"),
    outcomes={
        **_PLANNED,
        "in_flight": "on its way at this moment, in the process that holds the run",
        "not_sent": _UNSETTLED["not_sent"],
        **_STATES,
        "rejected": _UNSETTLED["rejected"],
        "in_doubt": _UNSETTLED["in_doubt"],
        "invalid": _UNSETTLED["invalid"],
    },
    good=frozenset({"submitted", "success"}),
    outcome="state",
    details=("found",),
)
"""The rows of `item_row` for an invoice run; `state` is the outcome."""

SHEETS = RowType(
    title="E-invoices to be looked up",
    name="key",
    columns=(
        *("item", "key", "state", "buyer", "tax_code", "amount"),
        *("sent_at", "http_status", "code", "said", "request_id", "named_ids"),
    ),
    outcomes=INVOICE_ITEMS.outcomes,
    good=INVOICE_ITEMS.good,
    outcome="state",
)
"""The rows of `sheet_row`."""

CHECKS = RowType(
    title="Files of the run",
    name="key",
    columns=("key", "outcome", "path", "error"),
    outcomes={
        "whole": "size and hash are as recorded",
        "missing": "recorded, and not there",
        "broken": "there, and not what was recorded",
    },
    good=frozenset({"whole"}),
)
"""The rows of `check_row`."""

REFRESHES = RowType(
    title="E-invoices at the tax authority",
    name="key",
    columns=("key", "outcome", *_INVOICE),
    outcomes={"refreshed": "asked for again", "unknown": "could not be asked for; as recorded before"},
    good=frozenset({"refreshed"}),
)
"""The rows of `refresh_row`."""

WAITS = RowType(
    title="E-invoice requests",
    name="request_id",
    columns=("request_id", "outcome", *_INVOICE[1:]),
    outcomes={**_STATES, "duplicate": "stood in the input before"},
    good=frozenset({"success", "duplicate"}),
)
"""The rows of `request_row`."""

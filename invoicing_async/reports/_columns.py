"""What stands in the columns of the rows: the JSON type of each, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import frozen

__all__ = ["COLUMNS", "Column", "Schema"]

Schema: TypeAlias = dict[str, Any]
"""A JSON Schema, or a part of one."""


@frozen
class Column:
    """One column: what it means, and the JSON Schema of its value; text or null where nothing else is said."""

    meaning: str
    type: str | tuple[str, ...] = ("string", "null")
    more: Mapping[str, Any] = {}

    def schema(self) -> Schema:
        """Return the JSON Schema of its value."""
        kinds = self.type if isinstance(self.type, str) else list(self.type)
        return {"description": self.meaning, "type": kinds, **self.more}


_COUNT = ("integer", "null")
_MOMENT = "ISO 8601 in UTC"


def _part(**columns: Column) -> Mapping[str, Any]:
    """Return what a value that is an object holds."""
    properties = {name: column.schema() for name, column in columns.items()}
    return {"properties": properties, "required": [*properties], "additionalProperties": False}


_FAULT = Column(
    "One fault, and where it stands.",
    "object",
    _part(
        line=Column("The line of the file, from 1.", "integer"),
        column=Column("The column of a CSV."),
        path=Column("The field, as lines[0].price; empty where none is at fault.", "string"),
        message=Column("What is wrong there, with its limit.", "string"),
    ),
)

COLUMNS: Mapping[str, Column] = {
    "key": Column("The item's own name: a draft's key, or an order id.", "string"),
    "order_id": Column("The order, as it was given.", "string"),
    "item": Column("The item's place in its run, from 1.", "integer"),
    "line": Column("Where its draft begins in the input, from 1; null in a run that goes on.", _COUNT),
    "outcome": Column("What became of it.", "string"),
    "state": Column("How it stands.", "string"),
    "status": Column("The request's status in the service's own words: NEW, SUCCESS, FAILED or another."),
    "request_id": Column("The service's id of the request; of a refused document, of the call."),
    "invoice_id": Column("The service's id of the invoice."),
    "authority_status": Column("How the invoice stands with the tax authority, in the service's words."),
    "lookup_code": Column("The code under which the invoice is looked up."),
    "serial_number": Column("The invoice's serial number."),
    "path": Column("The file."),
    "size": Column("The file's size in bytes.", _COUNT),
    "sha256": Column("The file's SHA-256, in hex."),
    "error": Column("What went wrong, in one line."),
    "code": Column("The service's code of the error."),
    "hint": Column("What to do about it."),
    "attempts": Column("How often it was tried.", _COUNT),
    "attempt": Column("How often it was tried.", "integer"),
    "http_status": Column("Of one in doubt: the HTTP status of the answer.", _COUNT),
    "request_ids": Column("Of one in doubt: the request ids that the answer named, with blanks between."),
    "answer": Column("Of one in doubt: the beginning of the answer."),
    "body_sha256": Column("The SHA-256 of the body that was sent, in hex."),
    "payload_sha256": Column("The SHA-256 of the draft as it is kept, in hex."),
    "sent_at": Column(f"When it was last sent, {_MOMENT} or with an offset."),
    "updated": Column(f"When its state last changed, {_MOMENT}."),
    "buyer": Column("The draft's buyer."),
    "tax_code": Column("The buyer's tax code."),
    "amount": Column("The sum of the lines before tax, in digits."),
    "said": Column("What went wrong and what the service said."),
    "named_ids": Column("The request ids that the answer named, with blanks between."),
    "faults": Column("Every fault of a draft that is not sent.", ("array", "null"), {"items": _FAULT.schema()}),
    "found": Column(
        "What the service has under the request id that was given.",
        ("object", "null"),
        _part(
            request_id=Column("The request.", "string"),
            status=Column("Its status.", "string"),
            invoice_id=Column("The invoice."),
            authority_status=Column("How it stands with the tax authority."),
            buyer=Column("The buyer."),
            tax_code=Column("The buyer's tax code."),
            amount=Column("The sum of the lines before tax, in digits."),
        ),
    ),
}
"""Every column of every row."""

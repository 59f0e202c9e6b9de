"""The columns of a CSV file, and what a cell of each means."""

from __future__ import annotations

from decimal import Decimal
from re import compile as compiled
from typing import Any

from attrs import define, field, fields_dict, frozen

from .._einvoices.shape import WireNames
from .._einvoices.spreadsheet import DecimalMark, addresses, code_fault, formula_fault, is_grouped, number, vat_rate
from .._values.table import BOM, LineFault
from ..errors import Fault
from ..models import Consumer, InvoiceLine, PaymentMethod, SubmitToTax
from ._records import NUL, SHOWN

__all__ = [
    "COLUMNS",
    "CONSUMER_CODES",
    "EXTRA",
    "INVOICE",
    "LINE",
    "LINE_PATH",
    "NAMELESS",
    "Numbers",
    "Row",
    "Table",
    "converted",
]

INVOICE = ("key", "invoice_template_id", "payment_method", "has_tax_authority_code")


_CONSUMER = tuple(f"consumer_{name}" for name in fields_dict(Consumer))


_SUBMIT = tuple(f"submit_to_tax_{name}" for name in fields_dict(SubmitToTax))


LINE = tuple(fields_dict(InvoiceLine))


COLUMNS = (*INVOICE, *_CONSUMER, *_SUBMIT, *LINE)
"""The columns of a CSV file, `extra_NAME` apart."""


EXTRA = "extra_"


_NUMBERS = frozenset({"price", "quantity", "tax_amount", "discount_amount", "amount"})


_FLAGS = frozenset(
    {"has_tax_authority_code", "submit_to_tax_send_mail", "submit_to_tax_automatic", "is_promotion"},
)


CONSUMER_CODES = ("code", "tax_code", "citizen_identification", "phone", "bank_account")


_CODES = frozenset({"key", "code", *(f"consumer_{name}" for name in CONSUMER_CODES)})


NAMELESS = "(no name)"


LINE_PATH = compiled(r"lines\[([0-9]+)\](?:\.(.*))?")


@define
class Numbers:
    """The numbers of one file: how they are read, and what was seen that makes others doubtful."""

    mark: DecimalMark | None
    points_may_group: bool = False
    comma: int | None = None
    """The line of the first number with a comma."""
    grouped: tuple[int, str] | None = None
    """The line and the text of the first number that was read and may be a thousand."""

    def read(self, line: int, text: str) -> Decimal | Fault:
        found = number(text, self.mark, points_may_group=self.points_may_group or self.comma is not None)
        if self.mark is None and isinstance(found, Fault) and "," in text:
            self.comma = self.comma or line
        elif self.mark is None and self.grouped is None and is_grouped(text):
            self.grouped = line, text
        return found

    def fault(self, head: int) -> tuple[LineFault, ...]:
        """Return the fault of the whole file if numbers were read before a comma told that points may group."""
        if self.comma is None or self.grouped is None or self.points_may_group or self.grouped[0] > self.comma:
            return ()
        line, text = self.grouped
        said = f"a number on line {self.comma} has a comma, so {text} on line {line} may be a thousand"
        return (LineFault("", f"{said}: say the decimal mark (--decimal-mark)", head),)


@frozen
class Table:
    """How the rows of a file are read."""

    names: WireNames
    rounding: Decimal | None
    numbers: Numbers


@define
class Row:
    """One row: its cells by column, converted where they could be, and what is wrong with those that could not."""

    line: int
    cells: dict[str, Any] = field(factory=dict)
    faults: list[LineFault] = field(factory=list)

    @property
    def sound(self) -> bool:
        """False if its cells may stand under the wrong names."""
        return all(fault.column is not None for fault in self.faults)

    def fault(self, column: str | None, message: str) -> None:
        self.faults.append(LineFault("", message, self.line, column))


def converted(row: Row, column: str, text: str, numbers: Numbers) -> Any:
    """Convert a cell; one that cannot be is noted and kept as it is, so that the limits of the rest are checked."""
    if NUL in text:
        row.fault(column, "holds a NUL byte")
    elif not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        row.fault(column, "is not UTF-8")
    elif column in _NUMBERS:
        # One that is not understood stays a text that nobody takes for a number.
        return _read(row, column, numbers.read(row.line, text), f"not read: {text}")
    elif column in _FLAGS:
        return _flag(row, column, text)
    elif column == "vat_rate":
        return _read(row, column, vat_rate(text), text)
    elif column == "payment_method":
        return PaymentMethod.__members__.get(text, text)
    elif column == "submit_to_tax_emails":
        return addresses(text)
    elif message := _text_fault(column, text):
        row.fault(column, message)
    return text


def _text_fault(column: str, text: str) -> str:
    """Say what keeps a cell of text from being what its owner wrote; empty if nothing does."""
    if column in _CODES or column.startswith(EXTRA):
        return code_fault(text)
    return formula_fault(text) or ("holds a byte order mark, U+FEFF" if BOM in text else "")


def _read(row: Row, column: str, found: Any, text: str) -> Any:
    """Return what was read of a cell, or note its fault and give the text."""
    if not isinstance(found, Fault):
        return found
    row.fault(column, found.message)
    return text


def _flag(row: Row, column: str, text: str) -> bool | str:
    flag = {"true": True, "false": False}.get(text.lower())
    if flag is None:
        row.fault(column, f"must be true or false, not {text[:SHOWN]!r}")
        return text
    return flag

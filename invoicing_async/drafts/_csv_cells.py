"""The columns of a CSV file, and what a cell of each means."""

from __future__ import annotations

from decimal import Decimal
from re import compile as compiled
from typing import Any

from attrs import AttrsInstance, define, field, frozen

from .._einvoices.shape import WireNames
from .._einvoices.spreadsheet import DecimalMark, addresses, code_fault, formula_fault, is_grouped, number, vat_rate
from .._values.field_rules import FieldRule, Kind, field_rules
from .._values.table import BOM, LineFault
from ..errors import Fault
from ..models import Consumer, InvoiceDraft, InvoiceLine, SubmitToTax, VatRate
from ._records import NUL, SHOWN

__all__ = [
    "COLUMNS",
    "EXTRA",
    "INVOICE",
    "LINE",
    "LINE_PATH",
    "NAMELESS",
    "REQUIRED",
    "Numbers",
    "Row",
    "Table",
    "converted",
]


def _columns(model: type[AttrsInstance], prefix: str = "") -> dict[str, FieldRule]:
    return {prefix + name: rule for name, rule in field_rules(model).items() if rule.column}


_INVOICE, _LINE = _columns(InvoiceDraft), _columns(InvoiceLine)
_RULES = _INVOICE | _columns(Consumer, "consumer_") | _columns(SubmitToTax, "submit_to_tax_") | _LINE


INVOICE, LINE, COLUMNS = tuple(_INVOICE), tuple(_LINE), tuple(_RULES)
"""The columns of a CSV file: those of an invoice, of a line, and all of them, `extra_NAME` apart."""


REQUIRED = tuple(name for name, rule in (_INVOICE | _LINE).items() if rule.required)


EXTRA = "extra_"
_EXTRA = FieldRule(kind=Kind.TEXT, types=(str,), code=True)


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
    rule = _RULES.get(column, _EXTRA)
    if NUL in text:
        row.fault(column, "holds a NUL byte")
    elif not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        row.fault(column, "is not UTF-8")
    elif rule.kind is Kind.NUMBER:
        # One that is not understood stays a text that nobody takes for a number.
        return _read(row, column, numbers.read(row.line, text), f"not read: {text}")
    elif rule.kind is Kind.FLAG:
        return _flag(row, column, text)
    elif rule.members is VatRate:
        return _read(row, column, vat_rate(text), text)
    elif rule.members is not None:
        return rule.members.__members__.get(text, text)
    elif tuple in rule.types:
        return addresses(text)
    elif message := code_fault(text) if rule.code else formula_fault(text):
        row.fault(column, message)
    elif BOM in text:
        row.fault(column, "holds a byte order mark, U+FEFF")
    return text


def _read(row: Row, column: str, found: Any, text: str) -> Any:
    """Return what was read of a cell, or note its fault and return the text."""
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

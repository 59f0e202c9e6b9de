"""Drafts from files: JSONL, one draft a line, and CSV, one invoice line a row; every fault of a file at once.

Level 3 of the package, beside the features: it knows models, rules and the wire's reader, and nothing of a session.
Both readers take lines (an open file, in text or better in bytes, whose UTF-8 is then checked line by line) and give
drafts as they come. What is wrong is collected and raised as one `DraftsFileError` when the input ends, so whoever
takes the whole input before sending sends nothing of a file with a fault; `on_fault` takes the faults instead.

The columns of a CSV file (API.md B.1), in any order, named in its first row; it is separated by commas or semicolons:

- of the invoice: `key` and `invoice_template_id`, which are required, `payment_method`, `has_tax_authority_code`,
  `consumer_code`, `consumer_name`, `consumer_tax_code`, `consumer_address`, `consumer_citizen_identification`,
  `consumer_phone`, `consumer_buyer_name`, `consumer_bank_account`, `submit_to_tax_emails` (separated by blanks),
  `submit_to_tax_send_mail`, `submit_to_tax_automatic`, and `extra_NAME` for a text `NAME` in `extra`;
- of the line: `name`, `unit`, `price` and `quantity`, which are required, `code`, `tax_amount`, `discount_amount`,
  `vat_rate`, `amount`, `is_promotion`.

Rows with the same `key` that follow one another are the lines of one invoice; its own columns may be left empty in the
rows after the first and must not differ there. Blanks around a value are dropped and an empty one is not given.
Numbers are digits with a decimal point, flags `true` or `false`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from difflib import get_close_matches
from hashlib import sha256
from typing import Any

from attrs import define, field, fields_dict, frozen

from . import _rules
from ._wire import WireNames, dump_draft, load_draft
from .errors import DraftError, Fault
from .models import Consumer, InvoiceDraft, InvoiceLine, PaymentMethod, SubmitToTax, VatRate

__all__ = ["DraftAt", "DraftsFileError", "LineFault", "read_csv", "read_jsonl"]

BOM = "\ufeff"
NUL = "\x00"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
SHOWN = 40
"""Characters of a bad value that its fault shows."""


@frozen
class LineFault(Fault):
    """A fault at its place in a file: `line` counts from 1, `column` is the CSV column, None where none is at fault."""

    line: int = 0
    column: str | None = None

    def __str__(self) -> str:
        if self.column is not None:
            return f"line {self.line}, column {self.column}: {self.message}"
        return f"line {self.line}, {self.path}: {self.message}" if self.path else f"line {self.line}: {self.message}"


class DraftsFileError(DraftError):
    """A file of drafts has faults. `faults` holds every one of the file, each a `LineFault`, in the order of lines."""

    hint: str = "Correct every listed line; nothing was sent."

    def __init__(self, faults: tuple[LineFault, ...] = ()) -> None:
        super().__init__(faults)
        self.faults: tuple[LineFault, ...] = tuple(faults)


@frozen
class DraftAt:
    """A draft without faults and the line of the file on which it begins."""

    line: int
    draft: InvoiceDraft


OnFault = Callable[[LineFault], None]


def read_jsonl(
    lines: Iterable[str | bytes], *, names: WireNames | None = None, on_fault: OnFault | None = None
) -> Iterator[DraftAt]:
    """Give the drafts of a JSONL file as they come; blank lines count and mean nothing.

    The fields are those of `InvoiceDraft`. A key that comes again must have the same content. At the end raises
    `DraftsFileError` with every fault, each with line and path, unless `on_fault` took them.
    """
    return _checked(_jsonl_records(lines, names or WireNames()), on_fault)


def read_csv(
    lines: Iterable[str | bytes], *, names: WireNames | None = None, on_fault: OnFault | None = None
) -> Iterator[DraftAt]:
    """Give the drafts of a CSV file as they come; the columns are listed at the head of this module.

    A key that comes again, not in adjacent rows, must have the same content. At the end raises `DraftsFileError`
    with every fault, each with line and column, unless `on_fault` took them.
    """
    return _checked(_csv_records(lines, names or WireNames()), on_fault)


# -- what both have in common ----------------------------------------------------------------------------------------


@frozen
class _Record:
    """One draft of a file, or what keeps it from being one. `column` is where a CSV file has the key."""

    line: int
    draft: InvoiceDraft | None = None
    faults: tuple[LineFault, ...] = ()
    column: str | None = None


def _checked(records: Iterator[_Record], on_fault: OnFault | None) -> Iterator[DraftAt]:
    collected: list[LineFault] = []
    tell = on_fault or collected.append
    keys = _Keys()
    for record in records:
        faults = record.faults or keys.faults(record)
        for fault in faults:
            tell(fault)
        if record.draft is not None and not faults:
            yield DraftAt(record.line, record.draft)
    if collected:
        raise DraftsFileError(tuple(sorted(collected, key=lambda fault: fault.line)))


class _Keys:
    """Where each key stood first, and with which content."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, bytes]] = {}

    def faults(self, record: _Record) -> tuple[LineFault, ...]:
        draft = record.draft
        if draft is None:
            return ()
        content = sha256(dump_draft(draft).encode()).digest()[:16]
        line, known = self._first.setdefault(draft.key, (record.line, content))
        if content == known:
            return ()
        message = f"{draft.key!r} stands on line {line} with other content; each invoice has a key of its own"
        return (LineFault("key", message, record.line, record.column),)


def _decoded(number: int, line: str | bytes) -> tuple[str, LineFault | None]:
    """Give a line as text. What is not UTF-8 stays in it as lone surrogates, so that a reader can go on."""
    if isinstance(line, str):
        return line, None
    try:
        return line.decode(), None
    except UnicodeDecodeError as error:
        text = line.decode(errors="surrogateescape")
        said = f"is not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1}"
        if number == 1 and line.startswith(UTF_16):
            said = "is UTF-16; save the file as UTF-8"
        return text, LineFault("", said, number)


# -- JSONL -----------------------------------------------------------------------------------------------------------


def _jsonl_records(lines: Iterable[str | bytes], names: WireNames) -> Iterator[_Record]:
    for number, line in enumerate(lines, 1):
        text, fault = _decoded(number, line)
        if number == 1:
            text = text.removeprefix(BOM)
        if fault is not None:
            yield _Record(number, faults=(fault,))
            if fault.message.startswith("is UTF-16"):
                return
        elif text.strip():
            yield _json_record(number, text, names)


def _json_record(number: int, text: str, names: WireNames) -> _Record:
    if NUL in text:
        return _Record(number, faults=(LineFault("", "holds a NUL byte", number),))
    try:
        return _Record(number, load_draft(text, names=names))
    except DraftError as error:
        faults = (
            LineFault("" if fault.path == "draft" else fault.path, fault.message, number) for fault in error.faults
        )
        return _Record(number, faults=tuple(faults))


# -- CSV -------------------------------------------------------------------------------------------------------------

_INVOICE = ("key", "invoice_template_id", "payment_method", "has_tax_authority_code")
_CONSUMER = tuple(f"consumer_{name}" for name in fields_dict(Consumer))
_SUBMIT = tuple(f"submit_to_tax_{name}" for name in fields_dict(SubmitToTax))
_LINE = tuple(fields_dict(InvoiceLine))
_COLUMNS = frozenset({*_INVOICE, *_CONSUMER, *_SUBMIT, *_LINE})
_REQUIRED = ("key", "invoice_template_id", "name", "unit", "price", "quantity")
_EXTRA = "extra_"
_NUMBERS = frozenset({"price", "quantity", "tax_amount", "discount_amount", "amount"})
_FLAGS = frozenset(
    {"has_tax_authority_code", "submit_to_tax_send_mail", "submit_to_tax_automatic", "is_promotion"},
)
_CHOICES = {"payment_method": PaymentMethod, "vat_rate": VatRate}
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_COMMA = re.compile(r"[+-]?[0-9][0-9.\u00a0 ]*,[0-9]+")
_LINE_PATH = re.compile(r"lines\[([0-9]+)\](?:\.(.*))?")


@define
class _Row:
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


class _Numbered:
    """The lines of a file as text, for `csv`; it keeps what was not UTF-8 until the row that holds it is known."""

    def __init__(self, lines: Iterable[str | bytes]) -> None:
        self._lines = iter(lines)
        self.number = 0
        self.faults: list[LineFault] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        text, fault = _decoded(self.number, line)
        if fault is not None:
            self.faults.append(fault)
        return text.removeprefix(BOM) if self.number == 1 else text

    def taken(self) -> list[LineFault]:
        faults, self.faults = self.faults, []
        return faults


def _csv_records(lines: Iterable[str | bytes], names: WireNames) -> Iterator[_Record]:
    source = _Numbered(lines)
    head = _first_line(source)
    faults = source.taken()
    if head is None or faults:
        yield _Record(1, faults=tuple(faults) or (LineFault("", "there is no row of column names", 1),))
        return
    delimiter = ";" if head.count(";") > head.count(",") else ","
    header = [cell.strip() for cell in next(csv.reader([head], delimiter=delimiter), [])]
    at_fault = tuple(_header_faults(header, source.number))
    yield _Record(source.number, faults=at_fault)
    missing = frozenset(_REQUIRED) - set(header)
    for group in _groups(_rows(source, header, delimiter)):
        yield _grouped(group, missing, names)


def _first_line(source: _Numbered) -> str | None:
    return next((line for line in source if line.strip()), None)


def _header_faults(header: list[str], line: int) -> Iterator[LineFault]:
    for column in dict.fromkeys(header):
        shown = column[:SHOWN] or "(empty)"
        if header.count(column) > 1:
            yield LineFault("", "stands twice in the row of column names", line, shown)
        if not _is_known(column):
            near = get_close_matches(column, sorted(_COLUMNS), 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            yield LineFault("", f"is not a column that is known here{meant}", line, shown)
    for column in _REQUIRED:
        if column not in header:
            yield LineFault("", "is required and is not among the columns", line, column)


def _is_known(column: str) -> bool:
    return column in _COLUMNS or (column.startswith(_EXTRA) and column != _EXTRA)


def _rows(source: _Numbered, header: list[str], delimiter: str) -> Iterator[_Row]:
    """Give the rows that are not blank. A row may span lines; it counts as the one on which it begins."""
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        row = _Row(source.number + 1)
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row.fault(None, f"cannot be read as CSV: {error}; is a quote not closed or not doubled?")
            row.faults += source.taken()
            yield row
            continue
        broken = source.taken()
        if any(cell.strip() for cell in cells):
            _fill(row, header, cells)
            # What could be told by its column was; a byte in a cell beyond the header, say, could not.
            if broken and not any("UTF-8" in fault.message for fault in row.faults):
                row.faults += broken
            yield row


def _fill(row: _Row, header: list[str], cells: list[str]) -> None:
    if len(cells) != len(header):
        row.fault(None, f"has {len(cells)} cells, the row of column names has {len(header)}")
    for column, cell in zip(header, cells, strict=False):
        text = cell.strip()
        if text and _is_known(column):
            row.cells[column] = _converted(row, column, text)


def _converted(row: _Row, column: str, text: str) -> Any:
    """Convert a cell; one that cannot be is noted and kept as it is, so that the limits of the rest are checked."""
    if NUL in text:
        row.fault(column, "holds a NUL byte")
    elif not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        row.fault(column, "is not UTF-8")
    elif column in _NUMBERS:
        return _number(row, column, text)
    elif column in _FLAGS:
        return _flag(row, column, text)
    elif column in _CHOICES:
        return _CHOICES[column].__members__.get(text, text)
    elif column == "submit_to_tax_emails":
        return tuple(text.split())
    return text


def _number(row: _Row, column: str, text: str) -> Decimal | str:
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    why = ": a decimal comma is not understood" if _COMMA.fullmatch(text) else ""
    row.fault(column, f"must be digits with a decimal point, not {text[:SHOWN]!r}{why}")
    return text


def _flag(row: _Row, column: str, text: str) -> bool | str:
    flag = {"true": True, "false": False}.get(text.lower())
    if flag is None:
        row.fault(column, f"must be true or false, not {text[:SHOWN]!r}")
        return text
    return flag


def _groups(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    """Put rows that follow one another and have the same key together; one without a key stands alone.

    A row that could not be read counts to the invoice in which it stands.
    """
    group: list[_Row] = []
    for row in rows:
        key = row.cells.get("key")
        if group and row.cells and (key is None or key != group[0].cells.get("key")):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _grouped(group: list[_Row], missing: frozenset[str], names: WireNames) -> _Record:
    """Make one invoice of its rows, with every fault at its row and column."""
    first = group[0]
    sound = [row for row in group if row.sound]
    for row in sound[1:]:
        _same(row, first)
    found = [fault for row in group for fault in row.faults]
    if not first.sound:
        return _Record(first.line, faults=tuple(found))
    draft = _draft(sound)
    told = {(fault.line, fault.column) for fault in found}
    for fault in _rules.faults(draft, reserved=names.reserved):
        line, column = _place(fault.path, sound)
        if (line, column) not in told and column not in missing:
            told.add((line, column))
            found.append(LineFault(fault.path, fault.message, line, column))
    bad = found or missing
    return _Record(first.line, None if bad else draft, tuple(found), "key")


def _same(row: _Row, first: _Row) -> None:
    for column, value in row.cells.items():
        if column not in _LINE and value != first.cells.get(column):
            row.fault(column, f"differs from line {first.line}, where this invoice begins")


def _draft(group: list[_Row]) -> InvoiceDraft:
    cells = group[0].cells
    return InvoiceDraft(
        **{name: cells.get(name) for name in _INVOICE},  # type: ignore[arg-type] # wrong types are faults to be named
        lines=[InvoiceLine(**{name: row.cells.get(name) for name in _LINE}) for row in group],  # type: ignore[arg-type] # as above
        consumer=_part(cells, "consumer_", Consumer),
        submit_to_tax=_part(cells, "submit_to_tax_", SubmitToTax),
        extra={name.removeprefix(_EXTRA): value for name, value in cells.items() if name.startswith(_EXTRA)},
    )


def _part(cells: dict[str, Any], prefix: str, kind: type) -> Any:
    given = {name.removeprefix(prefix): value for name, value in cells.items() if name.startswith(prefix)}
    return kind(**given) if given else None


def _place(path: str, group: list[_Row]) -> tuple[int, str]:
    """Find the row and the column of a path such as `lines[1].price` or `consumer.tax_code`."""
    if at := _LINE_PATH.fullmatch(path):
        return group[int(at[1])].line, at[2]
    column = path.partition("[")[0].replace(".", "_", 1)
    return group[0].line, column

"""Drafts from files: JSONL, one draft a line, and CSV, one invoice line a row; every fault of a file at once.

Level 3 of the package, beside the features: it knows models, rules and the wire's reader, and nothing of a session.
Both readers take lines (an open file, in text or better in bytes, whose UTF-8 is then checked line by line) and give
drafts as they come. What is wrong is collected and raised as one `DraftsFileError` when the input ends, so whoever
takes the whole input before sending sends nothing of a file with a fault; `on_fault` takes the faults instead.

The columns of a CSV file (API.md B.1), in any order, named in its first row in any case; it is separated by commas,
semicolons or tabs:

- of the invoice: `key` and `invoice_template_id`, which are required, `payment_method`, `has_tax_authority_code`,
  `consumer_code`, `consumer_name`, `consumer_tax_code`, `consumer_address`, `consumer_citizen_identification`,
  `consumer_phone`, `consumer_buyer_name`, `consumer_bank_account`, `submit_to_tax_emails` (separated by blanks,
  commas or semicolons), `submit_to_tax_send_mail`, `submit_to_tax_automatic`, and `extra_NAME` for a text `NAME` in
  `extra`;
- of the line: `name`, `unit`, `price` and `quantity`, which are required, `code`, `tax_amount`, `discount_amount`,
  `vat_rate` (a name, or a rate as `8%`), `amount`, `is_promotion`.

Rows with the same `key` that follow one another are the lines of one invoice; its own columns may be left empty in the
rows after the first and must not differ there. Blanks around a value are dropped and an empty one is not given.
Numbers are digits with a decimal point, or as `decimal_mark` says; flags are `true` or `false`. What a spreadsheet
makes of a code (`3.12E+09`, `="0312345678"`) is a fault, and so is a number that can be read in two ways (`240.000`
where columns are not separated by commas).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from difflib import get_close_matches
from hashlib import sha256
from re import compile as compiled
from typing import Any

from attrs import define, evolve, field, fields_dict, frozen

from ._einvoices import rules
from ._einvoices.draft_json import load_draft
from ._einvoices.encode import dump_draft
from ._einvoices.shape import WireNames
from ._einvoices.spreadsheet import DecimalMark, addresses, code_fault, formula_fault, is_grouped, number, vat_rate
from ._values.table import BOM, Head, LineFault, Numbered, decoded, ended, head_of
from .errors import DraftError, Fault
from .models import Consumer, InvoiceDraft, InvoiceLine, PaymentMethod, SubmitToTax, unchecked

__all__ = ["COLUMNS", "DecimalMark", "DraftAt", "DraftsFileError", "LineFault", "read_csv", "read_jsonl"]

NUL = "\x00"
SHOWN = 40
"""Characters of a bad value that its fault shows."""


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
    lines: Iterable[str | bytes],
    *,
    names: WireNames | None = None,
    rounding: Decimal | None = None,
    on_fault: OnFault | None = None,
) -> Iterator[DraftAt]:
    """Give the drafts of a JSONL file as they come; blank lines count and mean nothing.

    The fields are those of `InvoiceDraft`, or the service's own object with a key beside it: `{"key": …,
    "invoice_data": {…}, "submit_to_tax_request": {…}}`, under the wire's `names`. A key that comes again must have
    the same content. `rounding` is the unit to which amounts may have been rounded. At the end raises
    `DraftsFileError` with every fault, each with line and path, unless `on_fault` took them.
    """
    unit = rules.rounding_unit(rounding)
    return _checked(_jsonl_records(lines, names or WireNames(), unit), on_fault)


def read_csv(
    lines: Iterable[str | bytes],
    *,
    names: WireNames | None = None,
    rounding: Decimal | None = None,
    decimal_mark: DecimalMark | None = None,
    on_fault: OnFault | None = None,
) -> Iterator[DraftAt]:
    """Give the drafts of a CSV file as they come; the columns are listed at the head of this module.

    A key that comes again, not in adjacent rows, must have the same content. `rounding` is the unit to which amounts
    may have been rounded; `decimal_mark` says what stands before the decimals in this file, the other mark then
    groups thousands. At the end raises `DraftsFileError` with every fault, each with line and column, unless
    `on_fault` took them.
    """
    if decimal_mark not in {None, ".", ","}:
        raise ValueError(f"decimal_mark must be '.', ',' or None, not {decimal_mark!r}")
    table = _Table(names or WireNames(), rules.rounding_unit(rounding), _Numbers(decimal_mark))
    return _checked(_csv_records(lines, table), on_fault)


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


def _canonical(draft: InvoiceDraft) -> InvoiceDraft:
    """Give a draft its key in the form in which keys are compared."""
    key = rules.canonical_key(draft.key)
    return draft if key == draft.key else evolve(draft, key=key)


# -- JSONL -----------------------------------------------------------------------------------------------------------


def _jsonl_records(lines: Iterable[str | bytes], names: WireNames, rounding: Decimal | None) -> Iterator[_Record]:
    for at, line in enumerate(_json_lines(lines), 1):
        text, fault = decoded(at, line)
        if at == 1:
            text = text.removeprefix(BOM)
        if fault is not None:
            yield _Record(at, faults=(fault,))
            if fault.message.startswith("is UTF-16"):
                return
        elif text.strip():
            yield _json_record(at, text, names, rounding)


def _json_lines(lines: Iterable[str | bytes]) -> Iterator[str | bytes]:
    """Part lines that end in CR alone. A draft that was given whole, with line feeds in it, stays whole."""
    for line in lines:
        whole = (b"\n" in line.rstrip(b"\r\n")) if isinstance(line, bytes) else ("\n" in line.rstrip("\r\n"))
        if whole:
            yield line
        else:
            yield from ended((line,))  # type: ignore[type-var] # it is one or the other


def _json_record(at: int, text: str, names: WireNames, rounding: Decimal | None) -> _Record:
    if NUL in text:
        return _Record(at, faults=(LineFault("", "holds a NUL byte", at),))
    try:
        draft = load_draft(text, names=names, rounding=rounding)
    except DraftError as error:
        faults = (LineFault("" if fault.path == "draft" else fault.path, fault.message, at) for fault in error.faults)
        return _Record(at, faults=tuple(faults))
    odd = tuple(LineFault(path, message, at) for path, message in _code_faults(draft))
    return _Record(at, _canonical(draft), odd)


def _code_faults(draft: InvoiceDraft) -> Iterator[tuple[str, str]]:
    """Give what a spreadsheet did to the codes of a draft, each with its path."""
    codes = [("key", draft.key)]
    codes += [(f"consumer.{name}", getattr(draft.consumer, name, None) or "") for name in _CONSUMER_CODES]
    codes += [(f"lines[{index}].code", line.code or "") for index, line in enumerate(draft.lines)]
    return ((path, message) for path, code in codes if (message := code_fault(code)))


# -- CSV -------------------------------------------------------------------------------------------------------------

_INVOICE = ("key", "invoice_template_id", "payment_method", "has_tax_authority_code")
_CONSUMER = tuple(f"consumer_{name}" for name in fields_dict(Consumer))
_SUBMIT = tuple(f"submit_to_tax_{name}" for name in fields_dict(SubmitToTax))
_LINE = tuple(fields_dict(InvoiceLine))
COLUMNS = (*_INVOICE, *_CONSUMER, *_SUBMIT, *_LINE)
"""The columns of a CSV file, `extra_NAME` apart."""

_REQUIRED = ("key", "invoice_template_id", "name", "unit", "price", "quantity")
_EXTRA = "extra_"
_NUMBERS = frozenset({"price", "quantity", "tax_amount", "discount_amount", "amount"})
_FLAGS = frozenset(
    {"has_tax_authority_code", "submit_to_tax_send_mail", "submit_to_tax_automatic", "is_promotion"},
)
_CONSUMER_CODES = ("code", "tax_code", "citizen_identification", "phone", "bank_account")
_CODES = frozenset({"key", "code", *(f"consumer_{name}" for name in _CONSUMER_CODES)})
_NAMELESS = "(no name)"
_LINE_PATH = compiled(r"lines\[([0-9]+)\](?:\.(.*))?")


@define
class _Numbers:
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
        """Give the fault of the whole file if numbers were read before a comma told that points may group."""
        if self.comma is None or self.grouped is None or self.points_may_group or self.grouped[0] > self.comma:
            return ()
        line, text = self.grouped
        said = f"a number on line {self.comma} has a comma, so {text} on line {line} may be a thousand"
        return (LineFault("", f"{said}: say the decimal mark (--decimal-mark)", head),)


@frozen
class _Table:
    """How the rows of a file are read."""

    names: WireNames
    rounding: Decimal | None
    numbers: _Numbers


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


def _csv_records(lines: Iterable[str | bytes], table: _Table) -> Iterator[_Record]:
    source = Numbered(lines)
    head = head_of(source)
    faults = source.taken()
    if isinstance(head, LineFault) or faults:
        yield _Record(1, faults=tuple(faults) or (head,))  # type: ignore[arg-type] # without faults it is one
        return
    table.numbers.points_may_group = head.delimiter != ","
    header = [_column(name) for name in head.names]
    yield _Record(head.line, faults=tuple(_header_faults(header, head.line)))
    missing = frozenset(_REQUIRED) - set(header)
    for group in _groups(_rows(source, head, header, table)):
        yield _grouped(group, missing, table)
    yield _Record(head.line, faults=table.numbers.fault(head.line))


def _column(name: str) -> str:
    """Give a column by the name that is known, which may be written in any case."""
    lower = name.lower()
    if lower.startswith(_EXTRA):
        return _EXTRA + name[len(_EXTRA) :]
    return lower if lower in COLUMNS else name


def _header_faults(header: list[str], line: int) -> Iterator[LineFault]:
    for column in filter(None, dict.fromkeys(header)):
        shown = column[:SHOWN]
        if header.count(column) > 1:
            yield LineFault("", "stands twice in the row of column names", line, shown)
        if not _is_known(column):
            near = get_close_matches(column.lower(), sorted(COLUMNS), 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            yield LineFault("", f"is not a column that is known here{meant}", line, shown)
    for column in _REQUIRED:
        if column not in header:
            yield LineFault("", "is required and is not among the columns", line, column)


def _is_known(column: str) -> bool:
    return column in COLUMNS or (column.startswith(_EXTRA) and column != _EXTRA)


def _rows(source: Numbered, head: Head, header: list[str], table: _Table) -> Iterator[_Row]:
    """Give the rows that are not blank. A row may span lines; it counts as the one on which it begins."""
    reader = csv.reader(source, delimiter=head.delimiter, strict=True)
    while True:
        row = _Row(source.number + 1)
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            row.fault(None, f"cannot be read as CSV: {error}; is a quote not closed or not doubled?")
            row.faults += source.taken()
            yield row
            continue
        broken = source.taken()
        if any(cells) and not _is_head(cells, head):
            _fill(row, header, cells, table.numbers)
            # What could be told by its column was; a byte in a cell beyond the header, say, could not.
            if broken and not any("UTF-8" in fault.message for fault in row.faults):
                row.faults += broken
            yield row


def _is_head(cells: list[str], head: Head) -> bool:
    """Tell whether a row is the row of column names again, as it is where two files were put together."""
    return cells[-1] == head.names[-1] and [cells[0].removeprefix(BOM), *cells[1:]] == [*head.names]


def _fill(row: _Row, header: list[str], cells: list[str], numbers: _Numbers) -> None:
    while len(cells) > len(header) and not cells[-1]:
        cells.pop()
    if len(cells) != len(header):
        row.fault(None, f"has {len(cells)} cells, the row of column names has {len(header)}")
    for column, text in zip(header, cells, strict=False):
        if text and not column:
            row.fault(_NAMELESS, f"holds {text[:SHOWN]!r} in a column that has no name")
        elif text and _is_known(column):
            row.cells[column] = _converted(row, column, text, numbers)


def _converted(row: _Row, column: str, text: str, numbers: _Numbers) -> Any:
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
    if column in _CODES or column.startswith(_EXTRA):
        return code_fault(text)
    return formula_fault(text) or ("holds a byte order mark, U+FEFF" if BOM in text else "")


def _read(row: _Row, column: str, found: Any, text: str) -> Any:
    """Give what was read of a cell, or note its fault and give the text."""
    if not isinstance(found, Fault):
        return found
    row.fault(column, found.message)
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


def _grouped(group: list[_Row], missing: frozenset[str], table: _Table) -> _Record:
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
    for fault in rules.faults(draft, reserved=table.names.reserved, rounding=table.rounding):
        line, column = _place(fault.path, sound)
        if (line, column) not in told and column not in missing:
            told.add((line, column))
            found.append(LineFault(fault.path, fault.message, line, column))
    bad = found or missing
    return _Record(first.line, None if bad else _canonical(draft), tuple(found), "key")


def _same(row: _Row, first: _Row) -> None:
    for column, value in row.cells.items():
        if column not in _LINE and value != first.cells.get(column):
            row.fault(column, f"differs from line {first.line}, where this invoice begins")


def _draft(group: list[_Row]) -> InvoiceDraft:
    cells = group[0].cells
    return unchecked(
        InvoiceDraft,
        **{name: cells.get(name) for name in _INVOICE},
        lines=[unchecked(InvoiceLine, **{name: row.cells.get(name) for name in _LINE}) for row in group],
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

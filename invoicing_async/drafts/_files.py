"""Drafts from a file, whatever its format: every fault at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from hashlib import sha256

from .._einvoices import rules
from .._einvoices.encode import dump_draft
from .._einvoices.shape import WireNames
from .._einvoices.spreadsheet import DecimalMark
from .._values.table import LineFault
from ._csv_cells import Numbers, Table
from ._csv_rows import csv_records
from ._jsonl import jsonl_records
from ._records import DraftAt, DraftsFileError, Record

__all__ = ["read_csv", "read_jsonl"]

OnFault = Callable[[LineFault], None]


def read_jsonl(
    lines: Iterable[str | bytes],
    *,
    names: WireNames | None = None,
    rounding: Decimal | None = None,
    on_fault: OnFault | None = None,
) -> Iterator[DraftAt]:
    """Return the drafts of a JSONL file as they come; blank lines count and mean nothing.

    The fields are those of `InvoiceDraft`, or the service's own object with a key beside it: `{"key": …,
    "invoice_data": {…}, "submit_to_tax_request": {…}}`, under the wire's `names`. A key that comes again must have
    the same content. `rounding` is the unit to which amounts may have been rounded. At the end raises
    `DraftsFileError` with every fault, each with line and path, unless `on_fault` took them.
    """
    unit = rules.rounding_unit(rounding)
    return _checked(_compared(jsonl_records(lines, names or WireNames(), unit)), on_fault)


def read_csv(
    lines: Iterable[str | bytes],
    *,
    names: WireNames | None = None,
    rounding: Decimal | None = None,
    decimal_mark: DecimalMark | None = None,
    on_fault: OnFault | None = None,
) -> Iterator[DraftAt]:
    """Return the drafts of a CSV file; `COLUMNS` are its columns.

    Adjacent rows of one key are one invoice. A key that comes back after other rows, with the same content or not, is
    a fault of each of its rows, and none of them becomes a draft; nor does what stands beside a row of which nobody can
    tell whose it is. So the whole file is read before the first draft.
    `rounding` is the unit to which amounts may have been rounded; `decimal_mark` says what stands before the decimals
    in this file, the other mark then groups thousands. At the end raises `DraftsFileError` with every fault, each with
    line and column, unless `on_fault` took them.
    """
    if decimal_mark not in {None, ".", ","}:
        raise ValueError(f"decimal_mark must be '.', ',' or None, not {decimal_mark!r}")
    table = Table(names or WireNames(), rules.rounding_unit(rounding), Numbers(decimal_mark))
    return _checked(csv_records(lines, table), on_fault)


def _checked(records: Iterator[Record], on_fault: OnFault | None) -> Iterator[DraftAt]:
    collected: list[LineFault] = []
    tell = on_fault or collected.append
    for record in records:
        for fault in record.faults:
            tell(fault)
        if record.draft is not None and not record.faults:
            yield DraftAt(record.line, record.draft)
    if collected:
        raise DraftsFileError(tuple(sorted(collected, key=lambda fault: fault.line)))


def _compared(records: Iterator[Record]) -> Iterator[Record]:
    """Yield the records, with a fault where a key comes again with other content."""
    first: dict[str, tuple[int, bytes]] = {}
    for record in records:
        draft = record.draft
        if draft is None or record.faults:
            yield record
            continue
        content = sha256(dump_draft(draft).encode()).digest()[:16]
        line, known = first.setdefault(draft.key, (record.line, content))
        message = f"{draft.key!r} stands on line {line} with other content; each invoice has a key of its own"
        yield record if content == known else Record(record.line, faults=(LineFault("key", message, record.line),))

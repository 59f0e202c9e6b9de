"""Drafts from a file: the sendable ones with their lines, and every fault of the rest, before anything is sent."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from attrs import evolve, field, fields_dict, frozen
from cyclopts import Group, Parameter

from ...drafts import (
    COLUMNS,
    DecimalMark,
    Head,
    LineFault,
    Numbered,
    WireNames,
    head_of,
    read_csv,
    read_jsonl,
    rounding_unit,
)
from ...models import Consumer, InvoiceDraft, InvoiceLine, PaymentMethod, SubmitToTax, VatRate
from ..exits import CommandError, checked
from ..terminal.output import plain
from ..terminal.rows import Row
from .ids import opened, raw_lines

__all__ = ["DRAFTS_HELP", "BadDraft", "Drafts", "Format", "Reading", "example", "example_csv", "read_drafts"]

Format: TypeAlias = Literal["jsonl", "csv"]
DRAFTS_HELP = (
    "A file of drafts, or - for stdin: JSONL, one draft a line, as `invoices example` shows, or the service's own "
    'object with a key beside it ({"key": …, "invoice_data": …}); or CSV, one invoice line a row, the rows of one key '
    f"together, as `invoices example --format csv` shows. Columns of a CSV: {', '.join(COLUMNS)}, extra_NAME."
)


@Parameter(name="*", group=Group("Drafts", sort_key=5))
@frozen(kw_only=True)
class Reading:
    """How a file of drafts is to be read."""

    form: Annotated[
        Format | None,
        Parameter(name="--format", help="What the file is; without it, CSV if its name ends so, else JSONL."),
    ] = None
    decimal_mark: Annotated[
        DecimalMark | None,
        Parameter(
            help="What stands before the decimals in a CSV: with a comma, 240.000 is 240000 and 1.234,5 is 1234.5."
        ),
    ] = None
    rounding: Annotated[
        Decimal | None,
        Parameter(help="The unit to which line amounts may have been rounded: 1 for whole dong. Exact without it."),
    ] = None


@frozen
class BadDraft:
    """A draft that cannot be sent: the line on which it begins, its key if it has one, all its faults."""

    line: int
    key: str
    faults: tuple[LineFault, ...]

    @property
    def error(self) -> str:
        """All faults in one line."""
        return "; ".join(map(plain, self.faults))

    def row(self) -> Row:
        """Return it as an outcome."""
        faults = [
            {"line": fault.line, "column": fault.column, "path": fault.path, "message": fault.message}
            for fault in self.faults
        ]
        return {"key": self.key, "line": self.line, "outcome": "invalid", "error": self.error, "faults": faults}


@frozen
class Drafts:
    """What a file holds: the drafts that can be sent, with their lines by key, and the rest.

    `repeated` are keys that came again with the same content, with their lines. With `head`, the row of column
    names has faults itself: then no cell can be trusted. `rounding` is the unit that amounts were judged by.
    """

    good: list[InvoiceDraft] = field(factory=list)
    lines: dict[str, int] = field(factory=dict)
    repeated: list[tuple[str, int]] = field(factory=list)
    bad: list[BadDraft] = field(factory=list)
    head: bool = False
    rounding: Decimal | None = None

    @property
    def count(self) -> int:
        """How many drafts the file has, whatever they are."""
        return len(self.good) + len(self.repeated) + len(self.bad)

    def repeated_rows(self) -> list[Row]:
        """Return the keys that came again as outcomes."""
        return [{"key": key, "line": line, "outcome": "duplicate"} for key, line in self.repeated]


def read_drafts(where: str, names: WireNames, reading: Reading | None = None) -> Drafts:
    """Read all drafts of a file, or of stdin for `-`: CSV by the name's ending or as `reading` says, else JSONL.

    Raises `CommandError` for a file that cannot be read, and for settings that do not go with it.
    """
    reading = reading or Reading()
    is_csv = reading.form == "csv" or (reading.form is None and Path(where).suffix.lower() == ".csv")
    if reading.decimal_mark is not None and not is_csv:
        raise CommandError("--decimal-mark is for CSV: numbers in JSON have a decimal point")
    checked(lambda: rounding_unit(reading.rounding), "--rounding")
    lines, faults = list(raw_lines(opened(where), where)), list[LineFault]()
    shared: dict[str, Any] = {"names": names, "rounding": reading.rounding, "on_fault": faults.append}
    if is_csv:
        found = list(read_csv(lines, decimal_mark=reading.decimal_mark, **shared))
        head = head_of(Numbered(lines))
        drafts = Drafts(head=any(fault.line <= head.line for fault in faults), rounding=reading.rounding)
        keys = dict(_csv_keys(lines, head)) if faults and isinstance(head, Head) else {}
        groups = _grouped(faults, keys)
    else:
        found, drafts = list(read_jsonl(lines, **shared)), Drafts(rounding=reading.rounding)
        keys = {fault.line: _json_key(lines[fault.line - 1]) for fault in faults}
        groups = _grouped(faults, {})
    for at in found:
        if drafts.lines.setdefault(at.draft.key, at.line) == at.line:
            drafts.good.append(at.draft)
        else:
            drafts.repeated.append((at.draft.key, at.line))
    drafts.bad.extend(BadDraft(group[0].line, keys.get(group[0].line, ""), group) for group in groups)
    return drafts


def _grouped(faults: list[LineFault], keys: dict[int, str]) -> Iterator[tuple[LineFault, ...]]:
    """Put the faults of one draft together: those of one line, and of lines in a row with the same key."""
    group: list[LineFault] = []
    for fault in sorted(faults, key=lambda fault: fault.line):
        line, before, key = fault.line, group[-1].line if group else 0, keys.get(fault.line)
        alike = key is not None and keys.get(before) == key
        if group and line != before and not (alike and all(keys.get(n, key) == key for n in range(before, line))):
            yield tuple(group)
            group = []
        group.append(fault)
    if group:
        yield tuple(group)


def _json_key(line: bytes) -> str:
    """Return the key of a line, if it has one, whatever else is wrong with it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    key = record.get("key") if isinstance(record, dict) else None
    return key if isinstance(key, str) else ""


def _csv_keys(lines: list[bytes], head: Head) -> Iterator[tuple[int, str]]:
    """Yield the key of every row that has one, by the line on which the row begins."""
    texts = [line.decode("utf-8", "replace") for line in lines[head.line :]]
    reader = csv.reader(texts, delimiter=head.delimiter)
    names = [name.lower() for name in head.names]
    begins = 1
    try:
        for row in reader:
            cell = row[names.index("key")].strip() if len(row) > names.index("key") else ""
            if cell:
                yield head.line + begins, cell
            begins = reader.line_num + 1
    except (csv.Error, ValueError):  # the faults of the file say so
        return


def example(number: int = 1) -> InvoiceDraft:
    """Make up a draft that uses most fields."""
    line = InvoiceLine(
        name="Rattan desk lamp",
        unit="piece",
        code=f"LAMP-{number:02}",
        price=Decimal("240000.50"),
        quantity=Decimal(2),
        discount_amount=Decimal(10_000),
        vat_rate=VatRate.TEN,
        tax_amount=Decimal("47000.10"),
    )
    return InvoiceDraft(
        key=f"ORDER-{number:04}",
        invoice_template_id="3fa85f64-5717-4562-b3fc-2c963f66afa6",
        lines=(evolve(line, amount=line.price * line.quantity - (line.discount_amount or 0)),),
        consumer=Consumer(name="Nguyen Van An", tax_code="0101243150", address="1 Trang Tien, Ha Noi"),
        payment_method=PaymentMethod.BANK_TRANSFER,
    )


def example_csv(count: int) -> str:
    """Return example drafts as CSV, with every column; each has two lines."""
    drafts = [example(number) for number in range(1, count + 1)]
    delivery = InvoiceLine(name="Delivery", unit="trip", price=30_000, quantity=1, vat_rate=VatRate.TEN, amount=30_000)
    parts = {"consumer": Consumer, "submit_to_tax": SubmitToTax}
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for draft in drafts:
        about = ("key", "invoice_template_id", "payment_method", "has_tax_authority_code")
        row = {name: getattr(draft, name) for name in about}
        for part, of in parts.items():
            row |= {f"{part}_{name}": getattr(getattr(draft, part), name, None) for name in fields_dict(of)}
        for line in (*draft.lines, delivery):
            row |= {name: getattr(line, name) for name in fields_dict(InvoiceLine)}
            writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, tuple) else f"{value:f}" if isinstance(value, Decimal) else str(value)

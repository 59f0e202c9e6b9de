"""Drafts from a file: the sendable ones with their lines, and every fault of the rest, before anything is sent."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeAlias

from attrs import evolve, field, frozen

from .._wire import WireNames
from ..drafts import LineFault, read_csv, read_jsonl
from ..models import Consumer, InvoiceDraft, InvoiceLine, PaymentMethod, VatRate
from .ids import opened, raw_lines
from .rows import Row
from .screen import plain

__all__ = ["BadDraft", "Drafts", "Format", "example", "read_drafts"]

Format: TypeAlias = Literal["jsonl", "csv"]


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
        """Give it as an outcome."""
        faults = [
            {"line": fault.line, "column": fault.column, "path": fault.path, "message": fault.message}
            for fault in self.faults
        ]
        return {"key": self.key, "line": self.line, "outcome": "invalid", "error": self.error, "faults": faults}


@frozen
class Drafts:
    """What a file holds: the drafts that can be sent, with their lines by key, and the rest.

    `repeated` are keys that came again with the same content, with their lines. With `head`, the row of column
    names has faults itself: then no cell can be trusted.
    """

    good: list[InvoiceDraft] = field(factory=list)
    lines: dict[str, int] = field(factory=dict)
    repeated: list[tuple[str, int]] = field(factory=list)
    bad: list[BadDraft] = field(factory=list)
    head: bool = False

    @property
    def count(self) -> int:
        """How many drafts the file has, whatever they are."""
        return len(self.good) + len(self.repeated) + len(self.bad)

    def repeated_rows(self) -> list[Row]:
        """Give the keys that came again as outcomes."""
        return [{"key": key, "line": line, "outcome": "duplicate"} for key, line in self.repeated]


def read_drafts(where: str, names: WireNames, form: Format | None = None) -> Drafts:
    """Read all drafts of a file, or of stdin for `-`: CSV by the name's ending or `form`, else JSONL.

    Raises `CommandError` for a file that cannot be read.
    """
    is_csv = form == "csv" or (form is None and Path(where).suffix.lower() == ".csv")
    return (_from_csv if is_csv else _from_jsonl)(list(raw_lines(opened(where), where)), names)


def _from_jsonl(lines: list[bytes], names: WireNames) -> Drafts:
    faults: list[LineFault] = []
    drafts = Drafts()
    for found in read_jsonl(lines, names=names, on_fault=faults.append):
        _enter(drafts, found.draft, found.line)
    for group in _grouped(faults, {}):
        drafts.bad.append(BadDraft(group[0].line, _json_key(lines[group[0].line - 1]), group))
    return drafts


def _from_csv(lines: list[bytes], names: WireNames) -> Drafts:
    faults: list[LineFault] = []
    found = list(read_csv(lines, names=names, on_fault=faults.append))
    first = next((number for number, line in enumerate(lines, 1) if line.strip()), 1)
    drafts = Drafts(head=any(fault.line <= first for fault in faults))
    for at in found:
        _enter(drafts, at.draft, at.line)
    keys = dict(_csv_keys(lines)) if faults else {}
    for group in _grouped(faults, keys):
        drafts.bad.append(BadDraft(group[0].line, keys.get(group[0].line, ""), group))
    return drafts


def _enter(drafts: Drafts, draft: InvoiceDraft, line: int) -> None:
    if drafts.lines.setdefault(draft.key, line) == line:
        drafts.good.append(draft)
    else:
        drafts.repeated.append((draft.key, line))


def _grouped(faults: list[LineFault], keys: dict[int, str]) -> Iterator[tuple[LineFault, ...]]:
    """Put the faults of one draft together: those of one line, and of lines in a row with the same key."""
    group: list[LineFault] = []
    for fault in sorted(faults, key=lambda fault: fault.line):
        if group and not _together(group[-1].line, fault.line, keys):
            yield tuple(group)
            group = []
        group.append(fault)
    if group:
        yield tuple(group)


def _together(before: int, line: int, keys: dict[int, str]) -> bool:
    key = keys.get(line)
    return line == before or (
        key is not None
        and keys.get(before) == key
        and all(keys.get(other, key) == key for other in range(before, line))
    )


def _json_key(line: bytes) -> str:
    """Give the key of a line, if it has one, whatever else is wrong with it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    key = record.get("key") if isinstance(record, dict) else None
    return key if isinstance(key, str) else ""


def _csv_keys(lines: list[bytes]) -> Iterator[tuple[int, str]]:
    """Give the key of every row that has one, by the line on which the row begins."""
    texts = [line.decode("utf-8-sig", "replace") for line in lines]
    head = next(filter(str.strip, texts), "")
    reader = csv.reader(texts, delimiter=";" if head.count(";") > head.count(",") else ",")
    column, begins = -1, 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if column < 0 and any(cells):
                column = cells.index("key")
            elif 0 <= column < len(cells) and cells[column]:
                yield begins, cells[column]
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

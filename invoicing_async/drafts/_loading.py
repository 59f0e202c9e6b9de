"""All drafts of a file at once: those that can be sent, and every fault of the rest, put together by draft."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from .._einvoices import rules
from .._einvoices.shape import WireNames
from .._einvoices.spreadsheet import DecimalMark
from .._values.table import Head, LineFault, Numbered, head_of
from ..models import InvoiceDraft
from ._files import read_csv, read_jsonl

__all__ = ["BadDraft", "Drafts", "Format", "load_drafts"]

Format: TypeAlias = Literal["jsonl", "csv"]


@frozen
class BadDraft:
    """A draft that cannot be sent: the line on which it begins, its key if it has one, all its faults."""

    line: int
    key: str
    faults: tuple[LineFault, ...]

    @property
    def error(self) -> str:
        """All faults in one line; a character of the file that cannot be printed is replaced."""
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in "; ".join(map(str, self.faults)))


@frozen
class Drafts:
    """What a file holds: the drafts that can be sent, with their lines by key, and the rest.

    `repeated` are keys of JSONL that came again with the same content, with their lines. With `head`, the row of column
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


def load_drafts(
    lines: Iterable[bytes],
    form: Format,
    *,
    names: WireNames | None = None,
    rounding: Decimal | None = None,
    decimal_mark: DecimalMark | None = None,
) -> Drafts:
    """Load all drafts of a file, as `read_csv` and `read_jsonl` read them, and put the faults together by draft.

    So the drafts without faults can be sent, and each of the others be told of as one; rows of a CSV with one key that
    stand apart are told of place by place, and none of them is sent. It raises nothing for a fault of the file; it
    raises `ValueError` for a `rounding` that is no unit, and for a `decimal_mark` that is none or that is given for
    JSONL.
    """
    lines, faults = list(lines), list[LineFault]()
    shared: dict[str, Any] = {"names": names, "rounding": rounding, "on_fault": faults.append}
    if form == "csv":
        found = list(read_csv(lines, decimal_mark=decimal_mark, **shared))
        head = head_of(Numbered(lines))
        drafts = Drafts(head=any(fault.line <= head.line for fault in faults), rounding=rounding)
        keys = dict(_csv_keys(lines, head)) if faults and isinstance(head, Head) else {}
        groups = _grouped(faults, keys)
    else:
        if decimal_mark is not None:
            raise ValueError("decimal_mark is for CSV: numbers in JSON have a decimal point")
        found, drafts = list(read_jsonl(lines, **shared)), Drafts(rounding=rounding)
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
                yield head.line + begins, rules.canonical_key(cell)
            begins = reader.line_num + 1
    except (csv.Error, ValueError):  # the faults of the file say so
        return

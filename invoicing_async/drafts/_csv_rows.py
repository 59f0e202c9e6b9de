"""One invoice line a row: rows to drafts."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import chain
from typing import Any

from attrs import evolve, frozen

from .._einvoices import rules
from .._values.table import BOM, Head, LineFault, Numbered, head_of
from ..models import Consumer, InvoiceDraft, InvoiceLine, SubmitToTax, unchecked
from ._csv_cells import COLUMNS, EXTRA, INVOICE, LINE, LINE_PATH, NAMELESS, REQUIRED, Numbers, Row, Table, converted
from ._records import SHOWN, Record, canonical

__all__ = ["csv_records"]

_MAY_LACK = "may lack the row on line {}, of which nobody can tell whose it is"

_PLACES = 5
"""Places of one key that a fault names."""


@frozen
class _Stretch:
    """Rows of one key that follow one another: the lines on which they begin, and the invoice read from them.

    `before` and `after` are the lines of its first and its last row if these may be another invoice's, else None.
    """

    key: str | None
    lines: tuple[int, ...]
    record: Record
    before: int | None
    after: int | None


def csv_records(lines: Iterable[str | bytes], table: Table) -> Iterator[Record]:
    source = Numbered(lines)
    head = head_of(source)
    faults = source.taken()
    if isinstance(head, LineFault) or faults:
        yield Record(1, faults=tuple(faults) or (head,))  # type: ignore[arg-type] # without faults it is one
        return
    table.numbers.points_may_group = head.delimiter != ","
    header = [_column(name) for name in head.names]
    for column in filter(None, dict.fromkeys(header)):
        shown = column[:SHOWN]
        if header.count(column) > 1:
            faults.append(LineFault("", "stands twice in the row of column names", head.line, shown))
        if not _is_known(column):
            near = get_close_matches(column.lower(), sorted(COLUMNS), 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            faults.append(LineFault("", f"is not a column that is known here{meant}", head.line, shown))
    missing = frozenset(REQUIRED) - set(header)
    absent = (column for column in REQUIRED if column in missing)
    faults += [LineFault("", "is required and is not among the columns", head.line, column) for column in absent]
    yield Record(head.line, faults=tuple(faults))
    groups = _groups(_rows(source, head, header, table))
    stretches = [_stretch(group, missing, table) for group in groups]
    yield Record(head.line, faults=table.numbers.fault(head.line))
    yield from _whole(stretches)


def _column(name: str) -> str:
    """Return a column by the name that is known, which may be written in any case."""
    lower = name.lower()
    if lower.startswith(EXTRA):
        return EXTRA + name[len(EXTRA) :]
    return lower if lower in COLUMNS else name


def _is_known(column: str) -> bool:
    return column in COLUMNS or (column.startswith(EXTRA) and column != EXTRA)


def _rows(source: Numbered, head: Head, header: list[str], table: Table) -> Iterator[Row]:
    """Yield the rows that are not blank. A row may span lines; it counts as the one on which it begins."""
    reader = csv.reader(source, delimiter=head.delimiter, strict=True)
    while True:
        row = Row(source.number + 1)
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
        # Where two files were put together the row of column names stands there again.
        is_head = cells[-1:] == [head.names[-1]] and [cells[0].removeprefix(BOM), *cells[1:]] == [*head.names]
        if any(cells) and not is_head:
            _fill(row, header, cells, table.numbers)
            # What could be told by its column was; a byte in a cell beyond the header, say, could not.
            if broken and not any("UTF-8" in fault.message for fault in row.faults):
                row.faults += broken
            yield row


def _fill(row: Row, header: list[str], cells: list[str], numbers: Numbers) -> None:
    while len(cells) > len(header) and not cells[-1]:
        cells.pop()
    if len(cells) != len(header):
        row.fault(None, f"has {len(cells)} cells, the row of column names has {len(header)}")
    for column, text in zip(header, cells, strict=False):
        if text and not column:
            row.fault(NAMELESS, f"holds {text[:SHOWN]!r} in a column that has no name")
        elif text and _is_known(column):
            row.cells[column] = converted(row, column, text, numbers)


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Put rows that follow one another and have the same key together; one without a key stands alone.

    A row that could not be read counts to the invoice in which it stands.
    """
    group: list[Row] = []
    for row in rows:
        key = _key(row)
        if group and row.cells and (key is None or key != _key(group[0])):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _key(row: Row) -> str | None:
    key = row.cells.get("key")
    return None if key is None else rules.canonical_key(key)


def _stretch(group: list[Row], missing: frozenset[str], table: Table) -> _Stretch:
    first, last = group[0], group[-1]
    return _Stretch(
        key=_key(first),
        lines=tuple(row.line for row in group if row.cells),
        record=_grouped(group, missing, table),
        before=first.line if _key(first) is None else None,
        after=last.line if _key(last) is None else None,
    )


def _whole(stretches: list[_Stretch]) -> Iterator[Record]:
    """Yield each invoice; one that may not be whole is withheld, with a fault at its rows.

    Where a key comes back after other rows, nobody can tell whether they are one invoice or two; and a row without a
    key, or one that cannot be read, may be the last of the invoice above it or the first of the one below.
    """
    places = defaultdict[str, list[tuple[int, ...]]](list)
    for stretch in stretches:
        if stretch.key is not None:
            places[stretch.key].append(stretch.lines)
    apart = {key: _apart(key, found) for key, found in places.items() if len(found) > 1}
    above = chain((None,), (stretch.after for stretch in stretches))
    below = chain((stretch.before for stretch in stretches[1:]), (None,))
    for stretch, *beside in zip(stretches, above, below, strict=False):
        faults = [LineFault("", _MAY_LACK.format(line), stretch.record.line, "key") for line in beside if line]
        if message := apart.get(stretch.key or ""):
            faults += [LineFault("", message, line, "key") for line in stretch.lines]
        if faults and stretch.key is not None:
            yield evolve(stretch.record, draft=None, faults=(*stretch.record.faults, *faults))
        else:
            yield stretch.record


def _apart(key: str, places: list[tuple[int, ...]]) -> str:
    shown = [str(lines[0]) if len(lines) == 1 else f"{lines[0]}-{lines[-1]}" for lines in places[:_PLACES]]
    more = f" and {len(places) - _PLACES:,} more places" if len(places) > _PLACES else ""
    said = f"{key[:SHOWN]!r} stands on lines {', '.join(shown)}{more}, with other rows between"
    return f"{said}: put the rows of an invoice together, and give each invoice a key of its own"


def _grouped(group: list[Row], missing: frozenset[str], table: Table) -> Record:
    """Make one invoice of its rows, with every fault at its row and column."""
    first = group[0]
    sound = [row for row in group if row.sound]
    for row in sound[1:]:
        for column, value in row.cells.items():
            if column not in LINE and column != "key" and value != first.cells.get(column):
                row.fault(column, f"differs from line {first.line}, where this invoice begins")
    found = [fault for row in group for fault in row.faults]
    if not first.sound:
        return Record(first.line, faults=tuple(found))
    draft = _draft(sound)
    told = {(fault.line, fault.column) for fault in found}
    for fault in rules.faults(draft, reserved=table.names.reserved, rounding=table.rounding):
        line, column = _place(fault.path, sound)
        if (line, column) not in told and column not in missing:
            told.add((line, column))
            found.append(LineFault(fault.path, fault.message, line, column))
    bad = found or missing
    return Record(first.line, None if bad else canonical(draft), tuple(found))


def _draft(group: list[Row]) -> InvoiceDraft:
    cells = group[0].cells
    return unchecked(
        InvoiceDraft,
        **{name: cells.get(name) for name in INVOICE},
        lines=[unchecked(InvoiceLine, **{name: row.cells.get(name) for name in LINE}) for row in group],
        consumer=_part(cells, "consumer_", Consumer),
        submit_to_tax=_part(cells, "submit_to_tax_", SubmitToTax),
        extra={name.removeprefix(EXTRA): value for name, value in cells.items() if name.startswith(EXTRA)},
    )


def _part(cells: dict[str, Any], prefix: str, kind: type) -> Any:
    given = {name.removeprefix(prefix): value for name, value in cells.items() if name.startswith(prefix)}
    return kind(**given) if given else None


def _place(path: str, group: list[Row]) -> tuple[int, str]:
    """Find the row and the column of a path such as `lines[1].price` or `consumer.tax_code`."""
    if at := LINE_PATH.fullmatch(path):
        return group[int(at[1])].line, at[2]
    column = path.partition("[")[0].replace(".", "_", 1)
    return group[0].line, column

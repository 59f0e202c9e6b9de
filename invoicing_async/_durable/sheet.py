"""Invoices as a person knows them: what one is looked up by, and the sheet on which many are answered at once.

`entries` lists items with what they are looked up by, `sheet_head` and `sheet_line` write them as CSV; that is filled
in, and read back by `read_answers`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from functools import reduce
from typing import ClassVar
from unicodedata import normalize

from attrs import frozen

from .._einvoices.rules import NO_UUID, UUID
from .._values.cells import BOM, csv_line, original
from ..drafts import LineFault
from ..errors import InvoicingError, Sent
from .answers import RecordedAnswer, recorded_answer
from .protocol import LedgerReader
from .records import Item
from .states import State

__all__ = [
    "COLUMNS",
    "Answer",
    "AnswersError",
    "Contents",
    "Entry",
    "contents",
    "contents_of",
    "entries",
    "number_of",
    "read_answers",
    "sheet_head",
    "sheet_line",
]

COLUMNS = (
    "item",
    "key",
    "state",
    "buyer",
    "tax_code",
    "amount",
    "sent_at",
    "http_status",
    "code",
    "said",
    "named_ids",
    "answer",
    "request_id",
)
"""The columns of a sheet; `answer` and `request_id` are to be filled in."""

_EXACT = Context(prec=400)
"""Digits enough for any sum of the numbers that a draft may hold."""

_ANSWERS = {"created": True, "not-created": False, "not_created": False, "not created": False}
_ASKED = ("key", "answer", "request_id")
_DELIMITERS = ",;\t"


class AnswersError(InvoicingError, ValueError):
    """Answers about items in doubt are refused; nothing was changed. `faults` holds every one, with its line."""

    sent: Sent = "no"
    hint = "Correct every listed line and give all of them again."

    shown: ClassVar[int] = 10

    def __init__(self, faults: Iterable[LineFault] = ()) -> None:
        self.faults: tuple[LineFault, ...] = tuple(faults)
        more = f"; and {len(self.faults) - self.shown:,} more" if len(self.faults) > self.shown else ""
        super().__init__("; ".join(map(str, self.faults[: self.shown])) + more)


@frozen(kw_only=True)
class Contents:
    """What names an invoice to a person: its buyer, and the sum of its lines before tax, exact.

    `customer` is the buyer's code in the caller's own records. Each is None where it is not said.
    """

    buyer: str | None = None
    tax_code: str | None = None
    customer: str | None = None
    amount: Decimal | None = None
    lines: int = 0

    def differs(self, other: Contents) -> Iterator[str]:
        """Say what shows that the other is another invoice; what one of them does not say shows nothing.

        Amounts may be rounded by the service: up to one unit of the currency a line is no difference.
        """
        if _unlike(self.tax_code, other.tax_code):
            yield f"tax code {other.tax_code}, not {self.tax_code}"
        if _unlike(self.customer, other.customer):
            yield f"buyer code {other.customer}, not {self.customer}"
        if self.amount is not None and other.amount is not None:
            apart = abs(_EXACT.subtract(self.amount, other.amount))
            if apart > max(self.lines, other.lines):
                yield f"amount {other.amount:f}, not {self.amount:f}"


def _unlike(mine: str | None, other: str | None) -> bool:
    return bool(mine and other) and _bare(mine or "") != _bare(other or "")


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


def contents(payload: str | None) -> Contents:
    """Read what names the invoice from a draft's JSON text; whatever is not there is None."""
    try:
        found = json.loads(payload or "null", parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError):  # of a draft with faults there may be no JSON
        return Contents()
    return contents_of(found, "lines")


def contents_of(found: object, lines_name: str) -> Contents:
    """Read what names the invoice from an object whose lines stand under this name; what is not there is None."""
    if not isinstance(found, Mapping):
        return Contents()
    consumer = found.get("consumer")
    buyer = consumer if isinstance(consumer, Mapping) else {}
    lines = found.get(lines_name)
    listed = lines if isinstance(lines, Sequence) and not isinstance(lines, str) else ()
    known = [amount for line in listed if (amount := _amount(line)) is not None]
    return Contents(
        buyer=_text(buyer.get("name")) or _text(buyer.get("buyer_name")),
        tax_code=_text(buyer.get("tax_code")),
        customer=_text(buyer.get("code")),
        amount=reduce(_EXACT.add, known, Decimal(0)) if known and len(known) == len(listed) else None,
        lines=len(listed),
    )


def _text(found: object) -> str | None:
    return found if isinstance(found, str) and found else None


def _amount(line: object) -> Decimal | None:
    """Return the amount of a line, or price * quantity - discount where it has none."""
    if not isinstance(line, Mapping):
        return None
    given, price, quantity = (number_of(line.get(name)) for name in ("amount", "price", "quantity"))
    if given is not None or price is None or quantity is None:
        return given
    discount = number_of(line.get("discount_amount")) or Decimal(0)
    return _EXACT.subtract(_EXACT.multiply(price, quantity), discount)


def number_of(found: object) -> Decimal | None:
    """Return the finite number that a JSON value or a cell is, None if it is none."""
    if isinstance(found, bool) or not isinstance(found, (int, str, Decimal)):
        return None
    try:
        number = Decimal(found)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


@frozen(kw_only=True)
class Entry:
    """One item as a row of a sheet: what it is, what it is looked up by, and what the service said of it.

    `sent_at` is ISO 8601 with this machine's offset. `named_ids` are the request ids that the service's answer named.
    """

    item: int
    key: str
    state: str
    contents: Contents
    sent_at: str | None
    http_status: int | None
    code: str | None
    said: str | None
    named_ids: tuple[str, ...]
    request_id: str | None


async def entries(ledger: LedgerReader, states: Iterable[str]) -> AsyncGenerator[Entry]:
    """Yield every item in these states, in the order of the input."""
    async with aclosing(ledger.items(states, payload=True)) as items:
        async for item in items:
            yield _entry(item)


def _entry(item: Item) -> Entry:
    doubtful = item.state in {State.IN_DOUBT, State.SENDING}
    answer = recorded_answer(item) if doubtful else RecordedAnswer()
    said = [" ".join(text.split()) for text in (item.error, answer.text) if text]
    left = None if item.sent_at is None else datetime.fromtimestamp(item.sent_at, UTC)
    return Entry(
        item=item.seq,
        key=item.key,
        state=item.state,
        contents=contents(item.payload),
        sent_at=None if left is None else left.astimezone().isoformat(timespec="seconds"),
        http_status=answer.status,
        code=item.code,
        said="; ".join(dict.fromkeys(said)) or None,
        named_ids=answer.request_ids,
        request_id=None if doubtful else item.request_id,
    )


def sheet_head(*, mark: bool = True) -> str:
    """Return the names of the columns, behind the mark that spreadsheets know UTF-8 by."""
    return (BOM if mark else "") + csv_line(COLUMNS)


def sheet_line(entry: Entry) -> str:
    """Return an entry as a line of CSV, with room for its answer. No cell of it is run as a formula."""
    found = entry.contents
    cells = (
        entry.item,
        entry.key,
        entry.state,
        found.buyer,
        found.tax_code,
        found.amount,
        entry.sent_at,
        entry.http_status,
        entry.code,
        entry.said,
        " ".join(entry.named_ids),
        None,
        entry.request_id,
    )
    return csv_line(cells)


@frozen(kw_only=True)
class Answer:
    """What was found of an item in doubt: it was created under `request_id`, or it was not created.

    `line` is where a file says so, 0 if none does. `item` is the item's `seq`, None if that is not said.
    """

    key: str
    created: bool
    request_id: str | None = None
    line: int = 0
    item: int | None = None


def read_answers(data: bytes) -> tuple[Answer, ...]:
    """Read a filled-in sheet, or any CSV with the columns key, answer and request_id, in any order.

    `answer` is created or not-created; a row without one is left out. Commas, semicolons or tabs part the cells, by the
    row of names. Raises `AnswersError` with every fault.
    """
    rows = list(_rows(_decoded(data)))
    if not rows:
        raise AnswersError([LineFault("", "the file is empty", line=1)])
    names = _head(*rows[0])
    faults: list[LineFault] = []
    answers = [answer for line, cells in rows[1:] if (answer := _answer(line, _named(names, cells), faults))]
    keys: dict[str, int] = {}
    ids: dict[str, int] = {}
    for answer in answers:
        first = keys.setdefault(normalize("NFC", answer.key), answer.line)
        if first != answer.line:
            text = f"{answer.key!r} stands in line {first} too"
            faults.append(LineFault("", text, line=answer.line, column="key"))
        first = ids.setdefault(answer.request_id, answer.line) if answer.request_id else answer.line
        if first != answer.line:
            text = f"{answer.request_id} stands in line {first} too: one request is one invoice"
            faults.append(LineFault("", text, line=answer.line, column="request_id"))
    if faults:
        raise AnswersError(sorted(faults, key=lambda fault: fault.line))
    return tuple(answers)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AnswersError([LineFault("", "not UTF-8 text: save it as CSV UTF-8", line=line)]) from None


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not empty, with the line on which it begins."""
    # Excel's own word on the first line about what parts the cells.
    head = next(iter(text.lstrip("\r\n").splitlines()), "")
    told = head[-1] if len(head) == len("sep=;") and head.lower().startswith("sep=") else None
    begins = 0
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=told or max(_DELIMITERS, key=head.count), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) and not (told and begins == 0):
                yield begins + 1, cells
            begins = reader.line_num
    except csv.Error as error:
        raise AnswersError([LineFault("", f"not CSV: {error}", line=begins + 1)]) from None


def _head(line: int, cells: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    counted = Counter(names)
    faults = [LineFault("", "must be there", line=line, column=name) for name in _ASKED if not counted[name]]
    faults += [
        LineFault("", "must be there once", line=line, column=name) for name in (*_ASKED, "item") if counted[name] > 1
    ]
    if faults:
        raise AnswersError(faults)
    return names


def _named(names: list[str], cells: list[str]) -> dict[str, str]:
    found = dict(zip(names, cells, strict=False))
    return {name: original(found.get(name, "")).strip() for name in (*_ASKED, "item")}


def _answer(line: int, cells: Mapping[str, str], faults: list[LineFault]) -> Answer | None:
    """Read one row. Return None for a row that is not answered, or has faults."""
    said, request_id, item = cells["answer"].lower(), cells["request_id"] or None, cells["item"]
    if not said and request_id is None:
        return None
    found = list(_row_faults(said, request_id, item))
    if not cells["key"]:
        found.append(("key", "must not be empty"))
    faults += [LineFault("", message, line=line, column=column) for column, message in found]
    if found:
        return None
    return Answer(
        key=cells["key"],
        created=_ANSWERS[said],
        request_id=request_id and request_id.lower(),
        line=line,
        item=int(item) if item else None,
    )


def _row_faults(said: str, request_id: str | None, item: str) -> Iterator[tuple[str, str]]:
    created = _ANSWERS.get(said)
    if created is None:
        yield "answer", f"must be created or not-created, got {said!r}"
    if created is True and request_id is None:
        yield "request_id", "must be given with created"
    if created is False and request_id is not None:
        yield "request_id", "must be empty with not-created"
    if request_id is not None and not UUID.fullmatch(request_id):
        yield "request_id", f"{NO_UUID}, got {request_id!r}"
    if item and not (item.isascii() and item.isdigit() and len(item) < 16):  # noqa: PLR2004 - more than any run has
        yield "item", f"must be the item's number as it was exported, got {item!r}"

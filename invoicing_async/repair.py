"""What people do with a run after a bad hour: many items in doubt listed, looked up, answered and settled at once.

`entries` lists items with what they are looked up by; `sheet_head` and `sheet_line` write them as CSV, which is filled
in and read back by `read_answers`. `settle` judges every answer against the run, and against the service if that can be
asked, before it changes anything.
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
from typing import Any, ClassVar
from unicodedata import normalize

from attrs import frozen

from ._batch import bounded
from ._cells import BOM, csv_line, original
from ._clock import Clock, RealClock
from ._rules import UUID
from ._states import Event, State
from ._store import Change, Item, SqliteReader
from .drafts import LineFault
from .errors import ApiError, AuthenticationError, InvoicingError, ResolutionTooEarlyError, Sent, SessionError
from .invoices import AsyncInvoices
from .models import InvoiceRequest
from .policies import Timeouts
from .runs import InvoiceRun
from .session import Sleep

__all__ = [
    "COLUMNS",
    "Answer",
    "AnswersError",
    "Contents",
    "Entry",
    "Finding",
    "Settled",
    "UnverifiedError",
    "contents",
    "entries",
    "lateness",
    "read_answers",
    "retry_rejected",
    "settle",
    "sheet_head",
    "sheet_line",
    "too_early_for",
]

PAGE = 500
"""Items read from the run file at a time."""

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

UNKNOWN_LATE = 5.0 + Timeouts().attempt + 1.0
"""Seconds after its intent for which a submission may arrive, in a run that does not say: the defaults of how old an
intent may be and how long an attempt may take, and a second."""

_ANSWERS = {"created": True, "not-created": False, "not_created": False, "not created": False}
_ASKED = ("key", "answer", "request_id")
_DELIMITERS = ",;\t"
_NOT_FOUND = 404


class AnswersError(InvoicingError, ValueError):
    """Answers about items in doubt cannot stand; nothing was changed. `faults` holds every one, with its line."""

    sent: Sent = "no"
    hint = "Correct every listed line and give all of them again."

    shown: ClassVar[int] = 10

    def __init__(self, faults: Iterable[LineFault] = ()) -> None:
        self.faults = tuple(faults)
        more = f"; and {len(self.faults) - self.shown:,} more" if len(self.faults) > self.shown else ""
        super().__init__("; ".join(map(str, self.faults[: self.shown])) + more)


class UnverifiedError(AnswersError):
    """The service does not know a request id that was answered, has another invoice under it, or could not be asked."""

    hint = "If you are sure all the same, take the request ids unasked: --unverified."


# --- what an invoice is looked up by ------------------------------------------------------------------------------


@frozen(kw_only=True)
class Contents:
    """What names an invoice to a person: its buyer, and the sum of its lines before tax, exact.

    `customer` is the buyer's code in the caller's own books. Each is None where it is not said.
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
    return _contents(found, "lines")


def _contents(found: object, lines_name: str) -> Contents:
    if not isinstance(found, Mapping):
        return Contents()
    consumer = found.get("consumer")
    buyer = consumer if isinstance(consumer, Mapping) else {}
    lines = found.get(lines_name)
    listed = lines if isinstance(lines, Sequence) and not isinstance(lines, str) else ()
    return Contents(
        buyer=_text(buyer.get("name")) or _text(buyer.get("buyer_name")),
        tax_code=_text(buyer.get("tax_code")),
        customer=_text(buyer.get("code")),
        amount=_sum(listed),
        lines=len(listed),
    )


def _text(found: object) -> str | None:
    return found if isinstance(found, str) and found else None


def _sum(lines: Sequence[object]) -> Decimal | None:
    amounts = [_amount(line) for line in lines]
    total = Decimal(0)
    for amount in amounts:
        if amount is None:
            return None
        total = _EXACT.add(total, amount)
    return total if amounts else None


def _amount(line: object) -> Decimal | None:
    """Give the amount of a line, or price * quantity - discount where it has none."""
    if not isinstance(line, Mapping):
        return None
    given, price, quantity = (_number(line.get(name)) for name in ("amount", "price", "quantity"))
    if given is not None or price is None or quantity is None:
        return given
    discount = _number(line.get("discount_amount")) or Decimal(0)
    return _EXACT.subtract(_EXACT.multiply(price, quantity), discount)


def _number(found: object) -> Decimal | None:
    if isinstance(found, bool) or not isinstance(found, (int, str, Decimal)):
        return None
    try:
        number = Decimal(found)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


# --- out: a sheet to be filled in ---------------------------------------------------------------------------------


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


async def entries(ledger: SqliteReader, states: Iterable[str]) -> AsyncGenerator[Entry]:
    """Give every item in these states, in the order of the input."""
    after, wanted = 0, tuple(states)
    while page := await ledger.rows(wanted, after=after, limit=PAGE, payload=True):
        for item in page:
            yield _entry(item)
        after = page[-1].seq


def _entry(item: Item) -> Entry:
    doubtful = item.state in {State.IN_DOUBT, State.SENDING}
    answer = _answered(item) if doubtful else {}
    status, ids = answer.get("status"), answer.get("request_ids")
    said = [" ".join(str(text).split()) for text in (item.error, answer.get("answer")) if text]
    return Entry(
        item=item.seq,
        key=item.key,
        state=item.state,
        contents=contents(item.payload),
        sent_at=_moment(item.sent_at),
        http_status=status if isinstance(status, int) else None,
        code=item.code,
        said="; ".join(dict.fromkeys(said)) or None,
        named_ids=tuple(map(str, ids)) if isinstance(ids, list) else (),
        request_id=None if doubtful else item.request_id,
    )


def _answered(item: Item) -> Mapping[str, Any]:
    """Give what the submission of an item in doubt was answered, as it was recorded."""
    try:
        found = json.loads(item.result or "null")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(timespec="seconds")


def sheet_head() -> str:
    """Give the beginning of a sheet: the mark that spreadsheets know UTF-8 by, and the names of the columns."""
    return BOM + csv_line(COLUMNS)


def sheet_line(entry: Entry) -> str:
    """Give an entry as a line of CSV, with room for its answer. No cell of it is run as a formula."""
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


# --- in: answers --------------------------------------------------------------------------------------------------


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
    faults += _twice(answers)
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
    """Give each row that is not empty, with the line on which it begins."""
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
    """Read one row. Nothing is given for a row that is not answered, or has faults."""
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
        yield "request_id", f"must be a UUID (8-4-4-4-12 hex digits), got {request_id!r}"
    if item and not (item.isascii() and item.isdigit() and len(item) < 16):  # noqa: PLR2004 - more than any run has
        yield "item", f"must be the item's number as it was exported, got {item!r}"


def _twice(answers: Iterable[Answer]) -> Iterator[LineFault]:
    keys: dict[str, int] = {}
    ids: dict[str, int] = {}
    for answer in answers:
        first = keys.setdefault(normalize("NFC", answer.key), answer.line)
        if first != answer.line:
            yield LineFault("", f"{answer.key!r} stands in line {first} too", line=answer.line, column="key")
        if answer.request_id is not None:
            first = ids.setdefault(answer.request_id, answer.line)
            if first != answer.line:
                message = f"{answer.request_id} stands in line {first} too: one request is one invoice"
                yield LineFault("", message, line=answer.line, column="request_id")


# --- what the service says of an id -------------------------------------------------------------------------------


@frozen(kw_only=True)
class Finding:
    """What the service has under a request id, beside what the draft says."""

    request: InvoiceRequest
    draft: Contents
    found: Contents

    @property
    def faults(self) -> tuple[str, ...]:
        """What shows that it is another invoice; empty if nothing does."""
        return tuple(self.draft.differs(self.found))

    def json(self) -> dict[str, Any]:
        """Give what was found as one flat object."""
        data = self.request.data
        return {
            "request_id": self.request.request_id,
            "status": str(self.request.status),
            "invoice_id": data and data.id,
            "authority_status": data and data.authority_status and str(data.authority_status),
            "buyer": self.found.buyer,
            "tax_code": self.found.tax_code,
            "amount": None if self.found.amount is None else f"{self.found.amount:f}",
        }


async def _find(invoices: AsyncInvoices, answer: Answer, item: Item) -> Finding | LineFault:
    """Ask the service for the id of an answer."""
    number = answer.request_id or ""
    try:
        request = await invoices.status(number)
    except (AuthenticationError, SessionError):
        raise
    except InvoicingError as error:
        unknown = isinstance(error, ApiError) and error.status == _NOT_FOUND
        message = f"the service knows no request {number}" if unknown else f"could not be asked for: {error}"
        return LineFault("", message, line=answer.line, column="request_id")
    found = Contents() if request.data is None else _contents(request.data.raw, "invoice_lines")
    finding = Finding(request=request, draft=contents(item.payload), found=found)
    if finding.faults:
        message = f"{number} is another invoice than {item.key!r}: {'; '.join(finding.faults)}"
        return LineFault("", message, line=answer.line, column="request_id")
    return finding


# --- all of it ----------------------------------------------------------------------------------------------------


@frozen
class Settled:
    """An item after an answer about it, and what the service had under the id, None if it was not asked.

    `changed` is false if the run knew the answer before.
    """

    item: Item
    finding: Finding | None = None
    changed: bool = True


async def settle(
    run: InvoiceRun,
    answers: Iterable[Answer],
    *,
    invoices: AsyncInvoices | None = None,
    clock: Clock | None = None,
) -> AsyncGenerator[Settled]:
    """Settle items in doubt by what was found at the service, and give each as it then stands.

    With `invoices` the service is asked for each request id first. Every answer is judged before any is carried out:
    raises `AnswersError` with every fault for an unknown key, an item that is not in doubt, and an id that is another
    item's; `UnverifiedError` for an id that the service does not know, or under which it has another invoice;
    `ResolutionTooEarlyError` where not-created may not be said yet. Then nothing was changed. An answer that the run
    has already is no fault.
    """
    listed = tuple(answers)
    known, open_ = await _judged(run.ledger, listed)
    _check_time(open_, lateness(run.ledger), (clock or RealClock()).now())
    found = {} if invoices is None else await _found(invoices, open_)
    for item in known:
        yield Settled(item, changed=False)
    # The one sent last is the first to be told as not created: if that is not too early, none is.
    for answer, item in sorted(open_, key=lambda pair: (pair[0].created, -(pair[1].sent_at or 0.0))):
        now = await run.resolve(item.key, created=answer.created, request_id=answer.request_id)
        yield Settled(now, found.get(item.seq))


_Pair = tuple[Answer, Item]


async def _judged(ledger: SqliteReader, answers: tuple[Answer, ...]) -> tuple[list[Item], list[_Pair]]:
    """Hold every answer against the run: what it knows already, and what is to be done."""
    owners = await _owners(ledger, {answer.request_id.lower() for answer in answers if answer.request_id})
    known: list[Item] = []
    open_: list[_Pair] = []
    faults: list[LineFault] = []
    met: dict[int, Answer] = {}
    for answer in answers:
        item = await _item(ledger, answer)
        fault = _fault(answer, item, owners) or _met(answer, item, met)
        if fault is not None:
            faults.append(LineFault("", fault[1], line=answer.line, column=fault[0]))
        elif item is not None and item.state == State.IN_DOUBT:
            open_.append((answer, item))
        elif item is not None:
            known.append(item)
    if faults:
        raise AnswersError(faults)
    return known, open_


def _check_time(open_: list[_Pair], late: float, now: float) -> None:
    """Raise `ResolutionTooEarlyError` if what is said to be not created may still arrive."""
    waits = {item.key: too_early_for(item, late, now) for answer, item in open_ if not answer.created}
    key = max(waits, key=lambda key: waits[key], default=None)
    if key is not None and waits[key] > 0:
        message = f"what was sent of {key!r} may still arrive: it is too early to say that it was not created"
        raise ResolutionTooEarlyError(message, remaining=waits[key])


async def _item(ledger: SqliteReader, answer: Answer) -> Item | None:
    if answer.item is not None:
        return await ledger.get(answer.item)
    return await ledger.get(answer.key) or await ledger.get(normalize("NFC", answer.key))


def _fault(answer: Answer, item: Item | None, owners: Mapping[str, Item]) -> tuple[str, str] | None:
    """Say what of an answer cannot stand, as its column and why."""
    if item is None:
        return "key", f"this run has no {answer.key!r}"
    if answer.item is not None and not _same_key(answer.key, item.key):
        return "key", f"item {answer.item} is {item.key!r}, not {answer.key!r}: a spreadsheet may have changed the key"
    if item.state != State.IN_DOUBT and not _is_said(answer, item):
        return "answer", f"{item.key!r} is {item.state.replace('_', ' ')}, not in doubt"
    owner = owners.get((answer.request_id or "").lower())
    if owner is not None and owner.seq != item.seq:
        return "request_id", f"{answer.request_id} is the request of {owner.key!r}"
    return None


def _met(answer: Answer, item: Item | None, met: dict[int, Answer]) -> tuple[str, str] | None:
    first = met.setdefault(item.seq if item else 0, answer)
    return None if first is answer else ("key", f"{answer.key!r} stands in line {first.line} too")


def _is_said(answer: Answer, item: Item) -> bool:
    """Tell whether an item stands as this very answer left it, so that a file may be given again."""
    if answer.created:
        return item.request_id is not None and item.request_id.lower() == (answer.request_id or "").lower()
    return item.state == State.NOT_SENT


def _same_key(cell: str, key: str) -> bool:
    """Tell whether a cell is this key; a spreadsheet drops zeros before a number."""
    if normalize("NFC", cell) == normalize("NFC", key):
        return True
    mine, other = _number(cell), _number(key)
    return mine is not None and mine == other


async def _owners(ledger: SqliteReader, ids: set[str]) -> dict[str, Item]:
    """Give the items that have one of these request ids."""
    found: dict[str, Item] = {}
    after = 0
    while ids and (page := await ledger.rows(after=after, limit=PAGE)):
        found |= {item.request_id.lower(): item for item in page if item.request_id and item.request_id.lower() in ids}
        after = page[-1].seq
    return found


async def _found(invoices: AsyncInvoices, open_: list[_Pair]) -> dict[int, Finding]:
    """Ask the service for every id, many at once. Raises `UnverifiedError` with all that cannot stand."""
    findings: dict[int, Finding] = {}
    faults: list[LineFault] = []

    async def ask(pair: _Pair, _: Sleep) -> tuple[int, Finding | LineFault | BaseException]:
        return pair[1].seq, await _find(invoices, *pair)

    outcomes = bounded(
        [pair for pair in open_ if pair[0].created],
        ask,
        concurrency=invoices.concurrency,
        sleep=invoices.sleep,
        abandoned=lambda pair, error: (pair[1].seq, error),
    )
    async with aclosing(outcomes):
        async for seq, outcome in outcomes:
            if isinstance(outcome, Finding):
                findings[seq] = outcome
            elif isinstance(outcome, LineFault):
                faults.append(outcome)
    if faults:
        raise UnverifiedError(sorted(faults, key=lambda fault: fault.line))
    return findings


def lateness(ledger: SqliteReader) -> float:
    """Give how many seconds after its intent a submission of this run may still arrive, by the longest bounds it had."""
    recorded: float = getattr(ledger, "late", 0.0)
    return recorded or UNKNOWN_LATE


def too_early_for(item: Item, late: float, now: float) -> float:
    """Give the seconds for which an item in doubt may not be said to be not created; 0 if it may.

    `late` is the run's `lateness`, `now` is in epoch seconds.
    """
    return 0.0 if item.sent_at is None else max(0.0, item.sent_at + late - now)


async def retry_rejected(run: InvoiceRun, codes: Iterable[str] = ()) -> list[Item]:
    """Let every rejected item be sent again by the next run, or those that were refused with one of these codes.

    All of them or, after a crash, none. Gives them as they then stand.
    """
    wanted = frozenset(codes)
    chosen: list[int] = []
    after = 0
    while page := await run.ledger.rows((State.REJECTED,), after=after, limit=PAGE):
        chosen += [item.seq for item in page if not wanted or item.code in wanted]
        after = page[-1].seq
    await run.ledger.transition_many([Change(ref=seq, event=Event.RETRY_ASKED) for seq in chosen])
    return [item for seq in chosen if (item := await run.ledger.get(seq)) is not None]

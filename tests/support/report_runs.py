"""Runs to be reported: a run of e-invoices with something of everything in it, and its page as a reader sees it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from fakes import FakeClock
from ledgers import draft

from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.protocol import Ledger
from invoicing_async._durable.records import Change, Pause
from invoicing_async._durable.states import DocumentState, Event, RunKind

CODE = "INV_001"
HOSTILE = (
    "<script>alert('key')</script>",
    "\"'><img src=x onerror=alert(1)>",
    "A\x00\x07\x1b[31m\n\u2028B",
    "\u202eright\u200fto\u2066left",
    "K" * 10_000,
    "{{ 7 * 7 }}{% raw %}&lt;b&gt;",
    "' ; rm -rf / #",
    "--as",
    "\ud800 alone",
)
"""Keys and texts that would be markup, code, controls or a command if they were taken as they are."""

SECOND = 1.0


def request_id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


async def invoice_run(
    file: Path,
    ends: Mapping[str, int],
    *,
    clock: FakeClock | None = None,
    keys: Iterable[str] = (),
    error: str = "no such template 7",
    settings: Mapping[str, Any] | None = None,
    pauses: Iterable[Pause] = (),
) -> None:
    """A run with so many items in each state, one sent every second, answered after 0.25 s, done 2 s later."""
    clock = clock or FakeClock()
    async with SqliteLedger.open(file, kind=RunKind.INVOICES, settings=settings or {}, clock=clock) as ledger:
        await fill(ledger, clock, ends, keys=keys, error=error, pauses=pauses)


async def fill(
    ledger: Ledger,
    clock: FakeClock,
    ends: Mapping[str, int],
    *,
    keys: Iterable[str] = (),
    error: str = "no such template 7",
    pauses: Iterable[Pause] = (),
) -> None:
    """Let a run have so many items in each state."""
    wanted: list[str] = [state for state, number in ends.items() for _ in range(number)]
    named: list[str] = [*keys]
    named += [f"A-{number}" for number in range(len(named), len(wanted))]
    invalid = {key for key, state in zip(named, wanted, strict=True) if state == "invalid"}
    await ledger.add_drafts([draft(key, error="has no line" if key in invalid else None) for key in named])
    await ledger.keep_late(91.0)
    for number, state in enumerate(wanted, 1):
        await _ended(ledger, clock, number, state, error)
    for pause in pauses:
        await ledger.record_pause(pause)


async def _ended(ledger: Ledger, clock: FakeClock, number: int, state: str, error: str) -> None:
    async def happen(event: Event, **learned: Any) -> None:
        await ledger.transition_many([Change(ref=number, event=event, **learned)])

    clock.advance(SECOND)
    if state in {"planned", "invalid"}:
        return
    await happen(Event.INTENT)
    clock.advance(0.25)
    match state:
        case "rejected":
            await happen(Event.REJECTED, code=CODE, error=f"ApiError: {error}")
        case "not_sent":
            await happen(Event.REFUSED_FOR_NOW, error=error)
        case "in_doubt":
            await happen(Event.LOST, error=error, result='{"status":502,"code":null,"request_ids":[],"answer":"<p>"}')
        case _:
            await happen(Event.ACCEPTED_NEW, request_id=request_id(number))
    if state in {"success", "failed"}:
        clock.advance(2.0)
        data = f'{{"request_id":"{request_id(number)}","status":"SUCCESS","data":{{"id":"{request_id(number)}",'
        word = "REJECTED" if number % 10 == 0 else "ACCEPTED"
        if state == "success":
            text = f'{data}"authority_status":"{word}","code":"L{number}"}}}}'
            await happen(Event.POLL_SUCCESS, invoice_id=request_id(number), result=text)
        else:
            await happen(Event.POLL_FAILED, code="TAX_1", error=error)


async def document_run(file: Path, saved: int, failed: int, deferred: int, *, error: str = "500") -> None:
    clock = FakeClock()
    settings = {"folder": "pdf", "layout": "{order_id}", "day": "2025-09-17", "served_name": False, "durable": False}
    async with SqliteLedger.open(file, kind=RunKind.DOCUMENTS, settings=settings, clock=clock) as ledger:
        await fill_documents(ledger, clock, saved, failed, deferred, error=error)


async def fill_documents(
    ledger: Ledger, clock: FakeClock, saved: int, failed: int, deferred: int, *, error: str = "500"
) -> None:
    """Let a run have so many outcomes, one every second, and one id that was never asked for."""
    await ledger.add_ids(f"order-{number}" for number in range(saved + failed + deferred + 1))
    for number in range(1, saved + failed + deferred + 1):
        clock.advance(SECOND)
        if number <= saved:
            await ledger.record_document(number, DocumentState.SAVED, path=f"pdf/{number}", size=1000, sha256="x")
        else:
            state = DocumentState.FAILED if number <= saved + failed else DocumentState.DEFERRED
            await ledger.record_document(number, state, error=error, code="ORDER_021")


def left_sending(file: Path, number: int) -> None:
    """Let an item have been on its way when its process died."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE items SET state = 'sending' WHERE seq = ?", (number,))
        connection.execute("UPDATE tally SET count = (SELECT count(*) FROM items WHERE items.state = tally.state)")


class Seen(HTMLParser):
    """A page as it is read: its elements, the text of those with an id, and the rows of its tables."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self.open: list[str] = []
        self._table = ""
        self._cell: list[str] | None = None
        self.feed(page)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert len(found) == len(attrs), "no attribute twice"
        self.elements.append((tag, found))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = found.get("id") or f"table {len(self.tables)}"
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in {"td", "th"}:
            self._cell = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "elements are nested"
        if tag in {"td", "th"} and self._cell is not None:
            self.tables[self._table][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if self._cell is not None:
            self._cell.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag]

    def numbers(self, table: str, column: int = 1) -> dict[str, int]:
        """What a table says of each of its rows, of those that have a number there."""
        rows = [row for row in self.tables[table] if len(row) > column]
        return {row[0]: int(row[column].replace(",", "")) for row in rows if re.fullmatch(r"[\d,]+", row[column])}

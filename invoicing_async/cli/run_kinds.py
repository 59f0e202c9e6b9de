"""The summaries of the two kinds of runs: order documents and e-invoices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

from ..reports import (
    DOCUMENT_ITEMS,
    DOWNLOADS,
    INVOICE_ITEMS,
    SUBMISSIONS,
    Report,
    Row,
    document_row,
    invoice_row,
    reason,
)
from ..runs import Authority, DocumentState, Item, LedgerReader, State, count_without_file
from .run_summary import PAGE, RunContext, RunSummary, command, lost_row
from .stop import Stop
from .summary import BROKEN, SHOWN, authority_note
from .terminal.output import Count, plain

__all__ = ["DocumentSummary", "InvoiceSummary"]


class DocumentSummary(RunSummary):
    """The summary of a command on a document run: each item has an outcome in every command that comes to its end."""

    shown = DOCUMENT_ITEMS
    reported = DOWNLOADS
    ends: tuple[str, ...] = (DocumentState.SAVED, DocumentState.SKIPPED)
    lost: tuple[str, ...] = (DocumentState.DEFERRED, DocumentState.FAILED)
    duplicates = 0
    """Ids of this command's input that stood in it before."""

    def result(self, item: Item) -> Row:
        """Return an item as a row of the report."""
        return document_row(item)

    @property
    def left(self) -> int:
        """How many items have not had their turn."""
        return self.expected - self.done

    @property
    def bad(self) -> int:
        """How many items have no file."""
        return sum(number for state, number in self.counts.items() if state not in self.shown.good)

    @property
    def again(self) -> bool:
        """Whether the run can do more if it is resumed."""
        return self.bad > 0

    async def others(self) -> AsyncIterator[Row]:
        """Yield the ids that stood in the input before, each once."""
        after = ""
        while page := await self.ledger.duplicates(after=after, limit=PAGE) if self.duplicates else []:
            for key, _ in page:
                yield {"order_id": key, "outcome": "duplicate"}
            after = page[-1][0]


class InvoiceSummary(RunSummary):
    """The summary of a command on an invoice run.

    `waiting` and `exporting` say what is to be done beyond submitting, `without_file` and `broken` what of that was
    not; `lines` tells where in the input a key stands, `rest` is what of the input is no item of the run.
    """

    shown = INVOICE_ITEMS
    reported = SUBMISSIONS
    ends: tuple[str, ...] = (State.SUCCESS, State.FAILED, State.REJECTED)
    lost: tuple[str, ...] = (State.INVALID, State.FAILED, State.REJECTED, State.NOT_SENT)
    # What was never sent comes first: nobody but its writer can correct it.

    def __init__(self, ledger: LedgerReader, context: RunContext, stop: Stop, report: Report | None) -> None:
        super().__init__(ledger, context, stop, report)
        self.lines: dict[str, int] = {}
        self.rest: list[Row] = []
        self.waiting = False
        self.exporting = False
        self.without_file: int = 0
        self.broken = 0
        self.authority: Authority = Authority()

    def result(self, item: Item) -> Row:
        """Return an item as a row of the report."""
        return invoice_row(item, line=self.lines.get(item.key))

    def is_to_be_exported(self, item: Item) -> bool:
        """Tell whether an item's own row comes with its file."""
        return self.exporting and item.state == State.SUCCESS and item.path is None

    @property
    def worked_on(self) -> tuple[State, ...]:
        """The states whose items are to be sent, or awaited if that is asked for."""
        return (State.PLANNED, State.NOT_SENT, *([State.SUBMITTED] if self.waiting else []))

    @property
    def to_do(self) -> int:
        """How many items those are."""
        return sum(self.counts.get(state, 0) for state in self.worked_on)

    @property
    def to_send(self) -> int:
        """How many items have not left yet, or are on their way."""
        return sum(self.counts.get(state, 0) for state in (State.PLANNED, "in_flight", State.NOT_SENT))

    @property
    def left(self) -> int:
        """How many items are to be sent, awaited or exported."""
        return self.to_do + self.without_file + self.broken

    @property
    def bad(self) -> int:
        """How many drafts did not come to a good end, or have not come to the one that is asked for."""
        good = self.shown.good - ({State.SUBMITTED} if self.waiting else set())
        unread = [row for row in self.rest if row["outcome"] == "invalid"]
        unsettled = sum(number for state, number in self.counts.items() if state not in good)
        return len(unread) + self.without_file + self.broken + self.authority.refused + unsettled

    @property
    def again(self) -> bool:
        """Whether the run can do more if it is resumed."""
        return self.left > 0

    async def others(self) -> AsyncIterator[Row]:
        """Yield the drafts that came again, and those that could not be taken in, not even as invalid."""
        for row in self.rest:
            yield row

    @property
    def refused(self) -> int:
        """How many invoices the tax authority refuses."""
        return self.authority.refused

    def more(self) -> Iterator[Count]:
        """Yield what the table counts beside the states: of the whole run, as those are."""
        saved = self.counts.get(State.SUCCESS, 0) - self.without_file - self.broken
        if self.exporting and saved > 0:
            yield Count("exported", f"{saved:,}", "saved as files, by this command or before", "green")
        for name, number, meaning in self._undone():
            yield Count(name, f"{number:,}", meaning, "yellow")

    def _undone(self) -> Iterator[tuple[str, int, str]]:
        """Yield what of the exports was not done."""
        if self.without_file:
            yield "no file", self.without_file, "made, and without a file so far"
        if self.broken:
            yield "broken", self.broken, "missing or broken on disk, and not exported anew"

    async def last_look(self) -> None:
        """Read the counts, how the invoices stand with the tax authority, and how many are to be exported."""
        await super().last_look()
        with suppress(*BROKEN):
            self.authority = await Authority.of(self.ledger, first=SHOWN)
        if self.exporting:
            with suppress(*BROKEN):
                self.without_file = await count_without_file(self.ledger)

    def totals(self) -> dict[str, object]:
        """Return how the invoices stand with the tax authority."""
        return {"authority": self.authority.counts}

    def this_command(self) -> Iterator[str]:
        """Yield also how the invoices stand with the tax authority."""
        if self.authority.counts:
            yield authority_note(self.authority.counts)
        yield from super().this_command()

    def name_others(self) -> None:
        """Name what the tax authority refuses, and drafts with faults that have no key, and so are no items."""
        refused = self.authority.refused - len(self.authority.first)
        see = command("runs", "refresh", self.context.file)
        self.name(map(lost_row, self.authority.first), refused, f"{see} names them")
        unread = [row for row in self.rest if row["outcome"] == "invalid"]
        for row in unread[:SHOWN]:
            self.output.amiss(f"   invalid  line {row['line']}  {plain(row.get('key') or '')}  {plain(reason(row))}")
        if len(unread) > SHOWN:
            self.output.amiss(f"   and {len(unread) - SHOWN:,} more; the report names them")
        if self.output.quiet:
            for _, number, meaning in self._undone():
                self.output.amiss(f"{number:,} {meaning}")

"""The summaries of the two kinds of runs: order documents and e-invoices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

from ..runs import Authority, DocumentState, Item, LedgerReader, State, count_without_file
from .run_summary import BROKEN, PAGE, Book, RunContext, command
from .stop import Stop
from .summary import REFUSED, SHOWN, authority_note, reason
from .terminal.output import Count, plain
from .terminal.report import Report
from .terminal.rows import (
    DOCUMENT_ITEMS,
    DOWNLOADS,
    INVOICE_ITEMS,
    SUBMISSIONS,
    Row,
    document_row,
    invoice_row,
)

__all__ = ["DocumentBook", "InvoiceBook"]


class DocumentBook(Book):
    """The books of a command on a document run: each item has an outcome in every command that comes to its end."""

    states = DOCUMENT_ITEMS
    reported = DOWNLOADS
    lost = (DocumentState.DEFERRED, DocumentState.FAILED)
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
        return sum(number for state, number in self.counts.items() if state not in self.states.good)

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


class InvoiceBook(Book):
    """The books of a command on an invoice run.

    `waiting` and `exporting` say what is to be done beyond submitting, `without_file` and `broken` what of that was
    not; `lines` tells where in the input a key stands, `rest` is what of the input is no item of the run.
    """

    states = INVOICE_ITEMS
    reported = SUBMISSIONS
    lost = (State.FAILED, State.REJECTED, State.INVALID, State.NOT_SENT)

    def __init__(self, ledger: LedgerReader, context: RunContext, stop: Stop, report: Report | None) -> None:
        super().__init__(ledger, context, stop, report)
        self.lines: dict[str, int] = {}
        self.rest: list[Row] = []
        self.waiting = False
        self.exporting = False
        self.exported = 0
        self.without_file = 0
        self.broken = 0
        self.authority = Authority()

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
        good = self.states.good - ({State.SUBMITTED} if self.waiting else set())
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

    def more(self) -> Iterator[Count]:
        """Yield what the summary counts beside the states."""
        if self.authority.refused:
            yield Count("refused", f"{self.authority.refused:,}", REFUSED, "yellow")
        if self.exported:
            yield Count("exported", f"{self.exported:,}", "saved as files, whole", "green")
        if self.without_file:
            yield Count("no file", f"{self.without_file:,}", "made, and without a file so far", "yellow")
        if self.broken:
            yield Count("broken", f"{self.broken:,}", "missing or broken on disk, and not exported anew", "yellow")

    async def _last_look(self) -> None:
        await super()._last_look()
        with suppress(*BROKEN):
            self.authority = await Authority.of(self.ledger, first=SHOWN)
        if self.exporting:
            with suppress(*BROKEN):
                self.without_file = await count_without_file(self.ledger)

    def totals(self) -> dict[str, object]:
        """Return how the invoices stand with the tax authority."""
        return {"authority": self.authority.counts}

    def _this_command(self) -> Iterator[str]:
        if self.authority.counts:
            yield authority_note(self.authority.counts)
        yield from super()._this_command()

    async def _name_lost(self) -> None:
        await super()._name_lost()
        self._name([*self.authority.first])
        more = self.authority.refused - len(self.authority.first)
        if more > 0:
            self.screen.amiss(f"   and {more:,} more; {command('runs', 'refresh', self.context.file)} names them")
        self._name_unread()
        if self.screen.quiet:
            self._count_without_file()

    def _name_unread(self) -> None:
        """Name the drafts with faults that have no key of their own, and so are not in the run."""
        unread = [row for row in self.rest if row["outcome"] == "invalid"]
        for row in unread[:SHOWN]:
            self.screen.amiss(f"   invalid  line {row['line']}  {plain(row.get('key') or '')}  {reason(row)}")
        if len(unread) > SHOWN:
            self.screen.amiss(f"   and {len(unread) - SHOWN:,} more; the report names them")

    def _count_without_file(self) -> None:
        """Tell on stderr what the summary would count."""
        if self.without_file:
            self.screen.amiss(f"{self.without_file:,} made, and without a file so far")
        if self.broken:
            self.screen.amiss(f"{self.broken:,} missing or broken on disk, and not exported anew")

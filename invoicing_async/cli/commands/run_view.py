"""A run file as `runs show` reads it: facts, counts, and the commands that are left to do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

from attrs import frozen

from ...reports import (
    DOCUMENT_ITEMS,
    INVOICE_ITEMS,
    RowType,
    next_commands,
    utc_time,
)
from ...runs import (
    Authority,
    Holder,
    Item,
    LedgerReader,
    Moved,
    Overview,
    RunKind,
    State,
    count_without_file,
    moved_to,
)
from ..run_summary import command
from ..summary import words
from ..terminal.times import local_time

__all__ = ["RunView"]

KINDS = {RunKind.DOCUMENTS: DOCUMENT_ITEMS, RunKind.INVOICES: INVOICE_ITEMS}


@frozen
class RunView:
    """A run file as it is read: what it is, who holds it, how its items stand."""

    file: str
    ledger: LedgerReader
    row_type: RowType
    now: Overview
    without_file: int
    """Finished invoices that are to be exported."""
    authority: Authority

    @classmethod
    async def of(cls, file: str, ledger: LedgerReader) -> RunView:
        """Look at a run file, also while another process works on it."""
        now = await Overview.of(ledger)
        lacking = await count_without_file(ledger) if ledger.settings.get("export") else 0
        authority = await Authority.of(ledger) if ledger.kind is RunKind.INVOICES else Authority()
        return cls(file, ledger, KINDS[ledger.kind], now, lacking, authority)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many items stand in each state."""
        return self.now.counts

    @property
    def holder(self) -> Holder | None:
        """Who works on the run; None if nobody does."""
        return self.now.holder

    @property
    def moved(self) -> Moved | None:
        """Where the run goes on, if not here."""
        return moved_to(self.ledger)

    def rows(self, wanted: tuple[str, ...]) -> AsyncGenerator[Item]:
        """Return the items in these states, or all."""
        return self.ledger.items(self.now.recorded(wanted) if wanted else None)

    async def facts(self) -> list[tuple[str, str]]:
        """Return what the run was begun with, who works on it, and what has been with the service for longest."""
        oldest = await self.ledger.oldest() if self.ledger.kind is RunKind.INVOICES else None
        is_open = oldest is not None and (self.holder is not None or oldest.state == State.SUBMITTED)
        waiting = [("oldest", f"{oldest.key}, sent {local_time(oldest.sent_at)}")] if oldest and is_open else []
        return [*self._begun_with(), *waiting]

    def _begun_with(self) -> Iterator[tuple[str, str]]:
        settings: Mapping[str, Any] = self.ledger.settings
        yield "begun", local_time(self.ledger.created)
        if "folder" in settings:
            yield "folder", settings["folder"]
            yield "layout", settings["layout"]
        if export := settings.get("export"):
            lacking = f", {self.without_file:,} left to do" if self.without_file else ""
            yield "export", f"{export['format']} to {export['folder']}{lacking}"
        if pace := settings.get("pace"):
            yield "pace", ", ".join(f"{words(name)} {value:g}" for name, value in pace.items())
        if self.holder is not None:
            yield "held by", str(self.holder)
        if moved := self.moved:
            yield "moved to", moved.to if moved.is_done else f"{moved.to}, which was cut off"

    def steps(self, *, each: bool = True) -> Iterator[str]:
        """Yield the commands that are left to do once nobody holds the run; with `each`, those for doubts too."""
        if moved := self.moved:
            there, again = ("runs", "resume", moved.to), ("runs", "import", self.file, "--run", moved.to)
            yield command(*(there if moved.is_done else again))
            return
        yield from next_commands(
            self.file,
            self.ledger.kind,
            self.counts,
            without_file=self.without_file,
            exports=bool(self.ledger.settings.get("export")),
            each=each,
        )

    def json(self) -> dict[str, Any]:
        """Return it all as one JSON object."""
        holder = self.holder
        return {
            "file": self.ledger.name,
            "kind": str(self.ledger.kind),
            "begun": utc_time(self.ledger.created),
            "held_by": None if holder is None else {"pid": holder.pid, "host": holder.host, "since": holder.since},
            "total": sum(self.counts.values()),
            "counts": {state: self.counts.get(state, 0) for state in self.row_type.outcomes},
            "without_file": self.without_file,
            "authority": dict(self.authority.counts),
            "settings": dict(self.ledger.settings),
            "next": list(self.steps()),
        }

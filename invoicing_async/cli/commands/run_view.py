"""A run file as `runs show` reads it: facts, counts, and the commands that are left to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from ...clock import RealClock
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
    read_run,
)
from ..durable import entered
from ..exits import Exit
from ..run_summary import command
from ..stop import Stop, listening
from ..summary import words
from ..terminal.output import Output
from ..terminal.times import local_time
from .run_watch import RunWatch

__all__ = ["RunView", "watched"]

MANY = 100_000
"""Finished invoices of a run on a server beyond which how they stand with the tax authority is not counted here."""

EVERY = 2.0
"""Seconds between two looks."""

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
    watch: RunWatch

    @classmethod
    async def of(cls, file: str, ledger: LedgerReader) -> RunView:
        """Look at a run file, also while another process works on it."""
        now = await Overview.of(ledger)
        lacking = await count_without_file(ledger) if ledger.settings.get("export") else 0
        watch = await RunWatch.of(ledger)
        # To count how they stand every finished invoice is read: of a long run on a server its report does that.
        is_short = watch.standing is None or now.counts.get(State.SUCCESS, 0) <= MANY
        is_counted = ledger.kind is RunKind.INVOICES and is_short
        authority = await Authority.of(ledger) if is_counted else Authority()
        return cls(file, ledger, KINDS[ledger.kind], now, lacking, authority, watch)

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

    @property
    def code(self) -> Exit:
        """How a command ends that shows it: two invoices of one draft are nothing to be overlooked."""
        return Exit.SOME_LEFT if self.watch.twice else Exit.DONE

    @property
    def rests(self) -> bool:
        """Whether nobody is at work on it, and of a run on a server nothing is open either."""
        standing = self.watch.standing
        return self.holder is None and (standing is None or not standing.open)

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
        if self.holder is not None and self.watch.standing is None:
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
            **self.watch.json(self.file),
        }


async def watched(output: Output, file: str, show: Callable[[RunView, Output], Awaitable[None]]) -> Exit:
    """Show a run anew every few seconds, until nobody has anything to do, or a stop is asked for."""
    clock, stop = RealClock(), Stop(lambda: None)
    with listening(stop):
        stopped = asyncio.create_task(stop.wait())
        try:
            while not (view := await _shown(output, file, show)).rests and not stopped.done():
                pause = asyncio.create_task(clock.sleep(EVERY))
                await asyncio.wait([pause, stopped], return_when=asyncio.FIRST_COMPLETED)
                pause.cancel()
        finally:
            stopped.cancel()
    return view.code


async def _shown(output: Output, file: str, show: Callable[[RunView, Output], Awaitable[None]]) -> RunView:
    async with entered(read_run(file)) as ledger:
        view = await RunView.of(file, ledger)
        if output.out.is_terminal and not output.json:
            output.out.clear()
        output.line(view.json())
        if not output.json:
            await show(view, output)
    return view

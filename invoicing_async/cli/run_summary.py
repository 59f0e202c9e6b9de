"""The summary of one command on a run file: its counts are the run's own, and they must add up at the end."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from math import ceil
from pathlib import Path
from typing import Any

from attrs import field, frozen
from rich.text import Text

from ..clock import RealClock
from ..repair import lateness, too_early_for
from ..reports import (
    Report,
    Row,
    answer_commands,
    doubt_commands,
    item_row,
    reason,
)
from ..reports import command_line as command
from ..runs import Intake, Item, LedgerReader, State, apparent_state, own_counts
from ..settings import Settings
from .exits import Exit
from .input.options import Common, RateOptions
from .input.runs import is_server
from .stop import Stop
from .summary import BROKEN, SHOWN, Summary, style_of, words
from .terminal.output import Count, Output, plain
from .terminal.progress import TICK
from .terminal.times import local_time

__all__ = [
    "PAGE",
    "RunContext",
    "RunSummary",
    "command",
    "lost_row",
    "show_doubts",
]

PAGE = 1000
"""Rows of a run file that are read at a time."""

LOOK = 2 * TICK
"""Seconds between two looks at the counts of a run."""

IN_DOUBT = "in doubt, not sent again: look each up at the service, then say what you found"
"""What to do about submissions without an answer."""

_clock = RealClock()


def show_doubts(output: Output, file: str, items: Sequence[Item], number: int, *, late: float) -> None:
    """Show, of `number` in doubt, when these were sent, what they were answered, and the commands that settle each.

    That one was not created is not offered before it may be said: until then, `late` seconds after its intent, it may
    still arrive.
    """
    output.say(f"\n {number:,} {IN_DOUBT}", "yellow")
    for item in items:
        row = item_row(item)
        output.say(f"   {plain(item.key)}  sent {local_time(item.sent_at)}")
        if answered := reason(row, ids=False):
            output.say(f"     {plain(answered)}")
        created, not_created = answer_commands(file, item.key, str(row.get("request_ids") or ""))
        output.say(f"     {created}")
        left = too_early_for(item, late, _clock.now())
        early = f"not before {ceil(left)} s from now: " if left > 0 else ""
        output.say(f"     {early}{not_created}")
    if number > len(items):
        more = command("runs", "show", file, "--state", "in_doubt")
        output.say(f"   and {number - len(items):,} more; {more}", "yellow")
    if number > 1:
        output.say(" Or all of them at once")
        for step in doubt_commands(file):
            output.say(f"     {step}")


@frozen(kw_only=True)
class RunContext:
    """The options of a command on a run file."""

    output: Output
    settings: Settings
    common: Common
    pace: RateOptions
    file: str
    report: Path | None = None
    work: Mapping[str, Any] = field(factory=dict)
    """How this command works as one of several on a run on a server: the options of `Worker`."""
    is_worker: bool = False
    """Whether it takes nothing in and only helps: then it is done when nothing is left to do, however that ended."""
    status: Path | None = None

    @property
    def is_shared(self) -> bool:
        """Whether others may be at work on the run."""
        return is_server(self.file)

    @property
    def resume(self) -> str:
        """How to go on."""
        if self.is_worker:
            return command("worker", "--run", self.file, *self.common.again)
        return command("runs", "resume", self.file, *self.common.again)

    def check(self, session: Callable[..., object]) -> None:
        """Raise `SettingsError` for a wrong or missing setting: that is told before a run file is made or taken."""
        session(self.pace)


class RunSummary(Summary):
    """The summary of one command on a run. `counts` are the items of the run by state, `items` how many there must be.

    `outcomes` are those of this command, `expected` how many it is to have.
    """

    ends: tuple[str, ...]
    """The states that a worker brings an item to and leaves it in."""
    lost: tuple[str, ...]
    """The states whose first items are named in the summary, with their errors; those of the first state first."""
    go_on: str = "; go on with"
    exported: int = 0
    """Documents of finished invoices that this command saved."""

    def __init__(self, ledger: LedgerReader, context: RunContext, stop: Stop, report: Report | None) -> None:
        super().__init__(context.output, stop, report, context.resume)
        self.ledger = ledger
        self.context = context
        self.title: str = f"{self.shown.title} of {context.file}"
        self.items: int = 0
        self.expected = 0
        self.own: Mapping[str, int] = {}
        """How many more items are in each state by what this command did, of a run on a server."""
        self.given: list[str] = []
        """What became of the input, a line each."""

    @abstractmethod
    def result(self, item: Item) -> Row:
        """Return an item as a row of the report."""

    @property
    @abstractmethod
    def left(self) -> int:
        """How many items this command was to bring to their end and did not."""

    @property
    @abstractmethod
    def again(self) -> bool:
        """Whether the run can do more if it is resumed."""

    @abstractmethod
    def others(self) -> AsyncIterator[Row]:
        """Return what stood in the input and is no item of the run."""

    @property
    def stopped(self) -> bool:
        """Whether a stop left something undone."""
        return self.stop.asked and (self.left > 0 or self.context.is_worker)

    @property
    def lacking(self) -> int:
        """How many items keep the command from being done."""
        return 0 if self.context.is_worker else self.bad

    async def begin(self) -> None:
        """Note what the run has before the command adds to it."""
        await self.refresh()
        self.items = sum(self.counts.values())

    async def refresh(self) -> None:
        """Read the counts."""
        counted = (await self.ledger.counts()).items()
        self.counts: Mapping[str, int] = {apparent_state(state, held=True): number for state, number in counted}

    async def took(self, intake: Intake, what: str) -> None:
        """Note what became of an input."""
        self.items += intake.added
        twice = f", {intake.duplicates:,} twice" if intake.duplicates else ""
        self.given.append(f"{intake.given:,} {what} given: {intake.added:,} new, {intake.known:,} known{twice}")
        await self.refresh()

    def add(self, row: Row, *, printed: bool = True) -> None:
        """Enter one outcome of this command."""
        self.outcomes[row["outcome"]] += 1
        if printed:
            self.print(row)

    async def print_others(self) -> None:
        """Print what stood in the input and is no item of the run."""
        async for row in self.others():
            self.print(row)

    def footer(self) -> Text:
        """Return the states of the run in one line, for below the bars."""
        states = [(state, self.counts[state]) for state in self.shown.outcomes if self.counts.get(state)]
        pieces = [
            [(f"  {words(state)} ", "dim"), (f"{number:,}", style_of(self.shown, state))] for state, number in states
        ]
        return Text.assemble(*(piece for pair in pieces for piece in pair))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Keep the counts up to date while the block runs, if they are shown."""

        async def look() -> None:
            while True:
                await RunSummary.last_look(self)
                await _clock.sleep(LOOK)

        looking = asyncio.create_task(look()) if self.output.lively else None
        try:
            yield
        finally:
            if looking is not None:
                looking.cancel()
                await asyncio.wait([looking])
            await RunSummary.last_look(self)

    async def last_look(self) -> None:
        """Read the counts, as far as the file can be read."""
        with suppress(*BROKEN):
            await self.refresh()
            self.own = await own_counts(self.ledger)

    async def closed(self, error: Exception | None) -> Exit:
        """Close the command, and say how to try again what did not end well."""
        code = await super().closed(error)
        if code is Exit.SOME_LEFT and self.again:
            self.output.say(f"\n To try the rest again\n   {self.resume}")
        return code

    def missing(self) -> Iterator[str]:
        """Yield what does not add up after a command that came to its end."""
        total = sum(self.counts.values())
        if self.stopped:
            return
        if self.context.is_shared:
            yield from self._missing_of_part(total)
            return
        if total != self.items:
            yield f"{self.items:,} items were taken in, the states have {total:,}"
        if self.done != self.expected:
            yield f"{self.expected:,} items were to be done, {self.done:,} have an outcome"

    def _missing_of_part(self, total: int) -> Iterator[str]:
        """Yield what does not add up of this worker's part; others may have taken in more, and done the rest."""
        if total < self.items:
            yield f"{self.items:,} items were taken in, the states have {total:,}"
        ended = sum(self.own.get(state, 0) for state in self.ends)
        if self.done < ended:
            yield f"{ended:,} items were brought to their end by this command, {self.done:,} have an outcome"

    def total(self, took: str) -> Count:
        """Return how many items the run has."""
        return Count("total", f"{sum(self.counts.values()):,}", f"{self.done:,} worked on {took}", "bold")

    def notes(self) -> Iterator[str]:
        """Yield what became of the input, and what this command did."""
        yield from self.given
        yield from self.this_command()

    def this_command(self) -> Iterator[str]:
        """Yield how many items of this command have which outcome, and how many documents it saved."""
        numbers = {outcome: self.outcomes[outcome] for outcome in self.reported.outcomes} | {"exported": self.exported}
        if any(numbers.values()):
            told = (f"{number:,} {words(name)}" for name, number in numbers.items() if number)
            yield f"this command: {', '.join(told)}"
        if self.context.is_shared and self.expected > self.done and not self.stop.asked:
            yield f"{self.expected - self.done:,} more were done by other workers"

    async def publish(self, report: Report, *, stopped: bool) -> None:
        """Write every item of the run as it stands, whatever this command did to it."""
        written = 0
        async with aclosing(self.ledger.items()) as items:
            async for item in items:
                await report.add(self.result(item))
                written += 1
        async for row in self.others():
            await report.add(row)
            written += 1
        run = {"run": self.context.file, "rows": written, "total": sum(self.counts.values()), "stopped": stopped}
        done = {"counts": self.counts, "done": self.done, "left": self.left}
        await report.publish({**run, **done, **self.totals()})

    def totals(self) -> dict[str, object]:
        """Return what the report ends with beside the counts."""
        return {}

    async def name_lost(self) -> None:
        """Name the first items that did not end well, and those in doubt."""
        items: list[Item] = []
        for state in self.lost:
            if len(items) < SHOWN:
                items += await self.ledger.rows((state,), limit=SHOWN - len(items))
        more = sum(self.counts.get(state, 0) for state in self.lost) - len(items)
        states = [token for state in self.lost if self.counts.get(state) for token in ("--state", str(state))]
        self.name(map(lost_row, items), more, command("runs", "show", self.context.file, *states))
        self.name_others()
        number = self.counts.get(State.IN_DOUBT, 0)
        if number and self.output.quiet:
            self.output.problem(f"{number:,} {IN_DOUBT}", command("runs", "show", self.context.file))
        elif number:
            doubts = await self.ledger.rows((State.IN_DOUBT,), limit=SHOWN)
            show_doubts(self.output, self.context.file, doubts, number, late=lateness(self.ledger))

    def name_others(self) -> None:
        """Name what did not end well beside the items in the states of `lost`."""


def lost_row(item: Item) -> tuple[str, object, str]:
    """Return an item's state, its key, and why it did not end well."""
    return item.state, item.key, reason(item_row(item))

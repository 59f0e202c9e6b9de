"""The books of one command on a run file: its counts are the run's own, and they must add up at the end."""

from __future__ import annotations

import asyncio
import shlex
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from math import ceil
from pathlib import Path

from attrs import frozen
from rich.text import Text

from ..clock import RealClock
from ..errors import InvoicingError
from ..repair import lateness, too_early_for
from ..runs import Intake, Item, LedgerReader, State, apparent_state
from .exits import Exit, checked
from .input.options import Common, RateOptions
from .input.settings import Settings
from .stop import Stop
from .summary import SHOWN, exit_of, print_line, reason, words
from .terminal.output import Count, Screen, plain
from .terminal.progress import TICK, Monitor
from .terminal.report import Report
from .terminal.rows import (
    Kind,
    Row,
    clock_time,
    item_row,
)

__all__ = [
    "BROKEN",
    "IN_DOUBT",
    "PAGE",
    "Book",
    "RunContext",
    "command",
    "doubts",
    "many_doubts",
]

PAGE = 1000
"""Rows of a run file that are read at a time."""

LOOK = 2 * TICK
"""Seconds between two looks at the counts of a run."""

BROKEN = (InvoicingError, OSError)
"""What reading a run file raises when it is broken: whoever wrote to it has raised the same, and that is told."""

IN_DOUBT = "in doubt, not sent again: look each up at the service, then say what you found"
"""What to do about submissions without an answer."""

_clock = RealClock()


def command(*tokens: object) -> str:
    """Return a command line of this program, quoted for a shell."""
    return shlex.join(["invoicing-async", *map(str, tokens)])


def doubts(file: str, items: Iterable[Item], *, late: float) -> Iterator[str]:
    """Give, for each item in doubt, when it was sent, what it was answered, and the commands of which one settles it.

    That it was not created is not offered before it may be said: until then, `late` seconds after its intent, it may
    still arrive.
    """
    for item in items:
        row, key = item_row(item), plain(item.key)
        yield f"   {key}  sent {clock_time(item.sent_at)}"
        if said := _answered(row):
            yield f"     {plain(said)}"
        ids = str(row.get("request_ids") or "").split()
        number = ids[0] if len(ids) == 1 else "ID"
        yield f"     {command('runs', 'resolve', file, item.key, '--as', 'created', '--request-id', number)}"
        left = too_early_for(item, late, _clock.now())
        not_created = command("runs", "resolve", file, item.key, "--as", "not-created")
        yield f"     {not_created}" if left <= 0 else f"     not before {ceil(left)} s from now: {not_created}"


def _answered(row: Row) -> str:
    status, ids = row.get("http_status"), row.get("request_ids")
    said = [row.get("error"), f"HTTP {status}" if status else None, row.get("code"), ids and f"it named {ids}"]
    return "; ".join(dict.fromkeys(str(text) for text in said if text))


def many_doubts(file: str) -> Iterator[str]:
    """Yield the commands that settle everything in doubt at once, in their order."""
    sheet = Path(file).with_suffix(".doubts.csv")
    yield command("runs", "export", file, sheet, "--state", "in_doubt", "--csv")
    yield command("runs", "resolve", file, "--from", sheet)


@frozen(kw_only=True)
class RunContext:
    """What a command on a run file was told."""

    screen: Screen
    settings: Settings
    common: Common
    pace: RateOptions
    file: str
    report: Path | None = None

    @property
    def resume(self) -> str:
        """How to go on."""
        return command("runs", "resume", self.file, *self.common.again)

    def check(self, session: Callable[..., object]) -> None:
        """Raise `CommandError` for a wrong or missing setting: that is told before a run file is made or taken."""
        session(limits=checked(lambda: self.pace.limits, "pace"), retry=checked(lambda: self.pace.retry, "pace"))


class Book(ABC):
    """The books of one command on a run. `counts` are the items of the run by state, `items` how many there must be.

    `outcomes` are those of this command, `expected` how many it is to have.
    """

    states: Kind
    reported: Kind
    """What the report's rows are like."""
    lost: tuple[str, ...]
    """The states whose first items are named in the summary, with their errors."""

    def __init__(self, ledger: LedgerReader, context: RunContext, stop: Stop, report: Report | None) -> None:
        self.ledger = ledger
        self.context = context
        self.screen = context.screen
        self.stop = stop
        self.report = report
        self.monitor = Monitor()
        self.counts: dict[str, int] = {}
        self.items = 0
        self.expected = 0
        self.outcomes: Counter[str] = Counter()
        self.notes: list[str] = []
        self.begun = _clock.monotonic()

    @abstractmethod
    def result(self, item: Item) -> Row:
        """Return an item as a row of the report."""

    @property
    @abstractmethod
    def left(self) -> int:
        """How many items this command was to bring to their end and did not."""

    @property
    def done(self) -> int:
        """How many items have an outcome of this command."""
        return self.outcomes.total()

    @property
    @abstractmethod
    def bad(self) -> int:
        """How many items of the run are not as they are to be in the end."""

    @property
    @abstractmethod
    def again(self) -> bool:
        """Whether the run can do more if it is resumed."""

    @abstractmethod
    def others(self) -> AsyncIterator[Row]:
        """Return what stood in the input and is no item of the run."""

    def more(self) -> Iterator[Count]:
        """Yield what the summary counts beside the states."""
        yield from ()

    # -- while it runs

    async def begin(self) -> None:
        """Note what the run has before the command adds to it."""
        await self.refresh()
        self.items = sum(self.counts.values())

    async def refresh(self) -> None:
        """Read the counts."""
        counted = (await self.ledger.counts()).items()
        self.counts = {apparent_state(state, held=True): number for state, number in counted}

    async def took(self, intake: Intake, what: str) -> None:
        """Note what became of an input."""
        self.items += intake.added
        twice = f", {intake.duplicates:,} twice" if intake.duplicates else ""
        self.notes.append(f"{intake.given:,} {what} given: {intake.added:,} new, {intake.known:,} known{twice}")
        await self.refresh()

    def add(self, row: Row, *, printed: bool = True) -> None:
        """Enter one outcome of this command."""
        self.outcomes[row["outcome"]] += 1
        if printed:
            self.print(row)

    def print(self, row: Row) -> None:
        """Print an outcome as a JSON line, if that is asked for."""
        print_line(self.screen, row, self.stop)

    async def print_others(self) -> None:
        """Print what stood in the input and is no item of the run."""
        async for row in self.others():
            self.print(row)

    def foot(self) -> Text:
        """Return the states of the run in one line, for below the bars."""
        counted = [(state, self.counts[state]) for state in self.states.outcomes if self.counts.get(state)]
        pieces = [[(f"  {words(state)} ", "dim"), (f"{number:,}", self._style(state))] for state, number in counted]
        return Text.assemble(*(piece for pair in pieces for piece in pair))

    def _style(self, state: str) -> str:
        return "green" if state in self.states.good else "" if state in {"planned", "in_flight"} else "yellow"

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Keep the counts up to date while the block runs, if somebody is looking."""
        looking = asyncio.create_task(self._look()) if self.screen.lively else None
        try:
            yield
        finally:
            if looking is not None:
                looking.cancel()
                await asyncio.wait([looking])
            await self._look_once()

    async def _look(self) -> None:
        while True:
            await self._look_once()
            await _clock.sleep(LOOK)

    async def _look_once(self) -> None:
        with suppress(*BROKEN):
            await self.refresh()

    async def _last_look(self) -> None:
        await self._look_once()

    # -- the end

    async def closed(self, error: Exception | None) -> Exit:
        """Close the books: report, summary, what went wrong, how to go on; and give the exit code."""
        await self._last_look()
        stopped = self.stop.asked and self.left > 0
        await self._show(stopped=stopped or error is not None)
        if error is not None:
            self.screen.failure(error)
        wrong = [] if stopped or error is not None else list(self._imbalance())
        for text in wrong:
            self.screen.problem(f"item counts do not add up: {text}")
        code = exit_of(error, stopped=stopped, left=bool(self.bad or wrong))
        self._say_how_to_go_on(code)
        return code

    async def interrupted(self) -> None:
        """Close the books of a command that was ended at once."""
        await self._last_look()
        await self._show(stopped=True)
        self.screen.problem("interrupted; go on with", self.context.resume)

    def _say_how_to_go_on(self, code: Exit) -> None:
        if code is Exit.STOPPED:
            self.screen.problem("stopped before the end; go on with", self.context.resume)
        elif code is Exit.SOME_LEFT and self.again:
            self.screen.say(f"\n To try the rest again\n   {self.context.resume}")

    def _imbalance(self) -> Iterator[str]:
        """Say what does not add up after a command that came to its end."""
        total = sum(self.counts.values())
        if total != self.items:
            yield f"{self.items:,} items were taken in, the states have {total:,}"
        if self.done != self.expected:
            yield f"{self.expected:,} items were to be done, {self.done:,} have an outcome"

    async def _show(self, *, stopped: bool) -> None:
        try:
            await self._publish(stopped=stopped)
        except BROKEN as error:
            self.screen.failure(error)
        # First what is named one by one: what is looked for at the end of a screen is the summary.
        with suppress(*BROKEN):
            await self._name_lost()
            await self._name_doubts()
        self.screen.counts(f"{self.states.title} of {self.context.file}", self._counted())
        for note in (*self.notes, *self._this_command()):
            self.screen.say(f"   {note}", "dim")
        if self.report is not None:
            self.screen.say(f"\n Report  {self.report.path}")

    def _this_command(self) -> Iterator[str]:
        known = [outcome for outcome in self.reported.outcomes if self.outcomes[outcome]]
        if known:
            yield "this command: " + ", ".join(f"{self.outcomes[outcome]:,} {words(outcome)}" for outcome in known)

    def _counted(self) -> Iterator[Count]:
        for state, meaning in self.states.outcomes.items():
            if number := self.counts.get(state):
                yield Count(words(state), f"{number:,}", meaning, self._style(state))
        seconds = _clock.monotonic() - self.begun
        rate = f", {self.done / seconds:,.0f}/s" if seconds > 1 else ""
        yield Count(
            "total", f"{sum(self.counts.values()):,}", f"{self.done:,} worked on in {seconds:.1f} s{rate}", "bold"
        )
        yield from self.more()
        if self.monitor.retries:
            yield Count("retries", f"{self.monitor.retries:,}", "calls that were tried again")

    async def _publish(self, *, stopped: bool) -> None:
        """Write every item of the run as it stands, whatever this command did to it."""
        if self.report is None:
            return
        written = 0
        async for row in self._rows():
            await self.report.add(row)
            written += 1
        total = sum(self.counts.values())
        totals = {"run": self.context.file, "rows": written, "total": total, "stopped": stopped, "counts": self.counts}
        await self.report.publish({**totals, "done": self.done, "left": self.left, **self.totals()})

    def totals(self) -> dict[str, object]:
        """Return what the report ends with beside the counts."""
        return {}

    async def _rows(self) -> AsyncIterator[Row]:
        async with aclosing(self.ledger.items()) as items:
            async for item in items:
                yield self.result(item)
        async for row in self.others():
            yield row

    async def _name_lost(self) -> None:
        items = await self.ledger.rows(self.lost, limit=SHOWN)
        self._name(items)
        more = sum(self.counts.get(state, 0) for state in self.lost) - len(items)
        if more > 0:
            states = [token for state in self.lost if self.counts.get(state) for token in ("--state", str(state))]
            self.screen.amiss(f"   and {more:,} more; {command('runs', 'show', self.context.file, *states)}")

    def _name(self, items: list[Item]) -> None:
        """Name items with what is wrong with them, one in a line."""
        wide = max((len(words(item.state)) for item in items), default=0)
        name = max((len(plain(item.key)) for item in items), default=0)
        if items:
            self.screen.say("")
        for item in items:
            text = f"   {words(item.state).ljust(wide)}  {plain(item.key).ljust(name)}  {reason(item_row(item))}"
            self.screen.amiss(text)

    async def _name_doubts(self) -> None:
        number = self.counts.get(State.IN_DOUBT, 0)
        if not number:
            return
        said = f"{number:,} {IN_DOUBT}"
        if self.screen.quiet:
            self.screen.problem(said, command("runs", "show", self.context.file))
            return
        self.screen.say(f"\n {said}", "yellow")
        items = await self.ledger.rows((State.IN_DOUBT,), limit=SHOWN)
        for line in doubts(self.context.file, items, late=lateness(self.ledger)):
            self.screen.say(line)
        if number > SHOWN:
            shown = command("runs", "show", self.context.file, "--state", "in_doubt")
            self.screen.say(f"   and {number - SHOWN:,} more; {shown}", "yellow")
        if number > 1:
            self.screen.say(" Or all of them at once")
            for step in many_doubts(self.context.file):
                self.screen.say(f"     {step}")

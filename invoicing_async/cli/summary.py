"""What a command counts, prints and reports, from its first item to its exit code."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..clock import RealClock
from ..errors import AuthenticationError, InvoicingError
from ..models import AuthorityStatus
from ..reports import Report, Row, RowType, reason, refused_by_authority
from .exits import CommandError, Exit
from .stop import CountedInput, Stop, listening
from .terminal.output import Count, Output, plain
from .terminal.progress import Monitor
from .terminal.report import opened_report
from .terminal.times import rate

__all__ = [
    "BROKEN",
    "SHOWN",
    "BatchSummary",
    "Summary",
    "authority_note",
    "carry_out",
    "counted",
    "finish",
    "stop_of",
    "style_of",
    "words",
]

SHOWN = 10
"""Items that are named one by one when they did not end well."""

MANY = 10
"""Items from which on it means something how many were done in a second."""

BROKEN = (InvoicingError, OSError)
"""What reading a broken run file, and writing to a full disk, raises."""

_clock = RealClock()


class Summary(ABC):
    """The summary of one command: its outcomes counted, its report, and its exit code.

    `counts` are what the table shows; `outcomes` those that this command had.
    """

    title: str
    shown: RowType
    """The rows of the table."""
    reported: RowType
    """What JSON lines and the report's rows are like."""
    go_on: str = ""
    """What is said before how to go on."""
    credential: AuthenticationError | None = None
    """The refusal of a credential that items met."""

    def __init__(self, output: Output, stop: Stop, report: Report | None, resume: str) -> None:
        self.output = output
        self.stop = stop
        self.report = report
        self.resume = resume
        self.monitor: Monitor = Monitor()
        self.outcomes: Counter[str] = Counter()
        self.counts: Mapping[str, int] = self.outcomes
        self.begun: float = _clock.monotonic()

    @property
    def done(self) -> int:
        """How many items have an outcome of this command."""
        return self.outcomes.total()

    @property
    def has_table(self) -> bool:
        """Whether there is anything to show of a command that did not come to its end."""
        return True

    @property
    @abstractmethod
    def stopped(self) -> bool:
        """Whether a stop left something undone."""

    @property
    @abstractmethod
    def bad(self) -> int:
        """How many items are not as they are to be in the end."""

    @property
    def lacking(self) -> int:
        """How many items keep the command from being done."""
        return self.bad

    @property
    def refused(self) -> int:
        """How many invoices the tax authority refuses; none of order documents."""
        return 0

    @abstractmethod
    def missing(self) -> Iterator[str]:
        """Yield what does not add up after a command that came to its end."""

    @abstractmethod
    def total(self, took: str) -> Count:
        """Return the table's total; `took` says how long the command took, and its rate."""

    @abstractmethod
    async def publish(self, report: Report, *, stopped: bool) -> None:
        """Complete the report and put it in its place."""

    @abstractmethod
    async def name_lost(self) -> None:
        """Name the first items that did not end well."""

    async def last_look(self) -> None:  # noqa: B027 - nothing to do where the counts are kept in memory
        """Bring the counts up to date."""

    def notes(self) -> Iterator[str]:
        """Yield the lines below the table."""
        yield from ()

    def more(self) -> Iterator[Count]:
        """Yield what the table counts beside the states."""
        yield from ()

    def print(self, row: Row) -> None:
        """Print an outcome as a JSON line, if that is asked for; stop when the reader has left."""
        if not self.output.line(self.reported.whole(row)):
            self.output.problem("whoever read stdout has left")
            self.stop.ask()

    async def closed(self, error: Exception | None) -> Exit:
        """Publish the report, show the summary, tell what went wrong and how to go on; return the exit code."""
        await self.last_look()
        stopped = self.stopped
        shown = error is None or self.has_table
        published = await self._show(stopped=stopped or error is not None) if shown else True
        wrong = list(self.missing()) if error is None else []
        for text in wrong:
            self.output.problem(f"item counts do not add up: {text}")
        if told := error or self.credential:
            self.output.failure(told)
        if isinstance(error, CommandError):
            code = error.code
        elif isinstance(error, ValueError) and not isinstance(error, InvoicingError):
            code = Exit.USAGE
        elif error is not None or stopped:
            code = Exit.STOPPED
        else:
            code = Exit.SOME_LEFT if self.lacking or wrong or not published else Exit.DONE
        if code is Exit.STOPPED:
            self.output.problem(f"stopped before the end{self.go_on}", self.resume)
        return code

    async def interrupted(self) -> None:
        """Publish and show what has an outcome, for a command that was ended at once."""
        await self.last_look()
        if self.has_table:
            await self._show(stopped=True)
        self.output.problem(f"interrupted{self.go_on}", self.resume)

    async def _show(self, *, stopped: bool) -> bool:
        """Publish the report and show the table. False for a report that could not be written."""
        published = True
        if self.report is not None:
            try:
                await self.publish(self.report, stopped=stopped)
            except BROKEN as error:
                published = False
                self.output.failure(error)
        # What is named one by one comes first: the end of a terminal is what is looked at.
        with suppress(*BROKEN):
            await self.name_lost()
        seconds = _clock.monotonic() - self.begun
        speed = rate(self.done / seconds) if seconds > 1 and self.done >= MANY else ""
        took = f"in {seconds:.1f} s{speed and f', {speed}'}"
        rows = [*counted(self.shown, self.counts, self.total(took), self.refused), *self.more()]
        if self.monitor.retries:
            rows.append(Count("retries", f"{self.monitor.retries:,}", "calls that were tried again"))
        self.output.counts(self.title, rows)
        for note in self.notes():
            self.output.say(f"   {note}", "dim")
        if self.report is not None and published:
            self.output.say(f"\n Report  {self.report.path}")
        return published

    def name(self, rows: Iterable[tuple[str, object, str]], more: int, see: str) -> None:
        """Name items, each with its state and what is wrong with it, and say where `more` of them are to be seen."""
        listed = [(words(state), plain(name), plain(why)) for state, name, why in rows]
        wide = [max(map(len, column)) for column in zip(*listed, strict=True)]
        if listed:
            self.output.say("")
        for state, name, why in listed:
            self.output.amiss(f"   {state.ljust(wide[0])}  {name.ljust(wide[1])}  {why}")
        if more > 0:
            self.output.amiss(f"   and {more:,} more; {see}")


class BatchSummary(Summary):
    """The summary of one batch without a run file: what was taken, and the outcome of each item."""

    def __init__(
        self, row_type: RowType, output: Output, source: CountedInput, report: Report | None, resume: str = ""
    ) -> None:
        super().__init__(output, source.stop, report, resume)
        self.title: str = row_type.title
        self.reported: RowType = row_type
        self.shown = row_type
        self.source = source
        self.lost: list[Row] = []
        self.authority: Counter[str] = Counter()

    async def add(self, row: Row) -> None:
        """Enter one outcome."""
        outcome = row["outcome"]
        self.outcomes[outcome] += 1
        if status := row.get("authority_status"):
            self.authority[status] += 1
        if (refused_by_authority(row) or outcome not in self.shown.good) and len(self.lost) < SHOWN:
            self.lost.append(row)
        if self.report is not None:
            await self.report.add(row)
        self.print(row)

    @property
    def has_table(self) -> bool:
        """Whether anything has an outcome."""
        return self.done > 0

    def note_error(self, error: BaseException) -> None:
        """Keep the refusal of a credential that an item met: it is told once, with what to do."""
        if isinstance(error, AuthenticationError):
            self.credential: AuthenticationError | None = error

    @property
    def stopped(self) -> bool:
        """Whether a stop ended the input."""
        return self.source.cut

    @property
    def refused(self) -> int:
        """How many invoices the tax authority refuses."""
        return sum(number for status, number in self.authority.items() if AuthorityStatus.refuses(status))

    @property
    def open(self) -> int:
        """How many items were taken and have no outcome: none, unless the command was interrupted."""
        return self.source.taken - self.done

    @property
    def bad(self) -> int:
        """How many items did not end well."""
        return self.refused + sum(self.outcomes[outcome] for outcome in self.outcomes if outcome not in self.shown.good)

    def missing(self) -> Iterator[str]:
        """Yield that items have no outcome."""
        if self.open:
            yield f"{self.source.taken:,} taken, {self.done:,} outcomes"

    def total(self, took: str) -> Count:
        """Return how many items have their outcome."""
        return Count("total", f"{self.done:,}", took, "bold")

    def notes(self) -> Iterator[str]:
        """Yield how the invoices stand with the tax authority."""
        if self.authority:
            yield authority_note(self.authority)

    async def publish(self, report: Report, *, stopped: bool) -> None:
        """Put the report in its place; its rows were added as they came."""
        totals: dict[str, Any] = {"taken": self.source.taken, "without_outcome": self.open, "stopped": stopped}
        await report.publish({**totals, "counts": dict(self.outcomes), "authority": dict(self.authority)})

    async def name_lost(self) -> None:
        """Name the first items that did not end well."""
        rows = [(row["outcome"], row.get(self.shown.name), reason(row)) for row in self.lost]
        self.name(
            rows, self.bad - len(rows), "the report names them" if self.report else "--report FILE names them all"
        )

    async def interrupted(self) -> None:
        """Say how many items have no outcome."""
        if self.open:
            self.go_on: str = f": {self.open:,} of {self.source.taken:,} items have no outcome"
        await super().interrupted()


def counted(row_type: RowType, counts: Mapping[str, int], total: Count, refused: int) -> Iterator[Count]:
    """Yield the rows of a table: each state with its meaning, the total, and what the tax authority refuses."""
    for state, meaning in row_type.outcomes.items():
        if number := counts.get(state):
            yield Count(words(state), f"{number:,}", meaning, style_of(row_type, state))
    yield total
    if refused:
        yield Count("refused", f"{refused:,}", "made, and does not stand with the tax authority", "yellow")


def style_of(row_type: RowType, outcome: str) -> str:
    """Return the colour in which an outcome is counted."""
    return "green" if outcome in row_type.good else "" if outcome in {"planned", "in_flight"} else "yellow"


def words(outcome: str) -> str:
    """Return an outcome as it is read."""
    return outcome.replace("_", " ")


def authority_note(counts: Mapping[str, int]) -> str:
    """Return how many invoices stand how with the tax authority, in one line."""
    return plain("tax authority: " + ", ".join(f"{number:,} {status}" for status, number in sorted(counts.items())))


def stop_of(output: Output) -> Stop:
    """Return a stop that tells its user what happens."""
    return Stop(lambda: output.problem("stopping: what is in flight finishes; Ctrl-C again stops at once"))


async def carry_out(
    row_type: RowType,
    output: Output,
    work: Callable[[BatchSummary], Awaitable[None]],
    *,
    report: Path | None,
    resume: str,
) -> Exit:
    """Do a batch with its summary, its report and its Ctrl-C, and return the exit code.

    `work` takes the input through `batch.source` and enters each outcome. `resume` says how to go on after a stop.
    """
    async with opened_report(report, row_type) as opened:
        batch = BatchSummary(row_type, output, CountedInput(stop_of(output)), opened, resume)
        return await finish(batch, work(batch))


async def finish(summary: Summary, work: Awaitable[None]) -> Exit:
    """Wait for the work of a command, end it at Ctrl-C, close its summary and return the exit code.

    What the work raises is told after the summary, if it is for the user and not a fault of the program.
    """
    with listening(summary.stop):
        error: Exception | None = None
        try:
            await work
        except (CommandError, InvoicingError, OSError, ValueError) as raised:
            error = raised
        except asyncio.CancelledError:
            await summary.interrupted()
            raise
        return await summary.closed(error)

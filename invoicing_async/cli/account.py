"""A batch from its first item to its exit code: every outcome counted, printed, reported, and balanced at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .._clock import RealClock
from ..errors import InvoicingError
from .exits import CommandError, Exit
from .progress import Monitor
from .report import Report
from .rows import Kind, Row
from .screen import Screen, plain
from .stop import Stop, Taking, listening

__all__ = ["Account", "carry_out", "closed"]

SHOWN = 10
"""Items that are named one by one when they did not end well."""

_STYLES = {True: "green", False: "yellow"}
_clock = RealClock()


class Account:
    """The books of one batch."""

    def __init__(self, kind: Kind, screen: Screen, taking: Taking, report: Report | None) -> None:
        self.kind = kind
        self.screen = screen
        self.taking = taking
        self.report = report
        self.counts: Counter[str] = Counter()
        self.monitor = Monitor()
        self.lost: list[Row] = []
        self.begun = _clock.monotonic()

    @property
    def settled(self) -> int:
        """How many items have their outcome."""
        return self.counts.total()

    async def add(self, row: Row) -> None:
        """Enter one outcome."""
        outcome = row["outcome"]
        self.counts[outcome] += 1
        if outcome not in self.kind.good and len(self.lost) < SHOWN:
            self.lost.append(row)
        self.screen.line(row)
        if self.report is not None:
            await self.report.add(row)

    @property
    def bad(self) -> int:
        """How many items did not end well."""
        return sum(number for outcome, number in self.counts.items() if outcome not in self.kind.good)

    @property
    def balanced(self) -> bool:
        """Whether every item taken from the input has exactly one outcome."""
        return self.settled == self.taking.taken

    def totals(self) -> dict[str, Any]:
        """Give what the report ends with."""
        return {"taken": self.taking.taken, "stopped": self.taking.cut, "counts": dict(self.counts)}

    def show(self) -> None:
        """Show the summary."""
        self.screen.show(Padding(summary(self), (0, 1)))
        self._name_lost()
        if self.report is not None:
            self.screen.say(f" Report: {self.report.path}")

    def _name_lost(self) -> None:
        name = self.kind.name
        for row in self.lost:
            text = f" {words(row['outcome'])}  {plain(row.get(name))}  {plain(row.get('error') or row.get('status', ''))}"
            self.screen.say(text, "yellow")
        if self.bad > len(self.lost):
            more = "the report names them" if self.report else "--report FILE names them all"
            self.screen.say(f" and {self.bad - len(self.lost):,} more; {more}", "yellow")


def words(outcome: str) -> str:
    """Give an outcome as it is read."""
    return outcome.replace("_", " ")


def summary(account: Account) -> Table:
    """Draw the counts of a batch."""
    kind, seconds = account.kind, _clock.monotonic() - account.begun
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), title=kind.title, title_justify="left")
    table.title_style = "bold"
    table.add_column(min_width=12)
    table.add_column(justify="right")
    table.add_column(style="dim")
    for outcome, meaning in kind.outcomes.items():
        if number := account.counts[outcome]:
            table.add_row(Text(words(outcome), _STYLES[outcome in kind.good]), f"{number:,}", meaning)
    rate = f"{account.settled / seconds:,.0f}/s" if seconds > 1 else ""
    table.add_row(Text("total", "bold"), f"{account.settled:,}", f"{seconds:.1f} s  {rate}".strip())
    if account.monitor.retries:
        table.add_row("retries", f"{account.monitor.retries:,}", "calls tried again")
    return table


async def carry_out(
    kind: Kind,
    screen: Screen,
    work: Callable[[Account], Awaitable[None]],
    *,
    report: Path | None,
    resume: str,
) -> Exit:
    """Do a batch with its books, its report and its Ctrl-C, and give the exit code.

    `work` takes the input through `account.taking` and enters each outcome. What it raises ends the batch and is
    told after the summary. `resume` says how to go on after a stop.
    """
    stop = Stop(lambda: screen.problem("stopping: what is in flight finishes; Ctrl-C again stops at once"))
    taking = Taking(stop)
    async with AsyncExitStack() as stack:
        paper = await stack.enter_async_context(Report(report, kind)) if report else None
        account = Account(kind, screen, taking, paper)
        with listening(stop):
            error = await _error_of(work(account))
            return await closed(account, error, resume=resume)


async def _error_of(work: Awaitable[None]) -> Exception | None:
    """Wait for the work and give what it raised, if that is for the user and not a fault of the program."""
    try:
        await work
    except BrokenPipeError:
        raise
    except (CommandError, InvoicingError, OSError, ValueError) as error:
        return error
    return None


async def closed(account: Account, error: Exception | None, *, resume: str) -> Exit:
    """Close the books: summary, report, what went wrong, how to go on; and give the exit code."""
    if account.report is not None:
        await account.report.publish(account.totals())
    account.show()
    screen, taking = account.screen, account.taking
    if not account.balanced:
        screen.problem(f"the books do not balance: {taking.taken:,} taken, {account.settled:,} outcomes")
    if error is not None:
        screen.problem(str(error), getattr(error, "hint", ""))
    code = _code(account, error)
    if code is Exit.STOPPED:
        screen.problem("stopped before the end", resume)
    return code


def _code(account: Account, error: Exception | None) -> Exit:
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, ValueError) and not isinstance(error, InvoicingError):
        return Exit.USAGE
    if error is not None or account.taking.cut:
        return Exit.STOPPED
    return Exit.SOME_LEFT if account.bad or not account.balanced else Exit.DONE

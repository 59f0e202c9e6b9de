"""A batch from its first item to its exit code: every outcome counted, printed, reported, and balanced at the end."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from ..clock import RealClock
from ..errors import AuthenticationError, InvoicingError
from .exits import CommandError, Exit
from .stop import Stop, Taking, listening
from .terminal.output import Count, Screen, plain, unheard
from .terminal.progress import Monitor
from .terminal.report import Report, opened_report
from .terminal.rows import Kind, Row, refused_by_authority

__all__ = [
    "REFUSED",
    "SHOWN",
    "Account",
    "authority_note",
    "carry_out",
    "closed",
    "error_of",
    "exit_of",
    "print_line",
    "reason",
    "words",
]

SHOWN = 10
"""Items that are named one by one when they did not end well."""

LEFT = (errno.EPIPE, errno.EIO)
"""What writing comes to when its reader has left: a pipe's, and a terminal's that has closed."""

REFUSED = "made, and does not stand with the tax authority"
"""What is counted beside the outcomes, as the authority's status is an axis of its own."""

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
        self.authority: Counter[str] = Counter()
        self.refused = 0
        self.credential: AuthenticationError | None = None
        self.begun = _clock.monotonic()

    @property
    def settled(self) -> int:
        """How many items have their outcome."""
        return self.counts.total()

    async def add(self, row: Row) -> None:
        """Enter one outcome."""
        outcome = row["outcome"]
        self.counts[outcome] += 1
        if status := row.get("authority_status"):
            self.authority[status] += 1
        refused = refused_by_authority(row)
        self.refused += refused
        if (refused or outcome not in self.kind.good) and len(self.lost) < SHOWN:
            self.lost.append(row)
        if self.report is not None:
            await self.report.add(row)
        print_line(self.screen, row, self.taking.stop)

    def hear(self, error: BaseException) -> None:
        """Keep the refusal of a credential that an item met: it is told once, with what to do."""
        if isinstance(error, AuthenticationError):
            self.credential = error

    @property
    def bad(self) -> int:
        """How many items did not end well."""
        return self.refused + sum(number for outcome, number in self.counts.items() if outcome not in self.kind.good)

    @property
    def open(self) -> int:
        """How many items were taken and have no outcome: none, in the end, unless the command was interrupted."""
        return self.taking.taken - self.settled

    def totals(self) -> dict[str, Any]:
        """Return what the report ends with."""
        return {
            "taken": self.taking.taken,
            "without_outcome": self.open,
            "stopped": self.taking.cut,
            "counts": dict(self.counts),
            "authority": dict(self.authority),
        }

    def show(self) -> None:
        """Show what did not end well, and below it, where it is seen, the summary."""
        self._name_lost()
        self.screen.counts(self.kind.title, self._counted())
        if self.authority:
            self.screen.say(f"   {authority_note(self.authority)}", "dim")
        if self.report is not None:
            self.screen.say(f"\n Report  {self.report.path}")

    def _counted(self) -> Iterator[Count]:
        for outcome, meaning in self.kind.outcomes.items():
            if number := self.counts[outcome]:
                yield Count(words(outcome), f"{number:,}", meaning, "green" if outcome in self.kind.good else "yellow")
        if self.refused:
            yield Count("refused", f"{self.refused:,}", REFUSED, "yellow")
        seconds = _clock.monotonic() - self.begun
        rate = f", {self.settled / seconds:,.0f}/s" if seconds > 1 else ""
        yield Count("total", f"{self.settled:,}", f"in {seconds:.1f} s{rate}", "bold")
        if self.monitor.retries:
            yield Count("retries", f"{self.monitor.retries:,}", "calls that were tried again")

    def _name_lost(self) -> None:
        rows = [(words(row["outcome"]), plain(row.get(self.kind.name)), reason(row)) for row in self.lost]
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        if rows:
            self.screen.say("")
        for outcome, name, why in rows:
            self.screen.amiss(f"   {outcome.ljust(wide[0])}  {name.ljust(wide[1])}  {why}")
        if self.bad > len(rows):
            more = "the report names them" if self.report else "--report FILE names them all"
            self.screen.amiss(f"   and {self.bad - len(rows):,} more; {more}")


def print_line(screen: Screen, row: Row, stop: Stop) -> None:
    """Print an outcome as a JSON line, if that is asked for; a reader that has left is a reason to stop."""
    try:
        screen.line(row)
    except OSError as error:
        if error.errno not in LEFT:
            raise
        unheard()
        screen.problem("whoever read stdout has left")
        stop.ask()


def words(outcome: str) -> str:
    """Return an outcome as it is read."""
    return outcome.replace("_", " ")


def reason(row: Row) -> str:
    """Return in one line why an item did not end well: the service's words, its code, and the ids to ask it about."""
    error = str(row.get("error") or "")
    if not error and refused_by_authority(row):
        error = f"the tax authority: {row['authority_status']}"
    error = error or str(row.get("status") or "")
    named = {"code": "", "request_id": "request ", "invoice_id": "invoice "}
    more = [f"{word}{row[name]}" for name, word in named.items() if row.get(name) and str(row[name]) not in error]
    return plain(f"{error} ({', '.join(more)})" if more and error else error or ", ".join(more))


def authority_note(counted: Mapping[str, int]) -> str:
    """Return how many invoices stand how with the tax authority, in one line."""
    return plain("tax authority: " + ", ".join(f"{number:,} {status}" for status, number in sorted(counted.items())))


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
        paper = await stack.enter_async_context(opened_report(report, kind))
        account = Account(kind, screen, taking, paper)
        with listening(stop):
            try:
                error = await error_of(work(account))
            except asyncio.CancelledError:
                await interrupted(account, resume=resume)
                raise
            return await closed(account, error, resume=resume)


async def error_of(work: Awaitable[None]) -> Exception | None:
    """Wait for the work and give what it raised, if that is for the user and not a fault of the program."""
    try:
        await work
    except (CommandError, InvoicingError, OSError, ValueError) as error:
        return error
    return None


async def closed(account: Account, error: Exception | None, *, resume: str) -> Exit:
    """Close the books: summary, report, what went wrong, how to go on; and give the exit code."""
    if account.settled or error is None:
        await _publish(account)
        account.show()
    screen, taking = account.screen, account.taking
    if account.open and error is None:
        screen.problem(f"item counts do not add up: {taking.taken:,} taken, {account.settled:,} outcomes")
    if told := error or account.credential:
        screen.failure(told)
    code = exit_of(error, stopped=taking.cut, left=bool(account.bad or account.open))
    if code is Exit.STOPPED:
        screen.problem("stopped before the end", resume)
    return code


async def interrupted(account: Account, *, resume: str) -> None:
    """Close the books of a batch that was ended at once: what has an outcome is reported."""
    if account.settled:
        await _publish(account)
        account.show()
    open_ = f": {account.open:,} of {account.taking.taken:,} items have no outcome" if account.open else ""
    account.screen.problem(f"interrupted{open_}", resume)


async def _publish(account: Account) -> None:
    if account.report is not None:
        await account.report.publish(account.totals())


def exit_of(error: Exception | None, *, stopped: bool, left: bool) -> Exit:
    """Return the exit code of a batch that came to its end, raised this error, or was stopped."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, ValueError) and not isinstance(error, InvoicingError):
        return Exit.USAGE
    if error is not None or stopped:
        return Exit.STOPPED
    return Exit.SOME_LEFT if left else Exit.DONE

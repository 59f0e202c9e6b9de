"""What is seen while a batch runs: how many are done, how fast, how often tried again, and how the service is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from attrs import define, field
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from ...clock import Clock, RealClock
from ...errors import RateLimitError, ServiceUnavailableError, TransportError
from ...events import AttemptFailed, Event, OperationPolled, RequestStarted, RequestSucceeded, RetryScheduled
from .times import duration, local_time

__all__ = ["Bar", "Health", "Monitor", "live"]

TICK = 0.1
"""Seconds between two pictures."""

PATIENCE = 3
"""Failures in a row, without an answer between them, before the service is called unavailable."""

LIMITED_FOR = 5.0
"""Seconds for which a 429 is shown."""

BAR, LEAST, BESIDE = 24, 6, 70
"""Columns of the bar at most and at least, and those of what stands beside it."""

NARROW = 58
"""Columns of a terminal below which there is no place for a bar either."""


@define
class Pause:
    """Since when calls wait, and when the next one is tried: epoch seconds, None where that is not known."""

    since: float
    next_try: float | None = None
    is_trying: bool = False

    def words(self, now: float) -> str:
        """Return it in words."""
        left = None if self.next_try is None else self.next_try - now
        soon = f", next try in {left:.0f} s" if left is not None and left >= 1 else ""
        return f"paused since {local_time(self.since, short=True)}{', trying now' if self.is_trying else soon}"


@define
class Health:
    """The state of the service as its answers tell it; a few failures among successes do not change it."""

    failures: int = 0
    since: float | None = None
    words: str = ""
    limited_at: float = field(default=float("-inf"))
    paused: dict[tuple[str, str], Pause] = field(factory=dict)
    """By operation and store: the calls that wait because the service is down."""

    def failed(self, error: Exception, now: float) -> None:
        """Note a failed attempt at `now` epoch seconds."""
        if isinstance(error, RateLimitError):
            self.limited_at = now
        elif isinstance(error, (ServiceUnavailableError, TransportError)):
            self.failures += 1
            self.since = now if self.since is None else self.since
            self.words = "unavailable" if isinstance(error, ServiceUnavailableError) else "no answer"
        else:
            self.answered()

    def answered(self) -> None:
        """Note that the service answered: with success, or with a refusal that is no outage."""
        self.failures, self.since = 0, None

    def tried(self, operation: str) -> None:
        """Note that an attempt of an operation failed: when the next one is, nobody has said."""
        for (name, _), pause in self.paused.items():
            if name == operation and pause.is_trying:
                pause.is_trying, pause.next_try = False, None

    def lane(self, event: Event, now: float) -> None:
        """Note that the calls of an operation wait, are tried, or go on again."""
        about: Any = event
        match type(event).__name__:
            case "Paused":
                begun = self.paused.get((about.operation, about.store), Pause(now))
                self.paused[about.operation, about.store] = Pause(begun.since, now + about.next_probe)
            case "Probing" if found := self.paused.get((about.operation, about.store)):
                found.is_trying = True
            case "Resumed":
                self.paused.pop((about.operation, about.store), None)
                self.answered()

    def state(self, now: float) -> tuple[str, str]:
        """Return the state in words, and its colour."""
        if self.paused:
            return min(self.paused.values(), key=lambda pause: pause.since).words(now), "yellow"
        if self.since is not None and self.failures >= PATIENCE:
            return f"{self.words} since {local_time(self.since, short=True)}", "yellow"
        if now - self.limited_at < LIMITED_FOR:
            return "rate limited", "yellow"
        return "service ok", "green"


class Monitor:
    """The observer of one session: counts retries and keeps the service's health."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or RealClock()
        self.health: Health = Health()
        self.retries: int = 0

    def __call__(self, event: Event) -> None:
        """Take an event of the session."""
        match event:
            case RequestStarted():
                return
            case RetryScheduled():
                self.retries += 1
            case AttemptFailed(error=error):
                self.health.failed(error, self.clock.now())
                self.health.tried(event.operation)
            case RequestSucceeded() | OperationPolled():
                self.health.answered()
            case _:
                self.health.lane(event, self.clock.now())

    def state(self) -> tuple[str, str]:
        """Return the service's state in words, and its colour."""
        return self.health.state(self.clock.now())

    def note(self) -> Text:
        """Return what stands at the end of a bar."""
        words, style = self.state()
        retries = f"{self.retries:,} retr{'y' if self.retries == 1 else 'ies'}"
        return Text.assemble((retries.ljust(11), "dim" if not self.retries else ""), " ", (words, style))


@define
class Bar:
    """One line of progress; `done` gives how many are, `note` what stands behind them."""

    title: str
    total: int | None
    done: Callable[[], int]
    note: Callable[[], Text] = Text


class _Count(ProgressColumn):
    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        done = f"{int(task.completed):,}"
        total = None if task.total is None else f"{int(task.total):,}"
        width = 2 * len(total) + 1 if total else len(done)
        return Text((f"{done}/{total}" if total else done).rjust(width))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(("" if speed is None else f"{speed:,.0f}/s").rjust(7), style="dim")


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        seconds = None if task.finished else task.time_remaining
        return Text(("" if seconds is None else f"{duration(seconds)} left").ljust(10), style="dim")


class _Note(ProgressColumn):
    def render(self, task: Task) -> Text:
        bar: Bar = task.fields["bar"]
        note = bar.note()
        note.no_wrap, note.overflow = True, "ellipsis"
        return note


def _columns(width: int) -> list[ProgressColumn]:
    """Return what there is a place for in a terminal of so many columns; each bar stays one line."""
    title, count, note = TextColumn("{task.description}", table_column=Column(no_wrap=True)), _Count(), _Note()
    if width < NARROW:
        return [title, count, note]
    length = max(LEAST, min(BAR, width - BESIDE))
    bar = BarColumn(bar_width=length, complete_style="cyan", finished_style="green")
    return [title, bar, count, note] if width < LEAST + BESIDE else [title, bar, count, _Rate(), _Left(), note]


class _Picture(Progress):
    """The bars, and below them one line of text if there is one."""

    footer: Callable[[], Text] | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.footer is not None:
            yield self.footer()


@asynccontextmanager
async def live(
    console: Console,
    bars: list[Bar],
    *,
    shown: bool,
    footer: Callable[[], Text] | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[None]:
    """Show the bars while the block runs, if `shown`; counting is done elsewhere, so that a picture costs nothing."""
    if not shown:
        yield
        return
    with _Picture(*_columns(console.width), console=console, auto_refresh=False, expand=False) as picture:
        picture.footer = footer
        tasks = [(picture.add_task(bar.title, total=bar.total, bar=bar), bar) for bar in bars]
        drawing = asyncio.create_task(_drawn(picture, tasks, clock or RealClock()))
        try:
            yield
        finally:
            drawing.cancel()
            await asyncio.wait([drawing])
            _draw(picture, tasks)


async def _drawn(picture: Progress, tasks: list[tuple[TaskID, Bar]], clock: Clock) -> None:
    with suppress(OSError):  # of a terminal that has closed
        while True:
            _draw(picture, tasks)
            await clock.sleep(TICK)


def _draw(picture: Progress, tasks: list[tuple[TaskID, Bar]]) -> None:
    for number, bar in tasks:
        picture.update(number, completed=bar.done(), total=bar.total)
    picture.refresh()

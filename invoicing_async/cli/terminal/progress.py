"""What is seen while a batch runs: how many are done, how fast, how often tried again, and how the service is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from attrs import define
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from ...clock import Clock, RealClock
from ...errors import RateLimitError, ServiceUnavailableError, TransportError
from ...events import AttemptFailed, Event, OperationPolled, RequestSucceeded, Resumed, RetryScheduled
from ...health import Health, LaneState
from ...session import Session
from .times import duration, local_time, rate

__all__ = ["Bar", "Monitor", "live"]

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


class Monitor:
    """The observer of one session: counts retries, and says how the service is doing.

    That it is down or asked to wait, the session's health says; that it answers nothing while nobody waits for it yet,
    the failures in a row.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or RealClock()
        self.health: Callable[[], Health] = Health
        """How the service is doing; that of the session, once it is there."""
        self.retries: int = 0
        self._failures = 0
        self._since: float | None = None
        self._words = ""
        self._limited_at = float("-inf")

    def session(self, make: Callable[..., Session], *how: object, **options: object) -> Session:
        """Make a session that it observes."""
        session = make(*how, on_event=self, **options)
        self.health = session.health
        return session

    def __call__(self, event: Event) -> None:
        """Take an event of the session."""
        match event:
            case RetryScheduled():
                self.retries += 1
            case AttemptFailed(error=RateLimitError()):
                self._limited_at = self.clock.now()
            case AttemptFailed(error=(ServiceUnavailableError() | TransportError()) as error):
                self._failures += 1
                self._since = self._since or self.clock.now()
                self._words = "unavailable" if isinstance(error, ServiceUnavailableError) else "no answer"
            case AttemptFailed() | RequestSucceeded() | OperationPolled() | Resumed():
                # An answer, with success or with a refusal that is no outage.
                self._failures, self._since = 0, None

    def state(self) -> tuple[str, str]:
        """Return the service's state in words, and its colour."""
        pauses = [(lane.since, lane) for lane in self.health().lanes if lane.since is not None]
        if pauses:
            since, lane = min(pauses, key=lambda pause: pause[0])
            left = lane.next_probe or 0
            soon = f", next try in {left:.0f} s" if left >= 1 else ""
            soon = ", trying now" if lane.state is LaneState.PROBING else soon
            return f"paused since {local_time(since, short=True)}{soon}", "yellow"
        if self._since is not None and self._failures >= PATIENCE:
            return f"{self._words} since {local_time(self._since, short=True)}", "yellow"
        if self.clock.now() - self._limited_at < LIMITED_FOR:
            return "rate limited", "yellow"
        return "service ok", "green"

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
        return Text(rate(speed or 0).rjust(7), style="dim")


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

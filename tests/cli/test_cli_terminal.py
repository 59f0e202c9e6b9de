"""What is seen and written of a command: its progress, its rows and its reports."""

from __future__ import annotations

import asyncio
import io
import re
from collections import Counter
from pathlib import Path

import pytest
from cli_screens import memory_output, shown, unavailable
from fakes import FakeClock
from rich.console import Console
from served import Cli

from invoicing_async import reports as rows
from invoicing_async.cli.exits import CommandError, Exit
from invoicing_async.cli.input.options import Common
from invoicing_async.cli.stop import CountedInput, Stop
from invoicing_async.cli.summary import BatchSummary
from invoicing_async.cli.terminal import progress, report, times
from invoicing_async.cli.terminal.output import Output, plain
from invoicing_async.clock import RealClock
from invoicing_async.errors import InvoicingError, OrderStatusError, RateLimitError, TransportError
from invoicing_async.events import AttemptFailed, DocumentSaved, RequestStarted, RequestSucceeded, RetryScheduled

pytestmark = pytest.mark.usefixtures("no_settings")


def test_health_needs_several_failures_in_a_row() -> None:
    """A failure among successes is no trouble; three without an answer between are, since the first of them."""
    clock = FakeClock()
    monitor = progress.Monitor(clock)

    def failed(error: InvoicingError) -> None:
        monitor(AttemptFailed(operation="o", path="/", attempt=1, error=error))
        clock.advance(1)

    for _ in range(2):
        failed(unavailable())
    assert monitor.state() == ("service ok", "green")
    failed(unavailable())
    assert re.fullmatch(r"unavailable since \d\d:\d\d:\d\d", monitor.state()[0])
    failed(TransportError("gone"))
    assert monitor.state()[0].startswith("no answer since")
    failed(OrderStatusError("later", status=422, code="ORDER_021"))
    assert monitor.state() == ("service ok", "green")
    failed(RateLimitError("slow", status=429))
    assert monitor.state() == ("rate limited", "yellow")
    clock.advance(progress.LIMITED_FOR)
    assert monitor.state() == ("service ok", "green")


def test_the_monitor_counts_retries() -> None:
    """Retries are counted, successes end trouble, and the note says both."""
    monitor = progress.Monitor(FakeClock())
    for _ in range(3):
        monitor(RequestStarted(operation="o", path="/", attempt=1))
        monitor(AttemptFailed(operation="o", path="/", attempt=1, error=unavailable()))
        monitor(RetryScheduled(operation="o", path="/", attempt=1, delay=1))
    assert "3 retries" in monitor.note().plain
    assert "unavailable" in monitor.note().plain
    monitor(RequestSucceeded(operation="o", path="/", attempts=2, elapsed=1))
    monitor(DocumentSaved(order_id="o", path=Path("o"), size=1))
    assert monitor.note().plain.endswith("service ok")


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.9, "3 s"), (61, "1:01"), (3_661, "1 h 01"), (90_000, "1 d 01"), (0, "0 s")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    """Two units say enough."""
    assert times.duration(seconds) == text
    assert times.local_time(None) == ""


@pytest.mark.parametrize(
    ("speed", "text"), [(1234.5, "1,234/s"), (1, "1/s"), (0.6, "1/s"), (0.4, "24/min"), (0.02, "1/min"), (0.001, "")]
)
def test_a_rate_is_never_nothing_in_a_second(speed: float, text: str) -> None:
    assert times.rate(speed) == text


@pytest.mark.parametrize(
    ("done", "seconds", "took"),
    [
        (1, 6.4, "in 6.4 s"),
        (9, 2.0, "in 2.0 s"),
        (10, 2.0, "in 2.0 s, 5/s"),
        (10, 40.0, "in 40.0 s, 15/min"),
        (10, 0.5, "in 0.5 s"),
    ],
)
@pytest.mark.asyncio
async def test_a_rate_is_told_of_more_than_a_few_items(
    done: int, seconds: float, took: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a single item took says nothing of how fast the service is."""
    output = Output.of(Common())
    batch = BatchSummary(rows.DOWNLOADS, output, CountedInput(Stop(lambda: None)), None)
    batch.source.taken = done
    batch.outcomes["saved"] = done
    monkeypatch.setattr(batch, "begun", RealClock().monotonic() - seconds)
    assert await batch.closed(None) == Exit.DONE
    assert next(line for line in capsys.readouterr().out.splitlines() if "total" in line).endswith(took)


@pytest.mark.asyncio
async def test_bars_show_counts_rates_and_the_service() -> None:
    """A picture has the title, done of total, and the note; nothing is drawn where nobody looks."""
    clock, done = FakeClock(), Counter[str]()
    bars = [
        progress.Bar("Documents", 1_200, lambda: done["n"], progress.Monitor(clock).note),
        progress.Bar("Unknown", None, lambda: 7),
    ]
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    async with progress.live(console, bars, shown=True):
        for _ in range(3):
            done["n"] += 400
            await asyncio.sleep(0.12)
    text = shown(console)
    assert "1,200/1,200" in text
    assert "Documents" in text
    assert "0 retries" in text
    silent = Console(file=io.StringIO(), force_terminal=True)
    async with progress.live(silent, bars, shown=False):
        done["n"] += 1
    assert shown(silent) == ""


@pytest.mark.parametrize("width", [40, 57, 58, 75, 76, 200])
@pytest.mark.asyncio
async def test_a_bar_is_one_line_in_a_terminal_of_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is no place for is left out, at last the bar; the count and the note stay."""
    monkeypatch.setenv("TERM", "xterm")  # one that is dumb is 80 columns wide
    monitor = progress.Monitor(FakeClock())
    bars = [progress.Bar(title, 90, lambda: 90, monitor.note) for title in ("Documents", "Invoices")]
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    async with progress.live(console, bars, shown=True):
        pass
    picture = shown(console).replace("\x1b[?25l", "").replace("\x1b[?25h", "").split("\x1b[2K")[-1]
    lines = [line for line in picture.split("\n") if line.strip()]
    assert [line.split()[:1] for line in lines] == [["Documents"], ["Invoices"]]
    assert max(map(len, lines)) <= width
    for line in lines:
        assert ("90/90" in line, "\u2501" in line, "retries" in line) == (True, width >= 58, True)


def test_colours_are_for_a_terminal_and_for_who_asks_for_them(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """None in a pipe nor with NO_COLOR; FORCE_COLOR brings them, and no moving pictures."""
    colour, moving = re.compile(r"\x1b\[[0-9;]*3[0-9]"), re.compile(r"\x1b\[[0-9?]*[AKJhl]")
    monkeypatch.setenv("TERM", "xterm-256color")
    for variables, coloured in (
        ({}, False),
        ({"TTY_COMPATIBLE": "1"}, True),  # as on a terminal
        ({"TTY_COMPATIBLE": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1"}, True),
    ):
        with monkeypatch.context() as context:
            for name, value in variables.items():
                context.setenv(name, value)
            out, err = cli("doctor")[1], cli("bogus")[2]
            assert (bool(colour.search(out)), bool(colour.search(err))) == (coloured, coloured), variables
            assert not moving.search(out + err)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not Output.of(Common()).lively


def test_progress_is_for_a_person_at_a_terminal() -> None:
    """It is shown on a terminal only, never with --quiet, and not between JSON lines on the same one."""
    terminal, pipe = Console(file=io.StringIO(), force_terminal=True), Console(file=io.StringIO())
    assert Output(out=pipe, err=terminal).lively
    assert Output(out=pipe, err=terminal, json=True).lively
    assert not Output(out=terminal, err=terminal, json=True).lively
    assert not Output(out=terminal, err=pipe).lively
    assert not Output(out=terminal, err=terminal, quiet=True).lively


def test_text_of_any_origin_cannot_move_the_cursor() -> None:
    """Escape sequences, line ends and markup come out as plain characters."""
    seen = memory_output()
    seen.problem("a\x1b[31mb\nc", "[bold]d[/bold]")
    assert (
        shown(seen.err)
        == "invoicing-async: a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c\n  [bold]d[/bold]\n"
    )
    assert plain("\ud800") == "\N{REPLACEMENT CHARACTER}"


def test_quiet_shows_only_trouble() -> None:
    """With --quiet there is no summary, but what went wrong is told."""
    quiet = memory_output(quiet=True)
    quiet.say("x")
    quiet.counts("t", [])
    quiet.facts([("a", "b")])
    assert shown(quiet.out) == ""
    quiet.problem("trouble")
    assert "trouble" in shown(quiet.err)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "message"), [("r.csv/r.csv", "cannot write the report"), ("r.txt", "must end in .csv or .json")]
)
async def test_a_report_that_cannot_be_is_told_before_the_work(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "r.csv").touch()
    with pytest.raises(CommandError, match=message):
        async with report.opened_report(tmp_path / name, rows.DOWNLOADS):
            raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]

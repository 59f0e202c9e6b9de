"""The library's log on the command line: `--verbose`, `INVOICING_LOG`, and what a pause looks like."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from served import Cli, json_lines, write_ids

from invoicing_async import (
    HmacAuth,
    InvoicingError,
    OrderDocuments,
    OutagePolicy,
    RetryPolicy,
    Session,
)
from invoicing_async.cli.exits import CommandError
from invoicing_async.cli.logs import begin_logging, end_logging, log_target
from invoicing_async.cli.terminal.progress import Bar, Monitor, live
from invoicing_async.cli.terminal.times import local_time
from invoicing_async.health import Health, LaneHealth, LaneState
from invoicing_async.sandbox import Faults, Outage, Sandbox

Start = Callable[..., Sandbox]
LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00 (DEBUG|INFO|WARNING|ERROR) +\S.*")
DOWN = Faults(unavailable_share=1.0, unavailable_times=99)


def levels(err: str) -> set[str]:
    return {found[1] for found in map(LINE.fullmatch, err.splitlines()) if found}


def download(cli: Cli, folder: Path, *more: object) -> tuple[int, str, str]:
    ids = write_ids(folder / "ids.txt", 2)
    pace = ("--attempts", 2, "--concurrency", 1)
    return cli("documents", "download", ids, "--to", folder / "out", *pace, *more)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), set()),
        (("--verbose",), {"INFO", "WARNING"}),
        (("-v",), {"INFO", "WARNING"}),
        (("-v", "-v"), {"DEBUG", "INFO", "WARNING"}),
        (("-vv",), {"DEBUG", "INFO", "WARNING"}),
        (("--verbose", "--verbose"), {"DEBUG", "INFO", "WARNING"}),
    ],
)
def test_verbose_says_which_levels_are_logged(
    services: Start, cli: Cli, tmp_path: Path, options: tuple[str, ...], expected: set[str]
) -> None:
    """To stderr; without it, what the summary counts is not said twice."""
    services(DOWN)
    code, out, err = download(cli, tmp_path, *options)
    assert code == 1
    assert levels(err) == expected
    assert levels(out) == set()


@pytest.mark.parametrize("value", ["DEBUG", "info", "WARNING", "ERROR"])
def test_the_variable_says_it_too(
    services: Start, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    services(DOWN)
    monkeypatch.setenv("INVOICING_LOG", value)
    _, _, err = download(cli, tmp_path)
    known = ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert levels(err) == {*known[known.index(value.upper()) : 3]}


def test_a_file_takes_the_log_and_stderr_what_the_option_says(
    services: Start, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services(DOWN)
    file = tmp_path / "a:b.log"
    monkeypatch.setenv("INVOICING_LOG", f"DEBUG:{file}")
    _, _, err = download(cli, tmp_path, "-v")
    assert levels(err) == {"INFO", "WARNING"}
    assert levels(file.read_text()) == {"DEBUG", "INFO", "WARNING"}
    before = len(file.read_text())
    _, _, err = download(cli, tmp_path)
    assert levels(err) == set()
    assert len(file.read_text()) > before


def test_a_file_of_settings_may_name_it(services: Start, cli: Cli, tmp_path: Path) -> None:
    services(DOWN)
    settings = tmp_path / "settings.env"
    settings.write_text("INVOICING_LOG=info\n")
    _, _, err = download(cli, tmp_path, "--env-file", settings)
    assert "INFO" in levels(err)


@pytest.mark.parametrize("value", ["LOUD", "", "10", ":x", "INFO:", "INFO: ", "DEBUG INFO", "/var/log/x"])
def test_a_wrong_value_is_refused_with_what_is_allowed(
    services: Start, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """An empty one is none."""
    services(DOWN)
    monkeypatch.setenv("INVOICING_LOG", value)
    code, _, err = download(cli, tmp_path)
    if not value:
        assert code == 1
        return
    assert code == 2
    assert "INVOICING_LOG must be DEBUG, INFO, WARNING or ERROR" in err
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_written_is_refused(
    services: Start, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services(DOWN)
    monkeypatch.setenv("INVOICING_LOG", f"INFO:{tmp_path / 'absent' / 'x.log'}")
    code, _, err = download(cli, tmp_path)
    assert (code, "INVOICING_LOG: cannot write" in err) == (2, True)


def test_json_lines_stay_pure(services: Start, cli: Cli, tmp_path: Path) -> None:
    services(DOWN)
    _, out, err = download(cli, tmp_path, "--json", "-vv")
    assert [json.loads(line)["outcome"] for line in out.splitlines()] == ["failed", "failed"]
    assert len(json_lines(out)) == 2
    assert levels(err) == {"DEBUG", "INFO", "WARNING"}


def test_a_command_leaves_the_logger_as_it_was(services: Start, cli: Cli, tmp_path: Path) -> None:
    logger = logging.getLogger("invoicing_async")
    before = [*logger.handlers], logger.level
    services(DOWN)
    download(cli, tmp_path, "-vv")
    assert ([*logger.handlers], logger.level) == before


@pytest.mark.parametrize("given", ["DEBUG:x", "info:~/x", " INFO : x "])
def test_a_right_value_is_read(given: str) -> None:
    found = log_target(given)
    assert found.file is not None
    assert found.file.name == "x"


def test_a_colon_alone_is_refused() -> None:
    with pytest.raises(CommandError, match="INVOICING_LOG"):
        log_target(":")


@pytest.mark.asyncio
async def test_a_line_of_the_log_stands_above_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and on a line of its own, while the bar is drawn on."""
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=120, legacy_windows=False)
    monkeypatch.setattr(sys, "stderr", screen)
    begin_logging(1, None)
    try:
        async with live(console, [Bar("Order documents", 2, lambda: 1)], shown=True):
            logging.getLogger("invoicing_async").info("document, call 1: attempt 1 failed\x1b[2J (status)")
    finally:
        end_logging()
    shown = [line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())) if line]
    assert [line for line in shown if LINE.match(line.strip())]
    assert shown[-1].startswith("Order documents")


class TestPause:
    """What the progress says of a pause: what the session's health does."""

    SINCE = 1_000_000_000.0

    def lane(self, **changed: Any) -> LaneHealth:
        values = {"operation": "document", "state": LaneState.PAUSED, "since": self.SINCE, "concurrency": 1}
        return LaneHealth(**{**values, **changed})

    def shown(self, *lanes: LaneHealth) -> tuple[str, str]:
        monitor = Monitor()
        monitor.health = lambda: Health(lanes=lanes)
        return monitor.state()

    def test_it_says_since_when_and_when_the_next_try_is(self) -> None:
        begun = f"paused since {local_time(self.SINCE, short=True)}"
        assert self.shown(self.lane(next_probe=8.2)) == (f"{begun}, next try in 8 s", "yellow")
        assert self.shown(self.lane(next_probe=0.4)) == (begun, "yellow")
        assert self.shown(self.lane(next_probe=0.0, state=LaneState.PROBING)) == (f"{begun}, trying now", "yellow")
        assert self.shown(self.lane(since=None, state=LaneState.RESUMING)) == ("service ok", "green")
        assert self.shown() == ("service ok", "green")

    def test_the_longest_pause_is_shown(self) -> None:
        later = self.lane(operation="b", since=self.SINCE + 60, next_probe=1.0)
        assert self.shown(later, self.lane(next_probe=40.0))[0].endswith("next try in 40 s")
        assert self.shown(later, self.lane(since=None))[0].endswith("next try in 1 s")

    @pytest.mark.asyncio
    async def test_it_is_that_of_a_real_session(self) -> None:
        """An outage of the sandbox pauses the lane, and the monitor that the session was made with says so."""
        sandbox, monitor = Sandbox(), Monitor()
        sandbox.inject(Outage())
        auth = HmacAuth(**sandbox.credentials.partner())
        outage = OutagePolicy(after=2)
        session = monitor.session(partial(Session, "http://h", auth=auth, transport=sandbox, outage=outage))
        async with session:
            for _ in range(3):
                with pytest.raises(InvoicingError):
                    await OrderDocuments(session.with_options(retry=RetryPolicy(attempts=1))).download("o", "out")
            assert monitor.state()[0].startswith("paused since ")

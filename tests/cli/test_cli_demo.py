"""The demo ends as scripted, and the sandbox serves until it is stopped."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_screens import ANSI, memory_output, shown
from forked import forked
from served import command, signals, whole, write_ids

from invoicing_async.cli import stop
from invoicing_async.cli.app import run
from invoicing_async.cli.commands import demo
from invoicing_async.cli.exits import Exit
from invoicing_async.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("no_settings")


def test_the_demo_ends_as_scripted_and_leaves_whole_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first run saves, a second finds everything there; both show bars to a terminal and end with 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "LATENCY", 0.01)
    monkeypatch.setattr(demo, "SETTLING", (0.0, 0.2))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert run(["demo"]) == Exit.DONE
    out, err = capsys.readouterr()
    assert "40/40" in err
    assert "25/25" in err
    assert str(tmp_path / "demo-invoices") in out
    pdfs = list((tmp_path / "demo-invoices").iterdir())
    assert len(pdfs) == 37
    assert all(whole(path) for path in pdfs)
    monkeypatch.delenv("TTY_COMPATIBLE")
    monkeypatch.setenv("TERM", "dumb")
    assert run(["demo", "--invoices", "0"]) == Exit.DONE
    out, err = capsys.readouterr()
    assert re.search(r"skipped +37 ", out)
    assert err == ""
    assert ANSI not in out
    assert run(["demo", "--orders", "0", "--invoices", "0", "--quiet"]) == Exit.DONE
    assert capsys.readouterr() == ("", "")


def test_a_demo_that_cannot_write_or_is_stopped_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trouble with the disk is one line; Ctrl-C is exit code 3."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert run(["demo", "--to", "file"]) == Exit.USAGE
    assert "file is not a folder" in capsys.readouterr().err
    assert run(["demo", "--to", "file/below", "--invoices", "0"]) == Exit.SOME_LEFT
    assert "Not a directory" in capsys.readouterr().err
    with signals((tmp_path / "out").exists, 1):
        assert run(["demo", "--to", "out", "--invoices", "2"]) == Exit.STOPPED


def test_a_demo_unlike_its_script_is_found() -> None:
    """What did not end as the sandbox meant it to is named, and the exit code is 1."""

    async def play() -> list[str]:
        script = demo.Script.of(16, 1, 0)
        asked = stop.Stop(lambda: None)
        performance = demo._DemoRun(
            script, script.sandbox(), memory_output(), stop.CountedInput(asked), stop.CountedInput(asked), Path()
        )
        await performance.downloads.add({"order_id": script.orders[0], "outcome": "failed", "attempts": 1})
        await performance.downloads.add({"order_id": script.orders[7], "outcome": "saved", "attempts": 2})
        await performance.submissions.add({"key": "k", "outcome": "in_doubt"})
        assert performance._code() == Exit.SOME_LEFT
        performance._show(1.0)
        assert re.search(r"failed +1 ", shown(performance.output.out))
        assert re.search(r"others +1 ", shown(performance.output.out))
        return performance.unlike_script()

    wrong = asyncio.run(play())
    orders = demo.Script.of(16, 1, 0).orders
    assert wrong == [orders[0], orders[7], "k", "14 without an outcome"]


@pytest.mark.process
def test_the_sandbox_prints_settings_and_serves_until_stopped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a command of its own: its `export` lines are a settings file, and ids may come by stdin."""
    file = tmp_path / "env"
    with forked("sandbox", "--documents-port", "0", "--invoices-port", "0", "--quick") as served:
        while b"are up" not in served.said()[1]:
            assert served.poll() is None
            threading.Event().wait(0.01)
        file.write_bytes(served.said()[0])
        tokens = ("documents", "download", "-", "--to", tmp_path / "out", "--env-file", file, "--json")
        with write_ids(tmp_path / "few", 10).open() as given, forked(*tokens, stdin=given.fileno()) as done:
            out, err = done.communicate(60)
        assert done.returncode in {Exit.DONE, Exit.SOME_LEFT}, err
        assert len(out.splitlines()) == 10
        left_early(tokens, write_ids(tmp_path / "many", 5_000))
        served.send_signal(signal.SIGINT)
        assert served.wait(10) == Exit.DONE
    port = re.search(r":(\d+)/api", file.read_text())
    assert port is not None


def left_early(tokens: tuple[object, ...], given: Path) -> None:
    """A reader of stdout that leaves stops the command in good order."""
    with (
        given.open() as file,
        subprocess.Popen(command(*tokens), stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read().decode()
        assert process.wait(10) == Exit.STOPPED
    assert "whoever read stdout has left" in err
    assert "Traceback" not in err


def test_a_taken_port_is_told(capsys: pytest.CaptureFixture[str], services: Callable[..., Sandbox]) -> None:
    """The sandbox cannot be where somebody else is."""
    services()
    port = re.search(r":(\d+)/", os.environ["INVOICING_DOCUMENTS_BASE_URL"])
    assert port is not None
    assert run(["sandbox", "--documents-port", port[1], "--invoices-port", "0"]) == Exit.USAGE
    assert "cannot serve the sandbox" in capsys.readouterr().err

"""The command line: its exit codes, its summaries, its settings, and that no secret ever leaves through it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from invoicing_async import __main__ as entry
from invoicing_async.cli import app as application
from invoicing_async.cli import stop
from invoicing_async.cli.app import run
from invoicing_async.cli.exits import CommandError, Exit
from invoicing_async.cli.input.options import Common
from invoicing_async.cli.terminal.output import Output
from invoicing_async.errors import TransportError

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["bogus"], "bogus"),
        (["documents", "download"], "IDS"),
        (["documents", "download", "x", "--to", "y", "--bogus"], "--bogus"),
        (["documents", "download", "x", "--to", "y", "--on-existing", "destroy"], "on-existing"),
        (["documents", "download", "x", "--to", "y", "--layout", "../{order_id}"], "--layout"),
        (["documents", "download", "x", "--to", "y", "--concurrency", "many"], "concurrency"),
        (["documents", "download", "x", "--to", "y"], "INVOICING_DOCUMENTS_BASE_URL"),
        (["documents", "download", "x", "--to", "y", "--report", "r.txt"], ".csv or .json"),
        (["documents", "download", "x", "--to", "y", "--env-file", "absent"], "absent"),
        (["invoices", "submit", "absent.jsonl"], "absent.jsonl"),
        (["invoices", "wait"], "--from"),
        (["invoices", "status", "7"], "UUID"),
        (["invoices", "status", str(uuid4())], "INVOICING_INVOICES_BASE_URL"),
        (["sign"], "INVOICING_DOCUMENTS_SECRET_KEY"),
        (["sandbox", "--failed-share", "2"], "failed_share"),
        (["demo", "--orders", "-1"], "0 or more"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(
    tokens: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong option, a missing setting and a bad file name are told in one line on stderr, without a traceback."""
    monkeypatch.chdir(tmp_path)
    assert run(tokens) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("invoicing-async: ")
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_help_and_version_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for help is no error, and neither is asking for nothing."""
    for tokens in (["--help"], ["--version"], [], ["documents", "download", "--help"]):
        assert run(tokens) == Exit.DONE
    assert "documents" in capsys.readouterr().out


def test_main_exits_with_the_code_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point hands over its arguments and exits with what they came to."""
    monkeypatch.setattr(sys, "argv", ["invoicing-async", "bogus"])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == Exit.USAGE


@pytest.mark.parametrize("package", ["cyclopts", "rich"])
def test_without_the_extra_the_command_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing package of the extra `cli` is one line and exit code 2."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == Exit.USAGE
    assert capsys.readouterr().err == f"invoicing-async: {package} is missing; install invoicing-async[cli]\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TransportError("no way"), Exit.SOME_LEFT),
        (OSError("disk"), Exit.SOME_LEFT),
        (CommandError("stop", code=Exit.STOPPED), Exit.STOPPED),
        (BrokenPipeError(), Exit.STOPPED),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
    ],
)
def test_what_a_command_raises_has_its_exit_code(
    error: BaseException, code: Exit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only errors meant for the user are caught, each with its code; --debug adds the traceback."""

    def failing(tokens: object) -> int:
        raise error

    monkeypatch.setattr(application, "_run", failing)
    monkeypatch.setattr(application, "silence_stdout", lambda: None)
    assert run([]) == code
    assert "Traceback" not in capsys.readouterr().err
    assert run(["--debug"]) == code
    told = isinstance(error, (TransportError, CommandError)) or type(error) is OSError
    assert ("Traceback" in capsys.readouterr().err) is told


@pytest.mark.parametrize("error", [KeyError("k"), ValueError("odd"), AssertionError()], ids=repr)
def test_a_fault_of_the_program_is_a_sentence_too(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its exit code, 70, is none of the others; what to do is said, and the traceback is had by option or variable."""

    def failing(tokens: object) -> int:
        raise error

    monkeypatch.setattr(application, "_run", failing)
    assert run([]) == Exit.FAULT
    said, hint = capsys.readouterr().err.splitlines()
    assert said.startswith(f"invoicing-async: {type(error).__name__}")
    assert "--debug, or INVOICING_DEBUG=1" in hint
    assert run(["--debug"]) == Exit.FAULT
    assert "Traceback" in capsys.readouterr().err
    for value, told in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("INVOICING_DEBUG", value)
        assert run([]) == Exit.FAULT
        assert ("in failing" in capsys.readouterr().err) is told


def test_a_command_that_was_ended_at_once_is_interrupted() -> None:
    """A second signal cancels what the command waits for."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(KeyboardInterrupt):
        application._awaited(cancelled())


def test_the_loop_is_uvloops_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `speed` is picked up, and not missed."""

    async def kind_of_loop() -> str:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]

    monkeypatch.setattr(application, "find_spec", lambda name: None)
    assert application._awaited(kind_of_loop()) == "asyncio"
    monkeypatch.setattr(application, "find_spec", lambda name: name)
    assert application._awaited(kind_of_loop()) == "uvloop"


def test_a_counted_input_ends_when_a_stop_is_asked_for() -> None:
    """What was taken is counted; an input that ended by itself was not cut."""
    told: list[str] = []
    source = stop.CountedInput(stop.Stop(lambda: told.append("told")))
    assert list(source.items("ab")) == ["a", "b"]  # type: ignore[arg-type] # a plain iterable stays one
    assert (source.taken, source.cut) == (2, False)
    items = source.items("cde")
    assert isinstance(items, Iterator)
    assert next(items) == "c"
    source.stop.ask()
    source.stop.ask()
    assert list(items) == []
    assert (source.taken, source.cut, told) == (3, True, ["told"])
    later: list[int] = []
    source.stop.then(lambda: later.append(1))
    assert later == [1]


@pytest.mark.asyncio
async def test_the_first_signal_asks_the_second_cancels_the_third_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C has three steps, and the handlers before are put back."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    before = signal.getsignal(signal.SIGINT)
    asked = stop.Stop(lambda: None)

    async def stubborn() -> None:
        with stop.listening(asked):
            for step in range(3):
                os.kill(os.getpid(), signal.SIGINT)
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)
                assert asked.asked
                assert bool(ended) is (step == 2)

    await asyncio.create_task(stubborn())
    assert ended == [130]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_options_screen_goes_to_the_real_streams() -> None:
    """Unless told otherwise, a command writes to stdout and stderr."""
    seen = Output.of(Common(json=True, quiet=True, debug=True))
    assert (seen.json, seen.quiet, seen.debug, seen.err.stderr) == (True, True, True, True)

"""How a command ends when its terminal closes, and what it writes to a terminal that cannot show it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from forked import Forked, forked
from served import command, json_lines, whole, write_drafts, write_ids

from invoicing_async._einvoices.encode import dump_draft
from invoicing_async.cli import stop
from invoicing_async.cli.exits import Exit
from invoicing_async.cli.terminal import output
from invoicing_async.drafts import example_draft as example
from invoicing_async.sandbox import Answer, Faults, Operation, Sandbox

pytestmark = pytest.mark.process

SLOW = Faults(polls_until_done=(10**6, 10**6))


def until(ready: Callable[[], bool], running: Forked | subprocess.Popen[bytes]) -> None:
    for _ in range(4_000):
        if ready() or running.poll() is not None:
            break
        threading.Event().wait(0.005)
    assert ready()


def shown(file: str) -> dict[str, int]:
    with forked("runs", "show", file, "--json") as showing:
        counts: dict[str, int] = json.loads(showing.communicate(60)[0])["counts"]
    return {state: number for state, number in counts.items() if number}


SUBMIT = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--concurrency", 4)


@pytest.mark.parametrize(
    "sent",
    [
        [signal.SIGHUP],
        [signal.SIGHUP, signal.SIGHUP, signal.SIGHUP],
        [signal.SIGTERM, signal.SIGHUP],
        [signal.SIGHUP, signal.SIGTERM],
    ],
    ids=lambda sent: "+".join(number.name for number in sent),
)
def test_a_closed_terminal_ends_a_submission_well(services: Callable[..., Sandbox], sent: list[signal.Signals]) -> None:
    """What is in flight finishes, exit code 3, nothing in doubt; a second hang-up cuts nothing."""
    sandbox = services(latency=0.2)
    write_drafts(Path("d.jsonl"), 60)
    with forked(*SUBMIT) as running:
        until(lambda: sandbox.calls("submit") >= 8, running)
        for number in sent:
            running.send_signal(number)
            threading.Event().wait(0.05)
        _, err = running.communicate(timeout=60)
    assert running.returncode == Exit.STOPPED
    assert b"runs resume i.db" in err
    counts = shown("i.db")
    assert "in_doubt" not in counts
    assert counts["submitted"] == len(sandbox.created) < 60


@pytest.mark.parametrize(
    "tokens",
    [
        ("invoices", "submit", "d.jsonl", "--concurrency", 4),
        ("invoices", "submit", "d.jsonl", "--concurrency", 4, "--wait"),
        ("documents", "download", "ids", "--to", "out", "--concurrency", 4),
        ("documents", "download", "ids", "--to", "out", "--run", "m.db", "--concurrency", 4),
    ],
    ids=lambda tokens: "-".join(str(token) for token in tokens if str(token) not in "d.jsonl ids out 4"),
)
def test_every_command_with_work_in_flight_ends_so(
    services: Callable[..., Sandbox], tokens: tuple[object, ...]
) -> None:
    """Exit code 3, every outcome told, no half file."""
    sandbox = services(SLOW, latency=0.2)
    write_drafts(Path("d.jsonl"), 60)
    write_ids(Path("ids"), 60)
    with forked(*tokens, "--json") as running:
        until(lambda: sandbox.calls("submit") + sandbox.calls("document") >= 8, running)
        running.send_signal(signal.SIGHUP)
        out, _ = running.communicate(timeout=60)
    assert running.returncode == Exit.STOPPED
    outcomes = {row["outcome"] for row in json_lines(out.decode())}
    assert outcomes <= {"submitted", "saved"}
    assert all(whole(path) for path in Path("out").glob("*"))


def asked(sandbox: Sandbox, number: int) -> bool:
    return sandbox.calls("status") >= number


def test_a_closed_terminal_ends_a_wait_and_a_refresh(services: Callable[..., Sandbox]) -> None:
    """Nothing is lost by it: the operations go on at the service."""
    sandbox = services(Faults(polls_until_done=(1, 1)))
    write_drafts(Path("d.jsonl"), 40)
    with forked("invoices", "submit", "d.jsonl", "--run", "i.db", "--wait") as running:
        assert running.wait(60) == Exit.DONE
    Path("ids").write_text("".join(f"{number}\n" for number in sandbox.created))
    slow = services(SLOW, latency=0.2)
    for number, tokens in enumerate([("runs", "refresh", "i.db"), ("invoices", "wait", "--from", "ids")], 1):
        with forked(*tokens, "--concurrency", 2) as running:
            until(partial(asked, slow, 4 * number), running)
            running.send_signal(signal.SIGHUP)
            running.communicate(timeout=60)
        assert running.returncode == Exit.STOPPED
    assert shown("i.db") == {"success": 40}


def test_what_began_without_a_terminal_is_not_ended_by_it(services: Callable[..., Sandbox]) -> None:
    """Under nohup a hang-up is ignored: the work goes on to its end."""
    sandbox = services(latency=0.1)
    write_drafts(Path("d.jsonl"), 30)
    with forked(*SUBMIT, ignored=[signal.SIGHUP]) as running:
        until(lambda: sandbox.calls("submit") >= 8, running)
        running.send_signal(signal.SIGHUP)
        running.communicate(timeout=60)
    assert (running.returncode, len(sandbox.created)) == (Exit.DONE, 30)


def test_a_terminal_that_is_gone_does_not_break_the_end(services: Callable[..., Sandbox]) -> None:
    """The window is closed in the middle of a picture: the run ends as it should, though nobody can be told."""
    sandbox = services(latency=0.2)
    write_drafts(Path("d.jsonl"), 60)
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    streams: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    streams |= {"start_new_session": True, "preexec_fn": take_terminal}
    with subprocess.Popen(command(*SUBMIT, "--json"), **streams) as running:
        os.close(theirs)
        until(lambda: sandbox.calls("submit") >= 8, running)
        os.close(ours)
        assert running.wait(60) == Exit.STOPPED
    counts = shown("i.db")
    assert "in_doubt" not in counts
    assert counts["submitted"] == len(sandbox.created) < 60


def test_a_console_on_a_terminal_that_is_gone_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of trouble must not end what is in flight, though the signal of the hang-up has not come yet."""
    ours, theirs = pty.openpty()
    os.close(ours)
    with suppress(OSError), os.fdopen(theirs, "w") as terminal:  # its end writes once more
        monkeypatch.setattr("sys.stderr", terminal)
        console = output.stderr()
        console.print("whoever read stdout has left")
    assert console.quiet


@pytest.mark.asyncio
async def test_hang_ups_only_ask_and_the_handler_before_is_put_back() -> None:
    """However many come, nothing is cancelled; what told of it may even fail."""

    def told() -> None:
        raise OSError(5, "Input/output error")

    asked, heard = stop.Stop(told), asyncio.Event()
    asked.then(heard.set)
    before = signal.getsignal(signal.SIGHUP)
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    with stop.listening(asked):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.01)
        await asyncio.wait_for(heard.wait(), 5)
    assert asked.asked
    assert signal.getsignal(signal.SIGHUP) is before


SAYS = "Mã số thuế không hợp lệ → kiểm tra \U0001f9fe"
ENCODINGS = ("cp1252", "cp1258", "ascii", "ascii:strict", "C")
NO_LOCALE = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
EACH = """
import json, os, sys
import invoicing_async.cli.app
from invoicing_async.__main__ import main

def run(words, number):
    for descriptor in (1, 2):
        os.dup2(os.open(f"{number}.{descriptor}", os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv[1:] = words
    main()

for number, words in enumerate(json.loads(sys.argv[1])):
    if os.fork() == 0:
        run(words, number)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
"""Runs each command as a process forked from one interpreter, which has begun without a locale."""


def ended_without_locale(commands: list[list[str]]) -> list[tuple[int, bytes, bytes]]:
    done = subprocess.run(
        [sys.executable, "-c", EACH, json.dumps(commands)], env=os.environ | NO_LOCALE, capture_output=True, check=True
    )
    said = [tuple(Path(f"{number}.{stream}").read_bytes() for stream in (1, 2)) for number in range(len(commands))]
    return [(int(code), out, err) for code, (out, err) in zip(done.stdout.split(), said, strict=True)]


def ended(commands: list[list[str]]) -> Iterator[tuple[int, bytes, bytes]]:
    for words in commands:
        with forked(*words) as running:
            out, err = running.communicate(60)
            yield running.wait(), out, err


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_terminal_that_cannot_show_a_word_ends_no_run(
    services: Callable[..., Sandbox], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Tables, lists, JSON lines, reports and sheets of Vietnamese keys and words: right exit codes, whole JSON."""
    sandbox = services(Faults())
    body = json.dumps({"success": False, "error": {"code": "MST", "message": SAYS}}).encode()
    sandbox.script(Operation.SUBMIT, [Answer(status=422, headers={"Content-Type": "application/json"}, body=body)] * 4)
    draft = dump_draft(example(1)).replace("ORDER-0001", "Đơn-hàng-1")
    Path("d.jsonl").write_text(draft + "\n" + draft.replace("hàng-1", "hàng-2") + "\n", "utf-8")
    commands = [
        ["invoices", "submit", "d.jsonl", "--run", "i.db", "--report", "r.csv"],
        ["runs", "show", "i.db", "--items"],
        ["runs", "show", "i.db", "--items", "--json"],
        ["runs", "export", "i.db", "--state", "rejected"],
    ]
    if encoding == "C":
        done = ended_without_locale(commands)
    else:
        monkeypatch.setenv("PYTHONIOENCODING", encoding)
        done = list(ended(commands))
    assert [code for code, _, _ in done] == [1, 0, 0, 0], done
    assert b"Traceback" not in b"".join(err for _, _, err in done)
    said = [out for _, out, _ in done]
    rows = [json.loads(line) for line in said[2].splitlines()]
    assert [row["key"] for row in rows] == ["Đơn-hàng-1", "Đơn-hàng-2"]
    assert SAYS[:20] in rows[0]["error"]
    assert "Đơn-hàng-1" in Path("r.csv").read_text("utf-8-sig")
    assert "Đơn-hàng-2" in said[3].decode("utf-8-sig")

"""How a command ends when its terminal closes, and what it writes to a terminal that cannot show it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from served import command, json_lines, whole, write_drafts, write_ids

from invoicing_async._wire import dump_draft
from invoicing_async.cli import stop
from invoicing_async.cli.drafts import example
from invoicing_async.cli.exits import Exit
from invoicing_async.sandbox import Answer, Faults, Operation, Sandbox

SLOW = Faults(polls_until_done=(10**6, 10**6))


@contextmanager
def process(*tokens: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command as a process of its own, which ends with the block."""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    with subprocess.Popen(command(*tokens), **streams) as running:
        try:
            yield running
        finally:
            running.kill()


def until(ready: Callable[[], bool], running: subprocess.Popen[bytes]) -> None:
    for _ in range(4_000):
        if ready() or running.poll() is not None:
            break
        threading.Event().wait(0.005)
    assert ready()


def shown(file: str) -> dict[str, int]:
    out = subprocess.run(command("runs", "show", file, "--json"), check=True, capture_output=True).stdout
    counts: dict[str, int] = json.loads(out)["counts"]
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
    sandbox = services(latency=0.4)
    write_drafts(Path("d.jsonl"), 60)
    with process(*SUBMIT) as running:
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
    sandbox = services(SLOW, latency=0.3)
    write_drafts(Path("d.jsonl"), 60)
    write_ids(Path("ids"), 60)
    with process(*tokens, "--json") as running:
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
    subprocess.run(command("invoices", "submit", "d.jsonl", "--run", "i.db", "--wait"), check=True, capture_output=True)
    Path("ids").write_text("".join(f"{number}\n" for number in sandbox.created))
    slow = services(SLOW, latency=0.3)
    for number, tokens in enumerate([("runs", "refresh", "i.db"), ("invoices", "wait", "--from", "ids")], 1):
        with process(*tokens, "--concurrency", 2) as running:
            until(partial(asked, slow, 4 * number), running)
            running.send_signal(signal.SIGHUP)
            running.communicate(timeout=60)
        assert running.returncode == Exit.STOPPED
    assert shown("i.db") == {"success": 40}


def test_what_began_without_a_terminal_is_not_ended_by_it(services: Callable[..., Sandbox]) -> None:
    """Under nohup a hang-up is ignored: the work goes on to its end."""
    sandbox = services(latency=0.1)
    write_drafts(Path("d.jsonl"), 30)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with process(*SUBMIT) as running:
            until(lambda: sandbox.calls("submit") >= 8, running)
            running.send_signal(signal.SIGHUP)
            running.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (running.returncode, len(sandbox.created)) == (Exit.DONE, 30)


def test_a_terminal_that_is_gone_does_not_break_the_end(services: Callable[..., Sandbox]) -> None:
    """The window is closed in the middle of a picture: the run ends as it should, though nobody can be told."""
    sandbox = services(latency=0.3)
    write_drafts(Path("d.jsonl"), 60)
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with process(*SUBMIT, "--json", **streams, start_new_session=True, preexec_fn=take_terminal) as running:
        os.close(theirs)
        until(lambda: sandbox.calls("submit") >= 8, running)
        os.close(ours)
        assert running.wait(60) == Exit.STOPPED
    counts = shown("i.db")
    assert "in_doubt" not in counts
    assert counts["submitted"] == len(sandbox.created) < 60


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
ENCODINGS: dict[str, dict[str, str]] = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "cp1258": {"PYTHONIOENCODING": "cp1258"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii:strict": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_a_terminal_that_cannot_show_a_word_ends_no_run(services: Callable[..., Sandbox], encoding: str) -> None:
    """Tables, lists, JSON lines, reports and sheets of Vietnamese keys and words: right exit codes, whole JSON."""
    sandbox = services(Faults())
    body = json.dumps({"success": False, "error": {"code": "MST", "message": SAYS}}).encode()
    sandbox.script(Operation.SUBMIT, [Answer(status=422, headers={"Content-Type": "application/json"}, body=body)] * 4)
    draft = dump_draft(example(1)).replace("ORDER-0001", "Đơn-hàng-1")
    Path("d.jsonl").write_text(draft + "\n" + draft.replace("hàng-1", "hàng-2") + "\n", "utf-8")
    environment = os.environ | ENCODINGS[encoding]

    def call(*tokens: str) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(command(*tokens), env=environment, capture_output=True, check=False)
        assert b"Traceback" not in done.stderr
        return done

    tokens = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--report", "r.csv")
    assert call(*tokens).returncode == Exit.SOME_LEFT
    assert call("runs", "show", "i.db", "--items").returncode == Exit.DONE
    rows = [json.loads(line) for line in call("runs", "show", "i.db", "--items", "--json").stdout.splitlines()]
    assert [row["key"] for row in rows] == ["Đơn-hàng-1", "Đơn-hàng-2"]
    assert SAYS[:20] in rows[0]["error"]
    assert "Đơn-hàng-1" in Path("r.csv").read_text("utf-8-sig")
    assert "Đơn-hàng-2" in call("runs", "export", "i.db", "--state", "rejected").stdout.decode("utf-8-sig")

"""Workers as processes: shared out, stopped, killed; and no password of the database anywhere to be seen."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from peers import free_port
from postgres_server import Database
from served import command, write_drafts

from invoicing_async.cli.exits import Exit
from invoicing_async.sandbox import Faults, Sandbox

pytestmark = pytest.mark.process

SECRET = "hunter2-canary"
Started = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def started(services: Callable[..., Sandbox], monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """Start commands in processes of their own."""
    monkeypatch.setenv("INVOICING_LEDGER_WAIVE", "fsync")
    services(Faults(polls_until_done=(1, 1)))
    with ExitStack() as stack:

        def start(*tokens: object) -> subprocess.Popen[str]:
            process = subprocess.Popen(command(*tokens), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield start


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    last = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < last
        time.sleep(0.05)


def counted(database: Database, *states: str) -> int:
    [(count,)] = database.psql("SELECT count(*) FROM invoicing.items WHERE state = ANY(%s)", list(states))
    return int(count)


def arguments() -> str:
    """The command lines of every process of this machine, as everybody sees them."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(place.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has just ended
    return "\n".join(found)


def test_workers_share_a_run_and_each_tells_its_part(queued: Database, started: Started) -> None:
    """Two workers that wait for work, and the command that submits: each invoice is made once."""
    write_drafts(Path("drafts.jsonl"), 400)
    where = queued.address()
    assert ended(started("invoices", "submit", "drafts.jsonl", "--run", where, "--per-second", "100"))[0] == Exit.DONE
    queued.psql("UPDATE invoicing.items SET state = 'planned', request_id = NULL, attempt = 0")
    queued.psql("UPDATE invoicing.tally SET count = 0")
    queued.psql("INSERT INTO invoicing.tally (run, state, worker, count) VALUES (1, 'planned', 99, 400)")
    workers = [started("worker", "--run", where, "--until-done") for _ in range(2)]
    parts = []
    for worker in workers:
        code, out, err = ended(worker)
        assert code == Exit.DONE, err
        parts.append(int(re.search(r"this command: (\d+) success", out)[1]) if "this command" in out else 0)  # type: ignore[index]
        if parts[-1] < 400:
            assert " more were done by other workers" in out
    assert sum(parts) >= 400  # what two have looked at together, each may tell
    assert counted(queued, "success") == 400
    assert queued.psql("SELECT count(*) FROM invoicing.journal WHERE event = 'intent'") == [(800,)]


def test_a_stopped_worker_drains_and_says_how_to_go_on(queued: Database, started: Started) -> None:
    write_drafts(Path("drafts.jsonl"), 300)
    where = queued.address()
    worker = started("invoices", "submit", "drafts.jsonl", "--run", where, "--wait", "--per-second", "30")
    until(lambda: counted(queued, "submitted", "success") > 5)
    helper = started("worker", "--run", where, "--status", "status.json")
    until(Path("status.json").exists)
    assert json.loads(Path("status.json").read_text())["run"] == "march"
    for process in (helper, worker):
        process.send_signal(signal.SIGTERM)
    code, _, err = ended(helper)
    assert code == Exit.STOPPED
    assert shlex.join(["invoicing-async", "worker", "--run", where]) in err
    code, _, err = ended(worker)
    assert code == Exit.STOPPED
    assert shlex.join(["invoicing-async", "runs", "resume", where]) in err
    assert counted(queued, "sending", "in_doubt") == 0
    assert queued.psql("SELECT count(*) FROM invoicing.workers WHERE ended IS NULL") == [(0,)]


def test_a_run_is_watched_until_somebody_has_seen_enough(queued: Database, started: Started) -> None:
    write_drafts(Path("drafts.jsonl"), 3)
    where = queued.address()
    assert ended(started("invoices", "submit", "drafts.jsonl", "--run", where))[0] == Exit.DONE
    watching = started("runs", "show", where, "--watch", "--json")
    assert watching.stdout is not None
    lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
    assert [line["standing"]["open"] for line in lines] == [3, 3]
    watching.send_signal(signal.SIGINT)
    assert ended(watching)[0] == Exit.DONE


def test_no_password_of_the_database_is_seen_anywhere(
    queued: Database, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not among the arguments of a process, in no output, report, log, status or error, also of a database away."""
    where = queued.address()
    server, _, database = where.removeprefix("postgresql://").partition("?")[0].partition("/")
    monkeypatch.setenv("INVOICING_LEDGER", f"postgresql://postgres:{SECRET}@{server.partition('@')[2]}/{database}")
    monkeypatch.setenv("PGPASSWORD", f"{SECRET}-2")
    monkeypatch.setenv("INVOICING_LOG", "DEBUG:all.log")
    write_drafts(Path("drafts.jsonl"), 60)
    said = []
    submitting = started(
        "invoices", "submit", "drafts.jsonl", "--run", where, "--wait", "--report", "r.csv", "-vv", "--per-second", "20"
    )
    until(lambda: counted(queued, "success") > 3)
    helper = started("worker", "--run", where, "--status", "status.json", "-vv", "--debug")
    until(Path("status.json").exists)
    said.append(arguments())
    assert where in said[0]
    said += ended(submitting)[1:]
    helper.send_signal(signal.SIGTERM)
    said += ended(helper)[1:]
    for tokens in (
        ("runs", "show", where),
        ("runs", "show", where, "--json"),
        ("runs", "report", where, "--html", "page.html"),
        ("ledger", "check", where),
        ("runs", "show", f"postgresql://127.0.0.1:{free_port()}/x?run=m", "--debug"),
        ("runs", "show", where.replace("?run=march", "x?run=march"), "--debug"),
        ("runs", "show", f"postgresql://u:{SECRET}@h/db?run=m", "--debug"),
        ("worker", "--run", where.replace("march", "april"), "--debug"),
    ):
        said += ended(started(*tokens))[1:]
    said += [file.read_text() for file in Path().iterdir() if file.suffix in {".csv", ".log", ".json", ".html"}]
    assert len([text for text in said if text]) > 12
    assert not any(SECRET in text for text in said)
    assert [row for row in queued.psql("SELECT settings, name FROM invoicing.runs") if SECRET in str(row)] == []

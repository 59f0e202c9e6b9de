"""Secrets that are looked for everywhere: logs, reprs, tracebacks, run files, reports, events, telemetry, commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from canaries import CANARIES, Places, commandline, forms, found
from canary_work import PLANTED, credentials
from peers import free_port
from places import SUPPORT
from served import clean, command, serving_sandbox, write_drafts, write_ids

from invoicing_async.sandbox import (
    Answer,
    DropBeforeAnswer,
    Faults,
    NotEligible,
    Operation,
    Reset,
    Sandbox,
    SandboxSettings,
    Unavailable,
    demo_orders,
)

WORK = SUPPORT / "canary_work.py"
PLACES = {"logs", "reprs", "tracebacks", "errors", "events", "run files", "reports", "documents"}
STREAMS = {"command line", "stdout", "stderr", "log file"}


def worked(folder: Path, *options: str) -> dict[str, Any]:
    """What the work in a process of its own saw."""
    given = [sys.executable, "-W", "error", str(WORK), str(folder), *options]
    done = subprocess.run(given, capture_output=True, text=True, check=False, timeout=110)
    assert (done.returncode, done.stderr) == (0, "")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.process
@pytest.mark.parametrize("how", ["direct", pytest.param("watched", marks=pytest.mark.slow)])
def test_the_library_shows_no_secret_anywhere(tmp_path: Path, how: str) -> None:
    """Through successes, refusals, time-outs, cuts, doubts, runs, exports and proxies: in no place is one."""
    told = worked(tmp_path, how)
    expected = PLACES | ({"telemetry"} if how == "watched" else set())
    assert told["seen"] == {place: [] for place in expected}
    assert {place for place, size in told["sizes"].items() if size > 1_000} == expected


@pytest.mark.process
def test_one_that_stands_in_a_place_is_found_there(tmp_path: Path) -> None:
    """The looking itself is tried: into each place another secret is put by a careless line."""
    seen = worked(tmp_path, "watched", "planted")["seen"]
    assert {*PLANTED} == PLACES | {"telemetry"}
    assert [place for place, name in PLANTED.items() if name not in seen[place]] == []


@pytest.mark.parametrize("name", CANARIES)
def test_a_secret_is_found_in_every_form(name: str) -> None:
    """As it is, in hex, and anywhere within base64; what is none is none."""
    for form in forms(CANARIES[name]):
        assert found(b"\x00left " + form + b" right") == [name]
    assert found("".join(f"{place}{CANARIES[name][:-9]}" for place in PLACES)) == []


def run(places: Places, tokens: list[str], environment: Mapping[str, str]) -> int:
    """Run a command and look at its streams, and, while it runs, at its command line."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(tokens, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**environment})
        places.look("command line", commandline(process.pid))
        while process.poll() is None:
            places.look("command line", commandline(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        for place, stream in (("stdout", out), ("stderr", err)):
            stream.seek(0)
            places.look(place, stream.read())
    return process.returncode


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Sandbox, dict[str, str]]]:
    """A sandbox whose credentials are canaries, and the environment that reaches it and logs everything to a file."""
    clean(monkeypatch)
    sandbox = Sandbox(SandboxSettings(credentials=credentials()), faults=Faults(polls_until_done=(1, 1)))
    with serving_sandbox(sandbox) as variables:
        log = {"INVOICING_LOG": f"DEBUG:{tmp_path / 'commands.log'}", "NO_COLOR": "1"}
        yield sandbox, {**os.environ, **variables, **log}


@pytest.mark.slow
@pytest.mark.process
def test_the_commands_show_no_secret_anywhere(tmp_path: Path, environment: tuple[Sandbox, dict[str, str]]) -> None:
    """Run files, reports, sheets, both streams, the log and the command line of each, at the most that can be asked."""
    sandbox, variables = environment
    places, loud = Places(), ("-vv", "--debug", "--attempts", 2)
    ids, drafts, db = write_ids(tmp_path / "ids.txt", 6), write_drafts(tmp_path / "d.jsonl", 6), tmp_path / "i.db"
    ids.write_text("\n".join(demo_orders(6)))
    sandbox.script(Operation.DOCUMENT, [Unavailable(), Answer(status=401), Reset(), NotEligible(), Reset(after=10)])
    sandbox.script(Operation.SUBMIT, [Unavailable(), DropBeforeAnswer(), Answer(status=401), Reset()])
    to, report = tmp_path / "out", tmp_path / "report.csv"
    wrong = {"INVOICING_DOCUMENTS_SECRET_KEY": CANARIES["wrong secret"]}
    proxy = {"INVOICING_PROXY": f"http://user:{CANARIES['proxy password']}@127.0.0.1:{free_port()}"}
    bearer = {"INVOICING_INVOICES_TOKEN": CANARIES["bearer token"]}
    saved = ("documents", "download", ids, "--to", to)
    for tokens, more in (
        ((*saved, "--run", tmp_path / "d.db", "--report", report, *loud), {}),
        ((*saved, "--json", *loud), wrong),
        ((*saved, "--on-existing", "replace", *loud), proxy),
        (("invoices", "submit", drafts, "--run", db, "--wait", "--report", tmp_path / "i.json", *loud), {}),
        (("invoices", "submit", drafts, "--json", *loud), bearer),
        (("runs", "resume", db, "--export", "pdf", "--to", to, *loud), {}),
        (("runs", "show", db, "--report", tmp_path / "shown.csv"), {}),
        (("runs", "export", db, tmp_path / "doubts.csv"), {}),
        (("doctor", "--online", "-vv", "--debug"), proxy),
        (("sign", "--timestamp", "1", "-vv"), {}),
    ):
        code = run(places, command(*tokens), {**variables, **more})
        assert code in {0, 1, 3}, tokens
    places.look_at_files("log file", [tmp_path / "commands.log"])
    places.look_at_files("run files", (file for file in tmp_path.iterdir() if ".db" in file.name))
    places.look_at_files("reports", [*tmp_path.glob("*.csv"), tmp_path / "i.json"])
    places.look_at_files("documents", (file for file in to.rglob("*") if file.is_file()))
    assert places.seen == {place: [] for place in STREAMS | {"run files", "reports", "documents"}}
    assert min(places.sizes.values()) > 500


@pytest.mark.process
def test_a_secret_of_a_command_is_found(tmp_path: Path) -> None:
    """The looking itself is tried, on a command that shows one everywhere."""
    places, secret = Places(), CANARIES["client secret"]
    code = "import sys, time; print(sys.argv[1]); sys.stderr.write(sys.argv[1]); time.sleep(0.3)"
    run(places, [sys.executable, "-c", code, secret], os.environ)
    (tmp_path / "commands.log").write_text(f"INFO sent {secret}\n")
    places.look_at_files("log file", [tmp_path / "commands.log"])
    assert places.seen == {place: ["client secret"] for place in STREAMS}

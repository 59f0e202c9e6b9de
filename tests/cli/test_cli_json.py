"""Every command with --json: each line on stdout is as its schema says.

The fixture `cli` looks at that in every test; here each command is seen to print lines of every kind.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lines_checked import lines_of
from postgres_server import Database
from served import Cli, aged, write_drafts, write_ids
from test_cli_resolve import made
from test_cli_usage import COMMANDS, options

from invoicing_async.cli.exits import Exit
from invoicing_async.reports import JSON_LINES, json_schema
from invoicing_async.sandbox import Answer, DropBeforeAnswer, Faults, Operation, Sandbox

REFUSED = Answer(
    status=422,
    headers={"Content-Type": "application/json"},
    body=b'{"success": false, "error": {"code": "TAX_1", "message": "no such buyer"}}',
)


def test_the_commands_that_print_lines_are_commands() -> None:
    assert {*JSON_LINES} == {" ".join(command) for command in COMMANDS if "--json" in options(command)}


Lines = Callable[..., list[dict[str, Any]]]
ON_SERVERS = {
    "ledger check", "ledger migrate", "runs import", "runs pause", "runs unhalt", "runs unpause", "worker"
}  # fmt: skip
"""The commands that are for runs on a server alone."""
seen: dict[str, set[str]] = {}
"""The outcomes and states of the lines of each command."""


@pytest.fixture
def lines(cli: Cli) -> Lines:
    """Run a command with --json, which must end with this code, and give its lines: there are some."""

    def call(*tokens: object, code: Exit = Exit.DONE) -> list[dict[str, Any]]:
        ended, out, err = cli(*tokens, "--json")
        found = [*lines_of(out)]
        assert (ended, bool(found)) == (code, True), (tokens, err)
        name = next(name for name in JSON_LINES if name.split() == [*map(str, tokens)][: len(name.split())])
        seen.setdefault(name, set()).update(str(line.get("outcome", line.get("state"))) for line in found)
        return found

    return call


@pytest.mark.slow
def test_lines_of_order_documents(services: Callable[..., Sandbox], lines: Lines) -> None:
    """Saved, deferred and given twice; kept, whole and missing; and of settings and signatures."""
    seen.clear()
    services(Faults(not_eligible=frozenset({"order-1"})))
    write_ids(Path("ids.txt"), 3)
    Path("ids.txt").write_text(Path("ids.txt").read_text() + "order-0\n")
    lines("documents", "download", "ids.txt", "--to", "plain", code=Exit.SOME_LEFT)
    lines("documents", "download", "ids.txt", "--to", "kept", "--run", "d.db", code=Exit.SOME_LEFT)
    lines("runs", "show", "d.db")
    lines("runs", "show", "d.db", "--items")
    next(Path("kept").glob("order-0*.pdf")).unlink()
    lines("runs", "verify", "d.db", code=Exit.SOME_LEFT)
    lines("runs", "resume", "d.db", code=Exit.SOME_LEFT)
    lines("runs", "report", "d.db", "--html", "d.html")
    lines("sign")
    lines("doctor", "--online")
    assert seen["documents download"] == {"saved", "deferred", "duplicate"}
    assert seen["runs verify"] == {"whole", "missing"}
    own = {"documents download", "runs verify", "runs report", "sign", "doctor"}
    assert {*seen} == own | {"runs show", "runs resume"}


@pytest.mark.slow
def test_lines_of_e_invoices(services: Callable[..., Sandbox], lines: Lines) -> None:
    """Faulty, given twice, made, rejected and in doubt; looked up, settled, sent again, refreshed."""
    seen.clear()
    sandbox = services(Faults(polls_until_done=(1, 1), exports_until_done=(0, 0)))
    first, *_ = write_drafts(Path("d.jsonl"), 4).read_text().splitlines()
    with Path("d.jsonl").open("a") as file:
        file.write(json.dumps(json.loads(first) | {"key": "faulty", "lines": []}) + f"\n{first}\n")
    lines("invoices", "submit", "d.jsonl", code=Exit.USAGE)
    told = lines("invoices", "submit", "d.jsonl", "--skip-invalid", "--wait", code=Exit.SOME_LEFT)
    number = next(line["request_id"] for line in told if line["outcome"] == "success")
    lines("invoices", "status", number)
    lines("invoices", "wait", number)
    sandbox.script(Operation.SUBMIT, [REFUSED, DropBeforeAnswer(), DropBeforeAnswer()])
    durably = ("--run", "i.db", "--concurrency", "1", "--stop-after", "0", "--export", "pdf", "--to", "e")
    lines("invoices", "submit", "d.jsonl", "--skip-invalid", *durably, code=Exit.SOME_LEFT)
    for more in ((), ("--items",)):
        lines("runs", "show", "i.db", *more)
    aged("i.db")
    doubts = [line["key"] for line in lines("runs", "export", "i.db")]
    lines("runs", "resolve", "i.db", doubts[0], "--as", "created", "--request-id", made(sandbox)[doubts[0]])
    lines("runs", "resolve", "i.db", doubts[1], "--as", "not-created")
    lines("runs", "retry", "i.db", "--state", "rejected")
    lines("runs", "resume", "i.db", code=Exit.SOME_LEFT)
    lines("runs", "refresh", "i.db")
    with closing(sqlite3.connect("i.db", isolation_level=None)) as connection:
        connection.execute("INSERT INTO meta VALUES ('log', 'x')")  # as a process leaves it that was killed
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    lines("runs", "accept-lost-log", "i.db")
    assert seen["invoices submit"] >= {"success", "rejected", "in_doubt", "invalid", "duplicate"}
    of_documents = {"documents download", "runs verify", "runs report", "sign", "doctor"}
    assert {*seen} == {*JSON_LINES} - of_documents - ON_SERVERS


@pytest.mark.slow
def test_lines_of_runs_on_servers(
    services: Callable[..., Sandbox], lines: Lines, queued: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Migrated, looked at, submitted to, held up, worked on, brought back older, and carried over from a file."""
    seen.clear()
    services()
    monkeypatch.setenv("INVOICING_LEDGER_WAIVE", "fsync")
    server, where = queued.address(None), queued.address()
    write_drafts(Path("d.jsonl"), 4)
    lines("ledger", "migrate", server)
    lines("ledger", "check", server)
    lines("invoices", "submit", "d.jsonl", "--run", where)
    lines("runs", "pause", where)
    lines("runs", "unpause", where)
    lines("worker", "--run", where, "--until-done")
    queued.psql("UPDATE invoicing.runs SET halted = now(), halted_why = 'its database came back older'")
    lines("runs", "unhalt", where, "--doubt-since", str(time.time() - 0.001))
    lines("invoices", "submit", "d.jsonl", "--run", "i.db")
    lines("runs", "import", "i.db", "--run", queued.address("carried"))
    assert seen["worker"] == {"success"}
    assert {*seen} == ON_SERVERS | {"invoices submit"}


def test_a_schema_is_printed_for_each_command_and_for_all(cli: Cli) -> None:
    for command in (None, *JSON_LINES):
        code, out, err = cli("schema", *(command or "").split())
        assert (code, json.loads(out), err) == (Exit.DONE, json_schema(command), "")
    code, _, err = cli("schema", "demo")
    assert (code, "'demo' prints no JSON lines" in err, "runs show" in err) == (Exit.USAGE, True, True)

"""Commands on runs that a PostgreSQL server keeps: with one changed setting they do and say what they do of a file."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path

import pytest
from attrs import define
from postgres_server import Database, PostgresServer
from report_runs import invoice_run
from served import Cli, clean, write_drafts, write_ids

from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async.cli.exits import Exit
from invoicing_async.runs import LedgerAwayError
from invoicing_async.sandbox import Faults, Sandbox

pytestmark = pytest.mark.slow

SECRET = "hunter2-canary"
UUID = "5f0c5b1e-6d53-4b6e-8e0c-7b1f6a0f3c55"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INVOICING_LEDGER_WAIVE", "fsync")


@pytest.fixture
def march() -> None:
    """A run file with something of everything in it."""
    asyncio.run(invoice_run(Path("march.db"), {"planned": 2, "success": 2, "in_doubt": 2, "rejected": 1}))


def test_an_empty_database_is_migrated_once(postgres_server: PostgresServer, cli: Cli) -> None:
    database = postgres_server.database(migrated=False)
    server = database.address(None)
    code, out, err = cli("ledger", "check", server)
    assert (code, out) == (Exit.SOME_LEFT, "")
    assert "has no tables for runs yet" in err
    assert shlex.join(["invoicing-async", "ledger", "migrate", server]) in err
    code, out, err = cli("runs", "show", database.address())
    assert (code, out) == (Exit.USAGE, "")
    assert "has no tables for runs yet" in err
    code, out, _ = cli("ledger", "migrate", database.address(), "--json")
    assert code == Exit.DONE
    assert json.loads(out)["done"][0] == "step 1"
    assert cli("ledger", "migrate", server) == (Exit.DONE, f" {server}: version 1, nothing was left to do\n", "")
    assert cli("ledger", "check", server) == (Exit.DONE, f" {server}: version 1, as this program needs it\n", "")
    database.psql("DROP TABLE invoicing_queue.walks")
    code, out, err = cli("ledger", "check", server)
    assert (code, out) == (Exit.SOME_LEFT, "")
    assert "no up-to-date queue" in err
    assert shlex.join(["invoicing-async", "ledger", "migrate", server]) in err
    database.drop()


def test_tables_of_a_newer_version_are_refused(postgres: Database, cli: Cli) -> None:
    postgres.psql("UPDATE invoicing.meta SET version = 9, min_writer = 9")
    for word in ("check", "migrate"):
        code, _, err = cli("ledger", word, postgres.address(None))
        assert code == Exit.USAGE
        assert "version 9" in err


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("postgresql://127.0.0.1:1/invoicing?run=march", "the database of"),
        ("postgresql://u:hunter2-canary@h/db?run=m", "PGPASSWORD"),
        ("march.db", "ledger|for a run on a server"),
    ],
)
def test_what_is_no_database_is_one_sentence(where: str, said: str, cli: Cli) -> None:
    Path("march.db").touch()
    for tokens in (
        ["ledger", "check", where],
        ["ledger", "migrate", where],
        ["runs", "import", "x.db", "--run", where],
    ):
        if where == "march.db" or "import" not in tokens or SECRET in where:
            code, out, err = cli(*tokens)
            assert (code, out) == (Exit.USAGE, "")
            assert any(each in err for each in said.split("|"))
            assert SECRET not in err


@pytest.mark.usefixtures("march")
def test_a_run_is_carried_over_and_shown_as_its_file_was(postgres: Database, cli: Cli) -> None:
    where = postgres.address()
    _, before, _ = cli("runs", "show", "march.db")
    code, out, err = cli("runs", "import", "march.db", "--run", where)
    assert (code, err) == (Exit.DONE, "")
    assert f"7 items were carried over to {where}" in out
    assert shlex.join(["invoicing-async", "runs", "resume", where]) in out
    code, shown, _ = cli("runs", "show", where)
    assert code == Exit.DONE
    assert shown.replace(shlex.quote(where), "march.db").replace(where, "march.db") == before
    code, out, err = cli("runs", "retry", "march.db", "--state", "rejected")
    assert (code, out) == (Exit.USAGE, "")
    assert f"was carried over to {where}" in " ".join(err.split())
    code, out, _ = cli("runs", "show", "march.db")
    assert code == Exit.DONE
    assert f"moved to  {where}" in out
    assert out.endswith(f" Next\n   {shlex.join(['invoicing-async', 'runs', 'resume', where])}\n")
    code, out, _ = cli("runs", "import", "march.db", "--run", where, "--json")
    assert code == Exit.DONE
    assert json.loads(out) == {"file": "march.db", "run": where, "kind": "invoices", "items": 7, "entries": 12}


Services = Callable[..., Sandbox]


@define
class Side:
    """One of two places where the same run is kept, with a folder and a service of its own."""

    folder: Path
    run: str
    variables: dict[str, str]

    def give(self, cli: Cli, tokens: Sequence[str]) -> tuple[int, str, str]:
        """What a command says, without how long it took, when it was, and where."""
        with pytest.MonkeyPatch.context() as context:  # left at once: the services end before the test's own is undone
            context.chdir(self.folder)
            for name, value in self.variables.items():
                context.setenv(name, value)
            code, *streams = cli(*(self.run if token == "RUN" else token for token in tokens))
        timed = r"in \d+\.\d s(, [\d,]+/\w+)?|within \d+ s|\(\d+ s left\)|\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d( \S+)?"
        names = (shlex.quote(self.run), self.run, str(self.folder))
        out, err = (
            reduce(lambda text, name: text.replace(name, "HERE"), names, re.sub(timed, "", text)) for text in streams
        )
        return code, out, err


Both = Callable[..., tuple[int, str, str]]


@pytest.fixture
def both(queued: Database, cli: Cli, services: Services, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Both:
    """Give a command to a run in a file and to one on a server; they must say the same, which is returned."""
    monkeypatch.setenv("INVOICING_LEDGER_WAIVE", "fsync")
    sides: list[Side] = []

    def give(*tokens: str, code: Exit = Exit.DONE, faults: Faults | None = None) -> tuple[int, str, str]:
        for name, where in (("file", "march.db"), ("server", queued.address())):
            if len(sides) < 2:
                folder = tmp_path / name
                folder.mkdir()
                write_drafts(folder / "drafts.jsonl", 12)
                write_ids(folder / "orders.txt", 12)
                services(faults)
                found = {key: value for key, value in os.environ.items() if key.startswith("INVOICING_")}
                sides.append(Side(folder, where, found))
        of_file, on_server = [side.give(cli, tokens) for side in sides]
        assert on_server == of_file, on_server[1]
        assert of_file[0] == code, of_file
        return of_file

    return give


def test_a_durable_run_of_invoices_says_the_same_on_both_ledgers(both: Both) -> None:
    """Submitted, given again, shown, resumed, verified, reported on: but for the name of the run."""
    both("invoices", "submit", "drafts.jsonl", "--run", "RUN")
    both("runs", "show", "RUN", code=Exit.DONE)
    both("invoices", "submit", "drafts.jsonl", "--run", "RUN", "--report", "r.csv")
    both("runs", "resume", "RUN")
    both("runs", "resume", "RUN", "--export", "pdf", "--to", "out")
    both("runs", "verify", "RUN")
    both("runs", "show", "RUN", "--items")
    both("runs", "refresh", "RUN")
    both("runs", "report", "RUN", "--html", "page.html")


def test_a_durable_download_says_the_same_on_both_ledgers(both: Both) -> None:
    both("documents", "download", "orders.txt", "--to", "out", "--run", "RUN")
    both("runs", "show", "RUN")
    both("documents", "download", "orders.txt", "--to", "out", "--run", "RUN")
    both("runs", "resume", "RUN")
    both("runs", "verify", "RUN")


def test_doubts_are_settled_on_both_ledgers(both: Both) -> None:
    lost = Faults(lost_share=1.0)
    tokens = ("invoices", "submit", "drafts.jsonl", "--run", "RUN", "--stop-after", "0")
    both(*tokens, faults=lost, code=Exit.SOME_LEFT)
    both("runs", "show", "RUN")
    both("runs", "export", "RUN")
    both("runs", "resolve", "RUN", "ORDER-0001", "--as", "not-created", code=Exit.USAGE)


@pytest.fixture
def where(queued: Database, services: Services, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a run on a server, with drafts and a service that takes them."""
    monkeypatch.setenv("INVOICING_LEDGER_WAIVE", "fsync")
    write_drafts(Path("drafts.jsonl"), 30)
    services()
    return queued.address()


def test_a_worker_does_what_is_left_and_ends(where: str, cli: Cli) -> None:
    """The command that submits only submits; what it leaves is done by whoever comes."""
    assert cli("invoices", "submit", "drafts.jsonl", "--run", where)[0] == Exit.DONE
    code, out, err = cli("worker", "--run", where, "--until-done", "--export", "pdf", "--to", "out", "--status", "s")
    assert code == Exit.DONE, err
    assert re.search(r"success +30 ", out)
    assert "this command: 30 success, 30 exported" in out
    assert len([*Path("out").iterdir()]) == 30
    status = json.loads(Path("s").read_text())
    assert (status["run"], status["slots"]) == ("march", 8)
    code, out, _ = cli("worker", "--run", where, "--until-done", "--json")
    assert (code, out) == (Exit.DONE, "")


def test_a_worker_that_finds_nothing_to_do_that_can_be_done_is_done(where: str, cli: Cli, queued: Database) -> None:
    """How items ended is told by whoever took them in, and by `runs show`: a worker is not at fault."""
    cli("invoices", "submit", "drafts.jsonl", "--run", where)
    queued.psql("UPDATE invoicing.items SET state = 'rejected' WHERE seq = 1")
    queued.psql("UPDATE invoicing.tally SET count = count - 1 WHERE state = 'submitted'")
    queued.psql("INSERT INTO invoicing.tally (run, state, worker, count) VALUES (1, 'rejected', 0, 1)")
    assert cli("worker", "--run", where, "--until-done")[0] == Exit.DONE
    assert cli("runs", "resume", where)[0] == Exit.SOME_LEFT


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("--run", "march.db"), "for a run on a server"),
        (("--run", "WHERE", "--slots", "0"), "slots"),
        (("--run", "WHERE", "--status", "absent/s"), "absent"),
        (("--run", "WHERE", "--export", "pdf"), "--export and --to DIR go together"),
    ],
)
def test_a_worker_that_cannot_work_says_why(where: str, tokens: tuple[str, ...], said: str, cli: Cli) -> None:
    cli("invoices", "submit", "drafts.jsonl", "--run", where)
    code, _, err = cli("worker", "--until-done", *(where if token == "WHERE" else token for token in tokens))
    assert code in {Exit.USAGE, Exit.STOPPED}
    assert said in err
    assert "fault of the program" not in err


def test_a_run_that_is_not_there_is_not_made_by_who_only_works(where: str, cli: Cli, queued: Database) -> None:
    for tokens in (["worker", "--run", where], ["runs", "resume", where], ["runs", "pause", where]):
        code, _, err = cli(*tokens)
        assert (code, "no such run" in err) == (Exit.USAGE, True)
    assert queued.psql("SELECT count(*) FROM invoicing.runs") == [(0,)]


def test_a_paused_run_is_shown_so_and_goes_on(where: str, cli: Cli, queued: Database) -> None:
    cli("invoices", "submit", "drafts.jsonl", "--run", where)
    code, out, _ = cli("runs", "pause", where)
    assert code == Exit.DONE
    unpause = shlex.join(["invoicing-async", "runs", "unpause", where])
    assert out == f" {where} is paused\n\n Next\n   {unpause}\n"
    assert queued.psql("SELECT paused IS NOT NULL FROM invoicing.runs") == [(True,)]
    out = cli("runs", "show", where)[1]
    assert "\n paused since " in out
    assert f"   {unpause}\n" in out
    code, out, _ = cli("runs", "unpause", where, "--json")
    assert json.loads(out) == {"run": where, "state": "going on", "in_doubt": None}
    assert queued.psql("SELECT paused IS NULL FROM invoicing.runs") == [(True,)]


@pytest.mark.parametrize(
    ("since", "said"),
    [
        ("tomorrow", "must be a time as"),
        ("2100-01-01T00:00:00", "must not be in the future"),
        ("2020-01-01", "must not be before the run was made"),
        ("0", "must not be before the run was made"),
    ],
)
def test_a_time_since_when_nothing_can_be_missing_is_refused(
    where: str, since: str, said: str, cli: Cli, queued: Database
) -> None:
    cli("invoices", "submit", "drafts.jsonl", "--run", where)
    queued.psql("UPDATE invoicing.runs SET halted = now(), halted_why = 'its database came back older'")
    code, _, err = cli("runs", "unhalt", where, "--doubt-since", since)
    assert (code, said in err) == (Exit.USAGE, True)
    assert queued.psql("SELECT halted IS NULL FROM invoicing.runs") == [(False,)]


def forgotten(queued: Database) -> None:
    """Let the database be as before two of the drafts were sent."""
    queued.psql("UPDATE invoicing.items SET state = 'planned' WHERE seq <= 2")
    queued.psql("UPDATE invoicing.tally SET count = count - 2 WHERE state = 'submitted'")
    queued.psql("INSERT INTO invoicing.tally (run, state, worker, count) VALUES (1, 'planned', 99, 2)")


def test_a_halted_run_goes_on_when_what_may_have_left_is_in_doubt(where: str, cli: Cli, queued: Database) -> None:
    cli("invoices", "submit", "drafts.jsonl", "--run", where)
    assert "is not halted" in cli("runs", "unhalt", where, "--doubt-since", str(time.time()))[2]
    queued.psql("UPDATE invoicing.runs SET halted = now(), halted_why = 'its database came back older'")
    forgotten(queued)
    out = cli("runs", "show", where)[1]
    assert "halted since " in out
    assert shlex.join(["invoicing-async", "runs", "unhalt", where, "--doubt-since", "TIME"]) in out
    assert cli("runs", "unhalt", where, "--restored", "--doubt-since", "2020-01-01")[0] == Exit.USAGE
    created = queued.psql("SELECT extract(epoch FROM created)::float8 FROM invoicing.runs")[0][0]
    code, out, _ = cli("runs", "unhalt", where, "--doubt-since", str(created + 0.001))
    assert (code, "2 may have been sent since" in out) == (Exit.DONE, True)
    assert queued.psql("SELECT halted IS NULL FROM invoicing.runs") == [(True,)]
    assert re.search(r"in doubt +2 ", cli("runs", "show", where)[1])


def test_a_run_that_was_restored_while_nobody_worked_on_it_is_halted_first(
    where: str, cli: Cli, queued: Database
) -> None:
    """All that may have been sent of it is in doubt."""
    cli("invoices", "submit", "drafts.jsonl", "--run", where)
    forgotten(queued)
    code, out, _ = cli("runs", "unhalt", where, "--restored", "--doubt-since", str(time.time() - 0.001))
    assert (code, "2 may have been sent" in out) == (Exit.DONE, True)
    assert queued.psql("SELECT halted IS NULL FROM invoicing.runs") == [(True,)]
    assert queued.psql("SELECT count(*) FROM invoicing.items WHERE state = 'in_doubt'") == [(2,)]


def test_two_invoices_of_one_draft_are_told_with_both_ids(where: str, cli: Cli, queued: Database) -> None:
    cli("invoices", "submit", "drafts.jsonl", "--run", where)
    queued.psql("UPDATE invoicing.items SET other_request_id = %s WHERE seq = 3", UUID)
    [(first,)] = queued.psql("SELECT request_id FROM invoicing.items WHERE seq = 3")
    code, out, _ = cli("runs", "show", where)
    assert code == Exit.SOME_LEFT
    assert f"TWO INVOICES may have been made of ORDER-0002: {first} and {UUID}" in out
    assert f"   invoicing-async invoices status {UUID}\n" in out
    code, out, _ = cli("runs", "show", where, "--json")
    assert code == Exit.SOME_LEFT
    assert json.loads(out)["twice"] == [{"key": "ORDER-0002", "request_id": first, "other_request_id": UUID}]


def test_who_works_and_what_is_stuck_is_shown(where: str, cli: Cli, queued: Database) -> None:
    cli("invoices", "submit", "drafts.jsonl", "--run", where)
    queued.psql(
        "INSERT INTO invoicing.workers (run, host, pid, version, started, heartbeat, done, slots, doing) VALUES "
        "(1, 'blue', 7, '1.2', now() - interval '10 s', now(), 100, 8, 'working'), "
        "(1, 'red', 8, '1.1', now() - interval '1 h', now() - interval '5 min', 5, 8, 'working')"
    )
    queued.psql("UPDATE invoicing.items SET state = 'sending', sent_at = now() - interval '10 min' WHERE seq = 4")
    queued.psql("UPDATE invoicing.tally SET count = count - 1 WHERE state = 'submitted'")
    queued.psql("INSERT INTO invoicing.tally (run, state, worker, count) VALUES (1, 'sending', 99, 1)")
    out = cli("runs", "show", where)[1]
    assert "1 are being sent for longer than they can be" in out
    assert "open           30, 1 of them in flight, the oldest for 10 min" in out
    assert re.search(r"worker \d+ +blue process 7, 1\.2, 100 done, \d+/s, working, heard of", out)
    assert re.search(r"worker \d+ +red process 8, 1\.1, 5 done, .*SILENT, last heard of 5 min", out)
    assert re.search(r"to go +about [\d.]+ m?s at \d+/s", out)
    assert re.search(r"table items +30 rows, \d+ dead, last vacuum never", out)
    row = json.loads(cli("runs", "show", where, "--json")[1])
    assert [worker["alive"] for worker in row["standing"]["workers"]] == [True, False]
    assert row["standing"]["stuck"] == 1
    assert row["wrong"][0]["command"] == shlex.join(["invoicing-async", "worker", "--run", where, "--until-done"])


def test_a_run_is_watched_until_it_rests(where: str, cli: Cli) -> None:
    cli("invoices", "submit", "drafts.jsonl", "--run", where, "--wait")
    code, out, _ = cli("runs", "show", where, "--watch")
    assert (code, out.count("E-invoices of")) == (Exit.DONE, 1)
    assert len(cli("runs", "show", where, "--watch", "--json")[1].splitlines()) == 1
    assert cli("runs", "show", where, "--watch", "--items")[0] == Exit.USAGE


def test_the_doctor_knows_the_ledger_and_shows_nothing_of_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts in the environment only, and in a file of settings it would do nothing."""
    monkeypatch.setenv("INVOICING_LEDGER", f"postgresql://u:{SECRET}@h/db")
    assert "LEDGER" not in "".join(cli("doctor")[1:])
    monkeypatch.delenv("INVOICING_LEDGER")
    Path("invoicing.env").write_text(f"INVOICING_LEDGER=postgresql://u:{SECRET}@h/db\n")
    told = "".join(cli("doctor", "--env-file", "invoicing.env")[1:])
    assert "INVOICING_LEDGER" in told
    assert SECRET not in told


def test_a_run_file_that_nobody_holds_is_watched_once(cli: Cli) -> None:
    asyncio.run(invoice_run(Path("march.db"), {"planned": 2}))
    assert cli("runs", "show", "march.db", "--watch") == cli("runs", "show", "march.db")


@pytest.mark.parametrize("kind", ["add_drafts", "add_ids"])
def test_a_database_that_is_lost_while_it_takes_the_input_in_is_told(
    queued: Database, cli: Cli, services: Services, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nothing of it was begun, and the same command does it all."""
    services()
    write_drafts(Path("drafts.jsonl"), 3)
    Path("ids.txt").write_text("1001\n1002\n")

    async def lost(*_: object, **__: object) -> None:
        raise LedgerAwayError("the database of march: it was shut down")

    monkeypatch.setattr(PostgresLedger, kind, lost)
    tokens = {
        "add_drafts": ["invoices", "submit", "drafts.jsonl"],
        "add_ids": ["documents", "download", "ids.txt", "--to", "out"],
    }[kind]
    code, _, err = cli(*tokens, "--run", queued.address())
    said = " ".join(err.split())
    assert code == Exit.USAGE, err
    assert "were not taken in: the database of march: it was shut down" in said
    assert "Give the same command again when the database is back" in said
    assert "runs resume" not in said

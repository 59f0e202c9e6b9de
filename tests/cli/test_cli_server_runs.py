"""Commands on runs that a PostgreSQL server keeps: with one changed setting they do and say what they do of a file."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path

import pytest
from postgres_server import Database, PostgresServer
from report_runs import invoice_run
from served import Cli, clean

from invoicing_async.cli.exits import Exit

SECRET = "hunter2-canary"


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

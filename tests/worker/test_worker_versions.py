"""Two workers of one run, each a process, of two versions: tables are added to, or are no more theirs to write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer, Servers
from short_form import IN_FULL
from worker_chaos import Workers, look, queued_database, workers
from worker_chaos_work import TIMEOUTS, server_address

from invoicing_async._durable.postgres import migrations as module
from invoicing_async._durable.postgres.migrations import migrate, migrations

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.timeout(120),
    IN_FULL,
]

DRAFTS = 500
LATER = "99.0"

ADDED = """
ALTER TABLE invoicing.items ADD COLUMN added text NOT NULL DEFAULT 'later';
ALTER TABLE invoicing.runs ADD COLUMN added integer;
ALTER TABLE invoicing.workers ADD COLUMN added timestamptz;
ALTER TABLE invoicing.journal ADD COLUMN added text;
ALTER TABLE invoicing.tally ADD COLUMN added bigint NOT NULL DEFAULT 0;
ALTER TABLE invoicing.lanes ADD COLUMN added text;
CREATE TABLE invoicing.added (run integer PRIMARY KEY, note text);
CREATE INDEX items_added ON invoicing.items (run, added, seq);
UPDATE invoicing.meta SET version = version + 1
"""
"""What a migration within a major version does."""


@pytest.fixture
def server(postgres_servers: Servers) -> PostgresServer:
    return postgres_servers(fsync=True)


@pytest.fixture
def one(server: PostgresServer, tmp_path: Path) -> Iterator[Workers]:
    """A worker at work."""
    with workers(queued_database(server), tmp_path, drafts=DRAFTS, seconds=0.2) as found:
        found.start()
        found.until_made(50, seconds=30)
        yield found


def test_old_and_new_work_side_by_side_when_tables_were_added_to(one: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The migration comes while the old one works."""
    added = {**migrations(), len(migrations()) + 1: ADDED}
    monkeypatch.setattr(module, "migrations", lambda: added)
    assert asyncio.run(migrate(server_address(one.database.address()))) == (len(added),)
    one.start(version=LATER)
    one.rest()
    look(one)
    assert one.in_states() == {"success": DRAFTS}
    versions = one.database.psql(
        "SELECT version, count(*) FROM invoicing.items JOIN invoicing.workers ON owner = worker GROUP BY version"
    )
    assert len(versions) == 2
    assert min(count for _, count in versions) > DRAFTS // 20, versions


def test_one_that_is_too_old_for_the_tables_is_refused_and_one_at_work_sends_nothing_more(one: Workers) -> None:
    """It waits with what it has in hand from when it connects again, and goes on when it may."""
    one.database.psql("UPDATE invoicing.meta SET version = 9, min_writer = 9")
    code, why = one.ended(one.start())
    assert code == 1
    assert "LedgerSchemaError" in why
    assert "needs a program that knows tables of version 9" in why
    one.database.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    time.sleep(TIMEOUTS.intent + 0.5)
    stands = len(one.made())
    time.sleep(3)
    assert len(one.made()) == stands < DRAFTS
    one.database.psql("UPDATE invoicing.meta SET version = 1, min_writer = 1")
    one.rest()
    look(one)
    assert one.in_states() == {"success": DRAFTS}

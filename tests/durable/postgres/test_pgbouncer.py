"""A run behind PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio

import pytest
from ledger_faults import all_made_once, remembering, working
from pgbouncer import PgBouncer
from postgres_server import Database

psycopg = pytest.importorskip("psycopg")

pytestmark = pytest.mark.slow


def test_the_pooler_keeps_nothing_of_a_session(pgbouncer: PgBouncer, postgres: Database) -> None:
    """What the tests behind it stand on: a prepared statement of one transaction is not there in another."""
    address = pgbouncer.address(postgres, None)
    with psycopg.connect(address, autocommit=True) as first, psycopg.connect(address, autocommit=True) as second:
        assert first.execute("SELECT version FROM invoicing.meta", prepare=True).fetchone() == (1,)
        with second.transaction():
            second.execute("SELECT 1")  # it has the connection now
            with pytest.raises(psycopg.errors.InvalidSqlStatementName):
                first.execute("SELECT version FROM invoicing.meta", prepare=True)


@pytest.mark.asyncio
async def test_two_workers_behind_the_pooler_make_a_run(pgbouncer: PgBouncer, postgres: Database) -> None:
    """More statements than a driver takes to prepare one, and more connections than one for each of them."""
    address = pgbouncer.address(postgres)
    async with (
        remembering(0) as service,
        working(address, service, drafts=60) as one,
        working(address, service) as other,
    ):
        await asyncio.gather(one.to_the_end(), other.to_the_end())
        await one.to_the_end()  # what the other had on its way when this one looked
        await all_made_once(one, service, 60)
        assert (await one.ledger.figures()).counts["success"] == 60

"""A run behind PgBouncer in transaction mode."""

from __future__ import annotations

import pytest
from pgbouncer import PgBouncer
from postgres_server import Database

psycopg = pytest.importorskip("psycopg")


def test_the_pooler_keeps_nothing_of_a_session(pgbouncer: PgBouncer, postgres: Database) -> None:
    """What the tests behind it stand on: a prepared statement of one transaction is not there in another."""
    address = pgbouncer.address(postgres, None)
    with psycopg.connect(address, autocommit=True) as first, psycopg.connect(address, autocommit=True) as second:
        assert first.execute("SELECT version FROM invoicing.meta", prepare=True).fetchone() == (1,)
        with second.transaction():
            second.execute("SELECT 1")  # it has the connection now
            with pytest.raises(psycopg.errors.InvalidSqlStatementName):
                first.execute("SELECT version FROM invoicing.meta", prepare=True)

"""The tables of runs, made and brought up to date: numbered, forward only, each in one transaction.

A worker never does it by itself: somebody says when, with `invoicing-async ledger migrate`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from ..address import ServerAddress
from .connection import Connection, SchemaState, check_schema, connect, schema_state
from .errors import database_errors

__all__ = ["check", "migrate", "migrations"]

LOCK = 0x496E7641
"""The advisory lock that two migrations at once take turns by: "InvA"."""

PATIENCE = "10s"
"""How long a migration waits for a table, with everybody else behind it: then it gives up and has changed nothing."""

_NAME = re.compile(r"migration_(\d{3})\.sql")


@cache
def migrations() -> Mapping[int, str]:
    """Return each migration by its number, in their order."""
    found = ((_NAME.fullmatch(file.name), file) for file in files(__package__).iterdir())
    return dict(sorted((int(name[1]), file.read_text(encoding="utf-8")) for name, file in found if name))


async def check(address: ServerAddress, *, environ: Mapping[str, str] | None = None) -> SchemaState:
    """Return how the tables stand; nothing is changed. Raises as `connect` does."""
    async with await connect(address, environ=environ) as connection:
        with database_errors(address.text):
            return await schema_state(connection)


async def migrate(address: ServerAddress, *, environ: Mapping[str, str] | None = None) -> tuple[int, ...]:
    """Bring the tables up to the version of this program, and return the numbers of the migrations that were done.

    Two at once are safe: the second finds nothing left to do. Raises `LedgerSchemaError` if the tables are of a version
    that this program may not write, and `LedgerAwayError` if a table was in use for too long; then try again.
    """
    async with await connect(address, environ=environ) as connection:
        with database_errors(address.text):
            done = [number for number in migrations() if await _migrate(connection, number)]
            check_schema(await schema_state(connection), address, to_write=True)
    return tuple(done)


async def _migrate(connection: Connection, number: int) -> bool:
    """Do one migration if it was not done yet; tell whether it was done now."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        if (await schema_state(connection)).version >= number:
            return False
        await connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE}'")
        await connection.execute(migrations()[number].encode())
    return True

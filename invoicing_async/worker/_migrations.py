"""The tables of the queue: the engine's own schema and its later migrations, and two tables of ours, in one schema."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from procrastinate import PsycopgConnector
from procrastinate.schema import SchemaManager

from ._statements import QUEUE_SCHEMA, TABLES

__all__ = ["migrate_schema"]

_log = logging.getLogger("invoicing_async")

LOCK = 0x1A_70_1C_E5
"""Whoever brings the queue holds this advisory lock for as long as each step takes."""

AFTER = "_post_"
"""In the name of a migration that removes what workers of before it still use."""

_PINNED = """
DO $$ DECLARE found regprocedure; BEGIN
    FOR found IN SELECT oid FROM pg_proc WHERE pronamespace = 'invoicing_queue'::regnamespace AND prokind = 'f' LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = invoicing_queue, pg_temp', found);
    END LOOP;
END $$
"""
"""The engine's functions find its tables whoever calls them: its triggers, when an operator removes jobs by hand."""

Execute: TypeAlias = Callable[..., Awaitable[Any]]


async def migrate_schema(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Bring the queue up to date and return the names of the steps that were done; none if it was.

    Each is a transaction under an advisory lock, so that two at once are safe. A step that takes away what workers of
    before use is left until none of them lives.
    """
    kwargs = {**parameters, "options": f"{parameters.get('options', '')} -c search_path={QUEUE_SCHEMA}".strip()}
    connector = PsycopgConnector(conninfo="", kwargs=kwargs, min_size=1, max_size=1, name="invoicing-migration")
    done: list[str] = []
    try:
        await connector.open_async()
        while True:
            async with connector.pool.connection() as connection, connection.transaction():
                step = await _step(connection.execute)
            if step is None:
                return tuple(done)
            done.append(step)
    finally:
        await connector.close_async()


@cache
def _files() -> list[Path]:
    """The engine's migrations that come with this version of it, in their order."""
    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))


async def _step(execute: Execute) -> str | None:
    """Do the next step, and return its name; None if there is none."""
    await execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    await execute(f"CREATE SCHEMA IF NOT EXISTS {QUEUE_SCHEMA}")
    await execute(TABLES)
    names = {row[0] for row in await (await execute("SELECT name FROM invoicing_queue.migrations")).fetchall()}
    files = _files()
    if not await _one(execute, "SELECT to_regclass('procrastinate_jobs') IS NOT NULL"):
        await execute(SchemaManager.get_schema())
        await execute(_PINNED)
        await execute(
            "INSERT INTO invoicing_queue.migrations (name) SELECT unnest(%s::text[])", [[f.name for f in files]]
        )
        return "the queue"
    for file in files:
        if file.name not in names and not (AFTER in file.name and await _one(execute, _LIVING)):
            await execute(file.read_text())
            await execute(_PINNED)
            await execute("INSERT INTO invoicing_queue.migrations (name) VALUES (%s)", [file.name])
            return file.name
    return None


_LIVING = "SELECT EXISTS (SELECT FROM procrastinate_workers WHERE last_heartbeat > now() - interval '30 s')"


async def _one(execute: Execute, statement: str) -> bool:
    row = await (await execute(statement)).fetchone()
    return bool(row[0])

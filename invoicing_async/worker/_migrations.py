"""The tables of the queue: the engine's own schema and its later migrations, and two tables of ours, in one schema."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from procrastinate import PsycopgConnector
from procrastinate.schema import SchemaManager

from ._statements import QUEUE_SCHEMA, TABLES

__all__ = ["migrate_schema", "missing_steps"]

_log = logging.getLogger("invoicing_async")

LOCK = 0x1A_70_1C_E5
"""Whoever brings the queue holds this advisory lock for as long as each step takes."""

WHOLE = "the queue"
"""The first step, which makes all of it."""

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
    done: list[str] = []
    async with _connected(parameters) as connector:
        while True:
            async with connector.pool.connection() as connection, connection.transaction():
                step = await _step(connection.execute)
            if step is None:
                return tuple(done)
            done.append(step)


async def missing_steps(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the steps that `migrate_schema` would do now. Nothing is changed."""
    async with _connected(parameters) as connector, connector.pool.connection() as connection:
        return tuple(await _missing(connection.execute))


@asynccontextmanager
async def _connected(parameters: Mapping[str, Any]) -> AsyncIterator[PsycopgConnector]:
    kwargs = {**parameters, "options": f"{parameters.get('options', '')} -c search_path={QUEUE_SCHEMA}".strip()}
    connector = PsycopgConnector(conninfo="", kwargs=kwargs, min_size=1, max_size=1, name="invoicing-migration")
    try:
        await connector.open_async()
        yield connector
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
    step = next(iter(await _missing(execute)), None)
    if step == WHOLE:
        await execute(SchemaManager.get_schema())
        await execute(_PINNED)
        names = [file.name for file in _files()]
        await execute("INSERT INTO invoicing_queue.migrations (name) SELECT unnest(%s::text[])", [names])
    elif step is not None:
        [file] = [file for file in _files() if file.name == step]
        await execute(file.read_text())
        await execute(_PINNED)
        await execute("INSERT INTO invoicing_queue.migrations (name) VALUES (%s)", [step])
    return step


async def _missing(execute: Execute) -> list[str]:
    """Return the names of the steps that are to be done, in their order."""
    if not await _one(execute, _IS_THERE):
        return [WHOLE]
    rows = await (await execute("SELECT name FROM invoicing_queue.migrations")).fetchall()
    steps = [name for file in _files() if (name := file.name) not in {row[0] for row in rows}]
    is_used = any(AFTER in name for name in steps) and await _one(execute, _LIVING)
    return [name for name in steps if not (is_used and AFTER in name)]


_IS_THERE = """
SELECT to_regclass('procrastinate_jobs') IS NOT NULL AND to_regclass('invoicing_queue.walks') IS NOT NULL
    AND to_regclass('invoicing_queue.turns') IS NOT NULL AND to_regclass('invoicing_queue.migrations') IS NOT NULL
"""


_LIVING = "SELECT EXISTS (SELECT FROM procrastinate_workers WHERE last_heartbeat > now() - interval '30 s')"


async def _one(execute: Execute, statement: str) -> bool:
    row = await (await execute(statement)).fetchone()
    return bool(row[0])

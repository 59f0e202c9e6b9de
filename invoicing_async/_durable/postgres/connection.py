"""Connections to the database of a run, and what is looked at before one is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import frozen
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from ..address import ServerAddress
from ..records import LedgerSchemaError, LedgerServerError
from .conninfo import connection_parameters
from .errors import database_errors

__all__ = ["SCHEMA_VERSION", "WAIVER", "Connection", "connect", "open_connection"]

Connection: TypeAlias = AsyncConnection[tuple[Any, ...]]

SCHEMA_VERSION = 1
"""The version of the tables that this program writes: the number of the last migration."""

LEAST_SERVER = 140_000

WAIVER = "INVOICING_LEDGER_WAIVE"
"""The variable by which tests do without what keeps records: `fsync` lets a server be used that may forget them."""

_ASKED = """
SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
    current_setting('server_encoding'), current_setting('synchronous_commit'), current_setting('fsync'),
    pg_is_in_recovery(), pg_backend_pid(), to_regclass('invoicing.meta') IS NOT NULL
"""


@frozen
class _Server:
    """What a server says of itself."""

    number: int
    version: str
    encoding: str
    synchronous_commit: str
    fsync: str
    is_standby: bool
    backend: int
    has_schema: bool

    def fault(self, waived: str) -> str | None:
        """Return why no run may be kept here, None if one may."""
        if self.number < LEAST_SERVER:
            return f"it is PostgreSQL {self.version}; runs need version 14 or later"
        if self.encoding != "UTF8":
            return f"its encoding is {self.encoding}; runs need a database whose encoding is UTF8"
        if self.is_standby:
            return "it is a standby, which is behind and takes no records: name the primary"
        if self.synchronous_commit == "off":
            return "its synchronous_commit is off, so that it forgets what it has answered for; it must be on"
        if self.fsync != "on" and waived != "fsync":
            return "its fsync is off, so that it forgets what it has answered for; it must be on"
        return None


async def open_connection(
    address: ServerAddress, *, to_write: bool = False, environ: Mapping[str, str] | None = None
) -> Connection:
    """Connect to the database of a run and see that a run may be kept in it; in autocommit.

    Raises `LedgerAwayError` if it may come back, `LedgerSchemaError` if its tables are not of this program's version,
    `LedgerServerError` for all else.
    """
    environ = os.environ if environ is None else environ
    connection = await connect(address, environ=environ)
    try:
        with database_errors(address.text):
            server = await _ask(connection, address, environ)
            if server.backend != connection.info.backend_pid:
                # A pooler hands out another connection for each transaction, which knows no statement prepared before.
                connection.prepare_threshold = None
            await _check_schema(connection, address, there=server.has_schema, to_write=to_write)
    except BaseException:
        await connection.close()
        raise
    return connection


async def connect(address: ServerAddress, *, environ: Mapping[str, str] | None = None) -> Connection:
    """Connect, whatever is there; in autocommit. Raises as `open_connection` does."""
    parameters = connection_parameters(address, os.environ if environ is None else environ)
    with database_errors(address.text):
        return await AsyncConnection.connect(make_conninfo("", **parameters), autocommit=True)


async def _ask(connection: Connection, address: ServerAddress, environ: Mapping[str, str]) -> _Server:
    row = await (await connection.execute(_ASKED)).fetchone()
    assert row is not None  # noqa: S101 - it always has one; for the type checker
    server = _Server(*row)
    if fault := server.fault(environ.get(WAIVER, "")):
        raise LedgerServerError(f"no run can be kept in the database of {address.text}: {fault}")
    return server


async def _check_schema(connection: Connection, address: ServerAddress, *, there: bool, to_write: bool) -> None:
    version, min_reader, min_writer = 0, 0, 0
    if there:
        row = await (await connection.execute("SELECT version, min_reader, min_writer FROM invoicing.meta")).fetchone()
        version, min_reader, min_writer = row or (0, 0, 0)
    least = min_writer if to_write else min_reader
    if not version:
        said = "has no tables for runs yet"
    elif version < SCHEMA_VERSION:
        said = f"has tables of version {version}, this program needs {SCHEMA_VERSION}"
    elif least > SCHEMA_VERSION:
        said = f"needs a program that knows tables of version {least}, this one knows {SCHEMA_VERSION}"
    else:
        return
    raise LedgerSchemaError(f"the database of {address.text} {said}")

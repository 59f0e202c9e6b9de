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

__all__ = [
    "SCHEMA_VERSION",
    "WAIVER",
    "Connection",
    "SchemaState",
    "ServerSettings",
    "check_schema",
    "check_server",
    "connect",
    "open_connection",
    "schema_state",
]

Connection: TypeAlias = AsyncConnection[tuple[Any, ...]]

SCHEMA_VERSION = 1
"""The version of the tables that this program writes: the number of the last migration."""

LEAST_SERVER = 140_000

WAIVER = "INVOICING_LEDGER_WAIVE"
"""The variable by which tests do without what keeps records: `fsync` lets a server be used that may forget them."""

_ASKED = """
SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
    current_setting('server_encoding'), current_setting('synchronous_commit'), current_setting('fsync'),
    pg_is_in_recovery(), pg_backend_pid()
"""


@frozen
class ServerSettings:
    """What a server says of itself."""

    number: int
    version: str
    encoding: str
    synchronous_commit: str
    fsync: str
    is_standby: bool
    backend: int

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


@frozen(kw_only=True)
class SchemaState:
    """How the tables of runs stand in a database: their version, 0 if there are none, and what this program knows.

    `min_reader` and `min_writer` are the versions that a program must know at least to read, and to write.
    """

    version: int = 0
    min_reader: int = 0
    min_writer: int = 0
    known: int = SCHEMA_VERSION

    def fault(self, *, to_write: bool) -> str | None:
        """Return why this program cannot work with the tables as they are, None if it can."""
        least = self.min_writer if to_write else self.min_reader
        if not self.version:
            return "has no tables for runs yet"
        if self.version < self.known:
            return f"has tables of version {self.version}, this program needs {self.known}"
        if least > self.known:
            return f"needs a program that knows tables of version {least}, this one knows {self.known}"
        return None


async def open_connection(
    address: ServerAddress, *, to_write: bool = False, environ: Mapping[str, str] | None = None
) -> Connection:
    """Connect to the database of a run and see that a run may be kept in it; in autocommit.

    Raises `LedgerAwayError` if it may come back, `LedgerSchemaError` if its tables are not of this program's version,
    `LedgerServerError` for all else.
    """
    connection = await connect(address, environ=environ)
    try:
        with database_errors(address.text):
            state = await schema_state(connection)
            check_schema(state, address, to_write=to_write)
    except BaseException:
        await connection.close()
        raise
    return connection


async def connect(address: ServerAddress, *, environ: Mapping[str, str] | None = None) -> Connection:
    """Connect, whatever tables are there, if a run may be kept on such a server; in autocommit."""
    environ = os.environ if environ is None else environ
    parameters = connection_parameters(address, environ)
    with database_errors(address.text):
        connection: Connection = await AsyncConnection.connect(make_conninfo("", **parameters), autocommit=True)
        try:
            await check_server(connection, address, waived=environ.get(WAIVER, ""))
        except BaseException:
            await connection.close()
            raise
    return connection


async def check_server(connection: Connection, address: ServerAddress, *, waived: str) -> None:
    """Raise `LedgerServerError` if no run may be kept on the server; see whether a pooler is before it."""
    row = await (await connection.execute(_ASKED)).fetchone()
    assert row is not None  # noqa: S101 - it always has one; for the type checker
    server = ServerSettings(*row)
    if fault := server.fault(waived):
        raise LedgerServerError(f"no run can be kept in the database of {address.text}: {fault}")
    if server.backend != connection.info.backend_pid:
        # A pooler hands out another connection for each transaction, which knows no statement prepared before.
        connection.prepare_threshold = None
    else:
        # What is compiled here takes longer than what it is for: statements look through much and return little.
        await connection.execute("SET jit = off")


async def schema_state(connection: Connection) -> SchemaState:
    """Return how the tables of runs stand."""
    there = await (await connection.execute("SELECT to_regclass('invoicing.meta') IS NOT NULL")).fetchone()
    if there is None or not there[0]:
        return SchemaState()
    row = await (await connection.execute("SELECT version, min_reader, min_writer FROM invoicing.meta")).fetchone()
    version, min_reader, min_writer = row or (0, 0, 0)
    return SchemaState(version=version, min_reader=min_reader, min_writer=min_writer)


def check_schema(state: SchemaState, address: ServerAddress, *, to_write: bool) -> None:
    """Raise `LedgerSchemaError` if this program cannot work with the tables."""
    if fault := state.fault(to_write=to_write):
        raise LedgerSchemaError(f"the database of {address.text} {fault}")

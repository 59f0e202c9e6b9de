"""Debian's PgBouncer in front of a test's server, in transaction mode: each transaction may get another connection."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen
from peers import free_port
from postgres_server import SECONDS, USER, Database, PostgresServer, Watched

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")

SETTINGS = """
[databases]
* = host={server.folder} port={server.port} user={user}
[pgbouncer]
auth_type = any
default_pool_size = 8
listen_addr = 127.0.0.1
listen_port = {port}
max_client_conn = 200
pool_mode = transaction
server_round_robin = 1
unix_socket_dir =
"""
"""A connection is not the one that was used last, so that whoever leaves something in it finds out at once."""


@frozen
class PgBouncer:
    """A pooler of a server, at a port of loopback; everything else of it is as it is shipped."""

    server: PostgresServer
    port: int

    def address(self, database: Database, run: str | None = "march") -> str:
        """Return the address of a run behind the pooler."""
        return database.address(run, port=self.port)

    @classmethod
    @contextmanager
    def before(cls, server: PostgresServer) -> Iterator[PgBouncer]:
        """Start one, and end it; a server that stops leaves it where it is."""
        assert PROGRAM is not None
        pooler, watched = cls(server, free_port()), Watched("pgb-")
        try:
            file = watched.folder / "pgbouncer.ini"
            file.write_text(SETTINGS.format(server=server, port=pooler.port, user=USER))
            file.chmod(0o644)
            watched.start([PROGRAM, file], watched.folder / "log")
            pooler._wait(watched.folder / "log")
            yield pooler
        finally:
            watched.close()

    def _wait(self, log: Path) -> None:
        until = time.monotonic() + SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.01)
            else:
                return


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """A pooler in front of the server of this test process; without the program the test is skipped."""
    if PROGRAM is None:
        pytest.skip("no pgbouncer: install Debian's package")
    with PgBouncer.before(postgres_server) as pooler:
        yield pooler

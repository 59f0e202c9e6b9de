"""The proxy that stands for a network that fails: each failure is one that psycopg sees."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from postgres_server import Database
from tcp_proxy import TcpProxy

psycopg = pytest.importorskip("psycopg")

pytestmark = pytest.mark.slow

MAY_I_ENCRYPT = struct.pack("!II", 8, 80_877_103)
"""The SSLRequest with which libpq begins; a server without a certificate answers N."""


@pytest.fixture
def proxy(postgres: Database) -> Iterator[TcpProxy]:
    postgres.psql("CREATE TABLE made (key text)")
    with TcpProxy.before(postgres.server.port) as proxy:
        yield proxy


def connected(postgres: Database, proxy: TcpProxy, **options: Any) -> Any:
    return psycopg.connect(postgres.address(None, port=proxy.port), autocommit=True, connect_timeout=2, **options)


def made(postgres: Database) -> list[str]:
    return [key for (key,) in postgres.psql("SELECT key FROM made")]


def test_everything_is_passed_on(postgres: Database, proxy: TcpProxy) -> None:
    with connected(postgres, proxy) as connection:
        assert connection.execute("SELECT repeat('x', 300000)").fetchone() == ("x" * 300_000,)
        assert proxy.open == 1
    assert "SELECT repeat('x', 300000)" in proxy.statements
    assert proxy.connections == 1


@pytest.mark.parametrize("how", ["reset", "fin"])
def test_a_connection_is_cut_and_the_next_one_works(postgres: Database, proxy: TcpProxy, how: Any) -> None:
    with connected(postgres, proxy) as connection:
        proxy.cut(how)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with connected(postgres, proxy) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_nobody_is_let_in_until_it_is_over(postgres: Database, proxy: TcpProxy) -> None:
    with connected(postgres, proxy) as connection:
        proxy.refuse()
        with pytest.raises(psycopg.OperationalError, match="refused"):
            connected(postgres, proxy)
        assert connection.execute("SELECT 1").fetchone() == (1,)  # who is in stays in
    proxy.accept()
    connected(postgres, proxy).close()


@pytest.mark.parametrize("prepare", [False, True])
def test_a_commit_is_done_and_its_answer_lost(postgres: Database, proxy: TcpProxy, *, prepare: bool) -> None:
    with connected(postgres, proxy) as connection:
        for key in ("A", "B") if prepare else ():
            connection.execute("INSERT INTO made VALUES (%s)", [key], prepare=True)
        before = made(postgres)
        lost = proxy.lose_answer("INSERT INTO made")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("INSERT INTO made VALUES (%s)", ["C"], prepare=prepare)
        lost.wait()
    assert made(postgres) == [*before, "C"]
    with connected(postgres, proxy) as connection:  # only the one answer was lost
        connection.execute("INSERT INTO made VALUES ('D')")
    assert made(postgres) == [*before, "C", "D"]


def test_a_statement_never_reaches_the_server(postgres: Database, proxy: TcpProxy) -> None:
    with connected(postgres, proxy) as connection:
        connection.execute("INSERT INTO made VALUES ('A')")
        lost = proxy.lose_statement("INSERT INTO made")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("INSERT INTO made VALUES ('B')")
        lost.wait()
    assert made(postgres) == ["A"]


def test_the_answer_of_the_commit_of_a_transaction_is_lost(postgres: Database, proxy: TcpProxy) -> None:
    lost = proxy.lose_answer("COMMIT")
    with connected(postgres, proxy) as connection, pytest.raises(psycopg.OperationalError), connection.transaction():
        connection.execute("INSERT INTO made VALUES ('A')")
    lost.wait()
    assert lost.statement == "COMMIT"
    assert made(postgres) == ["A"]


def test_a_half_open_connection_is_silent_and_new_ones_too(postgres: Database, proxy: TcpProxy) -> None:
    with connected(postgres, proxy) as connection:
        proxy.hang()
        with socket.create_connection(("127.0.0.1", proxy.port)) as new:
            new.sendall(MAY_I_ENCRYPT)
            new.settimeout(0.1)
            with pytest.raises(TimeoutError):
                new.recv(1)
            proxy.pass_on()
            new.settimeout(10)
            assert new.recv(1) == b"N"
        assert connection.execute("SELECT 1").fetchone() == (1,)  # it had said nothing meanwhile: nothing was lost
        proxy.hang()
        connection.pgconn.send_query(b"SELECT 1")
        connection.pgconn.flush()
        assert not select.select([connection.fileno()], [], [], 0.1)[0]
        proxy.pass_on()
        connection.pgconn.get_result()
        assert connection.broken


def test_an_answer_that_never_comes_leaves_the_connection_open(postgres: Database, proxy: TcpProxy) -> None:
    with closing(connected(postgres, proxy)) as connection:
        lost = proxy.lose_answer(lambda statement: statement.startswith("INSERT"), then="hang")
        connection.pgconn.send_query(b"INSERT INTO made VALUES ('A')")
        connection.pgconn.flush()
        lost.wait()
        assert made(postgres) == ["A"]
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy()
        assert proxy.open == 1
        proxy.pass_on()
        connection.pgconn.get_result()
        assert connection.broken


def test_each_answer_comes_later(postgres: Database, proxy: TcpProxy) -> None:
    with connected(postgres, proxy) as connection:
        proxy.delay = 0.02
        begun = time.monotonic()
        for _ in range(5):
            connection.execute("SELECT 1")
        assert 0.1 <= time.monotonic() - begun < 2

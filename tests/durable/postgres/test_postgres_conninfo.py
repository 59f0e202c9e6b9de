"""What a connection is made with, and to whom a password goes: every way in which two addresses can be put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import pytest

from invoicing_async._durable.address import ServerAddress
from invoicing_async._durable.postgres.conninfo import LEDGER, OURS, connection_parameters, merged
from invoicing_async._durable.records import LedgerServerError

SECRET = "s3cret-Pa55"

HOSTS = (None, "h1", "h2", "h1,h2")
PORTS = (None, "1", "2", "5432")
ADDRESSES = (None, "10.0.0.1", "10.0.0.2")
USERS = (None, "u", "v")
SERVICES = (None, "s", "t")


def combined() -> Iterator[dict[str, str]]:
    for host, port, hostaddr, user, service in product(HOSTS, PORTS, ADDRESSES, USERS, SERVICES):
        if "," in (host or "") and hostaddr:
            continue  # libpq refuses it
        values = {"host": host, "port": port, "hostaddr": hostaddr, "user": user, "service": service}
        yield {name: value for name, value in values.items() if value}


def places(parameters: Mapping[str, str]) -> set[tuple[str, ...]]:
    """Where libpq goes, as far as the parameters say."""
    hosts = parameters.get("host", "").split(",")
    ports = parameters.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    rest = parameters.get("hostaddr", ""), parameters.get("service", "")
    return {(host, port or "5432", *rest) for host, port in zip(hosts, ports, strict=True)}


def test_a_password_goes_to_no_place_and_for_no_user_that_it_is_not_given_with() -> None:
    """In all 100,000 ways of asking for one place and being given another."""
    taken = 0
    every = [*combined()]
    for asked, given in product(every, every):
        found = merged(asked, {**given, "password": SECRET, "scram_client_key": SECRET, "sslmode": "verify-full"})
        assert asked.items() <= found.items()
        assert found["sslmode"] == "verify-full"
        if "password" in found:
            taken += 1
            assert places(found) <= places(given), (asked, given)
            assert found.get("user") == given.get("user"), (asked, given)
        assert ("scram_client_key" in found) is ("password" in found)
    assert taken > len(every)


def test_what_asks_for_nothing_is_given_everything() -> None:
    for given in combined():
        complete = {**given, "dbname": "db", "password": SECRET}
        assert merged({}, complete) == complete
        assert merged({"dbname": "other"}, complete) == {**complete, "dbname": "other"}
        assert merged({"host": "elsewhere", "dbname": "db"}, complete).get("password") is None


GIVEN = {"host": "h1,h2", "port": "1,2", "user": "u", "password": SECRET, "dbname": "db"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"host": "h1"}, {"host": "h1", "port": "1", "password": SECRET}),
        ({"host": "h2,h1"}, {"host": "h2,h1", "port": "2,1", "password": SECRET}),
        ({"host": "h1", "port": "1"}, {"host": "h1", "port": "1", "password": SECRET}),
        ({"host": "h1", "port": "2"}, {"host": "h1", "port": "2"}),
        ({"host": "h1,h3"}, {"host": "h1,h3"}),
        ({"host": "h1", "user": "v"}, {"host": "h1", "port": "1", "user": "v"}),
        ({"hostaddr": "10.0.0.9"}, {"hostaddr": "10.0.0.9"}),
        ({"host": "h1", "password": "x"}, {"host": "h1", "port": "1", "password": "x"}),
    ],
)
def test_a_port_is_completed_for_a_host_that_both_name(asked: dict[str, str], expected: dict[str, str]) -> None:
    assert merged(asked, GIVEN) == {"user": "u", "dbname": "db", **expected}


def test_what_an_address_leaves_out_is_taken_from_the_variable_and_then_from_us() -> None:
    address = ServerAddress("postgresql://db.internal/?application_name=mine&keepalives_idle=60", "march")
    found = connection_parameters(address, {LEDGER: f"postgresql://u:{SECRET}@db.internal:6432/invoicing"})
    assert found == {
        **OURS,
        "application_name": "mine",
        "keepalives_idle": "60",
        "host": "db.internal",
        "port": "6432",
        "user": "u",
        "password": SECRET,
        "dbname": "invoicing",
    }
    words = connection_parameters(address, {LEDGER: f"host=db.internal port=6432 user=u password={SECRET} dbname=x"})
    assert words == {**found, "dbname": "x"}


@pytest.mark.parametrize(
    "wrong",
    [
        f"postgresql://u:{SECRET}@h:{SECRET}/db",
        f"postgresql://u:pa@{SECRET}@h/db",
        f"postgresql://u:pa@{SECRET}/{SECRET}@h/db",
        f"postgresql://u:{SECRET}/x@h/db",
        f"postgresql://u:123/{SECRET}@h/db",
        f"password={SECRET} {SECRET}",
        f"postgresql://h/db?x={SECRET}",
        f"host=h port={SECRET}",
    ],
)
def test_a_variable_that_is_wrong_is_told_without_what_stands_in_it(wrong: str) -> None:
    """Nor in what the error came of, which a log shows as well."""
    with pytest.raises(LedgerServerError, match="INVOICING_LEDGER is not as libpq takes it") as caught:
        connection_parameters(ServerAddress("postgresql://h/db", "march"), {LEDGER: wrong})
    assert SECRET not in repr((caught.value, caught.value.hint, caught.value.__cause__, caught.value.__context__))


@pytest.mark.parametrize(
    "right",
    [
        "postgresql://u:p%40ss@h:1/db",
        "postgres://u:p%2Fss@h1:1,h2:2/db?sslmode=require&options=-c%20a%3Db",
        "postgresql://u:pa?ss:word@h/db",
        "postgresql:///db?host=/tmp&user=me@there",
        "postgresql://u@%2Ftmp/db",
        "postgresql://[::1]:5432/db",
        "host=h1,h2 port=1,2 user=u@x password='p@/:s s'",
        "service=here",
        "",
    ],
)
def test_a_variable_that_is_right_is_taken(right: str) -> None:
    assert connection_parameters(ServerAddress("postgresql://", "march"), {LEDGER: right})

"""What a connection to the database of a run is made with: the run's address, INVOICING_LEDGER, and our own settings.

The address is seen by everybody on the machine and holds no password; INVOICING_LEDGER may hold one. Its password is
for the places that it names itself, and for its own user: an address that names another host gets none of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from attrs import evolve, frozen
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from ..address import ServerAddress
from ..records import LedgerServerError

__all__ = ["LEDGER", "connection_parameters", "merged"]

LEDGER = "INVOICING_LEDGER"
"""The variable that may hold the address of the server with a password, as libpq takes it."""

PORT = "5432"

_PORTS = re.compile(r"[0-9]{0,5}(?:,[0-9]{0,5})*")
_AT_ODDS = re.compile(r"[^:/]+://(?:[^/@]*@[^/@]*@|[^/]*/[^?]*@)")
"""An @ where none may be: behind the first one, or the first slash."""

PLACE = frozenset({"host", "hostaddr", "port", "service"})
"""What says where the server is; a service may say it, and bring a password of its own."""

SECRETS = frozenset({"password", "scram_client_key", "scram_server_key", "oauth_client_secret"})
"""What is sent, or can be had from what is sent, to prove who connects."""

OURS: Mapping[str, str] = MappingProxyType(
    {
        "fallback_application_name": "invoicing-async",
        "client_encoding": "UTF8",
        "connect_timeout": "10",
        "target_session_attrs": "primary",
        "keepalives": "1",
        "keepalives_idle": "5",
        "keepalives_interval": "5",
        "keepalives_count": "2",
        "tcp_user_timeout": "15000",
    }
)
"""What a connection has where nobody says otherwise: one whose other end is gone is known to be lost after 15 s."""

Parameters = Mapping[str, str]
"""Parameters of a connection by libpq's names."""


@frozen
class _Place:
    """Where one server is: `host` is what was asked for, `hostaddr` where the bytes go if that is not looked up."""

    host: str
    hostaddr: str
    port: str


def connection_parameters(address: ServerAddress, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what to connect with. Raises `LedgerServerError`, which repeats nothing of what may hold a password."""
    asked = _parsed(address.server, "the address of the run")
    given = _parsed(environ.get(LEDGER, ""), LEDGER)
    return {**OURS, **merged(asked, given)}


def _parsed(text: str, what: str) -> dict[str, str]:
    """Read parameters; refuse what libpq would complain of later, when a part of a password is taken for a place."""
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(text).items() if value not in {None, ""}}
    except ProgrammingError:  # its text may repeat a part of a password
        found = None
    if found is None or not _PORTS.fullmatch(found.get("port", "")) or _AT_ODDS.match(text):
        said = (
            f"{what} is not as libpq takes it: postgresql://USER@HOST:PORT/DATABASE?NAME=VALUE; "
            "in a password @, : and / must be percent-encoded"
        )
        raise LedgerServerError(said)
    return found


def merged(asked: Parameters, given: Parameters) -> dict[str, str]:
    """Return the parameters that were asked for, completed by those that are given with a password.

    Where the server is comes from one of the two; only a port, or the address of a host that both name, is completed.
    What proves who connects is taken only for the places, and the user, that it is given with.
    """
    plain = {name: value for name, value in given.items() if name not in PLACE | SECRETS}
    secrets = {name: value for name, value in given.items() if name in SECRETS}
    place = _place(asked, given)
    if place is None or asked.get("user", given.get("user")) != given.get("user"):
        secrets = {}
    return {**plain, **secrets, **(place or {}), **asked}


def _place(asked: Parameters, given: Parameters) -> dict[str, str] | None:
    """Return where the servers are that were asked for, if all of them are given; None if they are others."""
    if not PLACE & asked.keys():
        return {name: value for name, value in given.items() if name in PLACE}
    if "service" in asked:
        return {} if all(asked.get(name) == given.get(name) for name in PLACE) else None
    if "service" in given:
        return None  # where that is, is not known here
    there = _places(given)
    if asked.keys() & PLACE == {"port"}:
        asked = {**{name: given[name] for name in ("host", "hostaddr") if name in given}, **asked}
    found = [_found(place, there) for place in _places(asked)]
    if not all(found):
        return None
    columns = zip(*((place.host, place.hostaddr, place.port) for place in found if place), strict=True)
    named = dict(zip(("host", "hostaddr", "port"), map(",".join, columns), strict=True))
    return {name: value for name, value in named.items() if value.strip(",")}


def _found(asked: _Place, there: list[_Place]) -> _Place | None:
    """Return the given place that an asked one is, as far as it says where it is."""
    for place in there:
        is_host = asked.host == place.host and asked.hostaddr in {"", place.hostaddr}
        if is_host and asked.port in {"", place.port or PORT}:
            return evolve(place, port=asked.port or place.port)
    return None


def _places(parameters: Parameters) -> list[_Place]:
    """Return the places that parameters name; libpq has as many as there are hosts, and one port for all or each."""
    hosts, addresses, ports = (parameters.get(name, "").split(",") for name in ("host", "hostaddr", "port"))
    count = max(len(hosts), len(addresses))
    columns = (each if len(each) == count else (each * count)[:count] for each in (hosts, addresses, ports))
    return [_Place(*each) for each in zip(*columns, strict=True)]

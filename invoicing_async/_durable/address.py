"""Where a run is kept, by the text that names it: a file, or a run on a database server.

Nothing is opened or asked here. An error never repeats what stands in the address of a server: a password may be
anywhere in one that is written wrongly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote, unquote

from attrs import frozen

__all__ = ["FileAddress", "RunAddress", "ServerAddress", "run_address", "server_address"]

EXAMPLE = "postgresql://HOST/DATABASE?run=NAME"
SERVER_EXAMPLE = "postgresql://HOST/DATABASE"
RUN = "run"
"""The parameter that is ours; every other is the database driver's."""

LONGEST = 255
"""Characters of a run's name."""

PORTS = range(1, 65_536)

_SCHEME = re.compile(r"\s*(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<slashes>[/\\]{1,2})")
"""How an address that is no path begins; one letter and a colon are a drive of Windows."""

_POSTGRES = frozenset({"postgresql", "postgres"})
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})|%00")
_OUTSIDE = re.compile(r"[^\x21-\x7e]")
"""What must be percent-encoded wherever it stands."""

_HOST = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|[^\[\]:@]*)(?::(?P<port>[0-9]{0,5}))?")
_PARAMETER = re.compile("[a-z_]+")
_SECRET = re.compile("password|secret|^scram_", re.IGNORECASE)
"""Parameters whose value is a secret, as `sslpassword`; that of `passfile` is a path."""

NO_PASSWORD = (
    "the address of a run must hold no password: everybody on this machine sees the arguments of a process; "  # noqa: S105 - a sentence
    "it belongs into PGPASSWORD, a pass file, PGSERVICE or INVOICING_LEDGER"
)


@frozen
class FileAddress:
    """A run in a file."""

    path: Path


@frozen
class ServerAddress:
    """A run on a PostgreSQL server: the server as libpq takes it, without a password, and the name of the run there."""

    server: str
    run: str

    @property
    def text(self) -> str:
        """The address as `run_address` takes it; without a run that of the server, as `server_address` takes it."""
        if not self.run:
            return self.server
        return f"{self.server}{'&' if '?' in self.server else '?'}{RUN}={quote(self.run, safe='')}"


RunAddress: TypeAlias = FileAddress | ServerAddress


def run_address(where: str | os.PathLike[str]) -> RunAddress:
    """Return where a run is kept: `postgresql://…?run=NAME` is on a server, all else is the path of a file.

    A path is taken as it is: nothing in it is decoded or expanded. Raises `ValueError` for an empty text, an address
    of another kind, one that is not as libpq has it, one without a run, and one that holds a password.
    """
    text = os.fspath(where)
    if not text.strip():
        raise ValueError("a run must be named: the path of its file, got an empty text")
    begun = _SCHEME.match(text)
    if begun is None:
        return FileAddress(Path(text))
    scheme, slashes = begun["scheme"].lower(), begun["slashes"]
    if scheme in _POSTGRES:
        if slashes != "//":
            raise ValueError(f"the address of a run on a server must be text and begin as in {EXAMPLE}")
        return _server(text[begun.end() :].rstrip())
    if slashes == "//":
        raise ValueError(f"a run is kept in a file or at {EXAMPLE}, not at {scheme}://")
    return FileAddress(Path(text))


def server_address(where: str) -> ServerAddress:
    """Return where a server is by an address with or without a run; `run` is empty without.

    Raises `ValueError` as `run_address` does, and for the path of a file.
    """
    begun = _SCHEME.match(where)
    if begun is None or begun["scheme"].lower() not in _POSTGRES or begun["slashes"] != "//":
        raise ValueError(f"the address of a ledger must be as in {SERVER_EXAMPLE}")
    server, names = _parts(where[begun.end() :].rstrip())
    return ServerAddress(server, _named(names) if names else "")


def _server(rest: str) -> ServerAddress:
    server, names = _parts(rest)
    return ServerAddress(server, _named(names))


def _named(names: list[str]) -> str:
    if len(names) != 1 or not _is_name(names[0]):
        raise ValueError(
            f"the address of a run must name one run, as in {EXAMPLE}: "
            f"1 to {LONGEST} characters that can be seen, no space at either end"
        )
    return names[0]


def _parts(rest: str) -> tuple[str, list[str]]:
    """Return the server and the runs that are named in what follows the scheme.

    What may be a password is looked for first, so that this is what is told.
    """
    place, _, query = rest.partition("?")
    authority, _, database = place.partition("/")
    user, at, hosts = authority.rpartition("@")
    if user.partition(":")[2]:
        raise ValueError(NO_PASSWORD)
    if not all(map(_is_host, hosts.split(","))):
        if not at and "@" in rest:  # a password with a / or a ? in it
            raise ValueError(NO_PASSWORD)
        raise ValueError(
            "the host in the address of a run is none: it must be HOST or HOST:PORT with a port from 1 to 65535, "
            "an IPv6 address in brackets, several with a comma between"
        )
    if "@" in user or "@" in database or _OUTSIDE.search(rest) or _BAD_ESCAPE.search(rest):
        raise ValueError(
            "a character in the address of a run must be percent-encoded, as %40 for @; "
            "a password must not stand in it at all"
        )
    parameters = [*_parameters(query)]
    names = [decoded for _, name, value in parameters if name == RUN for decoded in [_decoded(value)]]
    others = "&".join(text for text, name, _ in parameters if name != RUN)
    return f"postgresql://{place}{others and '?'}{others}", names


def _parameters(query: str) -> Iterator[tuple[str, str, str]]:
    """Yield each parameter as it stands, its name decoded, and its value as it stands."""
    for text in query.split("&") if query else ():
        name, is_one, value = text.partition("=")
        name = _decoded(name)
        if _SECRET.search(name):
            raise ValueError(NO_PASSWORD)
        if not is_one or "=" in value or not _PARAMETER.fullmatch(name):
            raise ValueError(f"what follows ? in the address of a run must be NAME=VALUE, with & between: {EXAMPLE}")
        yield text, name, value


def _decoded(text: str) -> str:
    """Decode what is percent-encoded; a + is a plus, as libpq has it."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("what is percent-encoded in the address of a run must be UTF-8") from None


def _is_host(text: str) -> bool:
    """Tell whether it is a host with or without a port; none at all is libpq's own choice."""
    found = _HOST.fullmatch(text)
    if found is None:
        return False
    if (six := found["six"]) is not None:
        try:
            IPv6Address(unquote(six))
        except ValueError:
            return False
    return not found["port"] or int(found["port"]) in PORTS


def _is_name(text: str) -> bool:
    return text == text.strip() and text.isprintable() and 1 <= len(text) <= LONGEST

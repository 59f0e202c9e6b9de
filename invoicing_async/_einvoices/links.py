"""URLs: the base URL that a user gives, and download links (README B.3), where they and their redirects lead. Pure.

A link is somebody else's text and often holds a signature: it is quoted once and otherwise left as it stands, no
credential goes along, and no error shows more of it than its host. A base URL is signed and sent as it stands, so what
would have to be changed for that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from attrs import field, frozen

__all__ = ["MOST_HOPS", "MOVED", "RENEWED", "Link", "LinkError", "checked_base_url", "moved", "read_link"]

MOVED = frozenset({301, 302, 303, 307, 308})
"""The statuses that say where else the document is: a GET without credentials may go there."""

RENEWED = frozenset({401, 403, 404, 410})
"""The statuses by which a host says that a link is not good yet or no longer: another is asked for."""

MOST_HOPS = 5
"""Redirects that are followed for one document."""

MOST_LENGTH = 16_384
"""Characters of a link: signed ones have some two thousand."""

MOST_SHOWN = 100
"""Characters of a wrong base URL that its error shows."""

_SAFE = "%:@!$&'()*+,;=~-._/"
_SAFE_QUERY = _SAFE + "?[]"
_BARE_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BLANK = re.compile(r"[\x00-\x20\x7f]|\s")
_UNQUOTED = re.compile(r"%(?![0-9A-Fa-f]{2})|[^%A-Za-z0-9._~!$&'()*+,;=:@/-]")
_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0[Xx][0-9A-Fa-f]*)\.?$")
"""What ends a host that must be an IPv4 address, since no name ends so (RFC 3696, section 2)."""
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")


def checked_base_url(text: str) -> str:
    """Return a base URL without the slash at its end, its host in ASCII. Raises `ValueError`, without a password in it.

    Right is what can be signed and sent as it stands: http or https, a host, a port from 1 to 65535 or none, and a path
    that is quoted already.
    """
    if not isinstance(text, str):
        raise ValueError(f"base_url must be text, got {type(text).__name__}")
    blank = next((char for char in text if _BLANK.match(char) or not char.isprintable()), None)
    if blank is not None:
        where = text.index(blank) + 1
        raise ValueError(f"base_url must hold no blank or control character, got {blank!r} as character {where}")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("base_url must be an absolute http or https URL: its host cannot be read") from None
    if "@" in parts.netloc:
        raise ValueError("base_url must hold no user name or password: pass an Auth")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("base_url must be an absolute http or https URL, such as https://host/api/v1")
    if "?" in text or "#" in text:
        raise ValueError(f"base_url must have no query or fragment, got {text[:MOST_SHOWN]!r}")
    wrong = _UNQUOTED.search(parts.path)
    if wrong is not None:
        raise ValueError(f"base_url must have a path that is percent-encoded already, got {wrong[0]!r} in it")
    if {".", ".."} & set(parts.path.split("/")):
        raise ValueError("base_url must have no '.' or '..' in its path: what is signed would not be what is asked for")
    return _with_plain_host(parts, text).rstrip("/")


def _with_plain_host(parts: SplitResult, text: str) -> str:
    """Check host and port, and return the URL with its host in ASCII."""
    host = parts.hostname or ""
    _, bracket, behind = parts.netloc.rpartition("]")
    before, _, port = behind.partition(":")
    if bracket and (before or ":" not in host):
        raise ValueError(f"base_url must name a host that can be one, got {parts.netloc[:MOST_SHOWN]!r}")
    if port and not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 2**16):  # noqa: PLR2004
        raise ValueError(f"base_url must have a port from 1 to 65535, got {port[:MOST_SHOWN]!r}")
    try:
        plain = _host(host)
    except ValueError:
        raise ValueError(f"base_url must name a host that can be one, got {host[:MOST_SHOWN]!r}") from None
    if host.isascii():
        return text
    if plain.encode().decode("idna") != host:  # two letters that are one in ASCII
        raise ValueError(f"base_url must name its host in ASCII where that is in doubt: {plain} is not the same name")
    return parts._replace(netloc=plain + parts.netloc[len(host) :]).geturl()


class LinkError(ValueError):
    """A link that cannot be asked for. The text says why, and nothing of it but its host."""


@frozen
class Link:
    """A link as it is asked for: `base_url` is scheme and host, `path` and `query` are quoted."""

    base_url: str
    path: str = field(repr=False)
    query: str = field(repr=False)

    @property
    def url(self) -> str:
        """The whole of it, which may hold a signature."""
        return self.base_url + self.path + (f"?{self.query}" if self.query else "")

    @property
    def host(self) -> str:
        """The host, with its port if the link names one: what an error may show."""
        return self.base_url.partition("://")[2]

    @property
    def secure(self) -> bool:
        """True if it is asked for over TLS."""
        return self.base_url.startswith("https:")


def read_link(text: str, *, base: str) -> Link:
    """Read a link as a service or a Location gives it: blanks and letters beyond ASCII are quoted once, `%41` stays.

    A relative one is resolved against `base`, the URL whose answer it stood in. Raises `LinkError` for what is no
    http(s) URL with a host, or holds a user name or a control character.
    """
    text = text.strip()
    if not text or len(text) > MOST_LENGTH:
        raise LinkError("is empty" if not text else f"is longer than {MOST_LENGTH:,} characters")
    if _CONTROL.search(text):
        raise LinkError("holds a control character")
    try:
        parts = urlsplit(text)
        if not parts.scheme:
            parts = urlsplit(urljoin(base, text))
        return Link(_origin(parts), _quoted(parts.path or "/", _SAFE), _quoted(parts.query, _SAFE_QUERY))
    except LinkError:
        raise
    except ValueError:
        # What it says would show the link.
        raise LinkError("is no URL that can be read") from None


def moved(link: Link, location: str | None, seen: Collection[str]) -> Link:
    """Return where a redirect of `link` leads; `seen` holds the URLs asked for so far, this one among them.

    Raises `LinkError` for a redirect without a place, to one that was asked before, from https to http, or beyond
    `MOST_HOPS`.
    """
    if location is None:
        raise LinkError("redirects without saying where")
    try:
        there = read_link(location, base=link.url)
    except LinkError as error:
        raise LinkError(f"redirects to a link that {error}") from None
    if link.secure and not there.secure:
        raise LinkError(f"redirects from https to http, at {there.host}")
    if there.url in seen:
        raise LinkError("redirects in a circle")
    if len(seen) > MOST_HOPS:
        raise LinkError(f"redirects more than {MOST_HOPS} times")
    return there


def _origin(parts: SplitResult) -> str:
    """Return scheme and host. A port of 0, a user name and a host that no name can have are refused."""
    if parts.scheme not in {"http", "https"}:
        raise LinkError("is no http or https URL")
    if not parts.hostname:
        raise LinkError("names no host")
    if "@" in parts.netloc:
        raise LinkError("holds a user name, and no credential goes along")
    port = parts.port
    if port == 0:
        raise LinkError("names port 0")
    return f"{parts.scheme}://{_host(parts.hostname)}" + ("" if port is None else f":{port}")


def _host(name: str) -> str:
    if ":" in name:
        if "%25" in name:  # a zone, quoted as RFC 6874 has it: no resolver takes it so
            raise LinkError("names a zone that is percent-encoded")
        return f"[{IPv6Address(name)}]"
    # Names beyond ASCII go to the resolver in their ASCII form (RFC 3490).
    plain = name if name.isascii() else name.encode("idna").decode("ascii")
    if not _NAME.fullmatch(plain):
        raise LinkError("names a host that cannot be one")
    if _NUMBER.search(plain):
        IPv4Address(plain)  # "127.1" or "0177.0.0.1" is one address to some and another, or none, to others
    return plain.lower()


def _quoted(text: str, safe: str) -> str:
    # A header's bytes that are no UTF-8 come as surrogates, and go as the bytes they were.
    return quote(_BARE_PERCENT.sub(b"%25", text.encode("utf-8", "surrogateescape")), safe=safe)

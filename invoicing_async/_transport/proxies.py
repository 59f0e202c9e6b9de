"""Proxies: what one is, and which of the environment's a host is reached through.

The environment's names are those that curl and Python's own client go by, in either case: `HTTP_PROXY` and
`HTTPS_PROXY` by the scheme that is called, `ALL_PROXY` for what they leave open, and `NO_PROXY` for hosts that are
called without: names with all below them, addresses, networks (`10.0.0.0/8`), each with or without a port, or `*`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

from attrs import field, frozen

from .._values.characters import unseen

__all__ = ["Environment", "Proxy", "has_credential", "proxy_fault", "proxy_for"]

_SCHEMES = {"http", "https"}

_LABEL = r"(?:[A-Za-z0-9_-]|[^\x00-\x7f])+"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_NUMBER = re.compile(r"(?:^|\.)[0-9]+\.?$")


@frozen
class Proxy:
    """An HTTP proxy: its URL without user and password, and what says who asks, which is in no repr."""

    url: str
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, text: str) -> Proxy:
        """Read a proxy that has no fault."""
        parts = _split(text)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        url = f"{parts.scheme}://{host}" + ("" if parts.port is None else f":{parts.port}")
        if parts.username is None and parts.password is None:
            return cls(url)
        who = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        return cls(url, "Basic " + b64encode(who.encode()).decode())


def _split(text: str) -> SplitResult:
    # `proxy.example:3128` is how many write it.
    return urlsplit(text if "://" in text else f"http://{text}")


def proxy_fault(text: object) -> str | None:
    """Say what is wrong with a proxy, without showing it: it may hold a password; None if nothing is."""
    if not isinstance(text, str):
        return "must be text, as http://host:port"
    try:
        parts = _split(text)
        port = parts.port
    except ValueError:
        return "is not a URL, or its port is none"
    if port == 0:
        return "must have a port from 1 to 65535"
    if parts.scheme not in _SCHEMES:
        return "must be an HTTP proxy, as http://host:port"
    if not parts.hostname or unseen(text) or " " in text:
        return "must name a host, as http://host:port, without blanks"
    # An address, or a name; what ends in a number can be no name.
    is_name = _NAME.fullmatch(parts.hostname) and not _NUMBER.search(parts.hostname)
    if not is_name and _address(parts.hostname) is None:
        return "must name a host that can be one"
    return None


def has_credential(text: str) -> bool:
    """Tell whether a proxy's URL names a user or holds a password; a token may stand in the place of either."""
    return "@" in text


@frozen
class Environment:
    """The proxies that the environment names, by scheme, and the hosts that it excepts."""

    proxies: Mapping[str, Proxy]
    excepted: tuple[str, ...] = ()
    system: bool = False
    """They come from the settings of the system (macOS, Windows), which has exceptions of its own."""

    @classmethod
    def read(cls) -> Environment:
        """Read the environment as it is now. Raises `ValueError` naming the variable of a proxy that is none."""
        found = getproxies()
        excepted = tuple(name for name in found.pop("no", "").replace(",", " ").split() if name)
        named = {scheme: found[scheme] for scheme in (*sorted(_SCHEMES), "all") if found.get(scheme)}
        faults = [(scheme, proxy_fault(text)) for scheme, text in named.items()]
        wrong = next(((scheme, fault) for scheme, fault in faults if fault), None)
        if wrong is not None:
            found = named = {}  # no traceback's locals hold a password
            raise ValueError(f"{wrong[0].upper()}_PROXY {wrong[1]}")
        return cls({scheme: Proxy.of(text) for scheme, text in named.items()}, excepted, not getproxies_environment())

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy that a URL is called through; None for none."""
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)
        proxy = self.proxies.get(parts.scheme) or self.proxies.get("all")
        if proxy is None or is_excepted(host, port, self.excepted) or (self.system and proxy_bypass(host)):
            return None
        return proxy


def proxy_for(url: str, proxy: str | None = None) -> str | None:
    """Return the URL of the proxy that a URL is called through, without its credential; None for none.

    It is `proxy`, or else what the environment says. Raises `ValueError` naming the variable of a proxy that is none.
    """
    found = Environment.read().proxy_for(url) if proxy is None else Proxy.of(proxy)
    return None if found is None else found.url


def is_excepted(host: str, port: int, names: Iterable[str]) -> bool:
    """Tell whether one of `NO_PROXY`'s names is this host's, the port's, or that of a domain or network above it."""
    address = _address(host)
    for name in names:
        wanted, wanted_port = _named(name.lower())
        if wanted_port not in {"", str(port)}:
            continue
        if wanted == "*" or (address is not None and _holds(wanted, address)):
            return True
        domain = wanted.removeprefix("*").removeprefix(".").removesuffix(".")
        if address is None and domain and f".{host.removesuffix('.')}".endswith(f".{domain}"):
            return True
    return False


def _named(name: str) -> tuple[str, str]:
    """Split a name from its port, if it has one."""
    if name.startswith("["):
        host, _, port = name[1:].partition("]")
        return host, port.removeprefix(":")
    if name.count(":") == 1:
        host, _, port = name.partition(":")
        return host, port
    return name, ""


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _holds(network: str, address: IPv4Address | IPv6Address) -> bool:
    try:
        return address in ip_network(network, strict=False)
    except ValueError:
        return False

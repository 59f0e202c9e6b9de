"""The transport, for those who configure or replace it.

`AiohttpTransport` is what a `Session` sends through. Give it one of your own for a proxy, TLS settings, headers, trace
configs, a connector or an aiohttp session:

    async with Session(url, auth=auth, transport=lambda: AiohttpTransport(proxy="http://proxy:3128")) as session: ...

A function that makes a transport is called when the session is entered, and the session closes what it made. A
transport itself stays open for other sessions, and you close it. Either has the session's time-outs unless it was
given its own.

Anything with the two methods of `Transport` takes its place: `send` carries one `Request` to one `Response`, and calls
`Exchange.leave` right before the first byte leaves. That is what tells a submission that was not sent from one that
may have been, so a transport that never calls it makes every failure of a submission a doubt. One that writes a
request in pieces calls `Exchange.complete` right before the last of them, and cuts the request off if that raises.
`Repeat` says whether a request may be sent twice, `path` quotes the segments of one, and `serve` puts any transport, a
`Sandbox` for one, on a real port.

`proxy_for` says which proxy a URL is called through and `proxy_fault` what is wrong with one, without opening anything.
aiohttp is imported when `AiohttpTransport` or `serve` is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._core.http import Exchange, Repeat, Request, Response, Transport, path
from ._transport.proxies import has_credential, proxy_fault, proxy_for

if TYPE_CHECKING:
    from ._transport.client import AiohttpTransport
    from ._transport.server import serve

__all__ = [
    "AiohttpTransport",
    "Exchange",
    "Repeat",
    "Request",
    "Response",
    "Transport",
    "has_credential",
    "path",
    "proxy_fault",
    "proxy_for",
    "serve",
]

_LATE = {"AiohttpTransport": "client", "serve": "server"}


if not TYPE_CHECKING:  # a type checker is to know the names above and no others

    def __getattr__(name: str) -> object:
        """Import what needs aiohttp when it is first asked for."""
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"._transport.{_LATE[name]}", __package__), name)
        globals()[name] = found
        return found

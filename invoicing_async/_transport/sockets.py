"""Sockets of connections that carry submissions.

What was given up must not arrive, and bytes that come while a connection is idle are no answer.

A kernel goes on retransmitting what a closed socket still holds, for minutes and after the process was killed. A
submission that was given up, looked up, not found and sent again would then be there twice. So each socket is told
when it is made, since kill -9 runs no code of ours, to throw away what is unsent when it closes, and to give up what
nobody acknowledges. A proxy or a gateway that stores a request and forwards it later cannot be called back by either.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from asyncio import BaseTransport
from contextlib import suppress

__all__ = ["AddressInfo", "forget", "is_quiet", "make"]

AT_ONCE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""SO_LINGER on, with no time to linger: closing sends RST and forgets what was not acknowledged."""

USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
"""The option's number, None on a system that has none (it is Linux's)."""

_LONGEST = 2**31 - 1

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]
"""One answer of `socket.getaddrinfo`."""


def make(address: AddressInfo, *, seconds: float) -> socket.socket:
    """Make a socket that keeps nothing after its end, nor longer than `seconds` what nobody acknowledges."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    try:
        _set_options(made, seconds)
    except BaseException:
        made.close()
        raise
    return made


def _set_options(made: socket.socket, seconds: float) -> None:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    if USER_TIMEOUT is not None:
        with suppress(OSError):  # a kernel that only says it has it; closing forgets all the same
            made.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, min(max(1, round(seconds * 1000)), _LONGEST))


def forget(transport: BaseTransport | None, *, seconds: float) -> None:
    """Set on a connection that somebody else made the options that `make` sets."""
    found = None if transport is None else transport.get_extra_info("socket")
    if found is not None:
        with suppress(OSError):  # a socket that is none of TCP has nothing to forget
            _set_options(found, seconds)


def is_quiet(transport: BaseTransport | None) -> bool:
    """Tell whether an idle connection has nothing to read: neither its peer's end nor unrequested bytes.

    The loop sees both only when it comes to look; a busy one has not yet. One system call.
    """
    found = None if transport is None else transport.get_extra_info("socket")
    if found is None:
        return False
    if not hasattr(select, "poll"):
        return not select.select([found], [], [found], 0)[0]
    look = select.poll()
    look.register(found, select.POLLIN | select.POLLPRI)
    return not look.poll(0)

"""Heads of answers that are a little off the grammar, written anew in it: what curl and browsers read can be read.

The parser is asked first; only what it refuses comes here. The framing is never guessed: an answer that gives two
different lengths is refused, chunks win over a length (RFC 9112, section 6.3), and the connection of a head that
was repaired ends with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["UNFINISHED", "Repaired", "repaired"]

INFORMATIONAL = b"1"
SWITCHING = b"101"

_PROTOCOL = b"HTTP/"
_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"[\0\s]*HTTP/([0-9])\.([0-9])[ \t]+([0-9]{3})(?:[ \t]+(.*))?", re.DOTALL)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(rb"[0-9]+")

Repaired = tuple[bytes, bytes] | None
"""The heads, repaired, and what follows them; None if they cannot be, `UNFINISHED` if their end has not come yet."""

UNFINISHED = b"", b""


def repaired(raw: bytes) -> Repaired:
    """Write the heads at the start of an answer anew, interim ones too; the body behind them stays as it is."""
    done, at = b"", 0
    while True:
        start = len(raw) - len(raw[at:].lstrip(b"\r\n"))
        end = _END.search(raw, start)
        if end is None:
            begun = raw[start:].lstrip(b"\0 \t\r\n")[: len(_PROTOCOL)]
            return UNFINISHED if _PROTOCOL.startswith(begun) else None
        head = _head(raw[start : end.start()])
        if head is None:
            return None
        done, at = done + head[1], end.end()
        if not head[0].startswith(INFORMATIONAL) or head[0] == SWITCHING:
            return done, raw[at:]


def _head(raw: bytes) -> tuple[bytes, bytes] | None:
    """Return the status and the head, or None for what is no head."""
    first, *lines = [line.rstrip(b"\r") for line in raw.split(b"\n")]
    status = _STATUS.fullmatch(first)
    fields = None if status is None else _framed(_fields(lines))
    if status is None or fields is None:
        return None
    reason = _CONTROLS.sub(b" ", status[4] or b"").strip()
    line = b"HTTP/%s.%s %s %s" % (status[1], status[2], status[3], reason)
    return status[3], b"\r\n".join([line, *[b"%s: %s" % field for field in fields], b"", b""])


def _fields(lines: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Read the fields; what has no colon, or a name that is none, says nothing that could be relied on."""
    joined: list[bytes] = []
    for line in lines:
        if line[:1] in {b" ", b"\t"} and joined:
            joined[-1] += b" " + line.strip()
        else:
            joined.append(line.strip())
    parted = [(name.strip(), value) for name, _, value in (line.partition(b":") for line in joined)]
    return [(name, _CONTROLS.sub(b" ", value).strip()) for name, value in parted if _NAME.fullmatch(name)]


def _framed(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]] | None:
    """Leave one statement of where the body ends, and end the connection there. None if they contradict each other."""
    said = {b"content-length", b"transfer-encoding", b"connection", b"keep-alive"}
    others = [field for field in fields if field[0].lower() not in said]
    close = (b"Connection", b"close")
    encodings = [name for name in _values(fields, b"transfer-encoding") if name.lower() != b"identity"]
    if encodings:
        return [*others, (b"Transfer-Encoding", b", ".join(encodings)), close]
    lengths = set(_values(fields, b"content-length"))
    if not lengths:
        return [*others, close]
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        return None
    return [*others, (b"Content-Length", lengths.pop()), close]


def _values(fields: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    listed = [part.strip() for key, value in fields if key.lower() == name for part in value.split(b",")]
    return [part for part in listed if part]

"""Whether a PDF body is whole: its head, its tail and its length, checked while it arrives.

Nothing is parsed. A body is whole when it starts with `%PDF-`, ends with `startxref`, an offset and `%%EOF`, and
is as long as Content-Length and its own linearisation say. A PDF that was updated by appending is, cut exactly at
the end of an earlier revision, a whole PDF again: only Content-Length or the transport's framing can tell that.
"""

from __future__ import annotations

import re

__all__ = ["Checker", "fault_of", "head_fault"]

HEAD_WINDOW = 1024
"""Bytes within which `%PDF-` must begin (ISO 32000-1 Annex H, note 13)."""

EOF_WINDOW = 1024
"""Bytes at the end within which `%%EOF` must stand (ISO 32000-1 Annex H, note 18)."""

TAIL_WINDOW = 2048
"""Bytes at the end within which `startxref` must stand; all that is kept of a long body's end."""

HEAD_KEPT = 200
"""Bytes of the start that a reader of an error is shown, as in `errors.HEAD_LIMIT`."""

SHOWN = 24
"""Bytes of a wrong start that stand in the fault's own line."""

_MAGIC = b"%PDF-"
_EOF = b"%%EOF"
_STARTXREF = b"startxref"
_BOM = b"\xef\xbb\xbf"
_WHITESPACE = b"\t\n\f\r "
_FILLING = b"\0" + _WHITESPACE

_OFFSET = re.compile(rb"startxref[\0\t\n\f\r ]+([0-9]{1,20})(?![0-9])")
_LINEARISED = re.compile(rb"<<[^<>]*/Linearized[^<>]*>>")
_LENGTH = re.compile(rb"/L[\0\t\n\f\r ]+([0-9]{1,20})")


class Checker:
    """Checks one body in pieces of any size, in constant memory: 3 KiB, however long the body is."""

    __slots__ = ("_size", "_start", "_tail")

    def __init__(self) -> None:
        self._start = b""
        self._tail = b""
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes fed so far."""
        return self._size

    @property
    def head(self) -> bytes:
        """The first 200 bytes, for an error's reader."""
        return self._start[:HEAD_KEPT]

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the body."""
        if self._size < HEAD_WINDOW:
            self._start += chunk[: HEAD_WINDOW - self._size]
        self._size += len(chunk)
        self._tail = chunk[-TAIL_WINDOW:] if len(chunk) >= TAIL_WINDOW else (self._tail + chunk)[-TAIL_WINDOW:]

    def fault(self, *, content_length: int | None = None) -> str | None:
        """Say in one line what is wrong with the body, now that all of it was fed; None when it is whole."""
        return _fault(self._start, self._tail, size=self._size, content_length=content_length)


def fault_of(body: bytes, *, content_length: int | None = None) -> str | None:
    """Say in one line what is wrong with a body that is here in one piece; None when it is whole.

    The same verdict as a `Checker`'s; the body is not copied and only its two ends are looked at.
    """
    return _fault(body, body, size=len(body), content_length=content_length)


def head_fault(head: bytes) -> str | None:
    """Say whether a body that starts like this cannot be a PDF; None if it can, or if `head` is too short to tell.

    Before `%PDF-` only a UTF-8 byte order mark and white space are let through, within the first 1024 bytes.
    """
    return None if _is_head(head) or _is_open(head) else _wrong_head(head)


def _is_head(start: bytes) -> bool:
    return start.startswith(_MAGIC) or _bare(start).startswith(_MAGIC)


def _is_open(head: bytes) -> bool:
    """Tell whether the bytes to come can still make this a PDF's head."""
    return len(head) < HEAD_WINDOW and (_MAGIC.startswith(_bare(head)) or _BOM.startswith(head))


def _bare(start: bytes) -> bytes:
    return start[:HEAD_WINDOW].removeprefix(_BOM).lstrip(_WHITESPACE)


def _wrong_head(start: bytes) -> str:
    more = "…" if len(start) > SHOWN else ""
    return f"starts with {start[:SHOWN]!r}{more} instead of %PDF-"


def _fault(start: bytes, end: bytes, *, size: int, content_length: int | None) -> str | None:
    """Judge by the first bytes and the last; either may be the whole body."""
    if not size:
        return "empty: not one byte came"
    if not _is_head(start):
        return _wrong_head(start)
    if content_length is not None and content_length != size:
        return f"{size:,} bytes came where Content-Length says {content_length:,}"
    return _linearisation_fault(start, size) or _tail_fault(end, size)


def _linearisation_fault(start: bytes, size: int) -> str | None:
    """Compare with the length a linearised file states (ISO 32000-1 Annex F); longer means updated since.

    Such a file has a first `%%EOF` near its start, so that its tail alone could look whole when it is not.
    """
    if start.find(b"/Linearized", 0, HEAD_WINDOW) < 0:
        return None
    dictionary = _LINEARISED.search(start, 0, HEAD_WINDOW)
    length = dictionary and _LENGTH.search(dictionary.group())
    if length and size < int(length[1]):
        return f"cut off after {size:,} bytes of the {int(length[1]):,} that its own head states"
    return None


def _tail_fault(end: bytes, size: int) -> str | None:
    last_eof = end.rfind(_EOF, max(0, len(end) - EOF_WINDOW))
    if last_eof < 0:
        return f"ends without %%EOF: cut off after {size:,} bytes"
    startxref = end.rfind(_STARTXREF, max(0, len(end) - TAIL_WINDOW), last_eof)
    offset = _OFFSET.match(end, startxref, last_eof) if startxref >= 0 else None
    if offset is None:
        return "no startxref with an offset before %%EOF"
    if int(offset[1]) >= size:
        return f"startxref points to byte {int(offset[1]):,} of {size:,}: bytes are missing"
    return _update_fault(end[end.find(_EOF, startxref) + len(_EOF) :], size)


def _update_fault(rest: bytes, size: int) -> str | None:
    """Tell junk after `%%EOF`, which readers ignore, from the start of a further revision, which is missing its end."""
    rest = rest.lstrip(_FILLING)
    if rest[:1].isdigit() or (rest and rest.startswith(b"xref"[: len(rest)])):
        return f"an update begun after %%EOF has no end: cut off after {size:,} bytes"
    return None

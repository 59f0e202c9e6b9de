"""Whether a PDF body is whole: its head, its tail and its length, checked while it arrives.

Nothing is parsed. A body is whole when it starts with `%PDF-` and ends with `startxref` and the offset of a
cross-reference table inside it. How much more is asked depends on what else is known of its end:

- Proved complete, by a Content-Length that agrees or by the transfer's own framing: whatever follows
  `startxref` and its offset is the producer's or the server's, and is kept as it came.
- Proved by nothing (a body that ends when the connection closes): `%%EOF` must follow, and behind it only filler
  (NUL and white space, as block padding) or what no further revision can begin with. A PDF that was updated by
  appending is, cut exactly at the end of an earlier revision, a whole PDF again: nothing but framing can tell that.
"""

from __future__ import annotations

import re

__all__ = ["PdfValidator", "fault_of", "head_fault"]

HEAD_WINDOW = 1024
"""Bytes within which `%PDF-` must begin (ISO 32000-1 Annex H, note 13)."""

TAIL_WINDOW = 8192
"""Bytes before the filler at the end within which `startxref` must stand; all that is kept of a long body's end."""

HEAD_KEPT = 200
"""Bytes of the start that a reader of an error is shown, as in `errors.HEAD_LIMIT`."""

SHOWN = 24
"""Bytes of a wrong start that stand in the fault's own line."""

STRIPPED = 2
"""Bytes at the end of a linearised file that a sender may have stripped as white space."""

_MAGIC = b"%PDF-"
_BOM = b"\xef\xbb\xbf"
_STARTXREF = b"startxref"
_FILLER = b"\0\t\n\f\r "
_UPDATE = re.compile(
    rb"[1-9][0-9]{0,9}(?:[ \t][0-9]{0,5}(?:[ \t](?:o(?:b(?:j.*)?)?)?)?)?|x(?:r(?:e(?:f.*)?)?)?|%.*", re.DOTALL
)
"""What a further revision may be cut off as: an object, `xref`, or a comment, or the beginning of one."""

_BEFORE = re.compile(rb"\A(?:[\0\t\n\f\r ]|\xef\xbb\xbf)*")
_BETWEEN = rb"(?:[\0\t\n\f\r ]|%[^\r\n]*+[\r\n])+"
_OFFSET = re.compile(rb"startxref" + _BETWEEN + rb"([+-]?[0-9]{1,20})(?=[\0\t\n\f\r %])")
_END = re.compile(_BETWEEN + rb"%%EOF(?:[\0\t\n\f\r ]*%%EOF)*")
_LINEARISED = re.compile(rb"<<[^<>]*/Linearized[^<>]*>>")
_LENGTH = re.compile(rb"/L[\0\t\n\f\r ]+([0-9]{1,20})")


class PdfValidator:
    """Checks one body in pieces of any size, in constant memory, however long the body is."""

    __slots__ = ("_filler", "_size", "_start", "_tail")

    def __init__(self) -> None:
        self._start = b""
        self._tail = b""
        self._filler = b""
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
        content = chunk.rstrip(_FILLER)
        if content:
            self._tail = (self._tail + self._filler + content)[-TAIL_WINDOW:]
            self._filler = chunk[len(content) :][:TAIL_WINDOW]
        elif len(self._filler) < TAIL_WINDOW:
            self._filler = (self._filler + chunk)[:TAIL_WINDOW]

    def fault(self, *, content_length: int | None = None, framed: bool = False) -> str | None:
        """Say in one line what is wrong with the body, now that all of it was fed; None when it is whole.

        `framed` says that the transfer itself marked the body's end, as a last chunk does.
        """
        end = self._tail + self._filler[:1]
        return _fault(self._start, end, size=self._size, content_length=content_length, framed=framed)


def fault_of(body: bytes, *, content_length: int | None = None, framed: bool = False) -> str | None:
    """Say in one line what is wrong with a body that is here in one piece; None when it is whole.

    The same verdict as a `PdfValidator`'s; the body is not copied and only its two ends are looked at.
    """
    filler = len(near := body[-TAIL_WINDOW:]) - len(near.rstrip(_FILLER))
    if filler == TAIL_WINDOW:
        filler = len(body) - len(body.rstrip(_FILLER))
    last = len(body) - filler
    end = body[max(0, last - TAIL_WINDOW) : last + 1]
    return _fault(body[:HEAD_WINDOW], end, size=len(body), content_length=content_length, framed=framed)


def head_fault(head: bytes) -> str | None:
    """Say whether a body that starts like this cannot be a PDF; None if it can, or if `head` is too short to tell.

    Before `%PDF-` only byte order marks, NUL and white space are let through, within the first 1024 bytes: an error
    page may have a document behind it, but begins otherwise.
    """
    if head.startswith(_MAGIC):
        return None
    bare = _bare(head)
    is_open = len(head) < HEAD_WINDOW and (_MAGIC.startswith(bare) or _BOM.startswith(bare))
    return None if is_open or bare.startswith(_MAGIC) else _wrong_head(head)


def _bare(start: bytes) -> bytes:
    return _BEFORE.sub(b"", start[:HEAD_WINDOW])


def _wrong_head(start: bytes) -> str:
    more = "…" if len(start) > SHOWN else ""
    return f"starts with {start[:SHOWN]!r}{more} instead of %PDF-"


def _fault(start: bytes, end: bytes, *, size: int, content_length: int | None, framed: bool) -> str | None:
    """Judge by the first bytes and the last before the filler, with one byte of that."""
    if not size:
        return "empty: not one byte came"
    if not start.startswith(_MAGIC) and not _bare(start).startswith(_MAGIC):
        return _wrong_head(start)
    if content_length is not None and content_length != size:
        return f"{size:,} bytes came where Content-Length says {content_length:,}"
    is_proved = framed or content_length is not None
    if not is_proved and (dictionary := _LINEARISED.search(start)):
        # A linearised file states its length (ISO 32000-1 Annex F); longer means updated since.
        length = _LENGTH.search(dictionary.group())
        if length and size + STRIPPED < int(length[1]):
            return f"cut off after {size:,} bytes of the {int(length[1]):,} that its own head states"
    return _tail_fault(end, size, is_proved=is_proved)


def _tail_fault(end: bytes, size: int, *, is_proved: bool) -> str | None:
    """Judge the last `startxref` with an offset, and unless the body is proved complete, what follows it."""
    found, startxref = None, len(end)
    while found is None and (startxref := end.rfind(_STARTXREF, 0, startxref)) >= 0:
        found = _OFFSET.match(end, startxref)
        if not is_proved:
            # With no proof that nothing is missing only the very last one counts.
            break
    if found is None:
        cut = f"ends without %%EOF: cut off after {size:,} bytes"
        return "no startxref with an offset before %%EOF" if b"%%EOF" in end else cut
    offset = int(found[1])
    if offset >= size:
        return f"startxref points to byte {offset:,} of {size:,}: bytes are missing"
    if offset <= 0:
        # As at the end of a linearised file's first page.
        return f"startxref points to byte {offset}, where no table can be: cut off after {size:,} bytes"
    if is_proved:
        return None
    last = _END.match(end, found.end())
    if last is None:
        return f"ends without %%EOF: cut off after {size:,} bytes"
    # Junk behind it, which readers ignore, is told from the start of a revision without its end.
    if _UPDATE.fullmatch(end[last.end() :].lstrip(_FILLER)):
        return f"an update begun after %%EOF has no end: cut off after {size:,} bytes"
    return None

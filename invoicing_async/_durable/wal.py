"""Whether the write-ahead log beside a run file still holds every transaction that was answered for.

SQLite reads a log up to its first frame that does not fit and takes the rest for the tail of a transaction that was
under way. To a run that is a lost answer or a lost intent, after which an invoice would be sent again. So the log's
frames are counted here first (the format: sqlite.org/walformat.html): a whole transaction behind the first frame that
does not fit, or fewer frames than the index beside the log (`-shm`) knows of, is damage.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from struct import Struct
from sys import byteorder
from typing import BinaryIO

from attrs import frozen

__all__ = ["log_fault", "log_of"]

_HEAD = Struct(">8I")
"""Magic, version, page size, number of checkpoints, two salts, two checksums."""
_FRAME = Struct(">6I")
"""Page, pages of the database after a commit (0: none), two salts, two checksums."""
_INDEX = Struct("=3I2BH2I8s8s8s")
"""Version, 0, changes, made, byte order, page size, frames, pages, checksum of the last frame, salts, own checksum."""

_MAGIC = 0x377F0682
_VERSION = 3_007_000
_BITS = 0xFFFF_FFFF

Sum = tuple[int, int]


@frozen
class _Log:
    """A log as read: what comes behind the first frame that does not fit is `behind`."""

    salts: bytes
    whole: int
    """Frames up to the last commit that SQLite will find."""
    behind: tuple[bool, ...]
    """Of each later frame of the same log: whether it ends a transaction."""


def log_of(file: Path) -> Path:
    """Return the place of the log beside a database."""
    return file.with_name(file.name + "-wal")


def log_fault(file: Path, *, expected: bool) -> str | None:
    """Say why the log beside a file cannot be gone by; None if all that was committed can be read from it.

    `expected`: the file says that there is one. To be asked while nobody writes, before SQLite opens the file: it
    makes the index anew.
    """
    known = _index(file)
    with log_of(file).open("rb") as stream:
        log = _read(stream)
        has_more = bool(stream.read(1))
    if log is None:
        return "its head is damaged" if expected or known is not None or has_more else None
    is_known = known is not None and known[0] == log.salts
    if known is not None and is_known and known[1] > log.whole:
        return f"of its {known[1]:,} frames {known[1] - log.whole:,} cannot be read"
    if any(log.behind[:-1]) or (any(log.behind) and not is_known):
        return f"a whole transaction stands behind frame {log.whole:,}, which does not fit"
    if expected and not log.whole and not is_known:
        return "there is nothing in it"
    return None


def _index(file: Path) -> tuple[bytes, int] | None:
    """Read the salts and the number of frames from the index of a log; None if there is none that is whole.

    It is written after the frames are on disk and before a commit is answered for.
    """
    try:
        with file.with_name(file.name + "-shm").open("rb") as stream:
            first, second = stream.read(_INDEX.size), stream.read(_INDEX.size)
    except FileNotFoundError:
        return None
    if len(first) < _INDEX.size or first != second:
        return None
    *_, frames, _pages, _last, salts, own = _INDEX.unpack(first)
    summed = _summed((0, 0), first[:40], byteorder)
    return (salts, frames) if summed == Struct("=2I").unpack(own) else None


def _read(stream: BinaryIO) -> _Log | None:
    """Read a log; None if its head is none."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    magic, version, page, _, _, _, *own = _HEAD.unpack(head)
    order = "big" if magic & 1 else "little"
    summed = _summed((0, 0), head[:24], order)
    if magic & ~1 != _MAGIC or version != _VERSION or summed != tuple(own):
        return None
    salts, whole, fits, behind = head[16:24], 0, True, []
    number = 0
    while len(head := stream.read(_FRAME.size)) == _FRAME.size:
        content, number = stream.read(page), number + 1
        _, commit, _, _, *own = _FRAME.unpack(head)
        is_ours = head[8:16] == salts
        if fits:
            summed = _summed(_summed(summed, head[:8], order), content, order) if is_ours else (0, 0)
            fits = is_ours and len(content) == page and summed == tuple(own)
            whole = number if fits and commit else whole
        if not fits and is_ours:
            behind.append(commit > 0)
    return _Log(salts=salts, whole=whole, behind=tuple(behind))


def _summed(before: Sum, content: bytes, order: str) -> Sum:
    """Go on with a checksum of SQLite's log over more bytes."""
    words = array("I", content[: len(content) // 8 * 8])
    if order != byteorder:
        words.byteswap()
    first, second = before
    numbers = iter(words)
    for one, other in zip(numbers, numbers, strict=True):
        first = (first + one + second) & _BITS
        second = (second + other + first) & _BITS
    return first, second

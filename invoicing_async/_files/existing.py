"""What a name is taken by: a whole document, a broken one, or something that is no file.

Reading never waits for anything but the disk: a FIFO or a device under a document's name is an error, not a hang.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from attrs import frozen

from .._core.clock import token
from .names import marked
from .pdf import PdfValidator

__all__ = [
    "READ_SIZE",
    "MakesValidator",
    "Published",
    "Validator",
    "difference",
    "opened",
    "set_aside",
    "whole_document",
]

READ_SIZE = 2**20


class Validator(Protocol):
    """Takes a body piece by piece and says at the end what is wrong with it."""

    def feed(self, chunk: bytes) -> None: ...

    def fault(self, *, content_length: int | None = None, framed: bool = False) -> str | None: ...


MakesValidator = Callable[[], Validator]


@frozen
class Published:
    """A whole file under its final name.

    `path` is where it is, in a store of objects its name. `kept` says that it stood there and that nothing was written,
    `same` that it then has the very content that was to be published, so that it is the caller's own, whoever put it
    there. `set_aside` is where a broken file of that name was renamed to. `name_taken` says that other content has
    the name that was asked for, so that this one has the next.
    """

    path: Path
    size: int
    sha256: str
    kept: bool = False
    set_aside: Path | None = None
    same: bool = False
    name_taken: bool = False


def whole_document(path: Path, validator: Validator | None = None) -> Published | None:
    """Read a file and return it if it is one whole document, by default a PDF; None if it is absent or broken.

    A file that has its final name is taken to be complete: what follows the document's end is kept.
    Raises `OSError` for what cannot be read and what is no regular file.
    """
    checker, digest, size = validator or PdfValidator(), sha256(), 0
    try:
        for data in _content(path):
            checker.feed(data)
            digest.update(data)
            size += len(data)
    except FileNotFoundError:
        return None
    return None if checker.fault(framed=True) else Published(path, size, digest.hexdigest(), kept=True)


def difference(path: Path, *, size: int | None, digest: str | None) -> str | None:
    """Say how a file differs from what was recorded of it; None if it does not."""
    found, length = sha256(), 0
    try:
        for data in _content(path):
            found.update(data)
            length += len(data)
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    if length != size:
        return f"has {length:,} bytes where {size:,} were saved"
    return None if found.hexdigest() == digest else "has other content than was saved"


def set_aside(path: Path, validator: MakesValidator) -> Path | None:
    """Rename a broken document to `name (broken <token>)` and return its new path; None if it is gone or whole now.

    Another process may have put a whole one there since it was looked at: that is put back.
    """
    aside = path.with_name(marked(path.name, f"broken {token()[:8]}"))
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return None
    if whole_document(aside, validator()) is None:
        return aside
    with suppress(OSError):
        os.link(aside, path)
        os.unlink(aside)
    return None


def _content(path: Path) -> Iterator[bytes]:
    with opened(path) as descriptor:
        while data := os.read(descriptor, READ_SIZE):
            yield data


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a regular file to read it. Raises `OSError` for anything else that has its name."""
    # Without O_NONBLOCK opening a FIFO waits for its other side, and the one thread with it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EEXIST, "something that is no regular file stands there; move it away", str(path))
        yield descriptor
    finally:
        os.close(descriptor)

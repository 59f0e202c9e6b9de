"""Temporary files: nameless where the file system can, locked while in use, removed when their process is gone.

A name bears the host and the worker that made it: the lock of another host's process may not be seen here (a lock of
`flock` goes no further than its host on some file systems), so that no file of another host is ever judged by its lock.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Collection
from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from attrs import define, field

from .._core.clock import token
from .existing import Published
from .folders import make_folder
from .hosts import host_id, is_on_network
from .names import NOBODY, temp_name, temp_owner

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from hashlib import _Hash as HASH

__all__ = ["Temp", "Unnamed", "prepare_folder", "probe", "sweep", "temp_in", "temp_workers"]

_UNNAMED_WORK = hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")

_UNNAMED_REFUSED = frozenset({errno.EINVAL, errno.EISDIR, errno.ENOTSUP, errno.EOPNOTSUPP})
"""How file systems say that they make no files without a name; the named kind then meets any other trouble."""


@define(eq=False)
class Temp:
    """A locked temporary file with a name, that ends published or removed."""

    folder: Path
    path: str
    _fd: int
    worker: str = NOBODY
    size: int = field(default=0, init=False)
    _digest: HASH = field(factory=sha256, init=False)

    _numbers: ClassVar = count()
    _token: ClassVar = (0, "")

    @classmethod
    def create(cls, folder: Path, worker: str = NOBODY) -> Temp:
        """Make one in a folder, of this worker. Raises `FileNotFoundError` if there is no such folder."""
        pid = os.getpid()
        if cls._token[0] != pid:
            # A forked child must not go on with its parent's names.
            cls._token = (pid, token())
        while True:
            name = temp_name(cls._token[1], next(cls._numbers), host=host_id(), worker=worker)
            path = f"{folder}{os.sep}{name}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o644)
            if _locked(fd):
                return cls(folder, path, fd, worker)
            os.close(fd)

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.size += len(data)

    def sync(self) -> None:
        os.fsync(self._fd)

    def flush(self) -> None:
        """Raise now what a file system reports only when a file is closed (NFS, quotas), while there is no name yet."""
        os.close(os.dup(self._fd))

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def published(self, path: Path, *, aside: Path | None = None) -> Published:
        """Close it and return the file that it has become."""
        self.close()
        return Published(path, self.size, self._digest.hexdigest(), set_aside=aside)

    def link(self, target: Path) -> None:
        """Link its final name. Raises `FileExistsError` if that is taken, by whatever it is."""
        os.link(self.path, target, follow_symlinks=True)
        os.unlink(self.path)

    def claim(self, target: Path) -> None:
        """Do as `link` where there are no hard links: claim the name with an empty file, then rename over that."""
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        try:
            os.replace(self.path, target)
        except BaseException:
            os.unlink(target)
            raise

    def replace(self, target: Path) -> None:
        os.replace(self.path, target)

    def content(self) -> bytes:
        """Return all that was written."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        pieces: list[bytes] = []
        while piece := os.read(self._fd, COPIED):
            pieces.append(piece)
        return b"".join(pieces)

    @property
    def is_gone(self) -> bool:
        """Whether somebody removed its name; what was written is still to be had."""
        return os.fstat(self._fd).st_nlink == 0

    def copied(self, folder: Path) -> Temp:
        """Make a named copy elsewhere and remove this one."""
        copy = Temp.create(folder, self.worker)
        try:
            for begin in range(0, self.size, COPIED):
                copy.write(os.pread(self._fd, COPIED, begin))
        except BaseException:
            copy.discard()
            raise
        self.discard()
        return copy

    def discard(self) -> None:
        """Remove the file, whatever state it is in."""
        if self._fd >= 0:
            with suppress(OSError):
                os.unlink(self.path)
            self.close()

    def close(self) -> None:
        """Close it. What a file system reports at a close it reported at `flush`."""
        fd, self._fd = self._fd, -1
        with suppress(OSError):
            os.close(fd)


@define(eq=False)
class Unnamed(Temp):
    """A temporary file that has no name before it is published (Linux): a dead run leaves nothing to be swept.

    It takes half the system calls of a named one, each of which hands the interpreter lock to and fro.
    """

    @classmethod
    def create(cls, folder: Path, worker: str = NOBODY) -> Temp:
        fd = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o644)
        return cls(folder, f"/proc/self/fd/{fd}", fd, worker)

    def link(self, target: Path) -> None:
        # With a folder's descriptor the call is linkat(2), which follows the link in /proc to the file.
        os.link(self.path, target, src_dir_fd=self._fd, follow_symlinks=True)

    def replace(self, target: Path) -> None:
        name = f"{self.folder}{os.sep}{temp_name(token(), 0, host=host_id(), worker=self.worker)}"
        # Locked before it has a name: a sweep must never find a living file free.
        with suppress(OSError):
            _lock(self._fd, wait=True)
        os.link(self.path, name, src_dir_fd=self._fd, follow_symlinks=True)
        try:
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise

    @property
    def is_gone(self) -> bool:
        return False  # it has no name that could be removed

    def discard(self) -> None:
        if self._fd >= 0:
            self.close()


_NAMED_ONLY: set[Path] = set()
"""Folders whose file system makes no files without a name."""


COPIED = 2**20
"""Bytes copied at a time to another volume."""


PROBED = 2**16
"""Bytes that a probe of a folder writes."""


def _lock(fd: int, *, wait: bool) -> None:
    # Windows has no flock and needs none: it refuses to unlink a file that is open.
    if sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _locked(fd: int) -> bool:
    """Lock a new temporary file; false if a sweep took it for a dead one's just before."""
    # On a file system without locks this fails, and so does every sweep's try: nothing is swept there.
    with suppress(OSError):
        _lock(fd, wait=True)
    return os.fstat(fd).st_nlink > 0


def probe(folder: Path) -> None:
    """Do all that saving a document takes and leave nothing. Raises the `OSError` that the next one would meet too."""
    temp = temp_in(folder)
    try:
        temp.write(bytes(PROBED))
        temp.flush()
    finally:
        temp.discard()


def sweep(folder: Path, dead: Collection[str] = ()) -> int:
    """Remove the temporary files of dead processes in this folder and return their number.

    Those are the files of this host whose lock is free, and of any host those whose worker is one of the `dead`. A
    living writer's lock says that it holds its file, where it is seen.
    """
    removed = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            owner = temp_owner(entry.name)
            if owner is not None and (owner.host == host_id() or owner.worker in dead):
                removed += _removed(entry.path)
    return removed


def _removed(path: str) -> bool:
    """Remove a temporary file unless its lock is held."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        _lock(fd, wait=False)
        # Unlinked under the lock: a writer that waits for it sees that its new file is gone and makes another.
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def temp_workers(folder: Path) -> frozenset[str]:
    """Return the workers of other hosts that have temporary files in this folder."""
    owners = map(temp_owner, os.listdir(folder))
    return frozenset(one.worker for one in owners if one is not None and one.host != host_id()) - {NOBODY}


def temp_in(folder: Path, worker: str = NOBODY) -> Temp:
    """Make a temporary file, without a name where the file system can; a folder that is missing is made first."""
    is_made = False
    while True:
        kind = Unnamed if _UNNAMED_WORK and folder not in _NAMED_ONLY else Temp
        try:
            return kind.create(folder, worker)
        except FileNotFoundError:
            if is_made:
                raise
            make_folder(folder, durable=True)
            is_made = True
        except OSError as exc:
            if kind is Temp or exc.errno not in _UNNAMED_REFUSED:
                raise
            _NAMED_ONLY.add(folder)


def prepare_folder(folder: Path, *, durable: bool = False) -> bool:
    """Make the folder if need be, sweep it, and tell whether it holds nothing else.

    On a file system of a network nothing is swept. That it holds nothing saves looking for each document, and promises
    nothing: another process may be about to put one there, and what it publishes decides.
    """
    make_folder(folder, durable=durable)
    if not is_on_network(folder):
        sweep(folder)
    with os.scandir(folder) as entries:
        return next(entries, None) is None

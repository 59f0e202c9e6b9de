"""One process at a time: the lock on a run's database itself, and who holds it.

The lock is the system's (`flock`, on Windows a locked byte) and goes with its process, also after kill -9. It is on the
file, not on a name: another link to it, a new name or a removed note beside it are the same run. The note
(`run.db.lock`) only says who holds it; one that a dead process left behind, or that is not there, changes nothing.

Closing any descriptor of a file drops every POSIX lock that this process has on it, SQLite's among them. So
descriptors are closed only when no connection of this process to the same file is open (`using`).
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field

from .records import Holder

__all__ = ["held", "holder_of", "note_of", "using"]

WORDS = 4096
"""Bytes of the note that are read."""

PATIENCE = 0.25
"""Seconds within which a lock that somebody only looks at is free again."""

STEP = 0.01

if sys.platform == "win32":  # pragma: no cover - the other branch is the one the tests run on
    import msvcrt

    _FAR = 1 << 40
    """A locked byte cannot be read by others: one far behind what SQLite locks and reads."""

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        with suppress(OSError):
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def _is_free(descriptor: int) -> bool:
        if _lock(descriptor):
            _unlock(descriptor)
            return True
        return False

else:
    import fcntl

    def _lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _is_free(descriptor: int) -> bool:
        if _lock(descriptor, fcntl.LOCK_SH):
            _unlock(descriptor)
            return True
        return False


@define
class _Used:
    """What this process has open of one file: how many users, and the descriptors to be closed after the last."""

    users: int = 0
    descriptors: list[int] = field(factory=list)


_used: dict[tuple[int, int], _Used] = {}
_guard = threading.Lock()


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


@contextmanager
def using(file: Path) -> Iterator[int]:
    """Keep the descriptors of a file open for as long as the block may have it open; the block has one."""
    descriptor = os.open(file, os.O_RDWR if os.access(file, os.W_OK) else os.O_RDONLY)
    identity = _identity(descriptor)
    with _guard:
        used = _used.setdefault(identity, _Used())
        used.users += 1
        used.descriptors.append(descriptor)
    try:
        yield descriptor
    finally:
        with _guard:
            used.users -= 1
            if not used.users:
                del _used[identity]
                for one in used.descriptors:
                    os.close(one)


@contextmanager
def held(file: Path, *, now: float, refuse: Callable[[Holder], Exception]) -> Iterator[Callable[[], bool]]:
    """Hold a file that is there for this process, since `now` in epoch seconds.

    The block has a function that tells if the file still has this name.
    What `refuse` makes of its holder is raised if another one does. Raises `FileNotFoundError`.
    """
    with using(file) as descriptor:
        if not _taken(descriptor) or not _is_there(file, descriptor):
            raise refuse(_named(file))
        try:
            since = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
            holder = {"pid": os.getpid(), "host": platform.node(), "since": since}
            with suppress(OSError):  # it is only a note
                note = os.open(note_of(file), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                try:
                    os.write(note, json.dumps(holder).encode())
                finally:
                    os.close(note)
            yield partial(_is_there, file, descriptor)
        finally:
            with suppress(OSError):  # the folder may be gone, or the file may have another name by now
                if _named(file).pid == os.getpid():
                    note_of(file).unlink()
            _unlock(descriptor)


def holder_of(file: Path) -> Holder | None:
    """Return who holds a file, without taking it; None if nobody does.

    The lock is tried only if the process that the note names may still live: for an instant a second opener would
    find it taken, and has to look twice.
    """
    file = file.resolve()
    named = _named(file)
    if named.host == platform.node() and named.pid is not None and not _is_alive(named.pid):
        return None
    try:
        with using(file) as descriptor:
            return None if _is_free(descriptor) else named
    except OSError:
        return None


def _is_alive(pid: int) -> bool:
    """Tell whether a process may live; on Windows there is no harmless way to ask, so that it is left to the lock."""
    if sys.platform == "win32":
        return pid > 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def note_of(file: Path) -> Path:
    """Return the place of the note beside a file."""
    return file.with_name(file.name + ".lock")


def _taken(descriptor: int) -> bool:
    """Lock it; one who only looks is gone in a moment."""
    for _ in range(int(PATIENCE / STEP)):
        if _lock(descriptor):
            return True
        threading.Event().wait(STEP)
    return False


def _is_there(file: Path, descriptor: int) -> bool:
    """Tell whether the file still has its name: another one may have taken it since it was opened."""
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _named(file: Path) -> Holder:
    said: Any = {}
    with suppress(OSError, ValueError), note_of(file).open("rb") as note:
        said = json.loads(note.read(WORDS))
    if not isinstance(said, dict):
        said = {}
    pid = said.get("pid")
    return Holder(pid if isinstance(pid, int) else None, str(said.get("host", "")), str(said.get("since", "")))

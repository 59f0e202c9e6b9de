"""One process at a time: the lock file beside a run file, and who holds it.

The lock is the system's (`flock`, on Windows a locked byte) and goes with its process, also after kill -9. The file it
is on only says whose it is; one that a dead process left behind locks nothing.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import frozen

__all__ = ["Holder", "held", "holder_of"]

WORDS = 4096
"""Bytes of the lock file that are read."""

if sys.platform == "win32":  # pragma: no cover - the other branch is the one the tests run on
    import msvcrt

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # a locked byte cannot be read by others: one far behind the text
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int, lock: Path) -> None:
        os.close(descriptor)
        with suppress(OSError):  # another process has it open by now
            lock.unlink()

    _is_free = _lock

    def _is_alive(pid: int) -> bool:
        """Leave it to the lock: there is no harmless way to ask."""
        return pid > 0

else:
    import fcntl

    def _lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int, lock: Path) -> None:
        with suppress(OSError):  # the folder may be gone, and with it what the lock guarded
            lock.unlink()
        os.close(descriptor)  # after the unlink: whoever waits for the name must not lock a file that then vanishes

    def _is_free(descriptor: int) -> bool:
        return _lock(descriptor, fcntl.LOCK_SH)

    def _is_alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            return True
        return True


@frozen
class Holder:
    """The process that works on a run: as it said itself, None or empty where it has not."""

    pid: int | None
    host: str
    since: str

    def __str__(self) -> str:
        return "another process" if self.pid is None else f"process {self.pid} on {self.host} since {self.since}"


@contextmanager
def held(file: Path, *, now: float, refuse: Callable[[Holder], Exception]) -> Iterator[None]:
    """Hold a file for this process, since `now` in epoch seconds; what `refuse` makes of its holder is raised."""
    lock = _lock_of(file)
    descriptor = _taken(lock, refuse)
    try:
        since = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": platform.node(), "since": since}
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(holder).encode())
        yield
    finally:
        _unlock(descriptor, lock)


def holder_of(file: Path) -> Holder | None:
    """Say who holds a file, without taking it; None if nobody does.

    A process that was killed leaves its lock file behind. The lock itself is tried only if the process named there
    may still live: for an instant a second opener would find it taken.
    """
    try:
        descriptor = os.open(_lock_of(file.resolve()), os.O_RDONLY)
    except OSError:
        return None
    try:
        named = _named(descriptor)
        gone = named.host == platform.node() and named.pid is not None and not _is_alive(named.pid)
        return None if gone or _is_free(descriptor) else named
    finally:
        os.close(descriptor)


def _lock_of(file: Path) -> Path:
    return file.with_name(file.name + ".lock")


def _taken(lock: Path, refuse: Callable[[Holder], Exception]) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        if not _lock(descriptor):
            holder = _named(descriptor)
            os.close(descriptor)
            raise refuse(holder)
        if _is_there(lock, descriptor):
            return descriptor
        os.close(descriptor)  # its last holder removed it between our open and our lock: there is a newer one


def _is_there(lock: Path, descriptor: int) -> bool:
    try:
        return lock.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _named(descriptor: int) -> Holder:
    said: Any = {}
    with suppress(OSError, ValueError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        said = json.loads(os.read(descriptor, WORDS))
    if not isinstance(said, dict):
        said = {}
    pid = said.get("pid")
    return Holder(pid if isinstance(pid, int) else None, str(said.get("host", "")), str(said.get("since", "")))

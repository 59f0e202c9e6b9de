"""Who holds a run file at this moment, without taking it."""

from __future__ import annotations

import json
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import frozen

if sys.platform == "win32":  # pragma: no cover - the other branch is the one the tests run on
    import msvcrt

    def _is_free(descriptor: int) -> bool:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _is_alive(pid: int) -> bool:
        """Leave it to the lock: there is no harmless way to ask."""
        return pid > 0

else:
    import fcntl

    def _is_free(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            return True
        return True


__all__ = ["Holder", "holder_of"]

WORDS = 4096
"""Bytes of the lock file that are read."""


@frozen
class Holder:
    """The process that works on a run: as it said itself, None or empty where it has not."""

    pid: int | None
    host: str
    since: str

    def __str__(self) -> str:
        return "another process" if self.pid is None else f"process {self.pid} on {self.host} since {self.since}"


def holder_of(file: Path) -> Holder | None:
    """Say who holds a run file; None if nobody does.

    A process that was killed leaves its lock file behind. The lock itself is tried only if the process named there
    may still live: for an instant a second opener would find it taken.
    """
    file = file.resolve()
    try:
        descriptor = os.open(file.with_name(file.name + ".lock"), os.O_RDONLY)
    except OSError:
        return None
    try:
        named = _named(descriptor)
        gone = named.host == platform.node() and named.pid is not None and not _is_alive(named.pid)
        return None if gone or _is_free(descriptor) else named
    finally:
        os.close(descriptor)


def _named(descriptor: int) -> Holder:
    said: Any = {}
    with suppress(OSError, ValueError):
        said = json.loads(os.read(descriptor, WORDS))
    if not isinstance(said, dict):
        said = {}
    pid = said.get("pid")
    return Holder(pid if isinstance(pid, int) else None, str(said.get("host", "")), str(said.get("since", "")))

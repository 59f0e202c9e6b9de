"""The lock of a run file: one process at a time, and whoever asks is told which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import START

from invoicing_async import _lock
from invoicing_async._lock import held


class RefusedError(Exception):
    """Somebody else holds it."""


def test_who_holds_it_says_so_and_is_named_to_others(tmp_path: Path) -> None:
    """In the file's own words, until it is left; then no file is left either."""
    file = tmp_path / "run.db"
    with held(file, now=START, refuse=RefusedError):
        told = _lock.holder_of(file)
        assert told is not None
        assert told.pid == os.getpid()
        with pytest.raises(RefusedError) as caught, held(file, now=START, refuse=RefusedError):
            raise AssertionError
        assert caught.value.args == (told,)
    assert _lock.holder_of(file) is None
    assert list(tmp_path.iterdir()) == []


def test_who_holds_a_file_is_told_by_its_lock(tmp_path: Path) -> None:
    """A lock file alone means nothing: its process may be dead, or it may not have said who it is."""
    file, lock = tmp_path / "m.db", tmp_path / "m.db.lock"
    assert _lock.holder_of(file) is None
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for text in ("", "[]", "{", json.dumps({"pid": int(dead.stdout), "host": "elsewhere"})):
        lock.write_text(text)
        assert _lock.holder_of(file) is None
    code = (
        "import fcntl, json, os, platform, sys\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print(json.dumps({'pid': os.getpid(), 'host': platform.node(), 'since': 'now'}), file=file, flush=True)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        found = _lock.holder_of(file)
        assert found is not None
        assert str(found).startswith(f"process {running.pid} on ")
        lock.write_text("")
        assert str(_lock.holder_of(file)) == "another process"
        running.communicate()
    assert _lock.holder_of(file) is None


def test_the_lock_is_exclusive_while_its_file_comes_and_goes(tmp_path: Path) -> None:
    """Threads take and leave the lock in turn; whoever locks a file that was just removed tries again."""
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        taken = 0
        while taken < 100:
            with suppress(RefusedError), held(tmp_path / "run.db", now=START, refuse=RefusedError):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
                taken += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_was_removed_or_replaced_is_not_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "run.db.lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
    assert _lock._is_there(lock, descriptor)
    lock.unlink()
    assert not _lock._is_there(lock, descriptor)
    lock.touch()
    assert not _lock._is_there(lock, descriptor)
    os.close(descriptor)

"""The lock of a run file: one process at a time, whatever the file is called, and whoever asks is told which."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import START
from forked import Forked, python

from invoicing_async._durable import lock
from invoicing_async._durable.lock import held, holder_of, note_of, using

HOLDS = """
import sys
from pathlib import Path
from invoicing_async._durable.lock import held

with held(Path(sys.argv[1]), now=0.0, refuse=lambda holder: SystemExit(f"refused: {holder}")):
    print("held", flush=True)
    sys.stdin.read()
"""


class RefusedError(Exception):
    """Somebody else holds it."""


def holding(file: Path) -> Forked:
    """Another process that tries to hold a file; its first line says whether it does."""
    return python(HOLDS, file)


def refused(file: Path) -> str:
    """What another process says that cannot have the file."""
    with holding(file) as process:
        return process.communicate()[1].decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "run.db").touch()
    return tmp_path / "run.db"


def test_who_holds_it_says_so_and_is_named_to_others(file: Path) -> None:
    """In the file's own words, until it is left; then no note is left either."""
    with held(file, now=START, refuse=RefusedError):
        told = holder_of(file)
        assert told is not None
        assert told.pid == os.getpid()
        assert str(told) in refused(file)
        with pytest.raises(RefusedError) as caught, held(file, now=START, refuse=RefusedError):
            raise AssertionError
        assert caught.value.args == (told,)
    assert holder_of(file) is None
    assert list(file.parent.iterdir()) == [file]
    with holding(file) as process:
        assert process.line() == "held\n"
        process.communicate()


def test_the_lock_is_the_files_own_whatever_it_is_called(file: Path) -> None:
    """A hard link, a link, a new name and a removed note are the same run."""
    hard, soft, moved = (file.with_name(name) for name in ("hard.db", "soft.db", "moved.db"))
    os.link(file, hard)
    soft.symlink_to(file.name)
    with held(file, now=START, refuse=RefusedError):
        note_of(file).unlink()
        assert "refused: another process" in refused(file)
        assert "refused" in refused(hard)
        assert "refused" in refused(soft.resolve())
        assert holder_of(hard) is not None
        file.rename(moved)
        assert "refused" in refused(moved)
        assert str(holder_of(moved)) == "another process"
    assert holder_of(moved) is None


def test_a_note_alone_means_nothing(file: Path) -> None:
    """Its process may be dead, or it may not have said who it is."""
    with python("pass") as dead:
        dead.wait(30)
    for text in ("", "[]", "{", json.dumps({"pid": dead.pid, "host": "elsewhere"})):
        note_of(file).write_text(text)
        assert holder_of(file) is None
    with holding(file) as process:
        process.line()
        assert str(holder_of(file)).startswith(f"process {process.pid} on ")
        note_of(file).write_text("")
        assert str(holder_of(file)) == "another process"
        process.communicate()
    assert holder_of(file) is None
    assert holder_of(file.with_name("absent.db")) is None


def test_a_kill_lets_go_of_it(file: Path) -> None:
    with holding(file) as process:
        process.line()
        process.kill()
        process.communicate()
    assert note_of(file).exists()
    with held(file, now=START, refuse=RefusedError):
        pass


def test_the_lock_is_exclusive_among_threads_and_those_who_look(file: Path) -> None:
    """Threads take and leave it in turn while others only look who holds it, which refuses nobody."""
    inside: list[int] = []
    most: list[int] = []
    ended = threading.Event()

    def work() -> None:
        taken = 0
        while taken < 20:
            with suppress(RefusedError), held(file, now=START, refuse=RefusedError):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
                taken += 1

    def look() -> None:
        while not ended.is_set():
            holder_of(file)

    looking = threading.Thread(target=look)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in [looking, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    looking.join()
    assert max(most) == 1
    assert lock._used == {}


def test_looking_at_a_file_leaves_the_locks_of_its_database_alone(tmp_path: Path) -> None:
    """Closing a descriptor drops a process's POSIX locks on the file, those of SQLite too: it is kept open."""
    file = tmp_path / "a.db"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("CREATE TABLE t (x)")
    with using(file):
        connection.execute("BEGIN EXCLUSIVE")
        holder_of(file)
        with suppress(RefusedError), held(file, now=START, refuse=RefusedError):
            pass
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM t')"
        with python(code, file) as other:
            assert b"database is locked" in other.communicate()[1]
        connection.execute("COMMIT")
        connection.close()


def test_a_name_that_another_file_has_by_now_is_not_held(file: Path) -> None:
    with using(file) as descriptor:
        assert lock._is_there(file, descriptor)
        file.unlink()
        assert not lock._is_there(file, descriptor)
        file.touch()
        assert not lock._is_there(file, descriptor)

"""Ends the servers of a test process when that process ends, however it ends: `python server_watch.py FOLDER`.

Whoever starts it holds the other end of its input open. When that is closed, be it by kill -9, whatever works in FOLDER
is killed and FOLDER removed. A server of PostgreSQL gives each of its processes a session of its own, but all of them
work in the data folder: by this they are found.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path


def working_in(folder: Path) -> list[int]:
    """Return the processes whose working folder is in `folder`, the oldest first; none where there is no /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            place = (entry / "cwd").readlink()
        except OSError:
            continue  # it has ended, or is another user's
        if place.is_relative_to(folder):
            found.append(int(entry.name))
    return sorted(found)


def state_of(pid: int) -> str:
    """Return the letter of the state of a process, as `T` for one that is stopped; none of one that has ended."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def end(folder: Path) -> None:
    """Kill whatever works in `folder`, also what is stopped, and remove it."""
    until = time.monotonic() + 5
    while (pids := working_in(folder)) and time.monotonic() < until:
        for pid in pids:
            send(pid, signal.SIGKILL)
        time.sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


def send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end(Path(sys.argv[1]).resolve())

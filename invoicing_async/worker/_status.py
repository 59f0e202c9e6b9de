"""What a worker is doing, as one line of JSON: in a file for a liveness probe, or for whoever asks."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from attrs import asdict, frozen

__all__ = ["WorkerStatus", "write_status"]


@frozen(kw_only=True)
class WorkerStatus:
    """A worker at one moment; times are in epoch seconds.

    `doing` is `working`, `idle`, `paused`, `stopping`, `halted`, or `waiting` while the database is away. `heartbeat`
    is when the ledger took the last one, None before the first. `items` of its part have ended so far, `chunks` are
    under way. `rebuilt` counts how often the engine was made anew.
    """

    at: float
    run: str
    worker: int
    host: str
    pid: int
    version: str
    doing: str
    slots: int
    chunks: int
    items: int
    heartbeat: float | None
    rebuilt: int

    @property
    def line(self) -> str:
        """It as one line of JSON, without its end."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))


async def write_status(file: str | PathLike[str], status: Callable[[], WorkerStatus], *, every: float = 5.0) -> None:
    """Write a worker's status into a file every few seconds, until it is cancelled; a reader never meets half a line.

    A probe takes a file that is older than three times `every` for that of a worker that is stuck or gone. Raises
    `OSError` if the file cannot be written.
    """
    path = Path(file)
    while True:
        await asyncio.to_thread(_replace, path, status().line)
        await asyncio.sleep(every)


def _replace(path: Path, line: str) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(f"{line}\n", encoding="utf-8")
    new.replace(path)

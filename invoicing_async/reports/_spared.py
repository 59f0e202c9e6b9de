"""Run files are never replaced: with one, what is known of every submission would be gone."""

from __future__ import annotations

from errno import EBUSY
from os import PathLike, fspath
from pathlib import Path

__all__ = ["spare_runs"]

_DATABASE = b"SQLite format 3\0"
_BESIDE = ("", "-wal", "-shm", ".lock")
"""What follows the name of a run file in the names of those that belong to it."""


def spare_runs(target: str | PathLike[str]) -> None:
    """Raise `OSError` (`EBUSY`) if a run file, or one of those beside it, stands at the place of a new file."""
    name = fspath(target)
    if any(_is_database(Path(name.removesuffix(ending))) for ending in _BESIDE):
        raise OSError(EBUSY, "it belongs to a run file, which is never replaced", name)


def _is_database(file: Path) -> bool:
    if not file.is_file():  # a pipe is not to be waited for
        return False
    with file.open("rb") as opened:
        return opened.read(len(_DATABASE)) == _DATABASE

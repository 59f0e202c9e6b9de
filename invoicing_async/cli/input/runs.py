"""Where a run is kept, as commands are told it: the file of one, or its address on a database server."""

from __future__ import annotations

from pathlib import Path

from ...runs import FileAddress, RunAddress, ServerAddress, run_address
from ..exits import CommandError, checked

__all__ = ["file_of", "is_server", "run_option", "run_text", "server_run"]


def run_option(where: str | Path | None) -> RunAddress | None:
    """Take what `--run` was given. Raises `CommandError` for what names no run, and for a password in it."""
    return None if where is None else checked(lambda: run_address(where), "--run")


def file_of(address: RunAddress | None) -> Path | None:
    """Return the file of a run; None for no run, and for one on a server."""
    return address.path if isinstance(address, FileAddress) else None


def run_text(address: RunAddress) -> str:
    """Return what commands name a run by."""
    return address.text if isinstance(address, ServerAddress) else str(address.path)


def is_server(where: str) -> bool:
    """Tell whether a run is on a server; nothing else is, whatever is wrong with it."""
    try:
        return isinstance(run_address(where), ServerAddress)
    except ValueError:
        return False


def server_run(where: str, option: str) -> str:
    """Return the address of a run on a server. Raises `CommandError` for a file, and as `run_option` does."""
    address = checked(lambda: run_address(where), option)
    if isinstance(address, ServerAddress):
        return address.text
    raise CommandError(f"{option}: this is for a run on a server, postgresql://HOST/DATABASE?run=NAME, not for a file")

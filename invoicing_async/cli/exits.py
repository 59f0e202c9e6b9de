"""How a command ends: its exit codes, and the error that is one line for the user and not a traceback."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CommandError", "Exit"]


class Exit(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    """Everything asked for is done."""
    SOME_LEFT = 1
    """Some items failed, were deferred or are in doubt."""
    USAGE = 2
    """Wrong usage, missing settings or bad input."""
    STOPPED = 3
    """Stopped before the end; running again goes on."""
    INTERRUPTED = 130
    """Interrupted at once, by a second Ctrl-C."""


class CommandError(Exception):
    """What a command tells its user in one line, with a hint on the next; `code` is its exit code."""

    def __init__(self, message: str, *, hint: str = "", code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code

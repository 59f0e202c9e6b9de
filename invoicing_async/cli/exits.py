"""How a command ends: its exit codes, and the error that is one line for the user and not a traceback."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TypeVar

__all__ = ["CommandError", "Exit", "checked", "is_usage"]

T = TypeVar("T")


class Exit(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    """Everything asked for is done."""
    SOME_LEFT = 1
    """Some items failed, were deferred or rejected, are invalid or in doubt."""
    USAGE = 2
    """Wrong usage, missing settings, bad input, or a run file that another process holds."""
    STOPPED = 3
    """Stopped before the end; running again goes on."""
    FAULT = 70
    """A fault of the program itself."""
    INTERRUPTED = 130
    """Interrupted at once, by a second Ctrl-C."""


class CommandError(Exception):
    """An error that is one line for the user, with a hint on the next; `code` is its exit code."""

    def __init__(self, message: str, *, hint: str = "", code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


def checked(make: Callable[[], T], option: str) -> T:
    """Make a value of what an option was given. Raises `CommandError` naming the option if it is out of bounds."""
    try:
        return make()
    except ValueError as error:
        raise CommandError(f"{option}: {error}") from None


def is_usage(error: ValueError) -> bool:
    """Tell whether an error of the library says that a setting or an input is wrong, and so is one line for the user.

    Any other `ValueError` that leaves a command is a fault of the program.
    """
    from ..settings import SettingsError  # help is shown without what a session needs

    return isinstance(error, SettingsError)

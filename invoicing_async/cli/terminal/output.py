"""Where a command writes: outcomes and tables to stdout, progress and trouble to stderr."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Mapping
from io import TextIOWrapper
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.text import Text

from ...errors import hints_of
from ..input.options import Local

__all__ = ["Count", "Output", "plain", "print_error", "readable", "shortened", "silence_stdout", "stderr"]


def readable() -> None:
    """Let what a terminal's encoding cannot show be written as an escape: no word ends a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="backslashreplace")


LEFT = (errno.EPIPE, errno.EIO)
"""What writing fails with when the reader of a pipe has left, and when a terminal has closed."""

DEBUG = "INVOICING_DEBUG"
"""The variable that, set to 1, shows tracebacks as `--debug` does."""


def plain(text: object) -> str:
    """Return text of any origin as one line that cannot move a terminal's cursor."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text))


LONGEST, TAIL = 400, 150
"""Characters of a line on a terminal, and of its end, where the ids stand that a service is asked about."""


def shortened(text: str) -> str:
    """Return a line of text with its beginning and its end, if it is very long."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - TAIL]}… {text[-TAIL:]}"


NAMES, NUMBERS = 9, 5
"""The least width of both columns, so that tables below each other look alike."""


@frozen
class Count:
    """One counted thing: what, how many, what it means."""

    name: str
    number: str
    meaning: str = ""
    style: str = ""


@frozen(kw_only=True)
class Output:
    """The two streams of a command. With `json`, stdout has JSON lines and nothing else."""

    out: Console
    err: Console
    json: bool = False
    quiet: bool = False
    debug: bool = False

    @classmethod
    def of(cls, common: Local) -> Output:
        """Open the output as the options say."""
        return cls(
            out=_Console(highlight=False),
            err=stderr(),
            json=common.json,
            quiet=common.quiet,
            debug=common.debug or os.environ.get(DEBUG, "0") not in {"", "0"},
        )

    @property
    def lively(self) -> bool:
        """Whether progress is shown: stderr is a terminal, and JSON lines do not go to the same one."""
        return _is_terminal(self.err) and not self.quiet and not (self.json and _is_terminal(self.out))

    @property
    def _human(self) -> Console:
        return self.err if self.json else self.out

    def line(self, row: Mapping[str, Any]) -> bool:
        """Print one JSON line, if JSON is asked for; False if the reader has just left."""
        return not self.json or self.put(json.dumps(row) + "\n")

    def put(self, text: str, encoding: str | None = None) -> bool:
        """Write text to stdout as it is, and flush it, so that a pipe has it at once. Raises `OSError`.

        With an `encoding` it is written as bytes, whatever the terminal's is. Returns False, and lets all that follows
        go nowhere, if its reader has left: nobody wants more, which is no error of what only shows.
        """
        try:
            if encoding is None:
                sys.stdout.write(text)
            else:
                sys.stdout.buffer.write(text.encode(encoding, "backslashreplace"))
            sys.stdout.flush()
        except OSError as error:
            if error.errno not in LEFT:
                raise
            silence_stdout()
            return False
        return True

    def say(self, text: str, style: str = "", *, cut: bool = False) -> None:
        """Show one line as it is, unbroken; with `cut`, no longer than the terminal is wide, if it is one."""
        if not self.quiet:
            cut = cut and _is_terminal(self._human)
            self._human.print(
                Text(text, style), soft_wrap=not cut, no_wrap=cut or None, overflow="ellipsis" if cut else None
            )

    def counts(self, title: str, rows: Iterable[Count]) -> None:
        """Show counted things under a title, aligned."""
        listed = list(rows)
        names = max([NAMES, *(len(row.name) for row in listed)])
        numbers = max([NUMBERS, *(len(row.number) for row in listed)])
        self.say(f"\n {title}", "bold")
        for row in listed:
            if not self.quiet:
                name = (row.name.ljust(names), row.style)
                self._human.print(
                    Text.assemble("   ", name, "  ", row.number.rjust(numbers), "  ", (row.meaning, "dim")),
                    soft_wrap=True,
                )

    def facts(self, rows: Iterable[tuple[str, str]]) -> None:
        """Show names and values in two columns, unbroken, so that they can be copied."""
        listed = list(rows)
        width = max((len(name) for name, _ in listed), default=0)
        for name, value in listed:
            if not self.quiet:
                text = Text.assemble("  ", (name.ljust(width), "dim"), "  ", plain(value))
                self.out.print(text, soft_wrap=True)

    def failure(self, error: Exception) -> None:
        """Tell of an error in one line, with its traceback where that was asked for."""
        if self.debug:
            from rich.traceback import Traceback

            self.err.print(Traceback.from_exception(type(error), error, error.__traceback__))
        self.problem(str(error) or type(error).__name__, *hints_of(error))

    def amiss(self, text: str) -> None:
        """Show one line of what did not end well: beside the summary or, where that is not shown, on stderr."""
        if self.quiet:
            self.problem(text.strip())
        else:
            self.say(shortened(text) if _is_terminal(self._human) else text, "yellow")

    def problem(self, message: str, *hints: str) -> None:
        """Tell what went wrong and what to do, on stderr, quiet or not."""
        print_error(self.err, message, *hints)


def _is_terminal(console: Console) -> bool:
    """Tell whether somebody watches; FORCE_COLOR asks for colours elsewhere, and not for moving pictures."""
    return console.is_terminal and (not os.environ.get("FORCE_COLOR") or console.file.isatty())


def print_error(console: Console, message: str, *hints: str) -> None:
    """Print one line of trouble, and its hints below."""
    console.print(Text.assemble(("invoicing-async: ", "bold red"), plain(message)), soft_wrap=True)
    for hint in filter(None, hints):
        console.print(Text(f"  {plain(hint)}", "dim"), soft_wrap=True)


class _Console(Console):
    """A console whose reader may leave without ending the command: what it prints is then dropped."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Print, unless the terminal has closed, which says so by EIO as a pipe does by EPIPE."""
        try:
            super().print(*objects, **how)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.quiet = True

    def on_broken_pipe(self) -> None:
        self.quiet = True
        if not self.stderr:
            silence_stdout()


def silence_stdout() -> None:
    """Send stdout to the null device: its reader has left."""
    os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdout.fileno())


def stderr() -> Console:
    """Open stderr as a console."""
    return _Console(stderr=True, highlight=False)

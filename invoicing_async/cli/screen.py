"""Where a command writes: outcomes and tables to stdout, progress and trouble to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from rich.console import Console, RenderableType
from rich.text import Text

from .options import Common

__all__ = ["Screen", "complain", "plain", "stderr"]


def plain(text: object) -> str:
    """Give text of any origin as one line that cannot move a terminal's cursor."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text))


@frozen(kw_only=True)
class Screen:
    """The two streams of a command. With `json`, stdout has JSON lines and nothing else."""

    out: Console
    err: Console
    json: bool = False
    quiet: bool = False

    @classmethod
    def of(cls, common: Common) -> Screen:
        """Open the screen as the options say."""
        return cls(out=Console(highlight=False), err=stderr(), json=common.json, quiet=common.quiet)

    @property
    def lively(self) -> bool:
        """Whether progress is shown: somebody is looking."""
        return self.err.is_terminal and not self.quiet

    def line(self, row: Mapping[str, Any]) -> None:
        """Print one JSON line, if JSON is asked for; it is flushed, for whoever reads along."""
        if self.json:
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()

    def show(self, what: RenderableType = "") -> None:
        """Show a table or a text to a person."""
        if not self.quiet:
            (self.err if self.json else self.out).print(what)

    def say(self, text: str, style: str = "") -> None:
        """Show one line as it is, unbroken."""
        if not self.quiet:
            (self.err if self.json else self.out).print(Text(text, style), soft_wrap=True)

    def problem(self, message: str, hint: str = "") -> None:
        """Tell what went wrong and what to do, on stderr, quiet or not."""
        complain(self.err, message, hint)


def complain(console: Console, message: str, hint: str = "") -> None:
    """Print one line of trouble, and its hint below."""
    console.print(Text.assemble(("invoicing-async: ", "bold red"), plain(message)), soft_wrap=True)
    if hint:
        console.print(Text(f"  {plain(hint)}", "dim"), soft_wrap=True)


def stderr() -> Console:
    return Console(stderr=True, highlight=False)

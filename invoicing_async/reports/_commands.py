"""The commands that settle what is left of a run, as they are typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..runs import FileAddress, RunKind, run_address

__all__ = ["answer_commands", "command_line", "doubt_commands", "next_commands", "retry_command"]

_TO_DO = {
    RunKind.INVOICES: ("planned", "not_sent", "submitted"),
    RunKind.DOCUMENTS: ("planned", "deferred", "failed"),
}
"""The states of items that `runs resume` brings further."""

_UNFIT = re.compile(r"[^\w.-]+")
"""What of a run's name is put into no name of a file."""


def command_line(*tokens: object) -> str:
    """Return a command line of this program, quoted for a shell."""
    return shlex.join(["invoicing-async", *map(str, tokens)])


def answer_commands(file: str, key: str = "KEY", named: str = "") -> tuple[str, str]:
    """Return the commands that settle one doubt: that it was created, and that it was not.

    `named` are the request ids that the service's answer named, apart by spaces: only one alone is taken.
    """
    request_id = named if named and " " not in named else "ID"
    created = _about("resolve", file, key, "--as", "created", "--request-id", request_id)
    return created, _about("resolve", file, key, "--as", "not-created")


def retry_command(file: str, key: str = "KEY") -> str:
    """Return the command that lets one rejected invoice be sent again."""
    return _about("retry", file, key)


def _about(command: str, file: str, key: str, *options: str) -> str:
    """Return a command about one item. A key that looks like an option stands behind all of them."""
    if key.startswith("-"):
        return command_line("runs", command, *options, "--", file, key)
    return command_line("runs", command, file, key, *options)


def doubt_commands(file: str) -> Iterator[str]:
    """Yield the commands that settle everything in doubt at once, in their order."""
    sheet = _sheet(file)
    yield command_line("runs", "export", file, sheet, "--state", "in_doubt", "--csv")
    yield command_line("runs", "resolve", file, "--from", sheet)


def _sheet(file: str) -> Path:
    """Return the file for the doubts of a run: beside its file, or named as it is on its server."""
    address = run_address(file)
    if isinstance(address, FileAddress):
        return address.path.with_suffix(".doubts.csv")
    return Path(f"{_UNFIT.sub('_', address.run).lstrip('-.') or 'run'}.doubts.csv")


def next_commands(
    file: str,
    kind: RunKind,
    counts: Mapping[str, int],
    *,
    without_file: int = 0,
    exports: bool = False,
    each: bool = True,
) -> Iterator[str]:
    """Yield the commands that are left to do once nobody holds the run; with `each`, those for doubts too.

    `counts` are the items by state as `Overview` has them, `without_file` is how many are still to be exported, and
    `exports` says that the run exports.
    """
    number = counts.get
    if without_file or any(number(state) for state in _TO_DO[kind]):
        yield command_line("runs", "resume", file)
    if number("rejected"):
        yield retry_command(file)
    if number("in_doubt") and each:
        yield from answer_commands(file)
    if (number("in_doubt") or 0) > 1 and each:
        yield from doubt_commands(file)
    if number("saved") or number("skipped") or exports:
        yield command_line("runs", "verify", file)

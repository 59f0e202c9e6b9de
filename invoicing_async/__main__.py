"""The command's entry: says what to install if the extra `cli` is missing, else hands over to it."""

from __future__ import annotations

import os
import sys

from . import VERSION

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    # Open what fails at every use where a standard stream is closed: a loop's own file would take its number.
    for number, way in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, way)
    tokens = sys.argv[1:]
    if tokens == ["--version"]:  # what is asked for most, by scripts: needs nothing else
        try:
            print(VERSION, flush=True)  # noqa: T201 - stdout may be closed, and so be None
        except BrokenPipeError:  # who asked has left; what Python flushes at its end goes nowhere
            os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdout.fileno())
        raise SystemExit(0)
    from importlib.util import find_spec

    for package in ("cyclopts", "rich"):
        if find_spec(package) is None:
            sys.stderr.write(f"invoicing-async: {package} is missing; install invoicing-async[cli]\n")
            raise SystemExit(2)
    from .cli.app import run

    raise SystemExit(run(tokens))


if __name__ == "__main__":
    main()

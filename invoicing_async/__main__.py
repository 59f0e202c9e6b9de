"""The command's entry: says what to install if the extra `cli` is missing, else hands over to it."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    for package in ("cyclopts", "rich"):
        if find_spec(package) is None:
            sys.stderr.write(f"invoicing-async: {package} is missing; install invoicing-async[cli]\n")
            raise SystemExit(2)
    from .cli.app import run

    raise SystemExit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

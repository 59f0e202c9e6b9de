"""The command's entry: says what to install if the extra `cli` is missing, else hands over to it."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        import cyclopts  # noqa: F401 - asked for only to learn whether it is there
        import rich  # noqa: F401 - as above
    except ImportError as exc:
        sys.stderr.write(f"invoicing-async: {exc.name} is missing; install invoicing-async[cli]\n")
        raise SystemExit(2) from None
    from .cli.app import run

    raise SystemExit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

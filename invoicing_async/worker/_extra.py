"""The optional packages of this one: imported when a worker begins, with an error that names the extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["of_extra"]


@contextmanager
def of_extra() -> Iterator[None]:
    """Let an import in the block raise an `ImportError` that names the extra if a package of it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"procrastinate", "psycopg", "psycopg_pool"}:
            raise
        raise ImportError(f"a worker needs {error.name}; install invoicing-async[postgres]") from error

"""The report that a command is asked for: where it is written, and the error if it cannot be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from ...reports import Report, RowType
from ..exits import CommandError
from ..input.options import STREAM

__all__ = ["opened_report", "spare"]


def spare(report: Path | None, *others: str | Path | None) -> None:
    """Raise `CommandError` for a report in the place of a file that the command reads or keeps: it would replace it."""
    for other in others:
        if report is not None and other is not None and report.resolve() == Path(other).resolve():
            raise CommandError(f"--report {report} would replace {other}", hint="Name another file for the report.")


@asynccontextmanager
async def opened_report(path: Path | None, row_type: RowType) -> AsyncIterator[Report | None]:
    """Begin a report, None if none is asked for. Raises `CommandError` for a place or an ending that cannot be."""
    if path is None:
        yield None
        return
    if path == Path(STREAM):
        raise CommandError("a report is a file, CSV or JSON by its ending", hint="--json prints its lines on stdout.")
    async with AsyncExitStack() as stack:
        try:
            report = await stack.enter_async_context(Report(path, row_type.columns))
        except ValueError as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(f"cannot write the report {path}: {error.strerror or error}") from None
        yield report

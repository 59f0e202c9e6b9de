"""`runs report`: a run as one page of HTML, for an operator, an accountant, or a printer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ...reports import RunPage, write_run_page
from ...runs import read_run
from ..durable import entered
from ..exits import CommandError, Exit
from ..input.options import FLAG, SOURCE, STREAM, Local, RunFile
from ..terminal.output import Output, plain

__all__ = ["add_to"]


async def report(
    file: RunFile,
    /,
    *,
    html: Annotated[Path, SOURCE, Parameter(help="The page, a new file; - for stdout.")],
    force: Annotated[bool, FLAG, Parameter(help="Replace a file that is there.")] = False,
    common: Local | None = None,
) -> int:
    """Write a run as one page for people: totals, what needs a person, what happened when, how long, and why not.

    The page is one file that loads nothing, and can be mailed, kept and printed. It shows the run as it stands now;
    another process may be at work on it. What is listed one by one are the first fifty of each state.
    """
    output = Output.of(common or Local())
    if html == Path(STREAM) and output.json:
        raise CommandError("--html - and --json exclude each other: both are for stdout")
    async with entered(read_run(file)) as ledger:  # one that cannot be read is told as by every other command
        seen = await RunPage.of(ledger, file) if html == Path(STREAM) else None
    try:
        if seen is not None:
            output.put(seen.html(), "utf-8")
            return Exit.DONE
        page = await write_run_page(file, html, replace=force)
    except FileExistsError:
        raise CommandError(f"{html} is there already", hint="Name another file, or replace it with --force.") from None
    except ImportError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"cannot write {html}: {error.strerror or error}") from None
    output.line({"file": file, "page": str(page), "size": page.stat().st_size})
    if not output.json:
        output.say(f" {plain(page)}")
    return Exit.DONE


def add_to(app: App) -> None:
    """Put the command into the app of run files."""
    app.command(report)

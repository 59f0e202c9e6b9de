"""`runs import`: a run carried from its file to a server."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from ...runs import import_run
from ..durable import failing
from ..exits import Exit
from ..input.options import Local
from ..input.runs import server_run
from ..run_summary import command
from ..terminal.output import Output, plain

__all__ = ["add_to"]

Address = Annotated[str, Parameter(help="postgresql://HOST/DATABASE?run=NAME.")]


async def carry_over(
    file: Annotated[str, Parameter(help="The run file.")],
    /,
    *,
    run: Annotated[str, Parameter(help="Where it goes on: postgresql://HOST/DATABASE?run=NAME, a new name there.")],
    common: Local | None = None,
) -> int:
    """Carry the run of a file over to a database server, where any number of machines can go on with it.

    All of it goes: keys, states, attempts and the journal, so that no key is sent again; or, after an error, nothing.
    No process may hold the file meanwhile, and the name must be new on the server. Afterwards the file only shows how
    it stood. If this is cut off, give the same command again: it finishes that, or says that it was done.

    Exit code 0: the run is there; 2: nothing was carried over, and why.
    """
    output = Output.of(common or Local())
    to = server_run(run, "--run")
    with failing():
        done = await import_run(file, to)
    output.line({"file": file, "run": to, "kind": str(done.kind), "items": done.items, "entries": done.entries})
    if not output.json:
        before = " before" if done.known else ""
        output.say(f" {done.items:,} items were carried over to {plain(to)}{before}")
        output.say(f"\n Next\n   {command('runs', 'show', to)}\n   {command('runs', 'resume', to)}")
    return Exit.DONE


def add_to(app: App) -> None:
    """Put the commands into the app of runs."""
    app.command(carry_over, name="import")

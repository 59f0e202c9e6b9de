"""`runs import | pause | unpause | unhalt`: what is said of a whole run on a server."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from cyclopts import App, Parameter

from ...runs import import_run, pause_run, unhalt_run, unpause_run
from ..durable import failing
from ..exits import Exit, checked
from ..input.options import Local
from ..input.runs import server_run
from ..run_summary import command
from ..terminal.output import Output, plain
from ..terminal.times import local_time

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


async def pause(run: Address, /, *, common: Local | None = None) -> int:
    """Let no worker of a run on a server begin to send anything more. What is under way finishes.

    Every worker has heard it within 5 seconds, and none ends. `runs unpause` lets them go on.
    """
    output, where = Output.of(common or Local()), server_run(run, "RUN")
    with failing():
        await pause_run(where)
    return _told(output, where, "paused", ("runs", "unpause", where))


async def unpause(run: Address, /, *, common: Local | None = None) -> int:
    """Let a paused run on a server go on."""
    output, where = Output.of(common or Local()), server_run(run, "RUN")
    with failing():
        await unpause_run(where)
    return _told(output, where, "going on", ("runs", "show", where))


async def unhalt(
    run: Address,
    /,
    *,
    doubt_since: Annotated[
        str,
        Parameter(help="Since when records are missing: 2026-03-31T04:00 , local or with +07:00, or epoch seconds."),
    ],
    restored: Annotated[
        bool, Parameter(negative="", help="You brought the database back yourself, and the run is not halted yet.")
    ] = False,
    common: Local | None = None,
) -> int:
    """Let a run go on whose database came back older than it had been: after a restored backup, or a lagging standby.

    Such a run halts by itself, since nobody knows what was sent of it. What may have been sent since the time that you
    name is put in doubt first, to be looked up at the service, and is sent again only after `runs resolve`. Name the
    moment as of which the database was brought back, or one before: an earlier one makes more doubts, a later one may
    make an invoice twice. A run on which nobody was at work then is not halted: say --restored, before any worker
    starts.

    Exit code 0: it goes on; 2: it is not halted, or the time cannot be, and nothing was changed.
    """
    output, where = Output.of(common or Local()), server_run(run, "RUN")
    since = checked(lambda: moment_of(doubt_since), "--doubt-since")
    with failing():
        doubts = await unhalt_run(where, doubt_since=since, restored=restored)
    output.line({"run": where, "state": "going on", "in_doubt": doubts})
    if not output.json:
        output.say(f" {plain(where)} goes on; {doubts:,} may have been sent since {local_time(since)} and are in doubt")
        output.say(f"\n Next\n   {command('runs', 'show', where, *(('--state', 'in_doubt') if doubts else ()))}")
    return Exit.DONE


def moment_of(text: str) -> float:
    """Return a moment in epoch seconds, given so or as ISO 8601; without a zone it is of this machine's."""
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"must be a time as 2026-03-31T04:00:00+07:00, or epoch seconds, got {text!r}") from None


def _told(output: Output, where: str, state: str, then: tuple[str, ...]) -> Exit:
    output.line({"run": where, "state": state, "in_doubt": None})
    if not output.json:
        output.say(f" {plain(where)} is {state}\n\n Next\n   {command(*then)}")
    return Exit.DONE


def add_to(app: App) -> None:
    """Put the commands into the app of runs."""
    app.command(carry_over, name="import")
    for function in (pause, unpause, unhalt):
        app.command(function)

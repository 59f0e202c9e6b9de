"""`ledger migrate | check`: the tables that runs on a database server are kept in."""

from __future__ import annotations

from typing import Annotated

from attrs import evolve
from cyclopts import App, Parameter

from ...runs import ledger_tables, migrate_ledger, server_address
from ...worker import check_queue, migrate_queue
from ..durable import failing
from ..exits import CommandError, Exit, checked
from ..input.options import Local
from ..run_summary import command
from ..terminal.output import Output, plain

__all__ = ["app"]

app: App = App(name="ledger")
Address = Annotated[str, Parameter(help="postgresql://HOST/DATABASE; a run that it names is not looked at.")]


@app.command
async def migrate(address: Address, /, *, common: Local | None = None) -> int:
    """Make the tables for runs in a database, or bring them up to this version.

    Forward only, each step in one transaction; two at once take turns. Workers of this and of the last version go on
    meanwhile. No worker does this by itself. The user of the address must be allowed to make tables; the workers'
    need not. A password stands in PGPASSWORD, a pass file, PGSERVICE or INVOICING_LEDGER.

    Exit code 0: the tables are of this version; 2: the database cannot be reached or used, or its tables are newer.
    """
    output = Output.of(common or Local())
    server = checked(lambda: server_address(address), "ADDRESS").server
    with failing():
        done = [f"step {number}" for number in await migrate_ledger(server)]
        done += [f"queue: {step}" for step in await migrate_queue(server)]
        tables = await ledger_tables(server)
    output.line({"server": server, **tables.json(), "done": done})
    if not output.json:
        steps = f"{len(done)} step{'s' * (len(done) != 1)} done" if done else "nothing was left to do"
        output.say(f" {plain(server)}: version {tables.version}, {steps}")
    return Exit.DONE


@app.command
async def check(address: Address, /, *, common: Local | None = None) -> int:
    """Look whether runs can be kept in a database by this version. Nothing is changed.

    Exit code 0: they can; 1: `ledger migrate` is to be given first; 2: the database cannot be reached or used, or
    needs a newer version of this program.
    """
    output = Output.of(common or Local())
    server = checked(lambda: server_address(address), "ADDRESS").server
    with failing():
        tables = await ledger_tables(server)
        lacking = [] if tables.fault else await check_queue(server)
    if lacking:
        tables = evolve(tables, fault=f"has no up-to-date queue of work for its runs: {', '.join(lacking)} to be done")
    output.line({"server": server, **tables.json(), "done": []})
    if tables.is_too_new:
        raise CommandError(f"{server} {tables.fault}", hint="Install a newer version of invoicing-async.")
    if tables.fault:
        output.problem(f"{server} {tables.fault}", command("ledger", "migrate", server))
        return Exit.SOME_LEFT
    if not output.json:
        output.say(f" {plain(server)}: version {tables.version}, as this program needs it")
    return Exit.DONE

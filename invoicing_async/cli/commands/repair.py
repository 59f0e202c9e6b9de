"""`runs retry | export | refresh`: what people say of a run's e-invoices, and what they need for that."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import App, Parameter

from ...repair import (
    entries,
    rejected_codes,
    retry_rejected,
    sheet_head,
    sheet_line,
    write_sheet,
)
from ...reports import INVOICE_ITEMS, REFRESHES, item_row, refresh_row, sheet_row
from ...runs import InvoiceRun, LedgerReader, Overview, RunKind, State, read_run
from ..durable import entered, kept_pace
from ..exits import CommandError, Exit
from ..input.options import FLAG, SOURCE, STREAM, Common, Local, RateOptions, ReportFile, RunFile
from ..input.runs import is_server
from ..run_summary import command
from ..summary import BatchSummary, carry_out, words
from ..terminal.output import Output, plain
from ..terminal.progress import Bar, live
from .resolve import KEY, resolve, standing

__all__ = ["add_to"]

Listed: TypeAlias = Literal[
    "planned", "not_sent", "submitted", "success", "failed", "rejected", "in_doubt", "invalid",
]  # fmt: skip


async def retry(
    file: RunFile,
    key: Annotated[str | None, KEY] = None,
    /,
    *,
    state: Literal["rejected"] | None = None,
    code: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    common: Local | None = None,
) -> int:
    """Let e-invoices that the service rejected be sent again by the next `runs resume`: one by its key, or many.

    Order documents need no such word: every `runs resume` asks for what was deferred or failed.

    Parameters
    ----------
    key
        The draft's key.
    state
        Without a key: all that are in this state.
    code
        With --state: only those that were refused with this code; may be given more than once.
    """
    output = Output.of(common or Local())
    if (key is None) is (state is None) or (code and state is None):
        raise CommandError("give a KEY, or --state rejected for all of them, with --code CODE for some of them")
    async with entered(InvoiceRun.open(file, create=False)) as run:
        if key is not None:
            await standing(run, key, State.REJECTED, "rejected")
            items = [await run.retry(key)]
        else:
            items = await retry_rejected(run, code)
            if not items:
                counts = await rejected_codes(run.ledger)
                there = ", ".join(f"{each} ({number:,})" for each, number in counts.most_common())
                other = f"nothing was rejected with {' or '.join(code)}; the codes there are: {there}"
                raise CommandError(other if counts else "nothing in this run is rejected")
    for item in items:
        output.line(INVOICE_ITEMS.whole(item_row(item)))
        if not output.json:
            output.say(f" {plain(item.key)} is {words(item.state)}")
    if not output.json:
        output.say(f"\n {len(items):,} to be sent again\n\n Next\n   {command('runs', 'resume', file)}")
    return Exit.DONE


async def export(
    file: RunFile,
    out: Annotated[Path | None, SOURCE] = None,
    /,
    *,
    state: Annotated[tuple[Listed, ...], Parameter(negative="", show_default=False)] = ("in_doubt",),
    csv: Annotated[bool, FLAG] = False,
    common: Local | None = None,
) -> int:
    """Write the e-invoices in doubt as a table to be filled in and given back to `runs resolve FILE --from`.

    Each row has the buyer, tax code, amount (the sum of the lines before tax), when it was sent, and what the service
    said; `answer` (created or not-created) and `request_id` are left to be filled in. The table is CSV in UTF-8 with
    its mark; --json prints lines of JSON instead. The documents of finished invoices are saved by `runs resume FILE
    --export pdf --to DIR`.

    Parameters
    ----------
    out
        Where to write it, a new file; stdout without, or for -.
    state
        The items in this state; may be given more than once.
    csv
        Write the table as CSV. That is the default; --json is the other form.
    """
    output = Output.of(common or Local())
    if out == Path(STREAM):
        out = None
    if csv and output.json:
        raise CommandError("--csv and --json exclude each other")
    if out is not None and output.json:
        raise CommandError(f"--json prints lines, and {out} would be CSV", hint=f"Write > {out} for a file of lines.")
    async with entered(read_run(file)) as ledger:
        if ledger.kind is not RunKind.INVOICES:
            raise CommandError(f"{file} is a run of order documents; this is for e-invoices")
        states = (await Overview.of(ledger)).recorded(state)
        number = await (_written(ledger, states, out) if out else _printed(ledger, states, output))
    if out is not None:
        output.say(f" {number:,} written to {out}\n\n When it is filled in")
        output.say(f"   {command('runs', 'resolve', file, '--from', out)}")
    return Exit.DONE


async def _printed(ledger: LedgerReader, states: Sequence[str], output: Output) -> int:
    """Print a table in UTF-8, whatever the terminal is, or JSON lines, until nobody reads on."""
    number = 0
    put = partial(output.put, encoding="utf-8")
    reads = output.json or put(sheet_head(mark=not output.out.is_terminal))
    async with aclosing(entries(ledger, states)) as found:
        while reads and (entry := await anext(found, None)):
            number += 1
            reads = output.line(sheet_row(entry)) if output.json else put(sheet_line(entry))
    return number


async def _written(ledger: LedgerReader, states: Sequence[str], out: Path) -> int:
    """Write a table to a file, whole or not at all. Raises `CommandError` if there is one: it may be filled in."""
    try:
        return await write_sheet(ledger, out, states)
    except FileExistsError:
        raise CommandError(f"{out} is there already, and may be filled in", hint="Name another file.") from None
    except OSError as error:
        raise CommandError(f"cannot write {out}: {error.strerror or error}") from None


async def refresh(
    file: RunFile, /, *, report: ReportFile = None, pace: RateOptions | None = None, common: Common | None = None
) -> int:
    """Ask the service again how every finished e-invoice stands with the tax authority, and record it.

    Nothing is submitted. Exit code 0: all stand; 1: some are refused by the authority, or could not be asked for; 2:
    usage, or another process holds the run; 3: stopped; 130: interrupted.
    """
    common, pace = common or Common(), pace or RateOptions()
    output, settings = Output.of(common), common.settings()
    settings.invoices(pace)  # what is wrong with them is told before the run is opened

    async def work(batch: BatchSummary) -> None:
        async with entered(InvoiceRun.open(file, create=False)) as run:
            batch.stop.then(run.stop)
            kept = await kept_pace(run, pace)
            session = batch.monitor.session(settings.invoices, kept, limits=run.limits(kept.limits))
            batch.stop.then(session.stop_waiting)
            number = (await run.ledger.counts()).get(State.SUCCESS, 0)
            bar = Bar("E-invoices", number, lambda: batch.done, batch.monitor.note)
            items = run.refresh(settings.e_invoices(session))
            async with session, live(output.err, [bar], shown=output.lively), aclosing(items):
                async for item in items:
                    batch.source.taken += 1
                    await batch.add(refresh_row(item))
            batch.source.cut = batch.stop.asked and batch.done < number

    return await carry_out(REFRESHES, output, work, report=report, resume=command("runs", "refresh", file))


async def accept_lost_log(file: RunFile, /, *, common: Local | None = None) -> int:
    """Take a run whose write-ahead log is gone as it is: everything that may have been sent is in doubt.

    Only for a file that is refused because its log (FILE-wal) is damaged or not there, and cannot be restored.
    What was taken in after the file was last whole is not known to it: look that up too before you give it again.
    """
    output = Output.of(common or Local())
    if is_server(file):
        raise CommandError(f"{file} has no log beside it: that is for a run file")
    async with entered(InvoiceRun.open(file, create=False, accept_lost_log=True)) as run:
        counts = {state: count for state, count in (await run.ledger.counts()).items() if count}
    output.line({"file": file, "counts": counts})
    if not output.json:
        stand = ", ".join(f"{count:,} {words(State(state))}" for state, count in counts.items())
        output.say(f" {plain(file)}: {stand}\n\n Next\n   {command('runs', 'show', file, '--state', 'in_doubt')}")
    return Exit.DONE


def add_to(app: App) -> None:
    """Put the commands into the app of run files."""
    for function in (resolve, retry, export, refresh, accept_lost_log):
        app.command(function)

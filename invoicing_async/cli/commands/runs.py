"""`runs show | resume | verify`: a run file looked at, gone on with, and proved.

What people say of its items is in `repair`.
"""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import App, Parameter

from ... import Layout
from ...polling import Poller
from ...repair import lateness
from ...runs import (
    DocumentRun,
    DocumentState,
    InvoiceRun,
    Item,
    LedgerReader,
    RunKind,
    SqliteReader,
    check_files,
)
from ..durable import AskedExport, ExportFormat, agree, carry_out_run, download_run, entered, submit_run
from ..exits import CommandError, Exit, checked
from ..input.options import FLAG, Common, RateOptions
from ..run_kinds import DocumentBook, InvoiceBook
from ..run_summary import IN_DOUBT, RunContext, command, doubts, many_doubts
from ..summary import REFUSED, SHOWN, Account, authority_note, carry_out, words
from ..terminal.output import Count, Screen, plain
from ..terminal.progress import Bar, live
from ..terminal.report import opened_report
from ..terminal.rows import (
    CHECKS,
    Row,
    check_row,
    item_row,
)
from . import repair
from .run_view import RunView

__all__ = ["app"]

app = App(name="runs")
Shown: TypeAlias = Literal[
    "planned", "saved", "skipped", "deferred", "failed",
    "in_flight", "not_sent", "submitted", "success", "rejected", "in_doubt", "invalid",
]  # fmt: skip


# -- show --------------------------------------------------------------------------------------------------------


@app.command
async def show(
    file: str,
    /,
    *,
    items: Annotated[bool, FLAG] = False,
    state: Annotated[tuple[Shown, ...], Parameter(negative="", show_default=False)] = (),
    report: Path | None = None,
    common: Common | None = None,
) -> int:
    """Show how a run stands and how to go on.

    Nothing is changed, and another process may be at work on the run meanwhile: it is named.

    Order documents are

    - planned: not asked for yet, or missing or broken and to be fetched anew
    - saved: a whole PDF, proved and published
    - skipped: a whole PDF was there before it was asked for
    - deferred: the order is not eligible yet (ORDER_021); asked for again by `runs resume`
    - failed: no document, the error says why; asked for again by `runs resume`

    E-invoices are

    - planned: taken in, nothing of it was sent
    - in_flight: on its way at this moment, in the process that holds the run; if that dies, it is in doubt
    - not_sent: it never left, or was refused for now; `runs resume` sends it
    - submitted: the service has it and is not done; `runs resume` waits for it
    - success: the invoice was made; final
    - failed: the service took it and could not make the invoice; final
    - rejected: the service refused it, no invoice was made; sent again only after `runs retry`
    - in_doubt: it left and no answer came, so it may have been made; sent again only after `runs resolve`
    - invalid: it breaks the documented limits and was never sent; correct the file and submit it again

    Parameters
    ----------
    file
        The run file.
    items
        List every item instead; with --json one line for each.
    state
        List only the items in this state; may be given more than once.
    report
        Write the items to this file, CSV or JSON by its ending.
    """
    screen = Screen.of(common or Common())
    async with entered(SqliteReader.read(file)) as ledger:
        view = await RunView.of(file, ledger)
        if report is not None:
            await _write(view, report, state)
        if items or state:
            await _list(view, screen, state)
        elif screen.json:
            screen.line(view.json())
        else:
            await _summary(view, screen)
    return Exit.DONE


async def _write(view: RunView, path: Path, wanted: tuple[str, ...]) -> None:
    async with opened_report(path, view.kind) as report:
        assert report is not None  # noqa: S101 - it was asked for; for the type checker
        async for item in view.rows(wanted):
            await report.add(item_row(item, held=view.holder is not None))
        await report.publish({"run": view.file, "counts": dict(view.counts)})


async def _list(view: RunView, screen: Screen, wanted: tuple[str, ...]) -> None:
    """Print the items: what is asked for, so neither quiet nor by way of the slow console."""
    wide = max(map(len, view.kind.outcomes))
    async for item in view.rows(wanted):
        row = item_row(item, held=view.holder is not None)
        screen.line(row)
        if not screen.json:
            ids = dict.fromkeys((row["request_id"], row["invoice_id"]))
            facts = (item.key, row.get("authority_status"), *ids, row["path"], _why(row))
            told = "  ".join(plain(fact) for fact in facts if fact)
            screen.out.file.write(f"{words(row['state']).ljust(wide)}  {told}\n")
    if not screen.json:
        await _summary(view, screen)


def _why(row: Row) -> str:
    """Return what the service said of an item, with its code and the ids that it named."""
    said = {"code": row["code"], "HTTP": row.get("http_status"), "it named": row.get("request_ids")}
    error = row["error"] or ""
    more = [f"{name} {value}" for name, value in said.items() if value is not None and str(value) not in error]
    return f"{error} ({', '.join(more)})" if more else error


async def _summary(view: RunView, screen: Screen) -> None:
    """Show what is to be settled, and below it how the run stands: the end of a long list is what is seen."""
    if view.counts.get("in_doubt"):
        screen.say(f"\n {view.counts['in_doubt']:,} {IN_DOUBT}", "yellow")
        for line in doubts(view.file, await _first_doubts(view), late=lateness(view.ledger)):
            screen.say(line)
        if view.counts["in_doubt"] > 1:
            screen.say(" Or all of them at once")
            for step in many_doubts(view.file):
                screen.say(f"     {step}")
    authority = view.authority
    rows = [
        Count(words(state), f"{view.counts[state]:,}", meaning, "green" if state in view.kind.good else "yellow")
        for state, meaning in view.kind.outcomes.items()
        if view.counts.get(state)
    ]
    if authority.refused:
        rows.append(Count("refused", f"{authority.refused:,}", REFUSED, "yellow"))
    screen.counts(f"{view.kind.title} of {view.file}", [*rows, Count("total", f"{sum(view.counts.values()):,}")])
    if authority.counts:
        screen.say(f"   {authority_note(authority.counts)}", "dim")
    screen.say("")
    screen.facts(view.facts())
    steps = [] if view.holder else list(view.steps(each=False))
    if steps:
        screen.say("\n Next")
    for step in steps:
        screen.say(f"   {step}")


async def _first_doubts(view: RunView) -> list[Item]:
    return await view.ledger.rows(view.now.recorded(("in_doubt",)), limit=SHOWN)


# -- resume ------------------------------------------------------------------------------------------------------


@app.command
async def resume(
    file: str,
    /,
    *,
    wait: bool = True,
    verify: bool = True,
    export: ExportFormat | None = None,
    to: Path | None = None,
    layout: str | None = None,
    timeout: float = 300.0,
    report: Path | None = None,
    pace: RateOptions | None = None,
    common: Common | None = None,
) -> int:
    """Go on with a run where it ended, however it ended.

    Order documents: what was saved is verified by size and hash, then everything that is planned, deferred, failed,
    missing or broken is asked for. E-invoices: what is planned or provably was not sent is submitted, what is
    submitted is awaited, and what is finished is exported if that was asked for; what is in doubt or rejected stays
    as it is until `runs resolve` or `runs retry`. The credentials come from the environment, as always.

    The run goes on at its own pace, with its own export, folder and layout; an option changes that for good. What is
    saved already stays where it is.

    Exit code 0: all done; 1: some failed, were deferred, rejected, or are invalid or in doubt; 2: usage, or another
    process holds the run; 3: stopped before the end; 130: interrupted.

    Parameters
    ----------
    file
        The run file.
    wait
        E-invoices: --no-wait only submits, and neither waits nor exports.
    verify
        Hash the files that the run saved before; --no-verify takes them as recorded.
    export
        E-invoices: save each invoice that has no file yet so, with --to if the run has no folder.
    to
        The folder for what is not saved yet.
    layout
        The file below that folder: {key}, {request_id} and {invoice_id} of e-invoices, {order_id} of order documents,
        {date:%Y/%m}, {shard}.
    timeout
        Seconds to wait for each e-invoice.
    report
        Write every item of the run to this file, CSV or JSON by its ending.
    """
    common, pace = common or Common(), pace or RateOptions()
    settings, screen = common.settings(), Screen.of(common)
    context = RunContext(screen=screen, settings=settings, common=common, pace=pace, file=file, report=report)
    poller = checked(lambda: Poller(timeout=timeout), "--timeout")
    async with entered(SqliteReader.read(file)) as ledger:
        kind = ledger.kind
    if kind is RunKind.INVOICES:
        wanted = AskedExport.of(export, to, layout)
        return await _resume_invoices(context, poller if wait else None, wanted, verify=verify)
    if export is not None or not wait:
        raise CommandError("--export and --no-wait are for e-invoices; this is a run of order documents")
    if layout is not None:
        checked(lambda: Layout(layout), "--layout")
    return await _resume_documents(context, to, layout, verify=verify)


async def _resume_documents(context: RunContext, to: Path | None, layout: str | None, *, verify: bool) -> Exit:
    context.check(context.settings.documents)

    async def work(run: DocumentRun, book: DocumentBook) -> None:
        if to is not None or layout is not None:
            await run.move(folder=to, layout=layout)
        await download_run(run, book, verify=verify)

    return await carry_out_run(context, DocumentRun.open(context.file), DocumentBook, work)


async def _resume_invoices(context: RunContext, poller: Poller | None, wanted: AskedExport, *, verify: bool) -> Exit:
    context.check(context.settings.invoices)

    async def work(run: InvoiceRun, book: InvoiceBook) -> None:
        await agree(run, wanted)
        await submit_run(run, book, poller=poller, verify=verify)

    return await carry_out_run(context, InvoiceRun.open(context.file, create=False), InvoiceBook, work)


# -- verify ------------------------------------------------------------------------------------------------------


@app.command
async def verify(file: str, /, *, report: Path | None = None, common: Common | None = None) -> int:
    """Read and hash every file that a run saved. Nothing is changed and no service is asked.

    Exit code 0: all are as recorded; 1: some are missing or broken, which `runs resume` fetches anew; 3: stopped.

    Parameters
    ----------
    file
        The run file.
    report
        Write what was found of every file to this one, CSV or JSON by its ending.
    """
    screen = Screen.of(common or Common())
    again = command("runs", "verify", file)
    async with entered(SqliteReader.read(file)) as ledger:

        async def work(account: Account) -> None:
            await _check(account, ledger)

        code = await carry_out(CHECKS, screen, work, report=report, resume=again)
    if code is Exit.SOME_LEFT:
        screen.say(f"\n To fetch them anew\n   {command('runs', 'resume', file)}")
    return code


async def _check(account: Account, ledger: LedgerReader) -> None:
    counts = await ledger.counts()
    documents = sum(counts.get(state, 0) for state in (DocumentState.SAVED, DocumentState.SKIPPED))
    bar = Bar("Files", None if ledger.kind is RunKind.INVOICES else documents, lambda: account.settled)
    async with live(account.screen.err, [bar], shown=account.screen.lively), aclosing(check_files(ledger)) as files:
        async for checked_file in account.taking.items(files):  # type: ignore[union-attr] # it stays asynchronous
            await account.add(check_row(checked_file))


repair.add_to(app)

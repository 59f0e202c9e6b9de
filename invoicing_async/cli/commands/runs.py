"""`runs show | resume | verify`: a run file looked at, gone on with, and proved.

What people say of its items is in `repair`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import App, Parameter

from ... import Layout
from ...polling import Poller
from ...repair import lateness
from ...reports import (
    CHECKS,
    Row,
    check_row,
    item_row,
    reason,
)
from ...runs import (
    DocumentRun,
    DocumentState,
    InvoiceRun,
    Item,
    LedgerReader,
    RunKind,
    check_files,
    read_run,
)
from ..durable import agree, carry_out_run, download_run, entered, submit_run
from ..exits import CommandError, Exit, checked
from ..input.exports import AskedExport, ExportFormat
from ..input.options import FLAG, Common, Local, PlaceOption, RateOptions, ReportFile, RunFile, Seconds, place_of
from ..run_kinds import DocumentSummary, InvoiceSummary
from ..run_summary import PAGE, RunContext, command, show_doubts
from ..summary import SHOWN, BatchSummary, authority_note, carry_out, counted, words
from ..terminal.output import Count, Output, plain
from ..terminal.progress import Bar, live
from ..terminal.report import opened_report
from . import repair, run_report, server_runs
from .run_table import show_table, show_tasks
from .run_view import RunView, watched

__all__ = ["app"]

app: App = App(name="runs")
Shown: TypeAlias = Literal[
    "planned", "saved", "skipped", "deferred", "failed",
    "in_flight", "not_sent", "submitted", "success", "rejected", "in_doubt", "invalid",
]  # fmt: skip

WIDE = 40
"""Columns of a key at most that others are aligned to."""


@app.command
async def show(
    file: RunFile,
    /,
    *,
    items: Annotated[bool, FLAG] = False,
    state: Annotated[tuple[Shown, ...], Parameter(negative="", show_default=False)] = (),
    watch: Annotated[bool, FLAG] = False,
    report: ReportFile = None,
    common: Local | None = None,
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

    Of a run on a server also who works on it and how fast, what they share of the service, and what is stuck.

    Exit code 0: shown; 1: TWO INVOICES may have been made of one draft, both ids are shown; 2: usage, or it cannot be
    read.

    Parameters
    ----------
    items
        List every item instead; with --json one line for each.
    state
        List only the items in this state; may be given more than once.
    watch
        Show it anew every 2 seconds, until nobody has anything to do or Ctrl-C.
    """
    output = Output.of(common or Local())
    if watch:
        if items or state or report is not None:
            raise CommandError("--watch shows how a run stands: --items, --state and --report do not go with it")
        return await watched(output, file, _summary)
    async with entered(read_run(file)) as ledger:
        view = await RunView.of(file, ledger)
        if report is not None:
            await _write(view, report, state)
        if items or state:
            await _list(view, output, state)
        elif output.json:
            output.line(view.json())
        else:
            await _summary(view, output)
        return view.code


async def _write(view: RunView, path: Path, wanted: tuple[str, ...]) -> None:
    async with opened_report(path, view.row_type) as report:
        assert report is not None  # noqa: S101 - it was asked for; for the type checker
        async for item in view.rows(wanted):
            await report.add(item_row(item, held=view.holder is not None))
        await report.publish({"run": view.file, "counts": dict(view.counts)})


async def _list(view: RunView, output: Output, wanted: tuple[str, ...]) -> None:
    """Print the items: what is asked for, so neither quiet nor by way of the slow console; until nobody reads on.

    On a terminal what items are called stands in columns; elsewhere each line is made as its item comes.
    """
    states = max(map(len, view.row_type.outcomes))
    size = PAGE if output.out.is_terminal and not output.json else 1
    async with aclosing(_pages(view.rows(wanted), size)) as pages:
        async for page in pages:
            rows = [item_row(item, held=view.holder is not None) for item in page]
            reads = output.line(view.row_type.whole(rows[0])) if output.json else output.put(_listed(rows, states))
            if not reads:
                return
    if not output.json:
        await _summary(view, output)


async def _pages(items: AsyncGenerator[Item], size: int) -> AsyncGenerator[list[Item]]:
    page: list[Item] = []
    async with aclosing(items):
        async for item in items:
            page.append(item)
            if len(page) == size:
                yield page
                page = []
    if page:
        yield page


def _listed(rows: Sequence[Row], states: int) -> str:
    """Return a line for each row: state, key and authority aligned, then the facts that there are, with two blanks."""
    heads = [(words(row["state"]), plain(row["key"]), plain(row.get("authority_status") or "")) for row in rows]
    _, keys, authority = (min(WIDE, max(map(len, column))) for column in zip(*heads, strict=True))
    lines = []
    for (state, key, status), row in zip(heads, rows, strict=True):
        ids = dict.fromkeys((row["request_id"], row["invoice_id"]))
        cells = [state.ljust(states), key.ljust(keys), status.ljust(authority)]
        cells += [plain(fact) for fact in (*ids, row["path"], reason(row, ids=False)) if fact]
        lines.append("  ".join(filter(None, cells)).rstrip() + "\n")
    return "".join(lines)


async def _summary(view: RunView, output: Output) -> None:
    """Show what is to be settled, and below it how the run stands: the end of a long list is what is seen."""
    if (number := view.counts.get("in_doubt")) and not view.moved:
        doubts = await view.ledger.rows(view.now.recorded(("in_doubt",)), limit=SHOWN)
        show_doubts(output, view.file, doubts, number, late=lateness(view.ledger))
    if output.out.is_terminal:
        await show_table(view, output)
        output.say("")
        output.facts(await view.facts())
        view.watch.show(output, view.file)
        if not view.holder:
            show_tasks(view, output)
        return
    authority, total = view.authority, Count("total", f"{sum(view.counts.values()):,}")
    rows = counted(view.row_type, view.counts, total, authority.refused)
    output.counts(f"{view.row_type.title} of {view.file}", rows)
    if authority.counts:
        output.say(f"   {authority_note(authority.counts)}", "dim")
    output.say("")
    output.facts(await view.facts())
    view.watch.show(output, view.file)
    steps = [] if view.holder else list(view.steps(each=False))
    if steps:
        output.say("\n Next")
    for step in steps:
        output.say(f"   {step}")


@app.command
async def resume(
    file: RunFile,
    /,
    *,
    wait: bool = True,
    verify: bool = True,
    export: ExportFormat | None = None,
    to: PlaceOption = None,
    layout: str | None = None,
    timeout: Seconds = 300.0,
    report: ReportFile = None,
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
    wait
        E-invoices: --no-wait only submits, and neither waits nor exports.
    verify
        Hash the files that the run saved before; --no-verify takes them as recorded.
    export
        E-invoices: save each invoice that has no file yet so, with --to if the run has no folder.
    to
        The folder for what is not saved yet, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX.
    layout
        The file below that folder: {key}, {request_id} and {invoice_id} of e-invoices, {order_id} of order documents,
        {date:%Y/%m}, {shard}.
    """
    common, pace = common or Common(), pace or RateOptions()
    settings, output = common.settings(), Output.of(common)
    context = RunContext(output=output, settings=settings, common=common, pace=pace, file=file, report=report)
    poller = checked(lambda: Poller(timeout=timeout), "--timeout")
    async with entered(read_run(file)) as ledger:
        kind = ledger.kind
    if kind is RunKind.INVOICES:
        wanted = AskedExport.of(export, to, layout)

        async def submit(run: InvoiceRun, summary: InvoiceSummary) -> None:
            await agree(run, wanted)
            await submit_run(run, summary, poller=poller if wait else None, verify=verify)

        context.check(settings.invoices)
        return await carry_out_run(context, InvoiceRun.open(file, create=False), InvoiceSummary, submit)
    if export is not None or not wait:
        raise CommandError("--export and --no-wait are for e-invoices; this is a run of order documents")
    if layout is not None:
        checked(lambda: Layout(layout), "--layout")

    async def download(run: DocumentRun, summary: DocumentSummary) -> None:
        if to is not None or layout is not None:
            await run.move(folder=None if to is None else place_of(to), layout=layout)
        await download_run(run, summary, verify=verify)

    context.check(settings.documents)
    return await carry_out_run(context, DocumentRun.open(file), DocumentSummary, download)


@app.command
async def verify(file: RunFile, /, *, report: ReportFile = None, common: Local | None = None) -> int:
    """Read and hash every file that a run saved. Nothing is changed and no service is asked.

    Exit code 0: all are as recorded; 1: some are missing or broken, which `runs resume` fetches anew; 2: usage; 3:
    stopped; 130: interrupted.
    """
    output = Output.of(common or Local())
    again = command("runs", "verify", file)
    async with entered(read_run(file)) as ledger:
        code = await carry_out(CHECKS, output, partial(_check, ledger), report=report, resume=again)
    if code is Exit.SOME_LEFT:
        output.say(f"\n To fetch them anew\n   {command('runs', 'resume', file)}")
    return code


async def _check(ledger: LedgerReader, batch: BatchSummary) -> None:
    counts = await ledger.counts()
    documents = sum(counts.get(state, 0) for state in (DocumentState.SAVED, DocumentState.SKIPPED))
    bar = Bar("Files", None if ledger.kind is RunKind.INVOICES else documents, lambda: batch.done)
    async with live(batch.output.err, [bar], shown=batch.output.lively), aclosing(check_files(ledger)) as files:
        async for checked_file in batch.source.later(files):
            await batch.add(check_row(checked_file))


repair.add_to(app)
run_report.add_to(app)
server_runs.add_to(app)

"""`documents download`: the invoices of any number of orders, whole, into a folder."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Literal

from attrs import frozen
from cyclopts import App

from ... import Layout
from ...documents import OrderDocuments
from ...reports import DOWNLOADS, download_row
from ...runs import DocumentRun
from ...settings import Settings
from ..durable import carry_out_run, download_run, take_ids
from ..exits import CommandError, Exit, checked
from ..input.ids import SOURCE, check_form, open_ids
from ..input.options import FLAG, Common, IdSource, Place, RateOptions, ReportFile, RunOption, place_of
from ..input.runs import file_of, run_option, run_text
from ..run_kinds import DocumentSummary
from ..run_summary import RunContext
from ..summary import BatchSummary, carry_out
from ..terminal.output import Output
from ..terminal.progress import Bar, live
from ..terminal.report import spare

__all__ = ["app"]

app: App = App(name="documents")
RESUME = "Give the same ids and folder again: what is whole there is kept, only the rest is asked for."
PLAIN = "{order_id}"


@frozen(kw_only=True)
class _Order:
    """The options of a download about its files, checked."""

    ids: str
    to: str | Path
    on_existing: str
    layout: Layout
    served_name: bool
    durable: bool


@app.command
async def download(
    ids: Annotated[str, SOURCE],
    /,
    *,
    to: Place,
    run: RunOption = None,
    verify: bool = True,
    on_existing: Literal["keep", "new-name", "replace"] = "keep",
    layout: str = PLAIN,
    served_name: Annotated[bool, FLAG] = False,
    durable: Annotated[bool, FLAG] = False,
    report: ReportFile = None,
    id_source: IdSource | None = None,
    pace: RateOptions | None = None,
    common: Common | None = None,
) -> int:
    """Download the invoice of every order, each whole or not at all.

    With --run RUN every outcome is kept as it comes: in a run file (a database on a local disk) or, with the address
    of a database server, where any number of machines can work on it (`worker`). After a stop, a crash or kill -9,
    `runs resume RUN` goes on where it ended: files of the run are verified by size and hash, and
    only what is missing, broken, deferred or failed is asked for. Giving the same command again does the same, and
    more ids may be added so. The report has every item of the run. `runs show FILE` tells how a run stands, also while
    it goes on.

    Exit code 0: all done; 1: some failed or were deferred; 2: usage or input, or another process holds the run;
    3: stopped before the end, go on as it says; 130: interrupted.

    Parameters
    ----------
    ids
        A file with one order id a line, or - for stdin; CSV with --column, JSONL with --field.
    to
        The folder for the documents, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX.
    run
        Keep every outcome in this file, or at postgresql://HOST/DATABASE?run=NAME, and be able to go on; it is made if
        it is not there.
    verify
        With --run: hash what the run saved before; --no-verify takes it as recorded.
    on_existing
        When the name is taken: keep a whole PDF and ask for nothing, take a new name, or replace it.
    layout
        The file below the folder: {order_id}, {date:%Y/%m}, {shard}.
    served_name
        Take the file's name from the service.
    durable
        Wait for every file to be on the disk before it counts as saved.
    """
    common, pace, id_source = common or Common(), pace or RateOptions(), id_source or IdSource()
    output, settings = Output.of(common), common.settings()
    place = run_option(run)
    spare(report, ids, file_of(place))
    order = _Order(
        ids=ids,
        to=place_of(to),
        on_existing=on_existing.replace("-", " "),
        layout=checked(lambda: Layout(layout), "--layout"),
        served_name=served_name,
        durable=durable,
    )
    if place is not None:
        file = run_text(place)
        context = RunContext(output=output, settings=settings, common=common, pace=pace, file=file, report=report)
        return await _download_durably(context, order, id_source, verify=verify)
    if not verify:
        raise CommandError("--no-verify is for --run FILE")
    return await _download(output, settings, order, id_source, pace, report)


async def _download(
    output: Output, settings: Settings, order: _Order, id_source: IdSource, pace: RateOptions, report: Path | None
) -> Exit:
    async def work(batch: BatchSummary) -> None:
        session = batch.monitor.session(settings.documents, pace)
        batch.stop.then(session.stop_waiting)
        with open_ids(order.ids, id_source, batch.source.stop) as found:
            bar = Bar("Order documents", found.about, lambda: batch.done, batch.monitor.note)
            async with session, live(output.err, [bar], shown=output.lively):
                outcomes = OrderDocuments(session).download_many(
                    batch.source.items(found.items),
                    order.to,
                    on_existing=order.on_existing,
                    durable=order.durable,
                    layout=order.layout,
                    served_name=order.served_name,
                )
                async with aclosing(outcomes):
                    async for outcome in outcomes:
                        await batch.add(download_row(outcome))

    return await carry_out(DOWNLOADS, output, work, report=report, resume=RESUME)


async def _download_durably(context: RunContext, order: _Order, id_source: IdSource, *, verify: bool) -> Exit:
    context.check(context.settings.documents)
    check_form(order.ids, id_source)

    async def work(run: DocumentRun, summary: DocumentSummary) -> None:
        given = {
            "layout": (order.layout.pattern, PLAIN),
            "served_name": (order.served_name, False),
            "durable": (order.durable, False),
            "on_existing": (order.on_existing, "keep"),
        }
        # Only what is not the default was asked for, and may contradict what the run was begun with.
        differing = run.differing({name: value for name, (value, default) in given.items() if value != default})
        for name, recorded in differing.items():
            text = f"--{name.replace('_', '-')}: this run was begun with {recorded!r}, which holds for all of it"
            raise CommandError(text, hint="`runs resume FILE` goes elsewhere with --to and --layout.")
        with open_ids(order.ids, id_source, summary.stop) as found:
            await take_ids(run, summary, found.items, found.about)
        await download_run(run, summary, verify=verify)

    opening = DocumentRun.open(
        context.file,
        folder=order.to,
        layout=order.layout.pattern,
        served_name=order.served_name,
        durable=order.durable,
        on_existing=order.on_existing,
    )
    return await carry_out_run(context, opening, DocumentSummary, work)

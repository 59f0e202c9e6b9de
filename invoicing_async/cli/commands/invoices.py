"""`invoices submit | wait | status | example`: e-invoices from drafts to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, nullcontext
from itertools import starmap
from typing import Annotated
from uuid import UUID

from attrs import define, field
from cyclopts import App, Parameter

from ...drafts import Drafts, Format, dump_draft, example_csv, example_draft
from ...errors import SubmissionInDoubtError
from ...invoices import AsyncInvoices, SubmitOutcome
from ...models import InDoubt, InvoiceDraft, Submitted, Unsettled
from ...polling import Poller
from ...reports import (
    SUBMISSIONS,
    WAITS,
    Row,
    bad_draft_row,
    reason,
    refused_by_authority,
    repeated_draft_row,
    request_row,
    submission_row,
)
from ...runs import InvoiceRun
from ...settings import Settings
from ..durable import agree, carry_out_run, submit_run, take_drafts
from ..exits import CommandError, Exit, checked
from ..input.drafts import DRAFTS_HELP, Reading, read_drafts
from ..input.exports import AskedExport, ExportFormat
from ..input.ids import SOURCE, Ids, open_ids
from ..input.options import FLAG, Common, IdSource, PlaceOption, RateOptions, ReportFile, RunOption, Seconds
from ..input.runs import file_of, run_option, run_text
from ..run_kinds import InvoiceSummary
from ..run_summary import RunContext
from ..stop import until_none
from ..summary import BatchSummary, carry_out, words
from ..terminal.output import Output, plain
from ..terminal.progress import Bar, live
from ..terminal.report import spare

__all__ = ["Settling", "app"]

app: App = App(name="invoices")
RESUME_SUBMIT = (
    "Submit again only drafts that have no outcome or are not_sent; for the submitted ones there is `invoices wait`."
)
RESUME_WAIT = "The operations go on at the service: give the same ids again."
SHOWN = 20
"""Keys in doubt that are named on the output."""


@app.command
async def submit(
    drafts: Annotated[str, SOURCE, Parameter(help=DRAFTS_HELP)],
    /,
    *,
    run: RunOption = None,
    wait: Annotated[bool, FLAG] = False,
    export: ExportFormat | None = None,
    to: PlaceOption = None,
    layout: str | None = None,
    skip_invalid: Annotated[bool, FLAG] = False,
    timeout: Seconds = 300.0,
    report: ReportFile = None,
    reading: Reading | None = None,
    pace: RateOptions | None = None,
    common: Common | None = None,
) -> int:
    """Submit every draft of a file once. Nothing is sent if any of them breaks a documented limit.

    With --run RUN the intent to send a draft is on disk before its first byte leaves, and the answer as soon as it
    is there: in a run file or, with the address of a database server, where any number of machines can work on it
    (`worker`). A key is submitted once in a run, ever: after a stop, a crash or kill -9 the same command, or
    `runs resume RUN`, sends what was not sent and waits for what was. What was on its way when the process died is
    in doubt and is never sent again on its own: `runs resolve RUN KEY` tells the run what became of it. The report
    has every item of the run.

    Exit code 0: all were taken (with --wait, all are SUCCESS and none is refused by the tax authority); 1: some
    failed, were refused, are invalid or in doubt; 2: usage or faults in the file, or another process holds the run;
    3: stopped before the end, go on as it says; 130: interrupted.

    Parameters
    ----------
    run
        Keep every step in this file, or at postgresql://HOST/DATABASE?run=NAME, and be able to go on; it is made if it
        is not there.
    wait
        Wait until each is SUCCESS or FAILED.
    export
        With --run and --to: wait, and save each invoice as it finishes; the run keeps that for `runs resume`.
    to
        The folder for what is exported, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX.
    layout
        The file below that folder: {key} by default, {request_id}, {invoice_id}, {date:%Y/%m}, {shard}.
    skip_invalid
        Send the drafts without faults even if others have some. A faulty row of column names is never skipped.
    """
    common, pace = common or Common(), pace or RateOptions()
    output, settings = Output.of(common), common.settings()
    wanted, poller = AskedExport.of(export, to, layout), checked(lambda: Poller(timeout=timeout), "--timeout")
    place = run_option(run)
    wanted.check_for(place)
    spare(report, drafts, file_of(place))
    found = read_drafts(drafts, settings.names(), reading)
    if found.head or (found.bad and not skip_invalid):
        return _refuse(found, output)
    if place is not None:
        file = run_text(place)
        context = RunContext(output=output, settings=settings, common=common, pace=pace, file=file, report=report)
        context.check(settings.invoices)

        async def submit_durably(run: InvoiceRun, summary: InvoiceSummary) -> None:
            await agree(run, wanted)
            await take_drafts(run, summary, found)
            await submit_run(run, summary, poller=poller if wait or wanted else None, verify=False)

        return await carry_out_run(context, InvoiceRun.open(context.file), InvoiceSummary, submit_durably)

    async def work(batch: BatchSummary) -> None:
        batch.source.taken += len(found.bad) + len(found.repeated)
        for row in [*map(bad_draft_row, found.bad), *starmap(repeated_draft_row, found.repeated)]:
            await batch.add(row)
        await _submit(batch, settings, pace, found, poller if wait else None)

    return await carry_out(SUBMISSIONS, output, work, report=report, resume=RESUME_SUBMIT)


def _refuse(found: Drafts, output: Output) -> int:
    faults = [fault for bad in found.bad for fault in bad.faults]
    for bad in found.bad:
        output.line(SUBMISSIONS.whole(bad_draft_row(bad)))
    for fault in faults:
        output.err.print(plain(fault), markup=False, soft_wrap=True)
    if found.head:
        raise CommandError("nothing was sent: the row of column names has faults, so no cell can be trusted")
    raise CommandError(
        f"nothing was sent: {len(faults):,} faults in {len(found.bad):,} of {found.count:,} drafts",
        hint="Correct them, or send the others with --skip-invalid.",
    )


async def _submit(
    batch: BatchSummary, settings: Settings, pace: RateOptions, found: Drafts, poller: Poller | None
) -> None:
    session = batch.monitor.session(settings.invoices, pace)
    batch.stop.then(session.stop_waiting)
    total = found.count
    settling = Settling(batch, poller, found.lines)
    bars = [Bar("Submitted" if poller else "E-invoices", total, lambda: settling.answered, batch.monitor.note)]
    if poller:
        bars.append(Bar("Settled", total, lambda: batch.done))
    output = batch.output
    async with session, live(output.err, bars, shown=output.lively):
        invoices = settings.e_invoices(session, rounding=found.rounding)
        await settling.run(invoices, invoices.submit_many(settling.begun(found.good)))


@define
class Settling:
    """Requests on their way to their end, and the drafts that are submitted: each leaves as one row in the batch.

    Without a `poller` a submission is the end. `lines` tells where in the input a key stands.
    """

    batch: BatchSummary
    poller: Poller | None
    lines: dict[str, int] = field(factory=dict)
    answered: int = 0
    _open: dict[str, InvoiceDraft] = field(factory=dict, init=False)
    _waiting: dict[str, list[Row]] = field(factory=dict, init=False)
    _handed: asyncio.Queue[str | None] = field(factory=asyncio.Queue, init=False)

    def begun(self, drafts: Iterable[InvoiceDraft]) -> Iterator[InvoiceDraft]:
        """Yield the drafts to be submitted, remembering each until it has its answer."""
        for draft in self.batch.source.now(drafts):
            self._open[draft.key] = draft
            yield draft

    async def given(self, ids: Iterable[str] | AsyncIterable[str], bar: Bar) -> AsyncIterator[str]:
        """Yield the request ids to be awaited, remembering each until it has its end; `bar` shows how many came."""
        seen = set[str]()
        async for text in self.batch.source.later(ids):
            number = _uuid(text)
            bar.total = self.batch.source.taken
            if number in seen:
                await self.batch.add({"request_id": number, "outcome": "duplicate"})
                continue
            seen.add(number)
            self._waiting[number] = [{"request_id": number, "outcome": "submitted"}]
            yield number

    async def run(self, invoices: AsyncInvoices, outcomes: AsyncGenerator[SubmitOutcome]) -> None:
        """Take every outcome, and with a poller wait for what was submitted. Raises what ends the batch.

        However it ends, every draft that was begun gets its row: what has no answer is in doubt, what was submitted
        and not awaited to its end stays submitted.
        """
        waiting = asyncio.create_task(self._wait(invoices, until_none(self._handed)))
        try:
            try:
                await self._take(outcomes)
            finally:
                self._handed.put_nowait(None)
                if self._waiting:
                    await self._unless_stopped(waiting)
        finally:
            await self._end(waiting)
            for draft in self._open.values():
                error = SubmissionInDoubtError("interrupted before an answer came", key=draft.key)
                await self.batch.add(submission_row(InDoubt(draft, error), line=self.lines.get(draft.key)))
            if keys := [plain(key) for key in self._open]:
                more = f" and {len(keys) - SHOWN:,} more" if len(keys) > SHOWN else ""
                self.batch.output.problem(f"in doubt: {', '.join(keys[:SHOWN])}{more}", SubmissionInDoubtError.hint)

    async def wait(self, invoices: AsyncInvoices, ids: AsyncIterator[str]) -> None:
        """Wait for requests that were submitted before; one whose end did not come stays submitted."""
        waiting = asyncio.create_task(self._wait(invoices, ids))
        try:
            await self._unless_stopped(waiting)
        finally:
            await self._end(waiting)

    async def _take(self, outcomes: AsyncGenerator[SubmitOutcome]) -> None:
        async with aclosing(outcomes):
            async for outcome in outcomes:
                self._open.pop(outcome.draft.key, None)
                self.answered += 1
                row = submission_row(outcome, line=self.lines.get(outcome.draft.key))
                if self.poller is None or not isinstance(outcome, Submitted) or outcome.request.terminal:
                    await self.batch.add(row)
                else:
                    request_id = outcome.request.request_id.lower()
                    self._waiting.setdefault(request_id, []).append(row)
                    self._handed.put_nowait(request_id)

    async def _wait(self, invoices: AsyncInvoices, ids: AsyncIterator[str]) -> None:
        async with aclosing(invoices.wait_many(ids, poller=self.poller)) as ends:
            async for end in ends:
                if isinstance(end, Unsettled):
                    self.batch.note_error(end.error)
                for row in self._waiting.pop(end.request_id.lower(), []):
                    await self.batch.add(row | request_row(end))

    async def _unless_stopped(self, waiting: asyncio.Task[None]) -> None:
        """Wait for the task, but no longer than until a stop is asked for; raise what it raised."""
        stopped = asyncio.create_task(self.batch.stop.wait())
        try:
            await asyncio.wait([waiting, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if waiting.done():
            waiting.result()
        else:
            self.batch.source.cut = True

    async def _end(self, waiting: asyncio.Task[None]) -> None:
        """End the task, and enter what it did not see the end of."""
        waiting.cancel()
        await asyncio.wait([waiting])
        for rows in self._waiting.values():
            for row in rows:
                await self.batch.add(row | {"error": "the wait was stopped"})


@app.command
async def wait(
    ids: tuple[str, ...] = (),
    /,
    *,
    from_: Annotated[str | None, SOURCE, Parameter(name="--from")] = None,
    timeout: Seconds = 300.0,
    report: ReportFile = None,
    id_source: IdSource | None = None,
    pace: RateOptions | None = None,
    common: Common | None = None,
) -> int:
    """Wait until each request is SUCCESS or FAILED.

    Exit code 0: all are SUCCESS; 1: some FAILED, are refused by the tax authority or are not final yet; 2: usage or
    settings; 3: stopped; 130: interrupted. The operations go on anyway.

    Parameters
    ----------
    ids
        The request ids.
    from_
        Read the ids from this file, or - for stdin; CSV with --column, JSONL with --field.
    """
    common, pace, id_source = common or Common(), pace or RateOptions(), id_source or IdSource()
    if bool(ids) == bool(from_):
        raise CommandError("give request ids, or --from FILE")
    spare(report, from_)
    output, settings = Output.of(common), common.settings()

    async def work(batch: BatchSummary) -> None:
        settling = Settling(batch, Poller(timeout=timeout))
        session = batch.monitor.session(settings.invoices, pace)
        batch.stop.then(session.stop_waiting)
        bar = Bar("E-invoices", None, lambda: batch.done, batch.monitor.note)
        with open_ids(from_, id_source, batch.stop) if from_ else nullcontext(Ids(ids)) as found:
            async with session, live(output.err, [bar], shown=output.lively):
                await settling.wait(settings.e_invoices(session), settling.given(found.items, bar))

    return await carry_out(WAITS, output, work, report=report, resume=RESUME_WAIT)


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise CommandError(f"a request id must be a UUID, got {text!r}") from None


@app.command
async def status(request_id: str, /, *, common: Common | None = None) -> int:
    """Ask once what became of a request. Exit code 1 if it FAILED, or the tax authority refuses the invoice.

    Parameters
    ----------
    request_id
        The id that its submission gave.
    """
    common = common or Common()
    output, settings = Output.of(common), common.settings()
    number = _uuid(request_id)
    async with settings.invoices() as session:
        invoices = settings.e_invoices(session)
        row = request_row(await invoices.status(number))
    output.line(WAITS.whole(row))
    if not output.json:
        output.facts((words(name), str(value)) for name, value in row.items() if value is not None)
    if row["outcome"] != "failed" and not refused_by_authority(row):
        return Exit.DONE
    if output.quiet:
        output.amiss(f"{row['outcome']}  {number}  {plain(reason(row))}")
    return Exit.SOME_LEFT


@app.command(name="example")
def show_example(
    *,
    count: int = 1,
    format_: Annotated[Format, Parameter(name="--format")] = "jsonl",
) -> int:
    """Print drafts as JSONL or CSV, to begin a file with.

    Parameters
    ----------
    count
        How many.
    format_
        What the file is to be; a CSV has one invoice line a row and every column there is.
    """
    output = Output.of(Common())
    if format_ == "csv":
        output.out.print(example_csv(count), markup=False, soft_wrap=True, end="")
        return Exit.DONE
    for number in range(1, count + 1):
        output.out.print(dump_draft(example_draft(number)), markup=False, soft_wrap=True)
    return Exit.DONE

"""`worker`: one of any number of processes that work on a run on a database server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ...polling import Poller
from ...runs import DocumentRun, InvoiceRun, RunKind, read_run
from ..durable import agree, carry_out_run, download_run, entered, submit_run
from ..exits import CommandError, checked
from ..input.exports import AskedExport, ExportFormat
from ..input.options import FLAG, Common, RateOptions, ReportFile, Seconds
from ..input.runs import server_run
from ..run_kinds import DocumentSummary, InvoiceSummary
from ..run_summary import RunContext
from ..terminal.output import Output

__all__ = ["worker"]

WATCHDOG = 60.0
"""Seconds for which the loop, or the heartbeat, of a worker may stand still before its process is ended."""


async def worker(
    *,
    run: Annotated[str, Parameter(help="The run: postgresql://HOST/DATABASE?run=NAME.")],
    slots: int = 8,
    until_done: Annotated[bool, FLAG] = False,
    status: Path | None = None,
    pooled: Annotated[bool, FLAG] = False,
    export: ExportFormat | None = None,
    to: Path | None = None,
    layout: str | None = None,
    timeout: Seconds = 300.0,
    report: ReportFile = None,
    pace: RateOptions | None = None,
    common: Common | None = None,
) -> int:
    """Work on a run on a database server, beside any number of others; SIGTERM lets what is in flight finish.

    Parameters
    ----------
    slots
        How many pieces of the run, of a few hundred items each, are in hand at once.
    until_done
        End with exit code 0 when nothing is left that anybody could do now. Without it the worker stays until SIGTERM
        or Ctrl-C (3), a second one (130: what is in flight is then in doubt), or until it cannot go on working (70).
    status
        Write what the worker does to this file every 5 seconds, as one line of JSON, for a liveness probe. A worker
        whose loop stands still for a minute ends itself.
    pooled
        The database is behind a pooler in transaction mode: hold no connection to listen by.
    export
        E-invoices: with --to, save each invoice as it finishes; the run keeps that, for every worker.
    to
        The folder for what is exported.
    layout
        The file below that folder: {key} by default, {request_id}, {invoice_id}, {date:%Y/%m}, {shard}.
    """
    common, pace = common or Common(), pace or RateOptions()
    output, settings, where = Output.of(common), common.settings(), server_run(run, "--run")
    wanted, poller = AskedExport.of(export, to, layout), checked(lambda: Poller(timeout=timeout), "--timeout")
    checked(lambda: _in_a_folder(status), "--status")
    work: dict[str, Any] = {"slots": slots, "until_done": until_done, "is_pooled": pooled, "watchdog": WATCHDOG}
    context = RunContext(
        output=output,
        settings=settings,
        common=common,
        pace=pace,
        file=where,
        report=report,
        work=work,
        is_worker=True,
        status=status,
    )
    async with entered(read_run(where)) as ledger:
        kind = ledger.kind
    if kind is RunKind.INVOICES:
        context.check(settings.invoices)

        async def submit(opened: InvoiceRun, summary: InvoiceSummary) -> None:
            await agree(opened, wanted)
            await submit_run(opened, summary, poller=poller, verify=False)

        return await carry_out_run(context, InvoiceRun.open(where, create=False), InvoiceSummary, submit)
    if wanted:
        raise CommandError("--export, --to and --layout are for e-invoices; this is a run of order documents")
    context.check(settings.documents)

    async def download(opened: DocumentRun, summary: DocumentSummary) -> None:
        await download_run(opened, summary, verify=False)

    return await carry_out_run(context, DocumentRun.open(where), DocumentSummary, download)


def _in_a_folder(file: Path | None) -> None:
    """Raise `ValueError` if the folder of a file is not there: a probe would take the worker for dead."""
    if file is not None and not file.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {file.parent}")

"""`demo`: the whole library at work against both services in miniature, on this machine, without a key."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from attrs import evolve, frozen

from ...auth import HmacAuth, OAuthClientCredentials
from ...clock import RealClock
from ...documents import OrderDocuments
from ...drafts import example_draft
from ...errors import InvoicingError
from ...invoices import AsyncInvoices
from ...models import InvoiceDraft
from ...policies import Limits, RetryPolicy
from ...polling import Poller
from ...reports import DOWNLOADS, SUBMISSIONS, download_row
from ...sandbox import Faults, Sandbox, SandboxSettings, demo_orders
from ...session import Session
from ..exits import CommandError, Exit
from ..input.options import FLAG, Common
from ..serving import served
from ..stop import CountedInput, Stop, listening
from ..summary import BatchSummary
from ..terminal.output import Count, Output
from ..terminal.progress import Bar, live
from .invoices import Settling

__all__ = ["Script", "demo"]

LATENCY = 0.12
CONCURRENCY = 4
SETTLING = (0.3, 2.0)
"""Seconds after which an e-invoice is done, least and most."""

RETRY = RetryPolicy(first=0.2, ceiling=1.0)
POLLER = Poller(first=0.3, factor=1.2, ceiling=0.6)
_clock = RealClock()


@frozen
class Script:
    """What the demo makes happen: every fifth order is unavailable at first, every fifteenth not eligible yet."""

    orders: tuple[str, ...]
    drafts: tuple[InvoiceDraft, ...]
    seed: int

    @classmethod
    def of(cls, orders: int, invoices: int, seed: int) -> Script:
        """Make up this many orders and drafts. Raises `CommandError` for a number below 0."""
        if min(orders, invoices) < 0:
            raise CommandError("--orders and --invoices must be 0 or more")
        return cls(demo_orders(orders, seed=seed), tuple(_draft(number) for number in range(1, invoices + 1)), seed)

    @property
    def unavailable(self) -> dict[str, int]:
        """Orders whose first call, or first two, are answered SYS_DEP_503."""
        return {order: 1 + index // 5 % 2 for index, order in enumerate(self.orders) if index % 5 == 1}

    @property
    def not_eligible(self) -> frozenset[str]:
        """Orders that are answered ORDER_021."""
        return frozenset(order for index, order in enumerate(self.orders) if index % 15 == 7)  # noqa: PLR2004 - as said

    def sandbox(self) -> Sandbox:
        """Build the services that play it."""
        faults = Faults(
            unavailable=self.unavailable,
            not_eligible=self.not_eligible,
            failed_share=0.15,
            seconds_until_done=SETTLING,
        )
        return Sandbox(SandboxSettings(seed=self.seed, latency=LATENCY), faults=faults)


def _draft(number: int) -> InvoiceDraft:
    draft = example_draft(number)
    lines = tuple(
        evolve(line, quantity=Decimal(number), amount=line.price * number - (line.discount_amount or 0))
        for line in draft.lines
    )
    return evolve(draft, lines=lines)


async def demo(
    *,
    orders: int = 40,
    invoices: int = 25,
    seed: int = 0,
    to: Path = Path("demo-invoices"),
    quiet: Annotated[bool, FLAG] = False,
) -> int:
    """Download invoices and settle e-invoices against both services in miniature. No key, no network.

    Parameters
    ----------
    orders
        How many order invoices to download.
    invoices
        How many e-invoices to submit.
    seed
        What ids and fates are drawn from.
    to
        The folder for the documents.
    quiet
        Show only what went wrong.
    """
    script, output = Script.of(orders, invoices, seed), Output.of(Common(quiet=quiet))
    source = CountedInput(Stop(lambda: output.problem("stopping: what is in flight finishes")))
    play = _DemoRun(script, script.sandbox(), output, CountedInput(source.stop), source, to)
    with listening(source.stop):
        return await play.run()


class _DemoRun:
    """One performance of a script."""

    def __init__(
        self, script: Script, sandbox: Sandbox, output: Output, orders: CountedInput, drafts: CountedInput, folder: Path
    ) -> None:
        if folder.exists() and not folder.is_dir():
            raise CommandError(f"--to: {folder} is not a folder")
        self.script = script
        self.sandbox = sandbox
        self.output = output
        self.folder = folder
        self.downloads = _RecordingSummary(DOWNLOADS, evolve(output, quiet=True), orders, None)
        self.submissions = _RecordingSummary(SUBMISSIONS, evolve(output, quiet=True), drafts, None)
        self.settling = Settling(self.submissions, POLLER)

    async def run(self) -> Exit:
        begun = _clock.monotonic()
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            where = await enter(served(self.sandbox))
            self.output.say("\n invoicing-async demo: both services in miniature on this machine\n", "bold")
            self.output.say(f" Order documents  {where.documents}")
            self.output.say(f" E-invoices       {where.invoices}")
            if self.output.lively:
                self.output.say("")
            known, limits = self.sandbox.credentials, Limits(concurrency=CONCURRENCY)
            shared: dict[str, Any] = {"retry": RETRY, "limits": limits}
            partner, client = HmacAuth(**known.partner()), OAuthClientCredentials(**known.client())
            download, submit = self.downloads.monitor, self.submissions.monitor
            documents = await enter(download.session(partial(Session, where.documents, auth=partner, **shared)))
            invoices = await enter(submit.session(partial(Session, where.invoices, auth=client, **shared)))
            await enter(live(self.output.err, self._bars(), shown=self.output.lively))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._download(OrderDocuments(documents)))
                    group.create_task(self._submit(AsyncInvoices(invoices)))
            except* (InvoicingError, OSError) as several:
                raise several.exceptions[0] from None
        self._show(_clock.monotonic() - begun)
        return self._code()

    def _bars(self) -> list[Bar]:
        orders, drafts = len(self.script.orders), len(self.script.drafts)
        return [
            Bar(" Order documents", orders, lambda: self.downloads.done, self.downloads.monitor.note),
            Bar(" E-invoices sent", drafts, lambda: self.settling.answered, self.submissions.monitor.note),
            Bar(" E-invoices final", drafts, lambda: self.submissions.done),
        ]

    async def _download(self, documents: OrderDocuments) -> None:
        ids = self.downloads.source.items(self.script.orders)
        async with aclosing(documents.download_many(ids, self.folder)) as outcomes:
            async for outcome in outcomes:
                await self.downloads.add(download_row(outcome))

    async def _submit(self, invoices: AsyncInvoices) -> None:
        await self.settling.run(invoices, invoices.submit_many(self.settling.begun(self.script.drafts)))

    def _show(self, seconds: float) -> None:
        orders, drafts = self.downloads.counts, self.submissions.counts
        others = self.submissions.done - drafts.get("success", 0) - drafts.get("failed", 0)
        for title, rows in {
            "Order documents": (
                ("saved", orders.get("saved"), "whole PDFs, proved before they got their name", "green"),
                ("retried", self.downloads.retried, "of them answered SYS_DEP_503 first", ""),
                ("skipped", orders.get("skipped"), "there before, whole; not asked for again", "green"),
                ("deferred", orders.get("deferred"), "ORDER_021: the order is not eligible yet", "yellow"),
                ("failed", orders.get("failed"), "no document", "red"),
            ),
            "E-invoices": (
                ("SUCCESS", drafts.get("success"), "submitted once, awaited to the end", "green"),
                ("FAILED", drafts.get("failed"), "the service's own answer, as scripted here", "yellow"),
                ("others", others, "without an end", "red"),
            ),
        }.items():
            self.output.counts(title, [Count(name, str(n), meaning, style) for name, n, meaning, style in rows if n])
        self.output.say(f"\n Time   {seconds:.1f} s\n Files  {self.folder.resolve()}\n")

    def _code(self) -> Exit:
        if self.downloads.source.cut or self.submissions.source.cut:
            return Exit.STOPPED
        if faults := [*self.unlike_script()]:
            self.output.problem(f"not as scripted: {', '.join(faults)}")
            return Exit.SOME_LEFT
        return Exit.DONE

    def unlike_script(self) -> list[str]:
        """Name what did not end as the sandbox meant it to."""
        ends = {number: made.outcome.value.lower() for number, made in self.sandbox.created.items()}
        wrong = [
            order
            for order, end in self.downloads.ends.items()
            if end not in {"deferred" if order in self.script.not_eligible else "saved", "skipped"}
        ]
        wrong += [key for key, end in self.submissions.ends.items() if end != ends.get(self.submissions.requests[key])]
        missing = len(self.script.orders) + len(self.script.drafts) - self.downloads.done - self.submissions.done
        return wrong + [f"{missing} without an outcome"] * bool(missing)


class _RecordingSummary(BatchSummary):
    """A summary that also remembers how each item ended."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type] # handed on as they are
        self.ends: dict[str, str] = {}
        self.requests: dict[str, str] = {}
        self.retried = 0

    async def add(self, row: dict[str, object]) -> None:
        """Enter one outcome."""
        name = str(row[self.shown.name])
        self.ends[name] = str(row["outcome"])
        self.requests[name] = str(row.get("request_id"))
        attempts = row.get("attempts")
        self.retried += isinstance(attempts, int) and attempts > 1 and row["outcome"] == "saved"
        await super().add(row)

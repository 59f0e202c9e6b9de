"""The client of service B."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from decimal import Decimal
from pathlib import PurePath

from .._core.tasks import started
from .._einvoices.poll_scheduler import Schedule
from .._einvoices.shape import WireNames
from .._files.places import Where
from .._files.publish import OnExisting
from ..errors import InvoicingError
from ..models import InvoiceDraft, InvoiceRequest, SavedDocument, Unsettled
from ..policies import RetryPolicy
from ..session import Session
from ..session._session import internals_of
from ._calls import Endpoints
from ._kept import MAX_BYTES
from ._submissions import Submissions, SubmitOutcome, judge_outcome
from ._waiting import AnyUuid, Collector, Single, Told, checked_uuid
from ._waits import schedule_of
from ._work import InvoiceWork

__all__ = ["AsyncInvoices", "work_of"]


class AsyncInvoices:
    """The e-invoices of one tenant. `names` and `endpoints` hold what the service's documents leave open.

    Both are those of the session's settings by default, if it has some (`Session.from_env`).
    `rounding` is the unit to which line amounts may have been rounded, as `Decimal(1)`; None: they are exact.
    Cancelling a wait leaves the operation alone; cancelling a submission leaves it in doubt.
    """

    def __init__(
        self,
        session: Session,
        *,
        names: WireNames | None = None,
        endpoints: Endpoints | None = None,
        max_bytes: int = MAX_BYTES,
        rounding: Decimal | None = None,
    ) -> None:
        self._work = InvoiceWork(
            internals_of(session), names=names, endpoints=endpoints, max_bytes=max_bytes, rounding=rounding
        )

    async def submit(
        self, draft: InvoiceDraft, *, before: Callable[[], Awaitable[None]] | None = None
    ) -> InvoiceRequest:
        """Submit a draft once and return the service's request, which may be terminal at once.

        Tried again only if the draft provably was not sent, or a declared answer refused it for now (SYS_DEP_503,
        429). Raises `DraftError` with every fault before anything is sent, `SubmissionInDoubtError` if the
        invoice may exist, `ApiError` for a refusal, `TransportError` (`sent` is "no") if it never left.
        `before` is awaited before each attempt's first byte, for a journal of your own.
        """
        return await self._work.calls.submit(self.encode(draft), draft.key, None, before, None)

    def encode(self, draft: InvoiceDraft) -> bytes:
        """Return the body that a submission sends. Raises `DraftError` with every fault."""
        return self._work.calls.encode(draft)

    async def status(self, request_id: AnyUuid, *, retry: RetryPolicy | None = None) -> InvoiceRequest:
        """Ask once what became of a request (README B.2). Raises `ValueError` for an id that is no UUID."""
        return await self._work.calls.status(checked_uuid(request_id, "request_id"), retry=retry)

    async def create(self, draft: InvoiceDraft, *, poller: Schedule | Iterable[float] | None = None) -> InvoiceRequest:
        """Submit a draft and wait for its end; raises as `submit` and `wait` do.

        What the wait raises carries the request that was made, as `created_request_id`: wait for that, never submit
        the draft again.
        """
        request = await self.submit(draft)
        if request.terminal:
            return request
        try:
            return await self.wait(request.request_id, poller=poller)
        except InvoicingError as error:
            # The same error may be told to others who wait for the same request: it is theirs too.
            error.created_request_id = request.request_id
            raise

    async def wait(self, request_id: AnyUuid, *, poller: Schedule | Iterable[float] | None = None) -> InvoiceRequest:
        """Poll until the request is SUCCESS or FAILED and return its last answer; both are answers.

        `poller` is a `Poller` or any iterable of waits in seconds. The same request awaited in several places is
        polled once, as the most eager of them wants it. The last poll begins by the end of the poller's time. A poll
        that fails is made up for by later ones, further and further apart. Raises `PollTimeoutError` when the time is
        spent, the last error when too many polls failed for too long (`Poller.errors`, `Poller.error_time`), and what
        polling again cannot mend: a declared refusal (400, 410, 422 and the like), a 403 or, after
        `Poller.not_found_grace`, a 404 that two polls in a row meet, and `AuthenticationError` when the credential is
        refused for good.
        """
        self._work.session.check_usable()
        number = checked_uuid(request_id, "request_id")
        with Told.waiting(self._work.session, number) as told:
            single = Single(schedule_of(poller), told)
            try:
                self._work.scheduler.watch(number, single)
                return await single.future
            finally:
                await self._work.scheduler.unwatch(number, single)

    async def wait_many(
        self,
        request_ids: Iterable[AnyUuid] | AsyncIterable[AnyUuid],
        *,
        poller: Schedule | Iterable[float] | None = None,
    ) -> AsyncGenerator[InvoiceRequest | Unsettled]:
        """Wait for any number of requests and yield each one's end, as they finish.

        An async iterable may go on giving ids while others are waited for. A request whose wait ends without an
        answer is given as `Unsettled`; a credential that is refused for good ends all waits so. First polls are spread
        over the first wait, but for a schedule that learns. An id given twice counts once. Raises `ValueError` for what
        is neither text nor a UUID when it is come to, after the waits that were begun.
        """
        self._work.session.check_usable()
        told = Told.if_heard(self._work.session)
        collector = Collector(schedule_of(poller, many=True), self._work.scheduler, told)
        reader = started(collector.read(request_ids))
        try:
            async with aclosing(collector.results(reader)) as results:
                async for result in results:
                    yield result
        finally:
            await collector.leave(reader)

    async def export(
        self,
        invoice_id: AnyUuid,
        folder: Where,
        *,
        format: str = "pdf",  # noqa: A002 - the service's own name
        poller: Schedule | Iterable[float] | None = None,
        on_existing: OnExisting | str = OnExisting.KEEP,
        durable: bool = False,
        name: str | PurePath | None = None,
        since: float | None = None,
    ) -> SavedDocument:
        """Save the document of a finished invoice, "pdf" or "xml", whole (README B.3).

        Asks until the service has built it, then downloads its link, without credentials, and where a redirect of
        that leads; a link that has expired or is not there yet is asked for again, for ten seconds and five
        times in a row, all within the poller's time.
        `invoice_id` is `InvoiceRequest.data.id`; `name` the file below `folder`, by default the id's own. A file there
        that is older than `since`, in epoch seconds, is another invoice's: it stays, and a free name is taken.
        `folder` may be the address of an object store, as `s3://bucket/prefix`, or a `stores.Store`; nothing is
        replaced there.

        Raises `ExportError` if the service cannot build it or the link's host does not give it, `PollTimeoutError`
        when the poller's time is spent before there was a link, otherwise as a download does.
        """
        return await self._work.export(
            invoice_id,
            folder,
            format=format,
            poller=poller,
            on_existing=on_existing,
            durable=durable,
            name=name,
            since=since,
        )

    def submit_many(
        self, drafts: Iterable[InvoiceDraft] | AsyncIterable[InvoiceDraft], *, concurrency: int | None = None
    ) -> AsyncGenerator[SubmitOutcome]:
        """Submit any number of drafts and yield one outcome for each, as they finish, in bounded memory.

        One key is sent once: later drafts with it are given as `Duplicate`. It begins with one draft and has one more
        under way with each that is taken, up to `concurrency`. A credential that is refused for good ends the batch
        (one stray 401 does not), and so does one and the same trouble that meets the first `Limits.stop_after`, with a
        `BatchStoppedError`: what is in flight finishes, the rest is given as `NotSent` (of drafts without a length,
        which may be endless, no more than come at once), then the error is raised. Once one was taken, it takes that
        many more than `concurrency` side by side, or ten times `stop_after` refusals of drafts. What `drafts` raises is
        raised after the outcomes of what it gave. Leaving early leaves in doubt what is in flight; a durable run keeps
        account of that.
        """
        batch = Submissions(self._work.calls)
        return self._work.each(
            drafts,
            batch.submitted,
            concurrency=concurrency,
            on_not_started=batch.abandoned,
            cancel=False,
            judge=judge_outcome,
        )


def work_of(invoices: AsyncInvoices) -> InvoiceWork:
    """Return what a run goes through; users have the methods of `AsyncInvoices`."""
    return invoices._work  # noqa: SLF001 - the one door to it

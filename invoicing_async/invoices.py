"""E-invoices (API.md B): submit drafts, await what becomes of them, fetch the finished documents.

A submission whose answer was lost is never sent again: `fate` says of every failure what it means for the
invoice, and what may have been created is a `SubmissionInDoubtError`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from enum import Enum
from functools import lru_cache, partial
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, urlsplit

from attrs import frozen

from ._batch import bounded
from ._disk import DiskWriter, OnExisting, Published, whole_document
from ._download import Kind, Pdf, Place, Receiver, Xml
from ._http import Repeat, Request, Response
from ._naming import file_name
from ._rules import UUID
from ._scheduler import Result, Schedule, Scheduler
from ._seen import Seen
from ._wire import (
    Export,
    WireNames,
    decode_export,
    decode_request,
    encode_draft,
    encode_dumped,
    error_from,
    load_draft,
)
from .errors import (
    ApiError,
    AuthenticationError,
    DraftError,
    ExportError,
    InvoicingError,
    PollTimeoutError,
    RateLimitError,
    ServiceUnavailableError,
    SessionError,
    SubmissionInDoubtError,
)
from .events import OperationPolled, UnknownStatus
from .models import (
    InDoubt,
    Invalid,
    InvoiceDraft,
    InvoiceRequest,
    NotSent,
    Rejected,
    RequestStatus,
    SavedDocument,
    Submitted,
    Unsettled,
)
from .policies import RetryPolicy
from .polling import Poller
from .session import Session, Sleep

__all__ = ["AsyncInvoices", "Fate", "SubmitOutcome", "WireNames", "fate"]

SubmitOutcome: TypeAlias = Submitted | Rejected | InDoubt | Invalid | NotSent

_log = logging.getLogger("invoicing_async")
_JSON = {"Accept": "application/json"}

ANSWER_LIMIT = 16 * 2**20
"""The longest JSON answer that is read: an invoice of some ten thousand lines."""

BREATH = 500
"""Ids read in one go."""

MAX_BYTES = 256 * 2**20
_CLIENT_ERRORS = 4
"""The first digit of a status by which the service says that the request itself is at fault."""

# A link's host may say what kind of bytes it sends less exactly than the service itself.
_KINDS: dict[str, Kind] = {
    "pdf": Pdf(frozenset({"application/pdf", "application/octet-stream", "binary/octet-stream"})),
    "xml": Xml(frozenset({"application/xml", "text/xml", "application/octet-stream", "binary/octet-stream"})),
}


class Fate(Enum):
    """What a failed submission means for the invoice."""

    NOT_SENT = "not sent"
    """Its first byte never left: no invoice, safe to send again."""
    REFUSED_FOR_NOW = "refused for now"
    """The service declared that it did not take it this time: no invoice, safe to send again."""
    REJECTED = "rejected"
    """The service declared the draft itself at fault: no invoice, sending it again changes nothing."""
    IN_DOUBT = "in doubt"
    """It may exist: never to be sent again before that is settled."""


def fate(error: InvoicingError) -> Fate:
    """Tell what the failure of a submission means: pure, and the one place where it is decided (API.md B.1).

    Only a declared answer counts as a refusal: the SYS_DEP_503 envelope, 429, 401, and the statuses from 400 to
    499. A bare 5xx, a redirect, an answer that is not as documented and silence leave the invoice in doubt.
    """
    if error.sent == "no":
        return Fate.NOT_SENT
    match error:
        case AuthenticationError() | RateLimitError():
            return Fate.REFUSED_FOR_NOW
        case ServiceUnavailableError() if error.declared:
            return Fate.REFUSED_FOR_NOW
        case ApiError() if error.status // 100 == _CLIENT_ERRORS or (error.declared and error.status // 100 == 2):  # noqa: PLR2004 - 2xx
            return Fate.REJECTED
        case _:
            return Fate.IN_DOUBT


@frozen(kw_only=True)
class Endpoints:
    """The methods and paths of service B, `{}` standing for the id; the first document names no status endpoint."""

    create: str = "/v2/ob/invoices"
    status_method: str = "POST"
    status: str = "/v2/ob/invoices/by-request-id/{}"
    export: str = "/v2/ob/invoices/{}/export"


class AsyncInvoices:
    """The e-invoices of one tenant. `names` and `endpoints` hold what the service's documents leave open.

    Cancelling a wait leaves the operation alone; cancelling a submission leaves it in doubt.
    """

    def __init__(
        self,
        session: Session,
        *,
        names: WireNames | None = None,
        endpoints: Endpoints | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._session = session
        self._names = names or WireNames()
        self._endpoints = endpoints or Endpoints()
        self._max_bytes = max_bytes
        self._unknown: set[str] = set()
        self._scheduler = Scheduler(
            self._polled,
            clock=session.clock,
            concurrency=session.limits.concurrency,
            fatal=session.ends_batch,
            heard=self._heard,
        )

    async def submit(
        self,
        draft: InvoiceDraft,
        *,
        sleep: Sleep | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
        leaves: Callable[[], None] | None = None,
    ) -> InvoiceRequest:
        """Submit a draft once and give the service's request, which may be terminal at once.

        Tried again only if the draft provably was not sent, or a declared answer refused it for now (SYS_DEP_503,
        429). Raises `DraftError` with every fault before anything is sent, `SubmissionInDoubtError` if the
        invoice may exist, `ApiError` for a refusal, `TransportError` (`sent` is "no") if it never left.
        `before` is awaited before each attempt's first byte and `leaves` called when that is about to leave; `sleep`
        replaces the wait between attempts.
        """
        return await self._submitted(self.encode(draft), draft.key, sleep, before, leaves)

    async def submit_dumped(
        self,
        dump: str,
        key: str,
        *,
        sleep: Sleep | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
        leaves: Callable[[], None] | None = None,
    ) -> InvoiceRequest:
        """Do as `submit` with a draft without faults, given as the text that `dump_draft` wrote of it."""
        body = encode_dumped(dump, names=self._names) or self.encode(load_draft(dump))
        return await self._submitted(body, key, sleep, before, leaves)

    async def _submitted(
        self,
        body: bytes,
        key: str,
        sleep: Sleep | None,
        before: Callable[[], Awaitable[None]] | None,
        leaves: Callable[[], None] | None,
    ) -> InvoiceRequest:
        sent_at = None

        def leaving() -> None:
            nonlocal sent_at
            sent_at = self._session.clock.now()
            if leaves is not None:
                leaves()

        try:
            return await self._session.call(
                self._creation(body), self._read, sleep=sleep, before=before, leaves=leaving
            )
        except InvoicingError as error:
            if fate(error) is not Fate.IN_DOUBT:
                raise
            raise _in_doubt(error, key, body, sent_at) from error

    @property
    def concurrency(self) -> int:
        """The session's limit, which batches take for their own."""
        return self._session.limits.concurrency

    def ends_batch(self, error: BaseException) -> bool:
        """Tell whether the next call would meet `error` too; see `Session.ends_batch`."""
        return self._session.ends_batch(error)

    @property
    def sleep(self) -> Sleep:
        """How the session waits."""
        return self._session.clock.sleep

    def encode(self, draft: InvoiceDraft) -> bytes:
        """Give the body that a submission sends. Raises `DraftError` with every fault."""
        return encode_draft(draft, names=self._names)

    def _creation(self, body: bytes) -> Request:
        return Request(
            method="POST",
            path=self._endpoints.create,
            headers=_JSON | {"Content-Type": "application/json"},
            body=body,
            repeat=Repeat.IF_NOT_SENT,
            operation="create_invoice",
        )

    async def status(self, request_id: str, *, retry: RetryPolicy | None = None) -> InvoiceRequest:
        """Ask once what became of a request (API.md B.2). Raises `ValueError` for an id that is no UUID."""
        return await self._asked(_uuid(request_id, "request_id"), retry)

    def _asked(self, request_id: str, retry: RetryPolicy | None) -> Coroutine[Any, Any, InvoiceRequest]:
        request = Request(
            method=self._endpoints.status_method,
            path=self._endpoints.status.format(request_id),
            headers=_JSON,
            operation="invoice_status",
        )
        return self._session.call(request, partial(self._read, request_id=request_id), retry=retry)

    async def _read(self, response: Response, *, request_id: str | None = None) -> InvoiceRequest:
        body = await response.read(ANSWER_LIMIT)
        self._refuse(response, body)
        return decode_request(body, request_id=request_id, status=response.status)

    async def _read_export(self, response: Response) -> Export:
        body = await response.read(ANSWER_LIMIT)
        self._refuse(response, body)
        return decode_export(body)

    def _refuse(self, response: Response, body: bytes) -> None:
        """Raise the error envelope that may come under a 2xx."""
        if b'"success"' not in body:
            return
        error = error_from(response.status, response.header, body, now=self._session.clock.now())
        if error is not None:
            raise error

    async def create(self, draft: InvoiceDraft, *, poller: Schedule | Iterable[float] | None = None) -> InvoiceRequest:
        """Submit a draft and wait for its end; raises as `submit` and `wait` do."""
        request = await self.submit(draft)
        return request if request.terminal else await self.wait(request.request_id, poller=poller)

    async def wait(self, request_id: str, *, poller: Schedule | Iterable[float] | None = None) -> InvoiceRequest:
        """Poll until the request is SUCCESS or FAILED and give its last answer; both are answers.

        `poller` is a `Poller` or any iterable of waits in seconds. The same request awaited in several places is
        polled once, as the most eager of them wants it. The last poll begins by the end of the poller's time. A poll
        that fails is made up for by later ones, further and further apart. Raises `PollTimeoutError` when the time is
        spent, the last error when too many polls failed for too long (`Poller.errors`, `Poller.error_time`), and what
        polling again cannot mend: a declared refusal (400, 410, 422 and the like), a 403 or, after
        `Poller.not_found_grace`, a 404 that two polls in a row meet, and `AuthenticationError` when the credential is
        refused for good.
        """
        self._session.check_usable()
        number = _uuid(request_id, "request_id")
        single = _Single(_schedule(poller))
        self._scheduler.watch(number, single)
        try:
            return await single.future
        finally:
            await self._scheduler.unwatch(number, single)

    async def wait_many(
        self,
        request_ids: Iterable[str] | AsyncIterable[str],
        *,
        poller: Schedule | Iterable[float] | None = None,
    ) -> AsyncGenerator[InvoiceRequest | Unsettled]:
        """Wait for any number of requests and give each one's end, as they finish.

        An async iterable may go on giving ids while others are waited for. A request whose wait ends without an
        answer is given as `Unsettled`; a credential that is refused for good ends all waits so. First polls are spread
        over the first wait, but for a schedule that learns. An id given twice counts once.
        """
        self._session.check_usable()
        collector = _Collector(_schedule(poller, many=True), self._scheduler)
        reader = asyncio.create_task(collector.read(request_ids))
        try:
            async with aclosing(collector.results(reader)) as results:
                async for result in results:
                    yield result
        finally:
            await collector.leave(reader)

    async def export(
        self,
        invoice_id: str,
        folder: str | PathLike[str],
        *,
        format: str = "pdf",  # noqa: A002 - the service's own name
        poller: Schedule | Iterable[float] | None = None,
        on_existing: OnExisting | str = OnExisting.KEEP,
        durable: bool = False,
    ) -> SavedDocument:
        """Save the document of a finished invoice, "pdf" or "xml", whole (API.md B.3).

        Asks until the service has built it, then downloads its link, without credentials. `invoice_id` is
        `InvoiceRequest.data.id`. Raises `ExportError` if the service cannot build it, `PollTimeoutError` when the
        poller's time is spent, otherwise as a download does.
        """
        if format not in _KINDS:
            raise ValueError(f"format must be one of {', '.join(_KINDS)}, got {format!r}")
        number = _uuid(invoice_id, "invoice_id")
        existing = OnExisting(on_existing)
        target = Path(folder) / file_name(number, suffix=f".{format}")
        disk = self._session.resource(DiskWriter)
        if existing is OnExisting.KEEP:
            found = await disk.run(lambda: whole_document(target, _KINDS[format].proof()))
            if found is not None:
                return _saved(number, found, attempts=0)
            existing = OnExisting.NEW_NAME
        link = await self._built(number, format, _schedule(poller))
        place = Place(folder=Path(folder), target=target, on_existing=existing, durable=durable)
        return _saved(number, await self._fetched(link, _KINDS[format], place, disk), attempts=1)

    async def _built(self, invoice_id: str, kind: str, schedule: Schedule) -> str:
        """Ask for the export until it is done and give its link."""
        clock = self._session.clock
        begun, attempt = clock.monotonic(), 0
        request = Request(
            method="POST",
            path=self._endpoints.export.format(invoice_id),
            query=f"format={kind}",
            headers=_JSON,
            operation="export_invoice",
        )
        while True:
            export = await self._session.call(request, self._read_export)
            if export.status == "FAIL":
                raise ExportError(f"the service could not build the {kind} of {invoice_id}", invoice_id=invoice_id)
            if export.status == "DONE" and export.download_url is not None:
                return export.download_url
            attempt, elapsed = attempt + 1, clock.monotonic() - begun
            wait = schedule.delay(attempt, elapsed, chance=clock.random())
            if wait is None or (schedule.timeout is not None and elapsed >= schedule.timeout):
                text = f"the {kind} of {invoice_id} is {export.status} after {elapsed:g} s"
                raise PollTimeoutError(text, request_id=invoice_id, polls=attempt)
            await clock.sleep(wait)

    async def _fetched(self, link: str, kind: Kind, place: Place, disk: DiskWriter) -> Published:
        receiver = Receiver(kind, self._session.clock, self._session.timeouts, self._max_bytes)

        async def read(response: Response) -> bytes | Published:
            return await receiver.receive(response, disk, place)

        body = await self._session.call(_link_request(link), read)
        if isinstance(body, Published):
            return body
        return await disk.store(place.folder, place.target, body, on_existing=place.on_existing, durable=place.durable)

    async def submit_many(
        self, drafts: Iterable[InvoiceDraft] | AsyncIterable[InvoiceDraft], *, concurrency: int | None = None
    ) -> AsyncGenerator[SubmitOutcome]:
        """Submit any number of drafts and give one outcome for each, as they finish, in bounded memory.

        A credential that is refused for good ends the batch (one stray 401 does not): what is in flight finishes, the
        rest is given as `NotSent`, then the
        error is raised. Leaving early leaves in doubt what is in flight; a durable run keeps account of that.
        """
        outcomes = bounded(
            drafts,
            self._submission,
            concurrency=concurrency or self._session.limits.concurrency,
            sleep=self._session.clock.sleep,
            abandoned=_abandoned,
            cancel=False,
        )
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome

    async def _submission(self, draft: InvoiceDraft, sleep: Sleep) -> SubmitOutcome:
        try:
            return Submitted(draft, await self.submit(draft, sleep=sleep))
        except DraftError as error:
            return Invalid(draft, error)
        except SubmissionInDoubtError as error:
            return InDoubt(draft, error)
        except InvoicingError as error:
            if self._session.ends_batch(error):
                raise
            return Rejected(draft, error) if fate(error) is Fate.REJECTED else NotSent(draft, error)
        except Exception as error:  # noqa: BLE001 - whatever it was, it may have come after the first byte
            return InDoubt(draft, _chained(error, draft))

    def _polled(self, request_id: str, seconds: float) -> Coroutine[Any, Any, InvoiceRequest]:
        return self._asked(request_id, _one_poll(seconds))

    def _heard(self, answer: InvoiceRequest, polls: int) -> None:
        session = self._session
        if not isinstance(answer.status, RequestStatus) and answer.status not in self._unknown:
            self._unknown.add(answer.status)
            _log.warning("unknown request status %r is treated as not terminal", answer.status)
            session.tell(UnknownStatus(request_id=answer.request_id, status=answer.status))
        if session.on_event is not None:
            session.tell(OperationPolled(request_id=answer.request_id, status=str(answer.status), polls=polls))


@lru_cache(maxsize=16)
def _one_poll(seconds: float) -> RetryPolicy:
    # A failed poll is made up for by the next one on the schedule, not by a retry of its own.
    return RetryPolicy(attempts=1, deadline=seconds)


def _uuid(text: object, name: str) -> str:
    if not isinstance(text, str) or not UUID.fullmatch(text):
        raise ValueError(f"{name} must be a UUID (8-4-4-4-12 hex digits), got {text!r}")
    return text


def _in_doubt(error: Exception, key: str, body: bytes, sent_at: float | None) -> SubmissionInDoubtError:
    doubt = SubmissionInDoubtError(
        f"invoice {key!r} may or may not have been created: {error}",
        key=key,
        body_sha256=sha256(body).hexdigest(),
        sent_at=sent_at,
    )
    doubt.attempts = getattr(error, "attempts", ())
    return doubt


def _chained(error: Exception, draft: InvoiceDraft) -> SubmissionInDoubtError:
    doubt = SubmissionInDoubtError(f"invoice {draft.key!r} may or may not have been created: {error!r}", key=draft.key)
    doubt.__cause__ = error
    return doubt


def _abandoned(draft: InvoiceDraft, error: BaseException) -> SubmitOutcome:
    return NotSent(draft, error if isinstance(error, Exception) else SessionError("the batch was left"))


def _link_request(link: str) -> Request:
    parts = urlsplit(link)
    return Request(
        method="GET",
        path=quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._"),
        query=quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]"),
        base_url=f"{parts.scheme}://{parts.netloc}",
        authorised=False,
        operation="download_export",
    )


def _saved(invoice_id: str, found: Published, *, attempts: int) -> SavedDocument:
    return SavedDocument(order_id=invoice_id, path=found.path, size=found.size, sha256=found.sha256, attempts=attempts)


class _Waits:
    """Somebody's own waits as a schedule that gives up when they end.

    A sequence serves any number of operations, an iterator, which has a state, only one.
    """

    timeout: float | None = None
    poll_timeout = Poller().poll_timeout
    errors = Poller().errors

    def __init__(self, waits: Iterable[float]) -> None:
        self._listed = tuple(map(_checked_wait, waits)) if isinstance(waits, Sequence) else None
        self._others = iter(waits)

    def delay(self, attempt: int, elapsed: float = 0.0, *, chance: float = 0.0) -> float | None:
        if self._listed is not None:
            return self._listed[attempt - 1] if attempt <= len(self._listed) else None
        wait = next(self._others, None)
        return None if wait is None else _checked_wait(wait)

    def learn(self, after: float, by: float, *, done: bool) -> None:
        """Waits that are given learn nothing."""


def _checked_wait(wait: object) -> float:
    if isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait < float("inf"):
        raise ValueError(f"a wait of the poller must be a finite number of 0 or more, got {wait!r}")
    return wait


def _schedule(poller: Schedule | Iterable[float] | None, *, many: bool = False) -> Schedule:
    if poller is None:
        return Poller()
    if not isinstance(poller, Iterable):
        return poller
    if many and not isinstance(poller, Sequence):
        raise ValueError("poller must be a Poller or a sequence of waits: an iterator can serve one operation only")
    return _Waits(poller)


class _Single:
    """One task that waits for one operation."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.future: asyncio.Future[InvoiceRequest] = asyncio.get_running_loop().create_future()

    def deliver(self, request_id: str, result: Result) -> None:
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class _Collector:
    """Gathers the ends of many operations for one consumer."""

    def __init__(self, schedule: Schedule, scheduler: Scheduler) -> None:
        self.schedule = schedule
        self._scheduler = scheduler
        self._ready: deque[InvoiceRequest | Unsettled] = deque()
        self._outstanding = 0
        self._seen = Seen()
        self._news: asyncio.Future[None] | None = None

    def deliver(self, request_id: str, result: Result) -> None:
        self._outstanding -= 1
        self._give(_unsettled(request_id, result) if isinstance(result, Exception) else result)

    def _give(self, result: InvoiceRequest | Unsettled) -> None:
        self._ready.append(result)
        self._tell()

    def _tell(self, _: object = None) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def read(self, request_ids: Iterable[str] | AsyncIterable[str]) -> None:
        """Watch what is given, leaving the loop a breath now and then."""
        if isinstance(request_ids, AsyncIterable):
            async for request_id in request_ids:
                self._watch(request_id)
            return
        for count, request_id in enumerate(request_ids, 1):
            self._watch(request_id)
            if count % BREATH == 0:
                await asyncio.sleep(0)

    def _watch(self, request_id: str) -> None:
        try:
            number = _uuid(request_id, "request_id")
        except ValueError as error:
            self._give(Unsettled(request_id, error))
            return
        if self._seen.add(number):
            self._outstanding += 1
            self._scheduler.watch(number, self, spread=True)

    async def results(self, reader: asyncio.Task[None]) -> AsyncGenerator[InvoiceRequest | Unsettled]:
        """Give what ends until the reader is through and nothing is outstanding. Raises what the reader raised."""
        reader.add_done_callback(self._tell)
        while self._ready or self._outstanding or not reader.done():
            if self._ready:
                yield self._ready.popleft()
            else:
                self._news = asyncio.get_running_loop().create_future()
                await self._news
        reader.result()

    async def leave(self, reader: asyncio.Task[None]) -> None:
        """Stop reading and watching."""
        reader.cancel()
        await asyncio.wait([reader])
        if not reader.cancelled():
            # Raised by `results` already, or nobody is left to hear it.
            reader.exception()
        await self._scheduler.unwatch_all(self)


def _unsettled(request_id: str, error: Exception) -> Unsettled:
    last = error.last if isinstance(error, PollTimeoutError) else None
    return Unsettled(request_id, error, last.status if isinstance(last, InvoiceRequest) else RequestStatus.NEW)

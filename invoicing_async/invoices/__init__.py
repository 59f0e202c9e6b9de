"""E-invoices (API.md B): submit drafts, await what becomes of them, fetch the finished documents.

A submission whose answer was lost is never sent again: `fate` says of every failure what it means for the
invoice, and what may have been created is a `SubmissionInDoubtError`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import aclosing
from decimal import Decimal
from functools import lru_cache, partial
from hashlib import sha256
from os import PathLike
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from attrs import define, evolve, field, frozen

from .._core.answers import named_ids
from .._core.batch import Careful, bounded
from .._core.causes import of_submission
from .._core.envelope import error_from
from .._core.http import Repeat, Request, Response
from .._core.outcomes import Fate, fate
from .._core.ramp import Cause, Verdict
from .._core.tasks import started
from .._einvoices.decode import Export, decode_export, decode_request
from .._einvoices.draft_json import load_draft
from .._einvoices.encode import encode_draft, encode_dumped
from .._einvoices.poll_scheduler import Result, Schedule, Scheduler
from .._einvoices.rules import JUDGED, UUID, canonical_key, rounding_unit
from .._einvoices.shape import WireNames
from .._files.body import Place
from .._files.existing import Published, whole_document
from .._files.kinds import Kind
from .._files.names import file_name, parsed
from .._files.publish import OnExisting
from .._files.writer import DiskWriter
from .._values.digest_set import Seen
from ..errors import (
    ApiError,
    DraftError,
    InvoicingError,
    PollTimeoutError,
    ProtocolError,
    SessionError,
    SubmissionInDoubtError,
)
from ..events import OperationPolled, UnknownStatus
from ..models import (
    Duplicate,
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
from ..policies import RetryPolicy, Timeouts
from ..polling import Poller
from ..session import Session, Sleep
from ._exports import KINDS, Exporting

__all__ = ["AsyncInvoices", "Fate", "SubmitOutcome", "WireNames", "fate"]

AnyUuid: TypeAlias = str | uuid.UUID
"""An id of the service's, as it gives it or as a database does."""

SubmitOutcome: TypeAlias = Submitted | Rejected | InDoubt | Invalid | NotSent | Duplicate[InvoiceDraft]

_log = logging.getLogger("invoicing_async")
_JSON = {"Accept": "application/json"}

ANSWER_LIMIT = 16 * 2**20
"""The longest JSON answer that is read: an invoice of some ten thousand lines."""

BREATH = 500
"""Ids read in one go."""

MAX_BYTES = 256 * 2**20

CLOCKS_APART = 120.0
"""Seconds by which the clock of a file server may be behind this machine's."""


@frozen(kw_only=True)
class Endpoints:
    """The methods and paths of service B, `{}` standing for the id; the first document names no status endpoint."""

    create: str = "/v2/ob/invoices"
    status_method: str = "POST"
    status: str = "/v2/ob/invoices/by-request-id/{}"
    export: str = "/v2/ob/invoices/{}/export"


class _Calls:
    """Each call of service B: its request, and how its answer is read. `rounding` is None where amounts are exact."""

    def __init__(self, session: Session, *, names: WireNames, endpoints: Endpoints, rounding: Decimal | None) -> None:
        self.session = session
        self._names = names
        self._endpoints = endpoints
        self._rounding = rounding

    def encode(self, draft: InvoiceDraft) -> bytes:
        """Return the body that a submission sends. Raises `DraftError` with every fault."""
        return encode_draft(draft, names=self._names, rounding=self._rounding)

    def encode_dumped(self, dump: str) -> bytes:
        """Return the same of a draft without faults, given as the text that `dump_draft` wrote of it."""
        return encode_dumped(dump, names=self._names) or encode_draft(
            load_draft(dump, rounding=JUDGED), names=self._names, rounding=JUDGED
        )

    async def submit(
        self,
        body: bytes,
        key: str,
        sleep: Sleep | None,
        before: Callable[[], Awaitable[None]] | None,
        leaves: Callable[[], None] | None,
    ) -> InvoiceRequest:
        """Create an invoice, or say that it may exist; see `AsyncInvoices.submit`."""
        heard = _Heard()

        def leaving() -> None:
            heard.begin(self.session.clock.now())
            if leaves is not None:
                leaves()

        read = partial(self._read_creation, heard)
        try:
            return await self.session.call(self._creation(body), read, sleep=sleep, before=before, leaves=leaving)
        except InvoicingError as error:
            if fate(error) is not Fate.IN_DOUBT:
                raise
            raise _in_doubt(error, key, body, heard) from error

    def _creation(self, body: bytes) -> Request:
        return Request(
            method="POST",
            path=self._endpoints.create,
            headers=_JSON | {"Content-Type": "application/json"},
            body=body,
            repeat=Repeat.IF_NOT_SENT,
            operation="create_invoice",
        )

    def status(self, request_id: str, retry: RetryPolicy | None) -> Coroutine[Any, Any, InvoiceRequest]:
        """Ask once what became of a request."""
        request = Request(
            method=self._endpoints.status_method,
            path=self._endpoints.status.format(request_id),
            headers=_JSON,
            operation="invoice_status",
        )
        return self.session.call(request, partial(self._read, request_id=request_id), retry=retry)

    def exportation(self, invoice_id: str, kind: str) -> Request:
        """Return the request for the link of a document."""
        return Request(
            method="POST",
            path=self._endpoints.export.format(invoice_id),
            query=f"format={kind}",
            headers=_JSON,
            operation="export_invoice",
        )

    async def _read(self, response: Response, *, request_id: str | None = None) -> InvoiceRequest:
        body = await response.read(ANSWER_LIMIT)
        self._refuse(response, body)
        return decode_request(body, request_id=request_id, status=response.status)

    async def _read_creation(self, heard: _Heard, response: Response) -> InvoiceRequest:
        """Read what a submission was answered, keeping what comes of it before anything can fail."""
        heard.status = response.status
        body = response.arrived()
        if body is None:
            await heard.read(response.chunks())
        else:
            heard.body += body
        try:
            self._refuse(response, bytes(heard.body))
            return decode_request(bytes(heard.body), status=response.status)
        except InvoicingError:
            raise
        except Exception as error:
            text, head = f"the answer could not be read: {type(error).__name__}", bytes(heard.body)
            raise ProtocolError(text, head=head, request_ids=named_ids(head)) from error

    async def read_export(self, response: Response) -> Export:
        """Read whether the document is there, and where."""
        body = await response.read(ANSWER_LIMIT)
        self._refuse(response, body)
        return decode_export(body)

    def _refuse(self, response: Response, body: bytes) -> None:
        """Raise the error envelope that may come under a 2xx."""
        if b'"success"' not in body and b"\0" not in body:  # a NUL: in UTF-16 it looks otherwise
            return
        error = error_from(response.status, response.header, body, now=self.session.clock.now())
        if error is not None:
            raise error


class _Polls:
    """The polls of status that the scheduler asks for, and what is told of their answers."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._unknown: set[str] = set()

    def ask(self, request_id: str, seconds: float) -> Coroutine[Any, Any, InvoiceRequest]:
        """Poll once, for so many seconds at most."""
        return self._calls.status(request_id, _one_poll(seconds))

    def heard(self, answer: InvoiceRequest, polls: int) -> None:
        """Tell of an answer; a status that no document names is logged once."""
        session = self._calls.session
        if not isinstance(answer.status, RequestStatus) and answer.status not in self._unknown:
            self._unknown.add(answer.status)
            _log.warning("unknown request status %r is treated as not terminal", answer.status)
            session.tell(UnknownStatus(request_id=answer.request_id, status=answer.status))
        if session.on_event is not None:
            session.tell(OperationPolled(request_id=answer.request_id, status=str(answer.status), polls=polls))


class AsyncInvoices:
    """The e-invoices of one tenant. `names` and `endpoints` hold what the service's documents leave open.

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
        self._session = session
        self._calls = _Calls(
            session,
            names=names or WireNames(),
            endpoints=endpoints or Endpoints(),
            rounding=rounding_unit(rounding),
        )
        self._max_bytes = max_bytes
        polls = _Polls(self._calls)
        self._scheduler = Scheduler(
            polls.ask,
            clock=session.clock,
            concurrency=session.limits.concurrency,
            fatal=session.ends_batch,
            heard=polls.heard,
            sleep=session.sleep,
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
        return await self._calls.submit(self.encode(draft), draft.key, sleep, before, leaves)

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
        return await self._calls.submit(self._calls.encode_dumped(dump), key, sleep, before, leaves)

    @property
    def concurrency(self) -> int:
        """The session's limit, which batches take for their own."""
        return self._session.limits.concurrency

    def ends_batch(self, error: BaseException) -> bool:
        """Tell whether the next call would meet `error` too; see `Session.ends_batch`."""
        return self._session.ends_batch(error)

    @property
    def stop_after(self) -> int | None:
        """How many of one cause end a batch, as the session's limits say."""
        return self._session.limits.stop_after

    @property
    def sleep(self) -> Sleep:
        """How the session waits."""
        return self._session.clock.sleep

    @property
    def timeouts(self) -> Timeouts:
        """The session's bounds, which say how long a submission may be on its way."""
        return self._session.timeouts

    def encode(self, draft: InvoiceDraft) -> bytes:
        """Give the body that a submission sends. Raises `DraftError` with every fault."""
        return self._calls.encode(draft)

    async def status(self, request_id: AnyUuid, *, retry: RetryPolicy | None = None) -> InvoiceRequest:
        """Ask once what became of a request (API.md B.2). Raises `ValueError` for an id that is no UUID."""
        return await self._calls.status(_uuid(request_id, "request_id"), retry)

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
        request_ids: Iterable[AnyUuid] | AsyncIterable[AnyUuid],
        *,
        poller: Schedule | Iterable[float] | None = None,
    ) -> AsyncGenerator[InvoiceRequest | Unsettled]:
        """Wait for any number of requests and give each one's end, as they finish.

        An async iterable may go on giving ids while others are waited for. A request whose wait ends without an
        answer is given as `Unsettled`; a credential that is refused for good ends all waits so. First polls are spread
        over the first wait, but for a schedule that learns. An id given twice counts once. Raises `ValueError` for what
        is neither text nor a UUID when it is come to, after the waits that were begun.
        """
        self._session.check_usable()
        collector = _Collector(_schedule(poller, many=True), self._scheduler)
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
        folder: str | PathLike[str],
        *,
        format: str = "pdf",  # noqa: A002 - the service's own name
        poller: Schedule | Iterable[float] | None = None,
        on_existing: OnExisting | str = OnExisting.KEEP,
        durable: bool = False,
        name: str | PurePath | None = None,
        since: float | None = None,
        sleep: Sleep | None = None,
    ) -> SavedDocument:
        """Save the document of a finished invoice, "pdf" or "xml", whole (API.md B.3).

        Asks until the service has built it, then downloads its link, without credentials, and where a redirect of
        that leads; a link that has expired or is not there yet is asked for again, for ten seconds and five
        times in a row, all within the poller's time.
        `invoice_id` is `InvoiceRequest.data.id`; `name` the file below `folder`, by default the id's own. A file there
        that is older than `since`, in epoch seconds, is another invoice's: it stays, and a free name is taken.
        `sleep` replaces every wait.

        Raises `ExportError` if the service cannot build it or the link's host does not give it, `PollTimeoutError`
        when the poller's time is spent before there was a link, otherwise as a download does.
        """
        if format not in KINDS:
            raise ValueError(f"format must be one of {', '.join(KINDS)}, got {format!r}")
        number = _uuid(invoice_id, "invoice_id")
        below = file_name(number, suffix=f".{format}") if name is None else name
        target = parsed(os.path.join(folder, below))  # noqa: PTH118 - a join of paths is what `parsed` avoids
        place = Place(folder=Path(folder), target=target, on_existing=OnExisting(on_existing), durable=durable)
        kept = await self._standing(place, KINDS[format], since) if place.on_existing is OnExisting.KEEP else None
        if kept is not None:
            return _saved(number, kept, attempts=0)
        exporting = Exporting(
            session=self._session,
            invoice_id=number,
            format=format,
            request=self._calls.exportation(number, format),
            read=self._calls.read_export,
            place=_beside(place),
            max_bytes=self._max_bytes,
            sleep=sleep or self._session.sleep,
        )
        return _saved(number, await exporting.saved(_schedule(poller)), attempts=1)

    async def _standing(self, place: Place, kind: Kind, since: float | None) -> Published | None:
        return await self._session.resource(DiskWriter).run(lambda: _kept(place.target, kind, since))

    async def submit_many(
        self, drafts: Iterable[InvoiceDraft] | AsyncIterable[InvoiceDraft], *, concurrency: int | None = None
    ) -> AsyncGenerator[SubmitOutcome]:
        """Submit any number of drafts and give one outcome for each, as they finish, in bounded memory.

        One key is sent once: later drafts with it are given as `Duplicate`. It begins with one draft and has one more
        under way with each that is taken, up to `concurrency`. A credential that is refused for good ends the batch
        (one stray 401 does not), and so does one and the same trouble that meets the first `Limits.stop_after`, with a
        `BatchStoppedError`: what is in flight finishes, the rest is given as `NotSent` (of drafts without a length,
        which may be endless, no more than come at once), then the error is raised. Once one was taken, it takes that
        many more than `concurrency` side by side, or ten times `stop_after` refusals of drafts. What `drafts` raises is
        raised after the outcomes of what it gave. Leaving early leaves in doubt what is in flight; a durable run keeps
        account of that.
        """
        batch = _Submissions(self._calls)
        outcomes = bounded(
            drafts,
            batch.submitted,
            concurrency=concurrency or self._session.limits.concurrency,
            sleep=self._session.clock.sleep,
            abandoned=batch.abandoned,
            cancel=False,
            careful=Careful(_judged, self._session.limits.stop_after),
        )
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome


@lru_cache(maxsize=16)
def _one_poll(seconds: float) -> RetryPolicy:
    # A failed poll is made up for by the next one on the schedule, not by a retry of its own.
    return RetryPolicy(attempts=1, deadline=seconds)


def _uuid(given: object, name: str) -> str:
    text = str(given) if isinstance(given, uuid.UUID) else given
    if not isinstance(text, str) or not UUID.fullmatch(text):
        raise ValueError(f"{name} must be a UUID (8-4-4-4-12 hex digits), got {text!r}")
    return text


@define
class _Heard:
    """What came of an answer to a submission so far, whatever becomes of the rest; of the last attempt only."""

    sent_at: float | None = None
    status: int | None = None
    body: bytearray = field(factory=bytearray)

    def begin(self, now: float) -> None:
        """Forget the attempt before: another begins now."""
        self.sent_at, self.status, self.body = now, None, bytearray()

    async def read(self, chunks: AsyncIterator[bytes]) -> None:
        """Read on to the end. Raises `ProtocolError` beyond the limit."""
        async for chunk in chunks:
            self.body += chunk
            if len(self.body) > ANSWER_LIMIT:
                text, head = f"the answer is longer than {ANSWER_LIMIT:,} bytes", bytes(self.body)
                raise ProtocolError(text, head=head, request_ids=named_ids(head))


def _in_doubt(error: InvoicingError, key: str, body: bytes, heard: _Heard) -> SubmissionInDoubtError:
    """Say that an invoice may exist, with everything that the answer said of it."""
    answer = bytes(heard.body) or error.answer
    # An answer that came whole was read; of one that broke off its beginning is searched.
    ids = error.request_ids if isinstance(error, (ApiError, ProtocolError)) else named_ids(answer)
    named = f"; the answer names {', '.join(ids)}" if ids else ""
    doubt = SubmissionInDoubtError(
        f"invoice {key!r} may or may not have been created: {error}{named}",
        key=key,
        body_sha256=sha256(body).hexdigest(),
        sent_at=heard.sent_at,
        status=heard.status or getattr(error, "status", None),
        code=getattr(error, "code", None),
        request_ids=ids,
        answer=answer,
    )
    doubt.attempts = error.attempts
    return doubt


def _chained(error: BaseException, draft: InvoiceDraft) -> SubmissionInDoubtError:
    doubt = SubmissionInDoubtError(f"invoice {draft.key!r} may or may not have been created: {error!r}", key=draft.key)
    doubt.__cause__ = error
    return doubt


class _Submissions:
    """The submissions of one batch: which keys it had, and of which drafts the first byte may have left."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._keys = Seen()
        self._left: dict[int, InvoiceDraft] = {}

    async def submitted(self, draft: InvoiceDraft, sleep: Sleep) -> SubmitOutcome:
        """Submit a draft once and give its outcome; raise only what ends the batch."""
        try:
            body = self._calls.encode(draft)
            if not self._keys.add(canonical_key(draft.key)):
                return Duplicate(draft.key, draft)
            return Submitted(draft, await self._sent(draft, body, sleep))
        except DraftError as error:
            return Invalid(draft, error)
        except SubmissionInDoubtError as error:
            return InDoubt(draft, error)
        except InvoicingError as error:
            if self._calls.session.ends_batch(error):
                self._left.pop(id(draft), None)
                raise
            return Rejected(draft, error) if fate(error) is Fate.REJECTED else NotSent(draft, error)
        except Exception as error:  # noqa: BLE001 - it may have come after the first byte
            return self.abandoned(draft, error)

    async def _sent(self, draft: InvoiceDraft, body: bytes, sleep: Sleep) -> InvoiceRequest:
        async def back_off(seconds: float) -> None:
            # Only what provably made no invoice is tried again.
            self._left.pop(id(draft), None)
            await sleep(seconds)

        def leaves() -> None:
            self._left[id(draft)] = draft

        request = await self._calls.submit(body, draft.key, back_off, None, leaves)
        self._left.pop(id(draft), None)
        return request

    def abandoned(self, draft: InvoiceDraft, error: BaseException) -> SubmitOutcome:
        """Give the outcome of a draft whose submission was cut off, or never begun: what left is in doubt."""
        if self._left.pop(id(draft), None) is not None:
            return InDoubt(draft, _chained(error, draft))
        return NotSent(draft, error if isinstance(error, Exception) else SessionError(f"the batch was left: {error!r}"))


def _judged(outcome: SubmitOutcome) -> Cause | Verdict:
    match outcome:
        case Submitted():
            return Verdict.WELL
        case Rejected(_, error) | InDoubt(_, error) | NotSent(_, error):
            return of_submission(error)
        case _:
            return Verdict.SILENT


def _kept(target: Path, kind: Kind, since: float | None) -> Published | None:
    """Give the whole document that stands there, unless it is too old to be the one that is asked for."""
    found = whole_document(target, kind.proof())
    is_older = found is not None and since is not None and target.stat().st_mtime < since - CLOCKS_APART
    return None if is_older else found


def _beside(place: Place) -> Place:
    """Return the place for what is not kept: another file of that name stays, and a free name is taken."""
    return evolve(place, on_existing=OnExisting.NEW_NAME) if place.on_existing is OnExisting.KEEP else place


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

    async def read(self, request_ids: Iterable[AnyUuid] | AsyncIterable[AnyUuid]) -> None:
        """Watch what is given, leaving the loop a breath now and then."""
        if isinstance(request_ids, AsyncIterable):
            async for request_id in request_ids:
                self._watch(request_id)
            return
        for count, request_id in enumerate(request_ids, 1):
            self._watch(request_id)
            if count % BREATH == 0:
                await asyncio.sleep(0)

    def _watch(self, request_id: AnyUuid) -> None:
        try:
            number = _uuid(request_id, "request_id")
        except ValueError as error:
            if not isinstance(request_id, str):
                raise
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

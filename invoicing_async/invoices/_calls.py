"""Each call of service B: its request, and how its answer is read."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from decimal import Decimal
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any

from attrs import Attribute, define, field, frozen

from .._core.answers import named_ids
from .._core.envelope import error_from
from .._core.http import Repeat, Request, Response
from .._core.outcomes import Fate, fate
from .._einvoices.decode import Export, decode_export, decode_request
from .._einvoices.draft_json import load_draft
from .._einvoices.encode import encode_draft, encode_dumped
from .._einvoices.rules import JUDGED
from .._einvoices.shape import WireNames
from ..errors import ApiError, InvoicingError, ProtocolError, SubmissionInDoubtError
from ..events import SubmissionInDoubt
from ..models import InvoiceDraft, InvoiceRequest
from ..policies import RetryPolicy
from ..session import Sleep, last_call
from ..session._internals import Internals

__all__ = ["STATUS", "Calls", "Endpoints"]

STATUS = "invoice_status"
"""The operation of a poll."""

_JSON = {"Accept": "application/json"}


_MAY_DECLARE = re.compile(rb'"success"|\0').search
"""Finds what an error envelope under a 2xx holds; a NUL: in UTF-16 it looks otherwise."""


_METHOD = re.compile("[A-Z]+")

CREATION = "create_invoice"
"""The operation of a submission."""

ANSWER_LIMIT = 16 * 2**20
"""The longest JSON answer that is read: an invoice of some ten thousand lines."""


def _is_path(_: object, attribute: Attribute[str], value: str) -> None:
    """Refuse a path that cannot be called: the id has its place in it once, where it has one."""
    ids = str(attribute.default).count("{}")
    if not value.startswith("/") or value.count("{") != ids or value.count("{}") != ids or value.count("}") != ids:
        wanted = "must begin with / and hold {} once" if ids else "must begin with /, without braces"
        raise ValueError(f"Endpoints.{attribute.name} {wanted}, got {value!r}")


def _is_method(_: object, attribute: Attribute[str], value: str) -> None:
    if not _METHOD.fullmatch(value):
        raise ValueError(f"Endpoints.{attribute.name} must be a method in capitals, such as GET or POST, got {value!r}")


@frozen(kw_only=True)
class Endpoints:
    """The methods and paths of service B, `{}` standing for the id; the first document names no status endpoint.

    Raises `ValueError` for a path that does not begin with a slash, or in which the place of the id is not there once,
    and for a method that is none.
    """

    create: str = field(default="/v2/ob/invoices", validator=_is_path)
    status_method: str = field(default="POST", validator=_is_method)
    status: str = field(default="/v2/ob/invoices/by-request-id/{}", validator=_is_path)
    export: str = field(default="/v2/ob/invoices/{}/export", validator=_is_path)


class Calls:
    """Each call of service B: its request, and how its answer is read. `rounding` is None where amounts are exact."""

    def __init__(self, session: Internals, *, names: WireNames, endpoints: Endpoints, rounding: Decimal | None) -> None:
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
        partial_answer = _PartialAnswer()

        def leaving() -> None:
            partial_answer.begin(self.session.clock.now())
            if leaves is not None:
                leaves()

        async def back_off(seconds: float) -> None:
            partial_answer.sent_at = None  # what was sent is known to have made nothing
            await (sleep or self.session.clock.sleep)(seconds)

        request = Request(
            method="POST",
            path=self._endpoints.create,
            headers=_JSON | {"Content-Type": "application/json"},
            body=body,
            repeat=Repeat.IF_NOT_SENT,
            operation=CREATION,
            subject=key,
        )
        read = partial(self._read_creation, partial_answer)
        try:
            return await self.session.call(request, read, sleep=back_off, before_send=before, on_send=leaving)
        except InvoicingError as error:
            if fate(error) is not Fate.IN_DOUBT:
                raise
            doubt = _in_doubt(error, key, body, partial_answer)
            self._tell_doubt(key, doubt.status, error)
            raise doubt from error
        except BaseException as error:
            if partial_answer.sent_at is not None:
                self._tell_doubt(key, partial_answer.status, error)
            raise

    def _tell_doubt(self, key: str, status: int | None, error: BaseException) -> None:
        if self.session.hears(logging.WARNING):
            about = last_call() | {"operation": CREATION, "status": status}
            self.session.tell(SubmissionInDoubt(**about, key=key, error=error))

    def status(
        self, request_id: str, seconds: float | None = None, *, retry: RetryPolicy | None = None
    ) -> Coroutine[Any, Any, InvoiceRequest]:
        """Ask once what became of a request; `seconds` bound a poll, which is not repeated by itself.

        A poll waits while the service is down.
        """
        request = Request(
            method=self._endpoints.status_method,
            path=self._endpoints.status.format(request_id),
            headers=_JSON,
            operation=STATUS,
            subject=request_id,
        )
        retry = retry if seconds is None else _one_poll(seconds)
        read = partial(self._read, request_id=request_id)
        return self.session.call(request, read, retry=retry, patient=seconds is not None)

    def age_now(self) -> float:
        """Return the monotonic time by which waits grow old: it stands still while the service is down."""
        gate = self.session.governor.gate("", STATUS, self.session.store)
        return self.session.clock.monotonic() - gate.stood_still()

    def exportation(self, invoice_id: str, kind: str) -> Request:
        """Return the request for the link of a document."""
        return Request(
            method="POST",
            path=self._endpoints.export.format(invoice_id),
            query=f"format={kind}",
            headers=_JSON,
            operation="export_invoice",
            subject=invoice_id,
        )

    async def _read(self, response: Response, *, request_id: str | None = None) -> InvoiceRequest:
        body = await response.read(ANSWER_LIMIT)
        if _MAY_DECLARE(body):
            self._raise_declared(response, body)
        return decode_request(body, request_id=request_id, status=response.status)

    async def _read_creation(self, partial_answer: _PartialAnswer, response: Response) -> InvoiceRequest:
        """Read what a submission was answered, keeping what comes of it before anything can fail."""
        partial_answer.status = response.status
        body = response.arrived()
        if body is None:
            await partial_answer.read(response.chunks())
        else:
            partial_answer.body += body
        try:
            if _MAY_DECLARE(partial_answer.body):
                self._raise_declared(response, bytes(partial_answer.body))
            return decode_request(bytes(partial_answer.body), status=response.status)
        except InvoicingError:
            raise
        except Exception as error:
            text, head = f"the answer could not be read: {type(error).__name__}", bytes(partial_answer.body)
            raise ProtocolError(text, head=head, request_ids=named_ids(head)) from error

    async def read_export(self, response: Response) -> Export:
        """Read whether the document is there, and where."""
        body = await response.read(ANSWER_LIMIT)
        if _MAY_DECLARE(body):
            self._raise_declared(response, body)
        return decode_export(body)

    def _raise_declared(self, response: Response, body: bytes) -> None:
        """Raise the error envelope that may come under a 2xx."""
        error = error_from(response.status, response.header, body, now=self.session.clock.now())
        if error is not None:
            raise error


@lru_cache(maxsize=16)
def _one_poll(seconds: float) -> RetryPolicy:
    # A failed poll is made up for by the next one on the schedule, not by a retry of its own.
    return RetryPolicy(attempts=1, deadline=seconds)


@define
class _PartialAnswer:
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


def _in_doubt(error: InvoicingError, key: str, body: bytes, partial_answer: _PartialAnswer) -> SubmissionInDoubtError:
    """Say that an invoice may exist, with everything that the answer said of it."""
    answer = bytes(partial_answer.body) or error.answer
    # An answer that came whole was read; of one that broke off its beginning is searched.
    ids = error.request_ids if isinstance(error, (ApiError, ProtocolError)) else named_ids(answer)
    named = f"; the answer names {', '.join(ids)}" if ids else ""
    doubt = SubmissionInDoubtError(
        f"invoice {key!r} may or may not have been created: {error}{named}",
        key=key,
        body_sha256=sha256(body).hexdigest(),
        sent_at=partial_answer.sent_at,
        status=partial_answer.status or getattr(error, "status", None),
        code=getattr(error, "code", None),
        request_ids=ids,
        answer=answer,
    )
    doubt.attempts = error.attempts
    return doubt

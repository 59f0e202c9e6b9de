"""What a web service of any framework needs: how errors are told to its clients, and what ends when a client leaves.

`http_status(error)` is the status alone; `http_error(error)` has the headers and the words too. The words are fixed:
none of them is the invoice service's, and none names a host, a file or a credential. What the error itself says is for
your log. `while_connected` ends a call whose client left, in FastAPI, Starlette, Litestar and all that speak ASGI.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from math import ceil, isfinite
from types import MappingProxyType

from attrs import frozen

from ._durable.records import (
    DraftConflictError,
    LedgerAwayError,
    RequestIdTakenError,
    RunFileError,
    RunLockedError,
    RunPausedError,
    SupersededError,
)
from ._durable.sheet import AnswersError
from ._durable.stop import StoppedError
from .errors import (
    ApiError,
    AuthenticationError,
    BatchStoppedError,
    DeadlineError,
    DraftError,
    ExportError,
    IncompleteDocumentError,
    InterruptedDocumentError,
    InvoicingError,
    OrderStatusError,
    OversizedDocumentError,
    PermissionDeniedError,
    PollTimeoutError,
    ProtocolError,
    RateLimitError,
    ResolutionTooEarlyError,
    ServiceDownError,
    ServiceUnavailableError,
    SessionError,
    SubmissionInDoubtError,
    TransportError,
)
from .health import Health

__all__ = [
    "JUDGED",
    "ROWS",
    "ClientGoneError",
    "HttpError",
    "HttpRow",
    "http_error",
    "http_status",
    "while_connected",
]


class ClientGoneError(InvoicingError):
    """The client left before it had an answer, and the call that was for it was ended."""

    hint = "Nobody is there to be answered."


@frozen
class HttpRow:
    """What a web service answers for one class of error: a status, a code for programs and a sentence for people."""

    status: int
    code: str
    message: str


@frozen(kw_only=True)
class HttpError:
    """What a web service answers for an error. `message` may be shown to anybody.

    `headers` are those beside the body's own: `Retry-After` in whole seconds, of a 503 and where it is known, or none.
    """

    status: int
    code: str
    message: str
    headers: Mapping[str, str]

    @property
    def body(self) -> dict[str, str]:
        """The answer's body, for JSON."""
        return {"code": self.code, "message": self.message}


LONGEST = 86_400
"""Seconds of a `Retry-After` at most, whatever a service says: a day."""
USUAL = 5
"""Seconds of the `Retry-After` of a 503 of which nobody knows better: an `OutagePolicy` asks again every four or so."""

_OURS = HttpRow(HTTPStatus.BAD_GATEWAY, "upstream_refused", "The invoice service does not let this service in.")
_DOWN = HttpRow(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The invoice service is not available; try again later.")
_BROKEN = HttpRow(HTTPStatus.BAD_GATEWAY, "bad_document", "The invoice service did not send a whole document.")
_FAILED = HttpRow(HTTPStatus.BAD_GATEWAY, "upstream_failed", "The invoice service could not carry this out.")
_ENDED = HttpRow(HTTPStatus.SERVICE_UNAVAILABLE, "closing", "This service is about to stop; try again.")
_LATE = HttpRow(HTTPStatus.GATEWAY_TIMEOUT, "deadline", "The invoice service did not answer in time.")
_FAULT = HttpRow(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "Something went wrong in this service.")
_CONFLICT = HttpRow(
    HTTPStatus.CONFLICT, "conflict", "There is another invoice of this name; give a changed one a new name."
)

ROWS: Mapping[type[BaseException], HttpRow] = MappingProxyType(
    {
        OrderStatusError: HttpRow(
            HTTPStatus.CONFLICT, "not_eligible", "The order's status does not allow an invoice yet; try again later."
        ),
        ServiceDownError: _DOWN,
        ServiceUnavailableError: _DOWN,
        # 429 would tell the client to slow down; the limit is this service's own, and all of its clients share it.
        RateLimitError: HttpRow(
            HTTPStatus.SERVICE_UNAVAILABLE, "busy", "The invoice service asks for fewer calls; try again later."
        ),
        # 401 and 403 would ask the client for a credential; the one that was refused is this service's own.
        AuthenticationError: _OURS,
        PermissionDeniedError: _OURS,
        ApiError: _FAILED,
        DeadlineError: _LATE,
        PollTimeoutError: HttpRow(
            HTTPStatus.GATEWAY_TIMEOUT, "not_done", "The invoice is not done yet; ask for it again later."
        ),
        TransportError: HttpRow(HTTPStatus.BAD_GATEWAY, "no_answer", "The invoice service gave no whole answer."),
        InterruptedDocumentError: _BROKEN,
        OversizedDocumentError: _BROKEN,
        IncompleteDocumentError: _BROKEN,
        ProtocolError: HttpRow(
            HTTPStatus.BAD_GATEWAY, "bad_answer", "The invoice service gave an answer that nobody understands."
        ),
        ExportError: HttpRow(
            HTTPStatus.BAD_GATEWAY, "no_document", "The invoice service has no document of this invoice; try again."
        ),
        # No status that proxies repeat by themselves: they must not repeat a POST after a 502 (RFC 9110, 9.2.2).
        SubmissionInDoubtError: HttpRow(
            HTTPStatus.BAD_GATEWAY, "in_doubt", "The invoice may have been made or not: do not send it again."
        ),
        DraftError: HttpRow(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "The invoice is not valid"),
        BatchStoppedError: _FAILED,
        ResolutionTooEarlyError: HttpRow(
            HTTPStatus.CONFLICT, "too_early", "What was sent may still arrive; look it up again later."
        ),
        SessionError: _ENDED,
        StoppedError: _ENDED,
        DraftConflictError: _CONFLICT,
        RequestIdTakenError: _CONFLICT,
        SupersededError: _CONFLICT,
        RunPausedError: HttpRow(
            HTTPStatus.SERVICE_UNAVAILABLE, "paused", "Invoices are not sent at this moment; try again later."
        ),
        AnswersError: HttpRow(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_answers", "The answers cannot stand"),
        RunLockedError: HttpRow(
            HTTPStatus.SERVICE_UNAVAILABLE, "held", "Another process is at work with the invoices; try again later."
        ),
        LedgerAwayError: HttpRow(
            HTTPStatus.SERVICE_UNAVAILABLE, "no_ledger", "Invoices cannot be recorded at this moment; try again later."
        ),
        RunFileError: _FAULT,
        # Nobody reads it but the access log, where this is the usual status of a client that left.
        ClientGoneError: HttpRow(499, "client_gone", "The client left."),
        InvoicingError: _FAILED,
        TimeoutError: _LATE,  # an `asyncio.timeout` around the call; it is an OSError too
        BaseException: _FAULT,  # this service's own disk (OSError), and what is no error of this library
    }
)
"""The answer for each class of error: the row of an error's own class counts, or that of the nearest one above it."""

_NOT_FOUND = HttpRow(HTTPStatus.NOT_FOUND, "not_found", "The invoice service knows no such order or invoice.")
_REFUSED = HttpRow(HTTPStatus.UNPROCESSABLE_ENTITY, "refused", "The invoice service judged the invoice and refused it.")

JUDGED: Mapping[int, HttpRow] = MappingProxyType({404: _NOT_FOUND, 400: _REFUSED, 422: _REFUSED})
"""The answer for a plain `ApiError` by its status, if the service itself gave it, in JSON.

A page or nothing (`ApiError.bare`) comes from a gateway or a wrong address, which is no fault of the client's.
"""


def http_status(error: BaseException) -> int:
    """Return the HTTP status that tells a client of a web service what this error means for it.

    Not found is 404, not eligible (ORDER_021) and another draft of the same key 409, an invalid or refused draft 422;
    down, out of reach or asking for fewer calls 503, a deadline 504, everything else that the service did 502, a
    refused credential of this service's own included; what is wrong in this service itself, as a full disk
    (`OSError`), is 500.
    """
    return int(_row(error).status)


def http_error(error: BaseException, *, health: Health | None = None) -> HttpError:
    """Return the whole answer that a client of a web service gets for this error.

    `Retry-After` stands where the error says how long to wait, with a day at most, and with every 503: where the error
    does not say it, the seconds to the next attempt at the service, if `health` (`Session.health()`) is given and there
    is a pause, or else five. The faults of an invalid draft are listed: they are of what the client sent.
    """
    row = _row(error)
    wait = _wait(error)
    if wait is None and row.status == HTTPStatus.SERVICE_UNAVAILABLE:
        lanes = health.lanes if health is not None else ()
        wait = min((lane.next_probe for lane in lanes if lane.next_probe is not None), default=USUAL)
    headers = {} if wait is None else {"Retry-After": str(max(1, ceil(min(wait, LONGEST))))}
    listed = f": {error}" if isinstance(error, (DraftError, AnswersError)) and str(error) else ""
    return HttpError(status=int(row.status), code=row.code, message=row.message + listed, headers=headers)


def _row(error: BaseException) -> HttpRow:
    row = next(ROWS[kind] for kind in type(error).__mro__ if kind in ROWS)
    if row is ROWS[ApiError] and isinstance(error, ApiError) and not error.bare:
        return JUDGED.get(error.status, row)
    # No connection is how a service that is down looks before its lane has found that out.
    return _DOWN if row is ROWS[TransportError] and isinstance(error, TransportError) and error.sent == "no" else row


def _wait(error: BaseException) -> float | None:
    """Return the seconds after which an error says that it is worth trying again."""
    match error:
        case ServiceDownError():
            seconds: float | None = error.next_probe
        case ServiceUnavailableError() | RateLimitError():
            seconds = error.retry_after
        case ResolutionTooEarlyError():
            seconds = error.remaining
        case _:
            return None
    return seconds if seconds is not None and isfinite(seconds) else None


@asynccontextmanager
async def while_connected(receive: Callable[[], Awaitable[Mapping[str, object]]]) -> AsyncIterator[None]:
    """End the block with `ClientGoneError` when the client leaves; `receive` is the ASGI one of its request.

    For what is awaited before the answer begins, as `OrderDocuments.open`: the call to the service ends too, and its
    place is free. The body of the request must have been read. Not around a submission, which would be left in doubt.
    """
    waiting = asyncio.timeout(None)
    watching: asyncio.Task[None] | None = None
    try:
        async with waiting:
            watching = asyncio.create_task(_end_when_gone(receive, waiting))
            yield
    except TimeoutError:
        if waiting.expired():
            raise ClientGoneError("the client left") from None
        raise
    finally:
        if watching is not None:
            watching.cancel()


async def _end_when_gone(receive: Callable[[], Awaitable[Mapping[str, object]]], waiting: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    waiting.reschedule(0)

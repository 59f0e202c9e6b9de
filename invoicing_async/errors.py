"""The error tree: what went wrong, whose fault it is, and what to do about it.

The type says whose side the fault is on: `DraftError` and `SessionError` are the caller's, `ApiError` is the
service's declared refusal, `ProtocolError` an answer that is not as documented, `TransportError` no whole
answer at all. A bad argument is a plain `ValueError`; trouble with the file system stays `OSError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ._values.attempts import Attempt, Fault
from ._values.skew import skew_words
from ._values.text import bounded

if TYPE_CHECKING:
    from .models import InvoiceRequest

__all__ = [
    "ApiError", "Attempt", "AuthenticationError", "BatchStoppedError", "DeadlineError", "DraftError", "ExportError",
    "Fault", "IncompleteDocumentError", "InterruptedDocumentError", "InvoicingError", "OrderStatusError",
    "OversizedDocumentError", "PermissionDeniedError", "PollTimeoutError", "ProtocolError", "RateLimitError",
    "ResolutionTooEarlyError", "ServiceDownError", "ServiceUnavailableError", "SessionError",
    "SubmissionInDoubtError", "TransportError", "hints_of",
]  # fmt: skip

Sent = Literal["no", "unknown"]
"""Whether a request may have reached the service: provably not, or not known."""

HEAD_LIMIT = 200
"""Bytes of an unexpected body that an error keeps for its reader."""

LISTED = 10
"""Faults that the message of a `DraftError` lists."""


def _rebuild(cls: type[InvoicingError], args: tuple[Any, ...], state: dict[str, Any]) -> InvoicingError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvoicingError(Exception):
    """The root of every error this library raises of its own.

    `hint` says what to do; `attempts` is the history of the call, oldest first. `sent` is "no" if the request
    it ended provably never left this machine. `answer` is the start of the answer's body (`HEAD_LIMIT` bytes) and
    `request_ids` the ids of requests that it named, where an answer came. Whatever a service's words hold, the
    message is one printable line of 2,000 characters at most.
    """

    hint: str = "See the error's type and its cause."
    attempts: tuple[Attempt, ...] = ()
    sent: Sent = "unknown"
    answer: bytes = b""
    request_ids: tuple[str, ...] = ()
    created_request_id: str | None = None
    """The request that was made before the call failed: the invoice is on its way, wait for it by this id."""

    def __init__(self, message: str = "") -> None:
        super().__init__(bounded(message))

    @property
    def message(self) -> str:
        """The text without the history."""
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle takes no read-only mapping: it goes as the dict it was made of.
        plain = {name: dict(value) for name, value in self.__dict__.items() if isinstance(value, MappingProxyType)}
        state = self.__dict__ | plain
        return _rebuild, (type(self), self.args, state)


class SessionError(InvoicingError, RuntimeError):
    """A session is used before it is open, after it is closed, or from another event loop."""

    sent: Sent = "no"
    hint = "Use the session inside its own `async with` block, in the event loop that opened it."


class TransportError(InvoicingError):
    """No whole answer came back: refused, reset, timed out, or a name that does not resolve.

    `sent` is "no" if the request's head was never written, so that sending again cannot repeat anything,
    and "unknown" otherwise.
    """

    hint = "Check the network and the base URL; the service may be restarting."

    def __init__(self, message: str = "", *, sent: Sent = "unknown") -> None:
        super().__init__(message)
        self.sent: Sent = sent


class DeadlineError(TransportError):
    """The whole-call deadline of `RetryPolicy.deadline` ended the call; the message says what it did then."""

    hint = "Raise RetryPolicy.deadline, or look at `attempts` for what took the time."


class ApiError(InvoicingError):
    """The service answered with an error.

    `code` is the code that the answer gives, None if it gives none. `message` is what the service said, in one line.
    `status` is the HTTP status, `request_id` the service's own id of the call, `context` the envelope's details,
    `retry_after` the seconds the service asks to wait, None if it does not say. `submitted_before` is true if the
    answer names a request (`request_ids`), or says that what was sent is there already; `bare` is true if it is no
    JSON, so that a gateway may have spoken, or nobody. `clock_ahead` is by how many seconds this machine's clock is
    ahead of the answer's Date (below 0: behind), None if it has none; a refusal of what was signed says so.
    """

    hint: str = "The service refused the call; its code and context say why."

    def __init__(
        self,
        message: str = "",
        *,
        status: int,
        code: str | None = None,
        request_id: str | None = None,
        hint: str | None = None,
        context: Mapping[str, object] | None = None,
        retry_after: float | None = None,
        answer: bytes = b"",
        request_ids: tuple[str, ...] = (),
        submitted_before: bool = False,
        bare: bool = False,
        clock_ahead: float | None = None,
    ) -> None:
        super().__init__(message)
        self.answer: bytes = answer[:HEAD_LIMIT]
        self.request_ids = request_ids
        self.submitted_before = submitted_before
        self.bare = bare
        self.clock_ahead = clock_ahead
        self.status = status
        self.code = code
        self.request_id = request_id
        self.context: Mapping[str, object] = MappingProxyType(dict(context or {}))
        self.retry_after = retry_after
        if hint:
            self.hint = hint

    @property
    def declared(self) -> bool:
        """True if the answer carried one of the documented codes, so that its meaning is known."""
        return self.code in CODES

    def __str__(self) -> str:
        parts = [f"HTTP {self.status}"]
        if self.code:
            parts.insert(0, self.code)
        if self.request_id:
            parts.append(f"request {self.request_id}")
        return f"{self.message or type(self).__name__} ({', '.join(parts)}){skew_words(self.status, self.clock_ahead)}"


class AuthenticationError(ApiError):
    """The service does not accept the credential (401)."""

    hint = "Check the credential, the signature settings (`invoicing-async sign`) and this machine's clock."


class PermissionDeniedError(ApiError):
    """The credential is known but may not do this (403)."""

    hint = "Ask the service's operator for the permission, or check the store the credential belongs to."


class OrderStatusError(ApiError):
    """The order's status does not allow an invoice yet (ORDER_021).

    Final for this call; the order may become eligible later, so a batch reports it as deferred.
    """

    hint = "Try again when the order has one of `allowed_substatuses`."

    @property
    def allowed_substatuses(self) -> tuple[str, ...]:
        """The substatuses the service lists, in its order; empty if it lists none."""
        listed = self.context.get("allowedSubstatuses")
        return tuple(str(item) for item in listed) if isinstance(listed, (list, tuple)) else ()


class ServiceUnavailableError(ApiError):
    """A dependency of the service is down (SYS_DEP_503), or the service or its gateway is (any other 502, 503, 504).

    Only the code SYS_DEP_503 says that nothing was carried out; see `declared`.
    """

    hint = "Temporary; it was retried as the policy says. Try again later."


class ServiceDownError(ServiceUnavailableError):
    """The service is down, as other calls of the same kind found out, so that this one was not sent.

    Or it asked to wait (Retry-After) for longer than the call may. `since` is when that began, in epoch seconds, and
    `next_probe` in how many seconds one attempt is made again.
    """

    sent: Sent = "no"
    hint = (
        "Try again later: `next_probe` says when an attempt is made again. OutagePolicy says who waits, and how long."
    )

    def __init__(self, message: str = "", *, since: float, next_probe: float) -> None:
        super().__init__(message, status=503)
        self.since = since
        self.next_probe = next_probe

    def __str__(self) -> str:
        return self.message


class RateLimitError(ApiError):
    """The service asks for fewer calls (429)."""

    hint = "Lower Limits.per_second or Limits.concurrency; `retry_after` says how long to wait."


CODES: Mapping[str, type[ApiError]] = MappingProxyType(
    {"SYS_DEP_503": ServiceUnavailableError, "ORDER_021": OrderStatusError}
)
"""The documented error codes (README A.1) and the class of each."""

STATUSES: Mapping[int, type[ApiError]] = MappingProxyType(
    {
        401: AuthenticationError,
        403: PermissionDeniedError,
        429: RateLimitError,
        **dict.fromkeys((502, 503, 504), ServiceUnavailableError),
    }
)
"""The class of an error answer whose code is unknown or absent, by its HTTP status."""


class ProtocolError(InvoicingError):
    """An answer that is not as documented. `head` is the start of its body, `status` its HTTP status.

    `request_ids` are the ids of requests that it named all the same.
    """

    hint = "Something other than the service may have answered (a proxy, a login page); look at `head`."

    def __init__(
        self,
        message: str = "",
        *,
        head: bytes = b"",
        status: int | None = None,
        request_ids: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.head: bytes = head[:HEAD_LIMIT]
        self.answer: bytes = self.head
        self.status = status
        self.request_ids = request_ids


class IncompleteDocumentError(ProtocolError):
    """A body that cannot be proved to be one whole PDF. No file was left."""

    hint = "The transfer broke off or the service sent a broken file; it was retried as the policy says."


class OversizedDocumentError(IncompleteDocumentError):
    """A document longer than `max_bytes`, by its declared length or by what came. It is not asked for again."""

    hint = "If documents may be that large, raise `max_bytes`; otherwise something else answered: look at `head`."


class InterruptedDocumentError(IncompleteDocumentError, TransportError):
    """A document's body that broke off: no whole answer, and so no whole document."""

    def __init__(self, message: str = "", *, head: bytes = b"", status: int | None = None) -> None:
        IncompleteDocumentError.__init__(self, message, head=head, status=status)


class PollTimeoutError(InvoicingError):
    """An operation was still not terminal when its poller's timeout ended; it goes on at the service.

    `request_id` names it, `last` is the last answer seen (an `InvoiceRequest`, or None), `polls` counts the
    answers. Wait again with the same id.
    """

    hint = "Wait again with the same request id; the operation was not disturbed."

    def __init__(
        self, message: str = "", *, request_id: str = "", last: InvoiceRequest | None = None, polls: int = 0
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.last = last
        self.polls = polls


class SubmissionInDoubtError(InvoicingError):
    """A submission left this machine and no usable answer came back: the invoice may or may not exist.

    It must not be sent again before that is settled (README B.1: there is no idempotency key). `key` is the
    draft's own key, `body_sha256` the digest of what was sent, `sent_at` when, in epoch seconds. What an answer said
    is kept, if one came: its HTTP `status`, its `code`, the `request_ids` that it named and the start of its body in
    `answer`.
    """

    hint = "Look the invoice up at the service by its content and time, then settle it; never send it blindly."

    def __init__(
        self,
        message: str = "",
        *,
        key: str = "",
        body_sha256: str = "",
        sent_at: float | None = None,
        status: int | None = None,
        code: str | None = None,
        request_ids: tuple[str, ...] = (),
        answer: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_ids = request_ids
        self.answer: bytes = answer[:HEAD_LIMIT]
        self.key = key
        self.body_sha256 = body_sha256
        self.sent_at = sent_at


class ResolutionTooEarlyError(InvoicingError):
    """It is too early to say that a submission in doubt was not created: what was sent may still arrive.

    `remaining` is how many seconds are left until that may be said. Nothing was changed.
    """

    sent: Sent = "no"
    hint = "Look it up again after that time: what is not there now may be there then."

    def __init__(self, message: str = "", *, remaining: float = 0.0) -> None:
        super().__init__(message)
        self.remaining = remaining


class BatchStoppedError(InvoicingError):
    """A batch was ended because its items went wrong for one and the same cause, which the rest would meet too.

    `cause` is the first error of that cause, `count` how many items had it. What was not begun was not sent.
    """

    sent: Sent = "no"
    hint = "Mend the cause, then go on: what was not sent or not started is still to be done (`runs resume`)."

    def __init__(self, message: str = "", *, cause: Exception | None = None, count: int = 0) -> None:
        super().__init__(message)
        self.cause = cause
        self.__cause__: BaseException | None = cause
        self.count = count


class ExportError(InvoicingError):
    """The document of an invoice could not be had; `invoice_id` names it.

    The service could not build it (export status FAIL), or the host that its link leads to does not give it: that one
    is named with its answer, never with the link, which holds a signature.
    """

    hint = "The invoice itself is not affected; ask for the export again later."

    def __init__(self, message: str = "", *, invoice_id: str = "") -> None:
        super().__init__(message)
        self.invoice_id = invoice_id


class DraftError(InvoicingError, ValueError):
    """A draft breaks the limits of README B.1; nothing was sent. `faults` holds every one, with its path."""

    sent: Sent = "no"
    hint = "Correct every listed field."

    def __init__(self, faults: tuple[Fault, ...] = (), *, key: str = "") -> None:
        listed = "; ".join(str(fault) for fault in faults[:LISTED])
        more = f"; and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        super().__init__(f"{listed}{more}")
        self.faults: tuple[Fault, ...] = tuple(faults)
        self.key = key


def hints_of(error: BaseException) -> tuple[str, ...]:
    """Return what to do about an error: what the service says of it, unless the error's text does, and what we say."""
    said, ours = getattr(error, "hint", ""), getattr(type(error), "hint", "")
    if not isinstance(error, ApiError) or said == ours:
        return (said,)
    return (ours,) if said in str(error) else (f"The service says: {said}", ours)

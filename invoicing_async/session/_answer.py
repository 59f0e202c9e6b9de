"""What the end of an attempt says of the service: one function, for its lane."""

from __future__ import annotations

from .._governor.lane import Answer
from ..errors import (
    ApiError,
    DeadlineError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
    SessionError,
    TransportError,
)

__all__ = ["StaleIntentError", "answer_of"]


class StaleIntentError(TransportError):
    """The intent to submit had grown too old before its first byte could be sent; it is recorded anew."""

    hint = "This process was stopped, or its disk or the connecting took long; see Timeouts.intent."


def answer_of(error: BaseException, *, has_head: bool) -> Answer:
    """Return what the error of an attempt says of the service; `has_head` if an answer had begun.

    A service that answers is not down, whatever it says, but for the answers that say so. What ended the attempt on
    this side, as a deadline or a cancellation, says nothing.
    """
    match error:
        case ServiceUnavailableError() | RateLimitError():
            return Answer.REFUSED
        case ApiError() | ProtocolError():
            return Answer.ALIVE
        case DeadlineError() | StaleIntentError() | SessionError():
            return Answer.SILENT
        case TransportError() if not has_head:
            return Answer.UNREACHABLE
        case _:
            return Answer.ALIVE if has_head and isinstance(error, Exception) else Answer.SILENT

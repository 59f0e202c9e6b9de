"""Why a call is tried again: one word for each failure."""

from __future__ import annotations

from typing import Literal

from ..errors import (
    ApiError,
    AuthenticationError,
    IncompleteDocumentError,
    InvoicingError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
)
from ..events import Reason

__all__ = ["Check", "reason_of"]

Check = Literal["clock", "credential"]
"""What a call that was refused with 401 is tried once more for."""

REASONS: tuple[tuple[type[InvoicingError], Reason], ...] = (
    (RateLimitError, "throttled"),
    (ServiceUnavailableError, "service_unavailable"),
    (AuthenticationError, "credential"),
    (ApiError, "status"),
    (IncompleteDocumentError, "incomplete"),
    (ProtocolError, "unexpected"),
)
"""The first row whose class an error is of says why; any other is one of the network."""


def reason_of(error: InvoicingError, *, check: Check | None = None, at_once: bool = False) -> Reason:
    """Return why the call that failed so is tried again; `at_once` if its attempt could not succeed."""
    if check is not None:
        return check
    if at_once:
        return "stale"
    found = next((reason for kind, reason in REASONS if isinstance(error, kind)), None)
    return found or ("timeout" if _is_late(error) else "connection")


def _is_late(error: BaseException) -> bool:
    """Tell whether a bound of time ended the attempt: the cause's name says so, since each transport has its own."""
    return "Timeout" in type(error.__cause__).__name__

"""The events of one call. Whoever calls these has asked before whether somebody listens."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from ..errors import InvoicingError
from ..events import (
    AttemptFailed,
    CallCancelled,
    CallFailed,
    CallStarted,
    ClockCorrected,
    RequestStarted,
    RequestSucceeded,
    RetryScheduled,
)
from ._log import LAST_CALL
from ._reason import Check, reason_of

if TYPE_CHECKING:
    from ._call import Call

__all__ = [
    "tell_attempt_failed",
    "tell_call_started",
    "tell_cancelled",
    "tell_correction",
    "tell_failed",
    "tell_retry",
    "tell_started",
    "tell_succeeded",
]

_IDS = count(1)
"""The numbers of the calls of which there is an event."""


def tell_call_started(call: Call[Any]) -> None:
    session, request = call.session, call.request
    event = CallStarted(
        **_known(call, None),
        path=request.path,
        method=request.method,
        base_url=request.base_url or session.base_url,
        store=session.store,
        subject=request.subject,
        is_step=call.is_step,
    )
    session.tell(event)


def tell_started(call: Call[Any]) -> None:
    call.session.tell(RequestStarted(**_known(call, None), path=call.request.path, attempt=call.number))


def tell_succeeded(call: Call[Any]) -> None:
    elapsed = call.session.clock.monotonic() - call.started
    about, path = _known(call, call.status), call.request.path
    call.session.tell(RequestSucceeded(**about, path=path, attempts=call.number, elapsed=elapsed))


def tell_attempt_failed(call: Call[Any], error: InvoicingError, number: int) -> None:
    call.session.tell(AttemptFailed(**_failed(call, error), path=call.request.path, attempt=number, error=error))


def tell_retry(call: Call[Any], error: InvoicingError, delay: float, *, check: Check | None, at_once: bool) -> None:
    """Tell that there is another attempt; that which failed is in the history already."""
    reason = reason_of(error, check=check, at_once=at_once)
    about, path = _failed(call, error), call.request.path
    call.session.tell(RetryScheduled(**about, path=path, attempt=call.number - 1, delay=delay, reason=reason))


def tell_failed(call: Call[Any], error: Exception, attempts: int) -> None:
    session, path = call.session, call.request.path
    elapsed = session.clock.monotonic() - call.started
    about = _failed(call, error)
    session.tell(CallFailed(**about, path=path, attempts=attempts, elapsed=elapsed, error=error, is_step=call.is_step))


def tell_cancelled(call: Call[Any], attempts: int) -> None:
    elapsed = call.session.clock.monotonic() - call.started
    about, path = _known(call, None), call.request.path
    call.session.tell(CallCancelled(**about, path=path, attempts=attempts, elapsed=elapsed))


def tell_correction(call: Call[Any], before: float, status: int) -> None:
    """Tell that signatures bear another time from now on."""
    offset = call.session.clock_offset.applied
    call.session.tell(ClockCorrected(**_known(call, status), offset=offset, before=before))


def _failed(call: Call[Any], error: Exception) -> dict[str, Any]:
    status = getattr(error, "status", None)
    return _known(call, status if isinstance(status, int) else call.status)


def _known(call: Call[Any], status: int | None) -> dict[str, Any]:
    """Return what each event of a call says of it, and let those that follow it in its task say the same."""
    call.id = call.id or next(_IDS)
    known = {"operation": call.request.operation, "call_id": call.id, "queued": call.queued, "status": status}
    LAST_CALL.set(known)
    return known

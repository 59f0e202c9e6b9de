"""What the standard `logging` is told of the events: one line each, with the event's fields beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from attrs import fields, frozen

from .._core.outcomes import Fate, fate
from .._core.secrecy import Hidden
from .._values.text import one_line
from ..errors import InvoicingError
from ..events import CallFailed

__all__ = ["LAST_CALL", "NOBODY", "ROWS", "ObserverErrors", "Row", "last_call", "log_event", "logger", "row_of"]

logger = logging.getLogger("invoicing_async")
logger.addHandler(logging.NullHandler())

NOBODY: Mapping[str, Any] = {"operation": "", "call_id": 0, "queued": 0.0, "status": None}
"""What they say of a call of which there was no event."""

LAST_CALL: ContextVar[Mapping[str, Any] | None] = ContextVar("invoicing_async_last_call", default=None)
"""What the events say of the call that this task made last, for those that follow it, such as `DocumentSaved`.

None if there was no event of it, since nobody listens.
"""


def last_call() -> dict[str, Any]:
    """Return what an event says of the call that this task made last: of which one there is an event."""
    return dict(LAST_CALL.get() or NOBODY)


@frozen
class Row:
    """At which level a kind of event is logged, and in which words: `%(name)s` is its field of that name."""

    level: int
    words: str


_CALL = "%(operation)s, call %(call_id)d: "
_LANE = "%(operation)s of store %(store)s: "

ROWS: Mapping[str, Row] = {
    "CallStarted": Row(logging.DEBUG, _CALL + "begins, %(method)s %(path)s"),
    "RequestStarted": Row(logging.DEBUG, _CALL + "attempt %(attempt)d begins, %(path)s"),
    "RequestSucceeded": Row(
        logging.DEBUG, _CALL + "succeeded with %(status)s in %(elapsed).3f s, attempts: %(attempts)d"
    ),
    "AttemptFailed": Row(logging.DEBUG, _CALL + "attempt %(attempt)d failed: %(error)s"),
    "RetryScheduled": Row(
        logging.INFO, _CALL + "attempt %(attempt)d failed (%(reason)s); tried again in %(delay).1f s"
    ),
    "CallFailed": Row(
        logging.WARNING, _CALL + "failed after %(elapsed).1f s, attempts that failed: %(attempts)d: %(error)s"
    ),
    "CallCancelled": Row(logging.DEBUG, _CALL + "cancelled after %(elapsed).1f s, attempts that failed: %(attempts)d"),
    "SubmissionInDoubt": Row(
        logging.WARNING, _CALL + "invoice %(key)r may or may not have been created; error: %(error)s"
    ),
    "ClockCorrected": Row(
        logging.INFO, _CALL + "signatures bear this machine's time %(offset)+.1f s, %(before)+.1f s before"
    ),
    "DocumentSaved": Row(logging.DEBUG, _CALL + "document of %(order_id)s saved, %(size)d bytes: %(path)s"),
    "OperationPolled": Row(logging.DEBUG, _CALL + "request %(request_id)s is %(status)s, polls: %(polls)d"),
    "WaitStarted": Row(logging.DEBUG, "request %(request_id)s is awaited, wait %(wait_id)d"),
    "WaitEnded": Row(
        logging.DEBUG, "request %(request_id)s is %(status)r after %(elapsed).1f s, wait %(wait_id)d; error: %(error)s"
    ),
    "UnknownStatus": Row(logging.WARNING, "unknown request status %(status)r is treated as not terminal"),
    "Paused": Row(logging.INFO, _LANE + "the service is down; calls wait, next probe in %(next_probe).1f s"),
    "Probing": Row(logging.INFO, _LANE + "one call is made to find out whether the service is still down"),
    "Resumed": Row(logging.INFO, _LANE + "the service answers again after %(paused).1f s; calls go on, few at first"),
    "LimitChanged": Row(logging.DEBUG, _LANE + "calls at once from now on: %(concurrency)d"),
    "ChunksPlanned": Row(logging.DEBUG, "chunks that were given a job: %(chunks)d, not for the first time: %(again)d"),
    "ChunkTakenOver": Row(logging.INFO, "items %(lo)d to %(hi)d were a worker's that is gone; they are gone on with"),
    "Superseded": Row(logging.DEBUG, "invoice %(key)r was moved on with by somebody else: %(error)s"),
    "QueueLost": Row(logging.WARNING, "the queue is lost, it is connected to again; error: %(error)s"),
    "QueueReconnected": Row(logging.INFO, "the queue is there again after %(away).1f s"),
    "RunHalted": Row(logging.ERROR, "run %(run)s is halted: its database came back older than it had been"),
}
"""By the name of the event's class."""

STEP = logging.INFO
"""The level of a failed call that is not the last word on its cause.

Of a poll, since the wait asks again by itself; of a token, since the call that it was for fails too; of a submission
that is in doubt, which is told at once with its key.
"""

MOVED_ON = "SupersededError"
"""The class, of a room above, of what ends a call whose invoice another worker sends: nothing is wrong."""

TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "event"}
"""Names of a log record that none of its fields may have."""


def log_event(event: Any) -> None:
    """Log an event if its level is enabled. What a handler or a filter raises is not the call's affair."""
    with suppress(Exception):
        row = row_of(event)
        if logger.isEnabledFor(row.level):
            said = {field.name: _plain(getattr(event, field.name)) for field in fields(type(event))}
            named = {f"{name}_" if name in TAKEN else name: value for name, value in said.items()}
            logger.log(row.level, row.words, said, extra={"event": type(event).__name__, **named})


class ObserverErrors:
    """What the observer of a session raised, logged once of each kind."""

    def __init__(self) -> None:
        self._logged: set[tuple[type[BaseException], type[Any]]] = set()

    def log(self, error: BaseException, event: Any) -> None:
        """Log it, unless an error of this kind at an event of that kind was logged before."""
        kind = type(error), type(event)
        if kind not in self._logged:
            self._logged.add(kind)
            names = kind[0].__name__, kind[1].__name__
            logger.error("on_event raised %s when told of %s; the call goes on", *names, exc_info=error)


def row_of(event: Any) -> Row:
    """Return how an event is logged; one of a kind that has no row by its fields."""
    name = type(event).__name__
    row = ROWS.get(name)
    if row is None:
        names = [field.name for field in fields(type(event))]
        return Row(logging.INFO, ", ".join([name, *(f"{field}=%({field})s" for field in names)]))
    return Row(STEP, row.words) if isinstance(event, CallFailed) and _is_told_again(event) else row


def _is_told_again(failed: CallFailed) -> bool:
    """Tell whether the failure of a call is followed by a warning of the same cause, or by another attempt."""
    if type(failed.error).__name__ == MOVED_ON:
        return True
    if failed.operation == "create_invoice":
        return isinstance(failed.error, InvoicingError) and fate(failed.error) is Fate.IN_DOUBT
    return failed.is_step or failed.operation == "token"


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, texts as one bounded line. Of an error: its class and its words."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, BaseException):
        return one_line(f"{type(value).__name__}: {value}")
    # What hides itself does so in its repr only.
    return one_line(str(value) if isinstance(value, (str, Path)) and not isinstance(value, Hidden) else repr(value))

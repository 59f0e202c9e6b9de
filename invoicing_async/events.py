"""What happens, as frozen values for one observer (`Session(on_event=…)`). No event holds a secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from attrs import frozen

__all__ = [
    "AttemptFailed",
    "DocumentSaved",
    "Event",
    "LimitChanged",
    "Observer",
    "OperationPolled",
    "Paused",
    "Probing",
    "RequestStarted",
    "RequestSucceeded",
    "Resumed",
    "RetryScheduled",
    "UnknownStatus",
]


@frozen(kw_only=True)
class RequestStarted:
    """An attempt begins: its signature is made and its head is about to be sent."""

    operation: str
    path: str
    attempt: int


@frozen(kw_only=True)
class RequestSucceeded:
    """A call ended well after `attempts` attempts and `elapsed` seconds."""

    operation: str
    path: str
    attempts: int
    elapsed: float


@frozen(kw_only=True)
class AttemptFailed:
    """An attempt failed; `error` is the error itself."""

    operation: str
    path: str
    attempt: int
    error: Exception


@frozen(kw_only=True)
class RetryScheduled:
    """The call will be tried again after `delay` seconds."""

    operation: str
    path: str
    attempt: int
    delay: float


@frozen(kw_only=True)
class DocumentSaved:
    """A whole document was published under its final name."""

    order_id: str
    path: Path
    size: int


@frozen(kw_only=True)
class OperationPolled:
    """A status answer came: `status` is what it said, `polls` counts those of this operation."""

    request_id: str
    status: str
    polls: int


@frozen(kw_only=True)
class UnknownStatus:
    """The service sent a status its documents do not name; it is treated as not terminal. Emitted once for each."""

    request_id: str
    status: str


@frozen(kw_only=True)
class Paused:
    """The service is down: calls of this operation wait. The first probe goes out in `next_probe` seconds."""

    operation: str
    store: str
    next_probe: float


@frozen(kw_only=True)
class Probing:
    """One attempt is made to find out whether the service is still down."""

    operation: str
    store: str


@frozen(kw_only=True)
class Resumed:
    """The service answers again, after `paused` seconds: calls go on, few at first."""

    operation: str
    store: str
    paused: float


@frozen(kw_only=True)
class LimitChanged:
    """From now on `concurrency` calls of this operation may be under way at once."""

    operation: str
    store: str
    concurrency: int


Event: TypeAlias = (
    RequestStarted
    | RequestSucceeded
    | AttemptFailed
    | RetryScheduled
    | DocumentSaved
    | OperationPolled
    | UnknownStatus
    | Paused
    | Probing
    | Resumed
    | LimitChanged
)

Observer: TypeAlias = Callable[[Event], None]
"""Called in the event loop, in order; must not block. What it raises is logged, once of each kind, and ignored."""

"""What the failure of a poll means for the wait: one table and pure functions.

A poll may always be repeated, and the operation goes on at the service whatever became of one question. So only what
the service declares final ends a wait; every other answer and every silence is an error of the poll, which its budget
counts (`Poller.errors` and `Poller.error_time`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from ..errors import (
    ApiError,
    AuthenticationError,
    InvoicingError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
    SessionError,
    TransportError,
)

__all__ = [
    "FINAL",
    "FINAL_WHEN_REPEATED",
    "NOT_FOUND",
    "Meaning",
    "Pause",
    "meaning",
    "pause_after",
    "status_of",
]

NOT_FOUND = 404

FINAL: Mapping[int, str] = MappingProxyType(
    {
        400: "the service read the question and refused it",
        405: "the status endpoint has another method: a setting",
        410: "the request is gone",
        411: "the question lacks a length, and always will",
        413: "the question is too long, and always will be",
        414: "the path is too long, and always will be",
        415: "the question has the wrong kind of body, and always will have",
        422: "the service understood the question and refused it",
        431: "the headers are too long, and always will be",
    }
)
"""The statuses that end a wait at once, and why."""

FINAL_WHEN_REPEATED: Mapping[int, str] = MappingProxyType(
    {
        403: "a firewall says it now and then; the service says it again",
        NOT_FOUND: "a gateway says it during a deployment; of an unknown request the service says it again",
    }
)
"""The statuses that end a wait when two polls in a row meet them, and why not the first time."""

BACKOFF_FIRST, BACKOFF_CEILING = 0.5, 15.0
"""Seconds from which, and up to which, the wait after a failed poll is drawn, twice as long for each failure in a row:
a service that comes back is not met by everybody at once."""


class Meaning(Enum):
    """What becomes of a wait whose poll failed."""

    FINAL = "asking again cannot mend it"
    NOT_YET = "the request is not visible yet"
    FAILED = "one more error of the poll"


def meaning(error: Exception, *, age: float, grace: float, before: int | None = None) -> Meaning:
    """Tell what a failed poll means for a wait that began `age` seconds ago.

    A 404 is not an error within `grace` seconds. `before` is the status of the poll before, None if that one did not
    fail with one. A 401 is an error of the poll like another here: whether the credential is refused for good is
    known to the session alone.
    """
    if not isinstance(error, (ApiError, ProtocolError, TransportError)) or isinstance(error, SessionError):
        return Meaning.FINAL
    if not isinstance(error, ApiError) or isinstance(
        error, (AuthenticationError, RateLimitError, ServiceUnavailableError)
    ):
        return Meaning.FAILED
    if error.status == NOT_FOUND and age < grace:
        return Meaning.NOT_YET
    final = error.status in FINAL or (error.status in FINAL_WHEN_REPEATED and error.status == before)
    return Meaning.FINAL if final else Meaning.FAILED


class Pause(NamedTuple):
    """How long to leave the service alone after a failed poll.

    Not before `floor` seconds: who cannot wait that long gives up. Nor before `least`, but for a last poll.
    """

    floor: float
    least: float


def pause_after(error: Exception, found: Meaning, errors: int, *, chance: float) -> Pause:
    """Return how long to leave the service alone after a failed poll, the last of `errors` in a row."""
    backoff = 0.0
    if found is Meaning.FAILED:
        backoff = min(BACKOFF_CEILING, BACKOFF_FIRST * 2.0 ** min(errors - 1, 100))
    retry_after = (error.retry_after if isinstance(error, ApiError) else None) or 0.0
    # Who is sent away twice came back together with others.
    return Pause(retry_after, backoff * chance + (retry_after if errors > 1 else 0.0))


def status_of(error: Exception) -> int | None:
    """The HTTP status of the answer that an error is about, if there was one."""
    status = getattr(error, "status", None) if isinstance(error, InvoicingError) else None
    return status if isinstance(status, int) else None

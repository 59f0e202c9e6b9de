"""What happens, as frozen values: for one observer (`Session(on_event=…)`) and for the log. No event holds a secret."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, TypeAlias

from attrs import field, frozen

from .errors import InvoicingError

__all__ = [
    "AttemptFailed",
    "CallCancelled",
    "CallEvent",
    "CallFailed",
    "CallStarted",
    "ChunkTakenOver",
    "ChunksPlanned",
    "ClockCorrected",
    "DocumentSaved",
    "Event",
    "LimitChanged",
    "Observer",
    "OperationPolled",
    "Paused",
    "Probing",
    "QueueLost",
    "QueueReconnected",
    "Reason",
    "RequestStarted",
    "RequestSucceeded",
    "Resumed",
    "RetryScheduled",
    "RunHalted",
    "SubmissionInDoubt",
    "Superseded",
    "UnknownStatus",
    "WaitEnded",
    "WaitStarted",
    "combined",
]

Reason: TypeAlias = Literal[
    "clock",
    "connection",
    "credential",
    "incomplete",
    "service_unavailable",
    "stale",
    "status",
    "throttled",
    "timeout",
    "unexpected",
]
"""Why a call is tried again.

- `clock`: it is signed anew, because the service's clock shows that its signature's time was wrong.
- `connection`: no connection, or one that broke off without an answer.
- `credential`: it was refused with 401 and is tried once more, with a new credential where one can be had.
- `incomplete`: the document did not come whole.
- `service_unavailable`: SYS_DEP_503, or any other 502, 503 or 504.
- `stale`: nothing went wrong at the service: an idle connection was closed, or an intent to submit was too old.
- `status`: any other status of an error.
- `throttled`: 429.
- `timeout`: no answer in time.
- `unexpected`: an answer that is not as documented.
"""


@frozen(kw_only=True)
class CallEvent:
    """Something that happened in one call.

    `call_id` is a number that no other call in this process has, 0 where it is not known. `queued` is how many seconds
    the call has waited for a place so far. An event's `status`, where it is a number, is that of the HTTP answer, None
    where there is none. These, and the `reason` of a retry, are left out when events are compared.
    """

    operation: str = field(default="", eq=False)
    call_id: int = field(default=0, eq=False)
    queued: float = field(default=0.0, eq=False)


@frozen(kw_only=True)
class CallStarted(CallEvent):
    """A call begins, told where it was made; it ends with `RequestSucceeded`, `CallFailed` or `CallCancelled`.

    It goes to `path` below `base_url`; both are without a query, which may hold a signature. `subject` is what it is
    about: an order id, a draft's key, the id of a request or an invoice; empty where it is about none. `store` is whose
    call it is, empty if no store's. `is_step` is true for a poll of a wait.
    """

    operation: str
    path: str
    method: str
    base_url: str
    store: str = ""
    subject: str = ""
    is_step: bool = False
    status: int | None = field(default=None, eq=False)


@frozen(kw_only=True)
class RequestStarted(CallEvent):
    """An attempt begins: its signature is made and its head is about to be sent."""

    operation: str
    path: str
    attempt: int
    status: int | None = field(default=None, eq=False)


@frozen(kw_only=True)
class RequestSucceeded(CallEvent):
    """A call ended well after `attempts` attempts and `elapsed` seconds."""

    operation: str
    path: str
    attempts: int
    elapsed: float
    status: int | None = field(default=None, eq=False)


@frozen(kw_only=True)
class AttemptFailed(CallEvent):
    """An attempt failed; `error` is the error itself."""

    operation: str
    path: str
    attempt: int
    error: InvoicingError
    status: int | None = field(default=None, eq=False)


@frozen(kw_only=True)
class RetryScheduled(CallEvent):
    """The call will be tried again after `delay` seconds, for this `reason`.

    With the reasons `clock` and `credential` it is tried at once, and by the policy that is part of the same attempt.
    """

    operation: str
    path: str
    attempt: int
    delay: float
    reason: Reason | None = field(default=None, eq=False)
    status: int | None = field(default=None, eq=False)


@frozen(kw_only=True)
class CallFailed(CallEvent):
    """A call ended with `error` after `attempts` failed attempts and `elapsed` seconds: it is not tried again.

    `is_step` is true for a poll of a wait, which asks again by itself.
    """

    operation: str
    path: str
    attempts: int
    elapsed: float
    error: Exception
    is_step: bool = False
    status: int | None = field(default=None, eq=False)


@frozen(kw_only=True)
class CallCancelled(CallEvent):
    """A call was cancelled after `attempts` failed attempts and `elapsed` seconds: whoever made it left."""

    operation: str
    path: str
    attempts: int
    elapsed: float
    status: int | None = field(default=None, eq=False)


@frozen(kw_only=True)
class SubmissionInDoubt(CallEvent):
    """A submission left this machine and no usable answer came: the invoice may or may not exist.

    `key` is the draft's own key, `error` why it is not known: `asyncio.CancelledError` if whoever made the call left.
    """

    key: str
    status: int | None = field(default=None, eq=False)
    error: BaseException | None = field(default=None, eq=False)


@frozen(kw_only=True)
class ClockCorrected(CallEvent):
    """From now on signatures bear this machine's time and `offset` seconds more; it was `before`."""

    offset: float
    before: float
    status: int | None = field(default=None, eq=False)


@frozen(kw_only=True)
class DocumentSaved(CallEvent):
    """A whole document was published under its final name, in a store of objects below its address `store`.

    `name_taken` says that another document has the name that was to be taken, so that this one has the next.
    """

    order_id: str
    path: Path
    size: int
    status: int | None = field(default=None, eq=False)
    store: str = ""
    name_taken: bool = False


@frozen(kw_only=True)
class OperationPolled(CallEvent):
    """A status answer came: `status` is what it said, `polls` counts those of this operation."""

    request_id: str
    status: str
    polls: int


@frozen(kw_only=True)
class WaitStarted:
    """Somebody waits from now on for the end of a request, told where that is awaited.

    `wait_id` is a number that no other wait in this process has. `operation` and `store` are those of its polls.
    """

    operation: str
    store: str
    wait_id: int
    request_id: str


@frozen(kw_only=True)
class WaitEnded:
    """A wait ended after `elapsed` seconds.

    `status` is what the request was last known to be: SUCCESS or FAILED if it came to its end. It is empty where
    nothing is known, as when the wait was cancelled; `error` is what else ended it.
    """

    operation: str
    store: str
    wait_id: int
    request_id: str
    status: str
    elapsed: float
    error: Exception | None = None


@frozen(kw_only=True)
class UnknownStatus(CallEvent):
    """The service sent a status its documents do not name; it is treated as not terminal. Emitted once for each."""

    request_id: str
    status: str


@frozen(kw_only=True)
class Paused:
    """The service is down: calls of this operation wait. The next probe goes out in `next_probe` seconds.

    It comes once more after each probe that failed; `paused` are the seconds of the pause so far, 0 at its beginning.
    """

    operation: str
    store: str
    next_probe: float
    paused: float = field(default=0.0, eq=False)


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


@frozen(kw_only=True)
class ChunksPlanned:
    """A worker gave jobs to so many chunks of its run, to `again` of them not for the first time."""

    chunks: int
    again: int = 0


@frozen(kw_only=True)
class ChunkTakenOver:
    """The items of a run from `lo` to `hi` were in the hands of a worker that is gone; whoever comes first goes on."""

    lo: int
    hi: int


@frozen(kw_only=True)
class Superseded:
    """What a worker learned of an invoice came when somebody else had moved on with it; it was left as they have it.

    `key` is the draft's own key, `error` says what came too late.
    """

    key: str
    error: InvoicingError


@frozen(kw_only=True)
class QueueLost:
    """A worker gets no more jobs until it has connected again; what it has in hand goes on. `error` says why."""

    error: Exception | None = None


@frozen(kw_only=True)
class QueueReconnected:
    """A worker gets jobs again, after `away` seconds."""

    away: float


@frozen(kw_only=True)
class RunHalted:
    """The database of a run came back older than it had been: nothing of it is sent until a person has looked."""

    run: str


Event: TypeAlias = (
    CallStarted
    | RequestStarted
    | RequestSucceeded
    | AttemptFailed
    | RetryScheduled
    | CallFailed
    | CallCancelled
    | SubmissionInDoubt
    | ClockCorrected
    | DocumentSaved
    | OperationPolled
    | WaitStarted
    | WaitEnded
    | UnknownStatus
    | Paused
    | Probing
    | Resumed
    | LimitChanged
    | ChunksPlanned
    | ChunkTakenOver
    | QueueLost
    | QueueReconnected
    | RunHalted
    | Superseded
)

Observer: TypeAlias = Callable[[Event], None]
"""Called in the event loop, in order; must not block. What it raises is logged, once of each kind, and ignored."""


def combined(*observers: Observer) -> Observer:
    """Return an observer that tells all of these, in order. What one raises is raised once the others were told."""

    def tell(event: Event) -> None:
        with ExitStack() as stack:
            for observer in reversed(observers):
                stack.callback(observer, event)

    return tell

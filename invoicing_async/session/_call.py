"""One call with its attempts: the only retry loop of the project."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import evolve

from .._core.batch import in_batch, until_end
from .._core.hold import Hold
from .._core.http import Exchange, Repeat, Request, Response
from .._core.tasks import Scope
from .._governor.lane import Ticket
from ..errors import Attempt, DeadlineError, InvoicingError, Sent, ServiceDownError, SessionError
from ..events import AttemptFailed, RequestSucceeded, RetryScheduled
from ..policies import RetryPolicy
from ._answer import StaleIntentError
from ._attempt import SingleAttempt
from ._retries import Retries

if TYPE_CHECKING:
    from ._session import Session

__all__ = ["Call", "Sleep"]

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]
"""Waits so many seconds. A batch passes its own, which gives its place to another item meanwhile."""

FAILING = 5
"""Calls that fail with no answer between, from which on it is the service's trouble and not theirs."""


class Call(Generic[T]):
    """One call with its attempts: what lasts from one of them to the next."""

    __slots__ = (
        "_answers",
        "_answers_before",
        "_error",
        "_history",
        "_is_refused",
        "_is_second",
        "_kept",
        "_retries",
        "_sleep",
        "_started",
        "before_send",
        "gate",
        "guarded",
        "keep",
        "on_send",
        "patience",
        "policy",
        "read",
        "request",
        "session",
        "spared",
        "stale",
        "stop_at",
    )

    def __init__(
        self,
        session: Session,
        request: Request,
        read: Callable[[Response], Awaitable[T]],
        *,
        sleep: Sleep | None = None,
        retry: RetryPolicy | None = None,
        before_send: Callable[[], Awaitable[None]] | None = None,
        on_send: Callable[[], None] | None = None,
        keep: bool = False,
        patient: bool = False,
    ) -> None:
        self.session = session
        self.request = request
        self.read = read
        self.before_send = before_send
        self.on_send = on_send
        self.guarded = before_send is not None or on_send is not None or request.repeat is Repeat.IF_NOT_SENT
        self.keep = keep
        self.stale = 0
        """Attempts that could not succeed: their intent was too old, or their idle connection was closed."""
        self.spared = 0
        """Attempts that failed for the service's sake and do not count: many calls did, with no answer between."""
        self.gate = session.governor.gate(request.base_url, request.operation, session.store)
        self.patience: float | None = session.outage.patience if patient or in_batch() else None
        """Seconds of a pause that it waits through with its deadline standing still, None for none."""
        self._answers = -1
        self._answers_before = self.gate.lane.answers
        self._is_second = self._is_refused = False
        self._kept: SingleAttempt[T] | None = None
        self._history: tuple[Attempt, ...] = ()
        self._error: InvoicingError | None = None
        self._retries: Retries | None = None
        self._sleep = sleep or session.clock.sleep
        self.policy = retry or session.retry
        self._started = session.clock.monotonic()
        deadline = self.policy.deadline
        self.stop_at: float | None = None if deadline is None else self._started + deadline
        """When the deadline comes, in monotonic seconds."""

    async def run(self) -> T:
        """Make attempts until one succeeds; raise the error of the last."""
        session, request = self.session, self.request
        # What is drained may still need a token.
        session.check_usable(draining=not request.authorised)
        attempt = SingleAttempt(self, Exchange(timeouts=session.timeouts))
        try:
            with Scope(session.lifetime, request.operation or request.path):
                while True:
                    try:
                        value = await attempt.result()
                        break
                    except InvoicingError as error:
                        failed = error
                    attempt, wait = await self._next(attempt, failed)
                    if wait is not None:
                        await self._wait(wait)
        except InvoicingError as error:
            if isinstance(error, SessionError):
                self._cut_off(attempt, error)
            error.attempts = self._history
            raise
        if self.keep:
            self._kept = attempt
        if request.authorised:
            session.credentials.accepted()
            if session.clock_offset.futile is not None:
                session.clock_offset.accepted()
        if session.on_event is not None:
            elapsed = session.clock.monotonic() - self._started
            number, operation, path = self.number, request.operation, request.path
            session.tell(RequestSucceeded(operation=operation, path=path, attempts=number, elapsed=elapsed))
        return value

    @property
    def number(self) -> int:
        """The number of the attempt that is made, from 1."""
        return len(self._history) + 1

    def hold(self) -> Hold:
        """Return what the answer that is kept open has hold of from now on; the call has had its place."""
        assert self._kept is not None  # noqa: S101 - `keep` was asked for, and the call succeeded; for the type checker
        return self._kept.hold()

    async def release(self) -> None:
        """Release what the answer that is kept open holds, if there is one."""
        if self._kept is not None:
            await self._kept.release()

    async def turn(self) -> Ticket:
        """Wait for the turn in the lane. Raises `ServiceDownError` if the service is down, or for too long."""
        gate, policy = self.gate, self.session.outage
        try:
            if self.patience is not None:
                return await gate.enter(self.patience)
            left = self.remaining()
            if left is not None and gate.hold_left() >= left:
                raise gate.error(self.session.clock.monotonic())
            return await gate.enter(policy.patience if policy.wait else None)
        except ServiceDownError as error:
            error.__cause__ = self._error
            raise

    def deadline_error(self, sent: Sent, during: str) -> DeadlineError:
        """Return the error of a call whose deadline came `during` something."""
        late = DeadlineError(f"the deadline of {self.policy.deadline:g} s ended the call {during}", sent=sent)
        late.__cause__ = self._error
        return late

    def extend_deadline(self, since: float) -> None:
        """Extend the deadline by the time since then: it limits the call, not its waits for a place."""
        if self.stop_at is not None:
            self.stop_at += max(0.0, self.session.clock.monotonic() - since)

    async def within_deadline(self, wait: Awaitable[None], during: str) -> None:
        """Await something before or between attempts, but not beyond the deadline."""
        timeout = self.session.clock.timeout(self.remaining())
        try:
            async with timeout:
                await wait
        except TimeoutError:
            if not timeout.expired():
                raise
            raise self.deadline_error("no", during) from self._error

    def remaining(self) -> float | None:
        """Return the seconds to the deadline, None if there is none."""
        return None if self.stop_at is None else self.stop_at - self.session.clock.monotonic()

    async def _next(self, last: SingleAttempt[T], error: InvoicingError) -> tuple[SingleAttempt[T], float | None]:
        """Return the next attempt and the wait before it, None to check the credential; raise if there is none."""
        self.stale += isinstance(error, StaleIntentError) or last.exchange.stale
        self._record(last, error)
        self._is_refused = last.is_refused
        if self._is_refused:
            self._spare()
        retries = self._retries = self._retries or Retries(self)
        fresh, intended, delay = last.exchange.fresh, last.intended, None
        if not retries.checks(last, error):
            delay = await retries.delay(last, error)
            if self._is_refused and not in_batch() and not self.gate.lane.budget.take(self.session.clock.monotonic()):
                raise error
            fresh, intended = last.exchange.stale, None
            self._history = (*self._history[:-1], evolve(self._history[-1], waited=delay))
            operation, path, number = self.request.operation, self.request.path, len(self._history)
            self.session.tell(RetryScheduled(operation=operation, path=path, attempt=number, delay=delay))
        self.session.check_usable(draining=True)  # a call whose own reader closed the session was not ended by that
        return SingleAttempt(self, Exchange(timeouts=self.session.timeouts, fresh=fresh), intended), delay

    async def _wait(self, seconds: float) -> None:
        if in_batch():
            clock, budget = self.session.clock, self.gate.lane.budget
            begun = clock.monotonic()
            await self._sleep(seconds)
            while self._is_refused and not budget.take(clock.monotonic()):
                await self._sleep(budget.wait(clock.monotonic()))
            self.extend_deadline(begun + seconds)
            return
        try:
            await self.within_deadline(self._sleep(seconds), f"in the wait before attempt {self.number}")
        except DeadlineError as error:
            self._record(None, error)
            raise

    async def waits_for_end(self) -> bool:
        """Wait for the end of the batch, where an item that failed for the service's sake is tried once more.

        False if it is no batch, if that was so before, or if nobody had an answer meanwhile.
        """
        if self._is_second or not in_batch() or self.gate.lane.answers == self._answers_before:
            return False
        self._is_second = True
        await self._sleep(0.0)
        await until_end()
        deadline = self.policy.deadline
        self.stop_at = None if deadline is None else self.session.clock.monotonic() + deadline
        return True

    def _spare(self) -> None:
        """Count the attempt against the call only if the lane answered since the one before, or few calls failed."""
        lane = self.gate.lane
        is_same = self._answers == lane.answers
        lane.failing += not is_same
        self._answers = lane.answers
        if is_same and self.patience is not None and lane.is_known and lane.failing >= FAILING:
            self.spared += 1

    def _cut_off(self, attempt: SingleAttempt[T], error: SessionError) -> None:
        """Let the error of a call that its session's end cut off say whether its request may have arrived."""
        if attempt.exchange.sent:
            error.sent = "unknown"
        if attempt.begun is not None:
            self._record(attempt, error)

    def _record(self, attempt: SingleAttempt[T] | None, error: InvoicingError) -> None:
        """Put a failure into the history and emit its event; None stands for a wait that failed."""
        clock, request, number = self.session.clock, self.request, self.number
        elapsed = 0.0
        if attempt is not None and attempt.begun is not None:
            elapsed, attempt.begun = clock.monotonic() - attempt.begun, None
        self._error = error
        self._history += (
            Attempt(
                number=number,
                at=clock.now() - elapsed,
                elapsed=elapsed,
                error=f"{type(error).__name__}: {error}",
                status=getattr(error, "status", None),
                code=getattr(error, "code", None),
                request_id=getattr(error, "request_id", None),
            ),
        )
        if self.session.on_event is not None:
            self.session.tell(
                AttemptFailed(operation=request.operation, path=request.path, attempt=number, error=error)
            )

"""One call with its attempts: the only retry loop of the project."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import evolve

from .._core.batch import in_batch
from .._core.hold import Hold
from .._core.http import Exchange, Repeat, Request, Response
from .._core.tasks import Scope
from .._governor.lane import Ticket
from ..errors import Attempt, DeadlineError, InvoicingError, ServiceDownError, SessionError
from ..policies import RetryPolicy
from ._answer import StaleIntentError
from ._attempt import SingleAttempt
from ._deadline import Deadline
from ._intent import Intent
from ._log import LAST_CALL, logger
from ._place import Place
from ._retries import Retries
from ._telling import (
    tell_attempt_failed,
    tell_call_started,
    tell_cancelled,
    tell_failed,
    tell_retry,
    tell_succeeded,
)

if TYPE_CHECKING:
    from ._internals import Internals

__all__ = ["Call", "Sleep"]

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]
"""Waits so many seconds. A batch passes its own, which gives its place to another item meanwhile."""


class Call(Generic[T]):
    """One call with its attempts: what lasts from one of them to the next."""

    __slots__ = (
        "_history",
        "_kept",
        "_retries",
        "before_send",
        "deadline",
        "gate",
        "guarded",
        "id",
        "is_heard",
        "is_step",
        "keep",
        "on_send",
        "patience",
        "policy",
        "queued",
        "read",
        "request",
        "session",
        "sleep",
        "stale",
        "started",
        "status",
    )

    def __init__(
        self,
        session: Internals,
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
        self.is_heard = session.on_event is not None or logger.isEnabledFor(logging.DEBUG)
        """True if somebody listens to what goes well."""
        self.queued = 0.0  # seconds it has waited for a place so far
        self.status: int | None = None
        """The HTTP status of the attempt's answer, None before its head came."""
        self.id = 0  # its number in events, 0 before there is one
        self.stale = 0
        """Attempts that could not succeed: their intent was too old, or their idle connection was closed."""
        self.gate = session.governor.gate(request.base_url, request.operation, session.store)
        self.is_step = patient  # a poll of a wait, which asks again by itself
        self.patience: float | None = session.outage.patience if patient or in_batch() else None
        """Seconds of a pause that it waits through with its deadline standing still, None for none."""
        self._kept: SingleAttempt[T] | None = None
        self._history: tuple[Attempt, ...] = ()
        self._retries: Retries | None = None
        self.sleep = sleep or session.clock.sleep
        self.policy = retry or session.retry
        self.started = session.clock.monotonic()
        seconds = self.policy.deadline
        self.deadline = Deadline(seconds, None if seconds is None else self.started + seconds, session.clock)

    async def run(self) -> T:
        """Make attempts until one succeeds; raise the error of the last."""
        session, request = self.session, self.request
        # What is drained may still need a token.
        session.check_usable(draining=not request.authorised)
        LAST_CALL.set(None)
        if self.is_heard:
            tell_call_started(self)
        exchange = Exchange(timeouts=session.timeouts)
        attempt = SingleAttempt(self, exchange, Place(self), Intent(self, exchange) if self.guarded else None)
        try:
            with Scope(session.life.lifetime, request.operation or request.path):
                while True:
                    try:
                        value = await attempt.result()
                        break
                    except InvoicingError as error:
                        failed = error
                    attempt, wait = await self._next(attempt, failed)
                    if wait is not None:
                        await self._wait(wait)
        except BaseException as error:
            self._ended(attempt, error)
            raise
        self._kept = attempt if self.keep else None
        if request.authorised and (session.credentials.failures or session.clock_offset.futile is not None):
            session.credentials.accepted()
            session.clock_offset.accepted()
        if self.is_heard:
            tell_succeeded(self)
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
            left = self.deadline.left()
            if left is not None and gate.hold_left() >= left:
                raise gate.error(self.session.clock.monotonic())
            return await gate.enter(policy.patience if policy.wait else None)
        except ServiceDownError as error:
            error.__cause__ = self.deadline.cause
            raise

    async def _next(self, last: SingleAttempt[T], error: InvoicingError) -> tuple[SingleAttempt[T], float | None]:
        """Return the next attempt and the wait before it, None to check the credential; raise if there is none."""
        self.stale += isinstance(error, StaleIntentError) or last.exchange.stale
        self._record(last, error)
        retries = self._retries = self._retries or Retries(self)
        self.status, fresh, delay = None, last.exchange.fresh, None
        begun = None if last.intent is None else last.intent.begun
        check = retries.checks(last, error)
        if check is None:
            delay = await retries.delay(last, error)
            fresh, begun = last.exchange.stale, None
            self._history = (*self._history[:-1], evolve(self._history[-1], waited=delay))
        if self.session.hears(logging.INFO):
            at_once = isinstance(error, StaleIntentError) or last.exchange.stale
            tell_retry(self, error, delay or 0.0, check=check, at_once=at_once)
        self.session.check_usable(draining=True)  # a call whose own reader closed the session was not ended by that
        exchange = Exchange(timeouts=self.session.timeouts, fresh=fresh)
        intent = Intent(self, exchange, begun) if self.guarded else None
        return SingleAttempt(self, exchange, Place(self), intent), delay

    async def _wait(self, seconds: float) -> None:
        if in_batch():
            begun = self.session.clock.monotonic()
            await self.sleep(seconds)
            if self._retries is not None:
                await self._retries.setbacks.wait_for_budget()
            self.deadline.extend(begun + seconds)
            return
        try:
            await self.deadline.limit(self.sleep(seconds), f"in the wait before attempt {self.number}")
        except DeadlineError as error:
            self._record(None, error)
            raise

    def _ended(self, attempt: SingleAttempt[T], error: BaseException) -> None:
        """Let the error that ends the call carry its history, and tell of it."""
        if isinstance(error, SessionError):
            # The session's end cut the call off: its request may have arrived.
            if attempt.exchange.sent:
                error.sent = "unknown"
            if attempt.begun is not None:
                self._record(attempt, error)
        if isinstance(error, InvoicingError):
            error.attempts = self._history
        if not isinstance(error, Exception):
            if self.is_heard:
                tell_cancelled(self, len(self._history))
        elif self.session.hears(logging.WARNING):
            tell_failed(self, error, len(self._history))

    def _record(self, attempt: SingleAttempt[T] | None, error: InvoicingError) -> None:
        """Put a failure into the history and emit its event; None stands for a wait that failed."""
        clock, number = self.session.clock, self.number
        elapsed = 0.0
        if attempt is not None and attempt.begun is not None:
            elapsed, attempt.begun = clock.monotonic() - attempt.begun, None
        self.deadline.cause = error
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
        if self.is_heard:
            tell_attempt_failed(self, error, number)

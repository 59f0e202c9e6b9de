"""One attempt of a call: a place, an intent, one exchange, and what its answer says."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, evolve, field

from .._core.clock import ClockTimeout
from .._core.envelope import http_date
from .._core.hold import Hold
from .._core.http import Exchange, Request, Response
from .._core.secrecy import trim
from .._values.ownership import send_before
from ..errors import AuthenticationError, InvoicingError, Sent, TransportError
from ._error_answer import ErrorAnswer
from ._intent import Intent
from ._place import Place
from ._telling import tell_correction, tell_started

if TYPE_CHECKING:
    from ._call import Call

__all__ = ["SingleAttempt"]

T = TypeVar("T")

SUCCESS_CLASS = 2
"""The first digit of a status that is no error."""

UNAUTHORIZED = 401


@define(eq=False)
class SingleAttempt(Generic[T]):
    """One attempt of a call. Everything that it makes, the next one makes anew, but for an intent that still stands."""

    _call: Call[T]
    exchange: Exchange
    place: Place
    """Its turn in the lane, and its place in the session's limits."""
    intent: Intent | None
    """What precedes its first byte, None if that is not guarded."""
    begun: float | None = field(default=None, init=False)
    """When it began, None before that and once its failure is in the history."""
    credential: Mapping[str, str] = field(factory=dict, init=False)
    ready: bool = field(default=False, init=False)
    """True if its credential could be had."""
    is_refused_for_time: bool = field(default=False, init=False)
    """True if it was refused with a signature whose time was off or stale."""
    _signed_at: float = field(default=0.0, init=False)
    _correction: float = field(default=0.0, init=False)
    """Seconds that its signature's time was ahead of this machine's clock."""
    _until: float = field(default=0.0, init=False)
    """When it ends at the latest, in monotonic seconds."""
    _answer: AbstractAsyncContextManager[Response] | None = field(default=None, init=False)
    _error_answer: ErrorAnswer | None = field(default=None, init=False)

    async def result(self) -> T:
        """Take a place, send, check and read: one coroutine, since every one costs at every step of a wait."""
        call = self._call
        session, clock, intent = call.session, call.session.clock, self.intent
        handled = sys.exception()
        self.begun = clock.monotonic()
        try:
            self.ready = not call.request.authorised or session.auth.ready(clock)
            if not (self.ready and self.place.try_acquire()):
                await self._acquire()
            now = clock.monotonic()
            seconds, stop_at = session.timeouts.attempt, call.deadline.at
            is_last = stop_at is not None and stop_at - now < seconds
            limit = seconds if stop_at is None else min(seconds, stop_at - now)
            self._until = now + limit
            timeout = clock.timeout(limit)
            try:
                async with timeout:
                    if intent is not None and call.before_send is not None and not intent.is_prepared:
                        await intent.prepare()
                    answer = session.transport.send(self._signed(), self.exchange)
                    try:
                        response = await answer.__aenter__()
                    except BaseException as exc:
                        # A transport that is none of ours may not have said that the first byte was sent.
                        left = self.exchange.sent or (isinstance(exc, InvoicingError) and exc.sent != "no")
                        if left and intent is not None:
                            intent.tell()
                        raise
                    if intent is not None and not intent.is_told:
                        intent.tell()  # no transport of ours was there to say so
                    self._answer = answer
                    call.status = response.status
                    if response.status // 100 != SUCCESS_CLASS or session.clock_offset.applied:
                        await self._check(response)
                    value = await call.read(response)
            except TimeoutError as exc:
                raise self._timeout_error(timeout, exc, is_last=is_last)  # noqa: B904 - it brings its cause
        except BaseException as error:
            trim(error, handled)
            self.place.leave(error, has_head=self._answer is not None, is_stale=self.exchange.stale)
            await self.release()
            raise
        self.place.leave(None)
        if not call.keep:
            await self.release()
        return value

    def hold(self) -> Hold:
        """Release the place, and return what the answer that is kept open has hold of from now on."""
        session = self._call.session
        self.place.release()
        left = self._until - session.clock.monotonic()
        return Hold(session.admission.places, session.clock, left, session.timeouts.attempt, self.release)

    async def release(self) -> None:
        """Release the connection and the place in the concurrency limit. Doing it twice does nothing."""
        answer, self._answer = self._answer, None
        try:
            if answer is not None:
                await answer.__aexit__(None, None, None)
        finally:
            self.place.release()

    async def _acquire(self) -> None:
        """Get the credential and a place within the deadline, which stands still while a batch's item waits for one."""
        call = self._call
        session = call.session
        self.ready = False
        remaining = call.deadline.left()
        if remaining is not None and remaining <= 0:
            raise call.deadline.error("no", f"before attempt {call.number}")
        begun = session.clock.monotonic()
        if call.patience is None:
            await call.deadline.limit(self._get_credential(), "while it waited for its credential")
            await call.deadline.limit(self._get_place(), f"while attempt {call.number} waited for its place")
        else:
            await self._get_credential()
            await self._get_place()
            call.deadline.extend(begun)
        call.queued += session.clock.monotonic() - begun

    async def _get_place(self) -> None:
        call, intent = self._call, self.intent
        # One that waited in line for too long begins with its place in hand.
        if intent is None or call.before_send is None or call.stale:
            await self.place.acquire(None)
        else:
            intent.is_prepared = await self.place.acquire(intent.prepare)

    async def _get_credential(self) -> None:
        session = self._call.session
        if self._call.request.authorised and not session.auth.ready(session.clock):
            try:
                await session.auth.prepare(session.call, session.clock)
            except InvoicingError as error:
                # Whatever became of the credential's own call, this request was not sent.
                error.sent = "no"
                if isinstance(error, AuthenticationError):
                    session.credentials.denied()
                raise
            session.credentials.given()
        self.ready = True

    def _signed(self) -> Request:
        """Return what is sent, and let its first byte be judged if it must not be late."""
        call, exchange, intent = self._call, self.exchange, self.intent
        session, request = call.session, call.request
        if intent is not None:
            exchange.on_send, exchange.on_complete, exchange.deadline = intent.check, intent.check_rest, self._until
            if intent.begun is not None:
                exchange.deadline = min(self._until, send_before(intent.begun, session.timeouts.intent))
        if call.is_heard:
            tell_started(call)
        if not request.authorised:
            return evolve(request, base_url=request.base_url or session.base_url)
        self._signed_at, self._correction = session.clock.now(), session.clock_offset.applied
        now = self._signed_at + self._correction
        self.credential = session.auth.headers(request, base_path=session.base_path, now=now)
        # Spelled out: `evolve` costs as much as the signature.
        return Request(
            method=request.method,
            path=request.path,
            query=request.query,
            headers={**request.headers, **self.credential},
            body=request.body,
            base_url=session.base_url,
            repeat=request.repeat,
            operation=request.operation,
        )

    async def _check(self, response: Response) -> None:
        """Learn what the head says of the service's clock, and raise the error that the answer is by its status."""
        call = self._call
        if response.status == UNAUTHORIZED or call.session.clock_offset.applied:
            self._observe_date(response)
        if response.status // 100 != SUCCESS_CLASS and response.status not in call.request.answers:
            error_answer = self._error_answer = ErrorAnswer(response, call.session.clock)
            await error_answer.read(call.session.timeouts.read)
            raise error_answer.error()

    def _observe_date(self, response: Response) -> None:
        """Learn of the service's clock, unless the answer comes from a cache."""
        call = self._call
        date, offset = http_date(response.header("Date") or ""), call.session.clock_offset
        if date is None or response.header("Age") is not None:
            return
        offset.observe(date, sent=self._signed_at, received=call.session.clock.now())
        if response.status == UNAUTHORIZED:
            signed_for = self._signed_at + self._correction
            self.is_refused_for_time = offset.refused(date, signed_for=signed_for, corrected=self._correction)
        before = offset.announce()
        if before is not None:
            tell_correction(call, before, response.status)

    def _timeout_error(self, timeout: ClockTimeout, exc: TimeoutError, *, is_last: bool) -> Exception:
        """Return the error that the attempt's time-out is; another's `TimeoutError` as it is."""
        call = self._call
        if not timeout.expired():
            return exc
        if self._error_answer is not None:
            # Its status had come: the answer is what it says, however its body went on.
            return self._error_answer.error()
        sent: Sent = "unknown" if self.exchange.sent else "no"
        if is_last:
            return call.deadline.error(sent, f"during attempt {call.number}")
        seconds = call.session.timeouts.attempt
        spent = TransportError(f"no whole answer within the attempt timeout of {seconds:g} s", sent=sent)
        spent.__cause__ = exc
        return spent

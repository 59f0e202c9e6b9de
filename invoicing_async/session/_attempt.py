"""One attempt of a call: a place, an intent, one exchange, and what its answer says."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import evolve, frozen

from .._core.clock import Bound
from .._core.hold import Hold
from .._core.http import Exchange, Request, Response
from .._core.secrecy import trim
from ..errors import AuthenticationError, InvoicingError, Sent, TransportError
from ..events import RequestStarted
from ._refusal import Refusal

if TYPE_CHECKING:
    from ._call import Call

__all__ = ["SingleAttempt", "StaleIntentError"]

T = TypeVar("T")

SUCCESS_CLASS = 2
"""The first digit of a status that is no error."""


class StaleIntentError(TransportError):
    """The intent to submit had grown too old before its first byte could leave; it is recorded anew."""

    hint = "This process was stopped, or its disk or the connecting took long; see Timeouts.intent."


@frozen
class Moment:
    """One moment on both clocks."""

    monotonic: float
    epoch: float


class SingleAttempt(Generic[T]):
    """One attempt of a call. Everything that it makes, the next one makes anew, but for an intent that still stands."""

    __slots__ = (
        "_answer",
        "_call",
        "_has_left",
        "_has_place",
        "_prepared",
        "_refusal",
        "_until",
        "begun",
        "credential",
        "exchange",
        "intended",
        "ready",
    )

    def __init__(self, call: Call[T], *, fresh: bool = False, intended: Moment | None = None) -> None:
        self._call = call
        self._answer: AbstractAsyncContextManager[Response] | None = None
        self._refusal: Refusal | None = None
        self._has_left = self._has_place = self._prepared = False
        self.begun: float | None = None
        """When it began, None before that and once its failure is in the history."""
        self.credential: Mapping[str, str] = {}
        self.exchange = Exchange(fresh=fresh)
        self.intended = intended
        self.ready = False

    async def result(self) -> T:
        """Take a place, send, check and read: one coroutine, since every one costs at every step of a wait."""
        call = self._call
        session, request = call.session, call.request
        clock = session.clock
        handled = sys.exception()
        self.begun = clock.monotonic()
        try:
            self.ready = not request.authorised or session.auth.ready(clock)
            self._has_place = self.ready and session.admission.try_enter()
            if not self._has_place:
                await self._enter()
            now = clock.monotonic()
            seconds, stop_at = session.timeouts.attempt, call.stop_at
            is_last = stop_at is not None and stop_at - now < seconds
            limit = seconds if stop_at is None else min(seconds, stop_at - now)
            self._until = now + limit
            bound = clock.timeout(limit)
            try:
                async with bound:
                    if call.before is not None and not self._prepared:
                        await self._intend()
                    answer = session.begin(self._signed(), self.exchange)
                    try:
                        response = await answer.__aenter__()
                    except BaseException as exc:
                        # A transport that is none of ours may not have said that the first byte left.
                        if self.exchange.sent or (isinstance(exc, InvoicingError) and exc.sent != "no"):
                            self._leave()
                        raise
                    if call.leaves is not None:
                        self._leave()  # also where no transport of ours was there to say so
                    self._answer = answer
                    if response.status // 100 != SUCCESS_CLASS and response.status not in request.answers:
                        refusal = self._refusal = Refusal(response, clock)
                        await refusal.read(session.timeouts.read)
                        raise refusal.error()
                    value = await call.read(response)
            except TimeoutError as exc:
                raise self._timed_out(bound, exc, is_last=is_last)  # noqa: B904 - it brings its cause
        except BaseException as error:
            trim(error, handled)
            await self.release()
            raise
        if not call.keep:
            await self.release()
        return value

    def hold(self) -> Hold:
        """Give the place back, and return what the answer that is kept open has hold of from now on."""
        session, self._has_place = self._call.session, False
        session.admission.leave()
        left = self._until - session.clock.monotonic()
        return Hold(session.admission.places, session.clock, left, session.timeouts.attempt, self.release)

    async def release(self) -> None:
        """Give back the connection and the place in the concurrency limit. Doing it twice does nothing."""
        answer, self._answer = self._answer, None
        try:
            if answer is not None:
                await answer.__aexit__(None, None, None)
        finally:
            if self._has_place:
                self._has_place = False
                self._call.session.admission.leave()

    async def _enter(self) -> None:
        """Get the credential within the deadline, then a place; the deadline does not count that wait."""
        call = self._call
        session = call.session
        self.ready = False
        remaining = call.remaining()
        if remaining is not None and remaining <= 0:
            raise call.late("no")
        await call.in_time(self._get_ready())
        begun = session.clock.monotonic()
        # One that waited in line for too long begins with its place in hand.
        prepare = None if call.before is None or call.chanceless else self._intend
        self._prepared = await session.admission.enter(prepare)
        self._has_place = True
        call.put_off(begun)

    async def _get_ready(self) -> None:
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

    async def _intend(self) -> None:
        """Await `before`, noting when: what it records is at least as young."""
        if self.intended is None:
            clock = self._call.session.clock
            self.intended = Moment(clock.monotonic(), clock.now())
        if self._call.before is not None:
            await self._call.before()

    def _first_byte_by(self) -> float:
        """Return when the first byte must have left: before its intent is too old or the attempt ends anyway."""
        if self.intended is None:
            return self._until
        return min(self._until, self.intended.monotonic + self._call.session.timeouts.intent)

    def _leaving(self) -> None:
        """Judge whether the first byte may leave still; then it is about to."""
        session, deadline, intended = self._call.session, self.exchange.deadline, self.intended
        late = deadline is not None and session.clock.monotonic() > deadline
        # A machine that slept counts no monotonic seconds meanwhile.
        if late or (intended is not None and session.clock.now() > intended.epoch + session.timeouts.intent):
            raise StaleIntentError("the intent had grown too old before the first byte could leave", sent="no")
        self._leave()

    def _leave(self) -> None:
        if not self._has_left:
            self._has_left = True
            if self._call.leaves is not None:
                self._call.leaves()

    def _signed(self) -> Request:
        """Return what is sent, and let its first byte be judged if it must not be late."""
        call = self._call
        session, request = call.session, call.request
        if call.guarded:
            self.exchange.deadline, self.exchange.leaves = self._first_byte_by(), self._leaving
        if session.on_event is not None:
            session.tell(RequestStarted(operation=request.operation, path=request.path, attempt=call.number))
        if not request.authorised:
            return evolve(request, base_url=request.base_url or session.base_url)
        self.credential = session.auth.headers(request, base_path=session.base_path, now=session.clock.now())
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

    def _timed_out(self, bound: Bound, exc: TimeoutError, *, is_last: bool) -> Exception:
        """Say what a bound that ran out means; another's `TimeoutError` passes through."""
        call = self._call
        if not bound.expired():
            return exc
        if self._refusal is not None:
            # Its status had come: the answer is what it says, however its body went on.
            return self._refusal.error()
        sent: Sent = "unknown" if self.exchange.sent else "no"
        if is_last:
            return call.late(sent)
        seconds = call.session.timeouts.attempt
        spent = TransportError(f"no whole answer within the attempt timeout of {seconds:g} s", sent=sent)
        spent.__cause__ = exc
        return spent

"""The one verb: authorise, send, check, read, and all of that again as the policy says.

`Session.call(request, read)` is the only way to a service. `read` runs inside the attempt, so that a retry signs
anew, reads anew and writes anew. The only retry loop of the project is here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from enum import Enum
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, cast
from urllib.parse import urlsplit

from attrs import evolve, frozen
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from ._core.batch import in_batch
from ._core.clock import Bound, Clock, RealClock
from ._core.credential_watch import CredentialWatch
from ._core.envelope import error_from
from ._core.error_bodies import read_into
from ._core.exact_json import unexpected
from ._core.hold import Hold
from ._core.http import Exchange, Repeat, Request, Response, Transport
from ._core.outcomes import may_repeat
from ._core.rate_limiter import Pacer
from ._core.secrecy import trim
from ._core.semaphore import Slots
from ._core.tasks import Lifetime
from ._einvoices.links import checked_base_url
from .auth import Auth
from .errors import (
    ApiError,
    Attempt,
    AuthenticationError,
    DeadlineError,
    InvoicingError,
    ProtocolError,
    Sent,
    SessionError,
    TransportError,
)
from .events import AttemptFailed, Event, Observer, RequestStarted, RequestSucceeded, RetryScheduled
from .policies import Limits, RetryPolicy, Timeouts

__all__ = ["Session", "Sleep", "may_repeat"]

_log = logging.getLogger("invoicing_async")

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]
"""Waits so many seconds; a batch passes its own, which gives its place to another item meanwhile."""

SUCCESS_CLASS = 2
"""The first digit of a status that is no error."""


class Resource(Protocol):
    """Something a session holds for its features and closes with itself."""

    async def close(self) -> None: ...


R = TypeVar("R", bound=Resource)

ANTEROOM = 4
"""One in so many calls as may be under way at once may do beforehand what has to be done before its first byte. More
of them would fill the places of a slow disk's calls, but after a crash each is a doubt that need not be."""

CHECKS = 4
"""Credentials, each another one, that a call may try after it was refused: others may renew the same tenant's."""

WIDE = 32
"""Up to so many calls at once, the default, nobody does: there a crash leaves in doubt what was in flight, no more."""

RENEWALS = 10
"""Attempts of a call that never had a chance and are not counted: their intent had grown too old before the first byte,
or the idle connection that they took had been closed by its peer."""


class StaleIntentError(TransportError):
    """The intent to submit had grown too old before its first byte could leave; it is recorded anew."""

    hint = "This process was stopped, or its disk or the connecting took long; see Timeouts.intent."


class _State(Enum):
    NEW = "not open yet: enter it with `async with`"
    OPEN = "open"
    CLOSED = "closed"


class Session:
    """A place to call one service from: base URL, credentials, policies and a pool of connections.

    Use it as `async with Session(...) as session:` and only in the event loop that entered it; one session serves
    any number of concurrent tasks. `base_url` is absolute, without query. `on_event` hears what happens.
    `transport` replaces the network: a `Sandbox`, or an `AiohttpTransport` with a proxy or TLS settings of its own (see
    `transport`), which you close; or a function that makes one, which the session closes. It has the session's
    time-outs unless it was given its own. `clock` replaces time and chance.

    Raises `ValueError` for a base URL that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        transport: Transport | Callable[[], Transport] | None = None,
        clock: Clock | None = None,
        on_event: Observer | None = None,
    ) -> None:
        self.base_url = checked_base_url(base_url)
        self.base_path = urlsplit(self.base_url).path
        self.auth = auth
        self.retry = retry or RetryPolicy()
        self.timeouts = timeouts or Timeouts()
        self.limits = limits or Limits()
        self.clock: Clock = clock or RealClock()
        self.on_event = on_event
        self._given_transport = transport
        self._transport: Transport | None = None
        self._closes_transport = False
        self._state = _State.NEW
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = Slots(self.limits.concurrency)
        self._has_anteroom = self.limits.concurrency > WIDE
        self._anteroom = Slots(self.limits.concurrency // ANTEROOM)
        self._credentials = CredentialWatch()
        self._turn = Slots(1)
        self._pacer = Pacer(self.limits.per_second) if self.limits.per_second else None
        self._resources: dict[type[Any], Any] = {}
        self._lifetime = Lifetime()
        self._kept: set[_Call[Any]] = set()
        self._misheard: set[tuple[type[BaseException], type[Any]]] = set()

    def __repr__(self) -> str:
        return f"Session({self.base_url!r}, auth={type(self.auth).__name__}, {self._state.name.lower()})"

    async def __aenter__(self) -> Self:
        if self._state is not _State.NEW:
            raise SessionError(f"this session was {self._state.name.lower()} before; make a new one")
        self._loop = asyncio.get_running_loop()
        self._transport, self._closes_transport = self._taken(self._given_transport)
        self._state = _State.OPEN
        return self

    def _taken(self, given: Transport | Callable[[], Transport] | None) -> tuple[Transport, bool]:
        """Return the transport, and whether it is this session's to close: one that it made, or had made."""
        if given is None:
            from ._transport.client import AiohttpTransport  # only who goes there waits for its import

            return AiohttpTransport(timeouts=self.timeouts, clock=self.clock), True
        if hasattr(given, "send") and not isinstance(given, type):
            return cast("Transport", given), False
        return cast("Callable[[], Transport]", given)(), True

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End what is under way with `SessionError`, close the connections and what features hold.

        A submission that is ended so may have been made: it is in doubt. Closing twice does nothing. Raises
        `SessionError` in another event loop than the session's.
        """
        if self._state is not _State.OPEN:
            self._state = _State.CLOSED
            return
        self._check_loop()
        self._state = _State.CLOSED
        try:
            await self._lifetime.end()
            await self._release_kept()
        finally:
            try:
                for resource in reversed(self._resources.values()):
                    await resource.close()
            finally:
                if self._transport is not None and self._closes_transport:
                    await self._transport.close()

    async def _release_kept(self) -> None:
        """Cut the answers that are still open; those of a given transport are their owner's."""
        if self._closes_transport:
            for call in tuple(self._kept):
                await call.release()

    def resource(self, kind: type[R]) -> R:
        """Give the one `kind` of this session, made at first use and closed with the session."""
        self.check_usable()
        if kind not in self._resources:
            self._resources[kind] = kind()
        held: R = self._resources[kind]
        return held

    def check_usable(self) -> None:
        """Raise `SessionError` unless the session is open and this is its event loop."""
        if self._state is not _State.OPEN:
            raise SessionError(f"the session is {self._state.value}")
        self._check_loop()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise SessionError("the session belongs to another event loop; make one for each loop")

    async def sleep(self, seconds: float) -> None:
        """Wait by the session's clock. Raises `SessionError` when the session is closed meanwhile."""
        self.check_usable()
        with self._lifetime.scope():
            await self.clock.sleep(seconds)

    def lasting(self) -> AbstractContextManager[None]:
        """Return a context that ends with `SessionError` when the session is closed meanwhile."""
        return self._lifetime.scope()

    def call(
        self,
        request: Request,
        read: Callable[[Response], Awaitable[T]],
        *,
        sleep: Sleep | None = None,
        retry: RetryPolicy | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
        leaves: Callable[[], None] | None = None,
    ) -> Coroutine[Any, Any, T]:
        """Send the request and give what `read` makes of its answer, trying again as the policy says.

        `read` gets an answer with a status of 2xx or of `request.answers`, inside the attempt; what it raises counts
        as the attempt's failure. `sleep` replaces the wait between attempts, `retry` the session's policy,
        `before` is awaited before each attempt's first byte: in its place, or, where all are taken, while it waits
        next in line for one. If that byte cannot leave within `Timeouts.intent` of it, the attempt ends unsent and
        `before` is awaited again by the next, at once. `leaves` is called when the byte is about to leave, on a
        connection that is there. Raises the errors of `errors`, each with its `attempts`; whatever else `read` raises
        passes through unchanged.
        """
        return _Call(self, request, read, sleep=sleep, retry=retry, before=before, leaves=leaves).run()

    @asynccontextmanager
    async def open(self, request: Request, read: Callable[[Response], Awaitable[T]]) -> AsyncIterator[T]:
        """Do as `call`, but keep the answer open until the block ends, so that `read` may hand on its body.

        Nothing is retried once the block has begun. The block holds a place in the concurrency limit, and what is left
        of the attempt's time bounds it.
        """
        async with self.hold(request, read) as (value, hold), hold.reading():
            yield value

    @asynccontextmanager
    async def hold(self, request: Request, read: Callable[[Response], Awaitable[T]]) -> AsyncIterator[tuple[T, Hold]]:
        """Do as `open`, but hold no place in the concurrency limit except inside `Hold.reading`.

        For a body that is passed on to somebody who may be slow.
        """
        call = _Call(self, request, read, keep=True)
        hold: Hold | None = None
        self._kept.add(call)
        try:
            value = await call.run()
            hold = call.hold()
            yield value, hold
        except (ProtocolError, TransportError) as exc:
            if self._state is _State.OPEN:
                raise
            raise SessionError("the session was closed meanwhile") from exc
        finally:
            self._kept.discard(call)
            await (call if hold is None else hold).release()

    def tell(self, event: Event) -> None:
        """Pass an event to the observer, if there is one. What it raises is logged once of each kind, and no more."""
        if self.on_event is None:
            return
        try:
            self.on_event(event)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - none of it is about the call
            # A cancellation comes at an await, and here is none: this one is of something the observer looked at.
            self._mishear(exc, event)

    def _mishear(self, exc: BaseException, event: Event) -> None:
        kind = type(exc), type(event)
        if kind not in self._misheard:
            self._misheard.add(kind)
            names = kind[0].__name__, kind[1].__name__
            _log.error("on_event raised %s when told of %s; the call goes on", *names, exc_info=exc)

    def admit_now(self) -> bool:
        """Take a place in the concurrency limit if an attempt may begin at once; pair it with `leave`."""
        return self._pacer is None and self._slots.take_now()

    async def admit(self) -> None:
        """Wait for a place in the concurrency and rate limits; pair it with `leave`.

        The place comes first: paced attempts that then queued for one would begin in a burst.
        """
        await self._slots.take()
        try:
            await self._pace()
        except BaseException:
            self.leave()
            raise

    @property
    def may_prepare(self) -> bool:
        """True if a call may do what it can before its place: all of many are taken, and that is all it waits for."""
        return self._pacer is None and self._has_anteroom and not self._slots.free

    async def admit_after(self, before: Callable[[], Awaitable[None]]) -> None:
        """Do as `admit`, but await `before` while waiting for the place, which is not held meanwhile.

        Few at a time: what `before` records as begun waits for its first byte, and a crash leaves it in doubt.
        """
        await self._anteroom.take()
        try:
            await before()
            await self._slots.take()
        finally:
            self._anteroom.give()

    async def _pace(self) -> None:
        """Wait for one's turn in the rate limit. It is taken when it has come: who gives up leaves none unused."""
        pacer, clock = self._pacer, self.clock
        if pacer is None:
            return
        await self._turn.take()
        try:
            now = clock.monotonic()
            wait = pacer.wait(now)
            if wait > 0:
                await clock.sleep(wait)
            pacer.take(now + wait, clock.monotonic())
        finally:
            self._turn.give()

    def ends_batch(self, error: BaseException) -> bool:
        """Tell whether the next call would meet `error` too: the session is closed or its credential refused.

        One answer of 401 is not enough: a call that meets one tries once more, with a new credential if it can get
        one. A second call to which that happens, with no success between, or a refusal by who gives the
        credentials, is.
        """
        return isinstance(error, SessionError) or (isinstance(error, AuthenticationError) and self._credentials.refused)

    @property
    def credentials(self) -> CredentialWatch:
        """Whether the service still accepts the credential."""
        return self._credentials

    @property
    def places(self) -> Slots:
        """The places of the concurrency limit."""
        return self._slots

    def leave(self) -> None:
        """Give back a place in the concurrency limit."""
        self._slots.give()

    def begin(self, request: Request, exchange: Exchange) -> AbstractAsyncContextManager[Response]:
        """Begin one bare exchange; the answer's head arrives on entering it."""
        if self._state is not _State.OPEN or self._transport is None:
            raise SessionError(f"the session is {self._state.value}")
        exchange.timeouts = self.timeouts
        return self._transport.send(request, exchange)


@frozen
class _Moment:
    """One moment on both clocks."""

    monotonic: float
    epoch: float


class _Call(Generic[T]):
    """One call with its attempts. Everything that one attempt makes, the next makes anew."""

    __slots__ = (
        "_answer",
        "_at_once",
        "_before",
        "_begun",
        "_body",
        "_checks",
        "_declined",
        "_error",
        "_exchange",
        "_guarded",
        "_history",
        "_intended",
        "_keep",
        "_leaves",
        "_left",
        "_policy",
        "_prepared",
        "_read",
        "_ready",
        "_refused",
        "_request",
        "_sent_headers",
        "_session",
        "_sleep",
        "_slot",
        "_stale",
        "_started",
        "_stop_at",
        "_until",
    )

    def __init__(
        self,
        session: Session,
        request: Request,
        read: Callable[[Response], Awaitable[T]],
        *,
        sleep: Sleep | None = None,
        retry: RetryPolicy | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
        leaves: Callable[[], None] | None = None,
        keep: bool = False,
    ) -> None:
        self._session = session
        self._request = request
        self._read = read
        self._keep = keep
        self._before = before
        self._leaves = leaves
        self._guarded = before is not None or leaves is not None or request.repeat is Repeat.IF_NOT_SENT
        self._sleep = sleep or session.clock.sleep
        self._history: tuple[Attempt, ...] = ()
        self._begun: float | None = None
        self._error: InvoicingError | None = None
        self._exchange = Exchange()
        self._answer: AbstractAsyncContextManager[Response] | None = None
        self._slot = False
        self._stale = 0
        self._at_once = False
        self._intended: _Moment | None = None
        self._left = False
        self._refused: Response | None = None
        self._body = bytearray()
        self._ready = False
        self._checks = 0
        self._declined: Mapping[str, str] | None = None
        self._sent_headers: Mapping[str, str] = {}
        self._started = session.clock.monotonic()
        self._policy = retry or session.retry
        deadline = self._policy.deadline
        self._stop_at = None if deadline is None else self._started + deadline

    async def run(self) -> T:
        session = self._session
        session.check_usable()
        try:
            with session.lasting():
                try:
                    value = await self._exchange_once()
                except InvoicingError as error:
                    value = await self._again(error)
        except InvoicingError as error:
            if isinstance(error, SessionError):
                self._cut_off(error)
            error.attempts = self._history
            raise
        if self._request.authorised:
            session.credentials.accepted()
        if session.on_event is not None:
            elapsed = session.clock.monotonic() - self._started
            session.tell(
                RequestSucceeded(
                    operation=self._request.operation,
                    path=self._request.path,
                    attempts=len(self._history) + 1,
                    elapsed=elapsed,
                )
            )
        return value

    def _cut_off(self, error: SessionError) -> None:
        """Say of a call that its session's end cut off whether its request may have arrived."""
        if self._exchange.sent:
            error.sent = "unknown"
        if self._begun is not None:
            self._note(error)

    def _remaining(self) -> float | None:
        return None if self._stop_at is None else self._stop_at - self._session.clock.monotonic()

    async def _in_time(self, wait: Awaitable[None]) -> None:
        """Await something before or between attempts, but not beyond the deadline."""
        bound = self._session.clock.timeout(self._remaining())
        try:
            async with bound:
                await wait
        except TimeoutError:
            if not bound.expired():
                raise
            raise self._late() from self._error

    def _late(self) -> DeadlineError:
        sent: Sent = "unknown" if self._exchange.sent else "no"
        return DeadlineError(f"the deadline of {self._policy.deadline:g} s ended the call", sent=sent)

    async def _again(self, error: InvoicingError) -> T:
        """Go on after a failed exchange: after a 401 with a check of the credential, then as the policy says.

        The retry machinery costs as much as a signature, so only failures meet it.
        """
        try:
            return await self._checked(error)
        except InvoicingError as exc:
            error = exc
        if not self._repeatable(error):
            raise error
        retrying = AsyncRetrying(
            sleep=self._slept,
            stop=self._is_spent,
            wait=self._wait,
            retry=retry_if_exception(self._repeatable),
            before_sleep=self._before_sleep,
            reraise=True,
        )
        return await retrying(self._attempt_after, [error])

    async def _attempt_after(self, failed: list[InvoicingError]) -> T:
        """Count the first attempt, which has failed already, as the loop's first; then try for real."""
        if failed:
            raise failed.pop()
        return await self._attempt()

    def _repeatable(self, error: BaseException) -> bool:
        # A credential that cannot be had was already tried for under the same policy.
        return self._ready and not isinstance(error, DeadlineError) and may_repeat(error, self._request.repeat)

    def _is_spent(self, state: RetryCallState) -> bool:
        policy = self._policy
        if self._counted(state) >= policy.attempts:
            return True
        until = self._session.clock.monotonic() + state.upcoming_sleep
        return self._stop_at is not None and until >= self._stop_at

    def _counted(self, state: RetryCallState) -> int:
        """Give the number of attempts that were made of this one, without those that never had a chance."""
        return state.attempt_number - min(self._stale, RENEWALS)

    def _wait(self, state: RetryCallState) -> float:
        if self._at_once:
            return 0.0
        retry_after = self._error.retry_after if isinstance(self._error, ApiError) else None
        chance = self._session.clock.random()
        return self._policy.delay(max(1, self._counted(state)), chance, retry_after=retry_after)

    def _before_sleep(self, state: RetryCallState) -> None:
        delay = state.upcoming_sleep
        self._history = (*self._history[:-1], evolve(self._history[-1], waited=delay))
        # Nothing of the next attempt has left yet, whatever became of the last one, and it has an intent of its own.
        self._exchange = Exchange(fresh=self._exchange.stale)
        self._intended = None
        request, number = self._request, len(self._history)
        self._session.tell(RetryScheduled(operation=request.operation, path=request.path, attempt=number, delay=delay))

    async def _slept(self, seconds: float) -> None:
        if in_batch():
            begun = self._session.clock.monotonic()
            await self._sleep(seconds)
            self._count_queue(begun + seconds)
            return
        try:
            await self._in_time(self._sleep(seconds))
        except DeadlineError as error:
            self._note(error)
            raise

    async def _attempt(self) -> T:
        """Make one attempt; a 401 that a new credential can mend is mended inside it."""
        try:
            return await self._exchange_once()
        except InvoicingError as error:
            failed = error
        return await self._checked(failed)

    async def _checked(self, error: InvoicingError) -> T:
        """Check the credential after a 401: try at once again, with a new one if it can be had; else raise `error`."""
        while self._may_check(error):
            self._checks += 1
            self._declined = self._sent_headers
            try:
                return await self._exchange_once()
            except InvoicingError as exc:
                error = exc
        if self._checks and self._is_refusal(error):
            self._session.credentials.failed()
        raise error

    def _is_refusal(self, error: InvoicingError) -> bool:
        return isinstance(error, AuthenticationError) and self._ready and self._request.authorised

    def _may_check(self, error: InvoicingError) -> bool:
        """Tell whether another attempt may be accepted: once, and as often as the next credential is another one."""
        if not self._is_refusal(error):
            return False
        session, sent = self._session, self._sent_headers
        allowed = CHECKS if session.auth.refused(sent) else 1
        return self._checks < allowed and sent != self._declined and not session.credentials.refused

    async def _exchange_once(self) -> T:
        """Take a place, send, check and read: one coroutine, since every one costs at every step of a wait."""
        session = self._session
        self._begun = session.clock.monotonic()
        self._exchange = Exchange(fresh=self._exchange.fresh)
        self._prepared = self._left = False
        self._refused = None
        try:
            if not self._admitted_now():
                await self._admitted()
            seconds, remaining = session.timeouts.attempt, self._remaining()
            is_last = remaining is not None and remaining < seconds
            limit = remaining if remaining is not None and is_last else seconds
            until = self._until = session.clock.monotonic() + limit
            bound = session.clock.timeout(limit)
            try:
                async with bound:
                    if self._before is not None and not self._prepared:
                        await self._intend()
                    answer = self._begin(until)
                    try:
                        response = await answer.__aenter__()
                    except BaseException as exc:
                        self._hear_the_end(exc)
                        raise
                    self._has_left()  # also where no transport of ours was there to say so
                    self._answer = answer
                    if response.status // 100 != SUCCESS_CLASS and response.status not in self._request.answers:
                        raise await self._refusal(response)
                    value = await self._read(response)
            except TimeoutError as exc:
                raise self._timed_out(bound, exc, seconds=seconds, is_last=is_last)  # noqa: B904 - it brings its cause
        except InvoicingError as error:
            trim(error)
            await self.release()
            self._note(error)
            raise
        except BaseException as error:
            trim(error)
            await self.release()
            raise
        if not self._keep:
            await self.release()
        return value

    def _admitted_now(self) -> bool:
        """Get ready and take a place if neither has to be waited for."""
        session = self._session
        self._ready = not self._request.authorised or session.auth.ready(session.clock)
        self._slot = self._ready and session.admit_now()
        return self._slot

    async def _admitted(self) -> None:
        """Get ready within the deadline, and take a place."""
        self._ready = False
        remaining = self._remaining()
        if remaining is not None and remaining <= 0:
            raise self._late() from self._error
        await self._in_time(self._prepare())
        begun = self._session.clock.monotonic()
        await self._queue()
        self._count_queue(begun)

    def _count_queue(self, since: float) -> None:
        """Put the deadline off by the time since then: it bounds the call, not its waits for a place."""
        if self._stop_at is not None:
            self._stop_at += max(0.0, self._session.clock.monotonic() - since)

    async def _prepare(self) -> None:
        session = self._session
        if self._request.authorised and not session.auth.ready(session.clock):
            try:
                await session.auth.prepare(session.call, session.clock)
            except InvoicingError as error:
                # Whatever became of the credential's own call, this request was not sent.
                error.sent = "no"
                if isinstance(error, AuthenticationError):
                    session.credentials.denied()
                raise
            session.credentials.given()
        self._ready = True

    async def _queue(self) -> None:
        session = self._session
        # One that waited there for too long begins with its place in hand.
        if self._before is not None and not self._stale and session.may_prepare:
            await session.admit_after(self._intend)
            self._prepared = True
        else:
            await session.admit()
        self._slot = True

    async def _refusal(self, response: Response) -> InvoicingError:
        """Give the error that an answer is by its status, with what its body says if that comes in time."""
        session = self._session
        self._refused, self._body = response, bytearray()
        bound = session.clock.timeout(session.timeouts.read)
        try:
            async with bound:
                await read_into(self._body, response.chunks())
        except TimeoutError:
            if not bound.expired():
                raise
        return self._refused_with(response)

    def _refused_with(self, response: Response) -> InvoicingError:
        body = bytes(self._body)
        error = error_from(response.status, response.header, body, now=self._session.clock.now())
        return error or unexpected(f"the service answered {response.status}", body, response.status)

    async def _intend(self) -> None:
        """Await `before`, noting when: what it records is at least as young."""
        if self._intended is None:
            clock = self._session.clock
            self._intended = _Moment(clock.monotonic(), clock.now())
        if self._before is not None:
            await self._before()

    def _begin(self, until: float) -> AbstractAsyncContextManager[Response]:
        exchange = self._exchange
        if self._guarded:
            exchange.deadline, exchange.leaves = self._first_byte_by(until), self._leaving
        return self._session.begin(self._signed(), exchange)

    def _hear_the_end(self, exc: BaseException) -> None:
        """Hear that no answer came; a transport that is none of ours may not have said that the first byte left."""
        if self._exchange.sent or (isinstance(exc, InvoicingError) and exc.sent != "no"):
            self._has_left()

    def _first_byte_by(self, until: float) -> float:
        """Give when the first byte must have left: before its intent is too old, and before the attempt ends anyway."""
        if self._intended is None:
            return until
        return min(until, self._intended.monotonic + self._session.timeouts.intent)

    def _leaving(self) -> None:
        """Judge whether the first byte may leave still; then it is about to."""
        clock, deadline, intended = self._session.clock, self._exchange.deadline, self._intended
        late = deadline is not None and clock.monotonic() > deadline
        # A machine that slept counts no monotonic seconds meanwhile.
        if late or (intended is not None and clock.now() > intended.epoch + self._session.timeouts.intent):
            raise StaleIntentError("the intent had grown too old before the first byte could leave", sent="no")
        self._has_left()

    def _has_left(self) -> None:
        if not self._left:
            self._left = True
            if self._leaves is not None:
                self._leaves()

    def _timed_out(self, bound: Bound, exc: TimeoutError, *, seconds: float, is_last: bool) -> Exception:
        """Say what a bound that ran out means; another's `TimeoutError` passes through."""
        if not bound.expired():
            return exc
        if self._refused is not None:
            # Its status had come: the answer is what it says, however its body went on.
            return self._refused_with(self._refused)
        if is_last:
            late = self._late()
            late.__cause__ = self._error
            return late
        sent: Sent = "unknown" if self._exchange.sent else "no"
        spent = TransportError(f"no whole answer within the attempt timeout of {seconds:g} s", sent=sent)
        spent.__cause__ = exc
        return spent

    def _signed(self) -> Request:
        session, request = self._session, self._request
        if session.on_event is not None:
            number = len(self._history) + 1
            session.tell(RequestStarted(operation=request.operation, path=request.path, attempt=number))
        if not request.authorised:
            return evolve(request, base_url=request.base_url or session.base_url)
        credentials = session.auth.headers(request, base_path=session.base_path, now=session.clock.now())
        self._sent_headers = credentials
        # Spelled out: `evolve` costs as much as the signature.
        return Request(
            method=request.method,
            path=request.path,
            query=request.query,
            headers={**request.headers, **credentials},
            body=request.body,
            base_url=session.base_url,
            repeat=request.repeat,
            operation=request.operation,
        )

    def hold(self) -> Hold:
        """Give the place back, and what the answer that is kept open has hold of from now on."""
        session, self._slot = self._session, False
        session.leave()
        left = self._until - session.clock.monotonic()
        return Hold(session.places, session.clock, left, session.timeouts.attempt, self.release)

    async def release(self) -> None:
        """Give back the connection and the place in the concurrency limit. Doing it twice does nothing."""
        answer, self._answer = self._answer, None
        try:
            if answer is not None:
                await answer.__aexit__(None, None, None)
        finally:
            if self._slot:
                self._slot = False
                self._session.leave()

    def _note(self, error: InvoicingError) -> None:
        clock, request = self._session.clock, self._request
        elapsed = 0.0 if self._begun is None else clock.monotonic() - self._begun
        self._begun = None
        self._error = error
        self._at_once = isinstance(error, StaleIntentError) or self._exchange.stale
        self._stale += self._at_once
        self._history += (
            Attempt(
                number=len(self._history) + 1,
                at=clock.now() - elapsed,
                elapsed=elapsed,
                error=f"{type(error).__name__}: {error}",
                status=getattr(error, "status", None),
                code=getattr(error, "code", None),
                request_id=getattr(error, "request_id", None),
            ),
        )
        if self._session.on_event is not None:
            number = len(self._history)
            event = AttemptFailed(operation=request.operation, path=request.path, attempt=number, error=error)
            self._session.tell(event)

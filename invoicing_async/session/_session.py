"""A place to call one service from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from copy import copy
from enum import Enum
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, cast
from urllib.parse import urlsplit

from attrs import define

from .._core.admission import Admission
from .._core.clock import Clock, RealClock
from .._core.clock_offset import ClockOffset
from .._core.credential_watch import CredentialWatch
from .._core.hold import Hold
from .._core.http import Request, Response, Transport
from .._core.tasks import Lifetime, Scope
from .._einvoices.links import checked_base_url
from .._governor.gate import Governor
from ..auth import Auth
from ..errors import AuthenticationError, ProtocolError, ServiceDownError, SessionError, TransportError
from ..events import Event, Observer
from ..health import Health
from ..policies import Limits, OutagePolicy, RetryPolicy, Timeouts
from ._call import Call, Sleep

__all__ = ["Resource", "Session"]

_log = logging.getLogger("invoicing_async")

T = TypeVar("T")


class Resource(Protocol):
    """Something a session holds for its features and closes with itself."""

    async def close(self) -> None: ...


R = TypeVar("R", bound=Resource)


class _State(Enum):
    NEW = "not open yet: enter it with `async with`"
    OPEN = "open"
    DRAINING = "closing: it takes no more calls"
    CLOSED = "closed"


@define
class _Life:
    """What a session and its views have in common, once and for all."""

    state: _State = _State.NEW
    loop: asyncio.AbstractEventLoop | None = None


class Session:
    """A place to call one service from: base URL, credentials, policies and a pool of connections.

    Use it as `async with Session(...) as session:` and only in the event loop that entered it; one session serves
    any number of concurrent tasks. `base_url` is absolute, without query. `on_event` is called with each event.
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
        outage: OutagePolicy | None = None,
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
        self.outage = outage or OutagePolicy()
        self.clock: Clock = clock or RealClock()
        self.on_event = on_event
        self._given_transport = transport
        self.transport: Transport
        """What carries its requests, once it is open."""
        self._closes_transport = False
        self._life = _Life()
        self.is_view = False
        self.admission = Admission(self.limits, self.clock)
        self.store = _store_of(auth)
        """Whose calls these are, for lanes and turns; empty if they are no store's."""
        tell = None if on_event is None else self.tell
        self.governor = Governor(self.limits, self.outage, self.clock, ahead=self.admission.ahead, tell=tell)
        self.credentials = CredentialWatch()
        self.clock_offset = ClockOffset()
        self._resources: dict[type[Any], Any] = {}
        self.lifetime = Lifetime()
        self._kept: set[Call[Any]] = set()
        self._logged_observer_errors: set[tuple[type[BaseException], type[Any]]] = set()

    def __repr__(self) -> str:
        return f"Session({self.base_url!r}, auth={type(self.auth).__name__}, {self._life.state.name.lower()})"

    def with_options(
        self,
        *,
        auth: Auth | None = None,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        outage: OutagePolicy | None = None,
    ) -> Self:
        """Return a view of this open session with other settings, for calls that have less time than others.

        It has the same connections, limits and lanes, and ends with this session; it is neither entered nor closed.
        What is not given stays. With an `auth` it is another store's, whose calls have lanes of their own and take
        turns with those of others. Of `outage`, `wait` and `patience` are the view's: when a lane pauses and is probed
        is the same for all. Raises `SessionError` if the session is not open.
        """
        self.check_usable()
        view = copy(self)
        view.is_view = True
        view.retry, view.timeouts = retry or self.retry, timeouts or self.timeouts
        view.outage = outage or self.outage
        if auth is not None:
            view.auth, view.store, view.credentials = auth, _store_of(auth), CredentialWatch()
        return view

    async def __aenter__(self) -> Self:
        self._refuse_view()
        if self._life.state is not _State.NEW:
            raise SessionError(f"this session was {self._life.state.name.lower()} before; make a new one")
        self._life.loop = asyncio.get_running_loop()
        given = self._given_transport
        if given is None:
            from .._transport.client import AiohttpTransport  # only who goes there waits for its import

            # It has the time-outs of each call, which may be a view's.
            self.transport, self._closes_transport = AiohttpTransport(clock=self.clock), True
        elif hasattr(given, "send") and not isinstance(given, type):
            self.transport = cast("Transport", given)
        else:
            self.transport, self._closes_transport = cast("Callable[[], Transport]", given)(), True
        self._life.state = _State.OPEN
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, *, drain: float = 0.0) -> tuple[str, ...]:
        """End what is under way, close the connections and what features hold, and return what was cut off.

        For `drain` seconds nothing new is taken and what is under way may end by itself, retries included; waits
        between polls end at once. What is left then ends with `SessionError`, and the operations of these calls are
        returned. A submission that is ended so may have been made: it is in doubt. Closing once more cuts a drain
        short, and otherwise does nothing. Raises `SessionError` in another event loop than the session's.
        """
        if self._life.state not in {_State.OPEN, _State.DRAINING}:
            self._life.state = _State.CLOSED
            return ()
        self._refuse_view()
        self._check_loop()
        if drain > 0 and self._life.state is _State.OPEN and not await self._drain(drain):
            return ()
        self._life.state = _State.CLOSED
        cut = tuple(scope.call for scope in self.lifetime.under_way() if scope.call)
        cut += tuple(call.request.operation for call in self._kept)
        try:
            self.governor.close()
            await self.lifetime.end()
            # Answers that are still open are cut; those of a given transport are their owner's.
            for call in tuple(self._kept) if self._closes_transport else ():
                await call.release()
        finally:
            try:
                resources, self._resources = self._resources, {}
                for resource in reversed(resources.values()):
                    await resource.close()
            finally:
                if self._closes_transport:
                    await self.transport.close()
        return cut

    async def _drain(self, seconds: float) -> bool:
        """Wait until the calls under way have ended or the time is over; false if another task closed the session."""
        self._life.state = _State.DRAINING
        for scope in self.lifetime.under_way():
            if not scope.call:
                scope.end()
        timeout = self.clock.timeout(seconds)
        try:
            async with timeout:
                await self.lifetime.emptied(lambda: self._kept or self.lifetime.under_way())
        except TimeoutError:
            if not timeout.expired():
                raise
        return self._life.state is _State.DRAINING

    def resource(self, kind: type[R]) -> R:
        """Return the one `kind` of this session, made at first use and closed with the session."""
        held: R | None = self._resources.get(kind)
        if held is None:
            self.check_usable()
            held = self._resources[kind] = kind()
        return held

    def check_usable(self, *, draining: bool = False) -> None:
        """Raise `SessionError` unless the session is open, or `draining` too, and this is its event loop."""
        if self._life.state is not _State.OPEN and not (draining and self._life.state is _State.DRAINING):
            raise SessionError(f"the session is {self._life.state.value}")
        if asyncio.get_running_loop() is not self._life.loop:
            self._check_loop()

    def _refuse_view(self) -> None:
        if self.is_view:
            raise SessionError("a view of a session is neither entered nor closed: it ends with the session")

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._life.loop:
            raise SessionError("the session belongs to another event loop; make one for each loop")

    async def sleep(self, seconds: float) -> None:
        """Wait by the session's clock. Raises `SessionError` when the session is closed meanwhile."""
        self.check_usable()
        with Scope(self.lifetime):
            await self.clock.sleep(seconds)

    def call(
        self,
        request: Request,
        read: Callable[[Response], Awaitable[T]],
        *,
        sleep: Sleep | None = None,
        retry: RetryPolicy | None = None,
        before_send: Callable[[], Awaitable[None]] | None = None,
        on_send: Callable[[], None] | None = None,
        patient: bool = False,
    ) -> Coroutine[Any, Any, T]:
        """Send the request and return what `read` makes of its answer, trying again as the policy says.

        `read` gets an answer with a status of 2xx or of `request.answers`, inside the attempt; what it raises counts
        as the attempt's failure. `sleep` replaces the wait between attempts, `retry` the session's policy,
        `before_send` is awaited before each attempt's first byte: in its place, or, where all are taken, while it waits
        next in line for one. If that byte cannot be sent within `Timeouts.intent` of it, the attempt ends unsent and
        `before_send` is awaited again by the next, at once. `on_send` is called right before the byte is sent, on a
        connection that is there. A `patient` call waits while the service is down, as every call of a batch does;
        another raises `ServiceDownError` then. Raises the errors of `errors`, each with its `attempts`; whatever else
        `read` raises passes through unchanged.
        """
        call = Call(
            self, request, read, sleep=sleep, retry=retry, before_send=before_send, on_send=on_send, patient=patient
        )
        return call.run()

    def health(self) -> Health:
        """Return how the service is doing, by what the calls so far found out; nothing is sent for it."""
        return self.governor.health()

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
        call = Call(self, request, read, keep=True)
        hold: Hold | None = None
        self._kept.add(call)
        try:
            value = await call.run()
            hold = call.hold()
            yield value, hold
        except (ProtocolError, TransportError) as exc:
            if self._life.state is not _State.CLOSED:
                raise
            raise SessionError("the session was closed meanwhile") from exc
        finally:
            self._kept.discard(call)
            self.lifetime.tell_left()
            await (call if hold is None else hold).release()

    def tell(self, event: Event) -> None:
        """Pass an event to the observer, if there is one. What it raises is logged once of each kind, and no more."""
        if self.on_event is None:
            return
        try:
            self.on_event(event)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - none of it is about the call
            # A cancellation comes at an await, and here is none: this one is of something the observer looked at.
            kind = type(exc), type(event)
            if kind not in self._logged_observer_errors:
                self._logged_observer_errors.add(kind)
                names = kind[0].__name__, kind[1].__name__
                _log.error("on_event raised %s when told of %s; the call goes on", *names, exc_info=exc)

    def ends_batch(self, error: BaseException) -> bool:
        """Tell whether the next call would meet `error` too: the session is closed or its credential refused.

        One answer of 401 is not enough: a call that meets one tries once more, with a new credential if it can get
        one. A second call to which that happens, with no success between, or a refusal by who gives the
        credentials, is.
        """
        if isinstance(error, (SessionError, ServiceDownError)):
            return True
        return isinstance(error, AuthenticationError) and self.credentials.refused


def _store_of(auth: Auth) -> str:
    """Return the name of the store that a credential belongs to: no secret."""
    return getattr(auth, "store_client_id", None) or ""

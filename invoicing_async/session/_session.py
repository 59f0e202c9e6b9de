"""A place to call one service from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from .._core.admission import Admission
from .._core.clock import Clock, RealClock
from .._core.clock_offset import ClockOffset
from .._core.credential_watch import CredentialWatch
from .._core.http import Request, Response, Transport
from .._core.tasks import Scope
from .._einvoices.links import checked_base_url
from .._governor.gate import Governor
from ..auth import Auth
from ..errors import AuthenticationError, ServiceDownError, SessionError
from ..events import Event, Observer
from ..health import Health
from ..policies import Limits, OutagePolicy, RetryPolicy, Timeouts
from ._call import Call, Sleep
from ._carrier import Carrier
from ._life import Kept, Life, State
from ._log import ObserverErrors, log_event, logger
from ._resources import Resource, Resources

__all__ = ["Resource", "Session"]

T = TypeVar("T")
R = TypeVar("R", bound=Resource)


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
        self._carrier = Carrier(transport, self.clock)
        self.transport: Transport
        """What carries its requests, once it is open."""
        self.life = Life()
        self.check_usable = self.life.check_usable
        """Raises `SessionError` unless the session is open, or `draining=True` too, and this is its event loop."""
        self.is_view = False
        self.admission = Admission(self.limits, self.clock)
        self.store = _store_of(auth)
        """Whose calls these are, for lanes and turns; empty if they are no store's."""
        self.governor = Governor(self.limits, self.outage, self.clock, ahead=self.admission.ahead, tell=self.tell)
        self.credentials = CredentialWatch()
        self.clock_offset = ClockOffset()
        self._resources = Resources(self.check_usable)
        self._observer_errors = ObserverErrors()

    def __repr__(self) -> str:
        return f"Session({self.base_url!r}, auth={type(self.auth).__name__}, {self.life.state.name.lower()})"

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
        view.retry, view.timeouts, view.outage = retry or self.retry, timeouts or self.timeouts, outage or self.outage
        if auth is not None:
            view.auth, view.store, view.credentials = auth, _store_of(auth), CredentialWatch()
        return view

    async def __aenter__(self) -> Self:
        self._refuse_view()
        self.life.check_new()
        self.transport = self._carrier.open()
        self.life.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, *, drain: float = 0.0) -> tuple[str, ...]:
        """End what is under way, close the connections and what features hold, and return what was cut off.

        For `drain` seconds nothing new is taken and what is under way may end by itself, retries included; waits
        between polls end at once. What is left then ends with `SessionError`, and the operations of these calls are
        returned. A submission that is ended so may have been made: it is in doubt. Closing once more cuts a drain
        short, and otherwise does nothing. Raises `SessionError` in another event loop than the session's.
        """
        life = self.life
        if life.state not in {State.OPEN, State.DRAINING}:
            life.state = State.CLOSED
            return ()
        self._refuse_view()
        life.check_loop()
        if drain > 0 and life.state is State.OPEN and not await life.drain(self.clock.timeout(drain)):
            return ()
        cut = life.close()
        async with AsyncExitStack() as afterwards:
            afterwards.push_async_callback(self._carrier.close)
            afterwards.push_async_callback(self._resources.close)
            self.governor.close()
            # Answers that a given transport keeps open are its owner's.
            await life.end(cut_answers=self._carrier.is_own)
        return cut

    def resource(self, kind: type[R]) -> R:
        """Return the one `kind` of this session, made at first use and closed with the session."""
        held: R = self._resources[kind]
        return held

    def _refuse_view(self) -> None:
        if self.is_view:
            raise SessionError("a view of a session is neither entered nor closed: it ends with the session")

    async def sleep(self, seconds: float) -> None:
        """Wait by the session's clock. Raises `SessionError` when the session is closed meanwhile."""
        self.check_usable()
        with Scope(self.life.lifetime):
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
        async with self.life.keeping(Call(self, request, read, keep=True)) as (value, hold), hold.reading():
            yield value

    def hold(self, request: Request, read: Callable[[Response], Awaitable[T]]) -> Kept[T]:
        """Do as `open`, but hold no place in the concurrency limit except inside `Hold.reading`.

        For a body that is passed on to somebody who may be slow.
        """
        return self.life.keeping(Call(self, request, read, keep=True))

    def hears(self, level: int = logging.DEBUG) -> bool:
        """Tell whether somebody listens: the observer, or the log at this level. What nobody hears is not made."""
        return self.on_event is not None or logger.isEnabledFor(level)

    def tell(self, event: Event) -> None:
        """Pass an event to the log and to the observer. What the latter raises is logged once of each kind."""
        log_event(event)
        try:
            if self.on_event is not None:
                self.on_event(event)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - none of it is about the call
            # A cancellation comes at an await, and here is none: this one is of something the observer looked at.
            self._observer_errors.log(exc, event)

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

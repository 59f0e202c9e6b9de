"""What a session is inside: what its calls and its features work with, and its users do not see."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from types import MappingProxyType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from .._core.clock import Clock, RealClock, boottime_of
from .._core.clock_offset import ClockOffset
from .._core.credential_watch import CredentialWatch
from .._core.http import Request, Response, Transport
from .._core.shared_lanes import SharedLanes
from .._core.tasks import Scope
from .._einvoices.links import checked_base_url
from .._governor.gate import Governor
from .._governor.shared_governor import SharedGovernor
from ..auth import Auth
from ..errors import AuthenticationError, ServiceDownError, SessionError
from ..events import Event, Observer
from ..policies import Limits, OutagePolicy, RetryPolicy, Timeouts
from ._call import Call, Sleep
from ._carrier import Carrier
from ._life import Kept, Life, State
from ._log import ObserverErrors, log_event, logger
from ._resources import Resource, Resources
from ._shared_limits import SharedLimits, admission_of, lanes_of

__all__ = ["Internals"]

T = TypeVar("T")
R = TypeVar("R", bound=Resource)


class Internals:
    """The inside of one session, or of a view of it; `transport` is what carries its requests, once it is open.

    `presets` are the values that its features take, each by its type, where they are given none: its settings say so.
    """

    transport: Transport
    presets: Mapping[type, object] = MappingProxyType({})

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth,
        retry: RetryPolicy | None,
        timeouts: Timeouts | None,
        limits: Limits | SharedLimits | None,
        outage: OutagePolicy | None,
        transport: Transport | Callable[[], Transport] | None,
        clock: Clock | None,
        on_event: Observer | None,
    ) -> None:
        self.base_url = checked_base_url(base_url)
        self.base_path = urlsplit(self.base_url).path
        self.auth = auth
        self.retry = retry or RetryPolicy()
        self.timeouts = timeouts or Timeouts()
        limits = limits or Limits()
        self.limits = limits.limits if isinstance(limits, SharedLimits) else limits
        self.outage = outage or OutagePolicy()
        self.clock: Clock = clock or RealClock()
        self.boottime = boottime_of(self.clock)
        self.on_event = on_event
        self._carrier = Carrier(transport, self.clock)
        self.life = Life()
        self.check_usable = self.life.check_usable
        """Raises `SessionError` unless the session is open, or `draining=True` too, and this is its event loop."""
        self.is_view = False
        self.admission = admission_of(limits, self.clock)
        self.store = _store_of(auth)
        """Whose calls these are, for lanes; empty if they are no store's."""
        self.governor = self._governor(lanes_of(limits))
        self.credentials = CredentialWatch()
        self.owner: Hashable = self.store or self.credentials
        """Whose calls these are, for turns."""
        self.clock_offset = ClockOffset()
        self._resources = Resources(self.check_usable)
        self._observer_errors = ObserverErrors()

    def preset(self, kind: type[T]) -> T:
        """Return what the settings of the session say for a value of this type, else the value as it is by default."""
        found = self.presets.get(kind)
        return found if isinstance(found, kind) else kind()

    def view(
        self,
        *,
        auth: Auth | None,
        retry: RetryPolicy | None,
        timeouts: Timeouts | None,
        outage: OutagePolicy | None,
    ) -> Self:
        """Return the inside of a view; see `Session.with_options`."""
        self.check_usable()
        view = copy(self)
        view.is_view = True
        view.retry, view.timeouts, view.outage = retry or self.retry, timeouts or self.timeouts, outage or self.outage
        if auth is not None:
            view.auth, view.store, view.credentials = auth, _store_of(auth), CredentialWatch()
            view.owner = view.store or view.credentials
        return view

    def _governor(self, shared: SharedLanes | None) -> Governor:
        ahead = self.admission.ahead
        if shared is None:
            return Governor(self.limits, self.outage, self.clock, ahead=ahead, tell=self.tell)
        return SharedGovernor(self.limits, self.outage, self.clock, shared=shared, ahead=ahead, tell=self.tell)

    def open(self) -> None:
        """Make what carries the requests, and let calls begin, in the event loop that runs."""
        self._refuse_view()
        self.life.check_new()
        self.admission.join()
        try:
            self.governor.open()
            self.transport = self._carrier.open()
        except BaseException:
            self.governor.close()
            self.admission.leave()
            raise
        self.life.begin()

    async def close(self, *, drain: float) -> tuple[str, ...]:
        """Close the session; see `Session.close`."""
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
            afterwards.callback(self.admission.leave)
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
        """Do as `Session.call`; `sleep` replaces the wait between attempts.

        A `patient` call is a poll of a wait: it waits while the service is down, as every call of a batch does.
        """
        call = Call(
            self, request, read, sleep=sleep, retry=retry, before_send=before_send, on_send=on_send, patient=patient
        )
        return call.run()

    @asynccontextmanager
    async def opened(self, request: Request, read: Callable[[Response], Awaitable[T]]) -> AsyncIterator[T]:
        """Do as `Session.open`."""
        async with self.hold(request, read) as (value, hold), hold.reading():
            yield value

    def hold(self, request: Request, read: Callable[[Response], Awaitable[T]]) -> Kept[T]:
        """Do as `opened`, but hold no place in the concurrency limit except inside `Hold.reading`.

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

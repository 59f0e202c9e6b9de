"""A place to call one service from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from copy import copy
from os import PathLike
from typing import Any, Self, TypeVar, Unpack

from .._core.clock import Clock
from .._core.http import Request, Response, Transport
from ..auth import Auth
from ..events import Observer
from ..health import Health
from ..policies import Limits, OutagePolicy, RetryPolicy, Timeouts
from ._internals import Internals
from ._options import ServiceName, SessionOptions
from ._shared_limits import SharedLimits

__all__ = ["Session", "internals_of"]

T = TypeVar("T")


class Session:
    """A place to call one service from: base URL, credentials, policies and a pool of connections.

    Use it as `async with Session(...) as session:` and only in the event loop that entered it; one session serves
    any number of concurrent tasks. `base_url` is absolute, without query. `on_event` is called with each event.
    `transport` replaces the network: a `Sandbox`, or an `AiohttpTransport` with a proxy or TLS settings of its own (see
    `transport`), which you close; or a function that makes one, which the session closes. It has the session's
    time-outs unless it was given its own. `clock` replaces time and chance. `limits` that several sessions of a process
    are to keep together are one `SharedLimits` given to each.

    Raises `ValueError` for a base URL that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | SharedLimits | None = None,
        outage: OutagePolicy | None = None,
        transport: Transport | Callable[[], Transport] | None = None,
        clock: Clock | None = None,
        on_event: Observer | None = None,
    ) -> None:
        self._internals = Internals(
            base_url,
            auth=auth,
            retry=retry,
            timeouts=timeouts,
            limits=limits,
            outage=outage,
            transport=transport,
            clock=clock,
            on_event=on_event,
        )

    @classmethod
    def from_env(
        cls, service: ServiceName, *, env_file: str | PathLike[str] | None = None, **options: Unpack[SessionOptions]
    ) -> Self:
        """Return a session with `"documents"` (service A) or `"invoices"` (B), as the environment describes it.

        The variables are the command line's, `INVOICING_DOCUMENTS_…` and `INVOICING_INVOICES_…`; one that is not there
        is looked for in `env_file`, or in the file that `INVOICING_ENV_FILE` names. No file is read that is not named.
        `AsyncInvoices` takes the JSON names and paths from there too, where it is given none. `options` are those of
        `Session`. Raises `SettingsError`, a `ValueError`, with every setting that is missing or wrong.
        """
        from .. import Settings  # which makes sessions, and so stands above them

        return Settings.load(env_file).session(service, cls, **options)

    def __repr__(self) -> str:
        inside = self._internals
        return f"Session({inside.base_url!r}, auth={type(inside.auth).__name__}, {inside.life.state.name.lower()})"

    @property
    def base_url(self) -> str:
        """The base URL, as it is used."""
        return self._internals.base_url

    @property
    def auth(self) -> Auth:
        """The credentials of its calls."""
        return self._internals.auth

    @property
    def retry(self) -> RetryPolicy:
        """How often and how long a call is tried."""
        return self._internals.retry

    @property
    def timeouts(self) -> Timeouts:
        """The time-outs of an attempt."""
        return self._internals.timeouts

    @property
    def limits(self) -> Limits:
        """The limits that all its users and views share."""
        return self._internals.limits

    @property
    def outage(self) -> OutagePolicy:
        """What its calls do while the service is down."""
        return self._internals.outage

    @property
    def on_event(self) -> Observer | None:
        """What is called with each event."""
        return self._internals.on_event

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
        view = copy(self)
        inside = self._internals.view(auth=auth, retry=retry, timeouts=timeouts, outage=outage)
        view._internals = inside  # noqa: SLF001 - of its own kind
        return view

    async def __aenter__(self) -> Self:
        self._internals.open()
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
        return await self._internals.close(drain=drain)

    def call(
        self,
        request: Request,
        read: Callable[[Response], Awaitable[T]],
        *,
        retry: RetryPolicy | None = None,
        before_send: Callable[[], Awaitable[None]] | None = None,
        on_send: Callable[[], None] | None = None,
    ) -> Coroutine[Any, Any, T]:
        """Send the request and return what `read` makes of its answer, trying again as the policy says.

        `read` gets an answer with a status of 2xx or of `request.answers`, inside the attempt; what it raises counts
        as the attempt's failure. `retry` replaces the session's policy. `before_send` is awaited before each attempt's
        first byte: in its place, or, where all are taken, while it waits next in line for one. If that byte cannot be
        sent within `Timeouts.intent` of it, the attempt ends unsent and `before_send` is awaited again by the next, at
        once. `on_send` is called right before the byte is sent, on a connection that is there. While the service is
        down, `ServiceDownError` is raised unless `OutagePolicy.wait` says otherwise. Raises the errors of `errors`,
        each with its `attempts`; whatever else `read` raises passes through unchanged.
        """
        return self._internals.call(request, read, retry=retry, before_send=before_send, on_send=on_send)

    def open(self, request: Request, read: Callable[[Response], Awaitable[T]]) -> AbstractAsyncContextManager[T]:
        """Do as `call`, but keep the answer open until the block ends, so that `read` may hand on its body.

        Nothing is retried once the block has begun. The block holds a place in the concurrency limit, and what is left
        of the attempt's time bounds it.
        """
        return self._internals.opened(request, read)

    def stop_waiting(self) -> None:
        """Let no call wait any more for a service that is down, or for the end of its Retry-After.

        Such a call raises `ServiceDownError` at once, and a batch or a wait of many ends with it and with what is left
        not started. What is under way finishes. For a program that is asked to stop.
        """
        self._internals.governor.stop_waiting()

    def health(self) -> Health:
        """Return how the service is doing, by what the calls so far found out; nothing is sent for it."""
        return self._internals.governor.health()


def internals_of(session: Session) -> Internals:
    """Return what a feature of this library works with; users have the methods of `Session`."""
    return session._internals  # noqa: SLF001 - the one door to it

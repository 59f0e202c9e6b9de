"""Credentials that change while a session is open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from attrs import define, field

from .._core.clock import Clock
from .._core.http import Request
from .._core.single_flight import SingleFlight
from .._values.validators import positive
from ..errors import AuthenticationError, TransportError
from ._protocol import Auth, Call

__all__ = ["ProvidedAuth", "Provider"]

NEVER = float("-inf")

ASKED_AGAIN = 5.0
"""Seconds after which a provider that failed is asked again while credentials are at hand."""

Provider: TypeAlias = Callable[[], Awaitable[Auth]]
"""Returns the credentials that are right now, from wherever they are kept: a vault, a file, a table."""


@define(eq=False)
class ProvidedAuth:
    """Credentials that somebody else keeps and changes, asked for when a call needs them.

    `provider` is awaited before the first call, again once its answer is `fresh_for` seconds old, and after a 401, once
    for all who wait. A secret or token that was rotated is so picked up without a restart; calls under way end with the
    one that they were signed with. While the provider fails the credentials at hand go on being used, unless they
    were refused; where there are none the call fails with `TransportError`, unsent. It is not retried: a provider that
    reads from a network does that itself.
    """

    _provider: Provider = field(repr=False)
    fresh_for: float = field(default=60.0, validator=positive, kw_only=True)
    _auth: Auth | None = field(default=None, init=False, repr=False)
    _stale_at: float = field(default=NEVER, init=False, repr=False)
    _refused: bool = field(default=False, init=False, repr=False)
    _is_vain: bool = field(default=False, init=False, repr=False)
    _asking: SingleFlight = field(factory=SingleFlight, init=False, repr=False)

    def ready(self, clock: Clock) -> bool:
        """Tell whether the credentials at hand are fresh and ready themselves."""
        return self._auth is not None and clock.monotonic() < self._stale_at and self._auth.ready(clock)

    async def prepare(self, call: Call, clock: Clock) -> None:
        """Wait until there are fresh credentials and they are ready.

        Raises `TransportError` where the provider fails and none are at hand, and what the credentials' own `prepare`
        raises; where that refuses them, after the provider gave the same once more.
        """
        await self._get_fresh(clock)
        try:
            await self._held().prepare(call, clock)
        except AuthenticationError:
            refused = self._auth
            self._refused, self._stale_at = True, NEVER
            await self._get_fresh(clock)
            if self._auth is refused:
                raise
            await self._held().prepare(call, clock)

    async def _get_fresh(self, clock: Clock) -> None:
        if self._auth is None or clock.monotonic() >= self._stale_at:
            await self._asking.join(lambda: self._ask(clock))

    def _held(self) -> Auth:
        if self._auth is None:
            raise TransportError("there are no credentials yet", sent="no")
        return self._auth

    async def _ask(self, clock: Clock) -> None:
        try:
            given = await self._provider()
        except Exception as exc:
            if self._auth is None or self._refused:
                # Its words may hold what it read: only its kind is said here.
                message = f"the provider of credentials failed: {type(exc).__name__}"
                raise TransportError(message, sent="no") from exc
            self._stale_at = clock.monotonic() + ASKED_AGAIN
            return
        is_same = given == self._auth
        self._is_vain = self._refused and is_same
        if not is_same:
            self._auth = given
        self._refused, self._stale_at = False, clock.monotonic() + self.fresh_for

    def headers(self, request: Request, *, base_path: str, now: float) -> Mapping[str, str]:
        """Return the headers of the credentials at hand."""
        return self._held().headers(request, base_path=base_path, now=now)

    def refused(self, sent: Mapping[str, str]) -> bool:
        """Ask the provider anew before the next attempt; true unless it has just given the same once more."""
        if self._held().refused(sent):
            return True
        if not self._is_vain:
            self._refused, self._stale_at = True, NEVER
            return True
        self._is_vain = False
        return False

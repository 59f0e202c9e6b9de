"""What every form of credentials does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias

from .._core.clock import Clock
from .._core.http import Request, Response
from .._einvoices.decode import Token

__all__ = ["Auth", "Call"]

Call: TypeAlias = Callable[[Request, Callable[[Response], Awaitable[Token]]], Awaitable[Token]]
"""What `Auth.prepare` may use to ask for a credential: one call with the session's own retry and timeouts."""


class Auth(Protocol):
    """Adds credentials to a request."""

    def ready(self, clock: Clock) -> bool:
        """Tell whether `headers` can be asked for without `prepare`."""

    async def prepare(self, call: Call, clock: Clock) -> None:
        """Get ready, asking the service if need be. Raises what the call raises."""

    def headers(self, request: Request, *, base_path: str, now: float) -> Mapping[str, str]:
        """Return the headers that authorise this one attempt at `now` epoch seconds."""

    def refused(self, sent: Mapping[str, str]) -> bool:
        """Called when the service refused `sent` with 401. Return true if a new credential can be had."""

"""What carries the requests of a session: what it was given, or what it makes and closes itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from attrs import define, field

from .._core.clock import Clock
from .._core.http import Transport

__all__ = ["Carrier"]


@define(eq=False)
class Carrier:
    """The transport of one session, and whether it ends with it."""

    _given: Transport | Callable[[], Transport] | None
    _clock: Clock
    is_own: bool = field(default=False, init=False)
    """True if the session made its transport, and so closes it."""
    _transport: Transport | None = field(default=None, init=False)

    def open(self) -> Transport:
        """Return the transport, which is made now unless it was given."""
        given = self._given
        if given is None:
            from .._transport.client import AiohttpTransport  # only who goes there waits for its import

            # It has the time-outs of each call, which may be a view's.
            self._transport, self.is_own = AiohttpTransport(clock=self._clock), True
        elif hasattr(given, "send") and not isinstance(given, type):
            self._transport = cast("Transport", given)
        else:
            self._transport, self.is_own = cast("Callable[[], Transport]", given)(), True
        return self._transport

    async def close(self) -> None:
        """Close the transport, unless it is somebody else's."""
        if self.is_own and self._transport is not None:
            await self._transport.close()

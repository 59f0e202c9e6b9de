"""The intent of an attempt to send what must not be sent unnoticed, and how old it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field

from .._core.http import Exchange
from .._values.ownership import Moment, is_stale
from ..errors import TransportError
from ._answer import StaleIntentError

if TYPE_CHECKING:
    from ._call import Call

__all__ = ["Intent"]


@define(eq=False)
class Intent:
    """What precedes the first byte of a guarded call's attempt: `before_send`, its age, and `on_send`."""

    _call: Call[Any]
    _exchange: Exchange
    begun: Moment | None = None
    """When `before_send` was awaited first: what it records is at least as young. None before that."""
    is_prepared: bool = field(default=False, init=False)
    """True if `before_send` was awaited for this attempt."""
    is_told: bool = field(default=False, init=False)
    """True if `on_send` was called."""

    async def prepare(self) -> None:
        """Await `before_send`, noting when that begins."""
        if self.begun is None:
            # Spelled out, as `_now` is: every submission of a run comes here.
            session = self._call.session
            self.begun = Moment(session.clock.monotonic(), session.clock.now(), session.boottime())
        if self._call.before_send is not None:
            await self._call.before_send()

    def check(self) -> None:
        """Raise `StaleIntentError` if it is too late for the first byte; else say that it is about to be sent."""
        deadline, begun, now = self._exchange.deadline, self.begun, self._now()
        late = deadline is not None and now.monotonic > deadline
        if late or (begun is not None and is_stale(begun, now, self._call.session.timeouts.intent)):
            raise StaleIntentError("the intent had grown too old before the first byte could leave", sent="no")
        self.tell()

    def check_rest(self) -> None:
        """Raise `TransportError` if what has begun to leave must not become whole: nobody waits for its end any more.

        Whoever was stopped after the first byte wakes when others have put the item in doubt, and perhaps settled it.
        """
        timeouts, begun = self._call.session.timeouts, self.begun
        if begun is not None and is_stale(begun, self._now(), timeouts.intent + timeouts.attempt):
            raise TransportError("this process stood still while it was sent, and cut it off", sent="unknown")

    def _now(self) -> Moment:
        session = self._call.session
        return Moment(session.clock.monotonic(), session.clock.now(), session.boottime())

    def tell(self) -> None:
        """Call `on_send`, once."""
        if not self.is_told:
            self.is_told = True
            if self._call.on_send is not None:
                self._call.on_send()

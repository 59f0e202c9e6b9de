"""The intent of an attempt to send what must not be sent unnoticed, and how old it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field

from .._core.http import Exchange
from .._values.ownership import Moment, is_stale
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
            session = self._call.session
            self.begun = Moment(session.clock.monotonic(), session.clock.now(), session.boottime())
        if self._call.before_send is not None:
            await self._call.before_send()

    def check(self) -> None:
        """Raise `StaleIntentError` if it is too late for the first byte; else say that it is about to be sent."""
        session, deadline, begun = self._call.session, self._exchange.deadline, self.begun
        now = Moment(session.clock.monotonic(), session.clock.now(), session.boottime())
        late = deadline is not None and now.monotonic > deadline
        if late or (begun is not None and is_stale(begun, now, session.timeouts.intent)):
            raise StaleIntentError("the intent had grown too old before the first byte could leave", sent="no")
        self.tell()

    def tell(self) -> None:
        """Call `on_send`, once."""
        if not self.is_told:
            self.is_told = True
            if self._call.on_send is not None:
                self._call.on_send()

"""What an attempt has before its first byte: the turn in its lane, and a place in the limits of its session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from .._governor.lane import Answer, Ticket
from ..errors import ApiError
from ._answer import StaleIntentError, answer_of

if TYPE_CHECKING:
    from ._call import Call

__all__ = ["Place"]


@define(eq=False)
class Place:
    """The turn and the place of one attempt. Each is given back once, however often that is asked for."""

    _call: Call[Any]
    _ticket: Ticket | None = field(default=None, init=False)
    _is_held: bool = field(default=False, init=False)
    is_refused: bool = field(default=False, init=False)
    """True if the attempt failed for the service's sake."""

    def try_acquire(self) -> bool:
        """Take both if nothing has to be waited for, and tell whether it was so."""
        call = self._call
        self._ticket = call.gate.try_enter()
        self._is_held = self._ticket is not None and call.session.admission.try_acquire()
        return self._is_held

    async def acquire(self, prepare: Callable[[], Awaitable[None]] | None) -> bool:
        """Wait for the turn, then for the place, and tell whether `prepare` was awaited meanwhile.

        Raises `StaleIntentError` if the service went down after that, and `ServiceDownError` if it is down already.
        """
        call = self._call
        admission, gate, is_prepared = call.session.admission, call.gate, False
        while not self._is_held:
            ticket = self._ticket = self._ticket or await call.turn()
            is_prepared = await admission.acquire(prepare, owner=call.session.owner)
            ticket.begun = call.session.clock.monotonic()
            self._is_held = ticket.is_probe or not gate.lane.outage.is_stopped
            if not self._is_held:
                admission.release()
                self._ticket = None
                gate.leave(ticket, Answer.SILENT)
                if is_prepared:
                    raise StaleIntentError("the service went down before the first byte could leave", sent="no")
        return is_prepared

    def leave(self, error: BaseException | None, *, has_head: bool = False, is_stale: bool = False) -> None:
        """Tell the lane how the attempt ended: with this error, after an answer's head, or on a stale connection."""
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return
        answer, retry_after = Answer.SUCCESS, None
        if error is not None:
            answer = Answer.SILENT if is_stale else answer_of(error, has_head=has_head)
            self.is_refused = answer is Answer.REFUSED or answer is Answer.UNREACHABLE
            retry_after = error.retry_after if isinstance(error, ApiError) else None
        call = self._call
        call.gate.leave(ticket, answer, retry_after=retry_after, patient=call.patience is not None)

    def release(self) -> None:
        """Release the place in the session's limits."""
        if self._is_held:
            self._is_held = False
            self._call.session.admission.places.release()

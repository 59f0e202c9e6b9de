"""When one call ends at the latest: one moment for its waits for a place, its attempts and the waits between."""

from __future__ import annotations

from collections.abc import Awaitable

from attrs import define, field

from .._core.clock import Clock
from ..errors import DeadlineError, InvoicingError, Sent

__all__ = ["Deadline"]


@define(eq=False)
class Deadline:
    """`seconds` from the beginning, or from when it was restarted; None for no deadline."""

    seconds: float | None
    at: float | None
    """When it comes, in the clock's monotonic seconds; None for never."""
    _clock: Clock
    cause: InvoicingError | None = field(default=None, init=False)
    """The last failure of the call, which its error is to name."""

    def restart(self) -> None:
        """Let it begin anew."""
        self.at = None if self.seconds is None else self._clock.monotonic() + self.seconds

    def extend(self, since: float) -> None:
        """Extend it by the time since then: it stood still meanwhile."""
        if self.at is not None:
            self.at += max(0.0, self._clock.monotonic() - since)

    def left(self) -> float | None:
        """Return the seconds that are left, None if there is none."""
        return None if self.at is None else self.at - self._clock.monotonic()

    def error(self, sent: Sent, during: str) -> DeadlineError:
        """Return the error of a call whose deadline came `during` something."""
        late = DeadlineError(f"the deadline of {self.seconds:g} s ended the call {during}", sent=sent)
        late.__cause__ = self.cause
        return late

    async def limit(self, wait: Awaitable[None], during: str) -> None:
        """Await something before or between attempts, but not beyond the deadline. Raises `DeadlineError`."""
        timeout = self._clock.timeout(self.left())
        try:
            async with timeout:
                await wait
        except TimeoutError:
            if not timeout.expired():
                raise
            raise self.error("no", during) from self.cause

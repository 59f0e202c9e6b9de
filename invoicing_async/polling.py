"""When to poll again: a pure, validated schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from attrs import define, field, frozen

from ._values.adaptive_polling import AdaptiveSchedule
from ._values.validators import factor, not_negative, optional, positive, share, whole

__all__ = ["AdaptivePoller", "Poller"]

ERROR_TIME = 60.0
"""Seconds for which polls that fail are made up for, whatever their number."""

NOT_FOUND_GRACE = 60.0
"""Seconds for which a request that was just made may be unknown to the part of the service that is asked."""


@frozen(kw_only=True)
class Poller:
    """A schedule: wait `first` seconds, then `factor` times longer each time, up to `ceiling`.

    `jitter` is the share of each wait that is drawn by chance, 0 to 1: 0.2 gives 80 to 100 % of it, so that
    many operations begun together do not poll together. `timeout` bounds the whole wait; None for no bound.
    All in seconds. `poll_timeout` bounds one poll, not the queue of the session's limits before it. A wait raises the
    last error when more than `errors` polls in a row failed, over `error_time` seconds or more; with `errors` 0 none is
    tolerated. An answer of 404 within `not_found_grace` seconds of the wait's begin only means that the request is
    not visible yet. The same schedule may serve any number of operations: it has no state.
    """

    first: float = field(default=1.0, validator=positive)
    factor: float = field(default=1.5, validator=factor)
    ceiling: float = field(default=30.0, validator=positive)
    jitter: float = field(default=0.2, validator=share)
    timeout: float | None = field(default=300.0, validator=optional(positive))
    poll_timeout: float = field(default=30.0, validator=positive)
    errors: int = field(default=10, validator=whole)
    error_time: float = field(default=ERROR_TIME, validator=not_negative)
    not_found_grace: float = field(default=NOT_FOUND_GRACE, validator=not_negative)

    def delay(self, attempt: int, elapsed: float = 0.0, *, chance: float = 0.0) -> float:
        """Seconds to wait before poll `attempt` (from 1), `elapsed` seconds after the wait began.

        `chance` in [0, 1) is where in the jitter the wait falls; 0 gives the longest. The last wait is cut so
        that one poll falls on the timeout itself.
        """
        try:
            bare = min(self.ceiling, self.first * self.factor ** max(0, attempt - 1))
        except OverflowError:
            bare = self.ceiling
        wait = bare * (1.0 - self.jitter * chance)
        return wait if self.timeout is None else min(wait, max(0.0, self.timeout - elapsed))

    def learn(self, after: float, by: float, *, done: bool) -> None:
        """Do nothing: a fixed schedule learns nothing from what a poll found."""

    @staticmethod
    def adaptive(
        *,
        worth: float = 1.0,
        floor: float = 0.1,
        ceiling: float = 60.0,
        timeout: float | None = 300.0,
        poll_timeout: float = 30.0,
        errors: int = 10,
        error_time: float = ERROR_TIME,
        not_found_grace: float = NOT_FOUND_GRACE,
    ) -> AdaptivePoller:
        """Return a schedule that learns how long operations take, and polls where it repays the call.

        `worth` is what a second of delay in noticing an end is worth to you, in polls; `floor` and `ceiling` bound
        every wait in seconds. One schedule learns from all operations it serves: keep it for the whole run.
        """
        return AdaptivePoller(
            worth=worth,
            floor=floor,
            ceiling=ceiling,
            timeout=timeout,
            poll_timeout=poll_timeout,
            errors=errors,
            error_time=error_time,
            not_found_grace=not_found_grace,
        )

    def delays(self) -> Iterator[float]:
        """The waits without chance, one after the other, until the timeout; for a look at a schedule."""
        elapsed, attempt = 0.0, 0
        while self.timeout is None or elapsed < self.timeout:
            attempt += 1
            wait = self.delay(attempt, elapsed)
            yield wait
            elapsed += wait


@define(kw_only=True, eq=False)
class AdaptivePoller:
    """A schedule over the learned distribution of how long operations take; made by `Poller.adaptive`."""

    spread: ClassVar[bool] = False
    """False: the plan's own jitter keeps first polls apart; to draw them from all of the first wait would break it."""

    worth: float = field(default=1.0, validator=positive)
    floor: float = field(default=0.1, validator=positive)
    ceiling: float = field(default=60.0, validator=positive)
    timeout: float | None = field(default=300.0, validator=optional(positive))
    poll_timeout: float = field(default=30.0, validator=positive)
    errors: int = field(default=10, validator=whole)
    error_time: float = field(default=ERROR_TIME, validator=not_negative)
    not_found_grace: float = field(default=NOT_FOUND_GRACE, validator=not_negative)
    _model: AdaptiveSchedule = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._model = AdaptiveSchedule(worth=self.worth, floor=self.floor, ceiling=self.ceiling)

    def delay(self, attempt: int, elapsed: float = 0.0, *, chance: float = 0.5) -> float:
        """Seconds to wait before the next poll of an operation that is `elapsed` seconds old.

        A `chance` near 0 polls early on purpose, to learn; 0.5 is the plain plan.
        """
        wait = self._model.delay(elapsed, chance=chance)
        return wait if self.timeout is None else min(wait, max(0.0, self.timeout - elapsed))

    def learn(self, after: float, by: float, *, done: bool) -> None:
        """Note that an operation was NEW at age `after` and, at age `by`, either `done` or still NEW."""
        self._model.observe(after, by, done=done)

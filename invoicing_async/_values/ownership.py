"""When what is sent once may be sent, and when it has arrived: the rules that keep two who send one thing apart.

An intent is recorded, then the first byte leaves while the intent is fresh, then the attempt ends. So nothing arrives
later than these two times together after the intent, and until then nobody may say that it never did.
"""

from __future__ import annotations

from attrs import frozen

__all__ = ["MARGIN", "Moment", "arrives_within", "is_stale", "seconds_to_arrive", "send_before"]

MARGIN = 1.0
"""Seconds beyond its time-outs for which a submission may still arrive at the service."""


@frozen
class Moment:
    """One moment on each clock, in seconds.

    The monotonic one may stand still while a machine sleeps, that of the epoch may be set. `boot` goes on in sleep and
    is never set; 0 where there is no such clock.
    """

    monotonic: float
    epoch: float
    boot: float = 0.0


def send_before(begun: Moment, fresh: float) -> float:
    """Return the monotonic time after which no first byte may leave on an intent that was begun then.

    `fresh` is `Timeouts.intent`.
    """
    return begun.monotonic + fresh


def is_stale(begun: Moment, now: Moment, fresh: float) -> bool:
    """Tell whether an intent is too old for its first byte, by whichever clock has it oldest.

    `begun` is from before the intent was handed over to be recorded.
    """
    return now.monotonic > send_before(begun, fresh) or now.epoch > begun.epoch + fresh or now.boot > begun.boot + fresh


def arrives_within(fresh: float, attempt: float) -> float:
    """Return the seconds after its intent within which a submission has arrived, or never does.

    `fresh` is `Timeouts.intent`, `attempt` is `Timeouts.attempt`.
    """
    return fresh + attempt + MARGIN


def seconds_to_arrive(left: float, within: float, now: float) -> float:
    """Return for how many seconds from `now` something may still arrive that had left at `left`; 0 if it cannot.

    Both are of the same clock.
    """
    return max(0.0, left + within - now)

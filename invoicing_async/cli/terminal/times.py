"""How moments and durations are written for people."""

from __future__ import annotations

from ...reports import moment_words

__all__ = ["duration", "local_time", "rate"]

MINUTE, HOUR, DAY = 60, 3600, 86_400


def local_time(seconds: float | None, *, short: bool = False) -> str:
    """Return a moment, in epoch seconds, as a person reads it here, with its zone; `short`: hours only."""
    words = moment_words(seconds)
    return words.split()[1] if short and words else words


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    whole = int(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE}:{whole % MINUTE:02}"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE:02}"
    return f"{whole // DAY} d {whole % DAY // HOUR:02}"


def rate(per_second: float) -> str:
    """Return how fast things are done: in a second or, where that is less than one, in a minute; empty for none."""
    if round(per_second) >= 1:
        return f"{per_second:,.0f}/s"
    per_minute = round(per_second * MINUTE)
    return f"{per_minute}/min" if per_minute else ""

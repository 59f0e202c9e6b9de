"""How moments and durations are written for people."""

from __future__ import annotations

from ...reports import moment_words

__all__ = ["duration", "local_time"]

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

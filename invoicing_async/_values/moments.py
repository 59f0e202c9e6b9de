"""How a moment is written for people, in the one form that tables, messages and pages share."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["moment_words"]


def moment_words(seconds: float | None) -> str:
    """Return a moment, in epoch seconds, as it is read on this machine, with its zone; nothing for None.

    `2026-07-01 09:30:00 UTC`; elsewhere with the offset: `2026-07-01 11:30:00 CEST (+0200)`, and `16:30:00 +0700` where
    the zone has no name.
    """
    if seconds is None:
        return ""
    here = datetime.fromtimestamp(seconds, UTC).astimezone()
    name, offset = f"{here:%Z}", f"{here:%z}"
    zone = name if name == "UTC" else f"{name} ({offset})" if name[:1].isalpha() else offset
    return f"{here:%Y-%m-%d %H:%M:%S} {zone}"

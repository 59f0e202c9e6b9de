"""How numbers, moments, durations and what others wrote stand on a page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .._values.characters import spelled_out
from .._values.moments import moment_words

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["duration_words", "moment", "moment_words", "number", "outside", "percent"]

LONG = 300
"""Characters of a text from outside that are shown."""

LEAST = 0.1
"""The least share, in per cent, that is given as it is."""

A_SECOND = 0.9995
"""What is less is given in milliseconds."""

MINUTE, HOUR, DAY = 60, 3_600, 86_400


def number(value: int) -> Markup:
    """Return a number with its digits in groups, and as it is for programs."""
    from markupsafe import Markup

    return Markup('<data value="{}">{:,}</data>').format(value, value)


def percent(count: int, of: int) -> str:
    """Return a share so that neither a few nor all but a few look like none or all."""
    share_of = 100 * count / of
    if 0 < share_of < LEAST:
        return f"< {LEAST} %"
    return f"> {100 - LEAST} %" if 100 - LEAST < share_of < 100 else f"{share_of:.1f} %"  # noqa: PLR2004 - per cent


def outside(text: object, most: int = LONG) -> Markup:
    """Return what somebody else wrote: escaped, cut, what is invisible in it spelled out, its direction its own."""
    from markupsafe import Markup

    whole = str(text)
    cut = Markup(' <span class="cut">… {:,} characters</span>').format(len(whole)) if len(whole) > most else ""
    return Markup("<bdi>{}</bdi>{}").format(spelled_out(whole[:most]), cut)


def moment(seconds: float | None) -> Markup:
    """Return a moment as it is read here, with its zone; in UTC for programs and for who points at it."""
    from markupsafe import Markup

    if seconds is None:
        return Markup("")
    utc = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        utc, utc[:-1].replace("T", " "), moment_words(seconds)
    )


def duration_words(seconds: float) -> str:
    """Return a duration in its two largest units, one below a minute with three digits."""
    if seconds < A_SECOND:
        return f"{1000 * seconds:.3g} ms"
    if seconds < MINUTE:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for unit, name, smaller, rest in ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1, "s")):
        if whole >= unit:
            more = whole % unit // smaller
            return f"{whole // unit} {name} {more} {rest}" if more else f"{whole // unit} {name}"
    raise AssertionError  # pragma: no cover - it is a minute at least

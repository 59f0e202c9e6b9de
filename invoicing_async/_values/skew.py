"""The words for two clocks that are apart: a signature is refused when this machine's time is too far off."""

from __future__ import annotations

__all__ = ["skew_words"]

SKEW = 30.0
"""Seconds between this machine's clock and the service's that are worth a word; delays alone make a few."""

SIGNED_REFUSALS = frozenset({400, 401, 403})
"""The statuses with which a signature is refused, and with it a timestamp that is too far off."""

MINUTES = 120.0
"""Seconds from which a difference of clocks is said in minutes."""


def skew_words(status: int, ahead: float | None) -> str:
    """Return what to add to the text of an error about this machine's clock, which is `ahead` by so many seconds.

    It is empty where the clocks agree, where nothing is known of them, and for a status that refuses no signature.
    """
    if ahead is None or abs(ahead) < SKEW or status not in SIGNED_REFUSALS:
        return ""
    amount = f"{abs(ahead):,.0f} s" if abs(ahead) < MINUTES else f"{abs(ahead) / 60:,.0f} min"
    return f"; this machine's clock is {amount} {'ahead of' if ahead > 0 else 'behind'} the service's"

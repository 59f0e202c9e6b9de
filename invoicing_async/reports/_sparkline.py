"""What happened when, as one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from ..runs import Pause, Timeline

__all__ = ["sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_PAUSED, _APART = "░", "┊"


def sparkline(timeline: Timeline, name: str, pauses: Sequence[Pause] = (), *, width: int = 40) -> str:
    """Return what happened of one kind as a line of blocks: the taller the more, `░` where the service was down.

    It is `width` characters long at most, but for those that part stretches: `┊` stands where time was left out in
    which nobody was at work.
    """
    together = max(1, -(-sum(stretch.length for stretch in timeline.stretches) // width))
    sums = [
        [
            (stretch.begun + at * timeline.step, sum(stretch.bars[name][at : at + together]))
            for at in range(0, stretch.length, together)
        ]
        for stretch in timeline.stretches
    ]
    top = max((number for stretch in sums for _, number in stretch), default=0)
    wide = together * timeline.step
    return _APART.join("".join(_block(number, top, begun, wide, pauses) for begun, number in each) for each in sums)


def _block(number: int, top: int, begun: float, wide: float, pauses: Sequence[Pause]) -> str:
    if number:
        return _BLOCKS[ceil(number / top * len(_BLOCKS)) - 1]
    is_down = any(pause.begun <= begun + wide / 2 <= pause.until for pause in pauses)
    return _PAUSED if is_down else " "

"""What happened when in a run: counts by time, cut into the stretches in which somebody was at work."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import floor

from attrs import field, frozen

from .records import Pause

__all__ = ["Moments", "Stretch", "Timeline"]

STEPS = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 1800, 3600, 10_800, 21_600, 86_400, 604_800, 2_419_200, 29_030_400)
"""The widths that a bar may have, in seconds; each is a whole number of the one before."""

MOST_BARS, MOST_STRETCHES = 150, 8
"""How finely a time line is drawn."""

APART = 6
"""Bars with nothing in them, and no pause, that end a stretch."""

KEPT = 50_000
"""Counts that are kept while events are counted; of more, longer times are counted together."""

CODES = 32
"""More than there are things to count."""


@frozen
class Stretch:
    """A time in which a run was at work: when it begins, in epoch seconds, and how many of each kind in each step."""

    begun: float
    bars: Mapping[str, tuple[int, ...]]

    @property
    def length(self) -> int:
        """How many steps it has."""
        return max(map(len, self.bars.values()), default=0)


@frozen
class Timeline:
    """What happened when: `stretches` of work, in bars of `step` seconds; between them nothing happened."""

    step: float = 0.0
    stretches: tuple[Stretch, ...] = field(default=())

    def total(self, name: str) -> int:
        """Return how many there were of one kind."""
        return sum(sum(stretch.bars[name]) for stretch in self.stretches)

    def most(self, name: str) -> int:
        """Return the most there were of one kind in one step."""
        return max((max(stretch.bars[name]) for stretch in self.stretches), default=0)


class Moments:
    """Counts what happens by time, as finely as there is room for."""

    def __init__(self) -> None:
        self._level = 0
        self._counts: dict[int, int] = {}

    def take(self, rows: Iterable[tuple[int, int, float]]) -> None:
        """Count what happened: the item, the number of what it was, from 0 to 31, and when in epoch seconds."""
        counts, per_second = self._counts, 1 / STEPS[self._level]
        for _, code, at in rows:
            key = int(at * per_second) * CODES + code
            counts[key] = counts.get(key, 0) + 1
        while len(self._counts) > KEPT and self._level < len(STEPS) - 1:
            self._level += 1
            self._counts = self._coarser(STEPS[self._level])

    def _coarser(self, step: float, level: int | None = None) -> dict[int, int]:
        """Return the counts by a longer step."""
        times = round(step / STEPS[self._level - 1 if level is None else level])
        counts: dict[int, int] = {}
        for key, count in self._counts.items():
            moment, code = divmod(key, CODES)
            wide = moment // times * CODES + code
            counts[wide] = counts.get(wide, 0) + count
        return counts

    def timeline(self, kinds: Mapping[int, str], pauses: Sequence[Pause] = ()) -> Timeline:
        """Return the time line of these kinds, each named by the numbers that make it up, in few enough bars.

        Pauses are no interruption.
        """
        names = tuple(dict.fromkeys(kinds.values()))
        for step in STEPS[self._level :]:
            counts = self._coarser(step, self._level)
            found: defaultdict[int, Counter[str]] = defaultdict(Counter)
            for key, count in counts.items():
                moment, code = divmod(key, CODES)
                if code in kinds:
                    found[moment][kinds[code]] += count
            spans = list(_spans(sorted(found), [(floor(p.begun / step), floor(p.until / step)) for p in pauses]))
            bars = sum(last - first + 1 for first, last in spans)
            if bars <= MOST_BARS and len(spans) <= MOST_STRETCHES:
                break
        return Timeline(step, tuple(_stretch(span, step, found, names) for span in spans))


def _spans(moments: Iterable[int], pauses: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last step of each stretch."""
    open_: tuple[int, int] | None = None
    for first, last in sorted([*((moment, moment) for moment in moments), *pauses]):
        if open_ is None or first > open_[1] + APART:
            if open_ is not None:
                yield open_
            open_ = first, last
        else:
            open_ = open_[0], max(open_[1], last)
    if open_ is not None:
        yield open_


def _stretch(
    span: tuple[int, int], step: float, found: Mapping[int, Mapping[str, int]], names: Sequence[str]
) -> Stretch:
    moments = range(span[0], span[1] + 1)
    nothing: Mapping[str, int] = {}
    bars = {name: tuple(found.get(moment, nothing).get(name, 0) for moment in moments) for name in names}
    return Stretch(span[0] * step, bars)

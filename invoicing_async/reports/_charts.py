"""The geometry of a page's charts: bars as the paths of an SVG, in units of one step of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from ..runs import Pause, Timeline

__all__ = ["TALL", "TimeAxis", "share"]

TALL = 100
"""The height of a chart, whatever it counts."""

BETWEEN = 3
"""Steps that a time in which nobody was at work is drawn as wide as."""

LEAST = 2
"""The height of a bar of which there is one at all."""

WIDE = 0.8
"""The share of a step that its bar takes."""


@frozen
class TimeAxis:
    """Where each moment of a time line is drawn: stretch beside stretch."""

    timeline: Timeline

    @property
    def width(self) -> int:
        """The steps of all stretches, and what is between them."""
        stretches = self.timeline.stretches
        return max(1, sum(stretch.length for stretch in stretches) + BETWEEN * (len(stretches) - 1))

    def _begins(self) -> Iterator[int]:
        at = 0
        for stretch in self.timeline.stretches:
            yield at
            at += stretch.length + BETWEEN

    def breaks(self) -> list[float]:
        """Return where time was left out."""
        return [at - BETWEEN / 2 for at in self._begins() if at]

    def bars(self, name: str) -> str:
        """Return the bars of one kind as an SVG path; the most of them in one step is as tall as the chart."""
        top = self.timeline.most(name)
        drawn = []
        for at, stretch in zip(self._begins(), self.timeline.stretches, strict=True):
            for place, number in enumerate(stretch.bars[name], at):
                if number:
                    tall = max(LEAST, round(TALL * number / top, 1))
                    drawn.append(f"M{place} {TALL}v-{tall:g}h{WIDE:g}v{tall:g}z")
        return "".join(drawn)

    def bands(self, pauses: Iterable[Pause]) -> list[tuple[float, float]]:
        """Return where the service was down for some calls: the left edge of each band, and how wide it is."""
        merged: list[tuple[float, float]] = []
        for left, right in sorted((self._place(pause.begun), self._place(pause.until)) for pause in pauses):
            if merged and left <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], right)
            else:
                merged.append((left, right))
        return [(left, max(0.5, round(right - left, 2))) for left, right in merged]

    def _place(self, moment: float) -> float:
        step = self.timeline.step
        for at, stretch in zip(self._begins(), self.timeline.stretches, strict=True):
            if moment <= stretch.begun + stretch.length * step:
                return round(at + max(0.0, (moment - stretch.begun) / step), 2)
        return self.width


def share(count: int, of: Sequence[int]) -> float:
    """Return how wide the bar of a count is drawn beside the others, of 100."""
    most = max(of, default=0)
    return round(max(1.0, 100 * count / most), 1) if count and most else 0.0

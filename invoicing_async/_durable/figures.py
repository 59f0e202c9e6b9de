"""The figures of a run at one moment, as values: what a report of it says."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from attrs import field, frozen

from ..models import AuthorityStatus
from .records import Item, Pause
from .states import RunKind
from .timeline import Timeline

__all__ = ["Durations", "Reason", "RunFigures"]

_EDGES = tuple(step * 10.0**power for power in range(-3, 5) for step in (1, 2, 5))


@frozen(kw_only=True)
class Durations:
    """How long something took, in seconds: how often, the middle one, what 95 of 100 took at most, the longest.

    `bins` counts them by how long they took at most, each bound twice to two and a half times the one before.
    """

    count: int = 0
    median: float = 0.0
    most: float = 0.0
    longest: float = 0.0
    bins: tuple[tuple[float, int], ...] = ()

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Durations:
        """Count durations in seconds."""
        listed = sorted(max(0.0, each) for each in seconds)
        if not listed:
            return cls()
        ends = [0, *(bisect_right(listed, edge) for edge in _EDGES), len(listed)]
        edges = (*_EDGES, listed[-1])
        bins = [(edge, end - begin) for edge, begin, end in zip(edges, ends[:-1], ends[1:], strict=True)]
        counted = [number for number, (_, count) in enumerate(bins) if count]
        middle, late = (listed[min(len(listed) - 1, int(share * len(listed)))] for share in (0.5, 0.95))
        shown = tuple(bins[counted[0] : counted[-1] + 1])
        return cls(count=len(listed), median=middle, most=late, longest=listed[-1], bins=shown)


@frozen(kw_only=True)
class Reason:
    """Why `count` items are in a state: the code and the words of the service, or of this library.

    Texts that differ in numbers and ids only are one reason: `words` is the most frequent of the `wordings`.
    """

    state: str
    code: str | None
    words: str | None
    count: int
    wordings: int = 1


@frozen(kw_only=True)
class RunFigures:
    """The figures of a run at one moment; states are those of the file, where what is being sent is `sending`.

    `answered` is how long the service took to answer a submission, `settled` how long from then to SUCCESS or FAILED;
    both are empty for order documents, whose run keeps no beginnings. `listed` has the first items of each state that a
    person may have to see to, `refused` of those that the tax authority refuses, `not_exported` of those whose
    file could not be saved, of which there are `lost_exports`. `without_file` counts finished invoices without a file,
    `size` the bytes of those that have one. `oldest` is what is on its way, or with the service, for the longest time.
    """

    kind: RunKind
    counts: Mapping[str, int]
    timeline: Timeline
    pauses: tuple[Pause, ...] = ()
    answered: Durations = field(factory=Durations)
    settled: Durations = field(factory=Durations)
    reasons: tuple[Reason, ...] = ()
    authority: Mapping[str, int] = field(factory=dict)
    listed: Mapping[str, tuple[Item, ...]] = field(factory=dict)
    refused: tuple[Item, ...] = ()
    not_exported: tuple[Item, ...] = ()
    lost_exports: int = 0
    without_file: int = 0
    size: int = 0
    oldest: Item | None = None

    @property
    def total(self) -> int:
        """How many items the run has."""
        return sum(self.counts.values())

    @property
    def amiss(self) -> int:
        """How many items are in a state that `reasons` are looked for in."""
        return sum(self.counts[state] for state in self.listed)

    @property
    def refused_count(self) -> int:
        """How many invoices the tax authority refuses."""
        return sum(count for status, count in self.authority.items() if AuthorityStatus.refuses(status))

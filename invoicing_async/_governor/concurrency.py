"""How many attempts of a lane are under way at once: a limit that is found by trying, pure and without a clock.

A service of capacity c does c calls at once and queues the others, so that beyond c only the latency grows, and then
refusals come. Latencies of documents vary by themselves, and some refusals have nothing to do with how much is asked.
So no number is trusted that was not compared: each change of the limit is a trial, and what the next `Window` of
attempts says, beside the one before, decides whether the change stays.

- up: the limit grows. Did the latency grow as much? Then the rest only queues: go back to half as much again as the
  service's capacity. If not, the larger limit does more: keep it, and go on.
- down: the latency is higher than it was at its best. Did it fall with the limit? Then it was a queue: go on down until
  it falls no more. If not, documents are larger now, or the network slower: that is the new best, and the limit is
  restored.
- cut: refusals. Did they stop with half the limit? Then that was why. If not, they come whatever is asked: they are
  expected from now on, and the limit is restored.

Vegas, Gradient2 (both of Netflix's concurrency-limits) and Envoy's gradient compare the latency with the best one too,
but trust the difference; AIMD trusts each refusal.
"""

from __future__ import annotations

from enum import Enum, auto
from math import exp, inf, log, sqrt

from attrs import define, field, frozen

__all__ = ["BEGIN", "ConcurrencyLimit"]

BEGIN = 8
"""The limit of a lane that knows nothing yet."""

LEAST, MOST = 16, 400
"""Answers that a window has at least and at most."""

PRECISION, ROUGH = 80, 30
"""Answers for a variance of the logarithm of the latency of one; fewer do while the limit is doubled."""

QUEUEING = 0.5
"""The share of a change of the limit that the latency followed, from which on the rest is a queue."""

FREE, CROWDED = log(1.25), log(1.75)
"""How much above its best the latency is when the limit may grow, and when it may be too high."""

ROOM = 1.5
"""The limit over the capacity of a service that queues."""

FAST, SLOW, LESS = 2.0, 4 / 3, 2 / 3
"""The steps of a limit: until the first queue, after it, and down."""

FIRST_RETRY, LAST_RETRY, CHECK = 2.0, 16.0, 10.0
"""Seconds before a limit that was refused, or only queued, is tried again, at first and at last; and between two looks
at whether a latency above the best is a queue."""

CUTS = 2
"""How often refusals that are not the most of the answers halve the limit before they are taken for independent."""

FEW, SPARSE = 3, 0.1
"""Refusals of a window, and the share of its answers, that are no reason for anything."""

TELLING = 24
"""Answers that tell whether refusals stopped."""

MAJORITY = 0.5

SHORTEST = 1e-6
"""Seconds that an answer takes at least, for the logarithm's sake."""


class _Kind(Enum):
    UP = auto()
    DOWN = auto()
    CUT = auto()


@frozen
class _Trial:
    """A change of the limit, and what was so before it."""

    kind: _Kind
    limit: float
    latency: float
    cuts: int = 1
    first: tuple[float, float] | None = None
    """The limit and the latency from which several trials went down."""


@define
class Window:
    """What the attempts under one limit told so far. The first `skip` of them began under another."""

    skip: int
    wanted: int
    precision: int
    answers: int = 0
    heard: int = 0
    """All answers, those that were skipped too."""
    refused: int = 0
    busy: int = 0
    _sum: float = 0.0
    _squares: float = 0.0

    def add(self, latency: float, *, busy: bool) -> None:
        """Hear of an answer, by the logarithm of its seconds."""
        self.heard += 1
        if self.skip > 0:
            self.skip -= 1
            return
        self.answers += 1
        self._sum += latency
        self._squares += latency * latency
        self.busy += busy

    @property
    def is_full(self) -> bool:
        """True if there are enough answers for how much they vary."""
        if self.answers < self.wanted:
            return False
        mean = self._sum / self.answers
        variance = max(0.0, self._squares / self.answers - mean * mean)
        return self.answers >= min(MOST, self.precision * variance)

    @property
    def latency(self) -> float:
        """The mean logarithm of the seconds."""
        return self._sum / self.answers

    @property
    def share(self) -> float:
        """The refused share."""
        return self.refused / max(1, self.refused + self.heard)

    @property
    def was_busy(self) -> bool:
        """True if half of the places were taken when many of them began: only then did the limit matter."""
        return 3 * self.busy >= self.answers


@define
class ConcurrencyLimit:
    """A limit between 1 and `top`. Times are monotonic seconds."""

    top: int
    limit: float = field()
    places: int = field()
    """How many attempts may be under way: the limit without its fraction."""
    _window: Window = field()
    _trial: _Trial | None = None
    _best: float | None = None
    """The mean logarithm of the latency where nothing queued."""
    _ambient: float = 0.0
    """The share of refusals that come whatever is asked."""
    _is_fast: bool = True
    _is_verified: bool = False
    """True once the best latency was compared with another, or refusals say what is too much."""
    _ceiling: float = inf
    """A limit that was refused, until `_ceiling_until`."""
    _ceiling_until: float = 0.0
    _patience: float = FIRST_RETRY
    _check_at: float = 0.0
    _grow_at: float = 0.0
    """When a larger limit is tried again after one that only queued, `_grow_after` seconds later."""
    _grow_after: float = FIRST_RETRY

    @limit.default
    def _begin(self) -> float:
        return float(min(self.top, BEGIN))

    @places.default
    def _first_places(self) -> int:
        return int(self.limit)

    @_window.default
    def _first_window(self) -> Window:
        return Window(self.places, max(LEAST, 2 * self.places), ROUGH)

    def succeed(self, seconds: float, now: float, *, busy: bool) -> None:
        """Hear of an answer after so many seconds; `busy` if half of the places were taken."""
        window = self._window
        window.add(log(seconds) if seconds > SHORTEST else log(SHORTEST), busy=busy)
        if window.answers >= window.wanted and window.is_full:
            self._judge(now)

    def refuse(self, now: float) -> None:
        """Hear that the service did not take an attempt because it is unwell or has too much to do."""
        window = self._window
        window.refused += 1
        answers = window.refused + window.heard
        expected = self._ambient * answers
        if window.refused < FEW + SPARSE * answers + 1.5 * expected + 2 * sqrt(expected):
            return
        trial = self._trial
        if trial is not None and trial.kind is _Kind.CUT:
            if answers >= TELLING:
                self._judge_cut(trial, now)
            return
        self._is_fast = False
        if trial is not None and trial.kind is _Kind.UP:
            # The limit before was not refused.
            self._forbid(now)
            self._trial = None
            self._set(trial.limit)
        elif self.limit >= 2:  # noqa: PLR2004 - one place cannot be halved
            self._begin_trial(_Trial(_Kind.CUT, self.limit, 0.0), self.limit / 2)
        else:
            self._expect(window.share)

    def crowd(self, places: int, now: float) -> None:
        """Hear that the service refused all but so many attempts, which it went on to do."""
        self._ceiling, self._ceiling_until = self.limit, now + self._patience
        self._is_fast, self._trial = False, None
        self._set(places)

    def restart(self) -> None:
        """Forget what is under way: the service was not there."""
        trial, self._trial = self._trial, None
        self._set(self.limit if trial is None or trial.kind is not _Kind.CUT else trial.limit)

    def _set(self, limit: float) -> None:
        before, self.limit = self.places, min(float(self.top), max(1.0, limit))
        self.places = int(self.limit)
        # Where there was a queue it takes as many answers to be gone.
        self._window = self._opened(max(before, self.places))

    def _opened(self, skip: int) -> Window:
        return Window(skip, max(LEAST, 2 * self.places), ROUGH if self._is_fast else PRECISION)

    def _begin_trial(self, trial: _Trial, limit: float) -> None:
        self._trial = trial
        self._set(limit)

    def _judge_cut(self, trial: _Trial, now: float) -> None:
        share = self._window.share
        if share <= SPARSE:
            self._trial, limit, self._is_verified = None, self.limit, True
            self._forbid(now, trial.limit)
            self._set(limit)
        elif self.limit >= 2 and (share > MAJORITY or trial.cuts < CUTS):  # noqa: PLR2004 - halves
            cut = _Trial(_Kind.CUT, trial.limit, 0.0, trial.cuts + 1)
            self._begin_trial(cut, self.limit / 2)
        else:
            self._trial = None
            self._expect(share)
            if share <= MAJORITY:
                self._is_fast = True
                self._set(trial.limit)

    def _expect(self, share: float) -> None:
        self._ambient = min(MAJORITY, max(share, self._ambient))

    def _forbid(self, now: float, limit: float | None = None) -> None:
        """Remember that a limit was refused, for longer each time."""
        self._ceiling = self.limit if limit is None else limit
        self._ceiling_until = now + self._patience
        self._patience = min(LAST_RETRY, 2 * self._patience)

    def _judge(self, now: float) -> None:
        window, trial = self._window, self._trial
        if not window.was_busy:
            self._window = self._opened(0)
            return
        self._trial = None
        if trial is not None and trial.kind is _Kind.CUT:
            self._trial = trial
            self._judge_cut(trial, now)
            return
        self._ambient += (window.share - self._ambient) / 16
        followed = 0.0 if trial is None else (window.latency - trial.latency) / log(self.limit / trial.limit)
        if trial is not None and trial.kind is _Kind.DOWN:
            self._judge_down(trial, followed)
        elif trial is not None and followed >= QUEUEING:
            latency, self._is_fast = window.latency, False
            best = trial.latency if self._best is None else min(self._best, trial.latency)
            capacity = self.limit * exp(best - latency)
            self._set(min(self.limit, max(trial.limit, ROOM * capacity)))
            self._check_at = max(self._check_at, now + CHECK)
            self._grow_at, self._grow_after = now + self._grow_after, min(LAST_RETRY, 2 * self._grow_after)
        else:
            if trial is not None:
                self._is_verified, self._grow_after = True, FIRST_RETRY
            self._improve(window.latency, is_free=trial is not None)
            self._choose(now)

    def _judge_down(self, trial: _Trial, followed: float) -> None:
        """Go on down while the latency falls, but to what is known as the best one at most."""
        latency, best = self._window.latency, self._best
        known = self._is_verified and best is not None and latency <= best + FREE
        if followed >= QUEUEING and not known and self.limit >= 2:  # noqa: PLR2004 - one place cannot be fewer
            self._best = latency
            first = trial.first or (trial.limit, trial.latency)
            self._begin_trial(_Trial(_Kind.DOWN, self.limit, latency, first=first), self.limit * LESS)
            return
        self._is_verified = True
        if best is None or not known:
            best = self._best = latency
        crowded, its_latency = trial.first or (trial.limit, trial.latency)
        self._set(min(crowded, max(self.limit, ROOM * crowded * exp(best - its_latency))))

    def _improve(self, latency: float, *, is_free: bool) -> None:
        """Take the latency for the best one if it is, or if a trial showed that it is not for a queue."""
        best = self._best
        if best is None or is_free:
            self._best = latency
        elif latency < best + FREE:
            self._best = best + (latency - best) * (0.5 if latency < best else 0.1)

    def _choose(self, now: float) -> None:
        """Try another limit, or look at this one again."""
        latency, best = self._window.latency, self._best
        above = 0.0 if best is None else latency - best
        may_check = now >= self._check_at
        # What was best at first may have been a queue already.
        is_unsure = above > CROWDED or (above > FREE and not self._is_verified)
        if is_unsure and may_check and self.limit >= 2:  # noqa: PLR2004 - one place cannot be fewer
            self._check_at = now + CHECK
            self._begin_trial(_Trial(_Kind.DOWN, self.limit, latency), self.limit * LESS)
        elif above <= (CROWDED if now >= self._grow_at else FREE) and (larger := self._larger(now)) > self.limit:
            self._begin_trial(_Trial(_Kind.UP, self.limit, latency), larger)
        else:
            self._window = self._opened(0)

    def _larger(self, now: float) -> float:
        """Return the next limit to try, the same if there is none."""
        if now >= self._ceiling_until:
            self._ceiling = inf
        larger = max(self.limit + 1, self.limit * (FAST if self._is_fast else SLOW))
        if larger >= self._ceiling:
            larger = (self.limit + self._ceiling) / 2
            if int(larger) == self.places:
                return self.limit
        return min(float(self.top), larger)

"""When to ask again, learned: where the next poll of an operation repays itself, from the polls before.

A poll costs 1. A second between an operation's end and the poll that sees it costs `worth`. What is known of the
time T from NEW to terminal is interval-censored: a poll that still says NEW at one age and a poll that says terminal
at a later one put T between them. From these, three steps, all on one grid of log-spaced ages:

1. Estimate the hazard of each bin by expectation and maximisation (Turnbull's self-consistency), with a weak
   heavy-tailed prior. It is done twice, with a long memory and with a short one, so that a shift is followed.
2. Smooth each estimate at several widths, and weigh the smoothed ones by how well each foretold the polls that came
   after it (Bayesian model averaging): sharp modes stay sharp and tails smooth without a setting.
3. Place the polls by dynamic programming over the grid: the least expected cost from each age onwards. The minimum
   over the next poll is one over lines, so a convex hull makes it linear in the number of bins.

Everything is a function of what was observed: no clock, no chance of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import exp, inf, log, log1p
from operator import mul, sub
from typing import Any

from attrs import Attribute, Factory, define, field

from .validators import positive

__all__ = ["AdaptiveSchedule"]

_BINS = 525  # reaches 35,600 times the floor: an hour for a floor of 0.1 s
_STEP = 0.02  # each bin is 2 % wide
_TAIL = 0.8  # prior: the chance to last beyond t falls as t ** -0.8, so polls without data spread as sqrt(t)
_FIRST = 0.03  # prior: the chance to end within the floor
_PRIOR = (_FIRST, *[1.0 - exp(-_TAIL * _STEP)] * (_BINS - 1))  # as hazards
_ESTIMATE_WEIGHT = 0.3  # prior events per e-fold of age: few, or they outweigh the rare looks inside long gaps
_PLAN_WEIGHT = 5.0  # the same for the plan: more, because little data must not be trusted with long gaps
_ROUNDS = 4  # of expectation and maximisation at a replan; the next replan goes on from there
_SURE = 0.7  # highest hazard of a bin: 0.3 ** 525 is still a number, so no survival is ever 0
_LONG, _SHORT = 2000.0, 250.0  # memories: finished operations after which an observation weighs 1/e
_LONG_DOUBT, _SHORT_DOUBT = 0.02, 0.1  # share of the prior that a fit starts from: what no poll told apart spreads
_WIDTHS = (0.04, 0.12, 0.36)  # standard deviations of the smoothing, in log age
_REACHES = tuple(round(1.22 * width / _STEP) for width in _WIDTHS)  # of the triangle that has that deviation
_SCORE_MEMORY = 300.0  # finished operations after which a score weighs 1/e
_SURPRISE = 1e-4  # chance given to what an estimate held impossible
_RESET = 10.0  # log likelihood by which the short memory wins before the long one starts again from it
_NEGLIGIBLE = 0.02  # weight below which an aged observation, or an estimate in the average, is dropped
_FEWEST, _EARLY, _MANY, _LATE = 3.0, 0.2, 200.0, 0.02  # replan after so much news, see _due
_NEWS = 0.25  # a poll that says NEW is less news than one that says terminal
_EXPLORE_FIRST, _EXPLORE_LAST, _EXPLORE_UNTIL = 0.15, 0.015, 50.0  # share of waits that are cut short to look inside
_JITTER = 0.04  # share of a wait that is left to chance, so that operations begun together part

_Spans = dict[tuple[int, int], float]


def _survival(hazard: Sequence[float]) -> list[float]:
    """The chance to outlive each edge."""
    return list(accumulate((1.0 - h for h in hazard), mul, initial=1.0))


def _running(steps: Sequence[float]) -> list[float]:
    """What differences at the edges amount to in each bin."""
    return list(accumulate(steps[:-1]))


def _blur(values: Iterable[float], reach: int) -> list[float]:
    """Sums under a triangle of `reach` bins to each side and twice as many: two boxes, one after the other."""
    for _ in range(2):
        total = list(accumulate(values, initial=0.0))
        padded = [0.0] * reach + total + [total[-1]] * reach
        values = list(map(sub, padded[2 * reach + 1 :], padded))
    return list(values)


@define
class _News:
    """What came since the last replan, as counts on the grid."""

    steps: list[float] = field(factory=lambda: [0.0] * (_BINS + 1))
    ended: _Spans = Factory(dict)
    finished: int = 0
    weight: float = 0.0

    def alive(self, after: int, by: int) -> None:
        self.steps[after] += 1.0
        self.steps[by] -= 1.0
        self.weight += _NEWS

    def end(self, after: int, by: int) -> None:
        self.ended[after, by] = self.ended.get((after, by), 0.0) + 1.0
        self.finished += 1
        self.weight += 1.0


@define
class _Estimate:
    """The hazard of each bin, learned with one length of memory, and its smoothed forms with their scores."""

    memory: float
    doubt: float
    exposed: list[float] = field(factory=lambda: [0.0] * _BINS)
    ended: _Spans = Factory(dict)
    hazard: list[float] = field(factory=lambda: list(_PRIOR))
    smooth: list[list[float]] = field(factory=lambda: [list(_PRIOR) for _ in _WIDTHS])
    scores: list[float] = field(factory=lambda: [0.0] * len(_WIDTHS))

    def learn(self, news: _News) -> None:
        exposed = _running(news.steps)
        kept = exp(-news.finished / _SCORE_MEMORY)
        for index, hazard in enumerate(self.smooth):
            # How well it foretold the results: the logarithm of their chance.
            alive = _survival(hazard)
            new = sum(n * log1p(-h) for n, h in zip(exposed, hazard, strict=True) if n)
            new += sum(n * log(1.0 - alive[by] / alive[after] + _SURPRISE) for (after, by), n in news.ended.items())
            self.scores[index] = self.scores[index] * kept + new
        self._take(exposed, news)
        self.hazard = [h + self.doubt * (p - h) for h, p in zip(self.hazard, _PRIOR, strict=True)]
        more = _ESTIMATE_WEIGHT * _STEP
        for _ in range(_ROUNDS):
            events, risked = self._expect()
            self.hazard = [
                min(_SURE, (event + more) / (risk + more / prior))
                for event, risk, prior in zip(events, risked, _PRIOR, strict=True)
            ]
        # At each width of smoothing: smoothed events over smoothed risk.
        more = _PLAN_WEIGHT * _STEP
        events = [event + more for event in events]
        risked = [risk + more / prior for risk, prior in zip(risked, _PRIOR, strict=True)]
        self.smooth = [
            [min(_SURE, event / risk) for event, risk in zip(_blur(events, reach), _blur(risked, reach), strict=True)]
            for reach in _REACHES
        ]

    def restart(self, other: _Estimate) -> None:
        """Replace what was learned by a copy of what the other one learned."""
        self.exposed, self.ended, self.hazard = list(other.exposed), dict(other.ended), list(other.hazard)
        self.smooth, self.scores = list(other.smooth), list(other.scores)

    def _take(self, exposed: Sequence[float], news: _News) -> None:
        kept = exp(-news.finished / self.memory)
        self.exposed = [old * kept + new for old, new in zip(self.exposed, exposed, strict=True)]
        self.ended = {span: n * kept for span, n in self.ended.items() if n * kept > _NEGLIGIBLE}
        for span, n in news.ended.items():
            self.ended[span] = self.ended.get(span, 0.0) + n

    def _expect(self) -> tuple[list[float], list[float]]:
        """The events of each bin and how many were at risk in it, spread as the present hazard has them."""
        alive = _survival(self.hazard)
        shares, left = [0.0] * (_BINS + 1), [0.0] * (_BINS + 1)
        for (after, by), n in self.ended.items():
            share = n / (alive[after] - alive[by])
            shares[after] += share
            shares[by] -= share
            share *= alive[by]
            left[after] += share
            left[by] -= share
        within, beyond = _running(shares), _running(left)
        events = [max(0.0, s * a * h) for s, a, h in zip(within, alive, self.hazard, strict=False)]
        risked = [
            kept + max(event, s * a - rest)
            for kept, event, s, a, rest in zip(self.exposed, events, within, alive, beyond, strict=False)
        ]
        return events, risked


@define
class _Envelope:
    """The lower envelope of lines `level - age * x`, added by falling age and asked for by falling x."""

    lines: list[tuple[float, float]] = Factory(list)
    at: int = 0

    def add(self, age: float, level: float) -> None:
        lines = self.lines
        while len(lines) > 1:
            (first_age, first), (last_age, last) = lines[-2:]
            if (level - last) * (last_age - first_age) < (last - first) * (age - last_age):
                break
            lines.pop()  # it is nowhere below both the one before it and the new one
        self.at = min(self.at, len(lines))  # where the hidden line was lowest, this one is
        lines.append((age, level))

    def least(self, x: float) -> tuple[float, float]:
        """The age of the lowest line at x, and its height there."""
        lines, at = self.lines, self.at
        age, level = lines[at]
        height = level - age * x
        while at + 1 < len(lines) and (lower := lines[at + 1][1] - lines[at + 1][0] * x) < height:
            at, height = at + 1, lower
        self.at = at
        return lines[at][0], height


def _plan(edges: Sequence[float], hazard: Sequence[float], *, worth: float, floor: float) -> list[float]:
    """The age of the best next poll from each edge; the grid's end has none.

    The age at which an operation ends is the same under every plan, and so is what becomes of it beyond the grid. What
    is counted is therefore not the delay but the age at which its end is seen: with S the chance to outlive, the cost
    from a onwards is C(a) = min over b of S(a) + worth * b * (S(a) - S(b)) + C(b). That is a part of a, a part of b,
    and b times S(a): so each b is a line. Nothing large is subtracted: it is right also where next to nothing is left.
    """
    alive = _survival(hazard)
    cost, best, envelope, late = [0.0] * len(edges), [inf] * len(edges), _Envelope(), _BINS
    for now in range(_BINS - 1, -1, -1):
        while edges[late] >= edges[now] + 0.999 * floor:  # the grid's own edges are floats
            envelope.add(edges[late], cost[late] - worth * edges[late] * alive[late])
            late -= 1
        best[now], height = envelope.least(-worth * alive[now])
        cost[now] = alive[now] + height
    return best


def _due(seen: float) -> float:
    """Return the news that repays a replan: a fifth more results at first, in the end a fiftieth."""
    return max(_FEWEST, min(_EARLY * seen, _MANY + _LATE * seen))


@define(kw_only=True)
class AdaptiveSchedule:
    """A schedule that is learned while it is used. One for all operations of a run; it changes with what it observes.

    `worth` is what a second of delay is worth in polls: 2 means that seeing an end half a second earlier repays one
    poll. `floor` and `ceiling` bound every wait, in seconds: not even an operation that never ends is asked more often
    than the first, or more rarely than the second. Without data the waits grow with the square root of the age.
    An answer or a question takes microseconds, whatever the number of operations; now and then an answer brings a
    replan, some milliseconds, ever more rarely.
    """

    worth: float = field(default=1.0, validator=positive)
    floor: float = field(default=0.1, validator=positive)
    ceiling: float = field(default=60.0, validator=positive)
    _edges: list[float] = field(init=False, repr=False)
    _best: list[float] = field(init=False, repr=False)
    _news: _News = field(init=False, repr=False, factory=_News)
    _estimates: tuple[_Estimate, _Estimate] = field(init=False, repr=False)
    _seen: float = field(init=False, repr=False, default=0.0)

    @ceiling.validator
    def _check_ceiling(self, attribute: Attribute[Any], value: float) -> None:
        if value < self.floor:
            raise ValueError(f"AdaptiveSchedule.ceiling must be at least floor ({self.floor}), got {value!r}")

    def __attrs_post_init__(self) -> None:
        self._edges = [0.0, *(self.floor * exp(_STEP * k) for k in range(_BINS))]
        self._estimates = (_Estimate(_LONG, _LONG_DOUBT), _Estimate(_SHORT, _SHORT_DOUBT))
        self._best = _plan(self._edges, _PRIOR, worth=self.worth, floor=self.floor)

    def observe(self, after: float, by: float, *, done: bool) -> None:
        """Take in the answer of one poll at age `by`: the end, or still NEW. `after` is the age of the last NEW.

        Ages are seconds since the submission, which is itself a NEW at age 0. Pass every answer, and no failed poll.
        """
        start, end = self._index(after), self._index(by)
        if done:
            start = min(start, _BINS - 1)
            self._news.end(start, max(end, start + 1))
        elif end > start:
            self._news.alive(start, end)
        if self._news.weight >= _due(self._seen):
            self._replan()

    def delay(self, age: float, *, chance: float) -> float:
        """Return the seconds from an answer NEW at `age` to the next poll; `chance` is drawn evenly from [0, 1).

        A small share of the chances cuts the wait short, to learn where inside it operations end.
        """
        wait = self._best[self._index(age)] - age
        explored = max(_EXPLORE_LAST, _EXPLORE_FIRST / (1.0 + self._seen / _EXPLORE_UNTIL) ** 0.5)
        wait = min(self.ceiling, wait)
        wait *= chance / explored if chance < explored else 1.0 + _JITTER * (chance - 0.5)
        return max(self.floor, min(self.ceiling, wait))

    def _index(self, age: float) -> int:
        """The edge nearest to an age; nonsense is 0."""
        if not age > 0.5 * self.floor:
            return 0
        return int(log(min(max(age, self.floor), self._edges[-1]) / self.floor) / _STEP + 1.5)

    def _replan(self) -> None:
        long, short = self._estimates
        for estimate in self._estimates:
            estimate.learn(self._news)
        self._seen += self._news.weight
        self._news = _News()
        # The smoothed hazards in one, each weighing what its score says.
        scored = [pair for estimate in self._estimates for pair in zip(estimate.scores, estimate.smooth, strict=True)]
        best = max(score for score, _ in scored)
        heavy = [(exp(score - best), hazard) for score, hazard in scored if exp(score - best) > _NEGLIGIBLE]
        total = sum(weight for weight, _ in heavy)
        weighed = ([weight * h for h in hazard] for weight, hazard in heavy)
        averaged = [sum(parts) / total for parts in zip(*weighed, strict=True)]
        if max(short.scores) > max(long.scores) + _RESET:
            long.restart(short)
        self._best = _plan(self._edges, averaged, worth=self.worth, floor=self.floor)

"""What the learned schedule holds after each poll, against a plain second writing of its rules: sums, no tricks."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from invoicing_async._values import adaptive_polling as module
from invoicing_async._values.adaptive_polling import AdaptiveSchedule

BINS, STEP = module._BINS, module._STEP
PRIOR = [0.03, *[1 - math.exp(-0.8 * STEP)] * (BINS - 1)]
REACHES = [round(1.22 * width / STEP) for width in (0.04, 0.12, 0.36)]
Seen = tuple[int, int, bool]
"""The edges between which something was, and whether it ended there."""


def survival(hazard: Sequence[float]) -> list[float]:
    found = [1.0]
    for share in hazard:
        found.append(found[-1] * (1 - share))
    return found


def blurred(values: Sequence[float], reach: int) -> list[float]:
    for _ in range(2):
        values = [sum(values[max(0, k - reach) : k + reach + 1]) for k in range(len(values))]
    return list(values)


@dataclass
class Plain:
    """One estimate."""

    memory: float
    doubt: float
    exposed: list[float] = field(default_factory=lambda: [0.0] * BINS)
    ended: dict[tuple[int, int], float] = field(default_factory=dict)
    hazard: list[float] = field(default_factory=lambda: list(PRIOR))
    smooth: list[list[float]] = field(default_factory=lambda: [list(PRIOR) for _ in REACHES])
    scores: list[float] = field(default_factory=lambda: [0.0] * len(REACHES))

    def learn(self, seen: Sequence[Seen]) -> None:
        finished = sum(done for _, _, done in seen)
        for number, hazard in enumerate(self.smooth):
            alive, score = survival(hazard), 0.0
            for start, end, done in seen:
                if done:
                    score += math.log(1 - alive[end] / alive[start] + 1e-4)
                else:
                    score += sum(math.log(1 - hazard[k]) for k in range(start, end))
            self.scores[number] = self.scores[number] * math.exp(-finished / 300) + score
        kept = math.exp(-finished / self.memory)
        self.exposed = [n * kept for n in self.exposed]
        self.ended = {span: n * kept for span, n in self.ended.items() if n * kept > 0.02}
        for start, end, done in seen:
            if done:
                self.ended[start, end] = self.ended.get((start, end), 0.0) + 1
            for k in range(start, end):
                self.exposed[k] += not done
        self.hazard = [h + self.doubt * (p - h) for h, p in zip(self.hazard, PRIOR, strict=True)]
        for _ in range(4):
            events, risked = self.expected()
            more = 0.3 * STEP
            self.hazard = [min(0.7, (e + more) / (r + more / p)) for e, r, p in zip(events, risked, PRIOR, strict=True)]
        more = 5.0 * STEP
        above = [event + more for event in events]
        below = [risk + more / p for risk, p in zip(risked, PRIOR, strict=True)]
        self.smooth = [
            [min(0.7, e / r) for e, r in zip(blurred(above, reach), blurred(below, reach), strict=True)]
            for reach in REACHES
        ]

    def expected(self) -> tuple[list[float], list[float]]:
        """The chance of each bin to be where an operation ended, given that it did within its span; and at risk."""
        alive = survival(self.hazard)
        events, risked = [0.0] * BINS, list(self.exposed)
        for (start, end), n in self.ended.items():
            within = alive[start] - alive[end]
            for k in range(start, end):
                events[k] += n * (alive[k] - alive[k + 1]) / within
                risked[k] += n * (alive[k] - alive[end]) / within
        return events, risked


def averaged(estimates: Sequence[Plain]) -> list[float]:
    pairs = [pair for one in estimates for pair in zip(one.scores, one.smooth, strict=True)]
    best = max(score for score, _ in pairs)
    heavy = [(math.exp(score - best), hazard) for score, hazard in pairs if math.exp(score - best) > 0.02]
    total = sum(weight for weight, _ in heavy)
    return [sum(weight * hazard[k] for weight, hazard in heavy) / total for k in range(BINS)]


def polled(seed: int, operations: int) -> list[Seen]:
    """Polls of operations that end near two ages, at edges."""
    rng, found = random.Random(seed), list[Seen]()
    for _ in range(operations):
        end = round(rng.gauss(150, 12)) if rng.random() < 0.7 else round(rng.gauss(265, 12))
        at = 0
        while at < end:
            later = min(at + 30 * rng.randint(1, 3), BINS)
            found.append((at, later, later >= end))
            at = later
    return found


def test_what_is_learned_is_what_plain_sums_give() -> None:
    """Both memories, their scores and smoothed forms after each replan, and the plan that follows from them."""
    model = AdaptiveSchedule(worth=2.0)
    plain = [Plain(2000.0, 0.02), Plain(250.0, 0.1)]
    news, weight, total, replans = list[Seen](), 0.0, 0.0, 0
    for seen in polled(5, 60):
        start, end, done = seen
        model.observe(model._edges[start], model._edges[end], done=done)
        news.append(seen)
        weight += 1.0 if done else 0.25
        if weight < max(3.0, min(0.2 * total, 200.0 + 0.02 * total)):
            continue
        for one in plain:
            one.learn(news)
        replans += 1
        total += weight
        assert model._seen == total
        assert model._news == module._News()
        news, weight = [], 0.0
    assert replans > 8
    for one, estimate in zip(plain, model._estimates, strict=True):
        assert estimate.exposed == pytest.approx(one.exposed)
        assert estimate.ended == pytest.approx(one.ended)
        assert estimate.hazard == pytest.approx(one.hazard)
        assert estimate.scores == pytest.approx(one.scores)
        for found, expected in zip(estimate.smooth, one.smooth, strict=True):
            assert found == pytest.approx(expected)
    assert model._best == pytest.approx(module._plan(model._edges, averaged(plain), worth=2.0, floor=0.1))


def test_news_is_counted_until_it_repays_a_replan() -> None:
    """An end is one, a poll that says NEW a quarter of that; three are the fewest, then a fifth of what was seen."""
    model = AdaptiveSchedule()
    for _ in range(11):
        model.observe(0.0, 1.0, done=False)
    assert (model._seen, model._news.weight, model._news.finished) == (0.0, 2.75, 0)
    model.observe(0.0, 1.0, done=False)
    assert (model._seen, model._news.weight) == (3.0, 0.0)
    model.observe(0.0, 1.0, done=True)
    model.observe(0.0, 1.0, done=True)
    assert (model._news.weight, model._news.finished) == (2.0, 2)
    assert list(model._news.ended.values()) == [2.0]
    assert [module._due(seen) for seen in (0.0, 15.0, 20.0, 100.0, 1000.0, 2000.0, 10_000.0)] == [
        3.0,
        3.0,
        4.0,
        20.0,
        200.0,
        240.0,
        400.0,
    ]


def test_an_answer_lies_between_the_nearest_edges() -> None:
    """An end takes at least one bin, the last one if need be; a NEW that is no later than the last one says nothing."""
    model = AdaptiveSchedule()
    edges = model._edges
    assert (len(edges), edges[0], edges[1]) == (BINS + 1, 0.0, 0.1)
    assert edges[101] == pytest.approx(0.1 * math.exp(2.0))
    assert [model._index(edges[101] * math.exp(STEP * part)) for part in (-0.49, 0.0, 0.49, 0.51)] == [
        101,
        101,
        101,
        102,
    ]
    assert [model._index(age) for age in (0.0499, 0.051, 1e99, math.inf, math.nan)] == [0, 1, BINS, BINS, 0]
    model.observe(edges[9], edges[9], done=False)
    assert model._news == module._News()
    model.observe(edges[9], edges[9], done=True)
    model.observe(1e99, 1e99, done=True)
    assert model._news.ended == {(9, 10): 1.0, (BINS - 1, BINS): 1.0}
    model.observe(edges[3], edges[5], done=False)
    assert [k for k, step in enumerate(model._news.steps) if step] == [3, 5]
    assert (model._news.steps[3], model._news.steps[5]) == (1.0, -1.0)


@pytest.mark.parametrize(("seen", "share"), [(0.0, 0.15), (150.0, 0.075), (1e6, 0.015)])
def test_a_share_of_the_chances_that_falls_with_what_was_seen_cuts_a_wait_short(seen: float, share: float) -> None:
    """Evenly: half of that share waits half as long. The others wait within two per cent of it."""
    model = AdaptiveSchedule()
    model._best, model._seen = [20.0] * (BINS + 1), seen
    assert model.delay(10.0, chance=share / 2) == pytest.approx(5.0)
    assert model.delay(10.0, chance=share * 0.999) == pytest.approx(9.99)
    assert model.delay(10.0, chance=share) == pytest.approx(10 * (1 + 0.04 * (share - 0.5)))
    assert model.delay(10.0, chance=0.5) == 10.0
    assert model.delay(10.0, chance=0.999) == pytest.approx(10 * (1 + 0.04 * 0.499))
    assert model.delay(10.0, chance=0.0) == 0.1


def test_a_wait_is_bounded_before_and_after_chance() -> None:
    """By the ceiling, which is cut short too, and by the floor."""
    model = AdaptiveSchedule(floor=0.5, ceiling=8.0)
    model._best = [100.0] * (BINS + 1)
    assert model.delay(1.0, chance=0.5) == 8.0
    assert model.delay(1.0, chance=0.99) == 8.0
    assert model.delay(1.0, chance=0.075) == pytest.approx(4.0)
    assert model.delay(99.9, chance=0.5) == 0.5


def test_the_lowest_line_is_found_as_by_looking_at_all() -> None:
    """Lines come by falling age, and are asked for by falling x between."""
    rng = random.Random(4)
    for _ in range(30):
        envelope, lines = module._Envelope(), list[tuple[float, float]]()
        ages = sorted((rng.uniform(0.0, 100.0) for _ in range(40)), reverse=True)
        x = 1.0
        for age in ages:
            level = 60.0 * rng.random() + 0.005 * (age - 50.0) ** 2
            lines.append((age, level))
            envelope.add(age, level)
            x -= rng.random() / 50
            found_age, height = envelope.least(x)
            expected = min(lines, key=lambda line: line[1] - line[0] * x)
            assert height == pytest.approx(expected[1] - expected[0] * x)
            assert found_age == expected[0]


@pytest.mark.parametrize(("ahead", "is_taken"), [(9.9, False), (10.1, True)])
def test_the_long_memory_begins_again_as_a_copy_of_the_short_one(ahead: float, is_taken: bool) -> None:  # noqa: FBT001
    """Where that one foretold better by a log likelihood of ten; what it learns then is its own."""
    model = AdaptiveSchedule()
    for start, end, done in polled(2, 9):
        model.observe(model._edges[start], model._edges[end], done=done)
    long, short = model._estimates
    long.scores, short.scores = [0.0, -5.0, -5.0], [-50.0, ahead, -50.0]
    model._news = module._News()
    model._replan()
    assert long.memory != short.memory
    for name in ("exposed", "ended", "hazard", "smooth", "scores"):
        of_long, of_short = getattr(long, name), getattr(short, name)
        assert (of_long == of_short) is is_taken
        assert of_long is not of_short


def test_what_ended_earlier_does_not_matter_to_an_operation_that_is_left() -> None:
    """However few of all get as old as that: its polls are planned as if it were the first thing to be known."""
    edges = AdaptiveSchedule()._edges
    rng = random.Random(6)
    hazard = [0.4 * rng.random() for _ in range(BINS)]
    assert survival(hazard)[300] < 1e-20
    planned = module._plan(edges, hazard, worth=1.0, floor=0.1)
    for age in (50, 200, 300):
        assert module._plan(edges, [0.0] * age + hazard[age:], worth=1.0, floor=0.1)[age:] == planned[age:]


@pytest.mark.parametrize("reach", REACHES)
def test_what_is_smoothed_is_the_same_from_both_ends(reach: int) -> None:
    values = [1.0, 0.5, *([0.0] * 60), 0.25, 2.0, 3.0]
    assert module._blur(values[::-1], reach)[::-1] == pytest.approx(module._blur(values, reach))


def test_what_was_seen_long_ago_is_forgotten() -> None:
    """When what is left of it weighs less than a fiftieth: so the spans that are kept are bounded."""
    for finished, kept in [(970, {(3, 9): pytest.approx(math.exp(-970 / 250))}), (980, {})]:
        estimate = module._Estimate(250.0, 0.1, ended={(3, 9): 1.0})
        estimate._take([0.0] * BINS, module._News(finished=finished))
        assert estimate.ended == kept

"""When to ask again, learned: where the next poll of an operation repays itself, from the polls before.

A poll costs 1. A second between an operation's end and the poll that sees it costs `worth`. What is known of the time T
from NEW to terminal is interval-censored: a poll that still says NEW at one age and a poll that says terminal at a later one
put T between them. From these, three steps, all on one grid of log-spaced ages:

1. Estimate the hazard of each bin by expectation and maximisation (Turnbull's self-consistency), with a weak heavy-tailed prior.
   It is done twice, with a long memory and with a short one, so that a shifting distribution is followed.
2. Smooth each estimate at several widths and weigh the smoothed ones by how well each foretold the polls that came after it
   (Bayesian model averaging), so that sharp modes stay sharp and smooth tails stay smooth without a setting.
3. Place the polls by dynamic programming over the grid: the least expected cost from each age onwards. The minimum over
   the next poll is a minimum over lines, so a convex hull makes it linear in the number of bins.

Everything is a function of what was observed: no clock, no chance of its own, nothing imported from this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import exp, isfinite, log
from operator import mul, sub

from attrs import Factory, define, field

__all__ = ["Learned"]

_BINS = 525  # reaches 35,600 times the floor: an hour for a floor of 0.1 s
_STEP = 0.02  # each bin is 2 % wide
_TAIL = 0.5  # prior: the chance to last beyond t falls as t ** -0.5, so polls without data spread as sqrt(t)
_FIRST = 0.05  # prior: chance to end before the smallest interval has passed
_ESTIMATE_WEIGHT = 0.3  # prior events per e-fold of age in the estimate: few, or they outweigh the rare looks inside long gaps
_PLAN_WEIGHT = 3.0  # prior events per e-fold of age in the plan: more, because little data must not be trusted with long gaps
_ROUNDS = 4  # rounds of expectation and maximisation at a replan; the next one goes on from there
_SURE = 0.95  # highest hazard of a bin, so that no survival is ever 0
_MEMORIES = (2000, 250)  # finished operations after which an observation weighs 1/e
_WIDTHS = (0.04, 0.12, 0.36)  # standard deviations of the smoothing, in log age
_SCORE_MEMORY = 500  # the same for the scores of the smoothed estimates
_SCORE_FLOOR = 1e-4  # chance given to what an estimate held impossible
_RESET = 10.0  # log likelihood by which the short memory must win before the long one starts again from it
_NEGLIGIBLE = 0.02  # weight below which an aged observation is dropped
_LEFT = 5.0  # polls assumed for what outlives the grid
_FEWEST, _GROWTH, _MOST = 3.0, 0.15, 500.0  # replan after so many new results: grows with what is known
_NEWS = 0.25  # a poll that says NEW teaches less than one that says terminal
_EXPLORE_FIRST, _EXPLORE_LAST, _EXPLORE_HALF = 0.1, 0.02, 50.0  # share of waits cut short to look inside their gap


def _positive(instance: object, name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"{type(instance).__name__}.{name} must be a finite number above 0, got {value!r}")
    return float(value)

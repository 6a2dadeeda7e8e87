"""This file plays experiments on a harm budget: units that come, outcomes that are known at once or late, looks.

The shipped rule (`branchline.core.harm`) says the share, the shipped judge the verdict; what an experiment cost is what
the units that met the challenger have truly lost on average. Base rates are steady, drift, or have weekdays.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from branchline.core import harm
from branchline.core.decision import Answer, Plan
from branchline.core.evidence import Stratum, Sums, judge

EVERY = 200  # units of both arms between two looks
PACE = EVERY / harm.LOOK  # of them in a second
LONGEST = 150_000  # units: then a test is ended
RATE = 0.1
PLAN = Plan(mde=0.01, bounds=(0.0, 1.0))
DAY = 20_000.0
Rates = Callable[[float], float]
WORLDS: dict[str, Rates] = {
    "steady": lambda at: RATE,
    "drifting": lambda at: RATE * (0.6 + min(at, 60_000) / 60_000),
    "weekdays": lambda at: RATE * (1 + 0.5 * math.sin(2 * math.pi * at / DAY)),
}


@dataclass
class Run:
    """One experiment: what became of it, after how many units of both arms, and what it truly cost."""

    rng: random.Random
    rates: Rates
    effect: float  # of the challenger on the rate
    window: float = 0.0  # seconds until an outcome is known
    budget: float = math.inf  # infinite: an even split from the start
    strata: list[list[float]] = field(default_factory=list)  # n0, sum0, n1, sum1
    waiting: list[tuple[float, int, list[float]]] = field(default_factory=list)
    units: int = 0
    at: int = 0
    cost: float = 0.0
    share: int = 50
    ended: str = "never"
    rule: Callable[..., harm.Advice] = harm.advised

    def play(self) -> Run:
        """Until it ends."""
        if self.budget < math.inf:
            self.share = harm.shares(1)[0]
        self.strata.append([0.0] * 4)
        while self.at < LONGEST:
            self.come()
            known = [Stratum(sums(s[0], s[1]), sums(s[2], s[3])) for s in self.strata]
            judged = judge(known, PLAN).answer
            if judged is not Answer.CONTINUE:
                self.ended = str(judged)
                break
            if self.budget == math.inf:
                continue
            advice = self.rule(
                self.budget, 1, self.share, known, known[-1], PLAN, units=self.units, pace=PACE, window=self.window
            )
            if not advice.share:
                self.ended = "spent"
                break
            if advice.share != self.share:
                self.share = advice.share
                self.strata.append([0.0] * 4)
        return self

    def come(self) -> None:
        """The units until the next look, and the outcomes that are known by then."""
        mine = self.ones(EVERY, self.share / 100)
        rate = self.rates(self.at)
        worse = min(max(rate + self.effect, 0.0), 1.0)
        row: list[float] = [EVERY - mine, self.ones(EVERY - mine, rate), mine, self.ones(mine, worse)]
        self.at += EVERY
        self.units += mine
        self.cost += mine * (rate - worse)
        self.waiting.append((self.at + self.window * PACE, len(self.strata) - 1, row))
        while self.waiting and self.waiting[0][0] <= self.at:
            _, place, told = self.waiting.pop(0)
            self.strata[place] = [old + new for old, new in zip(self.strata[place], told, strict=True)]

    def ones(self, of: int, rate: float) -> int:
        """How many of so many are one."""
        return sum(self.rng.random() < rate for _ in range(of))


def bad(number: int, budget: float, world: str = "steady", window: float = 0.0) -> Run:
    """A challenger that does harm, of any size from hardly any to all, on a budget."""
    rng = random.Random(f"bad {number}")
    effect = -math.exp(rng.uniform(math.log(0.002), math.log(0.1)))
    return Run(rng, WORLDS[world], effect, window, budget).play()


def other(number: int, effect: float, budget: float = math.inf, window: float = 0.0) -> Run:
    """A challenger with a known effect, on a budget or at an even split from the start."""
    return Run(random.Random(f"other {number}"), WORLDS["steady"], effect, window, budget).play()


def sums(n: float, ones: float) -> Sums:
    """The sums of zeros and ones."""
    return Sums(int(n), float(ones), float(ones))

"""This file keeps a metric that is only watched: shown with its interval and count, and never a reason for anything.

Rules. Nobody has declared which effect matters, so the interval is tuned by the spread of the first hundred units of
each arm, to be tightest at about 5,000 units; from then on it holds at every look, like any other, in 95 % of tests,
each metric by itself: of twenty one is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from branchline.core.arms import Arms, added, judged
from branchline.core.boundary import fixed_information
from branchline.core.decision import Judgement, Plan
from branchline.core.spec import Metric

FEWEST = 100  # units of each arm, before an interval is tuned
TUNED = 1250.0  # n0 n1 / (n0 + n1) of 5,000 units at one half each


@dataclass(slots=True)
class Watched:
    """What is counted of one metric; `effect` is what its interval is tuned by, 0 while too little is known, and `seen`
    the last unit that was taken in.
    """

    metric: Metric
    strata: dict[int, Arms] = field(default_factory=dict)
    effect: float = 0.0
    seen: int = 0

    @property
    def plan(self) -> Plan:
        """By which the interval is reckoned."""
        metric = self.metric
        return Plan(metric.direction, self.effect, bounds=metric.bounds, form=metric.form)

    @property
    def judgement(self) -> Judgement:
        """The estimate with its interval; its answer is nobody's business."""
        return judged([arms for _, arms in sorted(self.strata.items())], self.plan)

    def take(self, stratum: int, value: float, other: float, *, mine: bool) -> None:
        """Take in one unit of the challenger (`mine`) or of the incumbent."""
        self.strata[stratum] = added(self.strata.get(stratum), self.plan, mine, value, other)
        if not self.effect:
            found = self.judgement
            n0, n1 = found.units_control, found.units_challenger
            if min(n0, n1) >= FEWEST and found.information:
                variance = n0 * n1 / (n0 + n1) / found.information
                self.effect = math.sqrt(fixed_information(1.0) * variance / TUNED)

"""This file holds the judge's mathematics to two published packages: ville 0.1.0 (BSD-3) and tea-tasting 1.14.0 (MIT).

`tests/golden.py` recomputes the values where those are installed, and says how. Issue 7, Figures: cross-checks.
"""

from __future__ import annotations

import math

import pytest

from branchline.core.boundary import log_mixture
from branchline.core.covariate import adjusted_difference
from branchline.core.evidence import Stratum, Sums, difference
from branchline.core.ratios import Pairs, PairStratum
from tests.golden import ALPHAS, PRECISIONS, TIMES, samples

# Intrinsic time, alpha, precision of the mixture: ville's normal_mixture(..., one_sided=True).
BOUNDARIES = [
    (1, 0.05, 2, 3.8867551628478205),
    (1, 0.05, 100, 21.66321121802794),
    (1, 0.025, 2, 4.384627935804216),
    (1, 0.025, 100, 24.649140810466797),
    (1, 0.01, 2, 4.9699982327816254),
    (1, 0.01, 100, 28.138064620260707),
    (30, 0.05, 2, 15.372025648279433),
    (30, 0.05, 100, 25.22509601502302),
    (30, 0.025, 2, 16.749564973545304),
    (30, 0.025, 100, 28.541242584857606),
    (30, 0.01, 2, 18.415443342375774),
    (30, 0.01, 100, 32.431656391498734),
    (500, 0.05, 2, 71.31833245210379),
    (500, 0.05, 100, 62.00800292774272),
    (500, 0.025, 2, 76.03840290898881),
    (500, 0.025, 100, 68.36002759829563),
    (500, 0.01, 2, 81.8631677020708),
    (500, 0.01, 100, 75.96472924946116),
    (20000, 0.05, 2, 525.6841975272775),
    (20000, 0.05, 100, 446.31088025733743),
    (20000, 0.025, 2, 551.4258194453337),
    (20000, 0.025, 100, 476.487655056805),
    (20000, 0.01, 2, 583.7161388347772),
    (20000, 0.01, 100, 513.6785010179367),
]


def test_every_case_is_there() -> None:
    assert len(BOUNDARIES) == len(TIMES) * len(ALPHAS) * len(PRECISIONS)
    assert len(set(BOUNDARIES)) == len(BOUNDARIES)


@pytest.mark.parametrize(("v", "alpha", "rho", "boundary"), BOUNDARIES)
def test_the_mixture_crosses_where_ville_says(v: float, alpha: float, rho: float, boundary: float) -> None:
    """Killer: two-sided, or with the mixture's width in the place of its precision, no row would hold."""
    assert log_mixture(boundary / math.sqrt(v), v / rho) == pytest.approx(math.log(1 / alpha), rel=1e-9)


def test_the_difference_of_means_is_that_of_tea_tasting() -> None:
    arms = [Sums.of(y for arm, y, _ in samples() if arm == side) for side in (0, 1)]
    estimate, variance = difference([Stratum(*arms)])
    assert estimate == pytest.approx(1.2435833333333353, rel=1e-12)
    assert variance == pytest.approx(0.015358396139812018, rel=1e-9)


def test_the_adjusted_difference_is_that_of_tea_tasting() -> None:
    """Its θ is of the covariance about the mean of both arms as of one, ours about each arm's own.

    The two lie a hundredth of the standard error from one another.
    """
    arms = [Pairs.of((y, x) for arm, y, x in samples() if arm == side) for side in (0, 1)]
    estimate, variance = adjusted_difference([PairStratum(*arms)])
    assert estimate == pytest.approx(1.1754126329866255, rel=1e-3)
    assert variance == pytest.approx(0.007162738694794106, rel=1e-3)

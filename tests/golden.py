"""This file recomputes what two published packages say of the things that the judge computes, and prints it as JSON.

    python3.11 -m venv /tmp/peers && /tmp/peers/bin/pip install ville==0.1.0 tea-tasting==1.14.0
    /tmp/peers/bin/python tests/golden.py

They bring numpy, scipy and pyarrow with them (459 MB), too much for every setup, so `tests/unit/test_golden.py` has the
values. `samples` is what both sides are given; it needs the standard library alone.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

TIMES = (1.0, 30.0, 500.0, 20_000.0)  # intrinsic time, which is the judge's information
ALPHAS = (0.05, 0.025, 0.01)
PRECISIONS = (2.0, 100.0)  # of the mixture; the judge's is (3 effects)^-2


def samples() -> list[tuple[int, float, float]]:
    """Arm, value and covariate of units: uneven arms, one with more spread."""
    found = []
    for k in range(700):
        arm = int(k % 10 >= 6)
        x = (k * 7919 % 101) / 10
        found.append((arm, 2.0 + 0.4 * x + ((k * 104729 + 17 * arm) % 53) / (20 - 8 * arm) + 0.3 * arm, x))
    return found


def boundaries(ville: Any) -> list[list[float]]:
    """Time, alpha, precision, and where the one-sided normal mixture (Howard et al. 2021) crosses 1/alpha."""
    return [
        [v, alpha, rho, float(ville.normal_mixture(v, alpha, rho, one_sided=True))]
        for v in TIMES for alpha in ALPHAS for rho in PRECISIONS
    ]  # fmt: skip


def means(tea: Any, pyarrow: Any, distribution: Any) -> dict[str, list[float]]:
    """Estimate and variance of the difference of means, plain and adjusted by the covariate, from the intervals."""
    arm, y, x = (list(column) for column in zip(*samples(), strict=True))
    data = pyarrow.table({"variant": arm, "y": y, "x": x})
    found = {}
    for name, metric in (("mean", tea.Mean("y", use_t=False)), ("adjusted", tea.Mean("y", "x", use_t=False))):
        result = tea.Experiment(it=metric).analyze(data)["it"]
        width = result.effect_size_ci_upper - result.effect_size
        found[name] = [float(result.effect_size), float((width / distribution.norm.ppf(0.975)) ** 2)]
    return found


if __name__ == "__main__":
    peers = [importlib.import_module(name) for name in ("ville", "tea_tasting", "pyarrow", "scipy.stats")]
    print(json.dumps({"boundaries": boundaries(peers[0]), **means(*peers[1:])}, indent=1))

"""This file measures what the verdicts are worth: error rates, power and outcomes needed, beside what peers do.

The shipped formulas are written again for whole matrices of simulated tests, with a fixed seed; on a sample of the
same data the shipped engine must give the same verdict at the same look, and the share of those is a row of the table.
NumPy is no dependency: it gets an environment of its own below .cache. `--runs 400` is a quick look; `--only canaries`
plays one part.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from _peers import home

NUMPY = "numpy==2.4.6"


def main() -> None:
    """Become the bench in an interpreter that has NumPy."""
    python = str(home(NUMPY) / "bin" / "python")
    os.execv(python, [python, str(Path(__file__).with_name("_decisions.py")), *sys.argv[1:]])


if __name__ == "__main__":
    main()

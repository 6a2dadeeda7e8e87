"""This file draws curves, side by side in one picture, with matplotlib in an environment of its own.

A curve that is there for comparison is dashed: its name has that of a peer in it. The same curves are the same file.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from _peers import home

MATPLOTLIB = "matplotlib==3.11.2"
PEERS = ("DVC", "raw")
Curves = dict[str, list[tuple[int, float]]]  # by what is drawn: a size, and what was measured for it
Picture = tuple[str, str, str, Curves]  # its title, what is below, what stands left, the curves
DRAW = """
import json, sys
import matplotlib
matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "growth"
from matplotlib import pyplot
LOG = {"seconds", "ms"}
(told, peers), place = json.load(sys.stdin), sys.argv[1]
figure, axes = pyplot.subplots(1, len(told), figsize=(5 * len(told), 4.4), layout="constrained")
for axis, (title, below, left, curves) in zip(axes, told):
    for name, points in curves.items():
        style = "--" if any(peer in name for peer in peers) else "-"
        axis.plot(*zip(*points), marker="o", markersize=3, label=name, linestyle=style)
    axis.set(title=title, xlabel=below, ylabel=left, xscale="log", yscale="log" if left in LOG else "linear")
    axis.yaxis.set_major_formatter("{x:,g}")
    if left not in LOG:
        axis.set_ylim(bottom=0)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.grid(True, which="both", alpha=0.2)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)
figure.savefig(place, metadata={"Date": None, "Creator": None})
"""


def draw(pictures: Sequence[Picture], place: Path) -> None:
    """Draw them into one SVG, times on a logarithmic scale, and say where it is."""
    python = home(MATPLOTLIB) / "bin" / "python"
    subprocess.run([python, "-c", DRAW, place], input=json.dumps([pictures, PEERS]), text=True, check=True)
    print(f"drawn: {place}")

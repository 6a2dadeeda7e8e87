"""This file draws what looking again and again does to a plain z test, and does not do to the shipped engine.

Both see the same seeded tests of two arms that are alike (10 % of ones in each), and look after every 100 outcomes.
What is drawn goes to `docs/peeking.svg`, legible on light and dark pages; nothing but Python is needed.
Run: python bench/peeking.py
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from branchline.core.evidence import Answer, Plan, Stratum, Sums, judge
from branchline.core.planning import proportion

ROOT = Path(__file__).resolve().parents[1]
RATE, EVERY, MOST, SEED = 0.10, 100, 20_000, 7
FIRST_DRAWN = 1000  # before that the intervals are wider than the picture
PLAN = Plan(mde=0.01)
WIDTH, HEIGHT, TOP, BOTTOM, WIDE = 980, 400, 62, 330, 390
LEFTS = (64, 564)
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px } .small { font-size: 12px } .page { fill: #ffffff }
.axis { stroke: #8c959f; fill: none } .grid { stroke: #d0d7de; fill: none; stroke-width: 0.7 }
.naive { stroke: #c4432b; fill: none; stroke-width: 2 } .ours { stroke: #0a69c7; fill: none; stroke-width: 2 }
.band-naive { fill: #c4432b; opacity: 0.20 } .band-ours { fill: #0a69c7; opacity: 0.16 }
.dot-naive { fill: #c4432b } .dot-ours { fill: #0a69c7 } .middle { stroke: #57606a; fill: none; stroke-width: 1.2 }
.says-naive { fill: #b13a24 } .says-ours { fill: #0a5cad }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .page { fill: #0d1117 } .axis { stroke: #7d8590 } .grid { stroke: #30363d }
  .naive { stroke: #ff8a70 } .ours { stroke: #6cb6ff } .dot-naive { fill: #ff8a70 } .dot-ours { fill: #6cb6ff }
  .band-naive { fill: #ff8a70 } .band-ours { fill: #6cb6ff } .middle { stroke: #9ea7b3 }
  .says-naive { fill: #ff9d87 } .says-ours { fill: #83c0ff }
}
"""
Point = tuple[float, float]


@dataclass
class Look:
    """One look: outcomes so far, the difference, half the width of both intervals, and what ours says."""

    outcomes: int
    difference: float
    naive: float
    ours: float | None
    answer: Answer

    @property
    def fooled(self) -> bool:
        """Whether the plain z test claims a difference at 95 %."""
        return abs(self.difference) > self.naive > 0


def looks(chance: random.Random) -> Iterator[Look]:
    """One test of two arms that are alike."""
    ones, half = [0, 0], EVERY // 2
    for number in range(1, MOST // EVERY + 1):
        for arm in (0, 1):
            ones[arm] += sum(chance.random() < RATE for _ in range(half))
        n = number * half
        rate = sum(ones) / (2 * n)
        judged = judge([Stratum(Sums(n, ones[0], ones[0]), Sums(n, ones[1], ones[1]))], PLAN)
        width = 1.96 * math.sqrt(rate * (1 - rate) * 2 / n)
        yield Look(2 * n, (ones[1] - ones[0]) / n, width, judged.half_width, judged.answer)


@dataclass
class Played:
    """Many tests: at how many outcomes each rule first claimed a difference, and one test that shows it best."""

    naive: list[int]
    ours: list[int]
    shown: list[Look]
    tests: int


def play(tests: int, seed: int) -> Played:
    """Play them all; of those that fooled the z test alone, one that did so near 6,000 outcomes is shown."""
    chance, found = random.Random(seed), Played([], [], [], tests)
    farthest = math.inf
    for _ in range(tests):
        test = list(looks(chance))
        fooled = next((look.outcomes for look in test if look.fooled), 0)
        ended = next((look for look in test if look.answer is not Answer.CONTINUE), None)
        claims = ended is not None and ended.answer in (Answer.PROMOTE, Answer.HARMFUL)
        if fooled:
            found.naive.append(fooled)
        if ended is not None and claims:
            found.ours.append(ended.outcomes)
        if fooled and ended and not claims and fooled < ended.outcomes < MOST * 0.8 and abs(fooled - 6000) < farthest:
            farthest, found.shown = abs(fooled - 6000), test
    return found


# ------------------------------------------------------------------------------------------------ drawing


def line(points: Sequence[Point], kind: str) -> str:
    """A line through points."""
    return f'<path class="{kind}" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{words}</text>'


def frame(left: int, title: str, marks: Sequence[tuple[float, str]]) -> list[str]:
    """A panel's title, its grid with the words beside it, and the outcomes below."""
    found = [text(left, TOP - 24, title, "title")]
    for y, words in marks:
        found += [line([(left, y), (left + WIDE, y)], "grid"), text(left - 8, y + 4, words, "small", "end")]
    for outcomes in range(0, MOST + 1, 5000):
        found.append(text(across(left, outcomes), BOTTOM + 20, f"{outcomes:,}", "small", "middle"))
    found.append(text(left + WIDE / 2, BOTTOM + 40, "outcomes of both arms", "small", "middle"))
    return [*found, line([(left, TOP), (left, BOTTOM), (left + WIDE, BOTTOM)], "axis")]


def across(left: int, outcomes: float) -> float:
    """Where so many outcomes are."""
    return left + WIDE * outcomes / MOST


def one_test(test: Sequence[Look]) -> list[str]:
    """The difference in one test, both intervals around it, and where each rule ends."""
    left, most = LEFTS[0], 0.04

    def up(value: float) -> float:
        return (TOP + BOTTOM) / 2 - max(-most, min(most, value)) / most * (BOTTOM - TOP) / 2

    marks = [(up(value / 100), f"{value:+d}" if value else "0") for value in (-4, -2, 0, 2, 4)]
    found = frame(left, "One test, both arms alike: difference, in points", marks)
    end = next(place for place, look in enumerate(test) if look.answer is not Answer.CONTINUE)
    for kind, upto in (("ours", test[: end + 1]), ("naive", test)):
        widths = [(look, getattr(look, kind)) for look in upto if look.outcomes >= FIRST_DRAWN]
        high = [(across(left, look.outcomes), up(look.difference + width)) for look, width in widths]
        low = [(across(left, look.outcomes), up(look.difference - width)) for look, width in widths]
        found += [line([*high, *reversed(low)], f"band-{kind}"), line(high, kind), line(low, kind)]
    middle = [(across(left, look.outcomes), up(look.difference)) for look in test if look.outcomes >= FIRST_DRAWN]
    found.append(line(middle, "middle"))
    fooled, ended = next(look for look in test if look.fooled), test[end]
    spots = (
        ("naive", fooled, f"z test: “differs”, {fooled.outcomes:,} – wrong", BOTTOM - 34),
        ("ours", ended, f"ours: “no such effect”, {ended.outcomes:,} – right", BOTTOM - 12),
    )
    for kind, look, words, y in spots:
        x = across(left, look.outcomes)
        found += [line([(x, y - 12), (x, up(look.difference))], kind)]
        found.append(f'<circle class="dot-{kind}" cx="{x:.1f}" cy="{up(look.difference):.1f}" r="4.5"/>')
        anchor = "start" if x < left + WIDE / 2 else "end"
        found.append(text(x + (6 if anchor == "start" else -6), y, words, f"says-{kind}", anchor))
    return found


def all_tests(played: Played) -> list[str]:
    """The part of all tests in which each rule has claimed a difference, by outcomes."""
    left, most = LEFTS[1], 0.6

    def up(part: float) -> float:
        return BOTTOM - part / most * (BOTTOM - TOP)

    marks = [(up(part / 100), f"{part} %") for part in (0, 5, 20, 40, 60)]
    found = frame(left, f"{played.tests:,} such tests: who claimed a difference?", marks)
    for kind, claims in (("naive", played.naive), ("ours", played.ours)):
        points = [(0.0, 0.0)]
        for outcomes in range(EVERY, MOST + 1, EVERY):
            points.append((outcomes, sum(each <= outcomes for each in claims) / played.tests))
        found.append(line([(across(left, outcomes), up(part)) for outcomes, part in points], kind))
        low, high = proportion(len(claims), played.tests)
        part = len(claims) / played.tests
        words = f"{'z test at 95 %' if kind == 'naive' else 'ours'}: {part:.1%} [{low:.1%}, {high:.1%}]"
        found.append(text(left + WIDE - 4, up(part) - 9, words, f"says-{kind}", "end"))
    return found


def picture(played: Played) -> str:
    """The whole page."""
    said = "A plain z test that is looked at again and again claims differences that are not there; ours seldom does."
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">',
        f"<title>{said}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        *one_test(played.shown),
        *all_tests(played),
        text(
            WIDTH - 20,
            HEIGHT - 8,
            f"python bench/peeking.py, seed {SEED}; a look after every 100 outcomes",
            "small",
            "end",
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Play, print and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "peeking.svg")
    chosen = parser.parse_args()
    played = play(chosen.tests, SEED)
    for name, claims in (("z test, looked at", played.naive), ("ours", played.ours)):
        low, high = proportion(len(claims), played.tests)
        print(f"{name}: {len(claims)} of {played.tests} claim what is not there [{low:.1%}, {high:.1%}]")
    chosen.plot.write_text(picture(played), encoding="utf-8")
    print(f"drawn: {chosen.plot}")


if __name__ == "__main__":
    main()

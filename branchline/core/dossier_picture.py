"""This file draws: the confidence sequence of a dossier up to its verdict, and the evidence of a guardrail, as SVG.

Rules. No script, no font, no address: colours are the page's variables, so that they follow light and dark. A picture
is drawn once for a desk and once for a phone, for text that is scaled down cannot be read. Numbers are cut to a tenth
of a point; the same document gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from branchline.core.dossier import guards_of
from branchline.core.dossier_words import CAUSES, brief, number, signed

Document = Mapping[str, Any]
Point = tuple[float, float]
MOST = 240
LINE = 14.0  # between two labels


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture's size, its margins, and what its edges mean."""

    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 52.0
    right: float = 62.0
    top: float = 30.0
    bottom: float = 44.0

    def at(self, x: float, y: float) -> Point:
        """Where a point is drawn; what is beyond an edge is drawn beyond it, and cut off."""
        return self.across(x), self.up(y)

    def across(self, x: float) -> float:
        """How far to the right."""
        wide = self.x[1] - self.x[0] or 1.0
        return self.left + (x - self.x[0]) / wide * (self.width - self.left - self.right)

    def up(self, y: float) -> float:
        """How far down."""
        part = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.height - self.bottom - min(max(part, -3.0), 4.0) * (self.height - self.top - self.bottom)


def sequence(measured: Document, what: str, width: float, height: float, name: str) -> str:
    """The estimate and its interval after each outcome, until the verdict; '' where there is no interval yet.

    `what` is the metric, `name` tells the picture from others of the page.
    """
    points = [each for each in measured["series"] if each["low"] is not None]
    if len(points) < 2:
        return ""
    points = (
        [points[round(at * (len(points) - 1) / (MOST - 1))] for at in range(MOST)] if len(points) > MOST else points
    )
    moments, timed = along(points)
    wanted = (measured["plan"]["mde"] - measured["plan"]["margin"]) * (1 if better_up(measured) else -1)
    asked = "let pass" if measured["plan"]["margin"] else "asked for"
    frame = Frame(width, height, (moments[0], moments[-1]), span(points, wanted))
    early = sum(not each["judged"] for each in points)
    middle = [(x, p["estimate"]) for x, p in zip(moments, points, strict=True)]
    last = points[-1]
    lines = [
        *grid(frame, ticks(*frame.y)),
        f'<g clip-path="url(#{name})">',
        *band(frame, moments[: early + 1], points[: early + 1], "early"),
        *band(frame, moments[early:], points[early:], "sure"),
        f'<polyline class="middle" points="{path(frame, middle)}"/>',
        "</g>",
        *level(frame, 0.0, "no difference", "zero", below=wanted > 0),
        *level(
            frame,
            wanted,
            f"{asked}: {signed(wanted)}",
            "wanted",
            below=wanted < 0,
        ),
        *beneath(frame, moments, points, timed),
        *ending(frame, measured, moments[-1], last),
    ]
    title = f"{what}: challenger − incumbent, with the interval that holds at every look"
    return svg(frame, name, title, lines)


def band(frame: Frame, moments: Sequence[float], points: Sequence[Document], kind: str) -> Iterator[str]:
    """What was not ruled out, between its edges; nothing of less than two points."""
    if len(points) < 2:
        return
    above, below = ([(x, p[end]) for x, p in zip(moments, points, strict=True)] for end in ("high", "low"))
    yield f'<polygon class="band {kind}" points="{path(frame, [*above, *below[::-1]])}"/>'
    yield from (f'<polyline class="edge {kind}" points="{path(frame, edge)}"/>' for edge in (above, below))


def better_up(measured: Document) -> bool:
    """Whether a larger difference is the better one."""
    return bool(measured["plan"]["direction"] == "higher")


def along(points: Sequence[Document]) -> tuple[list[float], bool]:
    """Where each point stands from left to right: by its moment; by its outcomes where all came at once."""
    moments = [datetime.fromisoformat(each["at"]).timestamp() for each in points]
    if moments[-1] > moments[0]:
        return [max(each - moments[0], 0.0) for each in moments], True
    return [float(sum(each["units"])) for each in points], False


def span(points: Sequence[Document], wanted: float) -> tuple[float, float]:
    """The lowest and highest that is shown: what came late decides, for the first intervals are as wide as can be."""
    late = points[len(points) // 4 :]
    low = min(0.0, wanted, *(each["low"] for each in late))
    high = max(0.0, wanted, *(each["high"] for each in late))
    last = points[-1]["high"] - points[-1]["low"]
    low, high = max(low, points[-1]["low"] - 1.5 * last), min(high, points[-1]["high"] + 1.5 * last)
    low, high = min(low, 0.0, wanted), max(high, 0.0, wanted)
    air = 0.08 * (high - low or 1.0)
    return low - air, high + air


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two, few enough to read."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step = next(step * by for by in (1, 2, 5, 10) if (high - low) / (step * by) <= most)
    return [each * step for each in range(math.ceil(low / step), math.floor(high / step) + 1)]


def path(frame: Frame, points: Sequence[Point]) -> str:
    """Points as SVG has them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in (frame.at(*each) for each in points))


def grid(frame: Frame, values: Sequence[float]) -> Iterator[str]:
    """Lines across, and what they mean."""
    for each in values:
        y, right = frame.up(each), frame.width - frame.right
        yield f'<line class="grid" x1="{frame.left:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{frame.left - 8:g}" y="{y + 4:.1f}" text-anchor="end">{signed(each)}</text>'


def level(frame: Frame, value: float, said: str, kind: str, below: bool = False) -> Iterator[str]:
    """A line across that means something, with its words on it, or below it."""
    y, right = frame.up(value), frame.width - frame.right
    yield f'<line class="{kind}" x1="{frame.left:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
    if said:
        y += 14 if below else -5
        yield f'<text class="said {kind}" x="{right - 8:g}" y="{y:.1f}" text-anchor="end">{escape(said)}</text>'


def beneath(frame: Frame, moments: Sequence[float], points: Sequence[Document], timed: bool) -> Iterator[str]:
    """What is written below: how long it had taken, and how many outcomes there were."""
    parts = 4 if frame.width > 500 else 2
    for part in range(parts + 1):
        wanted = moments[0] + part / parts * (moments[-1] - moments[0])
        place = max(range(len(moments)), key=lambda each: (-abs(moments[each] - wanted), each))
        x, units = frame.across(wanted), sum(points[place]["units"])
        y = frame.height - frame.bottom
        anchor = "start" if not part else "end" if part == parts else "middle"
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{y:g}" y2="{y + 4:g}"/>'
        above = brief(wanted) if timed else ""
        for row, said in enumerate(filter(None, (above, f"n {units:,}"))):
            yield f'<text class="tick" x="{x:.1f}" y="{y + 18 + row * LINE:g}" text-anchor="{anchor}">{said}</text>'


def ending(frame: Frame, measured: Document, x: float, last: Document) -> Iterator[str]:
    """The verdict's line, and at it the interval in numbers."""
    across, bottom = frame.across(x), frame.height - frame.bottom
    said = CAUSES[measured["answer"]["cause"]]
    yield f'<line class="verdict" x1="{across:.1f}" x2="{across:.1f}" y1="{frame.top - 8:g}" y2="{bottom:g}"/>'
    yield f'<text class="said verdict" x="{across:.1f}" y="{frame.top - 14:g}" text-anchor="end">{said}</text>'
    yield f'<circle class="dot" cx="{across:.1f}" cy="{frame.up(last["estimate"]):.1f}" r="4.5"/>'
    values = [last["high"], last["estimate"], last["low"]]
    places = apart([frame.up(each) + 4 for each in values])
    for each, y, kind in zip(values, places, ("side", "main", "side"), strict=True):
        if kind == "main" or last["judged"]:
            yield f'<text class="value {kind}" x="{across + 9:.1f}" y="{y:.1f}">{signed(each)}</text>'


def apart(places: Sequence[float]) -> list[float]:
    """Labels from top to bottom, moved off one another around the middle one."""
    top, middle, bottom = places
    return [min(top, middle - LINE), middle, max(bottom, middle + LINE)]


def guard_picture(written: Document, splits: Mapping[str, Sequence[float]], name: str) -> str:
    """The evidence of a guardrail over the requests, to its bar; drawn by powers of ten. '' without a bad one."""
    if not written["bads"] and not written.get("looks"):
        return ""
    steps = [(0.0, 0.0)]
    for found in guards_of(written, splits):
        steps += [(found.buckets, steps[-1][1]), (found.buckets, math.log10(max(found.evidence, 0.1)))]
    steps.append((written["buckets"], steps[-1][1]))
    bar = math.log10(1 / written["rule"]["alpha"])
    frame = Frame(360, 132, (0, steps[-1][0]), (min(-0.2, *(y for _, y in steps)), max(bar, steps[-1][1]) * 1.08),
                  left=10, right=10, top=18, bottom=22)  # fmt: skip
    right, y = frame.width - frame.right, frame.up(bar)
    lines = [
        *level(frame, 0.0, "", "grid"),
        f'<line class="wanted bar" x1="{frame.left:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>',
        f'<text class="said" x="{frame.left:g}" y="{y - 5:.1f}">rolled back at {number(10**bar)}</text>',
        f'<polyline class="middle" points="{path(frame, steps)}"/>',
        f'<text class="tick" x="{frame.left:g}" y="{frame.height - 6:g}">evidence of harm</text>',
        f'<text class="tick" x="{right:g}" y="{frame.height - 6:g}" text-anchor="end">after '
        f"{written['buckets']:,} looks</text>",
    ]
    return svg(frame, name, "evidence of harm after each request, by powers of ten", lines)


def svg(frame: Frame, name: str, title: str, lines: Sequence[str]) -> str:
    """A picture with its title, for who cannot see it."""
    wide, high = frame.width - frame.left - frame.right, frame.height - frame.top - frame.bottom
    return "\n".join([
        f'<svg viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f'<clipPath id="{name}">',
        f'<rect x="{frame.left:g}" y="{frame.top:g}" width="{wide:g}" height="{high:g}"/>',
        "</clipPath>",
        *lines,
        "</svg>",
    ])  # fmt: skip

"""This file fakes the Observations port in memory, the plain way: everything is counted anew from what was kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from branchline.core import metrics
from branchline.core.outcome_query import CLOCKS
from branchline.core.spec import Metric
from branchline.errors import DiskFull, OutcomeRefused
from branchline.ports import Exposed, Outcome, Receipt, Request, Seen, Served, Tally

Said = tuple[float, float, float | None, str]  # at, value, the second number, the metric that is only watched
TOGETHER: Mapping[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "sum": sum, "first": min}


@dataclass
class InTest:
    """A unit in an experiment."""

    order: int
    first: Served
    prediction: float | None
    crossed: float | None = None  # when it was first seen in another arm, or when that could be known
    struck: bool = False
    outcomes: list[Said] = field(default_factory=list)
    late: int = 0
    handed: float = 0.0  # until when it was looked at last


class FakeObservations:
    """The Observations port; `full` makes every report fail as a full disk does."""

    def __init__(self) -> None:
        self.full = False
        self.lines: list[Served] = []
        self._position = ""
        self._exposed: dict[tuple[str, str, str], InTest] = {}
        self._latest: dict[tuple[str, str], InTest] = {}
        self._tallies: list[tuple[Served, Tally]] = []
        self._reported: dict[tuple[str, str], tuple[float, float | None]] = {}
        self._words: Counter[tuple[str, str, str]] = Counter()

    def position(self) -> str:
        """Where the reader stands."""
        return self._position

    def take(self, served: Iterable[Served], position: str) -> int:
        """Keep requests and the position."""
        lines = list(served)
        for line in lines:
            key = (line.service, line.experiment, unit_of(line))
            if key not in self._exposed:
                self._exposed[key] = InTest(len(self._exposed) + 1, line, None)
                self._latest[line.service, unit_of(line)] = self._exposed[key]
            known = self._exposed[key]
            self.lines.append(line)
            if not known.struck:
                tally = Tally(
                    len(self.lines), line.assigned, line.table, line.bad, line.at, unit_of(line), line.seconds
                )
                self._tallies.append((line, tally))
            known.struck |= line.bad
            if known.crossed is None and line.assigned != known.first.assigned:
                known.crossed = max(line.at, math.nextafter(known.handed, math.inf))
            if known.prediction is None and line.assigned == known.first.assigned:
                known.prediction = line.prediction
        self._position = position
        return len(lines)

    def report(
        self, outcomes: Sequence[Outcome], by_service: Mapping[str, Metric], *, at: float,
        running: Mapping[str, Mapping[str, Metric]] | None = None, again: bool = False,
    ) -> tuple[Receipt, ...]:  # fmt: skip
        """Keep outcomes; a receipt for each."""
        if self.full:
            raise DiskFull(what="the outcomes")
        runs, before = running or {}, self._words.copy()
        found = [self._report(each, by_service.get(each.service), at, runs.get(each.service)) for each in outcomes]
        for key in [key for key in self._words if again and key[2] == "unknown"]:
            self._words[key] = before[key]
        return tuple(found)

    def _report(self, each: Outcome, metric: Metric | None, at: float, running: Mapping[str, Metric] | None) -> Receipt:
        stranger = Receipt("unknown", "no request of it was in the test")
        if metric is None:
            return stranger
        found, prediction = self._about(each)
        if found is None:
            if running is not None and not running:
                return Receipt("unmeasured", f"nothing of {each.service} is under test")
            self._words[each.service, "", "unknown"] += 1
            return stranger
        about = f"request {each.request}" if each.request else f"unit {found.order}"
        key = (each.service, repr((unit_of(found.first), each.id)) if each.id else about)
        experiment = found.first.experiment
        primary = (running or {}).get(experiment, metric)
        if each.happened is not None and each.happened < found.first.at - CLOCKS:
            return stranger
        found_metric = primary.called(each.metric)
        if found_metric is None:
            return Receipt("unmeasured", f"{primary.name} is measured, not {each.metric}")
        metric, watched = found_metric, "" if found_metric is primary else found_metric.name
        key = (key[0], f"{watched} {key[1]}")
        try:
            reported = metrics.number(each.value), metrics.second(metric, each.of, each.before)
            if key in self._reported:
                if self._reported[key] == reported:
                    return Receipt("duplicate")
                self._words[each.service, experiment, "conflict"] += 1
                return Receipt("conflict", f"{metrics.told(*self._reported[key])} was said before")
            moment = at if each.happened is None else each.happened
            value = metrics.value(metric, prediction, reported[0], moment - found.first.at)
        except OutcomeRefused as error:
            self._words[each.service, experiment, "refused"] += 1
            return Receipt("refused", str(error.fields["reason"]))
        self._reported[key] = reported
        ended = running is not None and experiment not in running
        if (
            ended
            or max(at, each.happened or 0.0, math.nextafter(found.handed, math.inf)) > found.first.at + metric.window
        ):
            found.late += not watched
            return Receipt("late", "its test has ended" if ended else f"its window of {metric.window:g} s is over")
        found.outcomes.append((at, value, reported[1], watched))
        return Receipt("kept")

    def _about(self, each: Outcome) -> tuple[InTest | None, float | None]:
        if each.request:
            lines = [line for line in self.lines if (line.service, line.request) == (each.service, each.request)]
            if not lines or (each.unit and unit_of(lines[-1]) != each.unit):
                return None, None
            last = lines[-1]
            return self._exposed[last.service, last.experiment, unit_of(last)], last.prediction
        mine = self._latest.get((each.service, each.unit))
        return (mine, mine.prediction) if mine else (None, None)

    def matured(
        self, service: str, experiment: str, *, after: int, until: float, window: float, pooled: str = "mean",
        metric: str = "",
    ) -> tuple[Seen, ...]:  # fmt: skip
        """Units whose window closed."""
        seen: list[Seen] = []
        for unit, each in self._of(service, experiment):
            if each.order <= after:
                continue
            if each.first.at + window > until:
                break
            said = [one for one in each.outcomes if one[0] <= each.first.at + window and one[3] == metric]
            told = [(value, other) for _, value, other, _ in said]
            if each.crossed is None or each.crossed > each.first.at + window:
                each.handed = max(each.handed, until)
                together = TOGETHER[pooled]
                value = together([value for value, _ in told]) if told else None
                others = [other for _, other in told if other is not None]
                other = together(others) if others else None
                first = each.first
                seen.append(Seen(each.order, unit, first.assigned, first.table, value, first.at, other))
        return tuple(seen)

    def requests(self, service: str, experiment: str, *, after: int) -> tuple[Tally, ...]:
        """Requests that the guardrail counts."""
        return tuple(
            tally
            for line, tally in self._tallies
            if (line.service, line.experiment) == (service, experiment) and tally.order > after
        )

    def request(self, service: str, request: str) -> Request | None:
        """The newest request with this id."""
        for line in reversed(self.lines):
            if (line.service, line.request) == (service, request):
                return Request(service, unit_of(line), request, line.assigned, line.bad, line.at)
        return None

    def exposed(self, service: str) -> tuple[Exposed, ...]:
        """What every experiment has exposed."""
        found: dict[tuple[str, int, str], list[float]] = {}
        for (of, _, _), each in self._exposed.items():
            if of == service:
                first = each.first
                found.setdefault((first.experiment, first.table, first.assigned), []).append(first.at)
        return tuple(Exposed(*key, len(times), min(times), max(times)) for key, times in found.items())

    def counts(self, service: str, experiment: str, *, until: float = math.inf) -> Mapping[str, Mapping[str, int]]:
        """What was counted, per arm."""
        kinds = ("units", "requests", "bad", "stepped_in", "outcomes", "late")
        found: dict[str, Counter[str]] = {}
        for line in self.lines:
            if (line.service, line.experiment) == (service, experiment):
                arm = found.setdefault(line.assigned, Counter(dict.fromkeys(kinds, 0)))
                arm["requests"] += line.at <= until
                arm["bad"] += line.bad and line.at <= until
                arm["stepped_in"] += line.answered != line.assigned
        whole = Counter(both=0)
        for _, each in self._of(service, experiment):
            arm = found[each.first.assigned]
            arm["units"] += each.first.at <= until
            arm["outcomes"] += any(not watched for *_, watched in each.outcomes)
            arm["late"] += each.late
            whole["both"] += each.crossed is not None and each.crossed <= until
        words = {word: self._words[service, experiment, word] for word in ("refused", "conflict")}
        whole.update(words | {"unknown": self._words[service, "", "unknown"]})
        full = {arm: {kind: counted[kind] for kind in kinds} for arm, counted in found.items()}
        return {"": {kind: whole[kind] for kind in ("both", "refused", "conflict", "unknown")}} | full

    def _of(self, service: str, experiment: str) -> list[tuple[str, InTest]]:
        return [(unit, x) for (one, other, unit), x in self._exposed.items() if (one, other) == (service, experiment)]


def unit_of(line: Served) -> str:
    """The unit of a request: without one it is a unit of its own."""
    return line.unit or line.request

"""This file says what a gate's numbers mean: pass, fail or inconclusive, each with one line that names the numbers.

A gate that ran nothing fails, a limit that cannot be compared is inconclusive, and nothing here runs anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from branchline.core import schema as schemas
from branchline.core.names import counted
from branchline.core.profile import Profile, changes, faults
from branchline.core.revision import GateResult, Result
from branchline.core.spec import Gate, Metric, Source

NO_LOG = (
    "there is no EXPERIMENT.md: branchline start writes it; by hand it says Hypothesis, Metric and Log, a heading each"
)


def compared(gate: Gate, own: float | None, other: float | None, whose: str = "incumbent") -> GateResult:
    """Judge one number of a step's result against its limits and against the incumbent's (3.14), or a benchmark's.

    `max_worse` is in the number's own unit; `direction` says whether lower or higher is better.
    """
    if own is None or not math.isfinite(own):
        return GateResult(gate.name, Result.FAIL, f"no finite number {gate.value} came out of the steps")
    numbers = [("value", own)]
    words = [f"{gate.value} {own:.4g}"]
    failed = []
    if gate.max is not None and own > gate.max:
        failed.append(f"> max {gate.max:g}")
    if gate.min is not None and own < gate.min:
        failed.append(f"< min {gate.min:g}")
    if other is not None:
        numbers.append((whose, other))
        sign = "+" if gate.direction == "lower" else "-"
        limit = f", limit {sign}{gate.max_worse:g}" if gate.max_worse is not None else ""
        words.append(f"({whose} {other:.4g}{limit})")
        worse = own - other if gate.direction == "lower" else other - own
        if gate.max_worse is not None and worse > gate.max_worse:
            failed.append(f"{worse:.3g} worse than the {whose}")
    elif gate.max_worse is not None and gate.max is None and gate.min is None:
        words.append("(nothing to compare with: the first revision)")
    result = Result.FAIL if failed else Result.PASS
    return GateResult(gate.name, result, " ".join(words + failed), tuple(numbers))


def loaded(gate: Gate, measured: Mapping[str, float]) -> GateResult:
    """Judge a load test: `measured` has sent, failed, p50_ms, p99_ms, rps (1.17h)."""
    sent, failed, p99 = measured.get("sent", 0), measured.get("failed", 0), measured.get("p99_ms", math.inf)
    numbers = tuple(sorted((name, float(value)) for name, value in measured.items()))
    if sent < 1:
        return GateResult(gate.name, Result.FAIL, "it sent nothing", numbers)
    words = f"p99 {p99:.0f} ms at {gate.rps:g} rps, {failed:g} of {sent:g} failed"
    if failed > gate.max_failed:
        return GateResult(gate.name, Result.FAIL, words, numbers)
    if gate.p99_ms and p99 > gate.p99_ms:
        return GateResult(gate.name, Result.FAIL, f"{words} > {gate.p99_ms:g} ms", numbers)
    return GateResult(gate.name, Result.PASS, words, numbers)


def answered(gate: Gate, answer: object) -> GateResult:
    """Judge what a gate function returned: a bool, or a mapping with `ok` and numbers; None checked nothing and
    fails.
    """
    if isinstance(answer, bool):
        return GateResult(gate.name, Result.PASS if answer else Result.FAIL, "passed" if answer else "it said no")
    if isinstance(answer, Mapping) and "ok" in answer:
        verdict = answer["ok"]
        result = Result.INCONCLUSIVE if verdict is None else Result.PASS if verdict else Result.FAIL
        plain = {k: v for k, v in answer.items() if k not in ("ok", "summary")}
        numbers = tuple(
            sorted((k, float(v)) for k, v in plain.items() if isinstance(v, int | float) and math.isfinite(v))
        )
        summary = str(answer.get("summary") or ", ".join(f"{k} {v:g}" for k, v in numbers) or result.value)
        return GateResult(gate.name, result, summary, numbers)
    return GateResult(
        gate.name, Result.FAIL, f"it returned {answer!r}, which says neither yes nor no: it checked nothing"
    )


def tested(gate: Gate, counts: Mapping[str, int], exit_code: int) -> GateResult:
    """Judge a pytest run by its counts (tests, failures, errors, skipped); pytest's 5, nothing ran, is a failure."""
    ran = counts.get("tests", 0) - counts.get("skipped", 0)
    bad = counts.get("failures", 0) + counts.get("errors", 0)
    numbers = tuple(sorted((name, float(value)) for name, value in counts.items()))
    if ran < 1:
        return GateResult(gate.name, Result.FAIL, "it ran no test", numbers)
    if bad or exit_code:
        return GateResult(
            gate.name, Result.FAIL, f"{bad} of {ran} tests failed" if bad else f"pytest exit {exit_code}", numbers
        )
    return GateResult(gate.name, Result.PASS, f"{counted(ran, 'test')} passed", numbers)


def compatible(schema: str, incumbent: str, major: int, path: str) -> GateResult:
    """The built-in gate `schema`: whoever called the incumbent can call this.

    What breaks callers is a new major, and is told how to become one; `path` is the service file.
    """
    found = schemas.changes(incumbent, schema)
    broken = [str(each) for each in found if each.breaking]
    numbers = (("breaking", float(len(broken))), ("compatible", float(len(found) - len(broken))))
    if broken:
        text = f"{'; '.join(broken)}: a new major, so set major = {major + 1} in {path}"
        return GateResult("schema", Result.FAIL, text, numbers)
    text = "; ".join(str(each) for each in found) or "as the incumbent's"
    return GateResult("schema", Result.PASS, text, numbers)


def planned(metric: Metric | None, sigma: float | None) -> GateResult:
    """The built-in gate `test-plan`: an A/B test needs a metric with a smallest worthwhile effect."""
    if metric is None:
        return GateResult("test-plan", Result.FAIL, "no metric is declared: there is nothing to judge by")
    effect = metric.mde or metric.margin or 0.0
    if effect <= 0:
        text = (
            f"metric {metric.name} has no mde: say which effect is worth a change, or by margin how much worse may be"
        )
        return GateResult("test-plan", Result.FAIL, text)
    if metric.window <= 0:
        return GateResult("test-plan", Result.FAIL, f"metric {metric.name} has no window in which an outcome counts")
    if sigma is not None:
        units = 4 * (3.24 / effect) ** 2 * sigma**2
        text = f"about {units:.0f} units for {'a margin' if metric.margin else 'an effect'} of {effect:g}"
        return GateResult("test-plan", Result.PASS, text, (("units", units),))
    asked = "margin" if metric.margin else "effect"
    return GateResult("test-plan", Result.PASS, f"{metric.name}, {asked} {effect:g}, window {metric.window:g} s")


def logged(text: str | None) -> GateResult:
    """The built-in gate `log`: an experiment has a written hypothesis, a metric and a log (1.14, 1.27)."""
    if text is None:
        return GateResult("log", Result.FAIL, NO_LOG)
    lines = text.splitlines()
    sections = {line.lstrip("# ").strip().lower(): i for i, line in enumerate(lines) if line.startswith("#")}
    missing = [name for name in ("hypothesis", "metric", "log") if not _filled(name, sections, lines)]
    if missing:
        return GateResult("log", Result.FAIL, "EXPERIMENT.md says nothing under: " + ", ".join(missing))
    return GateResult("log", Result.PASS, "hypothesis, metric and log are written")


def data(source: Source, own: Profile, before: Profile | None, why: str = "") -> GateResult:
    """The built-in gate `data SOURCE`: the version says as much as the one `before`, which the incumbent was made of
    (3.03, F47). `why` there is none to be compared with is said.
    """
    name, known, broken = f"data {source.name}", own.columns, faults(own, before, source.key)
    numbers = [("rows", float(own.rows)), ("columns", float(len(known)))] if own.tables else []
    numbers += [("rows before", float(before.rows))] if before else []
    numbers += [("duplicates", float(own.duplicates))] if own.duplicates is not None else []
    if broken:
        return GateResult(name, Result.FAIL, "; ".join(broken), tuple(numbers))
    words = [f"{counted(own.rows, 'row')}, {counted(len(known), 'column')}"] if own.tables else []
    if own.unread:
        words.append(f"rows and columns of {counted(len(own.unread), 'file')} are not known")
    if before and own.tables:
        words.append(f"{own.rows - before.rows:+,} rows")
        words += changes(known, before.columns)
    words += [why] if why else []
    return GateResult(name, Result.PASS, "; ".join(words), tuple(numbers))


def _filled(name: str, sections: Mapping[str, int], lines: list[str]) -> bool:
    if name not in sections:
        return False
    after = lines[sections[name] + 1 :]
    body = []
    for line in after:
        if line.startswith("#"):
            break
        body.append(line)
    return any(line.strip() and not line.strip().startswith("<!--") for line in body)

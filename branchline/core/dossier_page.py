"""This file writes a dossier as one page of HTML that needs nothing else: no network, no script, no font.

Rules. What is said first is the verdict, in one sentence. A number stands with its interval and its count. The page
holds its document, so that the page alone can be checked; whatever somebody wrote is escaped. Light and dark follow the
reader's settings, and a phone is as good as a desk. The same document gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from branchline.core import dossier, names
from branchline.core.boundary import upper_quantile
from branchline.core.dossier_picture import guard_picture, sequence
from branchline.core.dossier_style import framed
from branchline.core.dossier_words import EVENTS, lasted, number, per_cent, person, signed
from branchline.core.planning import proportion

Document = Mapping[str, Any]
BADGES = {"Won": ("won", "good"), "Lost": ("incumbent stays", "calm"), "Undecided": ("undecided", "open"),
          "Breached": ("taken out", "bad"), "Aborted": ("taken out by hand", "open"),
          "Withdrew": ("given up", "open"), "Overrode": ("decided by a person", "open")}  # fmt: skip
DONE = {"Won": "good", "GatesPassed": "good", "Recorded": "good", "Breached": "bad", "GatesFailed": "bad",
        "BuildFailed": "bad", "Refused": "bad", "Lost": "calm", "Undecided": "open"}  # fmt: skip
HASHES = ("commit", "tree", "environment", "sdk", "trained")


def page(document: Document) -> str:
    """The whole page."""
    text = dossier.text(document)
    document, held = dossier.read(text), text.strip().replace("<", "\\u003c")
    title = f"{document['service']} {document['version']}".strip()
    return framed(
        f"{title}: dossier",
        *head(document, title),
        *evidence(document),
        *why(document),
        *arms(document),
        *guards(document),
        *watched(document),
        *gates(document),
        *timeline(document),
        *cost(document),
        *made(document),
        *check(document),
        after=(f'<script type="application/json" id="dossier">{held}</script>',),
    )


# ---- the sections, from the top


def head(document: Document, title: str) -> Iterator[str]:
    """Who it is about, and the verdict in one sentence."""
    word, kind = badge(document)
    yield "<header>"
    yield f'<p class="over"><span>{escape(title)}</span> <span class="badge {kind}">{escape(word)}</span></p>'
    yield f"<h1>{escape(document['sentence'])}</h1>"
    against = document["replaces"]
    facts = [document["branch"], document["method"], f"against {against['version']}" if against else ""]
    facts += [f"by {person(document['author'])}" if document["author"] else "", when(document)]
    yield f'<p class="facts">{" · ".join(escape(each) for each in facts if each)}</p>'
    yield "</header>"


def badge(document: Document) -> tuple[str, str]:
    """The verdict in a word, and its colour."""
    measured = document["measurement"]
    if measured and measured["answer"]["cause"] in ("pass", "unproven"):
        return "takes over", "good"
    if document["verdict"]:
        return BADGES[document["verdict"]["event"]]
    return (document["state"] or "not decided", "open" if document["measurement"] else "calm")


def when(document: Document) -> str:
    """The day of the verdict, else that it was built."""
    verdict = document["verdict"]
    return f"decided {clock(verdict['at'])}" if verdict else f"built {clock(document['built'])}"


def evidence(document: Document) -> Iterator[str]:
    """The numbers of the verdict, and the picture of how they came about."""
    measured = document["measurement"]
    if not measured:
        return
    metric = document["declaration"]["metric"]
    what = metric["name"] if metric else "the metric"
    answer = measured["answer"]
    yield '<section class="wide">'
    yield '<div class="tiles">'
    harmed = (document["verdict"] or {}).get("event") == "Breached"
    if harmed or not measured["terms"]["effect"]:
        yield from harm_tiles(measured)
    if answer.get("estimate") is not None:
        yield tile(signed(answer["estimate"]), f"{what}, challenger − incumbent", between(answer, measured))
        yield tile(
            f"{sum(answer['units']):,}", "outcomes that count", f"{answer['units'][0]:,} and {answer['units'][1]:,}"
        )
    yield tile(lasted(measured["lasted"]), "measured for", stretch(measured["began"], measured["until"]))
    yield tile(f"{measured['counts']['units']:,}", "units met the test", mismatched(measured))
    yield "</div>"
    pictures = [
        (kind, sequence(measured, what, *size, f"cut-{kind}"))
        for kind, size in (("desk", (900, 360)), ("phone", (360, 320)))
    ]
    if pictures[0][1]:
        yield "<figure>"
        for kind, drawn in pictures:
            yield f'<div class="{kind}">{drawn}</div>'
        better = "higher" if measured["plan"]["direction"] == "higher" else "lower"
        yield f"<figcaption><b>{escape(what)}, challenger − incumbent; {better} is better.</b>"
        yield "The line is the estimate after each outcome, the band every difference that was not ruled out at"
        yield f"{level(measured)}. It holds at all looks together, so peeking is safe. Where it is paler"
        yield "and dashed there were too few outcomes to judge, and it holds nothing. Below: the time since the first"
        yield "outcome, and how many there were.</figcaption>"
        yield "</figure>"
    yield "</section>"


def harm_tiles(measured: Document) -> Iterator[str]:
    """What each guardrail counted of the challenger, beside the incumbent's."""
    for name, guard in sorted(measured["guards"].items()):
        mine, theirs = (f"{guard['bad'][arm]:,} of {guard['requests'][arm]:,}" for arm in (1, 0))
        between = " to ".join(map(per_cent, proportion(guard["bad"][1], guard["requests"][1])))
        yield tile(mine, f"{name}, challenger", f"{between}; incumbent {theirs}")


def why(document: Document) -> Iterator[str]:
    """Why it was tried, and what was declared before there was a number."""
    yield '<section class="pair">'
    yield "<div><h2>Hypothesis</h2>"
    words = document["hypothesis"] or "None of its own is written in its log."
    yield f"<blockquote>{''.join(f'<p>{escape(each)}</p>' for each in words.split(chr(10) * 2))}</blockquote>"
    if document["commits"]:
        rows = [f"<li>{escape(each['subject'])} <code>{each['commit'][:7]}</code></li>" for each in document["commits"]]
        yield f"<h3>What it changes</h3><ul>{''.join(rows[:8])}</ul>"
    yield "</div><div><h2>Declared before</h2>"
    yield from pairs(declared(document))
    yield "</div></section>"


def declared(document: Document) -> Iterator[tuple[str, str]]:
    """What was declared: metric, errors, guardrails, time."""
    said, measured = document["declaration"], document["measurement"]
    metric, limits = said["metric"], said["guardrails"]
    if metric:
        yield "metric", f"{metric['name']}, {metric['kind']}; {metric['direction']} is better"
        yield "an outcome counts for", lasted(metric["window"])
        missing = {"zero": "counts as 0", "window": "counts as all of that time"}
        yield "without an outcome", missing.get(metric["missing"], "left out")
        if metric.get("before") is not None:
            yield "adjusted by", f"what was before; {number(metric['before'])} where that is not known"
    if measured and measured["terms"]["effect"]:
        plan = measured["plan"]
        yield (
            ("let pass, if worse by no more than" if plan["margin"] else "worth having from"),
            number(plan["margin"] or plan["mde"]),
        )
        if plan["cap"] is not None:
            yield "values are cut at", number(plan["cap"])
        yield "α, for either wrong claim", number(plan["alpha"])
        yield "β, for missing that effect", number(plan["beta"])
        yield "longest test", lasted(said["rollout"]["max_seconds"])
    elif measured:
        yield "watched for", lasted(measured["terms"]["canary_seconds"])
        yield "and at least", f"{measured['terms']['canary_requests']:,} requests"
    if limits["failed_requests"]:
        yield "guardrail", "failed requests"
    if limits.get("slow_quantile"):
        yield "guardrail", f"requests slower than {per_cent(limits['slow_quantile'])} of the incumbent's"
    if limits.get("slow_above") is not None:
        yield "guardrail", f"requests slower than {number(1000 * limits['slow_above'])} ms"
    for side in ("above", "below"):
        if limits[f"bad_outcome_{side}"] is not None:
            yield "guardrail", f"outcomes {side} {number(limits[f'bad_outcome_{side}'])}"
    yield "tolerated", f"{number(limits['tolerated_ratio'])} times the incumbent's rate"
    yield "a person agrees", said["rollout"]["approval"] or "not asked for"


def arms(document: Document) -> Iterator[str]:
    """Both arms side by side, and whether they got the units that they should have got."""
    measured = document["measurement"]
    if not measured:
        return
    rows = []
    for place, arm in enumerate(measured["arms"]):
        width = len(next(iter(measured["sums"].values()), [0] * 6)) // 2
        sums = [sum(row[width * place + each] for row in measured["sums"].values()) for each in range(width)]
        who = f"<b>{arm['role']}</b> {small(arm['version'])}"
        middle = average(sums, ratio=measured["plan"].get("form") == "ratio")
        rows.append([who, f"{arm['units']:,}", middle, part(arm["bad"], arm["requests"])])
    yield "<section><h2>Arms</h2>"
    yield from table(("", "units", "mean outcome", "failed requests"), rows)
    tables = []
    for name, seen in measured["exposed"].items():
        split = measured["splits"].get(name)
        wanted = per_cent(split[1] / (split[0] + split[1])) if split else "not recorded"
        tables.append([f"table {name}", wanted, part(seen[1], sum(seen))])
    yield from table(("split", "challenger should get", "has got, of matured units"), tables)
    yield f'<p class="note">{mismatched(measured).capitalize()}; the arms are called unequal at 1,000.'
    yield f" {measured['counts']['crossed']:,} units were seen in both arms, and do not count."
    yield " The interval of an arm alone holds for one look; that of the difference above, for all.</p>"
    yield "</section>"


def guards(document: Document) -> Iterator[str]:
    """What could only stop it."""
    measured = document["measurement"]
    if not measured or not measured["guards"]:
        return
    yield '<section><h2>Guardrails</h2><div class="cards">'
    for number_of, (name, guard) in enumerate(sorted(measured["guards"].items())):
        kind = {"rollback": "bad", "pass": "good"}.get(guard["answer"], "calm")
        word = {"rollback": "breached", "pass": "passed", "continue": "not breached"}[guard["answer"]]
        yield f'<div class="card"><h3>{escape(name)} <span class="badge {kind}">{word}</span></h3>'
        rows = [
            [role, part(guard["bad"][arm], guard["requests"][arm])]
            for arm, role in ((1, "challenger"), (0, "incumbent"))
        ]
        yield from table(("", "bad"), rows)
        yield guard_picture(guard, measured["splits"], f"guard-{number_of}")
        if name == "slow requests" and measured["slow_above"] is not None:
            yield f'<p class="note">Slow is what took longer than {number(1000 * measured["slow_above"])} ms.</p>'
        bar = number(1 / guard["rule"]["alpha"])
        yield f'<p class="note">Highest evidence of harm {number(guard["highest"])}; rolled back at {bar}.</p></div>'
    yield "</div></section>"


def watched(document: Document) -> Iterator[str]:
    """What was looked at besides, and decided nothing."""
    beside = (document["measurement"] or {}).get("watched")
    if not beside:
        return
    yield "<section><h2>Watched besides</h2>"
    rows = []
    for name, each in sorted(beside.items()):
        between = f"{signed(each['low'])} to {signed(each['high'])}" if each["judged"] else "too few to say"
        told = f"{signed(each['estimate'])} {small(between)}" if each["estimate"] is not None else "–"
        rows.append([f"<b>{escape(name)}</b>", each["plan"]["direction"], told, f"{sum(each['units']):,}"])
    yield from table(("", "better is", "challenger − incumbent", "outcomes"), rows)
    yield '<p class="note">None of these decided anything. Each interval holds at all looks by itself, in 95 %.</p>'
    yield "</section>"


def gates(document: Document) -> Iterator[str]:
    """What was asked of it before anybody met it."""
    if not document["gates"]:
        return
    marks = {"pass": ("passed", "good"), "fail": ("failed", "bad"), "inconclusive": ("unsure", "open")}
    yield "<section><h2>Gates</h2>"
    rows = []
    for gate in document["gates"]:
        word, kind = marks[gate["result"]]
        numbers = ", ".join(f"{name} {number(value)}" for name, value in gate["numbers"].items())
        said = escape(gate["summary"]) + (f"<br>{small(numbers)}" if numbers else "")
        rows.append([f"<b>{escape(gate['gate'])}</b>", f'<span class="badge {kind}">{word}</span>', said])
    yield from table(("gate", "", "found"), rows)
    yield "</section>"


def timeline(document: Document) -> Iterator[str]:
    """What happened, by whom; who agreed and who overrode stands out."""
    yield "<section><h2>What happened</h2><ol class=timeline>"
    for each in document["timeline"]:
        first, *more = each["reason"].splitlines() or [""]
        mark = {"agreed": "approval", "overrode": "override"}.get(each["kind"], "")
        kind = DONE.get(each["event"], "open" if mark else "")
        badge_of = f' <span class="badge open">{mark}</span>' if mark else ""
        by = "" if each["actor"] == "branchline" else f" by {escape(person(each['actor']))}"
        yield f'<li class="{kind}"><time datetime="{each["at"]}">{clock(each["at"])}</time>'
        yield f"<div><b>{EVENTS.get(each['event'], each['event'])}</b>{by}{badge_of}"
        yield f"<p>{escape(first)}</p>" if first else ""
        more += [f"The evidence by then: {each['said']}"] if each.get("said") else []
        lines = "\n".join(line.strip() for line in more)
        yield f"<pre>{escape(lines)}</pre>" if lines else ""
        yield "</div></li>"
    yield "</ol>"
    counted = {kind: sum(each["kind"] == kind for each in document["timeline"]) for kind in ("agreed", "overrode")}
    agreed, overrode = (counted[kind] or "none" for kind in ("agreed", "overrode"))
    yield f'<p class="note">Approvals: {agreed}; overrides: {overrode}.</p></section>'


def cost(document: Document) -> Iterator[str]:
    """What it cost, as far as that is recorded."""
    said = document["cost"]
    losing = said["losing"]
    ran = names.counted(said["build"]["steps"], "step") + " run"
    rows = [("built in", f"{lasted(said['build']['seconds'])} {small(ran)}"),
            ("processors", lasted(said["build"]["cpu"])), ("gates", lasted(said["gates"]["seconds"]))]  # fmt: skip
    if losing:
        who = f"{losing['role']} {losing['version']}".strip()
        rows.append((f"met the arm that left, {who}", f"{losing['units']:,} units, for {lasted(losing['seconds'])}"))
        rows.append(("of its requests failed", part(losing["bad"], losing["requests"])))
        if losing["effect"]:
            told, low, high = losing["effect"]
            metric = document["declaration"]["metric"]["name"]
            rows.append((f"{metric} of those units, against the other arm",
                         f"{signed(told)} {small(f'{signed(low)} to {signed(high)}')}"))  # fmt: skip
    yield "<section><h2>What it cost</h2>"
    yield from pairs((name, value) for name, value in rows)
    yield "</section>"


def made(document: Document) -> Iterator[str]:
    """What it was made of: data, hashes, steps, and what is only to look at."""
    yield '<section><h2>Made of</h2><dl class="hashes">'
    hashes = {name: document["hashes"][name] for name in HASHES}
    hashes |= {f"result of {name}": value for name, value in document["hashes"]["artifacts"].items()}
    hashes |= {f"data {name}": value for name, value in document["data"].items()}
    if document["verdict"]:
        hashes |= {f"history at entry {document['verdict']['number']}": document["verdict"]["chain"]}
    yield from (
        f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in hashes.items() if value
    )
    yield "</dl>"
    rows = [
        [f"<b>{escape(s['name'])}</b>", s["state"], escape(s["why"]), lasted(s["seconds"])] for s in document["steps"]
    ]
    yield f"<details><summary>{len(rows)} steps</summary>"
    yield from table(("step", "", "why", "took"), rows)
    yield "</details>"
    segments = [each for each in document["segments"] if each["exploratory"]]
    if segments:
        yield "<h3>Exploratory segments</h3>"
        rows = [[escape(e["experiment"]), clock(e["began"]), f"{e['units']:,}"] for e in segments]
        yield from table(("segment", "began", "units"), rows)
        yield '<p class="note">Either side of the comparison had changed: seen, and not part of the verdict.</p>'
    yield "</section>"


def check(document: Document) -> Iterator[str]:
    """How anybody checks it."""
    yield "<section><h2>Check it yourself</h2>"
    yield "<p>This page holds its own numbers. Without a network, a repository or a server:</p>"
    yield "<pre>branchline dossier verify THIS-FILE</pre>"
    yield "<p>recomputes the verdict from the sums of both arms, and says what differs.</p>"
    yield f'<p class="note">SHA-256 of the document <code>{document["digest"]}</code></p></section>'


# ---- parts


def pairs(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Names and what they are; a value may hold our own tags, and nothing of others."""
    yield '<dl class="pairs">'
    yield from (f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in rows)
    yield "</dl>"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A table that can be moved on a phone."""
    yield '<div class="table"><table><thead><tr>'
    yield "".join(f"<th>{each}</th>" for each in heads)
    yield "</tr></thead><tbody>"
    yield from (f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    yield "</tbody></table></div>"


def tile(value: str, said: str, more: str) -> str:
    """One number that matters."""
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(said)}</span>{small(more)}</div>'


def small(said: str) -> str:
    """What stands beside a number."""
    return f"<small>{escape(said)}</small>"


def average(sums: Sequence[float], *, ratio: bool) -> str:
    """What an arm's outcomes are on average, by its sums: of single values, of pairs, or as a ratio."""
    if len(sums) == 3:
        return mean(int(sums[0]), sums[1], sums[2])
    n, y, x, yy, xy, xx = sums
    if not ratio or not x:
        return mean(int(n), y, yy)
    own = y / x
    width = upper_quantile(0.025) * math.sqrt(max(yy - own * (2 * xy - own * xx), 0.0)) / x
    return f"{number(own)} {small(f'{number(own - width)} to {number(own + width)}; n {int(n):,}')}"


def mean(n: int, total: float, squares: float) -> str:
    """A mean with its interval at one look and its count."""
    if n < 2:
        return "–"
    middle = total / n
    wide = upper_quantile(0.025) * math.sqrt(max(squares - total * middle, 0.0) / (n - 1) / n)
    return f"{number(middle)} {small(f'{number(middle - wide)} to {number(middle + wide)}; n {n:,}')}"


def part(hits: int, n: int) -> str:
    """A part with its interval and its count."""
    if not n:
        return "–"
    low, high = proportion(hits, n)
    return f"{per_cent(hits / n)} {small(f'{per_cent(low)} to {per_cent(high)}; {hits:,} of {n:,}')}"


def level(measured: Document) -> str:
    """How sure the band is."""
    return f"{100 - 100 * measured['plan']['alpha']:.3g} %"


def between(answer: Document, measured: Document) -> str:
    """The interval in words."""
    if answer["low"] is None or not answer["judged"]:
        return "too few to judge, so no interval"
    return f"{signed(answer['low'])} to {signed(answer['high'])} at {level(measured)}"


def mismatched(measured: Document) -> str:
    """How much speaks for arms that did not get their units."""
    return f"evidence of an unequal split {number(measured['mismatch'][0])}"


def clock(at: str) -> str:
    """A moment as people read it, in UTC."""
    return f"{at[:10]} {at[11:19]} UTC"


def stretch(began: str, until: str) -> str:
    """From when until when; the day once, if it is one."""
    return f"{began[:10]} {began[11:19]} to {until[11:19] if began[:10] == until[:10] else clock(until)}"

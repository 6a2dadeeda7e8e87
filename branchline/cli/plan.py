"""This file is the commands that ask how tests turn out: `plan-test` before, `rejudge` after, `backtest` of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from branchline.cli import show
from branchline.cli.session import SERVICE_FILE, Session, as_json, naming, pass_session
from branchline.core.planning import lasting, number
from branchline.errors import DaemonDown, UsageError

Document = Mapping[str, Any]
AT_MOST = 10.0  # seconds that `check` waits for what is foretold
ABOVE_0, RATE = click.FloatRange(0, min_open=True), click.FloatRange(0, 1, min_open=True, max_open=True)
OF_EFFECT = {
    "mde": ("an MDE", "by", "if it is as much better as the MDE says", "if it is no better"),
    "margin": ("a margin", "or no worse by", "if it is as good", "if it is as much worse as the margin says"),
}


@click.command("plan-test")
@naming("service", required=False, default="")
@click.option("--mde", type=ABOVE_0, metavar="X", help="The smallest worthwhile effect; else as declared.")
@click.option("--days", type=ABOVE_0, metavar="N", help="Which MDE fits into so many days; else max_duration.")
@click.option("--per-day", type=ABOVE_0, metavar="N", help="Outcomes that come in a day; else as recorded.")
@click.option("--aa", is_flag=True, help="Let the judge look at the incumbent against itself, and count false alarms.")
@click.option("--splits", type=click.IntRange(1, 5000), default=400, show_default=True, help="With --aa: how often.")
@click.option("--seed", type=int, default=1, show_default=True, help="With --aa: the lot; the same gives the same.")
@as_json
@pass_session
def plan_test(
    session: Session, service: str, mde: float | None, days: float | None, per_day: float | None, aa: bool, splits: int,
    seed: int,
) -> None:  # fmt: skip
    """Say how long an A/B test would take.

    From the service file of your work tree and the outcomes of earlier tests. With --aa: what the judge claims of the
    incumbent against itself. Nothing is changed.
    """
    if aa and (days is not None or per_day is not None):
        raise UsageError("--aa splits what is recorded: it has no --days and no --per-day",
                         hint=f"branchline plan-test {service or 'SERVICE'} --aa")  # fmt: skip
    body = declaration(session, session.service(service)) | {"mde": mde}
    if aa:
        found = session.client().post("/v1/aa", body | {"splits": splits, "seed": seed})
    else:
        found = session.client().post("/v1/plan-test", body | {"days": days, "per_day": per_day})
    if session.json:
        show.document(found)
        return
    for line in aa_lines(found) if aa else plan_lines(found):
        show.out(line)


def declaration(session: Session, service: str) -> dict[str, Any]:
    """The service file of the work tree."""
    path = f"{session.services[service]}/{SERVICE_FILE}"
    return {"path": path, "text": (session.tree.root / path).read_text(encoding="utf-8")}


def expected(session: Session, services: Iterable[str]) -> Iterator[tuple[str, Document]]:
    """How long a test of each service would take, where a daemon is up and knows how much comes in a day."""
    client = session.running()
    for service in services if client else ():
        try:
            found = client.post("/v1/plan-test", declaration(session, service), AT_MOST) if client else {}
        except (show.Answered, DaemonDown):  # nothing is declared, or nothing can be said of it
            continue
        if found["per_day"] and found["method"] == "A/B test":
            yield service, found


def plan_lines(found: Document) -> Iterator[str]:
    """A plan for people: what is asked, what is known, and how long it takes."""
    metric, seen = found["metric"], found["recorded"]
    asked, by, expected, without = OF_EFFECT[found["asks"]]
    yield (
        f"plan      {found['service']}: {metric['name']}, {metric['direction']} {by} {found['mde']:.4g}; "
        f"alpha {found['alpha']:.3g}, power {found['power']:.2g}, share {found['share']:.0%}"
    )
    if found["method"] != "A/B test":
        yield f"note      what is new of {found['service']} goes by {found['method']}: this is what a test would take"
    known = "nothing usable is recorded yet"
    if "mean" in seen:
        known = (
            f"mean {seen['mean']:.4g} [{seen['low']:.4g}, {seen['high']:.4g}], deviation {seen['sigma']:.3g}, "
            f"{seen['outcomes']:,} outcomes of {seen['units']:,} units in {lasting(seen['days'])}"
        )
    yield f"recorded  {known}"
    if found["sigma_from"] == "bounds":
        yield f"assumed   deviation {found['sigma']:.3g}, the largest that the bounds allow: the truth takes less"
    if found["per_day_from"] == "said":
        yield f"assumed   {number(found['per_day'])} outcomes a day, as you say"
    if found["cap"] is not None:
        yield f"cut       values above {found['cap']:.4g} count as that"
    days = found["days"]
    told = {"expected": expected, "without_effect": without, "at_most": "then it ends as inconclusive"}
    rows = [
        (f"{found['outcomes'][name]:,} outcomes", lasting(days[name]) if days else "", words)
        for name, words in told.items()
    ]
    yield from ("          " + line for line in show.table(rows))
    if found["per_day"]:
        fits = found["mde_that_fits"]
        within = lasting(found["limit_days"])
        yield f"fits      into {within}: {asked} of {fits:.4g}" if fits else f"fits      into {within}: none"
    if found["fits"] is False:
        yield click.style("too long", fg="yellow") + f"  {found['text']}"
    else:
        yield f"so        {found['text']}"


def aa_lines(found: Document) -> Iterator[str]:
    """What the judge made of nothing, for people."""
    answers = found["answers"]
    yield (
        f"A/A       {found['service']}: {found['outcomes']:,} outcomes of the incumbent, given to two arms by lot "
        f"{found['splits']:,} times, {found['looks']} looks at each; seed {found['seed']}"
    )
    yield (
        f"claimed   a difference in {found['false']} of {found['splits']:,}: {found['rate']:.1%} "
        f"[{found['low']:.1%}, {found['high']:.1%}], at most {found['alpha']:.1%} is promised"
    )
    yield f"          better {answers['promote']}, worse {answers['harmful']}"
    left = answers["continue"] + answers["inconclusive"]
    yield f"otherwise no effect of {found['mde']:.4g} in {answers['futile']}, undecided in {left}"
    if not found["as_promised"]:
        yield click.style("note", fg="yellow") + "      that is more than promised: are your units alike?"


@click.command()
@naming("reference")
@click.option("--mde", type=ABOVE_0, metavar="X", help="Another smallest worthwhile effect; in place of a margin, too.")
@click.option(
    "--margin", type=ABOVE_0, metavar="X", help="How much worse would do, in place of an MDE (non-inferiority)."
)
@click.option("--alpha", type=RATE, metavar="X", help="Another rate of false claims.")
@click.option("--beta", type=RATE, metavar="X", help="Another rate of missed effects.")
@click.option("--direction", type=click.Choice(["higher", "lower"]), help="What is better.")
@as_json
@pass_session
def rejudge(session: Session, reference: str, **settings: Any) -> None:
    """Judge a recorded A/B test again, with other settings.

    Exploratory: nothing is changed. Without other settings the recorded verdict is found again.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    found = session.client().post("/v1/rejudge", {"reference": reference, **given})
    if session.json:
        show.document(found)
        return
    for line in rejudge_lines(found, given):
        show.out(line)
    if given:
        show.say(f"note      {found['note']}")


def rejudge_lines(found: Document, given: Document) -> Iterator[str]:
    """Both verdicts for people, one below the other."""
    name = "@".join((found["service"], found["version"] or found["commit"][:7]))
    yield f"test      {name} against {found['against'][:40]}, {found['branch']}"
    had, now = found["had"], found["settings"]
    changed = (
        f"{key} {now[key]}" + (f" (had {had[key]})" if now[key] != had[key] else "")
        for key in ("mde", "margin", "alpha", "beta", "direction")
    )
    yield f"settings  {', '.join(changed)}"
    event = found["recorded"]["event"]
    yield from section("recorded", found["recorded"]["text"] if event else "no verdict yet")
    text = found["verdict"]["text"]
    if found["verdict"]["side"] == "none yet":
        text = f"no verdict: {found['measurement']['text']}"
    yield from section("rejudged", text)
    if not given and event:
        yield "same      the recorded verdict is found again" if found["same"] else "differs   the verdict is another"


def section(word: str, text: str) -> Iterator[str]:
    """A verdict with its evidence below it."""
    for place, line in enumerate(text.splitlines() or [""]):
        yield f"{word if not place else '':<9} {line.strip() if not place else line.rstrip()}"


@click.command()
@naming("service")
@click.argument("metric")
@click.option("--direction", type=click.Choice(["higher", "lower"]), required=True, help="What is better, of METRIC.")
@as_json
@pass_session
def backtest(session: Session, service: str, metric: str, direction: str) -> None:
    """Hold a metric of steps against the verdicts there were.

    METRIC is what a step has told by branchline.log: does what looks better by it before a test win the test?
    """
    found = session.client().get("/v1/backtest", service=service, metric=metric, direction=direction)
    if session.json:
        show.document(found)
        return
    rows: list[tuple[str, ...]] = [("REVISION", "AGAINST", metric.upper(), "OUTCOMES SAID", "VERDICT")]
    rows += [backtest_cells(test) for test in found["tests"]]
    for line in show.table(rows):
        show.out(line)
    for looked, words in (("better", f"looked better by {metric}"), ("not_better", f"did not look better by {metric}")):
        part = found[looked]
        if part["tests"]:
            interval = f"[{part['low']:.0%}, {part['high']:.0%}]"
            show.out(f"won       {part['won']} of {part['tests']} that {words}: {interval}")
    for key, words in (("undecided", "ended without a verdict on outcomes"), ("without", f"do not tell {metric}")):
        if found[key]:
            show.out(f"not in    {found[key]} that {words}")


def backtest_cells(test: Document) -> tuple[str, ...]:
    """One test: what was said of it before, and what outcomes said."""
    before, online = test["offline"], test["online"]
    looked = "better" if test["better"] else "not better"
    offline = f"{before['incumbent']:.4g} -> {before['challenger']:.4g}, {looked}"
    outcomes = f"{online['units']:,} outcomes"
    if online["low"] is not None:
        outcomes = f"{online['estimate']:+.4g} [{online['low']:+.4g}, {online['high']:+.4g}], {outcomes}"
    return (
        test["version"],
        test["against"],
        offline,
        outcomes,
        f"{test['verdict']['side']}: {test['verdict']['cause']}",
    )

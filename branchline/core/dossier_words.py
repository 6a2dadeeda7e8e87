"""This file puts what a dossier holds into words: its verdict in one sentence for whoever decides about the product.

Rules. No statistics in the sentence but a number, between which two it may be, and how many it rests on. Better and
worse follow the declared direction; a number is never said without its interval and its count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from branchline.core.planning import proportion

Document = Mapping[str, Any]
EVENTS = {
    "Opened": "The branch was opened", "Pushed": "A commit was pushed", "Built": "Built", "BuildFailed": "Not built",
    "GatesPassed": "Every gate passed", "GatesFailed": "A gate said no", "Won": "The challenger won",
    "Lost": "The incumbent stays", "Undecided": "Undecided", "Extended": "Given more time",
    "Overrode": "A person decided in the verdict's place",
    "Breached": "A guardrail was breached", "Aborted": "Taken out by hand", "Withdrew": "Given up",
    "Approved": "Approved", "Kept": "Kept as it was judged", "Ramped": "Given another share",
    "Recorded": "Git shows it", "Refused": "Git refused", "RolledBack": "Rolled back",
}  # fmt: skip
CAUSES = {
    "promote": "verdict: better", "harmful": "verdict: worse", "futile": "verdict: not worth it",
    "inconclusive": "verdict: undecided", "invalid": "verdict: cannot be judged", "rollback": "verdict: does harm",
    "pass": "verdict: no harm", "unproven": "verdict: no harm seen", "continue": "so far",
}  # fmt: skip


def sentence(document: Document) -> str:
    """The verdict in one sentence."""
    name = f"{document['service']} {document['version']}".strip()
    verdict, measured = document["verdict"], document["measurement"]
    if verdict is None:
        return _unended(name, document, measured)
    if verdict["event"] == "Overrode":
        later = (measured and effect(measured, document)) or "nothing could be said yet"
        said = str(verdict.get("said") or later).splitlines()[0]  # one that was made before has not what was recorded
        who, why = person(verdict["actor"]), verdict["reason"].rstrip(".")
        return f"{who} decided for {verdict['side']} in the verdict's place, of {name}: {why}. By then {said}."
    if verdict["event"] in ("Aborted", "Withdrew"):
        why = verdict["reason"].splitlines()[0] if verdict["reason"] else ""
        word = "taken out" if verdict["event"] == "Aborted" else "given up"
        return f"{name} was {word} by {person(verdict['actor'])} before the data had decided" + (
            f": {why}." if why else "."
        )
    if measured is None:
        return f"{name} was decided ({verdict['event']}), but what it rested on is not recorded."
    return _decided(name, verdict["event"], measured, document)


def _unended(name: str, document: Document, measured: Document | None) -> str:
    """What is said while nothing is decided."""
    if measured:
        return f"{name} is still under test: {effect(measured, document) or 'nothing can be said yet'}."
    if document["replaces"] is None and document["state"] in ("live", "retired", "concluding"):
        return f"{name} is the first revision: nothing served before, so all traffic was its own at once."
    refused = next((gate for gate in document["gates"] if gate["result"] != "pass"), None)
    if refused:
        return f"{name} met nobody: its gate {refused['gate']} said {refused['result']} ({refused['summary']})."
    return f"{name} met nobody and nothing was measured of it; it is {document['state'] or 'not known any more'}."


def _decided(name: str, event: str, measured: Document, document: Document) -> str:
    """What is said of a verdict that has numbers."""
    old = f"{document['service']} {(document['replaces'] or {}).get('version', '')}".strip()
    cause = measured["answer"]["cause"]
    said = effect(measured, document)
    harm = harms(measured)
    if event == "Breached":
        return f"{name} was taken out of traffic, because it does harm: {harm or said or 'a guardrail was breached'}."
    if cause == "pass":
        return f"{name} replaces {old}: being twice as bad is ruled out, with {harm or 'no harm seen'}."
    if cause == "unproven":
        return f"{name} replaces {old}: no harm was seen in the time given, with {harm or 'no requests to speak of'}."
    margin = measured["plan"]["margin"]
    if event == "Won" and margin:
        return f"{name} is no worse than {old} by more than {number(margin)} and replaces it: {said}."
    if event == "Won":
        return f"{name} is better than {old} and replaces it: {said}."
    if event == "Undecided":
        return f"Nobody won, so {old} stays: {measured['answer']['reason']}; {said or 'nothing can be said'}."
    if cause == "harmful":
        much = f" by more than {number(margin)}" if margin else ""
        return f"{name} is worse than {old}{much}, which stays: {said}."
    if margin:
        return f"{name} is not as good as {old}, which stays: {said}."
    least = number(measured["plan"]["mde"])
    return f"{name} is not better than {old} by the {least} that was asked for, so {old} stays: {said}."


def effect(measured: Document, document: Document) -> str:
    """The measured difference in words; '' when there is none."""
    answer = measured["answer"]
    if answer.get("estimate") is None:
        return ""
    metric = document["declaration"]["metric"]
    what, estimate = metric["name"] if metric else "the metric", answer["estimate"]
    better = (estimate > 0) == (measured["plan"]["direction"] == "higher")
    judged = answer["judged"] and answer["low"] is not None
    sure = judged and (answer["low"] > 0 or answer["high"] < 0)
    way = "the same" if estimate == 0 else f"{number(abs(estimate))} {'higher' if estimate > 0 else 'lower'}"
    word = f", which is {'better' if better else 'worse'}" if sure else ""
    between = f" (between {signed(answer['low'])} and {signed(answer['high'])})" if judged else ""
    few = "" if judged else ", too few to judge"
    return f"its {what} is {way}{between}{word}, on {sum(answer['units']):,} outcomes{few}"


def harms(measured: Document) -> str:
    """What the worst guardrail counted; '' when there is none."""
    name, guard = worst(measured)
    if guard is None:
        return ""
    theirs, mine = (f"{bad:,} of {seen:,}" for bad, seen in zip(guard["bad"], guard["requests"], strict=True))
    low, high = proportion(guard["bad"][1], guard["requests"][1])
    between = f", between {100 * low:.3g} and {100 * high:.3g} %" if guard["requests"][1] else ""
    return f"{mine} {'outcomes' if 'outcome' in name else 'requests'} bad{between} ({theirs} of the incumbent's)"


def worst(measured: Document) -> tuple[str, Document | None]:
    """The guardrail with the most evidence of harm, of equal ones that which counted most; None when there is none."""
    guards = measured["guards"].items()
    ranked = sorted(guards, key=lambda each: (-each[1]["highest"], -each[1]["requests"][1], each[0]))
    return ranked[0] if ranked else ("", None)


def number(value: float) -> str:
    """A number as people read it: three digits that count."""
    if not math.isfinite(value):
        return "any"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if size >= 0.001 or not size else f"{value:.1e}"


def signed(value: float) -> str:
    """A number with its sign."""
    return ("+" if value > 0 else "−" if value < 0 else "") + number(abs(value))


def per_cent(part: float) -> str:
    """A part as a per cent, with as many digits as it needs."""
    return f"{100 * part:.3g} %"


def person(actor: str) -> str:
    """Who somebody is, without an address."""
    return actor.partition(" <")[0]


def lasted(seconds: float) -> str:
    """A time as people say it."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds)} seconds"


def brief(seconds: float) -> str:
    """A time in few letters."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"

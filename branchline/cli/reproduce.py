"""This file is the commands about what was: run again, followed to where it came from, and cleared away."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from branchline.cli import follow, show
from branchline.cli.session import Session, as_json, dry_run, naming, pass_session
from branchline.core.codes import exit_of

Document = Mapping[str, Any]
MARKS = {"equal": "=", "close": "ok", "different": "no"}
DIGEST = re.compile("[0-9a-f]{40,64}")
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
WORDS = {"equal": "equal", "close": "within its tolerance", "different": "different"}


@click.command()
@naming("reference", metavar="REVISION")
@click.argument("step", required=False, default="")
@as_json
@pass_session
def verify(session: Session, reference: str, step: str) -> None:
    """Run a revision's steps again and say whether they leave the same.

    At its own commit, with its own data, environment and results: each step is judged alone. Exit 1 when one leaves
    something else than its tolerance allows; what was released stays.
    """
    client = session.client()
    begun = client.post("/v1/verify", {"reference": reference, "step": step})
    show.say(f"{begun['reference']}  {begun['commit'][:7]}")
    told: dict[str, Any] = {}

    def tell(note: Document) -> None:
        told[note["name"]] = note
        if note["name"] != "verified":
            show.say(show.note(note))

    try:
        end = follow.to_the_end(client, begun["topic"], tell)
    except KeyboardInterrupt:
        client.post("/v1/run/stop", {"topic": begun["topic"]})
        raise
    if problem := end["more"].get("problem"):
        show.problem(problem, session.json)
        raise click.exceptions.Exit(exit_of(problem["code"]))
    steps = told["verified"]["more"]["steps"]
    failed = end["more"]["failed"]
    if session.json:
        facts = {"reference": begun["reference"], "commit": begun["commit"], "ok": not failed, "steps": steps}
        show.document({"schema": "branchline.verify/1", **facts})
    for each in [] if session.json else steps:
        show.out(show.note({"mark": MARKS[each["verdict"]], **line_of(each)}))
    raise click.exceptions.Exit(1 if failed else 0)


def line_of(each: Document) -> dict[str, str]:
    """The verdict on a step in one line."""
    name = f"{each['step']}[{each['item']}]" if each["item"] else each["step"]
    left = f" -> {each['left'][:12]}" if each["left"] not in ("", each["artifact"]) else ""
    said = f"  ({each['text']})" if each["text"] else ""
    return {"name": name, "text": f"{WORDS[each['verdict']]}  {each['artifact'][:12]}{left}{said}"}


@click.command()
@naming("reference", metavar="REVISION|REQUEST|DIGEST")
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart, for Markdown.")
@as_json
@pass_session
def lineage(session: Session, reference: str, mermaid: bool) -> None:
    """Walk from an answer back to its data, or on from data.

    A request's id or a revision leads back to commit, steps, data, environment and gates; how the digest of a data
    version or a result begins leads on to every result and revision that was made of it.
    """
    found = session.client().get("/v1/lineage", reference=reference)
    if session.json:
        show.document(found)
        return
    for line in flowchart(found) if mermaid else indented(found):
        show.out(line)


def indented(found: Document) -> Iterator[str]:
    """A lineage as an outline from its root; what was told before is only named again."""
    nodes = {node["id"]: node for node in found["nodes"]}
    root = found["nodes"][0]["id"]
    back = any(edge["made"] == root for edge in found["edges"])
    near, far = ("made", "of") if back else ("of", "made")
    told: set[str] = set()

    def outline(id_: str, how: str, depth: int) -> Iterator[str]:
        node = nodes[id_]
        known = "" if id_ in told else "  ".join(f"{name} {brief(value)}" for name, value in node["told"])
        yield f"{'  ' * depth}{how:<{12 if how else 0}}{node['name']}  {click.style(known, dim=True)}".rstrip()
        if id_ not in told:
            told.add(id_)
            for edge in found["edges"]:
                if edge[near] == id_:
                    yield from outline(edge[far], edge["how"] if back else "went into", depth + 1)

    return outline(root, "", 0)


def brief(value: str) -> str:
    """A digest by its first characters, anything else whole."""
    return value[:12] if DIGEST.fullmatch(value) else value


def flowchart(found: Document) -> Iterator[str]:
    """A lineage as Mermaid draws it."""
    numbers = {node["id"]: f"n{number}" for number, node in enumerate(found["nodes"])}
    yield "flowchart LR"
    for node in found["nodes"]:
        name = node["name"].replace('"', "#quot;")
        yield f'  {numbers[node["id"]]}["{name}"]'
    for edge in found["edges"]:
        yield f"  {numbers[edge['made']]} -->|{edge['how']}| {numbers[edge['of']]}"


@click.command()
@dry_run
@as_json
@pass_session
def gc(session: Session, dry_run: bool) -> None:
    """Clear away what nobody needs.

    Kept is what serves, what was ever deployed, the last 100 revisions of each service, what their gates printed, the
    data that any branch pins, results of the last 30 days, and whatever is younger than a day.
    """
    found = session.client().post("/v1/gc", {"dry_run": dry_run}, seconds=3600.0)
    if session.json:
        show.document(found)
        return
    rows = [("would go" if dry_run else "gone", each["kind"], f"{each['count']:,}", size(each["bytes"]))
            for each in found["gone"] if each["count"]]  # fmt: skip
    for line in show.table(rows):
        show.out(line)
    if not rows:
        show.say("everything is needed, or young")
    if found["busy"]:
        show.say("note     something is being built: what is laid out was let be, and so was every recorded result")


def size(number: float) -> str:
    """Bytes as people read them."""
    return next((f"{number / unit:.1f} {name}" for unit, name in UNITS if number >= unit), f"{number:g} B")

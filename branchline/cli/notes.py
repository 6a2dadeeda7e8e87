"""This file is the command `notes`: the release notes of a revision, from what is recorded and from git (3.10).

They are Markdown, ready for a forge's release page or a changelog. Nothing in them was written for them: the commits
say what changed, the experiment's log why, the gates and the verdict what was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from branchline.cli import show
from branchline.cli.session import Session, as_json, naming, pass_session

Document = Mapping[str, Any]


@click.command()
@naming("reference")
@as_json
@pass_session
def notes(session: Session, reference: str) -> None:
    """Print the release notes of a revision, as Markdown.

    What changed since the revision that it replaced, why it was tried, what its gates and the verdict found.
    """
    found = session.client().get("/v1/notes", reference=reference)
    if session.json:
        show.document(found)
    else:
        show.out("\n".join(markdown(found)))


def markdown(found: Document) -> Iterator[str]:
    """The lines of release notes."""
    before, verdict = found["replaces"], found["verdict"]
    yield f"# {found['service']} {found['version']}"
    yield ""
    since = f"Replaces {before['version']}." if before else "The first revision."
    author = f" by {found['author']}" if found["author"] else ""
    yield f"{since} Built from `{found['branch']}` at {found['commit'][:7]}{author}, {found['built'][:10]}."
    if found["hypothesis"]:
        yield from ("", found["hypothesis"])
    yield from ("", "## Changes", "")
    yield from (f"- {each['subject']} ({each['commit'][:7]}, {each['author']})" for each in found["commits"])
    yield from ("", "## Gates", "")
    yield from (f"- {gate['gate']}: {gate['result']}, {gate['summary']}" for gate in found["gates"])
    if not found["gates"]:
        yield "None has been run yet."
    yield from ("", "## Verdict", "")
    if verdict is None:
        yield "There is none yet." if before else "None was needed: nothing served before."
        return
    by_hand = verdict["event"] == "Overrode"
    said = show.override(verdict, verdict["actor"]) if by_hand else verdict["reason"]
    first, *numbers = said.splitlines() or [verdict["event"]]
    yield f"{verdict['event']}, {verdict['at'][:10]}: {first}"
    yield from ("", *(f"- {line.strip()}" for line in numbers)) if numbers else ()

"""This file is the command `dossier`: one document and one page that hold all that is recorded of an experiment.

Either suffices by itself: `dossier verify FILE` recomputes the verdict from the numbers in it, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from branchline.cli import show
from branchline.cli.session import Session, as_json, naming, pass_session
from branchline.errors import UsageError

Document = Mapping[str, Any]
SECONDS = 120.0  # every outcome of a large test is read again
DIFFERS = 1


@click.command(options_metavar="[OPTIONS]")
@naming("reference", metavar="REFERENCE")
@click.argument("file", metavar="| verify FILE", required=False, default=None,
                type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write it as a page that needs nothing else.")  # fmt: skip
@as_json
@pass_session
def dossier(session: Session, reference: str, file: Path | None, html: Path | None) -> int:
    """Tell all that is recorded of an experiment.

    Why it was tried, what was declared, what was measured, who agreed, what followed. `verify FILE` recomputes the
    verdict from a document or page that somebody has: no daemon and no repository is asked.
    """
    from branchline.core import dossier as documents

    if file is not None:
        if reference != "verify" or html:
            hint = "branchline dossier SERVICE@VERSION --html FILE, or: branchline dossier verify FILE"
            raise UsageError(f"what to do with {file}?", hint=hint)
        return checked(session, file)
    found = session.client().get("/v1/dossier", SECONDS, reference=reference)
    if html:
        from branchline.core.dossier_page import page

        try:
            html.write_text(page(found), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{html} cannot be written: {error.strerror}", hint="name another file") from error
        show.say(f"written  {html}")
    if session.json:
        click.echo(documents.text(found), nl=False)
    elif not html:
        for line in brief(found):
            show.out(line)
    return 0


def brief(found: Document) -> list[str]:
    """The verdict in a sentence, and the lines it was recorded with."""
    verdict = found["verdict"]
    lines = verdict["reason"].splitlines()[1:] if verdict else []
    name = "@".join(filter(None, (found["service"], found["version"])))
    return [found["sentence"], *lines, f"page     branchline dossier {name} --html FILE"]


def checked(session: Session, file: Path) -> int:
    """Say whether a file's verdict follows from its numbers; 1 when it does not."""
    from branchline.core import dossier as documents

    try:
        found = documents.read(file.read_text(encoding="utf-8"))
        differences = documents.differences(found)
        verdict = found["measurement"]["answer"] if found["measurement"] else None
        subject = f"{found['service']} {found['version']}".strip()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise UsageError(
            f"{file} is no dossier: {error!r}", hint="branchline dossier REFERENCE --json > FILE"
        ) from error
    if session.json:
        same = not differences
        show.document({"schema": "branchline.dossier-check/1", "same": same, "differences": differences})
    elif differences:
        for line in differences:
            show.out(f"differs  {line}")
    elif verdict is None:
        show.out(f"same     {subject}: nothing was measured, so there is nothing to recompute")
    else:
        show.out(f"same     {subject}: {verdict['side']}: {verdict['reason']}")
    return DIFFERS if differences else 0

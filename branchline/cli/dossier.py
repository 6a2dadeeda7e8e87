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
@naming("reference", metavar="[REFERENCE]", required=False, default="")
@click.argument("file", metavar="| verify FILE", required=False, default=None,
                type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write it as a page that needs nothing else.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Write every one that is kept into a folder, with a page that lists them.")  # fmt: skip
@as_json
@pass_session
def dossier(session: Session, reference: str, file: Path | None, html: Path | None, out: Path | None) -> int:
    """Tell all that is recorded of an experiment.

    Why it was tried, what was declared, what was measured, who agreed, what followed. `verify FILE` recomputes the
    verdict from a document or page that somebody has: no daemon and no repository is asked. Without a REFERENCE every
    concluded experiment is listed, the newest first; git keeps the same at refs/branchline/dossiers/SERVICE.
    """
    from branchline.core import dossier as documents

    if not reference or out:
        if html or reference:
            raise UsageError("a page is of one, a folder of all", hint="branchline dossier --out FOLDER")
        return listing(session, out)
    if file is not None:
        if reference != "verify" or html:
            hint = "branchline dossier SERVICE@VERSION --html FILE, or: branchline dossier verify FILE"
            raise UsageError(f"what to do with {file}?", hint=hint)
        return checked(session, file)
    found = session.client().get("/v1/dossier", SECONDS, reference=reference)
    if html:
        from branchline.core.dossier_page import page

        write(html, page(found))
        show.say(f"written  {html}")
    if session.json:
        click.echo(documents.text(found), nl=False)
    elif not html:
        for line in brief(found):
            show.out(line)
    return 0


def listing(session: Session, out: Path | None) -> int:
    """Every concluded experiment; with `out` each as page and document in a folder of its service, and the list."""
    from branchline.core import dossier_index as index
    from branchline.core.dossier import text
    from branchline.core.dossier_page import page

    found = session.client().get("/v1/dossiers")
    if out:
        for row in found["dossiers"]:
            whole = session.client().get("/v1/dossier", SECONDS, reference=f"{row['service']}@{row['version']}")
            write(out / row["service"] / f"{row['version']}.html", page(whole), inside=True)
            write(out / row["service"] / f"{row['version']}.json", text(whole), inside=True)
        write(out / index.LIST, index.page(found, folder=True), inside=True)
        show.say(f"written  {out / index.LIST}")
    if session.json:
        show.document(found)
        return 0
    for row in found["dossiers"]:
        show.out(f"{row['at'][:10]}  {row['sentence']}")
        if words := index.found_words(row):
            show.out(f"            {words}")
    if not found["dossiers"]:
        show.out("nothing has been concluded yet")
    return 0


def unread(error: Exception) -> str:
    """Why a file could not be taken for a dossier, in words."""
    match error:
        case OSError():
            return error.strerror or str(error)
        case UnicodeDecodeError():
            return "it is no text"
        case ValueError():
            return str(error)
        case KeyError():
            return f"it says nothing of {error.args[0]}"
        case _:
            return "a part of it is not what it should be"


def write(file: Path, text: str, *, inside: bool = False) -> None:
    """Write a file, `inside` of a folder that may have to be made; raises UsageError where that cannot be."""
    try:
        if inside:
            file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}", hint="name another file") from error


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
        cause = f"{file} is no dossier: {unread(error)}"
        raise UsageError(cause, hint="branchline dossier REFERENCE --json > FILE") from error
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

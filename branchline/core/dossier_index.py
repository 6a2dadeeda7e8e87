"""This file says where git keeps the dossiers of a service, and lists them: a row for each concluded experiment.

Rules. One ref a service, `refs/branchline/dossiers/SERVICE`: of each experiment the document and the page, by its
version, and the list of all as both. A row has what is wanted of a list (who, when, the verdict in its sentence, the
number with its interval and its count) and the last entry of the history that it knows of: a dossier is written again
when more has happened. The same rows give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from branchline.core import dossier
from branchline.core.dossier_page import badge, clock
from branchline.core.dossier_style import framed
from branchline.core.dossier_words import number, per_cent, signed, worst
from branchline.core.planning import proportion

Document = Mapping[str, Any]
SCHEMA = "branchline.dossiers/1"
ROWS, LIST = "index.json", "index.html"


def row_of(document: Document) -> dict[str, Any]:
    """The row of a concluded experiment."""
    names = ("service", "version", "branch", "method", "sentence")
    verdict = document["verdict"]
    return {
        **{name: document[name] for name in names},
        "commit": document["hashes"]["commit"],
        "event": verdict["event"],
        "at": verdict["at"],
        "entry": document["timeline"][-1]["number"],
        "badge": list(badge(document)),
        **_measured(document),
    }


def _measured(document: Document) -> dict[str, Any]:
    """What was measured, its estimate and interval, and on how many: of an A/B test the effect; of a canary, and of
    what did harm, the part of its requests or outcomes that were bad.
    """
    measured, harmed = document["measurement"], document["verdict"]["event"] == "Breached"
    answer = measured["answer"] if measured else {}
    if answer.get("estimate") is not None and not harmed:
        metric = document["declaration"]["metric"]
        low, high = (answer[each] if answer["judged"] else None for each in ("low", "high"))
        what = metric["name"] if metric else "the metric"
        return {"what": what, "estimate": answer["estimate"], "low": low, "high": high, "n": sum(answer["units"])}
    name, guard = worst(measured) if measured else ("", None)
    if guard is None or not guard["requests"][1]:
        return {"what": "", "estimate": None, "low": None, "high": None, "n": 0}
    bad, n = guard["bad"][1], guard["requests"][1]
    low, high = proportion(bad, n)
    return {"what": name, "estimate": bad / n, "low": low, "high": high, "n": n, "part": True}


def listed(rows: Iterable[Document]) -> dict[str, Any]:
    """The list, the newest verdict first."""
    return {"schema": SCHEMA, "dossiers": sorted(rows, key=lambda row: (row["at"], row["entry"]), reverse=True)}


def rows_of(text: bytes | None) -> list[dict[str, Any]]:
    """The rows of a list as git keeps it; [] when there is none that can be read."""
    try:
        found = json.loads(text or b"{}")
        return list(found["dossiers"]) if found.get("schema") == SCHEMA else []
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def together(rows: Sequence[Document], row: Document) -> list[Document]:
    """The rows with one more, in the place of an older one of the same version."""
    return [each for each in rows if each["version"] != row["version"]] + [row]


def found_words(row: Document) -> str:
    """The number of a row, with its interval and its count; '' where nothing was measured."""
    if row["estimate"] is None:
        return ""
    say = per_cent if row.get("part") else signed
    between = "too few to judge" if row["low"] is None else f"{say(row['low'])} to {say(row['high'])}"
    return f"{row['what']} {say(row['estimate'])} ({between}; n {row['n']:,})"


def page(found: Document, folder: bool = False) -> str:
    """The list as a page; in a `folder` of its own for each service, or beside the pages of the one it is about."""
    rows = found["dossiers"]
    title = "Dossiers" if folder or not rows else f"Dossiers of {rows[0]['service']}"
    return framed(
        title,
        f"<header><h1>{escape(title)}</h1>",
        f'<p class="facts">{number(len(rows))} concluded, the newest first</p></header>',
        '<section><ol class="timeline">',
        *(line for row in rows for line in _item(row, folder)),
        "</ol></section>",
    )


def _item(row: Document, folder: bool) -> Iterator[str]:
    word, kind = row["badge"]
    where = f"{row['service']}/{row['version']}.html" if folder else f"{row['version']}.html"
    yield f'<li class="{kind}"><time datetime="{row["at"]}">{clock(row["at"])}</time>'
    name = escape(f"{row['service']} {row['version']}")
    yield f'<div><a href="{escape(where)}"><b>{name}</b></a> <span class="badge {kind}">{escape(word)}</span>'
    yield f"<p>{escape(row['sentence'])}</p>"
    yield f"<small>{escape(found_words(row))} · {escape(row['method'])}, {escape(row['branch'])}</small></div></li>"


def file_of(version: str) -> str:
    """Where the document of a version is kept."""
    return f"{version}.json"


def document_of(text: bytes | None, commit: str, entry: int) -> dict[str, Any] | None:
    """The document that is kept of a commit, if it is as it was made and knows of the history up to this entry."""
    try:
        found = json.loads(text or b"")
        of = found["hashes"]["commit"], found["timeline"][-1]["number"]
        return dict(found) if of == (commit, entry) and not dossier.differences(found) else None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def files_of(document: Document, page_text: str, rows: Sequence[Document]) -> dict[str, bytes]:
    """The files that git keeps when a dossier was made: its document, its page, and the list with it, as both."""
    found = listed(together(rows, row_of(document)))
    version = document["version"]
    texts = {file_of(version): dossier.text(document), f"{version}.html": page_text, ROWS: dossier.text(found),
             LIST: page(found)}  # fmt: skip
    return {name: text.encode() for name, text in texts.items()}

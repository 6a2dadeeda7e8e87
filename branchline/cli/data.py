"""This file is the command `data`: it pins what a service reads and git does not hold, and shows what was pinned.

`data.lock` lies beside the service file and is committed with it; `run` and `deploy` use what is pinned and nothing
else. The bytes go into the store as they are pinned. No daemon is needed; what was made of a version only it knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date
from typing import TYPE_CHECKING, Any

import click

from branchline.cli import show
from branchline.cli.session import SERVICE_FILE, Session, as_json, dry_run, pass_session
from branchline.core import names
from branchline.errors import BadServiceFile, NothingToDo, UsageError

if TYPE_CHECKING:
    from branchline.core.spec import Source, Spec
    from branchline.ports import DataVersion

LOCK_FILE = "data.lock"


@click.group()
def data() -> None:
    """Pin data that is not in git, and see what is pinned."""


@data.command()
@click.argument("name", metavar="[SERVICE|SOURCE]", required=False, default="")
@dry_run
@as_json
@pass_session
def update(session: Session, name: str, dry_run: bool) -> None:
    """Pin the data that is there now, of a service or of one source; without a name of all services."""
    chosen = wanted(session, name)
    if dry_run:
        for spec, sources in chosen:
            say_none(spec)
            for each in sources:
                how = "read {} into the store" if each.store else "read {}"
                show.out(f"plan     {how.format(each.where)}, pin it as {each.name} in {spec.folder}/{LOCK_FILE}")
        return
    for spec, sources in chosen:
        say_none(spec)
        versions: dict[str, DataVersion] = {}
        with suppress(BadServiceFile):  # a lock that cannot be read is written again
            versions = pinned(session, spec)
        show_pins(session, spec, {**versions, **pin(session, spec, sources, versions)}, versions)


@data.command()
@click.argument("name", metavar="[SERVICE|SOURCE]", required=False, default="")
@as_json
@pass_session
def log(session: Session, name: str) -> None:
    """Show the versions that were pinned, here and on the trunk, what changed in each, and what was made of it."""
    for spec, sources in wanted(session, name):
        say_none(spec)
        versions, known = pinned(session, spec), history(session, spec)
        for each in sources:
            if each.name not in versions:
                show.say(f"{each.name} of {spec.name} is not pinned: branchline data update {each.name}")
        made = made_of(session, spec) if known else {}
        told = {each.name: told_of(each.name, versions.get(each.name), known, made) for each in sources}
        if session.json:
            now = {each.name: versions[each.name] for each in sources if each.name in versions}
            show.document({**pins_document(spec, now), "versions": told})
            continue
        for source, rows in told.items():
            for row in rows:
                show_version(spec, source, row)


@data.command()
@click.argument("name", metavar="[SERVICE|SOURCE]", required=False, default="")
@as_json
@pass_session
def arrived(session: Session, name: str) -> None:
    """Say that there is new data: what is new, and makes a difference, opens an experiment of itself."""
    service = name if name in session.services else ""
    told = session.client().post("/v1/data/arrived", {"service": service, "source": "" if service else name})
    if session.json:
        show.document(told)
        return
    for heard, source in told["heard"]:
        show.out(show.note({"mark": "..", "name": f"{heard} {source}", "text": "it is looked at"}))
    show.say("next     branchline status")


Known = list[tuple[Mapping[str, str], "dict[str, DataVersion]"]]


def history(session: Session, spec: Spec) -> Known:
    """Every commit of the trunk and of what is checked out that changed the lock, with what it pins, oldest first; one
    whose lock cannot be read is left out.
    """
    from branchline.adapters.servicefile import pins

    path = f"{spec.folder}/{LOCK_FILE}"
    tips = [tip for tip in (session.tree.head, session.tree.tip(session.trunk())) if tip]
    found: Known = []
    for commit, text in reversed(session.tree.pinned(path, *dict.fromkeys(tips))):
        with suppress(BadServiceFile):
            found.append((commit, pins(text, path)))
    return found


def made_of(session: Session, spec: Spec) -> dict[str, list[str]]:
    """Digest of a data version -> the revisions that were made of it, where a daemon runs that knows."""
    from branchline.cli.transport import Answered

    client = session.running()
    try:
        found: dict[str, list[str]] = client.get("/v1/data", service=spec.name)["made"] if client else {}
    except Answered:  # it has never seen the service
        return {}
    return found


def told_of(source: str, now: DataVersion | None, known: Known, made: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """The versions of a source, the newest first: what each is, who pinned it first, what changed from the one before,
    and what was made of it.
    """
    from branchline.core.profile import changes

    first: dict[str, tuple[DataVersion, Mapping[str, str]]] = {}
    for commit, versions in known:
        if source in versions:
            first.setdefault(versions[source].digest, (versions[source], commit))
    if now is not None:
        first.setdefault(now.digest, (now, {}))
    rows: list[dict[str, Any]] = []
    before: DataVersion | None = None
    for version, commit in first.values():
        changed = changes(dict(version.columns), dict(before.columns)) if before else ()
        rows.append({
            **version_document(version), "commit": commit.get("commit", ""), "author": commit.get("author", ""),
            "at": int(commit.get("at", 0)), "subject": commit.get("subject", ""),
            "pinned": now is not None and version.digest == now.digest, "more": version.rows - before.rows if before
            else 0, "changes": list(changed), "made": made.get(version.digest, []),
        })  # fmt: skip
        before = version
    return rows[::-1]


def show_version(spec: Spec, source: str, row: Mapping[str, Any]) -> None:
    """Print one version of a source."""
    rows = names.counted(row["rows"], "row") + (f" ({row['more']:+,})" if row["more"] else "")
    text = "  ".join((row["digest"][:8], names.counted(row["files"], "file"), rows, f"{row['bytes']:,} bytes"))
    by = f"{date.fromtimestamp(row['at'])}  {row['commit'][:7]}  {row['author']}" if row["commit"] else "not committed"
    made = [f"made {', '.join(row['made'])}"] if row["made"] else []
    lines = [f"{text}  {by}", *row["changes"], *made]
    mark = "=" if row["pinned"] else ""
    show.out(show.note({"mark": mark, "name": f"{spec.name} {source}", "text": "\n".join(lines)}))


def wanted(session: Session, name: str) -> list[tuple[Spec, list[Source]]]:
    """The services with the sources that a name means; raises UsageError when it means none, NothingToDo without any
    service.
    """
    from branchline.adapters.servicefile import read_service

    if not session.services:
        raise NothingToDo(what="this repository has no service yet", hint="branchline init SERVICE")
    found = []
    known: list[str] = []
    for service, folder in session.services.items():
        path = f"{folder}/{SERVICE_FILE}"
        spec = read_service((session.tree.root / path).read_bytes(), path)
        sources = [each for each in spec.data if name in ("", service, each.name)]
        known += [service, *(each.name for each in spec.data)]
        if sources or name in ("", service):
            found.append((spec, sources))
    if name and not found:
        raise UsageError(f"{name!r} is neither a service nor a data source.{show.nearest(name, known)}")
    return found


def say_none(spec: Spec) -> None:
    """Say so of a service that declares no data: nothing else would be printed."""
    if not spec.data:
        show.say(f'{spec.name} declares no data; in {spec.folder}/{SERVICE_FILE}: data = {{ NAME = "PATH" }}')


def pinned(session: Session, spec: Spec) -> dict[str, DataVersion]:
    """What the lock beside the service file pins now."""
    from branchline.adapters.servicefile import pins

    path = session.tree.root / spec.folder / LOCK_FILE
    return pins(path.read_bytes(), f"{spec.folder}/{LOCK_FILE}") if path.is_file() else {}


def pin(
    session: Session, spec: Spec, sources: Iterable[Source], before: dict[str, DataVersion]
) -> dict[str, DataVersion]:
    """Read sources into the store and write the lock; sources that are no longer declared leave it."""
    from branchline.adapters.folder import FolderArtifacts
    from branchline.adapters.servicefile import lock
    from branchline.adapters.sources import LocalSources
    from branchline.settings import made, project_of

    root, state = session.tree.root, made(session.settings).state
    store = LocalSources(root, state / "sources", FolderArtifacts(state / "store"), lambda: project_of(root).hosts)
    fresh = {each.name: store.pin(each.name, each.where, each.store) for each in sources}
    declared = {each.name for each in spec.data}
    kept = [version for source, version in {**before, **fresh}.items() if source in declared]
    if kept:
        (session.tree.root / spec.folder / LOCK_FILE).write_bytes(lock(kept))
    return fresh


def show_pins(session: Session, spec: Spec, now: dict[str, DataVersion], before: dict[str, DataVersion]) -> None:
    """Print versions, with what has become of each."""
    from branchline.core.profile import changes

    if session.json:
        show.document(pins_document(spec, now))
        return
    for name, each in now.items():
        old = before.get(name)
        mark = "=" if old and old.digest == each.digest else "ok"
        sizes = (names.counted(each.files, "file"), names.counted(each.rows, "row"), f"{each.size:,} bytes")
        text = "  ".join((each.digest[:8], *sizes))
        changed: tuple[str, ...] = ()
        if old and old.digest != each.digest:
            text += f"  (was {old.digest[:8]}, {old.rows:,} rows)"
            changed = changes(dict(each.columns), dict(old.columns))
        show.out(show.note({"mark": mark, "name": f"{spec.name} {name}", "text": "\n".join((text, *changed))}))
    if now != before:
        show.say(f"next     git add {spec.folder}/{LOCK_FILE}, and commit it")


def version_document(version: DataVersion) -> dict[str, Any]:
    """A version for machines."""
    return {
        "digest": version.digest,
        "files": version.files,
        "rows": version.rows,
        "bytes": version.size,
        "columns": dict(version.columns),
    }


def pins_document(spec: Spec, now: Mapping[str, DataVersion]) -> dict[str, Any]:
    """What is pinned, for machines."""
    sources = {name: version_document(each) for name, each in now.items()}
    return {"schema": "branchline.data/1", "service": spec.name, "sources": sources}

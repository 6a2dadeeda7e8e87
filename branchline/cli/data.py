"""This file is the command `data`: it pins what a service reads and git does not hold, and shows what is pinned.

`data.lock` lies beside the service file and is committed with it; `run` and `deploy` use what is pinned and nothing
else. The bytes go into the store as they are pinned. No daemon is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from branchline.cli import show
from branchline.cli.session import SERVICE_FILE, Session, as_json, dry_run, pass_session
from branchline.core import names
from branchline.errors import NothingToDo, UsageError

if TYPE_CHECKING:
    from branchline.core.spec import Spec
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
            for source, where in sources:
                show.out(f"plan     read {where} into the store, pin it as {source} in {spec.folder}/{LOCK_FILE}")
        return
    for spec, sources in chosen:
        say_none(spec)
        versions = pinned(session, spec)
        show_pins(session, spec, {**versions, **pin(session, spec, sources, versions)}, versions)


@data.command()
@click.argument("name", metavar="[SERVICE|SOURCE]", required=False, default="")
@as_json
@pass_session
def log(session: Session, name: str) -> None:
    """Show what is pinned."""
    for spec, sources in wanted(session, name):
        say_none(spec)
        versions = pinned(session, spec)
        chosen = {source: versions[source] for source, _ in sources if source in versions}
        for source, _ in sources:
            if source not in versions:
                show.say(f"{source} of {spec.name} is not pinned: branchline data update {source}")
        show_pins(session, spec, chosen, chosen)


def wanted(session: Session, name: str) -> list[tuple[Spec, list[tuple[str, str]]]]:
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
        sources = [(source, where) for source, where in spec.data if name in ("", service, source)]
        known += [service, *(source for source, _ in spec.data)]
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
    session: Session, spec: Spec, sources: list[tuple[str, str]], before: dict[str, DataVersion]
) -> dict[str, DataVersion]:
    """Read sources into the store and write the lock; sources that are no longer declared leave it."""
    from branchline.adapters.folder import FolderArtifacts
    from branchline.adapters.servicefile import lock
    from branchline.adapters.sources import LocalSources
    from branchline.settings import made

    state = made(session.settings).state
    store = LocalSources(session.tree.root, state / "sources", FolderArtifacts(state / "store"))
    fresh = {source: store.pin(source, where) for source, where in sources}
    declared = {source for source, _ in spec.data}
    kept = [version for source, version in {**before, **fresh}.items() if source in declared]
    if kept:
        (session.tree.root / spec.folder / LOCK_FILE).write_bytes(lock(kept))
    return fresh


def show_pins(session: Session, spec: Spec, now: dict[str, DataVersion], before: dict[str, DataVersion]) -> None:
    """Print versions, with what has become of each."""
    if session.json:
        sources = {
            name: {"digest": each.digest, "files": each.files, "rows": each.rows, "bytes": each.size}
            for name, each in now.items()
        }
        show.document({"schema": "branchline.data/1", "service": spec.name, "sources": sources})
        return
    for name, each in now.items():
        old = before.get(name)
        mark = "=" if old == each else "ok"
        sizes = (names.counted(each.files, "file"), names.counted(each.rows, "row"), f"{each.size:,} bytes")
        text = "  ".join((each.digest[:8], *sizes))
        if old and old != each:
            text += f"  (was {old.digest[:8]}, {old.rows:,} rows)"
        show.out(show.note({"mark": mark, "name": f"{spec.name} {name}", "text": text}))
    if now != before:
        show.say(f"next     git add {spec.folder}/{LOCK_FILE}, and commit it")

"""This file is the commands that mend what serves while others experiment: fixes, and bringing a branch up to date.

A fix begins at the branch that shows the revision it mends: the trunk for the incumbent, the experiment branch for a
challenger. What is under test is never merged into: its sync is a fix of it, made beside the work tree, which tries
itself in the challenger's own arm before it becomes part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from branchline.cli import follow, show
from branchline.cli.session import SERVICE_FILE, Session, as_json, dry_run, pass_session
from branchline.cli.ship import change, meant
from branchline.cli.work import handle_of, told, warn_of_strangers
from branchline.core import names
from branchline.errors import BadName, IllegalMove, MergeConflict, NothingToDo

if TYPE_CHECKING:
    from branchline.cli.transport import Client

Document = Mapping[str, Any]
UNDER_TEST = ("A/B test", "won")


@click.command()
@click.argument("reference", metavar="SERVICE[@REVISION]")
@click.option("--on", "challenger", default="", metavar="CHALLENGER", help="Fix this challenger, not the incumbent.")
@click.option("--handle", default="", help="What the branch is called after; else you, as git knows you.")
@dry_run
@as_json
@pass_session
def fix(session: Session, reference: str, challenger: str, handle: str, dry_run: bool) -> None:
    """Begin a fix of what serves, or of a challenger.

    The branch begins at the right base: the trunk, or with `--on HANDLE` (or `SERVICE@HANDLE`, `@1.1.0`, `@challenger`)
    the branch of that challenger. Commit the fix, then `branchline deploy`: by a canary it replaces what it fixes.
    """
    tree = session.tree
    service = session.known(names.reference(reference).service or reference)
    handle = handle or handle_of(session)
    on = base_of(session, f"{service}@{challenger.rpartition('@')[2]}" if challenger else reference)
    branch = names.Branch("fix", service, handle, on).name
    if names.branch(branch) is None:
        raise BadName(what="handle", name=handle)
    base, file = on or session.trunk(), f"{session.services[service]}/{SERVICE_FILE}"
    remote = tree.remote
    commands = [f"git fetch --prune {remote}"] if remote else []
    commands += [f"git switch --no-track -c {branch} {f'{remote}/{base}' if remote else base}"]
    if dry_run:
        tree.beginning(branch, base, file)
        told(session, branch, base, "", commands)
        return
    told(session, branch, base, tree.start(branch, base, file), commands)
    if not on:
        warn_of_strangers(session, service, "branchline deploy tries that, too")
    show.say("next     mend it, commit, then: branchline deploy")


def base_of(session: Session, reference: str) -> str:
    """The experiment branch that a fix of this revision begins at; '' is the trunk. Raises IllegalMove, NothingToDo.

    A name says it by itself; for a version, a commit or `challenger` the daemon is asked who that is now.
    """
    named = names.reference(reference)
    if named.kind == "service" or (named.kind, named.text) == ("role", "incumbent"):
        return ""
    if named.kind == "branch":
        client = session.running()
        row = follow.row_of(client, named.service, named.text) if client else None
    else:
        client = session.client()
        if any(is_shown(row, named) for row in follow.rows_of(client, named.service) if row["phase"] == "live"):
            return ""
        row = meant(client, reference)
    branch = str(row["branch"]) if row else named.text
    if names.experiment(named.service, branch.rpartition("--")[2]) != branch:
        raise NothingToDo(f"push to it: git switch {branch}", what=f"{branch} is a fix itself")
    if row and row["state"] not in UNDER_TEST:
        hint = f"git switch {branch}, mend it there, then: branchline deploy {branch}"
        raise IllegalMove("only what is under test needs a fix beside it", hint=hint, event="a fix", subject=branch)
    return branch


def is_shown(row: Document, named: names.Reference) -> bool:
    """Whether a row of the status is about the version or commit that was named."""
    return row["version"] == named.text or (named.kind == "commit" and row["commit"].startswith(named.text))


@click.command()
@click.argument("branch", required=False, default="")
@click.option("--keep", is_flag=True,
              help="Let the judged code replace what came to the trunk meanwhile; merge nothing.")  # fmt: skip
@click.option("--because", default="", metavar="TEXT", help="Why; it is kept in the history.")
@click.option("--yes", "-y", is_flag=True, help="With --keep: do not ask.")
@click.option("--no-input", is_flag=True, help="With --keep: never ask; refuse instead.")
@dry_run
@as_json
@pass_session
def sync(session: Session, branch: str, keep: bool, dry_run: bool, **options: Any) -> None:
    """Bring a branch up to date with what it would replace.

    Before traffic that is a merge, which is pushed. Under test it is a fix named sync-N: it takes over the arm of the
    challenger by a canary, and then is part of it. --keep merges nothing, and says what is thrown away.
    """
    named = session.branch(names.reference(branch).text if "@" in branch else branch)
    if keep:
        change(session, "keep", named.name, {}, dry_run=dry_run, **options)
        return
    client = session.client()
    row = follow.row_of(client, named.service, named.name)
    if row and row["state"] in UNDER_TEST and not named.on:
        sync_under_test(session, client, named, row, dry_run)
    elif row and row["state"] in (*follow.SERVING, "won", "concluding"):
        hint = f"branchline sync --keep {named.name}; or branchline abort {named.name}, sync, and deploy anew"
        raise IllegalMove("what is being judged must stay what it is", hint=hint, event="sync", subject=named.name)
    else:
        sync_by_merge(session, named, trunk_of(session, client, named.service, row), dry_run)


def trunk_of(session: Session, client: Client, service: str, row: Document | None) -> str:
    """The branch that shows the incumbent of a candidate's line."""
    live = [each for each in follow.rows_of(client, service) if each["phase"] == "live"]
    mine = [str(each["branch"]) for each in live if row and each["line"] == row["line"]]
    return mine[0] if mine else session.trunk()


def sync_by_merge(session: Session, named: names.Branch, trunk: str, dry_run: bool) -> None:
    """Merge its base into a branch that has no traffic, in the work tree, and push it."""
    tree = session.tree
    base = named.on or trunk
    commands = [f"git fetch --prune {tree.remote}"] if tree.remote else []
    commands += [f"git switch {named.name}"] if tree.branch != named.name else []
    commands += [f"git merge {tree.remote}/{base}" if tree.remote else f"git merge {base}"]
    commands += [f"git push {tree.remote} {named.name}"] if tree.remote else []
    if dry_run:
        told(session, named.name, base, "", commands)
        return
    tree.fetch()
    if tree.branch != named.name:
        tree.switch(named.name)
    merged = tree.merge(base)
    tree.push(named.name)
    told(session, named.name, base, tree.tip(base), commands)
    show.say(f"next     branchline deploy {named.name}" if merged else "it was up to date")


def sync_under_test(session: Session, client: Client, named: names.Branch, row: Document, dry_run: bool) -> None:
    """Push the merge of a challenger's judged commit and the trunk as a fix of that challenger.

    Nothing is checked out: the work tree stays as it is. Raises MergeConflict with what to type instead.
    """
    if not row["behind"]:
        show.say("it was up to date")
        return
    tree, judged, base = session.tree, str(row["commit"]), trunk_of(session, client, named.service, row)
    fresh = next_sync(session, client, named)
    place, message = f"{tree.remote}/{base}" if tree.remote else base, f"Merge {base} into {named.name}"
    commands = [f"git fetch --prune {tree.remote}"] if tree.remote else []
    commands += [f"git merge-tree --write-tree {judged[:12]} {place}  # TREE"]
    commands += [f"git commit-tree TREE -p {judged[:12]} -p {place} -m '{message}'  # COMMIT"]
    commands += [f"git push {tree.remote} COMMIT:refs/heads/{fresh}" if tree.remote else f"git branch {fresh} COMMIT"]
    if dry_run:
        told(session, fresh, named.name, "", commands)
        return
    tree.fetch()
    tree.bring(judged, session.settings.state / "mirror.git")
    try:
        made = tree.merged(judged, tree.tip(base), message)
    except MergeConflict as conflict:
        by_hand = f"git switch --no-track -c {fresh} {judged[:12]} && git merge {place}"
        hint = f"{by_hand}; resolve, git commit, then: branchline deploy {fresh}"
        raise MergeConflict(conflict.cause, hint=hint, branch=named.name, paths=conflict.fields["paths"]) from None
    tree.publish(fresh, made)
    client.post("/v1/look")
    told(session, fresh, named.name, made, commands)
    show.say(f"next     branchline status {named.service} --watch: it is tried in the arm of {named.name}")


def next_sync(session: Session, client: Client, named: names.Branch) -> str:
    """The branch of a challenger's next sync; raises IllegalMove while one is under way."""
    prefix = f"fix--{named.service}--sync-"
    for row in follow.rows_of(client, named.service):
        mine = row["branch"].startswith(prefix) and row["branch"].endswith(f"--{named.handle}")
        if mine and row["state"] not in follow.REFUSED:
            hint = f"branchline status {named.service} --watch"
            cause = f"{row['branch']} is under way: {row['state']}"
            raise IllegalMove(cause, hint=hint, event="sync", subject=named.name)
    entries = client.get("/v1/history", service=named.service, limit=1000)["entries"]
    taken = {entry["detail"].get("branch") for entry in entries}
    branches = (f"{prefix}{number}--{named.handle}" for number in range(1, 10_000))
    return next(each for each in branches if each not in taken and not session.tree.tip(each))

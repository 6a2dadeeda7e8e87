"""This file is the commands a person works with, from an empty folder to a branch that is worth a push.

Every git command that changes something is printed as it could be typed. Work that is not committed is never lost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from branchline.cli import follow, show
from branchline.cli.session import SERVICE_FILE, WHO, Session, as_json, dry_run, naming, pass_session
from branchline.core import names
from branchline.core.codes import exit_of
from branchline.errors import BadName, DirtyWorkTree, NothingToDo, UsageError

LOG = "EXPERIMENT.md"


@click.command()
@click.argument("service", required=False, default="")
@click.option("--kind", type=click.Choice(["model", "app"]), default=None,
              help="model: released by an A/B test; app: by a canary. Else what the folder looks like.")  # fmt: skip
@dry_run
@as_json
@pass_session
def init(session: Session, service: str, kind: str | None, dry_run: bool) -> None:
    """Write the files of a new service.

    SERVICE/branchline.toml and what it names. What is there already is never overwritten.
    """
    from branchline.adapters.uv_locks import LOCKS, compiling
    from branchline.cli import scaffold

    top = session.tree.root
    here = session.folder.resolve()
    if not service and here == top:
        raise NothingToDo(what="say what the service is called", hint=f"branchline init {names.handle_from(top.name)}")
    name = service or here.name
    if not names.is_word(name):
        raise BadName(what="service", name=name)
    folder = here / name if service else here
    found = scaffold.detected(folder, kind or "", top)
    wanted = scaffold.files(name, found)
    fresh = scaffold.missing(folder, wanted)
    if found.said:
        show.say(f"found    {found.said}")
    kept = [str((folder / path).relative_to(top)) for path in wanted if path not in fresh]
    if session.json:
        paths = [str((folder / path).relative_to(top)) for path in fresh]
        show.document(
            {"schema": "branchline.init/1", "service": name, "kind": found.kind, "files": paths, "kept": kept}
        )
    for path, text in fresh.items():
        if not dry_run:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        if session.json:
            continue
        show.out(f"{'plan' if dry_run else 'wrote':<8} {(folder / path).relative_to(top)}")
        if dry_run:
            for line in text.splitlines():
                show.out(click.style(f"       + {line}", fg="green"))
    for path in kept:
        show.say(f"kept     {path}, which was there already")
    locked = any((folder / lock).exists() for lock in LOCKS)
    if found.is_python and not locked:
        show.say(f"next     (cd {folder.relative_to(top)} && {compiling()})")
    push = f" && git push {session.tree.remote} HEAD" if session.tree.remote else ""
    show.say(f"then     branchline check {name} && git add {folder.relative_to(top)} && git commit{push}")
    show.say(f'and      branchline start {name} --because "..."')


@click.command()
@naming("service", required=False, default="")
@as_json
@pass_session
def check(session: Session, service: str) -> None:
    """Say all that is wrong with the service files.

    Offline; exit 2 when anything is. Where the daemon is up and knows the traffic, also how long a test would take.
    """
    from branchline.cli import checks, plan
    from branchline.settings import project_of

    chosen = {service: session.services[session.known(service)]} if service else dict(session.services)
    if not chosen:
        raise NothingToDo(what="this repository has no service yet", hint="branchline init SERVICE")
    project_of(session.tree.root)
    found = [each for name, folder in chosen.items() for each in checks.problems(session, name, folder)]
    plans = [] if found else list(plan.expected(session, chosen))
    found += [each for name, expected in plans for each in checks.too_long(name, chosen[name], expected)]
    unsure = [each for name, folder in chosen.items() for each in checks.unsure(session.tree.root, name, folder)]
    if not found:  # else there is more to say first
        unsure += [each for name, folder in chosen.items() for each in checks.behind(session, name, folder)]
    named = checks.branch_problem(session.tree.branch)
    found += [named] if named else []
    if session.json:
        told = [{"service": p.service, "code": p.code, "text": p.text, "hint": p.hint} for p in found]
        notices = [{"code": each.code, "text": each.text, "where": each.where} for each in unsure]
        facts = {"ok": not found, "services": list(chosen), "problems": told, "notices": notices}
        durations = {"plans": dict(plans)} if plans else {}
        show.document({"schema": "branchline.check/1", **facts, **durations})
    else:
        for each in found:
            show.out(click.style(f"error[{each.code}]", fg="red", bold=True) + f": {each.text}")
            show.out(f"  hint:  {each.hint}")
        for notice in unsure:
            text, _, hint = notice.text.partition(" hint: ")
            show.out(click.style(f"note[{notice.code}]", fg="yellow") + f": {text.rstrip('.')}")
            if hint:
                show.out(f"  hint:  {hint}")
        for name, expected in plans:
            if expected["fits"]:
                show.out(f"plan   {name}: {expected['text']}")
        if not found:
            show.out(f"ok: {', '.join(chosen)}")
    raise click.exceptions.Exit(2 if found else 0)


@click.command()
@naming("service")
@click.option("--handle", default="", help="What the branch is called after; else you, as git knows you.")
@click.option("--because", required=True, metavar="TEXT", help="The hypothesis: what should become better, and why.")
@click.option("--metric", default="", metavar="NAME", help="What it is judged by, if the service file does not say.")
@click.option("--no-push", is_flag=True, help="Keep the branch to yourself; `deploy` pushes it.")
@dry_run
@as_json
@pass_session
def start(session: Session, service: str, handle: str, because: str, metric: str, no_push: bool, dry_run: bool) -> None:
    """Begin an experiment: its branch, its hypothesis, its first push.

    The branch begins at the default one, and `experiment--SERVICE--HANDLE` is its name.
    """
    tree = session.tree
    folder = session.services[session.known(service)]
    declared = metric_of(session, folder)
    if not because.strip():
        hint = f"branchline start {service} --because 'what should become better, and why'"
        raise UsageError("--because says nothing: the hypothesis is what a gate asks for", hint=hint)
    if metric and declared and metric not in declared:
        raise UsageError(f"--metric {metric}: the service file says {declared}", hint=f"edit {folder}/{SERVICE_FILE}")
    branch = names.experiment(service, handle or handle_of(session))
    path = f"{folder}/{LOG}"
    if tree.is_dirty([path]):
        raise DirtyWorkTree(f"{path} has changes that are not committed", hint=f"git commit {path}")
    trunk, remote = session.trunk(), tree.remote
    message = f"Start experiment {service}/{branch.rpartition('--')[2]}"
    place = f"{remote}/{trunk}" if remote else trunk
    commands = [f"git fetch --prune {remote}"] if remote else []
    commands += [f"git switch --no-track -c {branch} {place}"]
    commands += [f"git add {path}", f"git commit --only -m '{message}' {path}"]
    commands += [f"git push -u {remote} {branch}"] if remote and not no_push else []
    if dry_run:
        tree.beginning(branch, trunk, kept=f"{folder}/{SERVICE_FILE}")
        told(session, branch, trunk, "", commands)
        return
    tip = tree.start(branch, trunk, kept=f"{folder}/{SERVICE_FILE}")
    day = time.strftime("%Y-%m-%d", time.gmtime())
    text = written(service, because, declared or metric, f"{day}: started from {trunk} {tip[:7]}")
    (tree.root / folder).mkdir(parents=True, exist_ok=True)
    (tree.root / path).write_text(text, encoding="utf-8")
    tree.record(path, message)
    if not no_push:
        tree.push(branch)
    told(session, branch, trunk, tip, commands)
    warn_of_strangers(session, service, f"branchline fix {service} && branchline deploy tries it as a fix")
    client = None if no_push else session.running()
    if client and all(row["phase"] != "live" for row in follow.rows_of(client, service)):
        show.say(
            f"note     nothing serves {service} yet: what is pushed becomes its first revision once its gates pass"
        )
    show.say(f"next     edit {folder}, then: branchline run {service}")
    if tree.is_dirty([folder]):
        show.say(f"then     git add {folder} && git commit: what is not committed is not deployed")


def told(session: Session, branch: str, base: str, tip: str, commands: list[str]) -> None:
    """Print the git commands that were run from a tip of the base on; without a tip, those that would be."""
    if session.json:
        facts = {"branch": branch, "base": base, "from": tip, "commands": commands, "done": bool(tip)}
        show.document({"schema": "branchline.git/1", **facts})
        return
    done = [f"branch   {branch}  (from {base} {tip[:7]})", *show.ran(commands)]
    for line in done if tip else show.plan(("git", command) for command in commands):
        show.out(line)


def warn_of_strangers(session: Session, service: str, otherwise: str) -> None:
    """Say where a trunk holds what nothing knows, if a daemon can tell: a branch from there holds it, too."""
    client = session.running()
    if client is None:
        return
    client.post("/v1/look")
    if not follow.rows_of(client, service):
        return  # nothing of it was pushed yet
    for drift in client.get("/v1/status", reference=service)["parity"]["drifts"]:
        if drift["drift"] == "trunk is not the incumbent":
            show.say(f"note     {drift['what']} of {service}: somebody wrote there. Your branch holds that, too")
            show.say(f"undo it  {drift['repair']}")
            show.say(f"or else  {otherwise}")


def handle_of(session: Session) -> str:
    """The person's own handle; raises UsageError when git does not know them."""
    found = session.tree.handle()
    if not found:
        raise UsageError("git does not know who you are", hint=WHO)
    return found


def metric_of(session: Session, folder: str) -> str:
    """What the service file says a challenger is judged by, in words; '' when it says nothing that can be read."""
    import tomllib

    path = session.tree.root / folder / SERVICE_FILE
    try:
        said: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")).get("metric", {})
        direction = said.get("direction", "lower" if said.get("kind") == "error" else "higher")
        worth = f"; an effect of {said['mde']} is worth a change" if "mde" in said else ""
        worth = f"; no worse by {said['margin']} will do" if "margin" in said else worth
        return f"`{said['name']}`, {direction} is better{worth}."
    except (OSError, tomllib.TOMLDecodeError, KeyError, AttributeError):
        return ""


def written(service: str, because: str, metric: str, first: str) -> str:
    """The text of an experiment's log (1.14, 1.27); the gate `log` asks for its three sections."""
    metric = metric or "<!-- which number is to become better, and by how much? -->"
    return f"# Hypothesis\n{because}\n\n# Metric\n{metric}\n\n# Log\n- {first}\n"


@click.command()
@naming("service", required=False, default="")
@click.option("--no-gates", is_flag=True, help="Only the steps.")
@click.option("--keep-going", "-k", is_flag=True, help="After a step has failed, run all that does not need it.")
@click.option("--verify", is_flag=False, flag_value="*", default="", metavar="[STEP]",
              help="Run what could be reused again and compare: one step, or all.")  # fmt: skip
@dry_run
@as_json
@pass_session
def run(session: Session, service: str, no_gates: bool, keep_going: bool, verify: str, dry_run: bool) -> None:
    """Run steps and gates on the work tree as it is.

    Exit 1 when a gate says no, or a step left something else than before. What comes out is reused by a later build of
    the same content, and is never deployable itself. Ctrl-C ends it; the next run goes on from what was finished.
    """
    name = session.service(service)
    tree = session.tree
    commit, head, branch = tree.snapshot(), tree.head, tree.branch
    client = session.client()
    body = {"service": name, "commit": commit, "gates": not no_gates, "keep_going": keep_going, "verify": verify}
    where = f"branch {branch}  " if branch else ""
    changed = "" if commit == head else " + what is not committed"
    show.say(f"{name}  {where}{(head or commit)[:7]}{changed}")

    def tell(note: Any) -> None:
        if session.json:
            show.document({"schema": "branchline.note/1", **note}, line=True)
        else:
            show.out(show.note(note))

    topic = client.post("/v1/run", {**body, "dry_run": dry_run})["topic"]
    try:
        end = follow.to_the_end(client, topic, tell)
    except KeyboardInterrupt:
        client.post("/v1/run/stop", {"topic": topic})
        show.say("\nstopped; the next run goes on from what was finished")
        raise click.exceptions.Exit(130) from None
    if session.json:
        show.document({"schema": "branchline.note/1", **end}, line=True)
    if problem := end["more"].get("problem"):
        show.problem(problem, session.json)
        raise click.exceptions.Exit(exit_of(problem["code"]))
    if dry_run:
        return
    failed = end["more"].get("failed", [])
    if failed and verify:
        show.say(f"differs  {', '.join(failed)}: what served so far is kept; look for threads, clocks and randomness")
        raise click.exceptions.Exit(1)
    if failed:
        show.say(f"stays    {branch or name}: {', '.join(failed)} said no")
    for line in onward(name, branch, failed):
        show.say(f"next     {line}")
    raise click.exceptions.Exit(1 if failed else 0)


def onward(service: str, branch: str, failed: Sequence[str]) -> list[str]:
    """What to type after a run on a branch, with the gates that said no; nothing where that is for a person to find."""
    begun = names.branch(branch) is not None
    if failed:
        wanted = "log" in failed and not begun
        return [f'branchline start {service} --because "...": a branch of its own, and the log'] if wanted else []
    start = "git commit, then: branchline deploy"
    return [start if begun else f'branchline start {service} --because "...", git commit, then: branchline deploy']


@click.command()
@naming("reference")
@click.option("--into", type=click.Path(path_type=Path), default=None, metavar="FOLDER",
              help="Where to put the work tree; else beside yours.")  # fmt: skip
@click.option("--again", is_flag=True, help="Put back what differs in files that were laid out before.")
@dry_run
@as_json
@pass_session
def checkout(session: Session, reference: str, into: Path | None, again: bool, dry_run: bool) -> None:
    """Lay out the code, environment and artifacts of a revision.

    The code is a work tree of its own, beside yours. What was changed there stays as a stash when it is put back.
    """
    client, top = session.client(), session.tree.root
    found = client.get("/v1/revision", reference=reference)
    folder = (
        into or top.parent / f"{top.name}--{found['service']}-{found['version'] or found['commit'][:7]}"
    ).resolve()
    if again:
        laid_again(session, found, folder, dry_run)
        return
    command = f"git worktree add --detach {folder} {found['commit'][:12]}"
    if dry_run:
        show.out(f"plan     {command}")
        return
    session.tree.checkout(found["commit"], folder, session.settings.state / "mirror.git", found["name"])
    laid = client.post("/v1/checkout", {"reference": found["name"]})
    if session.json:
        told = {"reference": found["name"], "commit": found["commit"], "folder": str(folder)}
        places = {part: laid[part] for part in ("python", "artifacts", "data", "missing")}
        show.document({"schema": "branchline.checkout/1", **told, **places})
        return
    for line in show.ran([command]):
        show.say(line)
    show.out(f"code     {folder}")
    for line in laid_out(laid):
        show.out(line)
    show.say(f"next     cd {folder}; git worktree remove {folder} when you are done")


def laid_out(laid: Mapping[str, Any]) -> Iterator[str]:
    """Where the rest of a revision lies, and why what is missing cannot be had."""
    if laid["python"]:
        yield f"python   {laid['python']}"
    for word, part in (("result", "artifacts"), ("data", "data")):
        yield from (f"{word:<8} {name}: {path}" for name, path in laid[part].items() if path)
    for name, why in laid["missing"].items():
        yield f"missing  {name}: {why}"


def laid_again(session: Session, found: Mapping[str, Any], folder: Path, dry_run: bool) -> None:
    """Put back the files that a revision is served from, and those of its work tree where there is one."""
    if dry_run:
        show.out(f"plan     put back what differs from {found['commit'][:12]} where {found['name']} is served from")
        if folder.is_dir():
            show.out(f"plan     git -C {folder} stash push; git -C {folder} checkout --detach {found['commit'][:12]}")
        return
    files = session.client().post("/v1/mend", {"reference": found["name"]})["files"]
    stashed = folder.is_dir() and session.tree.again(found["commit"], folder)
    if session.json:
        show.document({"schema": "branchline.mend/1", "files": files, "folder": str(folder) if stashed else ""})
        return
    for path in files:
        show.out(f"put back {path}")
    if stashed:
        show.out(f"put back {folder}; what was changed: git -C {folder} stash list")
    if not files and not stashed:
        show.say("nothing differs")

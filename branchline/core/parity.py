"""This file says in which ways git, production and the record can disagree, and what is typed to repair each.

Rules. A drift is named for as long as it is there, also when it would be healed within seconds. What the daemon heals
by itself is repaired by its start. Refs, trunks and other people's processes are repaired by git or the shell, in full
view: whoever changed them may have had a reason, so nothing of ours writes over them. One command for each drift; typed
as it is printed, at the top of the work tree, it is enough.
"""

from __future__ import annotations

import shlex
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from branchline.core.service import OPEN, SERVING, Candidate, Phase, Service
from branchline.core.world import FOREIGN, Route, Start, Step, Stop, World, Write, desired

UP = "branchline up"
RESTORE = "branchline up --restored"


@dataclass(frozen=True, slots=True)
class Sort:
    """A way to disagree: where it shows, how it is told, what is typed; the last two have their fields filled in."""

    kind: str
    what: str
    repair: str = UP


@dataclass(frozen=True, slots=True)
class Marks:
    """Tags and keep-refs, by full name the commit: in the `truth` as last fetched, and in our own `mirror`.

    `remote` is what the truth is called in the user's repository ('' when it is that repository itself), `place` where
    git finds the mirror.
    """

    remote: str
    place: str
    truth: Mapping[str, str]
    mirror: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Drift:
    """One place where git, production and the record disagree: `drift` is its sort, `kind` where it shows."""

    service: str
    drift: str
    kind: str
    what: str
    repair: str


# In the order in which they are told.
SORTS: Mapping[str, Sort] = {
    "older ledger": Sort("ledger", "the ledger is an older copy: {what}; nothing is done for {service}", RESTORE),
    "unseen": Sort("git", "{what}", "{command}"),
    "gateway down": Sort("traffic", "the gateway does not run"),
    "edited gateway file": Sort("traffic", "{what} is not what was written there"),
    "stranger on a socket": Sort("process", "{what} is answered by {who}", "{command}"),
    "live revision without branch": Sort("git", "{branch} serves but its branch is gone: it is to leave traffic"),
    "branch without deployment": Sort("git", "{branch} at {commit:.7} is not followed yet"),
    "refused branch": Sort("git", "{branch} cannot be followed: {why}", "{command}"),
    "unread push": Sort("git", "{branch} was moved to {commit:.7}, which is not read yet"),
    "branch gone": Sort("git", "{branch} is gone: it is to be withdrawn"),
    "trunk is not the incumbent": Sort("git", "{ref} shows no known revision", "{command}"),
    "shared path moved": Sort(
        "git",
        "{ref} has {path} as {other} changed it; {service} serves it as before",
        "branchline fix {service} && branchline deploy",
    ),
    "conclusion held up": Sort("git", "{branch} is concluding: {why}", "{command}"),
    "route to the unknown": Sort("traffic", "{who} has traffic, and nothing knows it; to do: {step}"),
    "missing process": Sort("process", "to do: {step}"),
    "orphan process": Sort("process", "{what}", "{command}"),
    "route to the dead": Sort("traffic", "{who} runs, and the gateway does not know where"),
    "shares": Sort("traffic", "to do: {step}"),
    "unwritten": Sort("git", "to do: {step}"),
    "keep-ref gone": Sort("git", "{ref} {what}", "{command}"),
    "tag moved": Sort("git", "{ref} {what}", "{command}"),
    "files differ": Sort("files", "{what}", "{command}"),
}


def drift(sort: str, service: str, **fields: object) -> Drift:
    """A drift of a sort, with its fields filled in."""
    row, said = SORTS[sort], {"service": service, **fields}
    return Drift(service, sort, row.kind, row.what.format_map(said), row.repair.format_map(said))


def of_world(
    service: Service, actual: World, steps: Iterable[tuple[Step, str]], refs: Container[str]
) -> Iterator[Drift]:
    """What production and git do not show yet; `steps` is the plan, each step with its words.

    A trunk that has lost the service is told as a trunk: no step of ours brings back what somebody has dropped.
    """
    known = {each.revision for each in service.candidates} | {each for line in service.lines for each in line.history}
    routes = dict(actual.routes)
    for step, words in steps:
        match step:
            case Start():
                yield drift("missing process", service.name, step=words)
            case Stop():
                yield drift("orphan process", service.name, what=f"to do: {words}", command=UP)
            case Route(line=line):
                strangers = [revision for revision, _ in routes.get(line, ()) if revision not in known]
                who = ", ".join(f"{revision:.7}" for revision in strangers)
                yield drift("route to the unknown" if who else "shares", service.name, who=who, step=words)
            case Write(ref=ref, seen=None, revision=revision) if ref in refs and is_incumbent(service, revision):
                continue
            case _:
                yield drift("unwritten", service.name, step=words)


def of_trunks(
    service: Service, actual: World, refs: Container[str], closure: Iterable[str], remote: str
) -> Iterator[Drift]:
    """Trunks whose tree no revision has, or that have lost the service: only a person knows what was meant."""
    shown = dict(actual.trunks)
    for ref, revision in desired(service).trunks:
        dropped = ref in refs and ref not in shown and is_incumbent(service, revision)
        if shown.get(ref) == FOREIGN or dropped:
            command = restoring(ref, _before(service, revision), closure, remote)
            yield drift("trunk is not the incumbent", service.name, ref=ref, command=command)


def is_incumbent(service: Service, revision: str) -> bool:
    """Whether a revision holds a line."""
    return any(line.incumbent == revision for line in service.lines)


def _before(service: Service, revision: str) -> str:
    """The incumbent of a trunk that is to show a revision: that one, or whom it is about to replace there.

    A new major takes the default branch over from the newest line before it.
    """
    if is_incumbent(service, revision):
        return revision
    line = next((each.line for each in service.candidates if each.revision == revision), 0)
    heads = [service.line(line).incumbent, *(each.incumbent for each in reversed(service.lines))]
    return next(filter(None, heads), revision)


def of_branches(
    service: Service, actual: World, branches: Mapping[str, str], quiet: Container[str], refused: str, remote: str
) -> Iterator[Drift]:
    """Branches that are not what was recorded of them.

    Those in `quiet` are no candidates for a reason that is told beside; `refused` says why an opening cannot be.
    """
    candidates = {each.branch: each for each in service.candidates}
    for ref, tip in sorted(branches.items()):
        known = candidates.get(ref)
        if known and known.phase in OPEN:
            if tip != known.tip:
                yield drift("unread push", service.name, branch=ref, commit=tip)
        elif not (known and tip in (known.tip, known.revision)) and ref not in quiet:
            sort = "refused branch" if refused else "branch without deployment"
            command = f"git push {remote} --delete {ref}" if remote else f"git branch -D {ref}"
            yield drift(sort, service.name, branch=ref, commit=tip, why=refused, command=command)
    merged = {revision for _, revision in actual.trunks}
    for each in service.candidates:
        if each.phase in OPEN and each.branch not in branches and each.revision not in merged:
            serves = each.phase in SERVING
            yield drift("live revision without branch" if serves else "branch gone", service.name, branch=each.branch)


def of_conclusions(service: Service) -> Iterator[Drift]:
    """Conclusions that git does not take."""
    for each in service.candidates:
        if each.phase is Phase.CONCLUDING and each.trouble:
            command = _way_out(each)
            yield drift("conclusion held up", service.name, branch=each.branch, why=each.trouble, command=command)


def _way_out(candidate: Candidate) -> str:
    ways = {"remote": "git ls-remote origin", "checked out": "git stash"}
    return ways.get(candidate.trouble, f"branchline abort {candidate.branch}")


def of_marks(service: Service, versions: Mapping[str, str], marks: Marks) -> Iterator[Drift]:
    """Tags and keep-refs of whatever has been incumbent: never to move, never to go (I25)."""
    for commit in dict.fromkeys(commit for line in service.lines for commit in line.history):
        version = versions.get(commit, "")
        kept, tag = f"refs/branchline/revisions/{service.name}/{version}", f"refs/tags/{service.name}@v{version}"
        looked = [
            (kept, marks.mirror, marks.place),
            (kept, marks.truth, marks.remote),
            (tag, marks.truth, marks.remote),
        ]
        for ref, refs, where in looked if version else ():
            if refs.get(ref) != commit:
                what = f"is at {refs[ref]:.7}, not at {commit:.7}" if ref in refs else "is gone"
                command = pointing(ref, commit, where, moves=ref in refs)
                yield drift(
                    "tag moved" if ref == tag else "keep-ref gone", service.name, ref=ref, what=what, command=command
                )


def pointing(ref: str, commit: str, where: str, moves: bool) -> str:
    """The command that points a ref of a remote ('': of this repository) to a commit."""
    if not where:
        return f"git update-ref {ref} {commit}"
    return f"git push {'--force ' if moves else ''}{shlex.quote(where)} {commit}:{ref}"


def restoring(ref: str, commit: str, paths: Iterable[str], remote: str) -> str:
    """The commands that make a trunk show a revision again, by a commit of the person's own."""
    there = " ".join(shlex.quote(path) for path in paths)
    steps = [f"git switch {ref}", f"git restore --source={commit[:12]} --staged --worktree -- {there}"]
    steps.append(f"git commit -m 'Restore {commit[:7]}'")
    if remote:
        steps = [steps[0], f"git pull --ff-only {remote} {ref}", *steps[1:], f"git push {remote} {ref}"]
    return " && ".join(steps)

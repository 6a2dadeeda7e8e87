"""This file plays the transcripts: one text for each paragraph of what the software is for, an event and what became.

A line that begins with `> ` is an event (`EVENTS` below), the indented lines after it are what was recorded, what was
done to git, traffic and processes in order, and how all stand then. Paragraphs and their requirements are named on top.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from branchline.core import lifecycle as law
from branchline.core.waiting import waits_for
from tests.world import MODEL, World

FOLDER = Path(__file__).parents[1] / "transcripts"
TEXTS = sorted(FOLDER.glob("*.txt"))
SKIPPING = MODEL.replace("rollout = {", 'rollout = { skip_ab = "only the wording changed",')


def push(world: World, branch: str, *words: str) -> None:
    """`push BRANCH [from BRANCH] [policy=skip_ab] [gate=json]`"""
    start = words[words.index("from") + 1] if "from" in words else ""
    said = dict(word.split("=", 1) for word in words if "=" in word)
    toml = SKIPPING if said.pop("policy", "") else ""
    world.push(branch, toml, start=start, says={k: json.loads(v) for k, v in said.items()}, folder="housing")


def ask(world: World, command: str, reference: str) -> None:
    """`ask COMMAND REFERENCE`"""
    world.ask(command, reference)


def rate(world: World, units: str, *words: str) -> None:
    """`rate UNITS VERSION=MEAN...`: each unit is served and rates what it got"""
    commits = {revision.version: revision.commit for revision in world.catalog.revisions("housing")}
    means = {commits[word.split("=")[0]]: float(word.split("=")[1]) for word in words}
    world.play(int(units), {commit: lambda n, mean=mean: mean + n % 3 - 1 for commit, mean in means.items()})  # type: ignore[misc]


def verdict(world: World, branch: str, event: str) -> None:
    """`verdict BRANCH Won|Lost`: the judge has spoken; how it comes to that is played in one transcript alone"""
    world.record({"Won": law.Won, "Lost": law.Lost}[event](branch))


def fail(world: World, units: str, version: str) -> None:
    """`fail UNITS VERSION`: so many units are served while that revision answers 503"""
    commits = {revision.version: revision.commit for revision in world.catalog.revisions("housing")}
    world.visit([f"f{n}" for n in range(int(units))], fails=[commits[version]])


def remote(world: World, state: str) -> None:
    """`remote dies` and `remote lives`"""
    world.git.reachable = state == "lives"


def daemon(world: World, state: str) -> None:
    """`daemon dies`: another one begins"""
    world.restart()


EVENTS: dict[str, Callable[..., None]] = {
    "push": push, "ask": ask, "rate": rate, "verdict": verdict, "fail": fail, "remote": remote, "daemon": daemon,
    "wait": lambda world, seconds: world.clock.advance(float(seconds)),
    "delete": lambda world, branch: world.git.remove(branch),
    "merge": lambda world, branch, into: world.git.reset(into, world.git.tip(branch)),
}  # fmt: skip


def happened(world: World, event: str) -> Iterator[str]:
    """Let an event happen and everything settle, and say what became."""
    entries, effects = len(world.ledger.entries), len(world.effects)
    if event.startswith("plan "):
        for kind, text in world.plan(*event.split()[1:]):
            yield f"would  {kind:8} {short(text)}"
        return
    word, *rest = event.split()
    EVENTS[word](world, *rest)
    world.settle()
    recorded = [entry.event for entry in world.ledger.entries[entries:]]
    yield f"recorded {', '.join(recorded)}" if recorded else "nothing is recorded"
    for kind, text in world.done(effects):
        yield f"{kind:8} {short(text)}"
    yield from standing(world)


def standing(world: World) -> Iterator[str]:
    """How all stand: branches, traffic, the trunk, every candidate, parity."""
    versions = {r.commit: r.version for r in world.catalog.revisions("housing")}
    yield f"= branches {', '.join(sorted(world.git.heads))}"
    shares = ", ".join(f"{versions[commit]} {share}%" for commit, share in world.shares().items())
    shows = world.controller.observer.trunk(world.service(), "main") if world.controller.observer.fetched else "unseen"
    yield f"= traffic {shares or 'none'}; main shows {versions.get(shows or 'nothing', shows or 'nothing')}"
    for row in world.service().candidates:
        waits = waits_for(world.service(), row)
        version = versions.get(row.revision, "unbuilt")
        yield f"= {row.branch} {version} {row.phase.value}" + (f", waits for: {waits}" if waits else "")
    yield from (f"= drift: {short(what)}" for what in world.drifts())
    yield f"= parity {'holds' if world.parity() else 'does not hold'}"


def short(text: str) -> str:
    """Without commits: they are other ones whenever a fake changes."""
    return re.sub(r" \([0-9a-f]{7}\)| at [0-9a-f]{7}$", "", text)


def played(world: World, text: str) -> str:
    """The whole transcript as it is now: its words and events, and what became of each."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("  "):
            lines.append(line)
        if line.startswith("> "):
            lines += [f"  {each}" for each in happened(world, line.removeprefix("> "))]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_what_is_written_is_what_happens(world: World, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert played(world, text) == text


def test_every_requirement_of_the_two_chapters_has_a_transcript() -> None:
    cited = set(re.findall(r"\b1\.\d\d\b", "".join(path.read_text(encoding="utf-8") for path in TEXTS)))
    assert {f"1.{n}" for n in range(23, 52)} <= cited

"""This file says what came of what: from a served answer back to code and data, and from data on to every revision.

A graph is nodes and edges, and nothing more: an edge leads from what was made to what it was made of. Ids are those of
the things themselves (a commit, a digest), so two graphs may be laid over one another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from branchline.core.reuse import Line
from branchline.core.revision import GateResult, Revision, StepRun
from branchline.core.tracking import Run

SHORT = 12  # characters of a digest that people read


@dataclass(frozen=True, slots=True)
class Node:
    """One thing: `kind` is request, revision, commit, step, data, artifact, environment, sdk or gate; `id` is unique,
    `name` what people call it, `told` what is known of it.
    """

    kind: str
    id: str
    name: str
    told: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """`made` was made of (served by, judged by) `of`, as the word `how` says."""

    made: str
    how: str
    of: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """A graph: its root is the first node."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def joined(*parts: Iterable[Node | Edge]) -> Lineage:
    """One graph of all, each node and edge once, in the order in which they were first told; edges whose ends are both
    there.
    """
    nodes: dict[str, Node] = {}
    edges: dict[Edge, None] = {}
    for each in (each for part in parts for each in part):
        if isinstance(each, Edge):
            edges[each] = None
        elif each.id not in nodes or len(each.told) > len(nodes[each.id].told):  # whoever knows most of it
            nodes[each.id] = each
    return Lineage(tuple(nodes.values()), tuple(each for each in edges if each.made in nodes and each.of in nodes))


# ---- backwards


def backwards(revision: Revision, steps: Sequence[StepRun], gates: Sequence[GateResult]) -> Iterator[Node | Edge]:
    """What a revision was made of: commit and branch, steps with their keys in brief, data, environment, sdk, gates."""
    mine = revision_id(revision)
    yield revision_node(revision)
    commit = f"commit {revision.commit}"
    by = (("branch", revision.branch), ("author", revision.author))
    yield Node("commit", commit, revision.short, tuple(each for each in by if each[1]))
    yield Edge(mine, "built from", commit)
    if revision.trained not in ("", revision.commit):
        trained = f"commit {revision.trained}"
        yield Node("commit", trained, revision.trained[:7])
        yield Edge(mine, "trained at", trained)
    for step in whole(steps):
        yield from of_step(step)
        if (step.step, step.artifact) in revision.artifacts and not step.item:
            yield Edge(mine, "result of", step_id(step))
    for source, digest in revision.data:
        yield data_node(source, digest)
        yield Edge(mine, "made with", f"data {digest}")
    for kind, digest in (("environment", revision.environment), ("sdk", revision.sdk)):
        yield Node(kind, f"{kind} {digest}", f"{kind} {digest[:SHORT]}")
        yield Edge(mine, "runs in", f"{kind} {digest}")
    for gate in gates:
        yield Node("gate", f"gate {revision.commit} {gate.gate}", f"gate {gate.gate}: {gate.result.value}",
                   (("found", gate.summary),))  # fmt: skip
        yield Edge(mine, "judged by", f"gate {revision.commit} {gate.gate}")


def of_step(step: StepRun) -> Iterator[Node | Edge]:
    """A step's result, and what of other steps and of data it was made of."""
    mine = step_id(step)
    name = step.name
    told = (("artifact", step.artifact), ("key", step.key), ("made of", brief(step.lines)))
    yield Node("step", mine, name, tuple(each for each in told if each[1]))
    for line in step.lines:
        kind, _, source = line.name.partition(" ")
        if kind == "data":
            yield data_node(source, line.hash)
            yield Edge(mine, "reads", f"data {line.hash}")
        elif kind == "input":
            yield Edge(mine, "takes", f"artifact {line.hash}")


def brief(lines: Iterable[Line]) -> str:
    """What a key was made of in a few words: `code 3, data sales, parameter seed`."""
    told: list[str] = []
    counted = Counter(line.name.partition(" ")[0] for line in lines if line.name.startswith(("code ", "file ")))
    told += [f"{kind} {count}" for kind, count in sorted(counted.items())]
    told += sorted(line.name for line in lines if line.name.startswith(("data ", "input ", "parameter ", "variable ")))
    return ", ".join(told)


# ---- forwards


def forwards(digest: str, runs: Iterable[Run], revisions: Sequence[Revision]) -> Iterator[Node | Edge]:
    """Every result and revision that was made of a data version or an artifact, however far off.

    Runs are looked through until none adds anything: a step may have been run long before another took its result.
    """
    known = [step for run in runs for step in whole(run.steps) if step.artifact]
    made, found, grown = {digest}, dict[str, StepRun](), True
    while grown:
        fresh = {
            step.artifact: step
            for step in known
            if step.artifact not in found
            and (step.artifact == digest or any(line.hash in made for line in given(step)))
        }
        found |= fresh
        made |= fresh.keys()
        grown = bool(fresh)
    for step in found.values():
        yield from of_step(step)
    called = {step.step for step in known if step.artifact == digest and not step.item}
    called |= {line.name[5:] for step in known for line in given(step) if line.hash == digest}
    for revision in revisions:
        if not made_of_another(revision, digest, called):
            yield from of_revision(revision, made)


def made_of_another(revision: Revision, digest: str, called: Container[str]) -> bool:
    """Whether a revision says that it has something else by that name: it may have the same results all the same."""
    parts = (*revision.data, *revision.artifacts)
    return all(each != digest for _, each in parts) and any(name in called for name, _ in parts)


def of_revision(revision: Revision, made: Iterable[str]) -> Iterator[Node | Edge]:
    """A revision, if any of these data versions and artifacts is in it."""
    wanted = {*made}
    edges = [Edge(revision_id(revision), "made with", f"data {each}") for _, each in revision.data if each in wanted]
    edges += [
        Edge(revision_id(revision), "result of", f"artifact {each}") for _, each in revision.artifacts if each in wanted
    ]
    if edges:
        yield revision_node(revision)
        yield from edges


def whole(steps: Sequence[StepRun]) -> Iterator[StepRun]:
    """The steps of a run; one that joins what was made for each of a list says that it was made of those."""
    for step in steps:
        items = [each for each in steps if each.item and not step.item and each.step == step.step]
        lines = tuple(Line(f"input {each.step}[{each.item}]", each.artifact) for each in items)
        yield replace(step, lines=step.lines + lines) if lines else step


def given(step: StepRun) -> Iterator[Line]:
    """The lines of a step's key that say of which data and results it was made."""
    return (line for line in step.lines if line.name.startswith(("data ", "input ")))


# ---- ids and names


def revision_id(revision: Revision) -> str:
    """What a revision is known by."""
    return f"revision {revision.service} {revision.commit}"


def step_id(step: StepRun) -> str:
    """A step that left something is known by that."""
    return f"artifact {step.artifact}" if step.artifact else f"step {step.key} {step.step}"


def revision_node(revision: Revision) -> Node:
    """A revision."""
    return Node("revision", revision_id(revision), revision.name, (("commit", revision.commit),))


def data_node(source: str, digest: str) -> Node:
    """A data version."""
    return Node("data", f"data {digest}", f"{source} {digest[:SHORT]}")

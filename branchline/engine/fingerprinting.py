"""This file finds what a step's result depends on: the lines of its key before it runs, the facts when it has run.

All of it is read from what git holds of the revision, never from a step's word: the recorder only names what a step
met. Files are known by git's ids of their content, and what is parsed of one is kept for as long as the daemon lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from branchline.core import source
from branchline.core.closure import Closure, File, Project, closure_of, covered_by, value_of
from branchline.core.reuse import Fact, Line, Notice
from branchline.core.revision import digest
from branchline.core.spec import Spec, Step
from branchline.engine.preparing import Prepared
from branchline.ports import Ports

VERIFIABLE = frozenset({"file", "listing", "stat", "module", "ran"})
# What a step met that nobody can look at again, and what a person should know besides.
UNSEEN = {
    "child": ("BL301", "{step} starts {name}{where}; what that reads cannot be seen"),
    "network": ("BL302", "{step} connects to {name}{where}; what it answers cannot be looked at again"),
    "outside": ("BL307", "{step} reads {name}{where}, which is neither its project's nor declared"),
    "blind": ("BL309", "what {step} reads could not be recorded: {name}"),
}
WARNED = {"variable": ("BL306", "{step} reads the variable {name}{where}, which is not declared: it never has a value")}
DECLARABLE = frozenset({"BL301", "BL307"})  # what `reads` says instead
_SUMMARIES: dict[str, source.Module] = {}  # by the id of a file's content: it never means anything else
PROJECTS = 64  # that are remembered
MOST = 20_000  # summaries that are remembered


def project_of(ports: Ports, prepared: Prepared) -> Project:
    """The files of a revision's closure, linked as Python will link them; parsed once for one content."""
    return _project(_Tree(ports, prepared))


class _Tree:
    """A revision's tree as a key of the cache: two of one content are one, whatever commits they are of."""

    def __init__(self, ports: Ports, prepared: Prepared) -> None:
        self.ports, self.prepared = ports, prepared
        self.key = (str(ports.state), prepared.tree, prepared.spec.closure)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Tree) and self.key == other.key


@lru_cache(maxsize=PROJECTS)
def _project(tree: _Tree) -> Project:
    prepared = tree.prepared
    spec, code = prepared.spec, prepared.code
    files = {
        path: File(content, size)
        for path, (content, size) in tree.ports.repository.files(prepared.commit, spec.closure).items()
    }
    newest = _newest(str(tree.ports.state), spec.name)
    project = Project(files, import_roots(spec), lambda path: summarised(files[path].digest, code / path), *newest)
    newest[:] = [project]
    return project


@lru_cache(maxsize=PROJECTS)
def _newest(state: str, service: str) -> list[Project]:
    """The project of a service that was read last, if any: most of its closures are the next one's, too."""
    return []


def import_roots(spec: Spec) -> tuple[str, ...]:
    """The folders that a service's modules are imported from, in order."""
    return (spec.folder, "") if spec.shared else (spec.folder,)


def summarised(content: str, path: Path, most: int = MOST) -> source.Module:
    """What a file says as a module, from what is remembered of its content or read now."""
    found = _SUMMARIES.get(content)
    if found is None:
        if len(_SUMMARIES) >= most:
            _SUMMARIES.clear()
        found = _SUMMARIES[content] = source.summary(path.read_bytes())
    return found


def given_lines(prepared: Prepared, step: Step, needs: Sequence[str], results: Mapping[str, str]) -> Iterable[Line]:
    """What a step is given: artifacts of other steps, data, parameters, variables, and what it is run in."""
    parameters, data = dict(prepared.spec.parameters), prepared.data_digests
    for name in needs:
        if name in results:
            yield Line(f"input {name}", results[name])
        elif name in data:
            yield Line(f"data {name}", data[name])
        else:
            yield Line(f"parameter {name}", digest(parameters[name]))
    yield from (Line(f"variable {name}", digest(value)) for name, value in step.env)
    yield Line("environment", prepared.environments[step.environment].digest)
    yield Line("step", digest([step.name, step.call, step.command, step.output, step.save]))


def code_lines(
    project: Project, prepared: Prepared, step: Step
) -> tuple[tuple[Line, ...], tuple[Notice, ...], Closure]:
    """What a step's code is: of a function all that it reaches, of a command all files or those that it says."""
    spec = prepared.spec
    said = tuple(Line(f"file {path}", project.files[path].digest) for path in read_by(project, spec, step))
    if not step.call:
        lines = said if step.reads else (Line("files", prepared.tree),)
        return lines, (), Closure()
    closure = closure_of(project, step.call, declared=frozenset(name for name, _ in step.env))
    sdk = Line("sdk", prepared.sdk)
    known = {line.name for line in closure.lines}
    lines = (*closure.lines, *(line for line in said if line.name not in known), sdk)
    # What the text only may do refuses nothing: the recorder will say whether it was done.
    return lines, escaped(step, (replace(each, refuses=False) for each in closure.notices)), closure


def read_by(project: Project, spec: Spec, step: Step) -> list[str]:
    """The files that `reads` of a step means; a pattern counts from the service's folder, and matches whole paths."""
    patterns = [f"{spec.folder}/{pattern}" for pattern in step.reads]
    if not patterns:
        return []
    return sorted(path for path in project.files if any(fnmatchcase(path, pattern) for pattern in patterns))


def recorder(project: Project, prepared: Prepared, closure: Closure, allowed: Iterable[Path]) -> dict[str, Any]:
    """What the recorder in the step's process has to know."""
    covered = covered_by(project, closure.lines)
    return {
        "root": str(prepared.code),
        "roots": [str(path) for path in prepared.imports],
        "files": list(prepared.spec.closure),
        "allowed": [str(path) for path in (*allowed, prepared.sdk_path)],
        "imported": sorted(closure.imported),
        "covered": {module: sorted(names) for module, names in sorted(covered.items())},
    }


def met(project: Project, step: Step, told: Iterable[Sequence[str]]) -> tuple[tuple[Fact, ...], tuple[Notice, ...]]:
    """What a run met: facts with the values that they had, and what cannot be looked at again."""
    facts, notices = {}, {}
    for kind, name, *detail in told:
        where = f" ({detail[0]})" if detail and detail[0] else ""
        if kind in VERIFIABLE:
            facts[kind, name] = Fact(kind, name, value_of(project, kind, name))
        elif kind in WARNED:
            code, text = WARNED[kind]
            notices[kind, name] = Notice(code, text.format(step=step.name, name=name, where=where))
        else:
            code, text = UNSEEN[kind]
            notices[kind, name] = Notice(code, text.format(step=step.name, name=name, where=where), refuses=True)
    return tuple(facts[key] for key in sorted(facts)), tuple(notices[key] for key in sorted(notices))


def escaped(step: Step, notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """The notices of a step, each kind once; what its service file answers for refuses no more."""
    known = {each.code: each for each in sorted(notices, key=lambda each: each.refuses)}

    def answered(code: str) -> bool:
        return step.reuse == "always" or (code in DECLARABLE and bool(step.reads))

    return tuple(replace(known[code], refuses=known[code].refuses and not answered(code)) for code in sorted(known))

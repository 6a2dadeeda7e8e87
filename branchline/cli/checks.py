"""This file finds all that is wrong with the services of a work tree, offline: each problem with its code and cure.

What is read is the work tree as it is, so that a person learns in a second what a build would tell in minutes.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from branchline.adapters.cron import due
from branchline.adapters.servicefile import read_lock, read_service
from branchline.adapters.uv_locks import lock_in, refuse_loose, relocking, there, unlocked
from branchline.cli import show
from branchline.cli.session import SERVICE_FILE, Session
from branchline.core import gates, graph, names
from branchline.core.closure import File, Project, closure_of
from branchline.core.planning import lasting
from branchline.core.reuse import Notice
from branchline.core.revision import Result
from branchline.core.source import summary
from branchline.core.spec import Spec
from branchline.engine.describing import declared
from branchline.engine.fingerprinting import escaped, import_roots
from branchline.errors import BadDag, BadServiceFile, BranchlineError, DataNotPinned, LockMissing, NoServer

LOCK_FILE = "data.lock"
SERVERS = ("uvicorn", "granian", "hypercorn")
PACKAGE = re.compile(r'^(?:name = "([^"]+)"|([A-Za-z0-9][A-Za-z0-9._-]*)\s*==)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    service: str
    code: str
    text: str
    hint: str


def problems(session: Session, service: str, folder: str) -> list[Problem]:
    """Everything that is wrong with one service."""
    root = session.tree.root
    path = f"{folder}/{SERVICE_FILE}"
    try:
        spec = read_service((root / path).read_bytes(), path)
    except BadServiceFile as error:
        told = error.fields.get("problems") or [error.cause]
        return [Problem(service, error.code, f"{path}: {each}", f"edit {path}") for each in told]
    found = syntax(spec, root / folder)
    code = [] if found else [dag, functions, compared]
    for check in [*code, files, schemas, pins, schedules, environment, server, plan, guarded]:
        try:
            found += check(spec, root / folder)
        except BranchlineError as error:
            text = error.message + (f": {error.cause}" if error.cause else "")
            found.append(Problem(service, error.code, text, error.next))
    return found


def syntax(spec: Spec, folder: Path) -> list[Problem]:
    """Every module can be read."""
    found = []
    for module, text in sources(folder).items():
        try:
            ast.parse(text)
        except (SyntaxError, ValueError) as error:
            where = f"{spec.folder}/{module.replace('.', '/')}.py:{getattr(error, 'lineno', None) or 1}"
            said = f"{where}: {getattr(error, 'msg', error)}"
            found.append(Problem(spec.name, BadDag.code, said, f"edit {where.rpartition(':')[0]}"))
    return found


def dag(spec: Spec, folder: Path) -> list[Problem]:
    """Every parameter of every step is given by something, and nothing waits for itself."""
    try:
        graph.needs(spec, sources(folder))
    except BadDag as error:
        hint = f"edit [steps] in {spec.folder}/{SERVICE_FILE}, or the function's parameters"
        return [Problem(spec.name, error.code, each, hint) for each in error.cause.split("; ")]
    return []


def functions(spec: Spec, folder: Path) -> list[Problem]:
    """Every function that the service file names outside its steps is there."""
    texts = sources(folder)
    called = [("serve.predict", spec.serving.predict), ("serve.load", spec.serving.load)]
    called += [(f"gate {gate.name}", gate.call) for gate in spec.gates]
    found = []
    for where, call in called:
        module, _, function = call.partition(":")
        if call and (module not in texts or graph.parameters_of(texts[module], function) is None):
            text = f"{where}: there is no function {call} in {spec.folder}"
            found.append(Problem(spec.name, BadServiceFile.code, text, f"edit {spec.folder}/{SERVICE_FILE}"))
    return found


def files(spec: Spec, folder: Path) -> list[Problem]:
    """Every path that the service file names is there."""
    named = [("serve.sample", spec.serving.sample)]
    named += [(f"gate {gate.name}", gate.path) for gate in spec.gates]
    return [
        Problem(
            spec.name, BadServiceFile.code, f"{where}: {spec.folder}/{path} is not there", f"write {spec.folder}/{path}"
        )
        for where, path in named
        if path and not (folder / path).exists()
    ]


def schemas(spec: Spec, folder: Path) -> list[Problem]:
    """A declared schema says what is accepted and answered."""
    if spec.serving.schema:
        declared(folder / spec.serving.schema, f"{spec.folder}/{spec.serving.schema}")
    return []


def pins(spec: Spec, folder: Path) -> list[Problem]:
    """Every data source is pinned."""
    path = folder / LOCK_FILE
    locked = read_lock(path.read_bytes(), f"{spec.folder}/{LOCK_FILE}") if path.is_file() else {}
    missing = [DataNotPinned(source=each.name, service=spec.name) for each in spec.data if each.name not in locked]
    return [Problem(spec.name, error.code, error.message, error.next) for error in missing]


def schedules(spec: Spec, folder: Path) -> list[Problem]:
    """Every schedule comes at some time."""
    for source in spec.data:
        if source.every:
            due(source.every, time.time())
    return []


def environment(spec: Spec, folder: Path) -> list[Problem]:
    """There is a lock file where packages are asked for, and it leaves nothing open."""
    lock = lock_in(spec.name, folder, spec.folder)
    if lock:
        refuse_loose(spec.name, lock, spec.folder)
    return []


def server(spec: Spec, folder: Path) -> list[Problem]:
    """What serves by `predict` has a server in its lock, if there is one."""
    try:
        lock = lock_in(spec.name, folder, spec.folder)
    except LockMissing:  # which is said by itself
        return []
    text = lock.read_text(encoding="utf-8", errors="replace") if lock else ""
    packages = {re.sub(r"[-_.]+", "-", first or second).lower() for first, second in PACKAGE.findall(text)}
    if spec.serving.predict and not packages.intersection(SERVERS):
        raise NoServer(service=spec.name)
    return []


def plan(spec: Spec, folder: Path) -> list[Problem]:
    """What is to be judged by an A/B test says by what, and what is worth a change."""
    if spec.kind != "model" or spec.rollout.skip_ab or spec.benchmark:
        return []
    found = gates.planned(spec.metric, None)
    if found.result is Result.PASS:
        return []
    return [Problem(spec.name, BadServiceFile.code, found.summary, f"edit [metric] in {spec.folder}/{SERVICE_FILE}")]


def too_long(service: str, folder: str, plan: Mapping[str, Any]) -> list[Problem]:
    """A test that would not be over when it has to end, with the traffic there was."""
    if plan["fits"]:
        return []
    text = f"{folder}/{SERVICE_FILE}: {plan['text']}, and max_duration is {lasting(plan['limit_days'])}"
    return [Problem(service, BadServiceFile.code, text, f"branchline plan-test {service}")]


def compared(spec: Spec, folder: Path) -> list[Problem]:
    """Every number that a gate compares is in what its step returns, where the code says at a glance what that is."""
    texts, calls, found = sources(folder), {step.name: step.call for step in spec.steps}, []
    for gate in spec.gates:
        step, _, keys = gate.value.partition(".")
        key, known = keys.partition(".")[0], returned(texts, calls.get(step, ""))
        if known and key not in known:
            text = f"gate {gate.name}: {step} returns no {key!r}.{show.nearest(key, known)}"
            hint = f"edit [gates] in {spec.folder}/{SERVICE_FILE}"
            found.append(Problem(spec.name, BadServiceFile.code, text, hint))
    return found


def returned(texts: Mapping[str, str], call: str) -> set[str]:
    """The keys of the dicts that a function returns; none when any return is something else."""
    module, _, function = call.partition(":")
    tree = ast.parse(texts.get(module, ""))
    found: set[str] = set()
    bodies = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and each.name == function]
    for value in (node.value for body in bodies for node in ast.walk(body) if isinstance(node, ast.Return)):
        keys = value.keys if isinstance(value, ast.Dict) else [None]
        if not all(isinstance(key, ast.Constant) for key in keys):
            return set()
        found |= {str(key.value) for key in keys if isinstance(key, ast.Constant)}
    return found


def guarded(spec: Spec, folder: Path) -> list[Problem]:
    """Some gate is declared: without one nothing would be checked, and the evaluation fails."""
    if spec.gates:
        return []
    text = "no gate is declared: an evaluation that checks nothing fails"
    return [Problem(spec.name, BadServiceFile.code, text, f"write [gates] in {spec.folder}/{SERVICE_FILE}")]


def unsure(root: Path, service: str, folder: str) -> list[Notice]:
    """What a person should know of the reuse of a service's steps, as far as their text tells; () where `problems` has
    more to say.
    """
    path = f"{folder}/{SERVICE_FILE}"
    try:
        spec = read_service((root / path).read_bytes(), path)
    except BadServiceFile:
        return []
    files = {name: File(sha256(text).hexdigest(), len(text)) for name, text in contents(root, spec)}
    project = Project(files, import_roots(spec), lambda name: summary((root / name).read_bytes()))
    found: list[Notice] = []
    for step in (each for each in spec.steps if each.call):
        declared = frozenset(name for name, _ in step.env)
        found += escaped(step, closure_of(project, step.call, declared).notices)
    return found


def behind(session: Session, service: str, folder: str) -> list[Notice]:
    """What lies in the work tree and no build uses: data that is not pinned so, packages that are not locked."""
    from branchline.adapters.folder import FolderArtifacts
    from branchline.adapters.sources import LocalSources

    root, state = session.tree.root, session.settings.state
    spec = read_service((root / folder / SERVICE_FILE).read_bytes(), f"{folder}/{SERVICE_FILE}")
    lock, found = lock_in(service, root / folder, folder), list[Notice]()
    if lock and (missing := unlocked(lock)):
        text = f"{folder}/{lock.name} is behind requirements.in: {', '.join(missing)}"
        found.append(Notice("BL311", f"{text} hint: {there(folder, relocking(lock))}"))
    path = root / folder / LOCK_FILE
    pins = read_lock(path.read_bytes(), f"{folder}/{LOCK_FILE}") if path.is_file() else {}
    if pins and (state / "sources").is_dir():
        kept = LocalSources(root, state / "sources", FolderArtifacts(state / "store"))
        changed = [s.name for s in spec.data if s.name in pins and kept.differs(s.name, s.where, pins[s.name])]
        hint = "hint: branchline data update"
        found += [
            Notice("BL310", f"{name} of {service} was changed since it was pinned {hint} {name}") for name in changed
        ]
    return found


def contents(root: Path, spec: Spec) -> Iterator[tuple[str, bytes]]:
    """The files that a service is made of as they lie in the work tree, hidden ones left out."""
    for top in spec.closure:
        for path in sorted((root / top).rglob("*")) if (root / top).is_dir() else [root / top]:
            parts = path.relative_to(root).parts
            if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in parts):
                yield "/".join(parts), path.read_bytes()


def branch_problem(branch: str) -> Problem | None:
    """A branch whose name nearly means something; None for what is nobody's business."""
    near = branch.startswith(("experiment-", "fix-")) or "--" in branch
    if not near or names.branch(branch):
        return None
    hint = "git branch -m experiment--SERVICE--HANDLE"
    return Problem(
        "", "BL101", f"the branch {branch!r} is not delivered: its name says neither experiment nor fix", hint
    )


def sources(folder: Path) -> dict[str, str]:
    """The text of a service's modules by name, hidden folders left out."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if not any(part.startswith((".", "__pycache__")) for part in parts):
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text(encoding="utf-8", errors="replace")
    return found

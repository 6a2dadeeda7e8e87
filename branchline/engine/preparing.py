"""This file gets a commit ready to be built, tested and served: its code, spec, environment, data and laid-out
artifacts.

Everything it lays out is named by content and never changed afterwards, so doing it twice is doing it once.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from branchline.core.revision import Revision
from branchline.core.service import Method
from branchline.core.spec import Spec, governed
from branchline.errors import BadServiceFile, DataNotPinned, UnknownService
from branchline.ports import Bench, Environment, Group, Ports

SERVICE_FILE = "branchline.toml"
LOCK_FILE = "data.lock"
EXPERIMENT_LOG = "EXPERIMENT.md"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # a server's processes are many, and each is asked one thing at a time


@dataclass(frozen=True, slots=True)
class Prepared:
    """A commit of a service, ready: `code` is the whole repository at it, `folder` the service's in it.

    `environments` are those of its steps by folder in the service, '' the service's own (2.26).
    """

    spec: Spec
    commit: str
    tree: str
    code: Path
    environments: Mapping[str, Environment]
    sdk: str
    sdk_path: Path
    data: Mapping[str, Path]
    data_digests: Mapping[str, str]

    @property
    def environment(self) -> Environment:
        """The service's own environment: it serves in it, and its gates run in it."""
        return self.environments[""]

    @property
    def folder(self) -> Path:
        """Where the service's own files lie."""
        return self.code / self.spec.folder

    @property
    def imports(self) -> tuple[Path, ...]:
        """Where its modules are looked for, in order: its folder, and the root of what it shares, when it does."""
        return (self.folder, shared_root(self.code)) if self.spec.shared else (self.folder,)


def spec_at(ports: Ports, service: str, commit: str) -> Spec:
    """The service file of a commit; raises UnknownService when the commit has no such service."""
    folders = [f for f in ports.repository.folders(commit, SERVICE_FILE) if f.rpartition("/")[2] == service]
    if not folders:
        raise UnknownService(f"no folder named {service} holds a {SERVICE_FILE} in {commit[:7]}", name=service)
    if len(folders) > 1:
        raise BadServiceFile("two folders have this name: " + ", ".join(folders), path=folders[0])
    path = f"{folders[0]}/{SERVICE_FILE}"
    return ports.read_spec(ports.repository.read(commit, path) or b"", path)


def governed_spec(ports: Ports, service: str, commit: str, trunk: str) -> Spec:
    """The spec of a commit under the policy of the trunk's tip ('' or a trunk without the service: its own, F10)."""
    own = spec_at(ports, service, commit)
    if not trunk:
        return own
    try:
        return governed(own, spec_at(ports, service, trunk))
    except UnknownService:
        return own


def method_of(spec: Spec) -> Method:
    """How a new solution is judged, as its file says: a model by an A/B test, unless a policy has a reason (1.41)."""
    if spec.benchmark:
        return Method.BENCHMARK
    if spec.kind == "model" and not spec.rollout.skip_ab:
        return Method.AB_TEST
    return Method.BLUE_GREEN if spec.rollout.method == "blue-green" else Method.CANARY


def code_of(ports: Ports, spec: Spec, commit: str) -> Path:
    """The whole repository at a commit, as a folder that never changes; what the service is made of is safe (F11)."""
    folder = ports.state / "trees" / spec.name / commit
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        ports.repository.export(commit, folder, spec.closure)
    root = shared_root(folder)
    if spec.shared and not root.exists():
        draft = root.with_name(f".{root.name}-{uuid.uuid4().hex[:8]}")
        try:
            link_paths(folder, spec.shared, draft)
            with suppress(OSError):  # somebody else was first with the same
                draft.rename(root)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def shared_root(code: Path) -> Path:
    """The folder that leads to the shared paths of a laid-out commit and to nothing else: what is not part of a
    revision is not to be imported by it.
    """
    return code.with_name(f"{code.name}-shared")


def link_paths(code: Path, paths: Iterable[str], root: Path) -> None:
    """Link these paths of a laid-out commit at the same places below a folder; no copies, which nobody would check."""
    root.mkdir()
    for path in sorted({*paths}):
        source, place = code / path, root / path
        if source.exists() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.path.relpath(source, place.parent))


def copy_paths(code: Path, paths: Iterable[str], target: Path) -> None:
    """Copy these paths of a laid-out commit to the same places below a folder; one within another is copied once."""
    target.mkdir(parents=True)
    for path in sorted({*paths}):
        source, place = code / path, target / path
        if place.exists() or not source.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True)
        else:
            shutil.copy2(source, place)


def working_copy(prepared: Prepared, work: Path) -> Path:
    """Copy all that the revision is made of, for commands that may write; returns the service's folder in it."""
    copy_paths(prepared.code, prepared.spec.closure, work)
    return work / prepared.spec.folder


def pinned(ports: Ports, spec: Spec, commit: str) -> dict[str, str]:
    """Source -> digest of its manifest, as `data.lock` of the commit pins it; raises DataNotPinned."""
    text = ports.repository.read(commit, f"{spec.folder}/{LOCK_FILE}")
    locked = dict(ports.read_lock(text, f"{spec.folder}/{LOCK_FILE}")) if text is not None else {}
    for source in spec.data:
        if source.name not in locked:
            raise DataNotPinned(source=source.name, service=spec.name)
    return {source.name: locked[source.name] for source in spec.data}


def prepare(ports: Ports, spec: Spec, commit: str) -> Prepared:
    """Lay out code, environment and data of a commit; may take minutes when the environment is new."""
    code = code_of(ports, spec, commit)
    digests = pinned(ports, spec, commit)
    data = {source: laid_data(ports, source, digest) for source, digest in digests.items()}
    environments = {
        folder: ports.environments.ensure(f"{spec.name}/{folder}".rstrip("/"), code / spec.folder / folder, spec.python)
        for folder in sorted({"", *(step.environment for step in spec.steps)})
    }
    sdk, sdk_path = ports.environments.sdk()
    return Prepared(
        spec, commit, ports.repository.tree(commit, spec.closure), code, environments, sdk, sdk_path, data, digests
    )


def laid_data(ports: Ports, source: str, digest: str) -> Path:
    """A data version as a folder that is never changed."""
    folder = ports.state / "data" / digest
    if not folder.exists():
        ports.sources.lay(source, digest, folder)
    return folder


def laid(ports: Ports, artifact: str) -> Path:
    """An artifact as a folder that is never changed."""
    folder = ports.state / "laid" / artifact
    if not folder.exists():
        ports.artifacts.get(artifact, folder)
    return folder


def closed_environment(prepared: Prepared, home: Path, environment: Environment | None = None) -> dict[str, str]:
    """The whole environment of a step, gate or server: a fixed base and nothing of the person's shell (2.24).

    `environment` is a step's own, else the service's.
    """
    imports = ":".join(str(path) for path in (prepared.sdk_path, *prepared.imports))
    return {**base(environment or prepared.environment), "HOME": str(home), "PYTHONPATH": imports}


def base(environment: Environment) -> dict[str, str]:
    """What is the same for all that runs in an environment."""
    return {
        "PATH": f"{environment.python.parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        **pycache(environment),
    }


def bench_of(prepared: Prepared, environment: Environment) -> Bench:
    """The warm worker of an environment."""
    return Bench(environment.python, prepared.sdk_path, base(environment))


def modules_of(spec: Spec) -> list[str]:
    """The modules that serving begins with, and those that made what it loads: a pickle needs what they import."""
    calls = (spec.serving.predict, spec.serving.load, *(step.call for step in spec.steps if not step.environment))
    return sorted({call.partition(":")[0] for call in calls if call})


def origin_of(prepared: Prepared) -> Bench:
    """The process that servers are forked from: it has all variables that are not a revision's own."""
    bench = bench_of(prepared, prepared.environment)
    return replace(bench, env={**bench.env, **dict(prepared.spec.serving.env), **ONE_THREAD})


def pycache(environment: Environment) -> dict[str, str]:
    """Where the environment's bytecode lies, compiled once for a lock."""
    folder = environment.python.parent.parent.parent / "pycache"
    return {"PYTHONPYCACHEPREFIX": str(folder)} if folder.is_dir() else {"PYTHONDONTWRITEBYTECODE": "1"}


def group_of(ports: Ports, revision: Revision, prepared: Prepared, perimeter: str) -> Group:
    """The instance group of a revision in a perimeter: same command, environment and artifacts in each (3.15, 2.24)."""
    spec, serving = prepared.spec, prepared.spec.serving
    home = ports.state / "revisions" / spec.name / revision.commit
    home.mkdir(parents=True, exist_ok=True)
    results = {step: str(laid(ports, artifact)) for step, artifact in revision.artifacts}
    order = {
        "predict": serving.predict,
        "load": serving.load,
        "sample": str(prepared.folder / serving.sample) if serving.sample else "",
        "results": results,
        "parameters": dict(spec.parameters),
        "modules": modules_of(spec),
    }
    (home / "serving.json").write_text(json.dumps(order, sort_keys=True))
    environment = closed_environment(prepared, home) | dict(serving.env)
    environment |= {
        "BRANCHLINE_SERVICE_SPEC": str(home / "serving.json"),
        "BRANCHLINE_REVISION": revision.name,
        "BRANCHLINE_PERIMETER": perimeter,
        "BRANCHLINE_GATEWAY": ports.router.address(spec.name).removesuffix(f"/{spec.name}/"),
        **{f"BRANCHLINE_RESULT_{step.upper().replace('-', '_')}": path for step, path in results.items()},
    }
    if serving.predict:
        argv: tuple[str, ...] = (str(prepared.environment.python), "-P", "-m", "branchline.sdk.serve")
        environment |= ONE_THREAD
    else:
        argv = serving.command
    return Group(
        service=spec.name,
        revision=revision.commit,
        version=revision.version,
        perimeter=perimeter,
        argv=argv,
        cwd=prepared.folder,
        env=environment,
        health="/-/health" if serving.predict else serving.health,
        start_seconds=serving.start_seconds,
        drain_seconds=serving.drain_seconds,
        instances=serving.instances,
        nonce_aware=bool(serving.predict),
        requests=serving.requests,
        limits=serving.limits,
        bench=origin_of(prepared) if serving.prewarm else None,
    )

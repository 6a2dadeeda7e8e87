"""This file finds what a revision accepts and answers: the schema document that is part of the build's result.

A declared file says it; else the type hints of `predict` do, read by the sdk inside the service's own environment.
Nothing of the service is imported here, and a function without any hint is not even asked.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from branchline.core import schema
from branchline.core.graph import hinted
from branchline.core.revision import StepRun
from branchline.core.spec import Spec
from branchline.engine.building import build, modules
from branchline.engine.preparing import Prepared, bench_of, closed_environment
from branchline.engine.progress import Progress
from branchline.errors import BadServiceFile
from branchline.ports import Ports

Stopped = Callable[[], bool]
SECONDS = 120.0


def build_and_describe(
    ports: Ports,
    prepared: Prepared,
    progress: Progress,
    topic: str,
    stopped: Stopped = lambda: False,
    keep_going: bool = False,
) -> tuple[tuple[StepRun, ...], str]:
    """What became of every step, and the schema document: found beside the build, whose worker imports the same
    libraries. Raises what `build` and `schema_of` raise.
    """
    over = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="schema") as beside:
        found = beside.submit(schema_of, ports, prepared, progress, topic, lambda: over.is_set() or stopped())
        try:
            return build(ports, prepared, progress, topic, stopped, keep_going=keep_going), found.result()
        finally:
            over.set()


def schema_of(
    ports: Ports, prepared: Prepared, progress: Progress, topic: str, stopped: Stopped = lambda: False
) -> str:
    """The schema document of a commit, '' when nothing is said; raises BadServiceFile for a file that is none."""
    spec = prepared.spec
    text = ""
    if spec.serving.schema:
        text = declared(prepared.folder / spec.serving.schema, f"{spec.folder}/{spec.serving.schema}")
    elif spec.serving.predict and hinted(spec.serving.predict, modules(prepared.folder)):
        answer = hints(ports, prepared, stopped)
        if answer.get("ok"):
            text = json.dumps(answer["value"], sort_keys=True)
        else:
            progress.note(spec.name, topic, "??", "schema", f"the hints cannot be read: {answer.get('error')}")
    return text if schema.says_something(text) else ""


def declared(path: Path, named: str) -> str:
    """The document of a declared file, in one form."""
    try:
        return json.dumps(schema.read(path.read_text(encoding="utf-8")), sort_keys=True)
    except (OSError, ValueError) as error:
        cause = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise BadServiceFile(cause, path=named) from error


def hints(ports: Ports, prepared: Prepared, stopped: Stopped) -> Mapping[str, object]:
    """The worker's answer about the hints of `predict`."""
    home = ports.state / "runs" / uuid.uuid4().hex[:12]
    home.mkdir(parents=True)
    order = {
        "step": "schema",
        "call": prepared.spec.serving.predict,
        "gate": True,
        "describe": True,
        "known": known(prepared.spec),
        "log": str(home / "schema.log"),
        "seconds": SECONDS,
        "cwd": str(prepared.folder),
        "env": closed_environment(prepared, home),
    }
    return ports.workers.do(bench_of(prepared, prepared.environment), order, stopped)


def known(spec: Spec) -> list[str]:
    """What a parameter of `predict` may name besides the request."""
    model = ["model"] if spec.serving.load else []
    return sorted({*model, *(step.name for step in spec.steps), *(name for name, _ in spec.parameters)})

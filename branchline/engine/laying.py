"""This file lays out what a revision needs beside its code: its environment, its data, its results.

What is here already is only named. What is gone for good is told, and the rest laid out all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from branchline.core.revision import Revision
from branchline.engine.preparing import code_of, laid, laid_data, spec_at
from branchline.errors import BranchlineError
from branchline.ports import Ports

Document = dict[str, Any]


def lay_out(ports: Ports, revision: Revision) -> Document:
    """Where a revision's interpreter, results and data lie, each laid out when it was not; `missing` says of the others
    why they cannot be (3.30).
    """
    ports.repository.borrow(revision.commit)
    missing: dict[str, str] = {}

    def placed(name: str, act: Callable[[], Path]) -> str:
        try:
            return str(act())
        except BranchlineError as error:
            cause = f": {error.cause}" if error.cause else ""
            missing[name] = f"{error.code}: {error.message}{cause}"
            return ""

    environment = placed("environment", lambda: environment_of(ports, revision, missing))
    artifacts = {step: placed(f"result {step}", partial(laid, ports, digest)) for step, digest in revision.artifacts}
    data = {
        source: placed(f"data {source}", partial(laid_data, ports, source, digest)) for source, digest in revision.data
    }
    return {
        "schema": "branchline.laid-out/1",
        "reference": revision.name,
        "service": revision.service,
        "version": revision.version,
        "commit": revision.commit,
        "environment": revision.environment,
        "python": environment,
        "artifacts": artifacts,
        "data": data,
        "missing": missing,
    }


def environment_of(ports: Ports, revision: Revision, missing: dict[str, str]) -> Path:
    """The interpreter of a revision's locked environment, built again where it is gone; `missing` is told when only
    one with another Python can be had.
    """
    spec = spec_at(ports, revision.service, revision.commit)
    folder = code_of(ports, spec, revision.commit) / spec.folder
    found = ports.environments.ensure(spec.name, folder, spec.python)
    if found.digest != revision.environment:
        missing["environment"] = "the Python that it was built with is not here any more: this is another one"
    return found.python

"""This file runs steps of a scratch project on every Python found here, each in a fork that records what it meets.

Run as a program it is the process that forks: it knows the sdk and the standard library alone, as a worker does. An
order is a line of JSON `{roots, cwd, env, call, plan, told, scratch}`, the answer `{result}`: what the call returned or
raised, as text. Python 3.11 runs the tests and is always here; others are looked for by the names they have on
the PATH and where pyenv and uv keep them, and taken if they start.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
CALL = "step:step"
VERSIONS = ("3.11", "3.12", "3.13")
KEPT = (".pyenv/versions/*/bin", ".local/share/uv/python/*/bin")
ASK = "import sys; print(*sys.version_info[:3], sep='.')"


@functools.cache
def interpreters() -> dict[str, str]:
    """Full version -> an interpreter that runs; this one, and at most one of each other minor version."""
    found = {".".join(map(str, sys.version_info[:3])): sys.executable}
    home = pwd.getpwuid(os.getuid()).pw_dir  # HOME is a test's own
    for minor in VERSIONS:
        kept = [path for where in KEPT for path in sorted(glob(f"{home}/{where}/python{minor}"))]
        for path in (f"python{minor}", *kept):
            if any(version.startswith(f"{minor}.") for version in found):
                break
            try:
                said = subprocess.run((path, "-I", "-c", ASK), capture_output=True, text=True, timeout=60, check=True)
            except (OSError, subprocess.SubprocessError):
                continue
            if said.stdout.startswith(f"{minor}."):
                found[said.stdout.strip()] = path
    return found


class Stepper:
    """An interpreter that forks for each step it is asked for."""

    def __init__(self, python: str) -> None:
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
        argv = (python, "-P", "-S", "-B", str(Path(__file__)))  # no packages: some start with the interpreter
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
        self.scratch = tempfile.TemporaryDirectory()
        said = subprocess.run((python, "-I", "-c", ASK), capture_output=True, text=True, check=True).stdout
        self.version = tuple(map(int, said.split(".")))

    def run(
        self,
        root: Path,
        call: str,
        plan: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        roots: Sequence[str] = (),
    ) -> tuple[str, list[list[str]]]:
        """What `module:function` did in the project at `root`, and the facts if there is a plan."""
        told = Path(self.scratch.name) / "told"
        told.write_bytes(b"")
        roots = roots or (plan or {}).get("roots", [str(root)])
        asked: dict[str, Any] | None = None
        if plan is not None:
            asked = {"root": str(root), "roots": roots, "imported": [], "covered": {}} | dict(plan)
            asked["allowed"] = [*asked.get("allowed", ()), self.scratch.name, __file__]  # spawned workers run us again
        order = {"roots": roots, "cwd": str(root), "env": dict(env or {}), "call": call, "plan": asked}
        order |= {"told": str(told), "scratch": self.scratch.name}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        result = json.loads(self.process.stdout.readline())["result"]
        return result, heard(told.read_bytes())

    def close(self) -> None:
        """End the process that forks."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
        self.scratch.cleanup()


FILES: Mapping[str, str] = {
    "sql/q.sql": "",
    "other.py": "ONE = 1\nclass Thing: pass\n",
    "package/__init__.py": "",
    "package/inner.py": "ONE = 1\n",
    "package/no-name.py": "",
}


class Project:
    """A project with one step."""

    def __init__(self, root: Path, python: Stepper) -> None:
        self.root, self.python = root, python
        self.result = ""

    def facts(
        self,
        body: str,
        plan: Mapping[str, Any] | None = None,
        files: Mapping[str, str] | None = None,
        top: str = "",
        env: Mapping[str, str] | None = None,
    ) -> list[tuple[str, ...]]:
        """What is told of a step with such a body, without its own module and what pickle asks for in 3.11."""
        lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
        step = f"import os, sys\nfrom pathlib import Path\n{top}\ndef step():\n{lines}"
        for name, text in {"step.py": step, **FILES, **(files or {})}.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        known = {"imported": ["step"], "covered": {"step": ["step"]}} | dict(plan or {})
        self.result, facts = self.python.run(self.root, CALL, known, env)
        return [tuple(fact) for fact in facts if fact not in (["module", "step"], ["module", "org"])]

    @property
    def sees_code(self) -> bool:
        """Whether this Python tells which code runs (PEP 669)."""
        return self.python.version >= (3, 12)


def heard(text: bytes) -> list[list[str]]:
    """What a recorder told."""
    from branchline.sdk.record import heard

    return heard(text)


def main(orders: IO[str], answers: int) -> None:
    """Fork for each order and wait for it."""
    for line in orders:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writing, json.dumps({"result": step(json.loads(line))}).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as said:
            text = said.read()
        os.waitpid(child, 0)
        os.write(answers, (text or b'{"result": "it died"}') + b"\n")


def step(order: Mapping[str, Any]) -> str:
    """Be the fork: record, import, call."""
    from branchline.sdk import record

    os.environ.update(order["env"], TMPDIR=order["scratch"], HOME=order["scratch"])
    tempfile.tempdir = order["scratch"]
    sys.path = [*order["roots"], *(folder for folder in sys.path if folder != str(ROOT))]
    os.chdir(order["cwd"])
    if order["plan"] is not None:
        record.begin(os.open(order["told"], os.O_WRONLY | os.O_APPEND), order["plan"])
    module, _, name = order["call"].partition(":")
    try:
        return repr(getattr(importlib.import_module(module), name)())
    except Exception as error:  # noqa: BLE001 - what a step raises is its result here
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    importlib.import_module("branchline.sdk.record")
    said = os.dup(1)
    os.dup2(2, 1)
    main(sys.stdin, said)

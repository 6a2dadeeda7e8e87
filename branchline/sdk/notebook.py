"""This file reads revisions and runs from a notebook or a script: `branchline.load("housing@1.2.0").artifact("model")`.

It asks the daemon of the repository that one works in, by its socket, and reads what that lays out, in the caller's own
process and environment. Results that run their author's code as they are read (pickles) are read in the environment
that the revision was built in, or when the caller says `trust=True`, knowing where the revision came from. Standard
library only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from branchline.errors import DaemonDown, NotARepository
from branchline.sdk import savers, values
from branchline.sdk.load import UnixConnection
from branchline.sdk.report import Refused

SECONDS = 60.0


class Untrusted(Exception):
    """Reading this result would run code of whoever made it, in an environment that it was not made in."""


class Loaded:
    """One revision: what it is called, what its steps told, and their results."""

    def __init__(self, daemon: Daemon, document: dict[str, Any]) -> None:
        self._daemon = daemon
        self.document = document
        self.name = str(document["name"])
        self.service, self.version, self.commit = (str(document[key]) for key in ("service", "version", "commit"))
        self.steps = tuple(document["artifacts"])

    def __repr__(self) -> str:
        return f"<{self.name} {self.commit[:7]}: {', '.join(self.steps)}>"

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric that its steps logged, named `STEP: NAME` where several told it."""
        return dict(self.document["metrics"])

    def path(self, step: str) -> Path:
        """Where a step's result lies, to be read and never changed; raises Refused when there is none."""
        return values.where(self._folder(step))

    def artifact(self, step: str, *, trust: bool = False) -> Any:
        """A step's result, read with the libraries of this process; raises Untrusted.

        Without `trust`, pickles (and joblib's) are read only in the environment that the revision was built in, and
        a model of skops only if it is made of types that skops knows.
        """
        folder = self._folder(step)
        if trust or at_home(str(self.document["environment"])):
            return values.load(folder)
        try:
            return without_code(folder)
        except Untrusted:
            python = f"branchline checkout {self.name} lays it out, and names its Python"
            said = f"{step} of {self.name} is a pickle: give trust=True if you trust it here, or {python}"
            raise Untrusted(said) from None

    def _folder(self, step: str) -> Path:
        return Path(self._daemon.ask("POST", "/v1/lay", {"reference": self.name, "step": step})["path"])


def load(reference: str, *, repository: str | Path = ".") -> Loaded:
    """The revision that a reference names (`housing@1.2.0`, `housing@incumbent`, a branch, a commit).

    Raises Refused when the daemon does not know it, DaemonDown, and NotARepository.
    """
    daemon = Daemon(Path(repository))
    return Loaded(daemon, daemon.ask("GET", "/v1/revision", reference=reference))


def runs(
    service: str = "", *, step: str = "", state: str = "", where: str | Sequence[str] = (), limit: int = 100,
    repository: str | Path = ".",
) -> list[dict[str, Any]]:  # fmt: skip
    """Recorded runs, newest first, as flat rows: `pandas.DataFrame(branchline.runs("housing", where="mape<10"))`.

    A step's state is under `steps.NAME`, a metric's last value under `metrics.NAME`. Raises as `load` does.
    """
    bounds = where if isinstance(where, str) else ",".join(where)
    daemon = Daemon(Path(repository))
    found = daemon.ask("GET", "/v1/runs", service=service, step=step, state=state, where=bounds, limit=str(limit))
    return [flat(run) for run in found["runs"]]


def flat(run: dict[str, Any]) -> dict[str, Any]:
    """A run as one row."""
    row = {name: value for name, value in run.items() if not isinstance(value, dict)}
    for part in ("steps", "metrics"):
        row |= {f"{part}.{name}": value for name, value in run[part].items()}
    return row


def without_code(folder: Path) -> Any:
    """A result that is read without running code of its author; raises Untrusted."""
    if (folder / values.ITEMS).is_dir():
        return [without_code(each) for each in sorted((folder / values.ITEMS).iterdir())]
    name = values.kept(folder)
    if name in savers.CODE:
        raise Untrusted(name)
    return savers.read_skops(folder / name, trust=False) if name == "value.skops" else values.load(folder)


def at_home(environment: str) -> bool:
    """Whether this process runs in the environment of that digest."""
    return Path(sys.prefix).parent.name == environment


class Daemon:
    """The daemon of the repository that a folder belongs to."""

    def __init__(self, folder: Path) -> None:
        self.state = Path(os.environ.get("BRANCHLINE_STATE") or common(folder.resolve()) / "branchline").resolve()

    def ask(self, method: str, path: str, /, body: Mapping[str, str] | None = None, **query: str) -> dict[str, Any]:
        """Ask it; raises DaemonDown, or Refused with what it said."""
        try:
            told = json.loads((self.state / "daemon.json").read_text(encoding="utf-8"))
            connection = UnixConnection(told["socket"], SECONDS)
            text = None if body is None else json.dumps(body)
            given = urlencode({name: value for name, value in query.items() if value})
            connection.request(method, f"{path}?{given}", text, {"content-type": "application/json"})
            answer = connection.getresponse()
            document = json.loads(answer.read())
            connection.close()
        except (OSError, HTTPException, ValueError) as error:
            down = DaemonDown(f"{self.state}: {error}")
            down.add_note(f"{down.cause}\nnext: {down.hint}")
            raise down from None
        if answer.status >= 400:
            raise Refused(answer.status, document)
        return dict(document)


def common(folder: Path) -> Path:
    """Git's common folder of the work tree that a folder lies in, linked work trees included; raises NotARepository."""
    for top in (folder, *folder.parents):
        git = top / ".git"
        if git.is_file():
            own = top / git.read_text(encoding="utf-8").partition("gitdir:")[2].strip()
            shared = own / "commondir"
            return (own / shared.read_text(encoding="utf-8").strip()) if shared.is_file() else own
        if git.is_dir():
            return git
    raise NotARepository(path=str(folder))

"""This file says where things lie for one repository, and what its environment and its own file ask for.

State is `branchline` below git's common folder, so that all work trees of a clone share it. Sockets lie in a short
folder of the person's own, for a socket's path has at most 107 bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from branchline.adapters.git_worktree import WorkTree
    from branchline.core.spec import Project

PROJECT_FILE = "branchline.toml"
LONGEST_SOCKET = 107
ROOM = 40  # what a socket's own name may take


@dataclass(frozen=True, slots=True)
class Settings:
    """The places of one repository: `top` is its work tree, `common` git's common folder."""

    top: Path
    common: Path
    state: Path
    runtime: Path

    @property
    def socket(self) -> Path:
        """Where the daemon's API listens."""
        return self.runtime / "api.sock"

    @property
    def ingest(self) -> Path:
        """Where outcomes come in from the gateway."""
        return self.runtime / "ingest.sock"


def settings_of(top: Path, common: Path, state: str = "", environ: Mapping[str, str] | None = None) -> Settings:
    """The places of a repository; `state` or BRANCHLINE_STATE moves the state folder."""
    env = os.environ if environ is None else environ
    chosen = state or env.get("BRANCHLINE_STATE", "")
    folder = Path(chosen).resolve() if chosen else common.resolve() / "branchline"
    return Settings(top.resolve(), common.resolve(), folder, runtime_of(folder, env))


def project_of(top: Path) -> Project:
    """What the project's file at the root of a work tree says, if there is one; raises BadServiceFile."""
    from branchline.core.spec import Project  # here, for both import much

    path = top / PROJECT_FILE
    if not path.is_file():
        return Project(top.name)
    from branchline.adapters.servicefile import read_project

    return read_project(path.read_bytes(), PROJECT_FILE)


def metrics_port(environ: Mapping[str, str] | None = None) -> int | None:
    """The port that BRANCHLINE_METRICS_PORT asks for to be scraped at; 0 when it is `off`, None when it says nothing.

    Raises UsageError for what is no port.
    """
    text = (os.environ if environ is None else environ).get("BRANCHLINE_METRICS_PORT", "")
    if text in ("", "off"):
        return 0 if text else None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        from branchline.errors import UsageError

        hint = "BRANCHLINE_METRICS_PORT=9187 branchline up, or =off"
        raise UsageError(f"BRANCHLINE_METRICS_PORT is neither a port nor off: {text!r}", hint=hint)
    return int(text)


def default_branch(tree: WorkTree) -> str:
    """The branch that shows what serves: what the project's file says, else git (which may ask the remote)."""
    return project_of(tree.root).default_branch or tree.trunk()


def runtime_of(state: Path, environ: Mapping[str, str]) -> Path:
    """The folder for a state folder's sockets: below XDG_RUNTIME_DIR when that is short enough, else below /tmp."""
    mark = hashlib.sha256(str(state).encode()).hexdigest()[:8]
    user = environ.get("XDG_RUNTIME_DIR", "")
    near = Path(user) / "branchline" / mark if user else Path()
    if user and len(str(near)) + ROOM <= LONGEST_SOCKET:
        return near
    return Path("/tmp") / f"branchline-{os.getuid()}" / mark


def made(settings: Settings) -> Settings:
    """Make the folders, readable by their owner alone; raises BadPlace."""
    for folder in (settings.state, settings.runtime.parent, settings.runtime):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if folder != settings.runtime.parent:
                folder.chmod(0o700)
        except OSError as error:
            from branchline.errors import BadPlace

            raise BadPlace(error.strerror or str(error), path=folder) from None
    return settings
